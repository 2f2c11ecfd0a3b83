// The sweeps over one block of logits (see token_stats.h and token_stats_blocks.h), compiled once per instruction set.
#include "kernels/token_stats_simd.h"

namespace eepo::EEPO_ISA_NAMESPACE {
namespace {

// Two sweeps: the maximum, then the sums, while the block is in the first-level cache and the next one is fetched.
template <class Type, class Exponential>
BlockSums scan(const typename Type::Stored* z, int64_t count, const Exponential& exponential) {
  constexpr int kUnroll = 4;
  constexpr int64_t kStep = kUnroll * kLanes;
  const int64_t whole = count - count % kLanes;
  const int64_t unrolled = count - count % kStep;
  const Vec tail = whole < count ? load_tail<Type>(z + whole, count - whole) : splat(-__builtin_inff());

  Vec top[kUnroll];
  for (Vec& v : top) v = tail;
  int64_t i = 0;
  for (; i < unrolled; i += kStep)
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; ++u) top[u] = max_or_second(Type::load(z + i + u * kLanes), top[u]);
  for (; i < whole; i += kLanes) top[0] = max_or_second(Type::load(z + i), top[0]);
  const float block_max = max(max_or_second(max_or_second(top[0], top[1]), max_or_second(top[2], top[3])));

  // A block of nothing but -inf (or NaN): any finite shift gives sums of 0 (or NaN).
  const Vec shift = splat(block_max == -__builtin_inff() ? 0.0f : block_max);
  DoubleSum sum, shifted;
  for (i = 0; i < unrolled; i += kStep) {
    Vec e[kUnroll], de[kUnroll];
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; ++u) {
      const auto* p = z + i + u * kLanes;
      __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + kStatsBlock * sizeof *p));
      const Vec d = exponential.clamp(Type::load(p) - shift);
      e[u] = exponential(d);
      de[u] = d * e[u];
    }
    sum.add((e[0] + e[1]) + (e[2] + e[3]));
    shifted.add((de[0] + de[1]) + (de[2] + de[3]));
  }
  const auto add = [&](Vec value) {
    const Vec d = exponential.clamp(value - shift);
    const Vec e = exponential(d);
    sum.add(e);
    shifted.add(d * e);
  };
  for (; i < whole; i += kLanes) add(Type::load(z + i));
  if (whole < count) add(tail);
  return {block_max, sum.total(), shifted.total()};
}

template <class Type, class Exponential>
void exponentials_of(const typename Type::Stored* z, int64_t count, const Exponential& exponential, float max,
                     float* out) {
  const Vec shift = splat(max);
  const int64_t whole = count - count % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    store(out + i, exponential(exponential.clamp(Type::load(z + i) - shift)));
  }
  if (whole < count) {
    const Vec tail = load_tail<Type>(z + whole, count - whole);
    store_tail<Float32>(out + whole, count - whole, exponential(exponential.clamp(tail - shift)));
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
      sums = scan<decltype(type)>(as<decltype(type)>(block), count, exponential);
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
