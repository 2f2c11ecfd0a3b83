// The inner loops of ascend (see ascend.h), compiled once per instruction set: a run of elements in pieces that stay in
// the first-level cache, widened to float32, stepped in double, rounded and counted.
#include <type_traits>

#include "kernels/ascend_blocks.h"
#include "kernels/token_stats_simd.h"

namespace eepo::EEPO_ISA_NAMESPACE {
namespace {

constexpr int64_t kPiece = 1024;

// Whole vectors, so that the last one of a tensor may be computed beyond its end.
struct Piece {
  alignas(64) float param[kPiece];
  alignas(64) float grad[kPiece];
  alignas(64) float stepped[kPiece];
};

// `count` elements from `begin` as floats: where they lie if they are whole vectors of floats already, else in
// `buffer`.
template <class Type>
const float* widened(const void* data, int64_t begin, int64_t count, float* buffer) {
  const auto* p = static_cast<const typename Type::Stored*>(data) + begin;
  const int64_t whole = count - count % kLanes;
  if constexpr (sizeof(*p) == sizeof(float)) {
    if (whole == count) return p;
  }
  for (int64_t i = 0; i < whole; i += kLanes) store(buffer + i, Type::load(p + i));
  if (whole < count) store(buffer + whole, load_tail<Type>(p + whole, count - whole));
  return buffer;
}

const float* widened(const void* data, DType dtype, int64_t begin, int64_t count, float* buffer) {
  const float* floats = buffer;
  with_dtype(dtype, [&](auto type) { floats = widened<decltype(type)>(data, begin, count, buffer); });
  return floats;
}

// Rounds `values` into `out` and counts where the bits differ from those of the rounded `reference`. `out` may be where
// either of them lies.
template <class Type>
int64_t narrow(const float* values, const float* reference, int64_t count, void* data, int64_t begin) {
  using Stored = typename Type::Stored;
  using Bits = typename Type::Bits;
  Stored* out = static_cast<Stored*>(data) + begin;
  const int64_t whole = count - count % kLanes;
  Bits same{};  // minus the number of equal elements per lane: at most kPiece / kLanes
  for (int64_t i = 0; i < whole; i += kLanes) {
    const Bits after = Type::pack(load(values + i));
    same += (Bits)(after == Type::pack(load(reference + i)));
    std::memcpy(out + i, &after, sizeof after);
  }
  using Lane = std::conditional_t<sizeof(Stored) == 2, int16_t, int32_t>;
  int64_t changed = whole;
  for (int i = 0; i < kLanes; ++i) changed += static_cast<Lane>(same[i]);
  if (whole < count) {
    const Bits after = Type::pack(load(values + whole)), before = Type::pack(load(reference + whole));
    std::memcpy(out + whole, &after, static_cast<size_t>(count - whole) * sizeof(Stored));
    for (int64_t i = 0; i < count - whole; ++i) changed += after[i] != before[i];
  }
  return changed;
}

// 32 bits from (element, key): two rounds of a multiply-xorshift mixer, each keyed by one half of the key. A cheap
// counter hash is enough here, where only the rounding of one element hangs on it.
inline UIntVec mix(UIntVec x) {
  x ^= x >> 16;
  x *= 0x21f0aaadu;
  x ^= x >> 15;
  x *= 0xd35a2d97u;
  return x ^ (x >> 15);
}

// Values that the narrow type holds: the neighbour below (in magnitude), plus one unit with the remainder's
// probability.
struct StochasticBFloat16 {
  static Vec round(Vec x, UIntVec random) {
    const UIntVec bits = (UIntVec)x;
    const UIntVec rounded = (bits + (random >> 16)) & 0xffff0000u;
    return (Vec)((bits & 0x7f800000u) == 0x7f800000u ? bits : rounded);  // Inf and NaN stay
  }
};

// float16's unit is 2^-24 below 2^-14, and 13 bits of the float's mantissa above it.
struct StochasticFloat16 {
  static Vec round(Vec x, UIntVec random) {
    const UIntVec bits = (UIntVec)x, magnitude = bits & 0x7fffffffu;
    const UIntVec normal = (bits + (random >> 19)) & 0xffffe000u;
    // Below 2^-14: |x| 2^24 < 1024 = integer + remainder, by the same trick as in Exponential, then rounded down.
    const Vec scaled = (Vec)magnitude * 0x1p24f;
    const Vec whole = (scaled + 8388608.0f) - 8388608.0f;
    const Vec below = whole > scaled ? whole - 1.0f : whole;
    const Vec uniform = __builtin_convertvector((IntVec)(random >> 8), Vec) * 0x1p-24f;
    const Vec up = uniform < scaled - below ? below + 1.0f : below;
    const UIntVec small = (UIntVec)(up * 0x1p-24f) | (bits & 0x80000000u);
    const UIntVec rounded = (IntVec)magnitude < 0x38800000 ? small : normal;
    return (Vec)((IntVec)magnitude < 0x477fe000 ? rounded : bits);  // 65504 and above: to nearest
  }
};

template <class Stochastic>
void round_stochastically(const float* param, float* stepped, int64_t count, int64_t begin, uint64_t key) {
  // An element is its low 32 bits and, through the key, the rest: pieces never straddle 2^32 (kPiece divides it).
  const uint32_t beyond = static_cast<uint32_t>(begin >> 32);
  const uint32_t key0 = static_cast<uint32_t>(key) ^ beyond * 0x9e3779b9u;
  const uint32_t key1 = static_cast<uint32_t>(key >> 32) + beyond;
  UIntVec element{};
  for (int i = 0; i < kLanes; ++i) element[i] = static_cast<uint32_t>(begin) + static_cast<uint32_t>(i);
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vec x = load(stepped + i);
    const Vec rounded = Stochastic::round(x, mix(mix(element ^ key0) + key1));
    // Where there was no step the value is left alone, so that it rounds like the parameter.
    store(stepped + i, x == load(param + i) ? x : rounded);
    element += static_cast<uint32_t>(kLanes);
  }
}

int64_t step(const AscendRun& run, int64_t begin, int64_t count, Piece& piece) {
  const AscendTensor& t = *run.tensor;
  const float* param = widened(t.param, t.param_dtype, begin, count, piece.param);
  const float* values = param;
  if (t.grad && run.eta != 0) {
    const float* grad = widened(t.grad, t.grad_dtype, begin, count, piece.grad);
    const double eta = run.eta;
    float* stepped = piece.stepped;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const double move = eta * static_cast<double>(grad[i]);
      const float moved = static_cast<float>(static_cast<double>(param[i]) + move);
      stepped[i] = move == 0 ? param[i] : moved;  // -0 + 0 is +0, which would count as a change
    }
    if (run.rounding == Rounding::Stochastic && t.into_dtype == DType::BFloat16) {
      round_stochastically<StochasticBFloat16>(param, stepped, count, begin, run.key);
    } else if (run.rounding == Rounding::Stochastic && t.into_dtype == DType::Float16) {
      round_stochastically<StochasticFloat16>(param, stepped, count, begin, run.key);
    }
    values = stepped;
  }
  int64_t changed = 0;
  with_dtype(t.into_dtype, [&](auto type) { changed = narrow<decltype(type)>(values, param, count, t.into, begin); });
  return changed;
}

}  // namespace

int64_t ascend_run(const AscendRun& run) {
  Piece piece{};
  int64_t changed = 0;
  for (int64_t begin = run.begin; begin < run.end; begin += kPiece) {
    changed += step(run, begin, run.end - begin < kPiece ? run.end - begin : kPiece, piece);
  }
  return changed;
}

}  // namespace eepo::EEPO_ISA_NAMESPACE
