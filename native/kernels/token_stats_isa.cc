// The sweeps over one block of logits (see token_stats.h and token_stats_blocks.h), compiled once per instruction set.
#include "kernels/token_stats_simd.h"

namespace eepo::EEPO_ISA_NAMESPACE {
namespace {

inline Vec top_of(const Vec (&v)[kBatch]) {
  Vec top = v[0];
  for (int u = 1; u < kBatch; ++u) top = max_or_second(v[u], top);
  return top;
}

template <class Type>
Vec max_of(const typename Type::Stored* z, int64_t count) {
  Vec top[kBatch], v[kBatch];
  for (Vec& t : top) t = splat(-__builtin_inff());
  int64_t i = 0;
  for (; i + kBatchSize <= count; i += kBatchSize) {
    load_batch<Type>(z + i, v);
    EEPO_EACH(u) top[u] = max_or_second(v[u], top[u]);
  }
  for (; i + kLanes <= count; i += kLanes) top[0] = max_or_second(Type::load(z + i), top[0]);
  if (i < count) top[0] = max_or_second(load_tail<Type>(z + i, count - i), top[0]);
  return top_of(top);
}

inline Vec total_of(const Vec (&v)[kBatch]) {
  if constexpr (kBatch == 4) return (v[0] + v[1]) + (v[2] + v[3]);
  return v[0] + v[1];
}

// Sums over whole batches, drop = max - z >= 0:  sum of e^(-drop/tau), and of drop e^(-drop/tau).
template <class Type, class Exponential>
struct Sums {
  using Stored = typename Type::Stored;
  const Exponential& exponential;
  Vec max;
  DoubleSum sum{}, dropped{};
  Vec next_top[kBatch]{};

  // Adds `count` elements, whole batches. False, with the sums unusable, if a drop is above the limit: as unsigned
  // integers the bits of infinity and NaN are above those of any limit too, so one comparison finds all that would
  // need care, and no vector has to be clamped. With `next` (WithNext), takes the maxima of as many elements there.
  template <bool WithNext>
  bool add_near(const Stored* z, int64_t count, float limit, const Stored* next) {
    return sweep<Type, false, WithNext>(z, count, std::bit_cast<uint32_t>(limit), next);
  }

  // Any drop >= 0, and NaN.
  template <class Source>
  void add(const typename Source::Stored* z, int64_t count) {
    sweep<Source, true, false>(z, count, 0, nullptr);
  }

 private:
  template <class Source, bool Careful, bool WithNext>
  bool sweep(const typename Source::Stored* z, int64_t count, uint32_t limit, const Stored* next) {
    constexpr int64_t kFloatRun = 8 * kBatchSize;  // elements whose sums are kept in floats: eight a lane
    constexpr uintptr_t kAhead = 2048;             // bytes to prefetch behind what is read first
    UIntVec furthest{};
    for (int64_t i = 0; i < count;) {
      const int64_t stop = count - i < kFloatRun ? count : i + kFloatRun;
      Vec s[kBatch] = {}, t[kBatch] = {};
      for (; i < stop; i += kBatchSize) {
        Vec drop[kBatch], e[kBatch];
        if constexpr (WithNext) {
          prefetch_batch<kBatchSize * sizeof *z>(next + i, kAhead);
          load_batch<Type>(next + i, e);
          EEPO_EACH(u) next_top[u] = max_or_second(e[u], next_top[u]);
        }
        load_batch<Source>(z + i, drop);
        EEPO_EACH(u) drop[u] = max - drop[u];
        if constexpr (Careful) {
          exponential.careful(drop, e);
        } else {
          EEPO_EACH(u) furthest = max_unsigned(furthest, (UIntVec)drop[u]);
          exponential(drop, e);
        }
        EEPO_EACH(u) s[u] = s[u] + e[u];
        EEPO_EACH(u) t[u] = drop[u] * e[u] + t[u];
      }
      sum.add(total_of(s));
      dropped.add(total_of(t));
      if constexpr (!Careful) {
        if (any_above(furthest, limit)) return false;
      }
    }
    return true;
  }
};

// The maximum must be known before the exponentials can be summed. A sweep of its own would leave the arithmetic idle,
// so the sweep that sums a block takes the maximum of the next one along, which also brings that one into the cache.
template <class Type, class Exponential>
BlockSums scan(const typename Type::Stored* z, int64_t count, const Exponential& exponential, const ExpScale& scale,
               float block_max, const typename Type::Stored* next, float* next_max) {
  const int64_t whole = count - count % kBatchSize;
  const bool finite = block_max > -__builtin_inff() && block_max < __builtin_inff();
  // A block of nothing but -inf (or NaN): any finite maximum gives sums of 0 (or NaN).
  const Vec top = splat(block_max == -__builtin_inff() ? 0.0f : block_max);
  Sums<Type, Exponential> sums{exponential, top};
  bool near = false;
  if (next && whole == count && finite) {
    for (Vec& v : sums.next_top) v = splat(-__builtin_inff());
    near = sums.template add_near<true>(z, count, scale.near, next);
    if (near) *next_max = max(top_of(sums.next_top));
  } else {
    near = finite && sums.template add_near<false>(z, whole, scale.near, nullptr);
  }
  if (next && (!near || whole < count)) *next_max = max(max_of<Type>(next, kStatsBlock));
  if (near && whole == count) return {block_max, true, sums.sum.total(), -sums.dropped.total()};

  if (!near) {
    sums.sum = sums.dropped = {};
    sums.template add<Type>(z, whole);
  }
  if (whole < count) {
    float rest[kBatchSize];  // padded with -inf
    for (float& x : rest) x = -__builtin_inff();
    for (int64_t i = whole; i < count; i += kLanes) {
      store(rest + (i - whole), count - i < kLanes ? load_tail<Type>(z + i, count - i) : Type::load(z + i));
    }
    for (int64_t i = 0; i < count - whole; ++i) near = near && rest[i] >= block_max - scale.near;
    sums.template add<Float32>(rest, kBatchSize);
  }
  return {block_max, near, sums.sum.total(), -sums.dropped.total()};
}

template <class Type, class Exponential>
void exponentials_of(const typename Type::Stored* z, int64_t count, const Exponential& exponential, float max,
                     float* out) {
  for (int64_t i = 0; i < count; i += kBatchSize) {
    float values[kBatchSize] = {};
    const int64_t size = count - i < kBatchSize ? count - i : kBatchSize;
    for (int64_t k = 0; k < size; k += kLanes) {
      store(values + k, size - k < kLanes ? load_tail<Type>(z + i + k, size - k) : Type::load(z + i + k));
    }
    Vec drop[kBatch], e[kBatch];
    EEPO_EACH(u) drop[u] = splat(max) - load(values + u * kLanes);
    exponential.careful(drop, e);
    EEPO_EACH(u) store(values + u * kLanes, e[u]);
    std::memcpy(out + i, values, static_cast<size_t>(size) * sizeof(float));
  }
}

template <class Type>
void widen(const typename Type::Stored* z, int64_t count, float* out) {
  const int64_t whole = count - count % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) store(out + i, Type::load(z + i));
  if (whole < count) store_tail<Float32>(out + whole, count - whole, load_tail<Type>(z + whole, count - whole));
}

template <class Type>
const typename Type::Stored* as(const void* p) {
  return static_cast<const typename Type::Stored*>(p);
}

}  // namespace

BlockSums scan_block(const void* block, DType dtype, int64_t count, const ExpScale& scale, float max, const void* next,
                     float* next_max) {
  BlockSums sums{};
  with_dtype(dtype, [&](auto type) {
    using Type = decltype(type);
    with_exponential(scale, [&](const auto& exponential) {
      sums = scan<Type>(as<Type>(block), count, exponential, scale, max, as<Type>(next), next_max);
    });
  });
  return sums;
}

void exp_block(const void* block, DType dtype, int64_t count, const ExpScale& scale, float max, float* exponentials) {
  with_dtype(dtype, [&](auto type) {
    with_exponential(scale, [&](const auto& exponential) {
      exponentials_of<decltype(type)>(as<decltype(type)>(block), count, exponential, max, exponentials);
    });
  });
}

float max_block(const void* block, DType dtype, int64_t count) {
  float most = 0;
  with_dtype(dtype, [&](auto type) { most = max(max_of<decltype(type)>(as<decltype(type)>(block), count)); });
  return most;
}

void widen_block(const void* block, DType dtype, int64_t count, float* values) {
  with_dtype(dtype, [&](auto type) { widen<decltype(type)>(as<decltype(type)>(block), count, values); });
}

}  // namespace eepo::EEPO_ISA_NAMESPACE
