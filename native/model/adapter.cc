#include "model/adapter.h"

#include <algorithm>

namespace eepo {
namespace {

// [rows, parts * rank] = x A^T
void project(Ops& ops, const AdapterView& adapter, const AdapterLinear& linear, int64_t in, const float* x,
             int64_t rows, float* out) {
  const int64_t width = linear.count * adapter.layout->rank();
  ops.gemm(Op::None, Op::Transpose, rows, width, in, 1, x, in, adapter.data + linear.a, in, 0, out, width);
}

}  // namespace

void adapter_forward(Ops& ops, const AdapterView& adapter, LinearId id, const LinearSlot& slot, const float* x,
                     int64_t rows, FloatBuffer& scratch, float* y) {
  const AdapterLinear& linear = adapter.layout->linear(id);
  if (linear.count == 0) return;
  const int64_t rank = adapter.layout->rank(), width = linear.count * rank;
  float* projected = scratch.reserve(ops, rows * width);
  project(ops, adapter, linear, slot.in, x, rows, projected);
  for (int64_t p = 0; p < linear.count; ++p) {
    const AdapterPart& part = linear.parts[p];
    ops.gemm(Op::None, Op::Transpose, rows, part.out, rank, adapter.layout->scale(), projected + p * rank, width,
             adapter.data + part.b, rank, 1, y + part.column, slot.out);
  }
}

void adapter_backward(Ops& ops, const AdapterView& adapter, float* gradient, LinearId id, const LinearSlot& slot,
                      const float* dy, const float* x, int64_t rows, FloatBuffer& scratch, float* dx) {
  const AdapterLinear& linear = adapter.layout->linear(id);
  if (linear.count == 0) return;
  const int64_t rank = adapter.layout->rank(), width = linear.count * rank;
  const float scale = adapter.layout->scale();
  float* projected = scratch.reserve(ops, 2 * rows * width);
  float* d_projected = projected + rows * width;
  project(ops, adapter, linear, slot.in, x, rows, projected);
  for (int64_t p = 0; p < linear.count; ++p) {
    const AdapterPart& part = linear.parts[p];
    const float* d_part = dy + part.column;
    // dB += scale dy^T (x A^T);  d(x A^T) = scale dy B
    ops.gemm(Op::Transpose, Op::None, part.out, rank, rows, scale, d_part, slot.out, projected + p * rank, width, 1,
             gradient + part.b, rank);
    ops.gemm(Op::None, Op::None, rows, rank, part.out, scale, d_part, slot.out, adapter.data + part.b, rank, 0,
             d_projected + p * rank, width);
  }
  ops.gemm(Op::Transpose, Op::None, width, slot.in, rows, 1, d_projected, width, x, slot.in, 1, gradient + linear.a,
           slot.in);
  ops.gemm(Op::None, Op::None, rows, slot.in, width, 1, d_projected, width, adapter.data + linear.a, slot.in, 1, dx,
           slot.in);
}

void add_product(const AdapterLayout& layout, const float* adapter, const AdapterLayout::Product& product,
                 int64_t begin, int64_t count, float* out) {
  const int64_t rank = layout.rank(), in = product.in;
  const float *a = adapter + product.a, *b = adapter + product.b;
#pragma omp parallel for schedule(static)
  for (int64_t row = begin / in; row <= (begin + count - 1) / in; ++row) {
    const int64_t from = std::max(begin, row * in), to = std::min(begin + count, (row + 1) * in);
    for (int64_t r = 0; r < rank; ++r) {
      const float factor = layout.scale() * b[row * rank + r];
      for (int64_t i = from; i < to; ++i) out[i - begin] += factor * a[r * in + i - row * in];
    }
  }
}

}  // namespace eepo
