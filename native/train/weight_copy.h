// One copy of a model's weights on a device: the matrices in float32 or bfloat16, the vectors in float32.
#pragma once

#include <cstdint>

#include "core/buffer.h"
#include "device/ops.h"
#include "model/weights.h"

namespace eepo {

class WeightCopy {
 public:
  /// Makes room, contents undefined. Without `vectors` only for the matrices: the vectors are then somebody else's.
  void reserve(Ops& ops, const Layout& layout, DType dtype, bool vectors = true) {
    if (!matrices_.defined() || dtype_ != dtype) {
      matrices_ = at::Tensor();
      matrices_ = ops.empty({layout.matrix_size()}, dtype);
      dtype_ = dtype;
    }
    if (vectors) vectors_.reserve(ops, layout.vector_size());
  }

  DType dtype() const { return dtype_; }
  void* matrices() { return matrices_.data_ptr(); }
  float* vectors() { return vectors_.data(); }
  Weights view() const { return {matrices_.data_ptr(), dtype_, vectors_.data()}; }

  int64_t bytes() const {
    const int64_t floats = vectors_.size() * static_cast<int64_t>(sizeof(float));
    return floats + (matrices_.defined() ? matrices_.numel() * static_cast<int64_t>(size_of(dtype_)) : 0);
  }

 private:
  at::Tensor matrices_;
  DType dtype_ = DType::Float32;
  FloatBuffer vectors_;
};

}  // namespace eepo
