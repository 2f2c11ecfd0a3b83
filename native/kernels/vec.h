// SIMD building blocks for the files compiled once per instruction set (*_isa.cc): one float vector type of
// the set's natural width, and an exp that vectorizes.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#ifndef EEPO_ISA_NAMESPACE
#define EEPO_ISA_NAMESPACE isa_base
#endif

namespace eepo::EEPO_ISA_NAMESPACE {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t IntVec __attribute__((vector_size(kLanes * sizeof(int32_t))));

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
inline Vec splat(float x) { return Vec{} + x; }
inline Vec max(Vec a, Vec b) { return a > b ? a : b; }

// Halves are folded onto each other, so the order of a sum depends on the width alone.
typedef float QuarterVec __attribute__((vector_size(16)));
#if defined(__AVX2__)
typedef float EightVec __attribute__((vector_size(32)));
inline QuarterVec low(EightVec v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3); }
inline QuarterVec high(EightVec v) { return __builtin_shufflevector(v, v, 4, 5, 6, 7); }
#endif
#if defined(__AVX512F__)
inline EightVec low(Vec v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7); }
inline EightVec high(Vec v) { return __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15); }
#endif

/// Folds a vector with `op` (sum, max) down to one number.
template <class Op>
inline float fold(Vec v, Op op) {
#if defined(__AVX512F__)
  const EightVec half = op(low(v), high(v));
  const QuarterVec four = op(low(half), high(half));
#elif defined(__AVX2__)
  const QuarterVec four = op(low(v), high(v));
#else
  const QuarterVec four = v;
#endif
  const QuarterVec two = op(four, __builtin_shufflevector(four, four, 2, 3, 2, 3));
  const QuarterVec one = op(two, __builtin_shufflevector(two, two, 1, 1, 1, 1));
  return one[0];
}
inline float sum(Vec v) {
  return fold(v, [](auto a, auto b) { return a + b; });
}
inline float max(Vec v) {
  return fold(v, [](auto a, auto b) { return a > b ? a : b; });
}

/// The first `count` (1 ... kLanes) floats, zeros behind them; and only those back.
inline Vec load_part(const float* p, int count) {
  if (count == kLanes) return load(p);
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p));
#else
  float buffer[kLanes] = {};
  for (int i = 0; i < count; ++i) buffer[i] = p[i];
  return load(buffer);
#endif
}
inline void store_part(float* p, Vec v, int count) {
  if (count == kLanes) return store(p, v);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), reinterpret_cast<__m512>(v));
#else
  float buffer[kLanes];
  store(buffer, v);
  for (int i = 0; i < count; ++i) p[i] = buffer[i];
#endif
}

/// e^x to about 2.5e-7 relative, for x <= 88; anything below -87.3 gives 0. The integer part is taken by adding
/// 1.5 * 2^23 (round to nearest), the fraction by a degree-6 polynomial of 2^f on [-1/2, 1/2].
inline Vec exp(Vec x) {
  const Vec t = x * 1.44269504088896341f;
  const Vec clamped = t < -126.0f ? splat(-126.0f) : t;
  const Vec magic = splat(12582912.0f);
  const Vec rounded = (clamped + magic) - magic;
  // ln2 in two parts keeps f exact for |x| up to 88
  const Vec f = (x - rounded * 0.693145752f) - rounded * 1.42860677e-6f;
  const Vec bounded = t < -126.0f ? splat(0.0f) : f;
  Vec p = splat(1.0f / 5040.0f);
  p = p * bounded + 1.0f / 720.0f;
  p = p * bounded + 1.0f / 120.0f;
  p = p * bounded + 1.0f / 24.0f;
  p = p * bounded + 1.0f / 6.0f;
  p = p * bounded + 0.5f;
  p = p * bounded + 1.0f;
  p = p * bounded + 1.0f;
  const IntVec exponent = (__builtin_convertvector(rounded, IntVec) + 127) << 23;
  Vec scale;
  std::memcpy(&scale, &exponent, sizeof scale);
  const Vec result = p * scale;
  return t < -126.0f ? splat(0.0f) : result;
}

}  // namespace eepo::EEPO_ISA_NAMESPACE
