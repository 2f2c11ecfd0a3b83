// One decoding step on the cache: keys and values go in (cache_append), every query head of every row is answered
// (attention_decode). Contract: kernels/attention.h; slots and the caches start at multiples of 16 bytes.
//
// A block answers up to 8 query heads that share a key-value head, so that the cache is read once for all of them. Its
// eight warps share the head dimension: a lane reads 4 neighbouring keys of one component at a time, 512 bytes per
// warp.
//
// Long rows are cut into at most 16 splits, by their own length alone. Many rows: a block computes all splits of a row
// one after another. Few rows: every split has a block, leaves (maximum, sum, mixture) in scratch, and a second kernel
// joins them. Either way the arithmetic is the same, so a row's result does not depend on the rows beside it.
#include <algorithm>

#include "cuda/common.cuh"
#include "cuda/kernels.h"
#include "kernels/attention_host.cuh"

namespace eepo::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kKeys = 128;      // of one step: 4 per lane
constexpr int kMaxSplits = 16;  // of one row
constexpr int kMinSteps = 2;    // of one split, but the last
constexpr int kMaxHeads = 8;    // query heads of one block

// ---- cache_append
// -------------------------------------------------------------------------------------------------------

// A block moves 32 components of 32 tokens through shared memory: rows are read along components, slots are written
// along tokens, whose positions are neighbours in a prompt.
__global__ __launch_bounds__(kThreads) void append_kernel(const float* qkv, int64_t ld, int64_t q_width, int kv_heads,
                                                          int dim, const CacheSlot* slots, int64_t tokens,
                                                          float* cache) {
  __shared__ float tile[kWarp][kWarp + 1];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int components = 2 * kv_heads * dim, column_tiles = (components + kWarp - 1) / kWarp;
  const int64_t first = static_cast<int64_t>(blockIdx.x / static_cast<unsigned>(column_tiles)) * kWarp;
  const int column = static_cast<int>(blockIdx.x % static_cast<unsigned>(column_tiles)) * kWarp;
  for (int t = warp; t < kWarp; t += kWarps)
    if (first + t < tokens && column + lane < components)
      tile[t][lane] = qkv[(first + t) * ld + q_width + column + lane];
  __syncthreads();
  if (first + lane >= tokens) return;
  const CacheSlot slot = slots[first + lane];
  for (int i = warp; i < kWarp && column + i < components; i += kWarps) {
    const int value = (column + i) / (kv_heads * dim), component = (column + i) % (kv_heads * dim);
    const int64_t line = int64_t{2 * (component / dim) + value} * dim + component % dim;
    cache[slot.at + line * slot.capacity + slot.position] = tile[lane][i];
  }
}

// ---- attention_decode
// ---------------------------------------------------------------------------------------------------

// How a row's keys are cut: steps of 128 keys of the prompt, then of its own; splits are runs of steps.
struct Cut {
  int prompt_steps, steps, per_split, splits;
};
__device__ __forceinline__ Cut cut_of(const DecodeRow& row) {
  Cut cut;
  cut.prompt_steps = (row.prompt_length + kKeys - 1) / kKeys;
  cut.steps = cut.prompt_steps + (row.own_length + kKeys - 1) / kKeys;
  const int shared = (cut.steps + kMaxSplits - 1) / kMaxSplits;
  cut.per_split = shared > kMinSteps ? shared : kMinSteps;
  cut.splits = cut.steps > 0 ? (cut.steps + cut.per_split - 1) / cut.per_split : 1;
  return cut;
}

// The softmax so far of one head: maximum (of scores in powers of two) and sum. Written with fmaf() throughout: both
// places that join splits must round alike.
struct Running {
  float top, total;
};
struct Join {
  float old_scale, new_scale;
};
__device__ __forceinline__ Join join(Running& all, const Running& part) {
  const float top = fmaxf(all.top, part.top);
  const Join scales{exp2f(all.top - top), exp2f(part.top - top)};
  all = {top, fmaf(all.total, scales.old_scale, part.total * scales.new_scale)};
  return scales;
}

// 4 keys each of every eighth component from `line` on, which moves past them. What lies behind `length` is not read,
// or (the rest of the last 4, whatever the memory holds) made 0 for kValues: weights of 0 do not stop a NaN. `left`
// components are there, the others count as 0. No branches, so that all loads are under way at once.
template <bool kValues, int N>
__device__ __forceinline__ void load_lines(Pack<float, 4> (&x)[N], const float*& line, int64_t capacity, int left,
                                           int key, int length) {
#pragma unroll
  for (int i = 0; i < N; ++i, line += kWarps * capacity) {
    x[i] = {};
    if (key < length && kWarps * i < left) x[i] = *reinterpret_cast<const Pack<float, 4>*>(line + key);
    if constexpr (kValues) {
#pragma unroll
      for (int e = 1; e < 4; ++e)
        if (key + e >= length) x[i].at[e] = 0;
    }
  }
}

// Sums each of the H values over the warp; the result for head lane * H / 32 stays in the lane.
template <int H>
__device__ __forceinline__ float sum_heads(float (&x)[H], int lane) {
  int offset = kWarp / 2;
#pragma unroll
  for (int n = H / 2; n > 0; n /= 2, offset /= 2) {
    const bool upper = (lane & offset) != 0;
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const float keep = upper ? x[i + n] : x[i], give = upper ? x[i] : x[i + n];
      x[i] = keep + __shfl_xor_sync(kFullMask, give, offset);
    }
  }
#pragma unroll
  for (; offset > 0; offset /= 2) x[0] += __shfl_xor_sync(kFullMask, x[0], offset);
  return x[0];
}

struct DecodeArguments {
  const float* qkv;
  HeadShape shape;
  const DecodeRow* rows;
  const float *prompts, *own;
  int blocks_per_row_head;  // 1: a block computes all splits of its row; else kMaxSplits
  int head_groups;          // of up to H query heads per key-value head
  float *partial, *out;     // partial: [row, head, split, 2 + head_dim]
};

// H: query heads per block (those beyond the group count as zero); kLines: components of the head per warp.
template <int H, int kLines>
__global__ __launch_bounds__(kThreads, kLines <= 16 ? 2 : 1) void decode_kernel(DecodeArguments a) {
  EEPO_DYNAMIC_SHARED(bytes);
  constexpr int kBatch = H >= 4 ? 4 : 8;  // components a warp reads at once
  __shared__ Running running[H];          // of the split
  __shared__ float shrink[H];
  const int dim = a.shape.head_dim, group = a.shape.group();
  auto* scores = reinterpret_cast<float*>(bytes);  // [warp, H, 128], partial sums over components
  float* weights = scores + kWarps * H * kKeys;    // [H, 128]
  float* queries = weights + H * kKeys;            // [dim, H]
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;

  unsigned block = blockIdx.x;
  const int first_split = static_cast<int>(block % static_cast<unsigned>(a.blocks_per_row_head));
  block /= static_cast<unsigned>(a.blocks_per_row_head);
  const int first_head = static_cast<int>(block % static_cast<unsigned>(a.head_groups)) * H;  // within the group
  block /= static_cast<unsigned>(a.head_groups);
  const int kv_head = static_cast<int>(block % static_cast<unsigned>(a.shape.kv_heads));
  const int64_t r = block / static_cast<unsigned>(a.shape.kv_heads);
  const DecodeRow row = a.rows[r];
  const Cut cut = cut_of(row);
  if (first_split >= cut.splits) return;
  const int heads = group - first_head < H ? group - first_head : H;
  const int head_at = kv_head * group + first_head;
  const int my_head = lane * H / kWarp;  // whose mixture the lane keeps

  const float scale = a.shape.scale * kLog2E;
  for (int i = static_cast<int>(threadIdx.x); i < dim * H; i += kThreads) {
    const int h = i / dim, d = i % dim;
    queries[d * H + h] = h < heads ? a.qkv[r * a.shape.ld + int64_t{head_at + h} * dim + d] * scale : 0;
  }
  __syncthreads();

  const float infinity = __int_as_float(0x7f800000);
  Running all{-infinity, 0};
  float mixture[kLines] = {};
#pragma unroll 1
  for (int split = first_split; split < cut.splits; split += a.blocks_per_row_head) {
    Running mine{-infinity, 0};  // of head `warp`
    float part[kLines] = {};
    const int end = (split + 1) * cut.per_split < cut.steps ? (split + 1) * cut.per_split : cut.steps;
#pragma unroll 1
    for (int step = split * cut.per_split; step < end; ++step) {
      const bool in_prompt = step < cut.prompt_steps;
      const int length = in_prompt ? row.prompt_length : row.own_length;
      const int64_t capacity = in_prompt ? row.prompt_capacity : row.own_capacity;
      const int key = (in_prompt ? step : step - cut.prompt_steps) * kKeys + 4 * lane;
      const float* keys =
          (in_prompt ? a.prompts + row.prompt_at : a.own + row.own_at) + int64_t{2} * kv_head * dim * capacity;

      // scores of this warp's components
      float sums[H][4] = {};
      const float* line = keys + warp * capacity;
#pragma unroll 1
      for (int first = 0; first < kLines && warp + kWarps * first < dim; first += kBatch) {
        Pack<float, 4> k[kBatch];
        load_lines<false>(k, line, capacity, dim - warp - kWarps * first, key, length);
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          const int d = warp + kWarps * (first + i);
          const auto q = *reinterpret_cast<const Pack<float, H>*>(queries + (d < dim ? d : 0) * H);
#pragma unroll
          for (int h = 0; h < H; ++h)
#pragma unroll
            for (int e = 0; e < 4; ++e) sums[h][e] = fmaf(q.at[h], k[i].at[e], sums[h][e]);
        }
      }
#pragma unroll
      for (int h = 0; h < H; ++h)
        *reinterpret_cast<Pack<float, 4>*>(scores + (warp * H + h) * kKeys + 4 * lane) = {sums[h][0], sums[h][1],
                                                                                          sums[h][2], sums[h][3]};
      __syncthreads();

      // warp h: the softmax of head h
      if (warp < H) {
        Pack<float, 4> s{};
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
          const auto more = *reinterpret_cast<const Pack<float, 4>*>(scores + (w * H + warp) * kKeys + 4 * lane);
#pragma unroll
          for (int e = 0; e < 4; ++e) s.at[e] += more.at[e];
        }
        float top = -infinity;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (key + e >= length) s.at[e] = -infinity;
          top = fmaxf(top, s.at[e]);
        }
        Running now{warp_max(top), 0};  // never -inf: a step has a key
        const float next = fmaxf(mine.top, now.top), old_scale = exp2f(mine.top - next);
        float total = 0;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          s.at[e] = exp2f(s.at[e] - next);
          total += s.at[e];
        }
        mine = {next, fmaf(mine.total, old_scale, warp_sum(total))};
        *reinterpret_cast<Pack<float, 4>*>(weights + warp * kKeys + 4 * lane) = s;
        if (lane == 0) {
          shrink[warp] = old_scale;
          running[warp] = mine;
        }
      }
      __syncthreads();

      // mixtures of this warp's components
      Pack<float, 4> p[H];
#pragma unroll
      for (int h = 0; h < H; ++h) p[h] = *reinterpret_cast<const Pack<float, 4>*>(weights + h * kKeys + 4 * lane);
      const float old_scale = shrink[my_head];
      line = keys + (dim + warp) * capacity;
#pragma unroll
      for (int first = 0; first < kLines; first += kBatch) {
        Pack<float, 4> v[kBatch];
        load_lines<true>(v, line, capacity, dim - warp - kWarps * first, key, length);
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          float products[H];
#pragma unroll
          for (int h = 0; h < H; ++h)
            products[h] = fmaf(p[h].at[0], v[i].at[0],
                               fmaf(p[h].at[1], v[i].at[1], fmaf(p[h].at[2], v[i].at[2], p[h].at[3] * v[i].at[3])));
          part[first + i] = fmaf(part[first + i], old_scale, sum_heads<H>(products, lane));
        }
      }
    }

    Running done{-infinity, 0};
    if (cut.steps > 0) done = running[my_head];
    if (a.blocks_per_row_head == 1 || cut.splits == 1) {
      const Join scales = join(all, done);
#pragma unroll
      for (int i = 0; i < kLines; ++i) mixture[i] = fmaf(mixture[i], scales.old_scale, part[i] * scales.new_scale);
    } else if (lane % (kWarp / H) == 0 && my_head < heads) {
      float* to = a.partial + ((r * a.shape.heads + head_at + my_head) * kMaxSplits + split) * (2 + dim);
      if (warp == 0) {
        to[0] = done.top;
        to[1] = done.total;
      }
#pragma unroll
      for (int i = 0; i < kLines; ++i)
        if (warp + kWarps * i < dim) to[2 + warp + kWarps * i] = part[i];
    }
    __syncthreads();  // running[] is written again
  }
  if (a.blocks_per_row_head > 1 && cut.splits > 1) return;
  if (lane % (kWarp / H) != 0 || my_head >= heads) return;
  float* to = a.out + (r * a.shape.heads + head_at + my_head) * dim;
#pragma unroll
  for (int i = 0; i < kLines; ++i)
    if (warp + kWarps * i < dim) to[warp + kWarps * i] = mixture[i] / all.total;
}

// The splits of one head of one row, joined in order; a warp each.
__global__ __launch_bounds__(kThreads) void join_kernel(HeadShape shape, const DecodeRow* rows, int64_t count,
                                                        const float* partial, float* out) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (item >= count * shape.heads) return;
  const Cut cut = cut_of(rows[item / shape.heads]);
  if (cut.splits == 1) return;  // its block has written the result
  const float* parts = partial + item * kMaxSplits * (2 + shape.head_dim);
  for (int d = lane; d < shape.head_dim; d += kWarp) {
    Running all{-__int_as_float(0x7f800000), 0};
    float mixture = 0;
    for (int split = 0; split < cut.splits; ++split) {
      const float* part = parts + split * (2 + shape.head_dim);
      const Join scales = join(all, {part[0], part[1]});
      mixture = fmaf(mixture, scales.old_scale, part[2 + d] * scales.new_scale);
    }
    out[item * shape.head_dim + d] = mixture / all.total;
  }
}

template <int H, int kLines>
void launch_decode(const Context& context, DecodeArguments& a, int64_t count) {
  const HeadShape& s = a.shape;
  a.head_groups = static_cast<int>(ceil_div(s.group(), H));
  const int64_t row_heads = count * s.kv_heads * a.head_groups;
  const bool few = row_heads < int64_t{4} * context.multiprocessors;
  a.blocks_per_row_head = few ? kMaxSplits : 1;
  a.partial =
      few ? static_cast<float*>(context.scratch(count * s.heads * kMaxSplits * (2 + s.head_dim) * sizeof(float)))
          : nullptr;
  const size_t shared = ((kWarps + 1) * H * kKeys + H * s.head_dim) * sizeof(float);
  EEPO_LAUNCH((decode_kernel<H, kLines>), static_cast<unsigned>(row_heads * a.blocks_per_row_head), kThreads, shared,
              context.stream, a);
  if (few)
    EEPO_LAUNCH((join_kernel), static_cast<unsigned>(ceil_div(count * s.heads, kWarps)), kThreads, 0, context.stream, s,
                a.rows, count, a.partial, a.out);
}

template <int H>
void launch_heads(const Context& context, DecodeArguments& a, int64_t count) {
  if (a.shape.head_dim <= 64) return launch_decode<H, 8>(context, a, count);
  if (a.shape.head_dim <= 128) return launch_decode<H, 16>(context, a, count);
  launch_decode<H, 32>(context, a, count);
}

}  // namespace

void cache_append(const Context& context, const float* qkv, const AttentionShape& shape, const CacheSlot* slots,
                  int64_t tokens, float* cache) {
  if (tokens == 0) return;
  const int64_t components = 2 * shape.kv_heads * shape.head_dim;
  EEPO_LAUNCH((append_kernel), static_cast<unsigned>(ceil_div(tokens, kWarp) * ceil_div(components, kWarp)), kThreads,
              0, context.stream, qkv, shape.ld, shape.heads * shape.head_dim, static_cast<int>(shape.kv_heads),
              static_cast<int>(shape.head_dim), slots, tokens, cache);
}

void attention_decode(const Context& context, const float* qkv, const AttentionShape& shape, const DecodeRow* rows,
                      int64_t count, const float* prompts, const float* own, float* out) {
  if (count == 0) return;
  DecodeArguments a{qkv, head_shape(shape, true), rows, prompts, own, 1, 1, nullptr, out};
  const int group = a.shape.group();
  if (group == 1) return launch_heads<1>(context, a, count);
  if (group == 2) return launch_heads<2>(context, a, count);
  if (group <= 4) return launch_heads<4>(context, a, count);
  launch_heads<kMaxHeads>(context, a, count);
}

}  // namespace eepo::cuda
