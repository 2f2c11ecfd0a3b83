// token_grad in double precision, straight from the equation of token_grad.h.
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/token_grad.h"
#include "kernels/token_stats.h"
#include "kernels/token_stats_blocks.h"

namespace eepo {

void token_grad_reference(const MutableLogitsView& logits, const int64_t* targets, const double* a, const double* b,
                          double temperature, double* gradient) {
  const LogitsView view{logits.data, logits.dtype, logits.rows, logits.cols, logits.stride};
  for (int64_t row = 0; row < logits.rows; ++row) {
    double* out = gradient + row * logits.cols;
    const double a_row = a[row], b_row = b ? b[row] : 0.0;
    if (a_row == 0 && b_row == 0) {
      for (int64_t j = 0; j < logits.cols; ++j) out[j] = 0;
      continue;
    }
    const void* z = row_at(view, row);
    const LogitsView one{z, logits.dtype, 1, logits.cols, logits.cols};
    double logprob = 0, entropy = 0, one_minus_p = 0;
    token_stats_reference(one, targets + row, temperature, &logprob, &entropy, &one_minus_p);
    if (std::isnan(entropy)) {
      for (int64_t j = 0; j < logits.cols; ++j) out[j] = std::numeric_limits<double>::quiet_NaN();
      continue;
    }
    // log p_j from every token's own shift, so that a target of probability 0 does no harm
    double max = -std::numeric_limits<double>::infinity(), sum = 0;
    const auto scaled = [&](int64_t j) { return static_cast<double>(element(z, logits.dtype, j)) / temperature; };
    for (int64_t j = 0; j < logits.cols; ++j) max = std::fmax(max, scaled(j));
    for (int64_t j = 0; j < logits.cols; ++j) sum += std::exp(scaled(j) - max);
    for (int64_t j = 0; j < logits.cols; ++j) {
      const double log_p = scaled(j) - max - std::log(sum);
      const double p = std::exp(log_p);
      const double entropy_part = p > 0 ? p * b_row * (log_p + entropy) : 0;
      const double direct = j == targets[row] ? a_row * one_minus_p : -a_row * p;
      out[j] = (direct - entropy_part) / temperature;
    }
  }
}

}  // namespace eepo
