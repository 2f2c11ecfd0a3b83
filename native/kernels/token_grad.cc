// CPU form of token_grad: the sums of a row, then its gradient over it while the row is still in the second-level
// cache.
//
// Floor: rows * cols elements read once and written once; inactive rows are only written.
#include "kernels/token_grad.h"

#include <omp.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/complementary_rule.h"
#include "kernels/token_grad_blocks.h"
#include "kernels/token_stats_blocks.h"

namespace eepo {
namespace {

struct RowGradient {
  bool valid = false;
  GradientLine line{};
  float target = 0;  // dz_y
};

RowGradient row_gradient(const RowStats& stats, double a, double b, double temperature) {
  RowGradient row;
  row.valid = stats.valid();
  if (!row.valid) return row;
  const double total = stats.total();
  // log p_j + H = (z_j - M)/tau - T/S: ln S cancels, which in floats it would not.
  row.line.max = static_cast<float>(stats.max);
  row.line.constant = static_cast<float>(-(a - b * stats.shifted / total) / (temperature * total));
  row.line.slope = static_cast<float>(-b / (temperature * temperature * total));
  const double p = stats.target / total;
  const double entropy_part = p > 0 ? p * b * (stats.logprob + stats.entropy) : 0;
  row.target = static_cast<float>((a * stats.one_minus_p - entropy_part) / temperature);
  return row;
}

void set_element(void* data, DType dtype, int64_t index, float value) {
  switch (dtype) {
    case DType::Float32: static_cast<float*>(data)[index] = value; break;
    case DType::BFloat16: static_cast<uint16_t*>(data)[index] = float_to_bf16(value); break;
    case DType::Float16: static_cast<uint16_t*>(data)[index] = float_to_f16(value); break;
    case DType::Int64: break;
  }
}

// One row of the caller's logits with what the gradient needs; the sweeps run block by block.
struct Row {
  void* data;
  DType dtype;
  int64_t cols;
  double temperature;
  ExpScale scale;
  Target target;
  bool keeps;             // whether the summing sweep leaves exponentials in place of the logits
  float reference = 0;    // against which it does
  const void* next = {};  // the row after this one, if its beginning is to be fetched while the gradient is written

  // Before any sweep.
  void prepare() {
    if (!keeps) return;
    set_element(data, dtype, target.index, -std::numeric_limits<float>::infinity());  // so it is in no sum
    reference = EEPO_ISA_DISPATCH(max_block)(floats(0), block_size(cols, 0));
  }

  BlockSums sum(int64_t block) const {
    if (!keeps) return sum_block(data, dtype, cols, block, target, scale);
    return EEPO_ISA_DISPATCH(keep_block)(floats(block), block_size(cols, block), scale, reference);
  }

  void write(int64_t block, const BlockSums& sums, const RowGradient& gradient) const {
    void* out = const_cast<void*>(block_at(data, dtype, block));
    const int64_t count = block_size(cols, block);
    if (!gradient.valid) {
      for (int64_t i = 0; i < count; ++i) set_element(out, dtype, i, std::numeric_limits<float>::quiet_NaN());
    } else if (keeps) {
      const double shift = (static_cast<double>(sums.max) - static_cast<double>(gradient.line.max)) / temperature;
      const double weight = sums.shifted * (shift == 0 ? 1.0 : std::exp(shift));  // see keep_block
      EEPO_ISA_DISPATCH(scale_block)
      (floats(block), count, static_cast<float>(gradient.line.constant * weight), fetch(block));
    } else {
      const bool near = sums.near && gradient.line.max - sums.max < scale.ceiling - scale.near;
      EEPO_ISA_DISPATCH(grad_block)(out, dtype, count, scale, gradient.line, near);
    }
  }

 private:
  float* floats(int64_t block) const { return static_cast<float*>(data) + block * kStatsBlock; }
  // The last block, which is written first, fetches the beginning of the next row.
  const void* fetch(int64_t block) const {
    const int64_t before = block_count(cols) - 1 - block;
    return next ? static_cast<const float*>(next) + before * kStatsBlock / kFetchedPart : nullptr;
  }
};

// Coefficients that the caller knows.
struct Given {
  const float *a, *b;

  bool active(int64_t r) const { return a[r] != 0 || has_entropy_term(r); }
  bool has_entropy_term(int64_t r) const { return b && b[r] != 0; }
  void skip(int64_t) const {}
  RowGradient gradient(int64_t r, const RowStats& stats, double temperature) const {
    return row_gradient(stats, a[r], b ? b[r] : 0.0f, temperature);
  }
};

// Coefficients that follow from the row.
struct Complementary {
  const ComplementaryRows& rows;

  bool active(int64_t r) const { return rows.weight[r] != 0; }
  bool has_entropy_term(int64_t) const { return false; }
  void skip(int64_t r) const {
    record(r, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN());
  }
  RowGradient gradient(int64_t r, const RowStats& stats, double temperature) const {
    record(r, stats.logprob, stats.one_minus_p);
    const double p = stats.target / stats.total();
    return row_gradient(stats, complementary_coefficient(rows.weight[r], p, stats.one_minus_p, rows.options), 0,
                        temperature);
  }
  void record(int64_t r, double logprob, double one_minus_p) const {
    if (rows.logprob) rows.logprob[r] = static_cast<float>(logprob);
    if (rows.one_minus_p) rows.one_minus_p[r] = static_cast<float>(one_minus_p);
  }
};

template <class Rule>
void grad_rows(const MutableLogitsView& logits, const int64_t* targets, const Rule& rule, float temperature) {
  const int64_t width = static_cast<int64_t>(size_of(logits.dtype));
  const int64_t blocks = block_count(logits.cols);
  const ExpScale scale = exp_scale(temperature);
  const auto data_of = [&](int64_t r) { return static_cast<char*>(logits.data) + r * logits.stride * width; };
  // Zeros are written without reading; their bits are 0 in every dtype.
  const auto clear_if_inactive = [&](int64_t r) {
    if (rule.active(r)) return false;
    rule.skip(r);
    std::memset(data_of(r), 0, static_cast<size_t>(logits.cols * width));
    return true;
  };
  const auto row_of = [&](int64_t r) {
    void* data = data_of(r);
    Row row{data,
            logits.dtype,
            logits.cols,
            temperature,
            scale,
            {targets[r], element(data, logits.dtype, targets[r])},
            logits.dtype == DType::Float32 && !rule.has_entropy_term(r)};
    row.prepare();
    return row;
  };
  const auto gradient_of = [&](int64_t r, const Row& row, const BlockSums* sums) {
    return rule.gradient(r, merge_blocks(sums, blocks, row.target, temperature), temperature);
  };
  const auto finish = [&](const Row& row, const RowGradient& gradient) {
    if (gradient.valid) set_element(row.data, row.dtype, row.target.index, gradient.target);
  };

  if (split_columns(logits.rows, logits.cols)) {
    std::vector<BlockSums> sums(static_cast<size_t>(blocks));
    for (int64_t r = 0; r < logits.rows; ++r) {
      if (clear_if_inactive(r)) continue;
      const Row row = row_of(r);
#pragma omp parallel for schedule(static)
      for (int64_t block = 0; block < blocks; ++block) sums[static_cast<size_t>(block)] = row.sum(block);
      const RowGradient gradient = gradient_of(r, row, sums.data());
#pragma omp parallel for schedule(static)
      for (int64_t block = 0; block < blocks; ++block) row.write(block, sums[static_cast<size_t>(block)], gradient);
      finish(row, gradient);
    }
    return;
  }
  std::vector<BlockSums> scratch(static_cast<size_t>(blocks * omp_get_max_threads()));
#pragma omp parallel if (worth_threads(logits.rows, logits.cols))
  {
    const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    const int64_t end = logits.rows * (thread + 1) / threads;
    BlockSums* sums = scratch.data() + blocks * thread;
    for (int64_t r = logits.rows * thread / threads; r < end; ++r) {
      if (clear_if_inactive(r)) continue;
      Row row = row_of(r);
      if (r + 1 < end && rule.active(r + 1)) row.next = data_of(r + 1);
      for (int64_t block = 0; block < blocks; ++block) sums[block] = row.sum(block);
      const RowGradient gradient = gradient_of(r, row, sums);
      // Backwards: what was summed last is what the caches surely still hold.
      for (int64_t block = blocks; block-- > 0;) row.write(block, sums[block], gradient);
      finish(row, gradient);
    }
  }
}

}  // namespace

void token_grad(const MutableLogitsView& logits, const int64_t* targets, const float* a, const float* b,
                float temperature) {
  grad_rows(logits, targets, Given{a, b}, temperature);
}

void complementary_grad(const MutableLogitsView& logits, const int64_t* targets, const ComplementaryRows& rows,
                        float temperature) {
  grad_rows(logits, targets, Complementary{rows}, temperature);
}

}  // namespace eepo
