// Elementwise work on the rows of a matrix: a block covers one strip of one row, or several whole short rows. All of a
// launch lies along grid.x, so the number of rows is not bounded by 65,535.
#pragma once

#include "cuda/common.cuh"

namespace eepo::cuda {

constexpr int kStripThreads = 256;

/// How a block's threads lie over a matrix of `rows` rows of `items` items: 2^log_width threads side by side.
struct Strips {
  int64_t rows, items;
  unsigned per_row;
  int log_width;

  Strips(int64_t row_count, int64_t item_count) : rows(row_count), items(item_count), log_width(0) {
    while ((1 << log_width) < kStripThreads && (1 << log_width) < items) ++log_width;
    per_row = static_cast<unsigned>(ceil_div(items, int64_t{1} << log_width));
  }
  unsigned blocks() const {
    return static_cast<unsigned>(ceil_div(rows, kStripThreads >> log_width) * static_cast<int64_t>(per_row));
  }
  /// The calling thread's row and item; false if it has none.
  __device__ __forceinline__ bool mine(int64_t& row, int64_t& item) const {
    const int across = static_cast<int>(threadIdx.x) & ((1 << log_width) - 1);
    const int down = static_cast<int>(threadIdx.x) >> log_width;
    row = static_cast<int64_t>(blockIdx.x / per_row) * (kStripThreads >> log_width) + down;
    item = (static_cast<int64_t>(blockIdx.x % per_row) << log_width) + across;
    return row < rows && item < items;
  }
};

/// True if all pointers may be read 16 bytes at a time.
template <class... T>
bool aligned16(const T*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

/// body(std::integral_constant-like width): 4 floats at a time where `vector`, else 1.
template <int N>
struct Width {
  static constexpr int value = N;
};
template <class Body>
void with_width(bool vector, Body body) {
  if (vector)
    body(Width<4>{});
  else
    body(Width<1>{});
}

template <int V>
__device__ __forceinline__ Pack<float, V> load_pack(const float* p) {
  return *reinterpret_cast<const Pack<float, V>*>(p);
}
template <int V>
__device__ __forceinline__ void store_pack(float* p, const Pack<float, V>& x) {
  *reinterpret_cast<Pack<float, V>*>(p) = x;
}

}  // namespace eepo::cuda
