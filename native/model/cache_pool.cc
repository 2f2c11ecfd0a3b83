#include "model/cache_pool.h"

#include <algorithm>

namespace eepo {
namespace {

constexpr auto kFloat = static_cast<int64_t>(sizeof(float));

}  // namespace

CachePool::CachePool(Ops& ops, const AttentionShape& shape, int64_t layers, int64_t first, int64_t limit, int64_t floor)
    : ops_(ops), layers_(layers), position_floats_(cache_slot_floats(shape, 1)), limit_(limit), floor_(floor) {
  grow(first);
}

std::optional<CacheRegion> CachePool::take(int64_t capacity) {
  capacity = cache_capacity(capacity);
  auto region = fit(capacity);
  while (!region && grow(capacity)) region = fit(capacity);
  if (!region) return region;
  for (int64_t l = 0; l < layers_; ++l)  // the kernels read whole tiles: what lies behind a length must be numbers
    ops_.zero(layer(l) + floats_at(*region), capacity * position_floats_ * kFloat);
  return region;
}

// The smallest free range that is large enough.
std::optional<CacheRegion> CachePool::fit(int64_t capacity) {
  auto best = free_.end();
  for (auto it = free_.begin(); it != free_.end(); ++it)
    if (it->second >= capacity && (best == free_.end() || it->second < best->second)) best = it;
  if (best == free_.end()) return std::nullopt;
  const auto [at, length] = *best;
  free_.erase(best);
  if (length > capacity) free_.emplace(at + capacity, length - capacity);
  return CacheRegion{at, capacity};
}

void CachePool::give_back(CacheRegion& region) {
  if (region.empty()) return;
  auto [it, _] = free_.emplace(region.at, region.capacity);
  if (const auto next = std::next(it); next != free_.end() && it->first + it->second == next->first) {
    it->second += next->second;
    free_.erase(next);
  }
  if (it != free_.begin()) {
    const auto before = std::prev(it);
    if (before->first + before->second == it->first) {
      before->second += it->second;
      free_.erase(it);
    }
  }
  region = {};
}

bool CachePool::enlarge(CacheRegion& region, int64_t capacity) {
  const auto larger = take(capacity);
  if (!larger) return false;
  // keys and values are transposed, [head_dim, capacity] each: every row of them is moved
  for (int64_t l = 0; l < layers_; ++l)
    ops_.copy_2d(layer(l) + floats_at(*larger), larger->capacity * kFloat, layer(l) + floats_at(region),
                 region.capacity * kFloat, region.capacity * kFloat, position_floats_);
  give_back(region);
  region = *larger;
  return true;
}

// Room for `capacity` more positions at the end. false: at the limit.
bool CachePool::grow(int64_t capacity) {
  const int64_t tail =
      !free_.empty() && free_.rbegin()->first + free_.rbegin()->second == size_ ? free_.rbegin()->second : 0;
  const int64_t needed = size_ + capacity - tail;
  if (needed > limit_) return false;
  // doubled, so that growing is rare; where there is no memory for that, by what is needed until one sample fits
  const int64_t doubled = std::min(limit_, std::max(needed, 2 * size_));
  const bool enough = size_ >= floor_;
  if (resize(doubled, enough || doubled > needed) || (!enough && resize(needed, false))) return true;
  limit_ = size_;  // work with what there is: samples wait for each other
  return false;
}

// false, where `may_fail`: no memory, and nothing has changed.
bool CachePool::resize(int64_t size, bool may_fail) {
  try {
    int64_t floats = 0;
    check(!__builtin_mul_overflow(layers_ * position_floats_, size, &floats), ErrorCode::OutOfMemory,
          "out of memory: a key-value cache of ", size, " positions was asked for");
    FloatBuffer larger(ops_, floats);
    for (int64_t l = 0; l < layers_ && size_ > 0; ++l)  // a GPU copies rows at most 2 GiB apart, layers may be larger
      ops_.copy(larger.data() + l * size * position_floats_, layer(l), layer_floats() * kFloat);
    memory_ = std::move(larger);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::OutOfMemory || !may_fail) throw;
    return false;
  }
  CacheRegion added{size_, size - size_};
  size_ = size;
  give_back(added);
  return true;
}

}  // namespace eepo
