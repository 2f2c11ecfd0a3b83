#include "bench/accuracy.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace eepo::bench {

std::vector<int64_t> sample_rows(int64_t rows, int64_t count) {
  const int64_t taken = std::min(rows, count);
  std::vector<int64_t> sample;
  for (int64_t i = 0; i < taken; ++i) {
    const int64_t step = rows / taken;
    sample.push_back(i * rows / taken + i % std::max<int64_t>(1, step));
  }
  return sample;
}

ExactRow::ExactRow(const at::Tensor& logits, int64_t target) {
  log_p = logits.to(at::kDouble).log_softmax(0);
  at::Tensor p = log_p.exp();
  logprob = log_p[target].item<double>();
  entropy = -(p * log_p).sum().item<double>();
  p[target].zero_();
  one_minus_p = p.sum().item<double>();
}

at::Tensor ExactRow::gradient(double a, double b, int64_t target) const {
  const at::Tensor p = log_p.exp();
  at::Tensor gradient = p.neg().mul(log_p.add(entropy).mul(b).add(a));
  // p_y - 1 would cancel, in double too
  gradient[target] = a * one_minus_p - b * std::exp(logprob) * (logprob + entropy);
  return gradient;
}

double absolute_error(double x, double exact) {
  const double error = std::abs(x - exact);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

double relative_error(double x, double exact) { return absolute_error(x, exact) / std::max(std::abs(exact), 1e-30); }

namespace {

/// The largest element, NaN counting as infinite.
double largest(const at::Tensor& x) {
  return x.numel() == 0 ? 0 : x.nan_to_num(std::numeric_limits<double>::infinity()).max().item<double>();
}

}  // namespace

double absolute_error(const at::Tensor& x, const at::Tensor& exact) {
  return largest((x.to(at::kDouble) - exact).abs());
}

double relative_error(const at::Tensor& x, const at::Tensor& exact) {
  const double scale = largest(exact.abs());
  return largest((x.to(at::kDouble) - exact).abs()) / std::max(scale, 1e-300);
}

double elementwise_error(const at::Tensor& x, const at::Tensor& exact, double least) {
  return largest((x.to(at::kDouble) - exact).abs() / exact.abs().clamp_min(least));
}

void raise(Errors& errors, const char* name, double error) {
  const auto [at, added] = errors.emplace(name, error);
  if (!added) at->second = std::max(at->second, error);
}

}  // namespace eepo::bench
