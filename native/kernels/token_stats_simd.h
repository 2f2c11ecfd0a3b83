// What the row kernels' *_isa.cc files share: elements of any float dtype as vectors, and 2^x. Included by those files
// only; everything is in the namespace of the instruction set, so no copy can run on a machine that lacks it.
#pragma once

#if defined(__AVX2__) || defined(__AVX512F__)
// GCC's own header passes a deliberately undefined vector to masked instructions and then warns of it.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/dtype.h"
#include "kernels/token_stats_blocks.h"
#include "kernels/vec.h"

#if (defined(__AVX2__) || defined(__AVX512F__)) && !defined(__F16C__)
#error "the AVX2 and AVX-512 variants need -mf16c"
#endif

namespace eepo::EEPO_ISA_NAMESPACE {

typedef uint16_t HalfVec __attribute__((vector_size(kLanes * sizeof(uint16_t))));

// a > b ? a : b, in one instruction: where an operand is NaN the result is b.
inline Vec max_or_second(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

inline IntVec bits_of(Vec x) { return (IntVec)x; }

typedef uint32_t UIntVec __attribute__((vector_size(kLanes * sizeof(uint32_t))));

// Element types: load() widens kLanes elements, pack() rounds to nearest even and store() writes that. `Bits` holds the
// packed elements as integers. The compiler's own widening and narrowing of 16-bit lanes goes through half vectors.
struct Float32 {
  using Stored = float;
  using Bits = IntVec;
  static Vec load(const Stored* p) { return EEPO_ISA_NAMESPACE::load(p); }
  static Bits pack(Vec v) { return bits_of(v); }
  static void store(Stored* p, Vec v) { EEPO_ISA_NAMESPACE::store(p, v); }
};

struct BFloat16 {
  using Stored = uint16_t;
  using Bits = HalfVec;
  static Vec load(const Stored* p) {
#if defined(__AVX512F__)
    return (Vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16);
#elif defined(__AVX2__)
    return (Vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16);
#else
    HalfVec half;
    std::memcpy(&half, p, sizeof half);
    return (Vec)(__builtin_convertvector(half, IntVec) << 16);
#endif
  }
  static Bits pack(Vec v) {
    const UIntVec bits = (UIntVec)v;
    const UIntVec nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const UIntVec quiet = (bits >> 16) | 0x40u;
    const UIntVec rounded = v != v ? quiet : nearest;
#if defined(__AVX512F__)
    return (Bits)_mm512_cvtepi32_epi16((__m512i)rounded);
#elif defined(__AVX2__)
    const __m256i pairs = _mm256_packus_epi32((__m256i)rounded, (__m256i)rounded);
    return (Bits)_mm256_castsi256_si128(_mm256_permute4x64_epi64(pairs, 0x08));
#else
    return __builtin_convertvector(rounded, HalfVec);
#endif
  }
  static void store(Stored* p, Vec v) {
    const Bits bits = pack(v);
    std::memcpy(p, &bits, sizeof bits);
  }
};

struct Float16 {
  using Stored = uint16_t;
  using Bits = HalfVec;
  static Vec load(const Stored* p) {
#if defined(__AVX512F__)
    return (Vec)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
    return (Vec)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
    Vec v;
    for (int i = 0; i < kLanes; ++i) v[i] = f16_to_float(p[i]);
    return v;
#endif
  }
  static Bits pack(Vec v) {
#if defined(__AVX512F__)
    return (Bits)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__AVX2__)
    return (Bits)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
#else
    Bits bits;
    for (int i = 0; i < kLanes; ++i) bits[i] = float_to_f16(v[i]);
    return bits;
#endif
  }
  static void store(Stored* p, Vec v) {
    const Bits bits = pack(v);
    std::memcpy(p, &bits, sizeof bits);
  }
};

// The last `count` < kLanes elements, padded with -inf, which no sum of a row notices.
template <class Type>
inline Vec load_tail(const typename Type::Stored* p, int64_t count) {
  typename Type::Stored raw[kLanes] = {};
  std::memcpy(raw, p, static_cast<size_t>(count) * sizeof *p);
  Vec v = Type::load(raw);
  for (int64_t i = count; i < kLanes; ++i) v[i] = -__builtin_inff();
  return v;
}

template <class Type>
inline void store_tail(typename Type::Stored* p, int64_t count, Vec v) {
  typename Type::Stored raw[kLanes];
  Type::store(raw, v);
  std::memcpy(p, raw, static_cast<size_t>(count) * sizeof *p);
}

// 2^(d log2(e) / tau) for d = z - m <= 0, with d first raised to the floor, where the result is exactly 0: a logit of
// -inf then contributes 0 to every sum, not 0 * -inf. NaN stays NaN.
//   x = d log2(e)/tau = n + f, n integer, |f| <= 1/2: adding 1.5 * 2^23 rounds x and leaves n in the low bits.
//   log2(e)/tau is split in two floats, so that the temperature used is tau to 1e-14 and not to 6e-8; Split says
//   whether the second part matters (needs_split), which at tau = 1 it does not.
//   2^f = 1 + f (c1 + ...): own minimax fit of degree 5 to 9e-8; exactly 1 at f = 0.
template <bool Split>
struct Exponential {
  Vec high, low, floor;

  explicit Exponential(const ExpScale& scale)
      : high(splat(scale.log2e_high)), low(splat(scale.log2e_low)), floor(splat(scale.floor)) {}

  Vec clamp(Vec d) const { return max_or_second(floor, d); }

  Vec operator()(Vec clamped) const {
    const Vec magic = splat(12582912.0f + 127.0f);  // the 127 is the exponent's bias
    const Vec rounded = clamped * high + magic;
    const Vec n = rounded - magic;
    Vec f = clamped * high - n;
    if constexpr (Split) f = clamped * low + f;
    Vec p = splat(0.001326472731307149f);
    p = p * f + 0.009671512991189957f;
    p = p * f + 0.05550733581185341f;
    p = p * f + 0.24022242426872253f;
    p = p * f + 0.6931470036506653f;
    p = p * f + 1.0f;
    return p * (Vec)(bits_of(rounded) << 23);  // n = -127 gives the bits of 0
  }
};

inline bool needs_split(const ExpScale& scale) {
  const float part = scale.log2e_low / scale.log2e_high;
  return part > 2e-8f || part < -2e-8f;
}

// Calls work(Exponential<...>(scale)).
template <class Work>
inline void with_exponential(const ExpScale& scale, Work work) {
  if (needs_split(scale)) {
    work(Exponential<true>(scale));
  } else {
    work(Exponential<false>(scale));
  }
}

// Sums of vectors in double. A float accumulator that holds the row's maximum (e^0 = 1) would lose every addend below
// 6e-8, and a vocabulary has thousands of them: an error of 4e-6 in l.
struct DoubleSum {
#if defined(__AVX512F__)
  __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
  void add(Vec v) {
    low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v)));
    high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)v, 1)));
  }
#elif defined(__AVX2__)
  __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
  void add(Vec v) {
    low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v)));
    high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1)));
  }
#else
  typedef double Pair __attribute__((vector_size(2 * sizeof(double))));
  Pair low{}, high{};
  void add(Vec v) {
    low += Pair{v[0], v[1]};
    high += Pair{v[2], v[3]};
  }
#endif
  double total() const {
    double sum = 0;
    for (int i = 0; i < kLanes / 2; ++i) sum += low[i] + high[i];
    return sum;
  }
};

// Calls work(Float32{}) or the like.
template <class Work>
inline void with_dtype(DType dtype, Work work) {
  switch (dtype) {
    case DType::Float32: work(Float32{}); break;
    case DType::BFloat16: work(BFloat16{}); break;
    case DType::Float16: work(Float16{}); break;
    case DType::Int64: break;  // refused by the caller
  }
}

}  // namespace eepo::EEPO_ISA_NAMESPACE
