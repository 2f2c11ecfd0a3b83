#include "core/buffer.h"

#include <ATen/ops/empty.h>

#include <cstring>

namespace eepo {

FloatBuffer::FloatBuffer(int64_t size) : tensor_(at::empty({size}, at::kFloat)), size_(size) { zero(); }

void FloatBuffer::zero() {
  if (size_) std::memset(tensor_.data_ptr(), 0, size_ * sizeof(float));
}

float* FloatBuffer::reserve(int64_t size) {
  if (size > size_) {
    tensor_ = at::Tensor();  // free the old one first
    size_ = 0;               // if the next line throws
    tensor_ = at::empty({size}, at::kFloat);
    size_ = size;
  }
  return data();
}

}  // namespace eepo
