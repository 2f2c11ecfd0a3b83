// The sweeps over one block of logits (see token_stats.h and token_stats_blocks.h), compiled once per instruction set.
#include "kernels/token_stats_simd.h"

namespace eepo::EEPO_ISA_NAMESPACE {
namespace {

// Sums over whole batches, drop = max - z >= 0:  sum of e^(-drop/tau), and of drop e^(-drop/tau).
template <class Exponential>
struct Sums {
  const Exponential& exponential;
  Vec max;
  DoubleSum sum{}, dropped{};

  // False, with the sums unusable, if a drop is above the limit. As unsigned integers the bits of infinity and NaN are
  // above those of any limit too: one comparison finds all that needs care, and no vector has to be clamped.
  template <class Type>
  bool add_near(const typename Type::Stored* z, int64_t count, float limit) {
    return sweep<Type, false>(z, count, std::bit_cast<uint32_t>(limit));
  }

  // Any drop >= 0, and NaN.
  template <class Type>
  void add(const typename Type::Stored* z, int64_t count) {
    sweep<Type, true>(z, count, 0);
  }

 private:
  template <class Type, bool Careful>
  bool sweep(const typename Type::Stored* z, int64_t count, uint32_t limit) {
    constexpr int64_t kFloatRun = 8 * kBatchSize;  // elements whose sums are kept in floats
    constexpr uintptr_t kAhead = kStatsBlock * sizeof *z;
    const Exponential power = exponential;  // copies, so that all the loop needs stays in registers
    const Vec top = max;
    UIntVec furthest{};
    for (int64_t i = 0; i < count;) {
      const int64_t stop = count - i < kFloatRun ? count : i + kFloatRun;
      Vec s{}, t[2] = {};
      for (; i < stop; i += kBatchSize) {
        Vec drop[kBatch], e[kBatch];
        prefetch_batch<kBatchSize * sizeof *z>(z + i, kAhead);
        load_batch<Type>(z + i, drop);
        EEPO_EACH(u) drop[u] = top - drop[u];
        if constexpr (Careful) {
          power.careful(drop, e);
        } else {
          EEPO_EACH(u) furthest = max_unsigned(furthest, (UIntVec)drop[u]);
          power(drop, e);
        }
        EEPO_EACH(u) t[u % 2] = drop[u] * e[u] + t[u % 2];
        s += total_of(e);
      }
      sum.add(s);
      dropped.add(t[0] + t[1]);
      if constexpr (!Careful) {
        if (any_above(furthest, limit)) return false;
      }
    }
    return true;
  }
};

// The maximum, in one burst of loads; then the sums, while the block is in the first-level cache and the next one is
// fetched. Logits so far below the maximum that their exponentials vanish are rare: a block that has any is summed
// again with care.
template <class Type, class Exponential>
BlockSums scan(const typename Type::Stored* z, int64_t count, const Exponential& exponential, const ExpScale& scale) {
  const int64_t whole = count - count % kBatchSize;
  const float block_max = max(max_of<Type>(z, count));
  // A block of nothing but -inf (or NaN): any finite maximum gives sums of 0 (or NaN).
  Sums<Exponential> sums{exponential, splat(block_max == -__builtin_inff() ? 0.0f : block_max)};
  bool near = block_max > -__builtin_inff() && sums.template add_near<Type>(z, whole, scale.near);
  if (!near) {
    sums.sum = sums.dropped = {};
    sums.template add<Type>(z, whole);
  }
  if (whole < count) {
    float rest[kBatchSize];  // padded with -inf
    for (int64_t i = 0; i < kBatchSize; i += kLanes) {
      const int64_t left = count - whole - i;
      store(rest + i, left >= kLanes ? Type::load(z + whole + i) : load_tail<Type>(z + whole + i, left > 0 ? left : 0));
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

BlockSums scan_block(const void* block, DType dtype, int64_t count, const ExpScale& scale) {
  BlockSums sums{};
  with_dtype(dtype, [&](auto type) {
    with_exponential(scale, [&](const auto& exponential) {
      sums = scan<decltype(type)>(as<decltype(type)>(block), count, exponential, scale);
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

void widen_block(const void* block, DType dtype, int64_t count, float* values) {
  with_dtype(dtype, [&](auto type) { widen<decltype(type)>(as<decltype(type)>(block), count, values); });
}

}  // namespace eepo::EEPO_ISA_NAMESPACE
