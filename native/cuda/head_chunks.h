// How the fused head cuts its rows: logits of one chunk exist at a time, in float32.
#pragma once

#include <algorithm>
#include <cstdint>

namespace eepo::cuda {

/// About 1 GB of logits: rows enough that reading the head again for every chunk (2 V D bytes) and, backward, reading
/// and writing its float32 gradient (8 V D bytes) stay small beside the chunk's products (2 to 6 rows V D FLOPs), and
/// an extra memory that does not grow with the number of rows.
constexpr int64_t kChunkBytes = int64_t{1} << 30;

/// Distance between rows of logits: a multiple of 8 elements of any dtype, which tensor cores want.
inline int64_t logits_stride(int64_t vocab) { return (vocab + 7) / 8 * 8; }

/// Rows of a chunk; all chunks but the last are equal, so that no small one is left over.
inline int64_t chunk_rows(int64_t rows, int64_t vocab) {
  const int64_t most = std::max<int64_t>(128, kChunkBytes / (4 * logits_stride(vocab)) / 128 * 128);
  if (rows <= most) return std::max<int64_t>(rows, 1);
  const int64_t chunks = (rows + most - 1) / most;
  return std::min(most, ((rows + chunks - 1) / chunks + 127) / 128 * 128);
}

}  // namespace eepo::cuda
