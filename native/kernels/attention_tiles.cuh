// The two products of attention on tiles of 64 rows in shared memory, by blocks of 128 (R = 8) or 256 threads (R = 4).
//
// Thread (ty, tx) of 64/R x 16 holds an R x 4 part of every [64, 64] product: rows ty + 64/R i; columns tx + 16 j of
// scores (so that the 16 threads of a row read 16 rows of the other operand at once, and their softmax is a shuffle),
// columns 4 tx + e of outputs. R = 8 does more per read of shared memory, and is taken where the registers last. Rows
// are 68 floats apart: 16-byte reads of neighbouring rows fall into different banks.
//
// Heads wider than 64 are taken in chunks of 64: so all kernels need two tiles of shared memory (34 KB) whatever the
// head, and several blocks share a multiprocessor. What is read again comes from the L2 cache.
#pragma once

#include "cuda/common.cuh"
#include "kernels/attention_tables.cuh"

namespace eepo::cuda {

/// Threads of a block whose threads hold R rows each.
template <int R>
constexpr int kTileThreads = 16 * kTile / R;
constexpr int kTileLd = kTile + 4;
constexpr int kChunk = kTile;  // of the head dimension
constexpr int kTileFloats = kTile * kTileLd;

/// A tile of shared memory; 16-byte aligned.
struct alignas(16) SharedTile {
  float at[kTileFloats];
};

/// Which part of every tile is the calling thread's.
template <int R>
struct TilePlace {
  static constexpr int kRowStep = kTile / R;
  int ty, tx;
  __device__ TilePlace() : ty(static_cast<int>(threadIdx.x) / 16), tx(static_cast<int>(threadIdx.x) % 16) {}
  /// The i-th row of this thread.
  __device__ __forceinline__ int row(int i) const { return ty + kRowStep * i; }
};

/// Rows of a matrix: [count, a head's dimension], `ld` floats apart.
struct Operand {
  const float* source;
  int ld, count;
};

/// Columns [first, min(first + 64, dim)) of all rows into a tile, zeros around them. kVector: dim is a multiple of 4
/// and rows are aligned to 16 bytes.
template <int R, bool kVector>
__device__ __forceinline__ void load_tile(SharedTile& tile, const Operand& rows, int first, int dim) {
  const TilePlace<R> at;
  const int column = first + 4 * at.tx;
  const float* p = rows.source + int64_t{at.ty} * rows.ld + column;
  Pack<float, 4> v[R] = {};
#pragma unroll
  for (int i = 0; i < R; ++i, p += int64_t{at.kRowStep} * rows.ld) {
    if (at.row(i) >= rows.count || column >= dim) continue;
    if constexpr (kVector) {
      v[i] = *reinterpret_cast<const Pack<float, 4>*>(p);
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if (column + e < dim) v[i].at[e] = p[e];
    }
  }
#pragma unroll
  for (int i = 0; i < R; ++i) *reinterpret_cast<Pack<float, 4>*>(tile.at + at.row(i) * kTileLd + 4 * at.tx) = v[i];
}

__device__ __forceinline__ Pack<float, 4> tile_pack(const SharedTile& tile, int row, int column) {
  return *reinterpret_cast<const Pack<float, 4>*>(tile.at + row * kTileLd + column);
}

/// scores[i][j] += row i of the thread's in a . row tx + 16 j of b, over the first `width` columns (rounded up to 4).
template <int R>
__device__ __forceinline__ void add_scores(float (&scores)[R][4], const SharedTile& a, const SharedTile& b, int width) {
  const TilePlace<R> at;
#pragma unroll 1
  for (int d = 0; d < width; d += 4) {
    Pack<float, 4> x[R];
#pragma unroll
    for (int i = 0; i < R; ++i) x[i] = tile_pack(a, at.row(i), d);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const auto y = tile_pack(b, at.tx + 16 * j, d);
#pragma unroll
      for (int i = 0; i < R; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) scores[i][j] = fmaf(x[i].at[e], y.at[e], scores[i][j]);
    }
  }
}

/// out[i][e] += sum_k weights[row i of the thread's][k] rows[k][4 tx + e]
template <int R>
__device__ __forceinline__ void add_mixture(float (&out)[R][4], const SharedTile& weights, const SharedTile& rows) {
  const TilePlace<R> at;
#pragma unroll 1
  for (int k = 0; k < kTile; k += 4) {
    Pack<float, 4> w[R];
#pragma unroll
    for (int i = 0; i < R; ++i) w[i] = tile_pack(weights, at.row(i), k);
#pragma unroll
    for (int l = 0; l < 4; ++l) {
      const auto y = tile_pack(rows, k + l, 4 * at.tx);
#pragma unroll
      for (int i = 0; i < R; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) out[i][e] = fmaf(w[i].at[l], y.at[e], out[i][e]);
    }
  }
}

/// A thread's part of a [64, 64] score matrix into a tile.
template <int R>
__device__ __forceinline__ void store_scores(SharedTile& tile, const float (&scores)[R][4]) {
  const TilePlace<R> at;
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) tile.at[at.row(i) * kTileLd + at.tx + 16 * j] = scores[i][j];
}

/// A thread's part of rows [0, count) of one chunk to columns [first, dim) of a matrix.
template <int R, bool kVector>
__device__ __forceinline__ void store_chunk(float* to, int ld, int count, int first, int dim,
                                            const float (&values)[R][4]) {
  const TilePlace<R> at;
  const int column = first + 4 * at.tx;
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int row = at.row(i);
    if (row >= count || column >= dim) continue;
    float* p = to + int64_t{row} * ld + column;
    if constexpr (kVector) {
      *reinterpret_cast<Pack<float, 4>*>(p) = {values[i][0], values[i][1], values[i][2], values[i][3]};
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if (column + e < dim) p[e] = values[i][e];
    }
  }
}

/// Columns of chunk c that hold something.
__device__ __forceinline__ int chunk_width(int c, int dim) {
  return dim - c * kChunk < kChunk ? dim - c * kChunk : kChunk;
}

/// scores = a b^T, over the whole head. Both tiles are used; begins with a barrier (they may still be read), and ends
/// without one.
template <int R, int kChunks, bool kVector>
__device__ __forceinline__ void score_heads(float (&scores)[R][4], SharedTile (&tiles)[2], const Operand& a,
                                            const Operand& b, int dim) {
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) scores[i][j] = 0;
#pragma unroll 1
  for (int c = 0; c < kChunks && c * kChunk < dim; ++c) {
    __syncthreads();
    load_tile<R, kVector>(tiles[0], a, c * kChunk, dim);
    load_tile<R, kVector>(tiles[1], b, c * kChunk, dim);
    __syncthreads();
    add_scores(scores, tiles[0], tiles[1], chunk_width(c, dim));
  }
}

/// out += weights rows, where `rows` is [64, dim]. Begins with a barrier and ends without one.
template <int R, int kChunks, bool kVector>
__device__ __forceinline__ void mix_heads(float (&out)[kChunks][R][4], SharedTile (&tiles)[2],
                                          const float (&weights)[R][4], const Operand& rows, int dim) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (c * kChunk >= dim) break;
    __syncthreads();
    if (c == 0) store_scores(tiles[0], weights);
    load_tile<R, kVector>(tiles[1], rows, c * kChunk, dim);
    __syncthreads();
    add_mixture(out[c], tiles[0], tiles[1]);
  }
}

/// The sum or maximum of x over the 16 threads of a row.
__device__ __forceinline__ float row_max(float x) {
#pragma unroll
  for (int offset = 8; offset > 0; offset >>= 1) x = fmaxf(x, __shfl_xor_sync(kFullMask, x, offset));
  return x;
}
__device__ __forceinline__ float row_sum(float x) {
#pragma unroll
  for (int offset = 8; offset > 0; offset >>= 1) x += __shfl_xor_sync(kFullMask, x, offset);
  return x;
}

/// visit(first token, keys, sees) for every tile of keys that the queries see, the prefix's first: query i of the tile
/// sees the first min(keys, sees + i) of them, and always one.
template <class Visitor>
__device__ __forceinline__ void each_key_tile(const QueryTile& tile, Visitor visit) {
  const int before = static_cast<int>(ceil_div(tile.prefix_length, kTile)), own = tile.position / kTile + 1;
#pragma unroll 1
  for (int k = 0; k < before + own; ++k) {
    const bool in_prefix = k < before;
    const int first = (in_prefix ? k : k - before) * kTile;
    const int left = (in_prefix ? tile.prefix_length : tile.position + tile.count) - first;
    visit(int64_t{in_prefix ? tile.prefix_token : tile.token - tile.position} + first, left < kTile ? left : kTile,
          in_prefix ? kTile : tile.position - first + 1);
  }
}

/// What all attention kernels are told of the heads.
struct HeadShape {
  int ld;  // of qkv
  int heads, kv_heads, head_dim;
  bool vector;  // everything may be read 16 bytes at a time
  float scale;  // of the scores: head_dim^(-1/2)

  __host__ __device__ int group() const { return heads / kv_heads; }
  __host__ __device__ int ld_out() const { return heads * head_dim; }
};

/// body(layout) with the number of chunks of 64 that a head takes, 1 to 4. Heads that cannot be read 16 bytes at a time
/// (an odd number of pairs: no model has one) all share the widest kernel.
template <int N, bool V>
struct HeadLayout {
  static constexpr int chunks = N;
  static constexpr bool vector = V;
};
template <class Body>
void with_layout(const HeadShape& shape, Body body) {
  if (!shape.vector) return body(HeadLayout<4, false>{});
  if (shape.head_dim <= 64) return body(HeadLayout<1, true>{});
  if (shape.head_dim <= 128) return body(HeadLayout<2, true>{});
  if (shape.head_dim <= 192) return body(HeadLayout<3, true>{});
  return body(HeadLayout<4, true>{});
}

}  // namespace eepo::cuda
