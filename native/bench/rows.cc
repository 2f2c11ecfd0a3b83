#include "bench/rows.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/error.h"

namespace eepo::bench {
namespace {

// The entropy of p_k ~ k^-s, k = 1..n. The first terms are added; of the others their integrals (midpoint rule) are
// taken, on a grid that doubles.
double zipf_entropy(double s, int64_t n) {
  double sum = 0, weighted = 0;  // of k^-s and of ln(k) k^-s
  const auto add = [&](double k, double count) {
    const double log_k = std::log(k), term = count * std::exp(-s * log_k);
    sum += term;
    weighted += log_k * term;
  };
  constexpr int64_t kExact = 4096;
  for (int64_t k = 1; k <= std::min(n, kExact); ++k) add(static_cast<double>(k), 1);
  const double end = static_cast<double>(n) + 0.5;
  for (double left = kExact + 0.5; left < end;) {
    const double right = std::min(end, left * 1.002);
    add((left + right) / 2, right - left);
    left = right;
  }
  return std::log(sum) + s * weighted / sum;
}

double solve_exponent(double entropy, int64_t vocab) {
  double low = 0, high = 60;  // the entropy falls with s
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (zipf_entropy(middle, vocab) > entropy ? low : high) = middle;
  }
  return (low + high) / 2;
}

int64_t inverse_modulo(int64_t a, int64_t n) {
  int64_t r0 = n, r1 = a % n, t0 = 0, t1 = 1;
  while (r1 != 0) {
    const int64_t q = r0 / r1;
    r0 -= q * r1;
    std::swap(r0, r1);
    t0 -= q * t1;
    std::swap(t0, t1);
  }
  return (t0 % n + n) % n;
}

}  // namespace

double spread(int64_t i) {
  const double x = (static_cast<double>(i) + 0.5) * 0.7548776662466927;
  return x - std::floor(x);
}

Coefficients::Coefficients(int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) {
    a.push_back(static_cast<float>(-0.25 - spread(r)));
    b.push_back(static_cast<float>(0.1 * (spread(r + 1000) - 0.5)));
  }
}

ZipfRows::ZipfRows(int64_t vocab, int64_t turns) : vocab_(vocab), turns_(turns) {
  check(vocab >= 2, ErrorCode::InvalidArgument, "vocab must be at least 2, got ", vocab);
  multiplier_ = std::max<int64_t>(1, static_cast<int64_t>(0.6180339887498949 * static_cast<double>(vocab)));
  while (std::gcd(multiplier_, vocab_) != 1) ++multiplier_;
  inverse_ = inverse_modulo(multiplier_, vocab_);
  const double highest = std::min(6.0, 0.9 * std::log(static_cast<double>(vocab)));
  const double lowest = std::min(0.1, highest / 2);
  for (int64_t k = 0; k < levels; ++k) {
    const double at = (static_cast<double>(k) + 0.5) / levels;
    entropy_.push_back(lowest * std::pow(highest / lowest, at));
    exponent_.push_back(solve_exponent(entropy_.back(), vocab));
  }
}

int64_t ZipfRows::token_of(int64_t row, int64_t rank) const {
  const int64_t turned = (rank * inverse_) % vocab_ - turn(row);
  return turned < 0 ? turned + vocab_ : turned;
}

at::Tensor ZipfRows::log_ranks() const {
  at::Tensor table = at::empty({2 * vocab_}, at::kFloat);
  float* data = table.data_ptr<float>();
  for (int64_t j = 0; j < vocab_; ++j) {
    const int64_t rank = (j * multiplier_) % vocab_;
    data[j] = data[j + vocab_] = static_cast<float>(std::log1p(static_cast<double>(rank)));
  }
  return table;
}

void ZipfRows::fill(at::Tensor logits) const {
  const at::Tensor table = log_ranks().to(logits.device());
  for (int64_t row = 0; row < logits.size(0); ++row) {
    const at::Tensor turned = table.narrow(0, turn(row), vocab_);
    logits.select(0, row).copy_(turned.mul(-exponent(row)).add_(20));
  }
}

at::Tensor ZipfRows::targets(int64_t rows) const {
  at::Tensor out = at::empty({rows}, at::kLong);
  int64_t* target = out.data_ptr<int64_t>();
  std::vector<double> cumulative(static_cast<size_t>(vocab_));
  for (int64_t first = 0; first < std::min(rows, levels); ++first) {
    double sum = 0;  // rows first, first + 64, ... share one distribution of ranks
    for (int64_t k = 0; k < vocab_; ++k) {
      sum += std::pow(static_cast<double>(k + 1), -exponent(first));
      cumulative[static_cast<size_t>(k)] = sum;
    }
    for (int64_t row = first; row < rows; row += levels) {
      const auto found = std::upper_bound(cumulative.begin(), cumulative.end(), spread(row) * sum);
      target[row] = token_of(row, std::min<int64_t>(found - cumulative.begin(), vocab_ - 1));
    }
  }
  return out;
}

}  // namespace eepo::bench
