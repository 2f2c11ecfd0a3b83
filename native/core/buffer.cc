#include "core/buffer.h"

#include "device/ops.h"

namespace eepo {

FloatBuffer::FloatBuffer(Ops& ops, int64_t size) {
  reserve(ops, size);
  if (size > 0) ops.zero(data(), size * static_cast<int64_t>(sizeof(float)));
}

float* FloatBuffer::reserve(Ops& ops, int64_t size) {
  if (size > size_) {
    tensor_ = at::Tensor();  // free the old one first
    size_ = 0;               // if the next line throws
    tensor_ = ops.empty({size}, DType::Float32);
    size_ = size;
  }
  return data();
}

}  // namespace eepo
