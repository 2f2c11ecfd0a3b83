// CPU form of token_stats: rows (or, of few rows, their blocks) over the threads.
//
// Floor: rows * cols elements read once; 12 bytes written per row.
#include "kernels/token_stats.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/token_stats_blocks.h"

namespace eepo {

ExpScale exp_scale(double temperature) {
  const double log2e = 1.4426950408889634074 / temperature;
  const float high = static_cast<float>(log2e);
  return {high, static_cast<float>(log2e - static_cast<double>(high)), static_cast<float>(123.0 / log2e),
          static_cast<float>(60.0 * temperature)};
}

float element(const void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::Float32: return static_cast<const float*>(data)[index];
    case DType::BFloat16: return bf16_to_float(static_cast<const uint16_t*>(data)[index]);
    case DType::Float16: return f16_to_float(static_cast<const uint16_t*>(data)[index]);
    case DType::Int64: break;
  }
  return std::numeric_limits<float>::quiet_NaN();
}

BlockSums sum_block(const void* row, DType dtype, int64_t cols, int64_t block, const Target& target,
                    const ExpScale& scale) {
  const void* data = block_at(row, dtype, block);
  const int64_t count = block_size(cols, block);
  const int64_t inside = target.index - block * kStatsBlock;
  if (target.index < 0 || inside < 0 || inside >= count) {
    return EEPO_ISA_DISPATCH(scan_block)(data, dtype, count, scale);
  }
  alignas(64) float values[kStatsBlock];  // a copy without the target, so that q holds no 1 - p
  EEPO_ISA_DISPATCH(widen_block)(data, dtype, count, values);
  std::memmove(values + inside, values + inside + 1, static_cast<size_t>(count - 1 - inside) * sizeof(float));
  return EEPO_ISA_DISPATCH(scan_block)(values, DType::Float32, count - 1, scale);
}

RowStats merge_blocks(const BlockSums* blocks, int64_t count, const Target& target, double temperature) {
  RowStats row;
  row.max = target.index < 0 ? -std::numeric_limits<double>::infinity() : static_cast<double>(target.logit);
  for (int64_t b = 0; b < count; ++b) row.max = std::max(row.max, static_cast<double>(blocks[b].max));
  for (int64_t b = 0; b < count; ++b) {
    if (blocks[b].sum == 0) continue;  // nothing but -inf
    const double shift = (static_cast<double>(blocks[b].max) - row.max) / temperature;
    const double weight = shift == 0 ? 1.0 : std::exp(shift);
    row.others += weight * blocks[b].sum;
    row.shifted += weight * (blocks[b].shifted / temperature + blocks[b].sum * shift);
  }
  double target_shift = 0;
  if (target.index >= 0) {
    target_shift = (static_cast<double>(target.logit) - row.max) / temperature;
    row.target = std::exp(target_shift);
    if (row.target > 0) row.shifted += row.target * target_shift;
  }
  const double total = row.total();
  if (!row.valid()) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    row.others = row.target = row.shifted = row.log_sum = row.logprob = row.entropy = row.one_minus_p = nan;
    return row;
  }
  if (row.target > row.others) {                            // ln(1 + others / target) keeps l and H exact as p_y -> 1
    row.logprob = 0 - std::log1p(row.others / row.target);  // not -0 where nothing else has mass
    row.log_sum = target_shift - row.logprob;
  } else {
    row.log_sum = std::log(total);
    row.logprob = target_shift - row.log_sum;
  }
  const double entropy = row.log_sum - row.shifted / total;
  row.entropy = entropy < 0 ? 0 : entropy;
  row.one_minus_p = row.others / total;
  return row;
}

bool worth_threads(int64_t rows, int64_t cols) { return rows * cols >= 32768; }

bool split_columns(int64_t rows, int64_t cols) {
  return rows < omp_get_max_threads() && block_count(cols) > 1 && worth_threads(rows, cols);
}

void token_stats(const LogitsView& logits, const int64_t* targets, float temperature, float* logprob, float* entropy,
                 float* one_minus_p) {
  const ExpScale scale = exp_scale(temperature);
  const int64_t blocks = block_count(logits.cols);
  const auto target_of = [&](int64_t row) -> Target {
    if (!targets) return {};
    return {targets[row], element(row_at(logits, row), logits.dtype, targets[row])};
  };
  const auto sum = [&](int64_t row, int64_t block, const Target& target) {
    return sum_block(row_at(logits, row), logits.dtype, logits.cols, block, target, scale);
  };
  const auto finish = [&](int64_t row, const BlockSums* sums, const Target& target) {
    const RowStats stats = merge_blocks(sums, blocks, target, temperature);
    if (logprob) logprob[row] = static_cast<float>(stats.logprob);
    if (entropy) entropy[row] = static_cast<float>(stats.entropy);
    if (one_minus_p) one_minus_p[row] = static_cast<float>(stats.one_minus_p);
  };

  if (split_columns(logits.rows, logits.cols)) {
    std::vector<BlockSums> sums(static_cast<size_t>(blocks));
    for (int64_t row = 0; row < logits.rows; ++row) {
      const Target target = target_of(row);
#pragma omp parallel for schedule(static)
      for (int64_t block = 0; block < blocks; ++block) sums[static_cast<size_t>(block)] = sum(row, block, target);
      finish(row, sums.data(), target);
    }
    return;
  }
  std::vector<BlockSums> scratch(static_cast<size_t>(blocks * omp_get_max_threads()));
#pragma omp parallel if (worth_threads(logits.rows, logits.cols))
  {
    BlockSums* sums = scratch.data() + blocks * omp_get_thread_num();
#pragma omp for schedule(static)
    for (int64_t row = 0; row < logits.rows; ++row) {
      const Target target = target_of(row);
      for (int64_t block = 0; block < blocks; ++block) sums[block] = sum(row, block, target);
      finish(row, sums, target);
    }
  }
}

}  // namespace eepo
