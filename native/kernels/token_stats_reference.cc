// token_stats in double precision, straight from the equations of token_stats.h: the maximum, then the sums.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/token_stats.h"
#include "kernels/token_stats_blocks.h"

namespace eepo {

void token_stats_reference(const LogitsView& logits, const int64_t* targets, double temperature, double* logprob,
                           double* entropy, double* one_minus_p) {
  const double infinity = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (int64_t row = 0; row < logits.rows; ++row) {
    const void* z = row_at(logits, row);
    const auto scaled = [&](int64_t j) { return static_cast<double>(element(z, logits.dtype, j)) / temperature; };
    double max = -infinity;
    bool valid = true;
    for (int64_t j = 0; j < logits.cols; ++j) {
      max = std::max(max, scaled(j));
      valid = valid && !std::isnan(scaled(j)) && scaled(j) != infinity;
    }
    valid = valid && max != -infinity;

    const int64_t target = targets ? targets[row] : -1;
    double sum = 0, shifted = 0, others = 0;
    for (int64_t j = 0; valid && j < logits.cols; ++j) {
      const double d = scaled(j) - max;
      if (d == -infinity) continue;
      const double e = std::exp(d);
      sum += e;
      shifted += d * e;
      if (j != target) others += e;
    }
    // sum = 1 + (the rest) at the maximum: log1p where the target is that maximum, as others is the rest
    const bool is_max = target >= 0 && valid && scaled(target) == max;
    const double log_sum = is_max ? std::log1p(others) : std::log(sum);
    if (logprob) logprob[row] = valid ? scaled(target) - max - log_sum : nan;
    if (entropy) entropy[row] = valid ? log_sum - shifted / sum : nan;
    if (one_minus_p) one_minus_p[row] = valid ? others / sum : nan;
  }
}

}  // namespace eepo
