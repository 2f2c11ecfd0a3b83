// CUDA form of token_grad (see token_grad.h and cuda/rows.cuh).
//
// The trick: one block per row sums it as token_stats does, keeping as many of the row's raw segments in shared memory
// as there is room for, then writes the gradient over it. What shared memory does not hold is read again in reverse
// order, the latest read first, which the second-level cache still has. 1 - p_y of the target's own entry and T/S of
// the entropy's part come out of the sums, so nothing cancels. With fewer rows than about two per multiprocessor, a
// first kernel leaves the sums of the segments in scratch memory, and blocks share the segments of a row in the second
// too.
//
// A float row that becomes 16-bit gradients in its own front half is written in rounds, front to back: all warps load
// their segments, meet, and only then store; a round's stores end before the next round's loads begin.
//
// Floor: every logit read once and written once; rows with a = b = 0 are only written. A row of 152k bfloat16 logits is
// 304 KB, of which an H100 keeps 200 KB in shared memory; the other 132 x 104 KB are under half of its second-level
// cache: close to one read and one write, at worst two reads. Per logit: 2 MUFU.EX2, 3 FMNMX, 5 FFMA, 1 FADD, 1 FMUL,
// and 3 conversions where the type has 16 bits: two thirds of what the multiprocessors issue at that rate.
#include "cuda/rows.cuh"
#include "kernels/complementary_rule.h"

namespace eepo::cuda {
namespace {

constexpr int kGradWarps = 20;
constexpr int64_t kSegmentBytes = int64_t{kPacks} * kWarp * 16;

/// dz_j = 2^d_j (constant + slope d_j) for j != y; see row_line.
struct Line {
  float reference, constant, slope;
  float target;  // dz_y
  bool valid;
};

__device__ __forceinline__ Line row_line(const RowSums& sums, double a, double b, double temperature) {
  Line line{};
  line.valid = sums.valid;
  if (!line.valid) return line;
  const double total = sums.others + sums.target;
  // log p_j + H = ln 2 (d_j - T/S): ln S cancels, which in floats it would not.
  line.reference = sums.reference;
  line.constant = static_cast<float>(-(a - b * kDoubleLn2 * sums.shifted / total) / (temperature * total));
  line.slope = static_cast<float>(-b * kDoubleLn2 / (temperature * total));
  const double p = sums.target / total;
  const double entropy_part = p > 0 ? p * b * (sums.logprob + sums.entropy) : 0;
  line.target = static_cast<float>((a * sums.one_minus_p - entropy_part) / temperature);
  return line;
}

__device__ __forceinline__ float gradient(float z, float log2e, const Line& line) {
  const float d = fmaxf(exponent(z, log2e, line.reference), -127.0f);
  return __fmul_rn(exp2_approx(d), __fmaf_rn(line.slope, d, line.constant));
}

/// Elements [at, at + N) of a row that lie inside it, as one or two vectors where the address allows.
template <class Out, int N>
__device__ __forceinline__ void store_floats(Out* row, int64_t cols, int64_t at, const float (&g)[N]) {
  constexpr int kWidth = N * sizeof(Out) < 16 ? N : kPack<Out>;
  using Vector = Pack<Out, kWidth>;
  if (at + N <= cols && reinterpret_cast<uintptr_t>(row + at) % sizeof(Vector) == 0) {
#pragma unroll
    for (int part = 0; part < N; part += kWidth) {
      Vector v;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) v.at[i] = from_float<Out>(g[part + i]);
      *reinterpret_cast<Vector*>(row + at + part) = v;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (at + i < cols) row[at + i] = from_float<Out>(g[i]);
  }
}

template <class T>
__device__ __forceinline__ void store_bits(T* to, uint32_t bits) {
  if constexpr (sizeof(T) == 4) {
    *to = __uint_as_float(bits);
  } else {
    *to = T{static_cast<uint16_t>(bits)};
  }
}

/// Elements [from, to) of 16 bytes whose first element is `first`.
template <class T>
__device__ __forceinline__ void store_some(T* first, const uint4& v, int from, int to) {
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) {
    if (i >= from && i < to) store_bits(first + i, element_bits<T>(v, i));
  }
}

/// The reverse of load_segment: a warp stores v to columns [begin, begin + kSegment<T>) of a row, as far as they exist.
template <class T>
__device__ __forceinline__ void store_segment(const uint4 (&v)[kPacks], T* row, int64_t cols, int64_t begin) {
  const int lane = lane_index();
  T* const first = row + begin;
  const unsigned shift = static_cast<unsigned>(reinterpret_cast<uintptr_t>(first)) & 15u;
  if (begin + kSegment<T> <= cols && shift == 0) {
    uint4* const packs = reinterpret_cast<uint4*>(first) + lane;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) __stwb(packs + k * kWarp, v[k]);
  } else if (begin + kSegment<T> <= cols) {
    // Aligned packs: the back of the pack before (of the lane below, or the last lane's previous one) and one's own
    // front. The segment's two ends, which share a pack with its neighbours, go element by element.
    uint4* const packs = reinterpret_cast<uint4*>(reinterpret_cast<unsigned char*>(first) - shift) + lane;
    const int own = static_cast<int>((16 - shift) / sizeof(T));  // elements of a pack before the next aligned address
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const uint4 previous = k > 0 ? v[k > 0 ? k - 1 : 0] : v[0];
      const uint4 offered = select(lane == kWarp - 1, previous, v[k]);
      const uint4 aligned = funnel(shuffle(offered, (lane - 1) & (kWarp - 1)), v[k], 16 - shift);
      if (k == 0 && lane == 0) {
        store_some(first, v[0], 0, own);
      } else {
        __stwb(packs + k * kWarp, aligned);
      }
    }
    if (lane == kWarp - 1) {
      store_some(first + kSegment<T> - kPack<T>, v[kPacks - 1], own, kPack<T>);
    }
  } else {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int64_t at = begin + (k * kWarp + lane) * kPack<T>;
      if (shift == 0 && at + kPack<T> <= cols) {
        __stwb(reinterpret_cast<uint4*>(row + at), v[k]);
      } else {
        const int64_t rest = cols - at;
        if (rest > 0) store_some(row + at, v[k], 0, rest < kPack<T> ? static_cast<int>(rest) : kPack<T>);
      }
    }
  }
}

/// The gradient of segment `s`, whose logits are in v, into its row of the output.
template <class In, class Out>
__device__ __forceinline__ void write_segment(uint4 (&v)[kPacks], Out* out, int64_t cols, int64_t s, int64_t target,
                                              float log2e, const Line& line) {
  const int64_t begin = s * kSegment<In>;
  if constexpr (sizeof(In) == sizeof(Out)) {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const auto of = [&](int i) { return gradient(element<In>(v[k], i), log2e, line); };
      v[k] = {rounded_word<Out>(0, of), rounded_word<Out>(1, of), rounded_word<Out>(2, of), rounded_word<Out>(3, of)};
    }
    store_segment<Out>(v, out, cols, begin);
  } else {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      float g[kPack<In>];
#pragma unroll
      for (int i = 0; i < kPack<In>; ++i) g[i] = gradient(element<In>(v[k], i), log2e, line);
      store_floats(out, cols, begin + (k * kWarp + lane_index()) * kPack<In>, g);
    }
  }
  if (target >= begin && target < begin + kSegment<In>) {
    __syncwarp();  // after whichever lane wrote the formula's value there
    if (lane_index() == 0) out[target] = from_float<Out>(line.target);
  }
}

/// A whole row of one value, by one block (or one of `parts` that share it).
template <class Out>
__device__ __forceinline__ void fill_row(Out* row, int64_t cols, Out value, int part, int parts) {
  const int64_t misaligned = static_cast<int64_t>(reinterpret_cast<uintptr_t>(row) & 15u);
  int64_t head = misaligned == 0 ? 0 : (16 - misaligned) / static_cast<int64_t>(sizeof(Out));
  if (head > cols) head = cols;
  const int64_t packs = (cols - head) / kPack<Out>;
  Pack<Out, kPack<Out>> pack;
#pragma unroll
  for (int i = 0; i < kPack<Out>; ++i) pack.at[i] = value;
  auto* const middle = reinterpret_cast<Pack<Out, kPack<Out>>*>(row + head);
  const int64_t threads = int64_t{blockDim.x} * parts;
  for (int64_t i = int64_t{blockDim.x} * part + threadIdx.x; i < packs; i += threads) middle[i] = pack;
  if (part != 0) return;
  for (int64_t i = threadIdx.x; i < head; i += blockDim.x) row[i] = value;
  for (int64_t i = head + packs * kPack<Out> + threadIdx.x; i < cols; i += blockDim.x) row[i] = value;
}

template <class In, class Out>
struct GradJob {
  Rows<In> logits;
  Out* out;
  int64_t out_stride;
  const int64_t* targets;
  const float *a, *b;
  Scale scale;
  int64_t segments;
  Partial* scratch;            // partial sums, or null: in shared memory
  const float* target_logits;  // with row_partials only: by the second kernel z_y may be overwritten
  int kept;                    // segments whose logits stay in shared memory
  ComplementaryRows rule;      // its weight null: a and b are given
  int64_t* bad_row;

  __device__ float b_of(int64_t r) const { return b != nullptr ? b[r] : 0.0f; }
  __device__ Out* row(int64_t r) const { return out + r * out_stride; }
  __device__ bool inactive(int64_t r) const { return a[r] == 0 && b_of(r) == 0; }  // with a rule, a is its weight
  __device__ void record(int64_t r, double logprob, double one_minus_p) const {
    if (rule.logprob != nullptr) rule.logprob[r] = static_cast<float>(logprob);
    if (rule.one_minus_p != nullptr) rule.one_minus_p[r] = static_cast<float>(one_minus_p);
  }
  /// One thread, once per row (of several blocks that share the row, any: they record the same).
  __device__ double a_of(int64_t r, const RowSums& sums) const {
    if (rule.weight == nullptr) return static_cast<double>(a[r]);
    record(r, sums.logprob, sums.one_minus_p);
    const double p = sums.target / (sums.others + sums.target);
    return static_cast<double>(
        complementary_coefficient(static_cast<double>(rule.weight[r]), p, sums.one_minus_p, rule.options));
  }
};

/// What needs no logits: rows without coefficients, bad targets. True if the row is done.
template <class In, class Out>
__device__ __forceinline__ bool write_trivial_row(const GradJob<In, Out>& job, int64_t r, int part, int parts) {
  if (job.inactive(r)) {
    if (part == 0 && threadIdx.x == 0) job.record(r, not_a_number(), not_a_number());
    fill_row(job.row(r), job.logits.cols, from_float<Out>(0.0f), part, parts);
    return true;
  }
  if (in_range(job.targets[r], job.logits.cols)) return false;
  fill_row(job.row(r), job.logits.cols, from_float<Out>(not_a_number()), part, parts);
  if (part == 0 && threadIdx.x == 0) {
    job.record(r, not_a_number(), not_a_number());
    report_row(job.bad_row, r);
  }
  return true;
}

/// Warp 0 merges; all threads of the block get the row's line.
template <class In, class Out>
__device__ __forceinline__ Line block_line(const GradJob<In, Out>& job, int64_t r, const Partial* partials,
                                           float target_logit) {
  __shared__ Line shared_line;
  if (warp_index() == 0) {
    const RowSums sums = merge(partials, job.segments, true, target_logit, job.scale);
    if (lane_index() == 0) {
      shared_line = row_line(sums, job.a_of(r, sums), static_cast<double>(job.b_of(r)), job.scale.temperature);
    }
  }
  __syncthreads();
  return shared_line;
}

/// Block r does row r. kNarrow: the output is the row's own front half.
template <class In, class Out, bool kNarrow>
__global__ void __launch_bounds__(kGradWarps* kWarp, 1) grad_rows(GradJob<In, Out> job) {
  EEPO_DYNAMIC_SHARED(shared);
  const int64_t r = blockIdx.x, cols = job.logits.cols;
  if (write_trivial_row(job, r, 0, 1)) return;
  Partial* partials = reinterpret_cast<Partial*>(shared + job.kept * kSegmentBytes);
  if (job.scratch != nullptr) partials = job.scratch + r * job.segments;
  uint4* const kept = reinterpret_cast<uint4*>(shared) + lane_index();
  const In* const row = job.logits.row(r);
  const int64_t target = job.targets[r];
  const float target_logit = to_float(row[target]);
  const float log2e = job.scale.log2e;

  for (int64_t s = warp_index(); s < job.segments; s += warp_count()) {
    uint4 v[kPacks];
    load_segment(v, row, cols, s * kSegment<In>);
    if (s < job.kept) {
#pragma unroll
      for (int k = 0; k < kPacks; ++k) kept[(s * kPacks + k) * kWarp] = v[k];
    }
    const Partial p = sum_loaded<In>(v, s, target, log2e);
    if (lane_index() == 0) partials[s] = p;
  }
  __syncthreads();
  const Line line = block_line(job, r, partials, target_logit);
  Out* const out = job.row(r);
  if (!line.valid) {
    fill_row(out, cols, from_float<Out>(not_a_number()), 0, 1);
    return;
  }

  const int64_t rounds = ceil_div(job.segments, warp_count());
  for (int64_t round = 0; round < rounds; ++round) {
    // A warp meets the segments that it loaded itself, so that those in shared memory are its own.
    const int64_t s = (kNarrow ? round : rounds - 1 - round) * warp_count() + warp_index();
    uint4 v[kPacks];
    if (s < job.kept) {
#pragma unroll
      for (int k = 0; k < kPacks; ++k) v[k] = kept[(s * kPacks + k) * kWarp];
    } else if (s < job.segments) {
      load_segment(v, row, cols, s * kSegment<In>);
    }
    if constexpr (kNarrow) __syncthreads();
    if (s < job.segments) write_segment<In, Out>(v, out, cols, s, target, log2e, line);
  }
}

/// Block (part, row) writes its share of the row, whose partial sums row_partials left in scratch memory.
template <class In, class Out>
__global__ void __launch_bounds__(kRowWarps* kWarp, 2) grad_parts(GradJob<In, Out> job) {
  const int64_t r = blockIdx.y, cols = job.logits.cols;
  const int part = static_cast<int>(blockIdx.x), parts = static_cast<int>(gridDim.x);
  if (write_trivial_row(job, r, part, parts)) return;
  const Line line = block_line(job, r, job.scratch + r * job.segments, job.target_logits[r]);
  if (!line.valid) {
    fill_row(job.row(r), cols, from_float<Out>(not_a_number()), part, parts);
    return;
  }
  const int64_t end = job.segments * (part + 1) / parts;
  for (int64_t s = job.segments * part / parts + warp_index(); s < end; s += warp_count()) {
    uint4 v[kPacks];
    load_segment(v, job.logits.row(r), cols, s * kSegment<In>);
    write_segment<In, Out>(v, job.row(r), cols, s, job.targets[r], job.scale.log2e, line);
  }
}

/// Shared memory that a block may have, less what its static variables need.
int64_t shared_limit() {
  int device = 0, bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess) {
    return 48 * 1024 - 256;
  }
  return bytes - 256;
}

template <class In, class Out>
void launch_split(const Context& context, const RowPlan& plan, GradJob<In, Out>& job) {
  const int64_t rows = job.logits.rows;
  const size_t sums = plan.scratch_bytes(rows);
  auto* const scratch = static_cast<unsigned char*>(context.scratch(sums + static_cast<size_t>(rows) * sizeof(float)));
  job.scratch = reinterpret_cast<Partial*>(scratch);
  float* const target_logits = reinterpret_cast<float*>(scratch + sums);
  job.target_logits = target_logits;
  launch_row_partials<In>(context, job.logits, job.targets, job.a, job.b, job.scale.log2e, plan, job.scratch,
                          target_logits);
  const dim3 grid(static_cast<unsigned>(plan.parts), static_cast<unsigned>(rows));
  const unsigned threads = row_threads(ceil_div(plan.segments, plan.parts), kRowWarps);
  EEPO_LAUNCH((grad_parts<In, Out>), grid, threads, 0, context.stream, job);
}

/// Warps of a block: few where several blocks share a multiprocessor, else many, with even rounds.
int64_t grad_warps(int64_t segments) {
  const int64_t most = segments > 16 ? kGradWarps : kRowWarps;
  return ceil_div(segments, ceil_div(segments, most));
}

template <class In, class Out, bool kNarrow>
void launch_rows(const Context& context, const RowPlan& plan, GradJob<In, Out>& job) {
  const size_t bytes = plan.scratch_bytes(job.logits.rows);
  if (bytes > 0) job.scratch = static_cast<Partial*>(context.scratch(bytes));
  const size_t sums = plan.shared_bytes();
  const int64_t room = (shared_limit() - static_cast<int64_t>(sums)) / kSegmentBytes;
  job.kept = static_cast<int>(room < plan.segments ? (room < 0 ? 0 : room) : plan.segments);
  const size_t shared = static_cast<size_t>(job.kept * kSegmentBytes) + sums;
  if (shared > 48 * 1024) {
    cudaFuncSetAttribute(grad_rows<In, Out, kNarrow>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared));
  }
  EEPO_LAUNCH((grad_rows<In, Out, kNarrow>), static_cast<unsigned>(job.logits.rows),
              static_cast<unsigned>(kWarp * grad_warps(plan.segments)), shared, context.stream, job);
}

template <class In, class Out>
void launch(const Context& context, GradJob<In, Out> job) {
  RowPlan plan = plan_rows<In>(context, job.logits.rows, job.logits.cols);
  job.segments = plan.segments;
  if constexpr (sizeof(Out) < sizeof(In)) {
    // Blocks that share a row would overwrite what others have yet to read.
    if (static_cast<const void*>(job.out) == static_cast<const void*>(job.logits.data)) {
      plan.parts = 1;
      launch_rows<In, Out, true>(context, plan, job);
      return;
    }
  }
  if (plan.split()) {
    launch_split(context, plan, job);
  } else {
    launch_rows<In, Out, false>(context, plan, job);
  }
}

void run(const Context& context, const LogitsView& logits, const int64_t* targets, const float* a, const float* b,
         const ComplementaryRows& rule, float temperature, const MutableLogitsView& out, int64_t* bad_row) {
  if (logits.rows <= 0 || logits.cols <= 0) return;
  with_dtype(logits.dtype, [&](auto in) {
    with_dtype(out.dtype, [&](auto to) {
      using In = decltype(in);
      using Out = decltype(to);
      GradJob<In, Out> job{};
      job.logits = rows_of<In>(logits);
      job.out = static_cast<Out*>(out.data);
      job.out_stride = out.stride;
      job.targets = targets;
      job.a = a;
      job.b = b;
      job.scale = make_scale(temperature);
      job.rule = rule;
      job.bad_row = bad_row;
      launch(context, job);
    });
  });
}

}  // namespace

void token_grad(const Context& context, const LogitsView& logits, const int64_t* targets, const float* a,
                const float* b, float temperature, const MutableLogitsView& out, int64_t* bad_row) {
  run(context, logits, targets, a, b, {}, temperature, out, bad_row);
}

void complementary_grad(const Context& context, const LogitsView& logits, const int64_t* targets,
                        const ComplementaryRows& rows, float temperature, const MutableLogitsView& out,
                        int64_t* bad_row) {
  run(context, logits, targets, rows.weight, nullptr, rows, temperature, out, bad_row);
}

}  // namespace eepo::cuda
