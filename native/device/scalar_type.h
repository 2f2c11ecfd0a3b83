// Our element types and libtorch's.
#pragma once

#include <c10/core/ScalarType.h>

#include "core/dtype.h"

namespace eepo {

inline c10::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::Float32: return c10::kFloat;
    case DType::BFloat16: return c10::kBFloat16;
    case DType::Float16: return c10::kHalf;
    case DType::Int64: return c10::kLong;
  }
  return c10::kFloat;
}

}  // namespace eepo
