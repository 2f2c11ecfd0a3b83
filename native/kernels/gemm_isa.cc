// The register tile of gemm (see gemm.h), compiled once per instruction set.
//
// A tile of C is one thread's and walks the whole of k, kBlockK at a time: a [kBlockK, NR] panel of op(B) is packed
// (zero-padded at the edge), then for every MR rows of A the MR x NR products live in registers over the block. A is
// read by broadcasts, in place where its rows are contiguous.
#include "kernels/gemm_isa.h"

#include <algorithm>
#include <array>
#include <bit>
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

// Rows of the square block that is transposed in registers: a vector's lanes.
template <int D, int... I>
inline void exchange(Vec& a, Vec& b, std::integer_sequence<int, I...>) {
  const Vec low = __builtin_shufflevector(a, b, (I & D ? I - D + kLanes : I)...);
  const Vec high = __builtin_shufflevector(a, b, (I & D ? I + kLanes : I + D)...);
  a = low;
  b = high;
}

// Lane j of v[i] and lane i of v[j] change places: for each bit of the lane's number, rows that differ in it swap the
// halves that do.
template <int D = 1>
inline void transpose(Vec (&v)[kLanes]) {
  if constexpr (D < kLanes) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i)
      if (!(i & D)) exchange<D>(v[i], v[i + D], std::make_integer_sequence<int, kLanes>{});
    transpose<2 * D>(v);
  }
}

inline float widened(float x) { return x; }
inline float widened(uint16_t x) { return std::bit_cast<float>(uint32_t{x} << 16); }

// `count` elements, one behind the other, as floats.
inline void widen(const float* from, int count, float* to) { std::memcpy(to, from, count * sizeof(float)); }
inline void widen(const uint16_t* from, int count, float* to) {
#pragma omp simd
  for (int i = 0; i < count; ++i) to[i] = widened(from[i]);
}

// out[p * ld + i] = row i's element p, of kLanes rows; returns how far it got.
inline int64_t transpose_rows(const float* rows, int64_t stride, int64_t count, float* out, int64_t ld) {
  int64_t p = 0;
  for (; p + kLanes <= count; p += kLanes) {
    Vec v[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) v[i] = load(rows + i * stride + p);
    transpose(v);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) store(out + (p + i) * ld, v[i]);
  }
  return p;
}

// In bfloat16 two neighbours move as one lane and are taken apart, and widened, afterwards.
inline int64_t transpose_rows(const uint16_t* rows, int64_t stride, int64_t count, float* out, int64_t ld) {
  typedef uint32_t Bits __attribute__((vector_size(sizeof(Vec))));
  int64_t p = 0;
  for (; p + 2 * kLanes <= count; p += 2 * kLanes) {
    Vec v[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) std::memcpy(&v[i], rows + i * stride + p, sizeof(Vec));
    transpose(v);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      store(out + (p + 2 * i) * ld, (Vec)((Bits)v[i] << 16));
      store(out + (p + 2 * i + 1) * ld, (Vec)((Bits)v[i] & 0xffff0000u));
    }
  }
  return p;
}

// op(B)[k0 ... k0 + kb, j ... j + cols] as a panel of whole vectors, zeros behind the last column.
template <int NV, class T>
void pack(const GemmTile& g, const T* b, int64_t k0, int64_t kb, int64_t j, int cols, float* panel) {
  constexpr int width = NV * kLanes;
  if (g.b_col == 1) {
    for (int64_t p = 0; p < kb; ++p) {
      const T* source = b + (k0 + p) * g.b_row + j;
      float* out = panel + p * width;
      if (cols == width) {
        widen(source, width, out);
      } else {
        widen(source, cols, out);
        std::memset(out + cols, 0, (width - cols) * sizeof(float));
      }
    }
    return;
  }
  // op(B) = B^T: square blocks are transposed in registers, the rest goes one by one
  int q = 0;
  if (g.b_row == 1)
    for (; q + kLanes <= cols; q += kLanes) {
      const T* rows = b + (j + q) * g.b_col + k0;
      for (int64_t p = transpose_rows(rows, g.b_col, kb, panel + q, width); p < kb; ++p)
        for (int i = 0; i < kLanes; ++i) panel[p * width + q + i] = widened(rows[i * g.b_col + p]);
    }
  for (; q < width; ++q)
    for (int64_t p = 0; p < kb; ++p)
      panel[p * width + q] = q < cols ? widened(b[(j + q) * g.b_col + (k0 + p) * g.b_row]) : 0.0f;
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
      if (g.b_bf16)
        pack<NV>(g, static_cast<const uint16_t*>(g.b), k0, kb, j, cols, panel);
      else
        pack<NV>(g, static_cast<const float*>(g.b), k0, kb, j, cols, panel);
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
