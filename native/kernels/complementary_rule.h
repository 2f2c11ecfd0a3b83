// The unlearning loss of one token, log(1 - clip(p)) of Eq. 9 or -log p, and its slope in l, shared by the CPU's and
// CUDA's kernels. Both are ascended and fall with l.
#pragma once

#include <cmath>

#include "kernels/complementary_loss.h"

#ifdef __CUDACC__
#define EEPO_HOST_DEVICE __host__ __device__
#else
#define EEPO_HOST_DEVICE
#endif

namespace eepo {

struct ComplementaryTerm {
  double value;    // log(1 - pc), or -l
  double slope;    // d value / dl
  bool low, high;  // clamped
};

/// q = 1 - p is given apart from p because 1 - p cancels, and l because it reaches where p is 0.
EEPO_HOST_DEVICE inline ComplementaryTerm complementary_term(double l, double p, double q,
                                                             const ComplementaryOptions& options) {
  if (options.loss == TokenLoss::Nll) return {-l, -1, false, false};
  const double eps_low = options.eps_low, eps_high = options.eps_high;
  const bool saturate = options.clamp_grad == ClampGrad::Saturate;
  if (p < eps_low) return {log1p(-eps_low), saturate ? -eps_low / (1 - eps_low) : 0, true, false};
  if (q < eps_high) return {log(eps_high), saturate ? -(1 - eps_high) / eps_high : 0, false, true};
  return {log(q), -p / q, false, false};
}

/// a = dL/dl of a token of this weight (w_t I_t): in float32, as every kernel hands it on.
EEPO_HOST_DEVICE inline float complementary_coefficient(double weight, double p, double q,
                                                        const ComplementaryOptions& options) {
  const double slope = complementary_term(0, p, q, options).slope;  // no slope needs l
  return weight != 0 && slope != 0 ? static_cast<float>(weight * slope) : 0.0f;
}

}  // namespace eepo
