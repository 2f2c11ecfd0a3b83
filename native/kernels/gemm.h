// Single-precision matrix product on the CPU:  C = alpha * op(A) op(B) + beta * C.
//
// Row-major; op(A) is [m, k], op(B) is [k, n], C is [m, n]. The sum over k of every element of C runs in
// one fixed order that depends on k alone: not on m, n, the number of threads or the instruction set's
// tile. So a token's logits are the same bits whatever it was batched with, which vendor BLAS does not
// promise, and at the sizes of small policies packing our own panels is also faster than calling one.
#pragma once

#include <cstdint>

namespace eepo {

enum class Op : uint8_t { None, Transpose };

/// lda, ldb, ldc are the row strides (in elements) of A, B and C as stored.
/// beta = 0 never reads C. Threads: all of the caller's OpenMP team.
void gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
          const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

/// The same product by three nested loops with a double accumulator: the reference in the tests.
void gemm_reference(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
                    const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

}  // namespace eepo
