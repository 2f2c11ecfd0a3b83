// Where NaN or Infinity is in an array. Looked for only after a number that depends on all of it was not finite (see
// train/diagnose.cc), so nothing that is finite pays for it. Floor: every element read once.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace eepo {

/// Index of the first element that is NaN or infinite, -1 if there is none. float32, bfloat16 or float16; n may be 0.
int64_t first_non_finite(const void* x, DType dtype, int64_t n);

}  // namespace eepo
