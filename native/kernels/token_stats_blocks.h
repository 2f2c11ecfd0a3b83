// Inside the row kernels: a row of logits as fixed blocks of kStatsBlock columns, each reduced to (m, s, t), and the
// merge of those blocks in their order. The blocks do not depend on rows or threads, so neither does the result.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/isa.h"
#include "kernels/token_stats.h"

namespace eepo {

/// Columns per block: 8 KB of float32, so that this block and the next fit into the first-level cache.
inline constexpr int64_t kStatsBlock = 2048;

inline int64_t block_count(int64_t cols) { return (cols + kStatsBlock - 1) / kStatsBlock; }

/// Of one block: m = max z (-inf if all are), s = sum e^((z - m)/tau), t = sum (z - m) e^((z - m)/tau) (not over tau).
/// `near`: no logit is more than ExpScale::near below m.
struct BlockSums {
  float max;
  bool near;
  double sum, shifted;
};

/// log2(e) / tau in two floats, and two distances m - z of a logit from the maximum: from `ceiling` on e^((z - m)/tau)
/// counts as 0 (123 binary places); up to `near` (60 nats) nothing needs care.
struct ExpScale {
  float log2e_high, log2e_low, ceiling, near;
};

ExpScale exp_scale(double temperature);

/// m, S and T of a whole row (T of z/tau), with the target apart from the others.
struct RowStats {
  double max = 0;      // M = max z
  double others = 0;   // sum over j != y of e^((z_j - M)/tau); over all j without a target
  double target = 0;   // e^((z_y - M)/tau); 0 without a target
  double shifted = 0;  // sum over all j of ((z_j - M)/tau) e^((z_j - M)/tau)
  double log_sum = 0;  // ln(others + target)
  double logprob = 0, entropy = 0, one_minus_p = 0;

  double total() const { return others + target; }
  /// False for a row with NaN, +inf or nothing but -inf; then every statistic is NaN.
  bool valid() const { return total() > 0; }
};

/// Where the target was left out of its block; index -1: no target.
struct Target {
  int64_t index = -1;
  float logit = 0;
};

/// Merges the blocks in their order.
RowStats merge_blocks(const BlockSums* blocks, int64_t count, const Target& target, double temperature);

/// The sums of block `block` of a row, without `target` if it lies there.
BlockSums sum_block(const void* row, DType dtype, int64_t cols, int64_t block, const Target& target,
                    const ExpScale& scale);

/// Element `index` of an array of a float dtype.
float element(const void* data, DType dtype, int64_t index);

inline const void* row_at(const LogitsView& logits, int64_t row) {
  return static_cast<const char*>(logits.data) + row * logits.stride * static_cast<int64_t>(size_of(logits.dtype));
}

inline const void* block_at(const void* row, DType dtype, int64_t block) {
  return static_cast<const char*>(row) + block * kStatsBlock * static_cast<int64_t>(size_of(dtype));
}

inline int64_t block_size(int64_t cols, int64_t block) {
  const int64_t rest = cols - block * kStatsBlock;
  return rest < kStatsBlock ? rest : kStatsBlock;
}

/// Whether to share the blocks of a row, rather than rows, among the threads.
bool split_columns(int64_t rows, int64_t cols);

/// Whether the work is worth a team of threads at all.
bool worth_threads(int64_t rows, int64_t cols);

// Compiled once per instruction set (token_stats_isa.cc): the sums of `count` logits, their exponentials
// e^((z - max)/tau) as floats, and their values as floats.
EEPO_ISA_DECLARE(BlockSums scan_block(const void* block, DType dtype, int64_t count, const ExpScale& scale);
                 void exp_block(const void* block, DType dtype, int64_t count, const ExpScale& scale, float max,
                                float* exponentials);
                 void widen_block(const void* block, DType dtype, int64_t count, float* values))

}  // namespace eepo
