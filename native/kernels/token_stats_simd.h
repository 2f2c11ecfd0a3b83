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

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

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

// a < b ? a : b, likewise.
inline Vec min_or_second(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return a < b ? a : b;
#endif
}

inline IntVec bits_of(Vec x) { return (IntVec)x; }

typedef uint32_t UIntVec __attribute__((vector_size(kLanes * sizeof(uint32_t))));

inline UIntVec max_unsigned(UIntVec a, UIntVec b) {
#if defined(__AVX512F__)
  return (UIntVec)_mm512_max_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (UIntVec)_mm256_max_epu32((__m256i)a, (__m256i)b);
#else
  return a > b ? a : b;
#endif
}

// Whether any lane of `v` is above `limit`.
inline bool any_above(UIntVec v, uint32_t limit) {
#if defined(__AVX512F__)
  return _mm512_cmpgt_epu32_mask((__m512i)v, _mm512_set1_epi32(static_cast<int>(limit))) != 0;
#else
  bool above = false;
  for (int i = 0; i < kLanes; ++i) above |= v[i] > limit;
  return above;
#endif
}

// Vectors that a sweep works on together, and a loop over them.
#if defined(__AVX512F__)
inline constexpr int kBatch = 4;
#else
inline constexpr int kBatch = 2;
#endif
inline constexpr int64_t kBatchSize = int64_t{kBatch} * kLanes;
#define EEPO_EACH(u) _Pragma("GCC unroll 4") for (int u = 0; u < kBatch; ++u)

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
  // Rounded in the upper half of each lane; the lower half is of no meaning.
  static UIntVec rounded(Vec v) {
    const UIntVec bits = (UIntVec)v;
    const UIntVec nearest = bits + 0x7fffu + ((bits >> 16) & 1u);
    return v != v ? bits | 0x400000u : nearest;
  }
  static Bits pack(Vec v) {
    const UIntVec upper = rounded(v) >> 16;
#if defined(__AVX512F__)
    return (Bits)_mm512_cvtepi32_epi16((__m512i)upper);
#elif defined(__AVX2__)
    const __m256i pairs = _mm256_packus_epi32((__m256i)upper, (__m256i)upper);
    return (Bits)_mm256_castsi256_si128(_mm256_permute4x64_epi64(pairs, 0x08));
#else
    return __builtin_convertvector(upper, HalfVec);
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

// kBatch vectors of consecutive elements. The order inside a batch is the type's own, the same for both: bfloat16 takes
// the even and the odd elements of a register apart, one operation each instead of two.
template <class Type>
inline void load_batch(const typename Type::Stored* p, Vec (&v)[kBatch]) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<Type, BFloat16>) {
    for (int u = 0; u < kBatch; u += 2) {
      const __m512i pairs = _mm512_loadu_si512(p + u * kLanes);
      v[u] = (Vec)_mm512_slli_epi32(pairs, 16);
      v[u + 1] = (Vec)_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
    }
    return;
  }
#endif
  EEPO_EACH(u) v[u] = Type::load(p + u * kLanes);
}

template <class Type>
inline void store_batch(typename Type::Stored* p, const Vec (&v)[kBatch]) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<Type, BFloat16>) {
    for (int u = 0; u < kBatch; u += 2) {
      const UIntVec even = BFloat16::rounded(v[u]) >> 16, odd = BFloat16::rounded(v[u + 1]) & 0xffff0000u;
      _mm512_storeu_si512(p + u * kLanes, (__m512i)(even | odd));
    }
    return;
  }
#endif
  EEPO_EACH(u) Type::store(p + u * kLanes, v[u]);
}

// Prefetches the cache lines that lie `ahead` bytes behind a batch of Bytes bytes.
template <size_t Bytes>
inline void prefetch_batch(const void* p, uintptr_t ahead) {
#pragma GCC unroll 4
  for (size_t line = 0; line < Bytes; line += 64) {
    __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + ahead + line));
  }
}

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

#if defined(__AVX512F__)
inline constexpr float kAlpha = 46.0f / 32.0f, kBeta = 2.08128095f;
// The bits of 2^(k/32) A for k = 0 ... 31, less k << 18: see Exponential.
inline constexpr std::array<uint32_t, 32> kRootBits = [] {
  std::array<uint32_t, 32> bits{};
  double power = 0.2410982028220482;  // A
  for (uint32_t k = 0; k < 32; ++k) {
    bits[k] = std::bit_cast<uint32_t>(static_cast<float>(power)) - (k << 18);
    power *= 1.0218971486541166782;  // 2^(1/32)
  }
  return bits;
}();
#endif

// e^(-drop / tau) = 2^(-x), x = drop log2(e) / tau, for 0 <= drop <= ceiling: kBatch vectors at once and one step of
// all after the other, because an instruction that waits for the one before it keeps a place in a scheduler that has
// few.
//   log2(e)/tau is split in two floats, so that the temperature used is tau to 1e-14 and not to 6e-8; Split says
//   whether the second part matters (needs_split), which at tau = 1 it does not.
//   AVX-512: -x = n/32 + f, |f| <= 1/64: adding 1.5 * 2^18 rounds to 32nds and leaves n in the low bits, whose lowest
//   five look up 2^(k/32) in two registers while the rest go to the exponent (one shift and one integer addition; the
//   k << 18 that come with them were taken off the table). 2^f = A ((f + alpha)^2 + beta) to 2e-7, and to 1e-11 on
//   average, with A in the table. alpha is a multiple of 1/32 near the best 1/ln 2, so that it is subtracted together
//   with the rounding's 1.5 * 2^18: two operations are left for the polynomial.
//   Others: -x = n + f, |f| <= 1/2, 2^f = 1 + f (c1 + ...) by an own minimax fit of degree 5 to 9e-8.
template <bool Split>
struct Exponential {
  Vec high, low, ceiling;
#if defined(__AVX512F__)
  __m512 first = _mm512_loadu_ps(kRootBits.data()), second = _mm512_loadu_ps(kRootBits.data() + kLanes);
#endif

  explicit Exponential(const ExpScale& scale)
      : high(splat(-scale.log2e_high)), low(splat(-scale.log2e_low)), ceiling(splat(scale.ceiling)) {}

  void operator()(const Vec (&drop)[kBatch], Vec (&e)[kBatch]) const {
    Vec rounded[kBatch], f[kBatch];
#if defined(__AVX512F__)
    const Vec magic = splat(393216.0f);
    EEPO_EACH(u) rounded[u] = drop[u] * high + magic;
    EEPO_EACH(u) f[u] = drop[u] * high - (rounded[u] - (magic + kAlpha));
    if constexpr (Split) EEPO_EACH(u) f[u] = drop[u] * low + f[u];
    EEPO_EACH(u) {
      const __m512 root = _mm512_permutex2var_ps(first, (__m512i)rounded[u], second);
      e[u] = (Vec)((UIntVec)root + ((UIntVec)rounded[u] << 18));
    }
    EEPO_EACH(u) f[u] = f[u] * f[u] + kBeta;
    EEPO_EACH(u) e[u] = e[u] * f[u];
#else
    const Vec magic = splat(12582912.0f + 127.0f);  // the 127 is the exponent's bias
    EEPO_EACH(u) rounded[u] = drop[u] * high + magic;
    EEPO_EACH(u) f[u] = drop[u] * high - (rounded[u] - magic);
    if constexpr (Split) EEPO_EACH(u) f[u] = drop[u] * low + f[u];
    EEPO_EACH(u) {
      Vec p = splat(0.001326472731307149f);
      p = p * f[u] + 0.009671512991189957f;
      p = p * f[u] + 0.05550733581185341f;
      p = p * f[u] + 0.24022242426872253f;
      p = p * f[u] + 0.6931470036506653f;
      e[u] = p * f[u] + 1.0f;
    }
    EEPO_EACH(u) e[u] = e[u] * (Vec)(bits_of(rounded[u]) << 23);
#endif
  }

  // The same for any drop >= 0: 0 from the ceiling on (a logit of -inf adds 0 to every sum, not 0 * inf), NaN of NaN.
  // `drop` is lowered to the ceiling.
  void careful(Vec (&drop)[kBatch], Vec (&e)[kBatch]) const {
    EEPO_EACH(u) drop[u] = min_or_second(ceiling, drop[u]);
    (*this)(drop, e);
    EEPO_EACH(u) e[u] = drop[u] == ceiling ? Vec{} : e[u];
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

// Sums of vectors in double, to which a sweep adds its float sums of a few vectors. A float accumulator that holds the
// row's maximum (e^0 = 1) would lose every addend below 6e-8, and a vocabulary has thousands of them: an error of 4e-6
// in l.
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
#if defined(__AVX512F__)
    return _mm512_reduce_add_pd(low + high);
#else
    double sum = 0;
    for (int i = 0; i < kLanes / 2; ++i) sum += low[i] + high[i];
    return sum;
#endif
  }
};

// The maxima, lane by lane, of `count` elements; NaN is left aside.
template <class Type>
inline Vec max_of(const typename Type::Stored* z, int64_t count) {
  Vec top[kBatch], v[kBatch];
  for (Vec& t : top) t = splat(-__builtin_inff());
  int64_t i = 0;
  for (; i + kBatchSize <= count; i += kBatchSize) {
    load_batch<Type>(z + i, v);
    EEPO_EACH(u) top[u] = max_or_second(v[u], top[u]);
  }
  for (; i + kLanes <= count; i += kLanes) top[0] = max_or_second(Type::load(z + i), top[0]);
  if (i < count) top[0] = max_or_second(load_tail<Type>(z + i, count - i), top[0]);
  for (int u = 1; u < kBatch; ++u) top[0] = max_or_second(top[u], top[0]);
  return top[0];
}

inline Vec total_of(const Vec (&v)[kBatch]) {
  if constexpr (kBatch == 4) return (v[0] + v[1]) + (v[2] + v[3]);
  return v[0] + v[1];
}

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
