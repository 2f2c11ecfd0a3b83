#include "kernels/gemm.h"

#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "core/isa.h"
#include "core/team.h"
#include "kernels/gemm_isa.h"

namespace eepo {
namespace {

struct Kernel {
  int (*scratch_floats)();
  void (*tile)(const GemmTile&, float*);
};

const Kernel& kernel() {
  static const Kernel chosen = [] {
#ifdef EEPO_X86_64
    if (isa() == Isa::Avx512) return Kernel{isa_avx512::gemm_scratch_floats, isa_avx512::gemm_tile};
    if (isa() == Isa::Avx2) return Kernel{isa_avx2::gemm_scratch_floats, isa_avx2::gemm_tile};
#endif
    return Kernel{isa_base::gemm_scratch_floats, isa_base::gemm_tile};
  }();
  return chosen;
}

// Packed parts of A and B: one buffer per thread, kept for the thread's life.
float* thread_scratch() {
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<float, Free> scratch;
  if (!scratch) {
    scratch.reset(static_cast<float*>(std::aligned_alloc(64, kernel().scratch_floats() * sizeof(float))));
    if (!scratch) throw std::bad_alloc();
  }
  return scratch.get();
}

GemmTile whole(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, GemmB b,
               int64_t ldb, float beta, float* c, int64_t ldc) {
  const bool ta = op_a == Op::Transpose, tb = op_b == Op::Transpose;
  return {
      a, ta ? 1 : lda, ta ? lda : 1, b.data, b.dtype == DType::BFloat16, tb ? 1 : ldb, tb ? ldb : 1, c, ldc, 0, m, 0, n,
      k, alpha,        beta};
}

// Below this many multiply-adds waking the team costs more than it saves.
constexpr int64_t kSerialWork = 1 << 16;
constexpr int64_t kTileCols = 128;

}  // namespace

void gemm_serial(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, GemmB b,
                 int64_t ldb, float beta, float* c, int64_t ldc) {
  if (m <= 0 || n <= 0) return;
  GemmTile tile = whole(op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  for (int64_t row = 0; row < m; row += kGemmTileRows) {
    tile.row_begin = row;
    tile.row_end = std::min(m, row + kGemmTileRows);
    kernel().tile(tile, thread_scratch());
  }
}

void gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, GemmB b,
          int64_t ldb, float beta, float* c, int64_t ldc) {
  if (m <= 0 || n <= 0) return;
  const int threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  if (threads == 1 || m * n * std::max<int64_t>(k, 1) < kSerialWork) {
    gemm_serial(op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    return;
  }
  const GemmTile all = whole(op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  // Tiles only decide who computes an element, never how: shrink them until every thread has several.
  int64_t rows = kGemmTileRows, cols = std::min(kTileCols, (n + 31) / 32 * 32);
  const auto tiles = [&] { return ((m + rows - 1) / rows) * ((n + cols - 1) / cols); };
  while (tiles() < 3 * threads && (rows > 48 || cols > 32)) {
    if (rows > 48 && (rows >= 3 * cols || cols <= 32))
      rows /= 2;
    else
      cols /= 2;
  }
  const int64_t across = (n + cols - 1) / cols, count = tiles();
  TeamErrors errors;  // of thread_scratch()
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t t = 0; t < count; ++t) {
    GemmTile tile = all;
    tile.row_begin = t / across * rows;
    tile.row_end = std::min(m, tile.row_begin + rows);
    tile.col_begin = t % across * cols;
    tile.col_end = std::min(n, tile.col_begin + cols);
    errors.run([&] { kernel().tile(tile, thread_scratch()); });
  }
  errors.rethrow();
}

void gemm_reference(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
                    const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double total = 0;
      for (int64_t p = 0; p < k; ++p) {
        const double x = op_a == Op::Transpose ? a[p * lda + i] : a[i * lda + p];
        const double y = op_b == Op::Transpose ? b[j * ldb + p] : b[p * ldb + j];
        total += x * y;
      }
      float& out = c[i * ldc + j];
      out = static_cast<float>(alpha * total + (beta == 0.0f ? 0.0 : static_cast<double>(beta) * out));
    }
}

}  // namespace eepo
