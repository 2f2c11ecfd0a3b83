// CUDA form of token_stats (see token_stats.h and cuda/rows.cuh).
//
// The trick: one warp holds 4 KB of a row in its registers (eight independent 16-byte loads per lane), takes their
// maximum by shuffles, then the sums against that maximum, all without a second look at memory; a row's few hundred
// partial sums meet in shared memory and are merged in double by one warp, always in the same order. With fewer rows
// than about two per multiprocessor, the segments of a row are shared among blocks, and a second kernel of one warp per
// row merges: the same bits.
//
// Floor: every logit read once (V * 2 or 4 bytes a row), 12 bytes a row written. Per logit: 1 MUFU.EX2, 2 FMNMX, 2
// FFMA, 1 FADD and, of 16-bit types, 1 integer operation: at the H100's 1.7e12 bfloat16 logits per second that is under
// half of what the multiprocessors issue. 24 warps of 4 KB each per multiprocessor keep 96 KB in flight, several times
// what latency times bandwidth asks for.
#include "cuda/rows.cuh"

namespace eepo::cuda {
namespace {

struct StatsOut {
  float *logprob, *entropy, *one_minus_p;
  int64_t* bad_row;
};

__device__ __forceinline__ void write_stats(const RowSums& sums, int64_t row, bool target_ok, const StatsOut& out) {
  const float nan = not_a_number();
  if (out.logprob != nullptr) out.logprob[row] = target_ok ? static_cast<float>(sums.logprob) : nan;
  if (out.one_minus_p != nullptr) out.one_minus_p[row] = target_ok ? static_cast<float>(sums.one_minus_p) : nan;
  if (out.entropy != nullptr) out.entropy[row] = static_cast<float>(sums.entropy);
  if (!target_ok && (out.logprob != nullptr || out.one_minus_p != nullptr)) report_row(out.bad_row, row);
}

/// One warp.
template <class T>
__device__ __forceinline__ void finish_row(const Rows<T>& rows, int64_t r, const int64_t* targets, const Scale& scale,
                                           const Partial* partials, int64_t segments, const StatsOut& out) {
  const int64_t target = targets != nullptr ? targets[r] : -1;
  const bool ok = in_range(target, rows.cols);
  const RowSums sums = merge(partials, segments, ok, ok ? to_float(rows.row(r)[target]) : 0.0f, scale);
  if (lane_index() == 0) write_stats(sums, r, ok, out);
}

/// Block r sums row r. `scratch`: where the partial sums go if not into shared memory.
template <class T>
__global__ void __launch_bounds__(kRowWarps* kWarp, 3)
    stats_rows(Rows<T> rows, const int64_t* targets, Scale scale, int64_t segments, Partial* scratch, StatsOut out) {
  EEPO_DYNAMIC_SHARED(shared);
  const int64_t r = blockIdx.x;
  Partial* const partials = scratch != nullptr ? scratch + r * segments : reinterpret_cast<Partial*>(shared);
  const int64_t target = targets != nullptr && in_range(targets[r], rows.cols) ? targets[r] : -1;
  sum_row(rows.row(r), rows.cols, segments, target, scale.log2e, partials);
  if (warp_index() == 0) finish_row(rows, r, targets, scale, partials, segments, out);
}

/// Block r, of one warp, merges what row_partials left of row r.
template <class T>
__global__ void __launch_bounds__(kWarp) merge_rows(Rows<T> rows, const int64_t* targets, Scale scale, int64_t segments,
                                                    const Partial* partials, StatsOut out) {
  const int64_t r = blockIdx.x;
  finish_row(rows, r, targets, scale, partials + r * segments, segments, out);
}

template <class T>
void launch(const Context& context, const Rows<T>& rows, const int64_t* targets, float temperature,
            const StatsOut& out) {
  const RowPlan plan = plan_rows<T>(context, rows.rows, rows.cols);
  const Scale scale = make_scale(temperature);
  const size_t bytes = plan.scratch_bytes(rows.rows);
  Partial* const scratch = bytes > 0 ? static_cast<Partial*>(context.scratch(bytes)) : nullptr;
  const unsigned grid = static_cast<unsigned>(rows.rows);
  if (plan.split()) {
    launch_row_partials<T>(context, rows, targets, nullptr, nullptr, scale.log2e, plan, scratch, nullptr);
    EEPO_LAUNCH((merge_rows<T>), grid, kWarp, 0, context.stream, rows, targets, scale, plan.segments, scratch, out);
    return;
  }
  EEPO_LAUNCH((stats_rows<T>), grid, row_threads(plan.segments, kRowWarps), plan.shared_bytes(), context.stream, rows,
              targets, scale, plan.segments, scratch, out);
}

}  // namespace

void token_stats(const Context& context, const LogitsView& logits, const int64_t* targets, float temperature,
                 float* logprob, float* entropy, float* one_minus_p, int64_t* bad_row) {
  if (logits.rows <= 0) return;
  const StatsOut out{logprob, entropy, one_minus_p, bad_row};
  with_dtype(logits.dtype,
             [&](auto type) { launch(context, rows_of<decltype(type)>(logits), targets, temperature, out); });
}

}  // namespace eepo::cuda
