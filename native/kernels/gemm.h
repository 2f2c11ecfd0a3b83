// Single-precision matrix product on the CPU:  C = alpha * op(A) op(B) + beta * C.
//
// B, where weights stand, may be bfloat16: it is widened, which is exact, while its panels are packed, so a product has
// the bits of the one with the widened B and reads half the memory.
// Row-major; op(A) is [m, k], op(B) is [k, n], C is [m, n]. The sum over k of every element of C runs in
// one fixed order that depends on k alone, not on m, n or the number of threads. With alpha = 1 and beta
// 0 or 1 that makes every element the same bits in any batch, which vendor BLAS does not promise: a token's
// logits do not depend on what it was batched with. Floor: 2 m n k FLOPs at the cores' FMA rate.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace eepo {

enum class Op : uint8_t { None, Transpose };

/// B as stored: float32 or bfloat16.
struct GemmB {
  const void* data;
  DType dtype;
  GemmB(const float* floats) : data(floats), dtype(DType::Float32) {}
  GemmB(const void* elements, DType type) : data(elements), dtype(type) {}
};

/// lda, ldb, ldc are the row strides (in elements) of A, B and C as stored.
/// beta = 0 never reads C. Threads: all of the caller's OpenMP team.
void gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, GemmB b,
          int64_t ldb, float beta, float* c, int64_t ldc);

/// The same, on the calling thread alone: for callers that are parallel already.
void gemm_serial(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, GemmB b,
                 int64_t ldb, float beta, float* c, int64_t ldc);

/// The same product by three nested loops with a double accumulator: the reference in the tests.
void gemm_reference(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
                    const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

}  // namespace eepo
