// The register tile of gemm (see gemm.h), compiled once per instruction set.
//
// C is cut into tiles of kTileRows x kTileCols; a tile is one thread's and walks the whole of k, kBlockK at a
// time: a [kBlockK, NR] panel of op(B) is packed (zero-padded at the edge), then for every MR rows of A the
// MR x NR products live in registers over the block. A is read in place by broadcasts, in either storage order.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/gemm_isa.h"
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
constexpr int kBlockK = 256;
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
  // op(B) = B^T: reads run along k, which is contiguous in storage
  for (int q = 0; q < width; ++q) {
    if (q >= cols) {
      for (int64_t p = 0; p < kb; ++p) panel[p * width + q] = 0.0f;
      continue;
    }
    const float* source = g.b + (j + q) * g.b_col + k0 * g.b_row;
    for (int64_t p = 0; p < kb; ++p) panel[p * width + q] = source[p * g.b_row];
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
  for (int64_t j = g.col_begin; j < g.col_end; j += width) {
    const int cols = static_cast<int>(std::min<int64_t>(width, g.col_end - j));
    for (int64_t k0 = 0; k0 < g.k; k0 += kBlockK) {
      const int64_t kb = std::min<int64_t>(kBlockK, g.k - k0);
      const float beta = k0 == 0 ? g.beta : 1.0f;
      pack<NV>(g, k0, kb, j, cols, panel);
      for (int64_t i = g.row_begin; i < g.row_end; i += kRows) {
        const int rows = static_cast<int>(std::min<int64_t>(kRows, g.row_end - i));
        kTiles[rows - 1](kb, g.a + i * g.a_row + k0 * g.a_col, g.a_row, g.a_col, panel, g.alpha, beta,
                         g.c + i * g.ldc + j, g.ldc, cols);
      }
    }
  }
}

}  // namespace

int gemm_panel_floats() { return kBlockK * kMaxCols; }

void gemm_tile(const GemmTile& tile, float* panel) {
  if (tile.col_end - tile.col_begin <= kLanes)
    run_tile<1>(tile, panel);
  else
    run_tile<2>(tile, panel);
}

}  // namespace eepo::EEPO_ISA_NAMESPACE
