// Sums down the columns of a [rows, cols] matrix in a fixed order, without atomics: gradients of biases and norms.
#pragma once

#include "cuda/common.cuh"

namespace eepo::cuda {

constexpr int kColumnThreads = 256;
constexpr int kColumnGroups = kColumnThreads / kWarp;  // groups of rows that one block sums side by side

/// Block (chunk, 32 columns) adds rows [chunk * rows_per_chunk, ...) to out[chunk * cols + column], or replaces it.
/// A warp takes every eighth row, the eight sums are added in order.
static __global__ __launch_bounds__(kColumnThreads) void column_sum_kernel(const float* x, int64_t rows, int64_t cols,
                                                                           int64_t rows_per_chunk, bool accumulate,
                                                                           float* out) {
  __shared__ float sums[kColumnGroups][kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, group = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t tiles = ceil_div(cols, kWarp);
  const int64_t chunk = blockIdx.x / tiles, column = (blockIdx.x % tiles) * kWarp + lane;
  const int64_t begin = chunk * rows_per_chunk;
  const int64_t end = begin + rows_per_chunk < rows ? begin + rows_per_chunk : rows;
  float total = 0;
  if (column < cols) {
#pragma unroll 8
    for (int64_t r = begin + group; r < end; r += kColumnGroups) total += x[r * cols + column];
  }
  sums[group][lane] = total;
  __syncthreads();
  if (group != 0 || column >= cols) return;
#pragma unroll
  for (int g = 1; g < kColumnGroups; ++g) total += sums[g][lane];
  float* to = out + chunk * cols + column;
  *to = accumulate ? *to + total : total;
}

inline void column_sum(CUstream_st* stream, const float* x, int64_t rows, int64_t cols, int64_t rows_per_chunk,
                       bool accumulate, float* out) {
  const auto blocks = static_cast<unsigned>(ceil_div(rows, rows_per_chunk) * ceil_div(cols, kWarp));
  EEPO_LAUNCH((column_sum_kernel), blocks, kColumnThreads, 0, stream, x, rows, cols, rows_per_chunk, accumulate, out);
}

}  // namespace eepo::cuda
