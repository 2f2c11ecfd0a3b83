// sample in double precision: the whole distribution, sorted where top_k or top_p ask for it, and the sequential
// inverse CDF of the same uniform.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/sample.h"
#include "kernels/sample_options.h"
#include "kernels/token_stats_blocks.h"

namespace eepo {
namespace {

// Probability 0 to every token that top_k and top_p drop; the rest is left as it is, not renormalized.
void restrict_to_top(std::vector<double>& p, const std::vector<double>& z, const SampleOptions& options) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return z[i] > z[j]; });
  size_t keep = order.size();
  if (options.top_k > 0) keep = std::min(keep, static_cast<size_t>(options.top_k));
  if (options.top_p < 1.0f) {
    double mass = 0, sum = 0;
    for (size_t i = 0; i < keep; ++i) mass += p[order[i]];
    const double needed = static_cast<double>(options.top_p) * mass;
    size_t size = 0;
    while (size < keep && (size == 0 || sum < needed)) sum += p[order[size++]];
    keep = size;
  }
  for (size_t i = keep; i < order.size(); ++i) p[order[i]] = 0;
}

int64_t first_above(const std::vector<double>& p, double goal) {
  double sum = 0;
  int64_t last = 0;
  for (size_t j = 0; j < p.size(); ++j) {
    if (p[j] <= 0) continue;
    sum += p[j];
    last = static_cast<int64_t>(j);
    if (sum > goal) break;
  }
  return last;
}

}  // namespace

void sample_reference(const LogitsView& logits, const SampleOptions& options, const PhiloxCounter* counters,
                      int64_t* token, double* logprob, double* entropy) {
  check_sample_options(options);
  const double temperature = options.temperature == 0.0f ? 1.0 : static_cast<double>(options.temperature);
  const size_t cols = static_cast<size_t>(logits.cols);
  for (int64_t row = 0; row < logits.rows; ++row) {
    const void* data = row_at(logits, row);
    std::vector<double> z(cols), p(cols);
    bool finite = true;
    for (size_t j = 0; j < cols; ++j) {
      z[j] = static_cast<double>(element(data, logits.dtype, static_cast<int64_t>(j))) / temperature;
      finite = finite && (std::isfinite(z[j]) || z[j] < 0);
    }
    const size_t best = static_cast<size_t>(std::max_element(z.begin(), z.end()) - z.begin());
    if (!finite || !std::isfinite(z[best])) fail_sample_row(row);
    double total = 0;
    for (size_t j = 0; j < cols; ++j) total += p[j] = std::exp(z[j] - z[best]);
    for (double& x : p) x /= total;

    if (options.temperature == 0.0f) {
      token[row] = static_cast<int64_t>(best);
    } else {
      std::vector<double> kept = p;
      if (options.top_k > 0 || options.top_p < 1.0f) restrict_to_top(kept, z, options);
      const double mass = std::accumulate(kept.begin(), kept.end(), 0.0);
      token[row] = first_above(kept, philox_uniform(counters[row], options.seed) * mass);
    }
    const LogitsView one{data, logits.dtype, 1, logits.cols, logits.cols};
    token_stats_reference(one, token + row, temperature, logprob ? logprob + row : nullptr,
                          entropy ? entropy + row : nullptr, nullptr);
  }
}

}  // namespace eepo
