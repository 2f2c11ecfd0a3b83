// One momentum-free step of gradient ascent over many tensors, out of place (Eq. 11):
//
//   into_i = cast(params_i + eta * grads_i)
//
// `params` is never written unless `into` aliases it; with eta = 0 the result is cast(params), which is also
// how a step is undone: the rollout copy is rebuilt from the master, nothing is subtracted.
// In bfloat16 nearest rounding loses most of so small a step, so `Stochastic` rounds up with probability
// equal to the remainder, keyed by (seed, tensor, element): the same bits every time, on any number of threads. An
// element without a step (eta * grad = 0, or lost in float32) is rounded to nearest, like the plain cast. The sum is
// formed in double and rounded to float32 first. NaN and infinities pass through. Floor: every parameter and gradient
// read once, every element of `into` written once.
#pragma once

#include <cstdint>
#include <vector>

#include "core/dtype.h"

namespace eepo {

enum class Rounding : uint8_t { Nearest, Stochastic };

struct AscendTensor {
  const void* param;
  DType param_dtype;
  const void* grad;  // may be null: a plain cast
  DType grad_dtype;
  void* into;
  DType into_dtype;
  int64_t size;
};

struct AscendReport {
  int64_t elements = 0;
  int64_t changed = 0;  // elements of `into` whose bits differ from cast(param)
};

/// The caller passes each storage once (tied embeddings are one tensor). Any mix of the three float dtypes; int64 or a
/// non-finite eta throws InvalidArgument. `into` may be `param` itself, if of the same dtype, but not overlap
/// otherwise.
AscendReport ascend(const std::vector<AscendTensor>& tensors, double eta, Rounding rounding, uint64_t seed);

}  // namespace eepo
