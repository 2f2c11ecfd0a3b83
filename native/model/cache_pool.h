// The key-value cache of one generation: an arena of positions, the same in every layer, from which prompts and samples
// take regions of their own. A region has the capacity its owner needs now and is given back when the owner has ended,
// so memory follows the tokens that are alive and not the longest response times all rows.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "core/buffer.h"
#include "device/ops.h"
#include "kernels/attention.h"

namespace eepo {

/// Positions [at, at + capacity) of every layer.
struct CacheRegion {
  int64_t at = 0, capacity = 0;
  bool empty() const { return capacity == 0; }
};

class CachePool {
 public:
  /// `first`: positions it starts with; `limit`: the most it may hold; `floor`: fewer are of no use (what one sample
  /// needs to be finished alone).
  CachePool(Ops& ops, const AttentionShape& shape, int64_t layers, int64_t first, int64_t limit, int64_t floor);

  /// A zeroed region of at least `capacity` positions (rounded up to 16), or nothing when the pool is full: at its
  /// limit, or at what the device's memory allows. Throws OutOfMemory when it cannot even hold `floor`.
  std::optional<CacheRegion> take(int64_t capacity);
  void give_back(CacheRegion& region);
  /// A larger region with the same content; the old one is given back. Nothing changes when it returns false.
  bool enlarge(CacheRegion& region, int64_t capacity);

  float* layer(int64_t l) { return memory_.data() + l * layer_floats(); }
  int64_t layer_floats() const { return size_ * position_floats_; }
  /// Positions it may hold: the limit given, or what the memory allowed.
  int64_t limit() const { return limit_; }
  int64_t floats_at(const CacheRegion& region) const { return region.at * position_floats_; }

 private:
  bool grow(int64_t capacity);
  bool resize(int64_t size, bool may_fail);
  std::optional<CacheRegion> fit(int64_t capacity);

  Ops& ops_;
  int64_t layers_, position_floats_, limit_, floor_, size_ = 0;
  std::map<int64_t, int64_t> free_;  // start -> positions; neighbours are always merged
  FloatBuffer memory_;
};

/// Regions start and end at multiples of this (kernels/attention.h).
constexpr int64_t kCacheGranularity = 16;
inline int64_t cache_capacity(int64_t positions) {
  return (positions + kCacheGranularity - 1) / kCacheGranularity * kCacheGranularity;
}

}  // namespace eepo
