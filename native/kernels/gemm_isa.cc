// The register tile of gemm (see gemm.h), compiled once per instruction set.
//
// A tile of C is one thread's and walks the whole of k, kBlockK at a time: a [kBlockK, NR] panel of op(B) is packed
// (zero-padded at the edge), then for every MR rows of A the MR x NR products live in registers over the block. A is
// read by broadcasts, in place where its rows are contiguous.
#include "kernels/gemm_isa.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/vec.h"

namespace eepo::EEPO_ISA_NAMESPACE {
namespace {

#if defined(__AVX512F__)
constexpr int kRows = 12;  // 12 x 2 accumulators + 2 of B + 1 broadcast of 32 registers
#elif defined(__AVX2__)
constexpr int kRows = 6;  // 6 x 2 + 2 + 1 of 16
#else
constexpr int kRows = 4;
#endif
constexpr int kBlockK = 128;
constexpr int kMaxCols = 2 * kLanes;

// acc = sum over k of A[rows, k] * panel[k, cols], then C = alpha * acc + beta * C on the first `cols` columns.
template <int Rows, int NV>
void tile(int64_t k, const float* a, int64_t a_row, int64_t a_col, const float* panel, float alpha, float beta,
          float* c, int64_t ldc, int cols) {
  Vec acc[Rows][NV];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) acc[r][v] = Vec{};
  for (int64_t p = 0; p < k; ++p) {
    Vec b[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) b[v] = load(panel + p * (NV * kLanes) + v * kLanes);
    const float* column = a + p * a_col;
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const Vec x = splat(column[r * a_row]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) acc[r][v] += x * b[v];
    }
  }
  if (cols == NV * kLanes) {
    for (int r = 0; r < Rows; ++r)
      for (int v = 0; v < NV; ++v) {
        float* out = c + r * ldc + v * kLanes;
        store(out, beta == 0.0f ? alpha * acc[r][v] : alpha * acc[r][v] + beta * load(out));
      }
    return;
  }
  for (int r = 0; r < Rows; ++r) {
    float row[kMaxCols] = {};
    for (int v = 0; v < NV; ++v) store(row + v * kLanes, acc[r][v]);
    for (int j = 0; j < cols; ++j) {
      float& out = c[r * ldc + j];
      out = beta == 0.0f ? alpha * row[j] : alpha * row[j] + beta * out;
    }
  }
}

template <int NV>
using TileFn = void (*)(int64_t, const float*, int64_t, int64_t, const float*, float, float, float*, int64_t, int);

template <int NV, int... R>
constexpr auto tile_table(std::integer_sequence<int, R...>) {
  return std::array<TileFn<NV>, sizeof...(R)>{&tile<R + 1, NV>...};
}

// out[i][0..3] = rows s0[i] ... s3[i], i = 0 ... 3
inline void transpose4(const float* s0, const float* s1, const float* s2, const float* s3, float* out, int64_t ld) {
  QuarterVec r0, r1, r2, r3;
  std::memcpy(&r0, s0, 16);
  std::memcpy(&r1, s1, 16);
  std::memcpy(&r2, s2, 16);
  std::memcpy(&r3, s3, 16);
  const QuarterVec a = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), b = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
  const QuarterVec c = __builtin_shufflevector(r0, r1, 2, 6, 3, 7), d = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
  const QuarterVec t[4] = {__builtin_shufflevector(a, b, 0, 1, 4, 5), __builtin_shufflevector(a, b, 2, 3, 6, 7),
                           __builtin_shufflevector(c, d, 0, 1, 4, 5), __builtin_shufflevector(c, d, 2, 3, 6, 7)};
  for (int i = 0; i < 4; ++i) std::memcpy(out + i * ld, &t[i], 16);
}

template <int NV>
void pack(const GemmTile& g, int64_t k0, int64_t kb, int64_t j, int cols, float* panel) {
  constexpr int width = NV * kLanes;
  if (g.b_col == 1) {
    for (int64_t p = 0; p < kb; ++p) {
      const float* source = g.b + (k0 + p) * g.b_row + j;
      float* out = panel + p * width;
      if (cols == width) {
        std::memcpy(out, source, width * sizeof(float));
      } else {
        std::memcpy(out, source, cols * sizeof(float));
        std::memset(out + cols, 0, (width - cols) * sizeof(float));
      }
    }
    return;
  }
  // op(B) = B^T: 4 x 4 blocks are transposed in registers, the rest goes one by one
  int q = 0;
  if (g.b_row == 1)
    for (; q + 4 <= cols; q += 4) {
      const float* s0 = g.b + (j + q) * g.b_col + k0;
      const float *s1 = s0 + g.b_col, *s2 = s1 + g.b_col, *s3 = s2 + g.b_col;
      int64_t p = 0;
      for (; p + 4 <= kb; p += 4) transpose4(s0 + p, s1 + p, s2 + p, s3 + p, panel + p * width + q, width);
      for (; p < kb; ++p) {
        float* out = panel + p * width + q;
        out[0] = s0[p], out[1] = s1[p], out[2] = s2[p], out[3] = s3[p];
      }
    }
  for (; q < width; ++q)
    for (int64_t p = 0; p < kb; ++p)
      panel[p * width + q] = q < cols ? g.b[(j + q) * g.b_col + (k0 + p) * g.b_row] : 0.0f;
}

// A stored transposed is walked down its columns: with a large stride that is a cache line and a page per element, so
// rows [begin, end) of this block of k are laid out as [kRows][k] groups first, each reused by every panel of the tile.
void pack_rows(const GemmTile& g, int64_t k0, int64_t kb, float* out) {
  for (int64_t i = g.row_begin; i < g.row_end; i += kRows) {
    const int64_t rows = std::min<int64_t>(kRows, g.row_end - i);
    for (int64_t p = 0; p < kb; ++p) {
      const float* source = g.a + i + (k0 + p) * g.a_col;  // a_row is 1
      if (rows == kRows)
        std::memcpy(out + p * kRows, source, kRows * sizeof(float));
      else
        std::memcpy(out + p * kRows, source, rows * sizeof(float));
    }
    out += kRows * kb;
  }
}

template <int NV>
void run_tile(const GemmTile& g, float* panel) {
  static constexpr auto kTiles = tile_table<NV>(std::make_integer_sequence<int, kRows>{});
  constexpr int width = NV * kLanes;
  if (g.k == 0) {
    for (int64_t i = g.row_begin; i < g.row_end; ++i)
      for (int64_t j = g.col_begin; j < g.col_end; ++j) {
        float& out = g.c[i * g.ldc + j];
        out = g.beta == 0.0f ? 0.0f : g.beta * out;
      }
    return;
  }
  float* packed_rows = panel + kBlockK * kMaxCols;
  const bool pack_a = g.a_col != 1;
  for (int64_t k0 = 0; k0 < g.k; k0 += kBlockK) {
    const int64_t kb = std::min<int64_t>(kBlockK, g.k - k0);
    const float beta = k0 == 0 ? g.beta : 1.0f;
    if (pack_a) pack_rows(g, k0, kb, packed_rows);
    for (int64_t j = g.col_begin; j < g.col_end; j += width) {
      const int cols = static_cast<int>(std::min<int64_t>(width, g.col_end - j));
      pack<NV>(g, k0, kb, j, cols, panel);
      for (int64_t i = g.row_begin; i < g.row_end; i += kRows) {
        const int rows = static_cast<int>(std::min<int64_t>(kRows, g.row_end - i));
        const float* a = pack_a ? packed_rows + (i - g.row_begin) * kb : g.a + i * g.a_row + k0;
        kTiles[rows - 1](kb, a, pack_a ? 1 : g.a_row, pack_a ? kRows : 1, panel, g.alpha, beta, g.c + i * g.ldc + j,
                         g.ldc, cols);
      }
    }
  }
}

}  // namespace

int gemm_scratch_floats() { return kBlockK * (kMaxCols + kGemmTileRows + kRows); }

void gemm_tile(const GemmTile& tile, float* panel) {
  if (tile.col_end - tile.col_begin <= kLanes)
    run_tile<1>(tile, panel);
  else
    run_tile<2>(tile, panel);
}

}  // namespace eepo::EEPO_ISA_NAMESPACE
