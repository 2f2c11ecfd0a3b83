// Attention, backward. With P formed again from the saved log-sum-exp and delta = rowsum(dO * O):
//
//   dV = P^T dO,   dS = P (dO V^T - delta),   dQ = scale dS K,   dK = scale dS^T Q
//
// One kernel per query tile and head for dQ; one per key piece and key-value head for dK and dV, which walks over the
// query tiles that see its keys and the query heads of the group. Pieces of one key tile are added in order by a third.
#include "kernels/attention_host.cuh"
#include "kernels/attention_tiles.cuh"

namespace eepo::cuda {
namespace {

constexpr int kDeltaWarps = 8;
constexpr int kMergeThreads = 256;

// delta of one token's head per warp; `rows` = tokens * heads.
__global__ __launch_bounds__(kDeltaWarps* kWarp) void delta_kernel(const float* d_out, const float* out, int64_t rows,
                                                                   int dim, float* delta) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kDeltaWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  float total = 0;
  for (int64_t d = threadIdx.x % kWarp; d < dim; d += kWarp) total += d_out[row * dim + d] * out[row * dim + d];
  total = warp_sum(total);
  if (threadIdx.x % kWarp == 0) delta[row] = total;
}

template <int R, int kChunks>
__device__ __forceinline__ void multiply(float (&values)[kChunks][R][4], float factor) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
#pragma unroll
    for (int i = 0; i < R; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) values[c][i][e] *= factor;
}

// Blocks that share a multiprocessor: what the registers allow.
template <int R, int kChunks>
constexpr int kQueryBlocks = kChunks == 1 ? 3 : R / 4;
template <int R>
constexpr int kKeyBlocks = R / 4;

struct BackwardInputs {
  const float *qkv, *d_out, *lse, *delta;
};

template <int R, int kChunks, bool kVector>
__global__ __launch_bounds__(kTileThreads<R>,
                             kQueryBlocks<R, kChunks>) void query_gradient_kernel(HeadShape shape,
                                                                                  const QueryTile* tiles,
                                                                                  BackwardInputs in, float* d_qkv) {
  __shared__ SharedTile shared[2];
  const TilePlace<R> at;
  const QueryTile tile = tiles[blockIdx.x / static_cast<unsigned>(shape.heads)];
  const int head = static_cast<int>(blockIdx.x % static_cast<unsigned>(shape.heads)), dim = shape.head_dim;
  const int64_t head_at = static_cast<int64_t>(head) * dim;
  const float* keys = in.qkv + static_cast<int64_t>(shape.heads + head / shape.group()) * dim;
  const float* values = keys + static_cast<int64_t>(shape.kv_heads) * dim;
  const Operand queries{in.qkv + int64_t{tile.token} * shape.ld + head_at, shape.ld, tile.count};
  const Operand d_outputs{in.d_out + int64_t{tile.token} * shape.ld_out() + head_at, shape.ld_out(), tile.count};
  float lse[R], delta[R], gradient[kChunks][R][4] = {};
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int row = at.row(i);
    const int64_t place = (tile.token + int64_t{row}) * shape.heads + head;
    lse[i] = row < tile.count ? in.lse[place] * kLog2E : 0;
    delta[i] = row < tile.count ? in.delta[place] : 0;
  }

  const auto visit = [&](int64_t token, int count, int sees) {
    float p[R][4], d_p[R][4];
    const Operand k{keys + token * shape.ld, shape.ld, count}, v{values + token * shape.ld, shape.ld, count};
    score_heads<R, kChunks, kVector>(p, shared, queries, k, dim);
    score_heads<R, kChunks, kVector>(d_p, shared, d_outputs, v, dim);
#pragma unroll
    for (int i = 0; i < R; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int key = at.tx + 16 * j, row = at.row(i);
        const bool visible = key < count && key < sees + row && row < tile.count;
        const float probability = exp2f(p[i][j] * (shape.scale * kLog2E) - lse[i]);
        p[i][j] = visible ? probability * (d_p[i][j] - delta[i]) : 0;
      }
    mix_heads<R, kChunks, kVector>(gradient, shared, p, k, dim);
  };
  each_key_tile(tile, visit);

  multiply<R, kChunks>(gradient, shape.scale);
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
    store_chunk<R, kVector>(d_qkv + int64_t{tile.token} * shape.ld + head_at, shape.ld, tile.count, c * kChunk, dim,
                            gradient[c]);
}

// Rows of the products are keys here, columns are queries. slots: [slot, kv head, dK or dV, 64, head_dim].
template <int R, int kChunks, bool kVector>
__global__ __launch_bounds__(kTileThreads<R>,
                             kKeyBlocks<R>) void key_gradient_kernel(HeadShape shape, const KeyPiece* pieces,
                                                                     const Visit* visits, BackwardInputs in,
                                                                     float* slots, float* d_qkv) {
  __shared__ SharedTile shared[2];
  const TilePlace<R> at;
  const KeyPiece piece = pieces[blockIdx.x / static_cast<unsigned>(shape.kv_heads)];
  const int kv_head = static_cast<int>(blockIdx.x % static_cast<unsigned>(shape.kv_heads)), dim = shape.head_dim;
  const int64_t key_at = int64_t{piece.token} * shape.ld + static_cast<int64_t>(shape.heads + kv_head) * dim;
  const int64_t value_at = key_at + static_cast<int64_t>(shape.kv_heads) * dim;
  const Operand k{in.qkv + key_at, shape.ld, piece.count}, v{in.qkv + value_at, shape.ld, piece.count};
  float d_keys[kChunks][R][4] = {}, d_values[kChunks][R][4] = {};

#pragma unroll 1
  for (int n = piece.visit_begin; n < piece.visit_end; ++n) {
    const Visit seen = visits[n];
#pragma unroll 1
    for (int head = kv_head * shape.group(); head < (kv_head + 1) * shape.group(); ++head) {
      const int64_t head_at = static_cast<int64_t>(head) * dim;
      const Operand q{in.qkv + int64_t{seen.token} * shape.ld + head_at, shape.ld, seen.count};
      const Operand d_o{in.d_out + int64_t{seen.token} * shape.ld_out() + head_at, shape.ld_out(), seen.count};
      float p[R][4], d_s[R][4];
      score_heads<R, kChunks, kVector>(p, shared, k, q, dim);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int query = at.tx + 16 * j;
        const bool present = query < seen.count;
        const float lse = present ? in.lse[(seen.token + int64_t{query}) * shape.heads + head] * kLog2E : 0;
#pragma unroll
        for (int i = 0; i < R; ++i) {
          const int key = at.row(i);
          const bool visible = present && key < piece.count && piece.position + key <= seen.position + query;
          p[i][j] = visible ? exp2f(p[i][j] * (shape.scale * kLog2E) - lse) : 0;
        }
      }
      mix_heads<R, kChunks, kVector>(d_values, shared, p, d_o, dim);
      score_heads<R, kChunks, kVector>(d_s, shared, v, d_o, dim);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int query = at.tx + 16 * j;
        const float delta = query < seen.count ? in.delta[(seen.token + int64_t{query}) * shape.heads + head] : 0;
#pragma unroll
        for (int i = 0; i < R; ++i) d_s[i][j] = p[i][j] * (d_s[i][j] - delta);
      }
      mix_heads<R, kChunks, kVector>(d_keys, shared, d_s, q, dim);
    }
  }

  multiply<R, kChunks>(d_keys, shape.scale);
  const int64_t slot_floats = int64_t{kTile} * dim;
  float* slot = slots + (int64_t{piece.slot} * shape.kv_heads + kv_head) * 2 * slot_floats;
  float* to_keys = piece.slot < 0 ? d_qkv + key_at : slot;
  float* to_values = piece.slot < 0 ? d_qkv + value_at : slot + slot_floats;
  const int ld = piece.slot < 0 ? shape.ld : dim;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    store_chunk<R, kVector>(to_keys, ld, piece.count, c * kChunk, dim, d_keys[c]);
    store_chunk<R, kVector>(to_values, ld, piece.count, c * kChunk, dim, d_values[c]);
  }
}

// dK and dV of one head of one key tile: the sum of its slots.
__global__ __launch_bounds__(kMergeThreads) void merge_kernel(HeadShape shape, const Merge* merges, const float* slots,
                                                              float* d_qkv) {
  const Merge merge = merges[blockIdx.x / static_cast<unsigned>(shape.kv_heads)];
  const int kv_head = static_cast<int>(blockIdx.x % static_cast<unsigned>(shape.kv_heads)), dim = shape.head_dim;
  const int64_t slot_floats = int64_t{2} * kTile * dim;
  float* to = d_qkv + int64_t{merge.token} * shape.ld + static_cast<int64_t>(shape.heads + kv_head) * dim;
  for (int i = static_cast<int>(threadIdx.x); i < 2 * merge.count * dim; i += kMergeThreads) {
    const int which = i / (merge.count * dim), row = i / dim % merge.count, column = i % dim;
    float total = 0;
    for (int64_t s = merge.slot_begin; s < merge.slot_end; ++s)
      total += slots[(s * shape.kv_heads + kv_head) * slot_floats + (which * kTile + row) * dim + column];
    to[int64_t{row} * shape.ld + static_cast<int64_t>(which) * shape.kv_heads * dim + column] = total;
  }
}

}  // namespace

void attention_backward(const Context& context, const float* d_out, const float* qkv, const float* out,
                        const float* lse, const AttentionShape& shape, const AttentionTables& tables, float* d_qkv) {
  if (tables.query_blocks == 0) return;
  const PlanTotals totals = plan_totals(tables);
  const PlanView plan(tables, totals, tables.device);
  const HeadShape heads = head_shape(shape, aligned16(qkv, d_out, d_qkv));
  const int64_t rows = tables.tokens * shape.heads;
  const int64_t delta_floats = ceil_div(rows, 64) * 64;  // slots start aligned
  const int64_t slot_floats = totals.slots * shape.kv_heads * 2 * kTile * shape.head_dim;
  auto* delta = static_cast<float*>(context.scratch((delta_floats + slot_floats) * sizeof(float)));
  float* slots = delta + delta_floats;
  EEPO_LAUNCH((delta_kernel), static_cast<unsigned>(ceil_div(rows, kDeltaWarps)), kDeltaWarps * kWarp, 0,
              context.stream, d_out, out, rows, heads.head_dim, delta);
  const BackwardInputs in{qkv, d_out, lse, delta};
  with_layout(heads, [&](auto layout) {
    using Layout = decltype(layout);
    // rows per thread: as many as the registers hold beside one or two gradients
    constexpr int kQ = Layout::chunks <= 3 ? 8 : 4, kK = Layout::chunks <= 2 ? 8 : 4;
    EEPO_LAUNCH((query_gradient_kernel<kQ, Layout::chunks, Layout::vector>),
                static_cast<unsigned>(tables.query_blocks * shape.heads), kTileThreads<kQ>, 0, context.stream, heads,
                plan.queries, in, d_qkv);
    EEPO_LAUNCH((key_gradient_kernel<kK, Layout::chunks, Layout::vector>),
                static_cast<unsigned>(tables.key_blocks * shape.kv_heads), kTileThreads<kK>, 0, context.stream, heads,
                plan.keys, plan.visits, in, slots, d_qkv);
  });
  if (totals.merges > 0)
    EEPO_LAUNCH((merge_kernel), static_cast<unsigned>(totals.merges * shape.kv_heads), kMergeThreads, 0, context.stream,
                heads, plan.merges, slots, d_qkv);
}

}  // namespace eepo::cuda
