// SIMD building blocks for the files compiled once per instruction set (*_isa.cc): one float vector type of
// the set's natural width, and an exp that vectorizes.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

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
inline float sum(Vec v) {  // pairwise, so the order does not depend on anything but the width
  float lane[kLanes];
  std::memcpy(lane, &v, sizeof v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  return lane[0];
}
inline float max(Vec v) {
  float lane[kLanes];
  std::memcpy(lane, &v, sizeof v);
  float m = lane[0];
  for (int i = 1; i < kLanes; ++i) m = lane[i] > m ? lane[i] : m;
  return m;
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
