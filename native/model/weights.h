// What one pass of the decoder reads and writes of a model's parameters (see train/layout.h for the two spaces). Views:
// whoever makes them owns the memory.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "device/ops.h"
#include "model/adapter.h"
#include "train/layout.h"

namespace eepo {

/// theta, theta' or a reference: matrices in `dtype` (float32 or bfloat16), norms and biases in float32.
struct Weights {
  const void* matrices = nullptr;
  DType dtype = DType::Float32;
  const float* vectors = nullptr;
  AdapterView adapter{};  // added to the matrices' products

  WeightMatrix matrix(const LinearSlot& slot) const {
    const auto* bytes = static_cast<const char*>(matrices);
    return {bytes + slot.at * static_cast<int64_t>(size_of(dtype)), dtype, slot.out, slot.in};
  }
  const float* vector(int64_t at) const { return vectors + at; }
};

/// Where gradients are added to, float32 whatever the weights are. With an adapter the base has none: `matrices` is
/// null and `vectors` a place for what nobody reads.
struct Gradients {
  float* matrices = nullptr;
  float* vectors = nullptr;
  float* adapter = nullptr;  // flat, as AdapterLayout says
  bool base() const { return matrices != nullptr; }

  float* matrix(int64_t at) const { return matrices + at; }
  float* vector(int64_t at) const { return vectors + at; }
};

}  // namespace eepo
