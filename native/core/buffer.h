// A growing array of floats on a device, from libtorch's allocator (so it is aligned, and counted where tensors are
// counted).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace eepo {

class Ops;

class FloatBuffer {
 public:
  FloatBuffer() = default;
  /// Zeroed.
  FloatBuffer(Ops& ops, int64_t size);

  float* data() { return tensor_.defined() ? static_cast<float*>(tensor_.data_ptr()) : nullptr; }
  const float* data() const { return tensor_.defined() ? static_cast<const float*>(tensor_.data_ptr()) : nullptr; }
  int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  /// Makes it at least this large, contents undefined; keeps the memory of a larger one (no churn between batches).
  float* reserve(Ops& ops, int64_t size);

 private:
  at::Tensor tensor_;
  int64_t size_ = 0;
};

}  // namespace eepo
