// What gemm.cc calls in each instruction set's copy of gemm_isa.cc.
#pragma once

#include <cstdint>

namespace eepo {

/// One tile of C and the strides of op(A)[i, p] = a[i*a_row + p*a_col], op(B)[p, j] = b[p*b_row + j*b_col].
struct GemmTile {
  const float* a;
  int64_t a_row, a_col;
  const void* b;  // float32, or bfloat16
  bool b_bf16;
  int64_t b_row, b_col;
  float* c;
  int64_t ldc;
  int64_t row_begin, row_end, col_begin, col_end, k;
  float alpha, beta;
};

/// Rows of the tallest tile that gemm_tile takes.
inline constexpr int64_t kGemmTileRows = 384;

#define EEPO_DECLARE_GEMM(ns)                        \
  namespace ns {                                     \
  int gemm_scratch_floats();                         \
  void gemm_tile(const GemmTile& t, float* scratch); \
  }
EEPO_DECLARE_GEMM(isa_base)
EEPO_DECLARE_GEMM(isa_avx2)
EEPO_DECLARE_GEMM(isa_avx512)
#undef EEPO_DECLARE_GEMM

}  // namespace eepo
