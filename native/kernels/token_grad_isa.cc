// The writing sweep of token_grad (see token_grad.h and token_grad_blocks.h), compiled once per instruction set.
#include "kernels/token_grad_blocks.h"
#include "kernels/token_stats_simd.h"

namespace eepo::EEPO_ISA_NAMESPACE {
namespace {

template <bool Near, class Exponential>
[[gnu::always_inline]] inline void gradient_of(const Exponential& exponential, const GradientLine& line,
                                               Vec (&v)[kBatch]) {
  Vec drop[kBatch], e[kBatch];
  EEPO_EACH(u) drop[u] = splat(line.max) - v[u];
  if constexpr (Near) {
    exponential(drop, e);
  } else {
    exponential.careful(drop, e);
  }
  EEPO_EACH(u) drop[u] = splat(-line.slope) * drop[u] + splat(line.constant);
  EEPO_EACH(u) v[u] = e[u] * drop[u];
}

template <class Type, bool Near, class Exponential>
void gradient(typename Type::Stored* z, int64_t count, const Exponential& exponential, const GradientLine& line) {
  using Stored = typename Type::Stored;
  const Exponential power = exponential;  // a copy that no store can change, so that it stays in registers
  const GradientLine own = line;
  Vec v[kBatch];
  const int64_t whole = count - count % kBatchSize;
  for (int64_t i = 0; i < whole; i += kBatchSize) {
    load_batch<Type>(z + i, v);
    gradient_of<Near>(power, own, v);
    store_batch<Type>(z + i, v);
  }
  if (whole == count) return;
  Stored rest[kBatchSize];  // padded with a logit that is there
  for (int64_t i = 0; i < kBatchSize; ++i) rest[i] = z[whole + i < count ? whole + i : whole];
  load_batch<Type>(rest, v);
  gradient_of<false>(power, own, v);
  store_batch<Type>(rest, v);
  std::memcpy(z + whole, rest, static_cast<size_t>(count - whole) * sizeof(Stored));
}

// Exponentials against a reference that is not the maximum: of a batch whose logits are all at most 60 nats below and
// 27 above it, in the middle of what a float's exponent holds; of any other batch nothing is said but false.
//   AVX-512: the reference is rounded to r, in 32nds of a place (a factor of 2), so that z log2(e)/tau can be rounded
//   to
// 32nds with r and the table's offset in one constant, and no distance has to be formed (nor rounded) before. The
// exponentials are then too small by correction(), one number for all. The rounded exponents are biased by 88 places,
// so that those from -88 to 40 differ in their lowest 12 bits only, and one test of the bits of four vectors finds
// whatever else there is, infinities and NaN too. The bias is a multiple of 32 and is taken off the table.
template <bool Split>
struct GuardedExponential : Exponential<Split> {
#if defined(__AVX512F__)
  static constexpr float kPlacesBelow = 88.0f, kMostPlaces = 65536.0f;
  Vec factor, factor_low, magic;
  double places, rounded_places;

  GuardedExponential(const ExpScale& scale, float reference)
      : Exponential<Split>(scale), factor(splat(scale.log2e_high)), factor_low(splat(scale.log2e_low)) {
    const double log2e = static_cast<double>(scale.log2e_high) + (Split ? static_cast<double>(scale.log2e_low) : 0.0);
    places = reference * log2e;
    rounded_places = usable() ? std::nearbyint(places * 32) / 32 : 0;
    magic = splat(static_cast<float>(393216.0 + static_cast<double>(kPlacesBelow) - rounded_places));
    const __m512i bias = _mm512_set1_epi32(static_cast<int>(kPlacesBelow) << 23);
    this->first = (__m512)_mm512_sub_epi32((__m512i)this->first, bias);
    this->second = (__m512)_mm512_sub_epi32((__m512i)this->second, bias);
  }

  // Beyond, the constant would have no place for 32nds.
  bool usable() const { return std::fabs(places) < static_cast<double>(kMostPlaces); }
  double correction() const { return std::exp2(rounded_places - places); }

  bool operator()(const Vec (&z)[kBatch], Vec (&e)[kBatch]) const {
    static_assert(kBatch == 4);
    Vec rounded[kBatch], f[kBatch];
    // Named, because the compiler does not fuse a product that is used on both sides of a branch.
    EEPO_EACH(u) rounded[u] = (Vec)_mm512_fmadd_ps((__m512)z[u], (__m512)factor, (__m512)magic);
    const __m512i three =
        _mm512_ternarylogic_epi32((__m512i)rounded[0], (__m512i)rounded[1], (__m512i)rounded[2], 0xfe);  // or
    const __m512i wrong = _mm512_ternarylogic_epi32(three, (__m512i)rounded[3], (__m512i)splat(393216.0f), 0x56);
    if (_mm512_test_epi32_mask(wrong, _mm512_set1_epi32(~0xfff)) != 0) [[unlikely]]
      return false;
    EEPO_EACH(u) { f[u] = (Vec)_mm512_fmsub_ps((__m512)z[u], (__m512)factor, (__m512)(rounded[u] - (magic + kAlpha))); }
    if constexpr (Split) EEPO_EACH(u) f[u] = z[u] * factor_low + f[u];
    EEPO_EACH(u) {
      const __m512 root = _mm512_permutex2var_ps(this->first, (__m512i)rounded[u], this->second);
      e[u] = (Vec)((UIntVec)root + ((UIntVec)rounded[u] << 18));
    }
    EEPO_EACH(u) f[u] = f[u] * f[u] + kBeta;
    EEPO_EACH(u) e[u] = e[u] * f[u];
    return true;
  }
#else
  Vec top, below, above;

  GuardedExponential(const ExpScale& scale, float reference)
      : Exponential<Split>(scale), top(splat(reference)), below(splat(scale.near)), above(splat(-0.45f * scale.near)) {}

  static bool usable() { return true; }
  static double correction() { return 1; }

  bool operator()(const Vec (&z)[kBatch], Vec (&e)[kBatch]) const {
    Vec drop[kBatch];
    IntVec inside = ~IntVec{};
    EEPO_EACH(u) drop[u] = top - z[u];
    EEPO_EACH(u) inside &= (drop[u] <= below) & (drop[u] >= above);
    if (!all_set(inside)) return false;
    Exponential<Split>::operator()(drop, e);
    return true;
  }

  static bool all_set(IntVec mask) {
#if defined(__AVX2__)
    return _mm256_movemask_ps((__m256)mask) == 0xff;
#else
    IntVec both = mask;
    for (int i = 1; i < kLanes; ++i) both[0] &= both[i];
    return both[0] != 0;
#endif
  }
#endif
};

// Overwrites whole batches by their exponentials up to the first that the guard refuses; returns where that is.
template <class Guarded>
int64_t keep_near(float* z, int64_t whole, const Guarded& guarded, DoubleSum& total) {
  constexpr int64_t kFloatRun = 8 * kBatchSize;  // elements whose sums are kept in floats
  constexpr uintptr_t kAhead = kStatsBlock * sizeof *z;
  const Guarded power = guarded;  // copies that no store can change, so that they stay in registers
  DoubleSum sum{};
  int64_t i = 0;
  bool inside = true;
  while (inside && i < whole) {
    const int64_t stop = whole - i < kFloatRun ? whole : i + kFloatRun;
    Vec s{};
    for (; i < stop; i += kBatchSize) {
      Vec logits[kBatch], e[kBatch];
      prefetch_batch<kBatchSize * sizeof *z>(z + i, kAhead);
      load_batch<Float32>(z + i, logits);
      inside = power(logits, e);
      if (!inside) break;
      store_batch<Float32>(z + i, e);
      s += total_of(e);
    }
    sum.add(s);
  }
  total = sum;
  return i;
}

// The same for any logits, up to the end.
template <class Exponential>
void keep_careful(float* z, int64_t count, const Exponential& exponential, float reference, DoubleSum& total) {
  for (int64_t i = 0; i < count; i += kBatchSize) {
    const int64_t size = count - i < kBatchSize ? count - i : kBatchSize;
    float values[kBatchSize];
    for (float& x : values) x = -__builtin_inff();
    std::memcpy(values, z + i, static_cast<size_t>(size) * sizeof *z);
    Vec drop[kBatch], e[kBatch];
    EEPO_EACH(u) drop[u] = splat(reference) - load(values + u * kLanes);
    exponential.careful(drop, e);
    EEPO_EACH(u) store(values + u * kLanes, e[u]);
    total.add(total_of(e));
    std::memcpy(z + i, values, static_cast<size_t>(size) * sizeof *z);
  }
}

template <bool Fetch>
void scale(float* block, int64_t count, float factor, const float* next) {
  constexpr int64_t kStep = kFetchedPart * 64 / static_cast<int64_t>(sizeof *block);  // elements per line fetched
  static_assert(kStep % kLanes == 0);
  const Vec by = splat(factor);
  const int64_t whole = count - count % kStep;
  for (int64_t i = 0; i < whole; i += kStep) {
    if constexpr (Fetch) __builtin_prefetch(next + i / kFetchedPart, 0, 2);
#pragma GCC unroll 16
    for (int64_t k = i; k < i + kStep; k += kLanes) store(block + k, load(block + k) * by);
  }
  for (int64_t i = whole; i < count; ++i) block[i] *= factor;
}

template <bool Split>
BlockSums keep(float* z, int64_t count, const ExpScale& units, float reference) {
  const float nothing = -__builtin_inff();
  DoubleSum near{}, rest{};
  double correction = 1;
  int64_t done = 0;
  const GuardedExponential<Split> guarded(units, reference);
  if (reference > nothing && guarded.usable()) {
    done = keep_near(z, count - count % kBatchSize, guarded, near);
    correction = guarded.correction();
    if (done == count) return {reference, true, correction * near.total(), correction};
  }
  const float top = max(max_of<Float32>(z + done, count - done));
  if (top > nothing && !(top - reference < units.near / 3)) {  // a new reference; the old one may be -inf
    correction *= std::exp2((static_cast<double>(reference) - top) * units.log2e_high);
    reference = top;
  }
  if (done > 0) scale<false>(z, done, static_cast<float>(correction), nullptr);
  keep_careful(z + done, count - done, Exponential<Split>(units), reference > nothing ? reference : 0.0f, rest);
  return {reference, false, correction * near.total() + rest.total(), 1};
}

}  // namespace

float max_block(const float* block, int64_t count) { return max(max_of<Float32>(block, count)); }

BlockSums keep_block(float* block, int64_t count, const ExpScale& scale, float reference) {
  return needs_split(scale) ? keep<true>(block, count, scale, reference) : keep<false>(block, count, scale, reference);
}

void scale_block(float* block, int64_t count, float factor, const void* next) {
  if (next) {
    scale<true>(block, count, factor, static_cast<const float*>(next));
  } else {
    scale<false>(block, count, factor, nullptr);
  }
}

void grad_block(void* block, DType dtype, int64_t count, const ExpScale& scale, const GradientLine& line, bool near) {
  with_dtype(dtype, [&](auto type) {
    using Type = decltype(type);
    auto* z = static_cast<typename Type::Stored*>(block);
    with_exponential(scale, [&](const auto& exponential) {
      if (near) {
        gradient<Type, true>(z, count, exponential, line);
      } else {
        gradient<Type, false>(z, count, exponential, line);
      }
    });
  });
}

}  // namespace eepo::EEPO_ISA_NAMESPACE
