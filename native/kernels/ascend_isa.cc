// The inner loops of ascend (see ascend.h), compiled once per instruction set: a run of elements in pieces that stay in
// the first-level cache, widened to float32, stepped in double, rounded and counted.
#include "kernels/ascend_blocks.h"
#include "kernels/token_stats_simd.h"

namespace eepo::EEPO_ISA_NAMESPACE {
namespace {

constexpr int64_t kPiece = 1024;

// What one piece needs; every buffer is float32 or its bits.
struct Piece {
  alignas(64) float param[kPiece];
  alignas(64) float grad[kPiece];
  alignas(64) float stepped[kPiece];
};

template <class Type>
void widen(const void* data, int64_t begin, int64_t count, float* out) {
  const auto* p = static_cast<const typename Type::Stored*>(data) + begin;
  const int64_t whole = count - count % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) store(out + i, Type::load(p + i));
  if (whole < count) store_tail<Float32>(out + whole, count - whole, load_tail<Type>(p + whole, count - whole));
}

// Rounds `values` into `out` and counts where the bits differ from those of the rounded `reference`.
template <class Type>
int64_t narrow(const float* values, const float* reference, int64_t count, void* data, int64_t begin) {
  using Stored = typename Type::Stored;
  Stored* out = static_cast<Stored*>(data) + begin;
  int64_t changed = 0;
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t n = count - i < kLanes ? count - i : kLanes;
    Stored before[kLanes], after[kLanes];
    Type::store(before, load(reference + i));  // the buffers are whole vectors, whatever n is
    Type::store(after, load(values + i));
    if (n == kLanes) {
      std::memcpy(out + i, after, sizeof after);
    } else {
      std::memcpy(out + i, after, static_cast<size_t>(n) * sizeof(Stored));
    }
    if (std::memcmp(before, after, static_cast<size_t>(n) * sizeof(Stored)) == 0) continue;
    for (int64_t k = 0; k < n; ++k) changed += std::memcmp(before + k, after + k, sizeof(Stored)) != 0;
  }
  return changed;
}

// 32 bits from (element, key): two rounds of a multiply-xorshift mixer, each keyed by one half of the key. A cheap
// counter hash is enough here, where only the rounding of one element hangs on it.
inline uint32_t mix(uint32_t x) {
  x ^= x >> 16;
  x *= 0x21f0aaadu;
  x ^= x >> 15;
  x *= 0xd35a2d97u;
  return x ^ (x >> 15);
}

inline uint32_t hash(uint32_t element, uint32_t key0, uint32_t key1) { return mix(mix(element ^ key0) + key1); }

inline uint32_t bits(float x) {
  uint32_t b;
  std::memcpy(&b, &x, sizeof b);
  return b;
}

inline float value(uint32_t b) {
  float x;
  std::memcpy(&x, &b, sizeof x);
  return x;
}

// Makes `stepped` a value that the narrow type holds: the neighbour below (in magnitude) plus one unit with the
// remainder's probability. Where there was no step the value is left alone, so that it rounds like the parameter.
inline float round_bf16(float x, uint32_t random) {
  const uint32_t b = bits(x);
  const bool finite = (b & 0x7f800000u) != 0x7f800000u;
  return value(finite ? (b + (random >> 16)) & 0xffff0000u : b);
}

// float16's unit is 2^-24 below 2^-14 and 13 bits of the float's mantissa above it.
inline float round_f16(float x, uint32_t random) {
  const uint32_t b = bits(x), magnitude = b & 0x7fffffffu;
  const float normal = value((b + (random >> 19)) & 0xffffe000u);
  const float scaled = value(magnitude) * 0x1p24f;  // exact
  // random / 2^32 in [0, 1) to 24 bits: up where it lies below the remainder
  const float below = static_cast<float>(static_cast<int32_t>(scaled < 1024.0f ? scaled : 0.0f));
  const float uniform = static_cast<float>(static_cast<int32_t>(random >> 8)) * 0x1p-24f;
  const float up = uniform < scaled - below ? 1.0f : 0.0f;
  const float small = value(bits((below + up) * 0x1p-24f) | (b & 0x80000000u));
  const float rounded = magnitude < 0x38800000u ? small : normal;
  return magnitude < 0x477fe000u ? rounded : x;  // 65504 and above: to nearest
}

template <float (*Round)(float, uint32_t)>
void round_stochastically(Piece& piece, int64_t count, int64_t begin, uint64_t key) {
  // An element is its low 32 bits and, through the key, the rest: pieces never straddle 2^32 (kPiece divides it).
  const uint32_t key0 = static_cast<uint32_t>(key) ^ static_cast<uint32_t>(begin >> 32) * 0x9e3779b9u;
  const uint32_t key1 = static_cast<uint32_t>(key >> 32) + static_cast<uint32_t>(begin >> 32);
  const uint32_t first = static_cast<uint32_t>(begin);
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const float x = piece.stepped[i];
    const float rounded = Round(x, hash(first + static_cast<uint32_t>(i), key0, key1));
    piece.stepped[i] = x == piece.param[i] ? x : rounded;
  }
}

int64_t step(const AscendRun& run, int64_t begin, int64_t count, Piece& piece) {
  const AscendTensor& t = *run.tensor;
  with_dtype(t.param_dtype, [&](auto type) { widen<decltype(type)>(t.param, begin, count, piece.param); });
  const bool moves = t.grad && run.eta != 0;
  if (moves) {
    with_dtype(t.grad_dtype, [&](auto type) { widen<decltype(type)>(t.grad, begin, count, piece.grad); });
    const double eta = run.eta;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      piece.stepped[i] =
          static_cast<float>(static_cast<double>(piece.param[i]) + eta * static_cast<double>(piece.grad[i]));
    }
    if (run.rounding == Rounding::Stochastic && t.into_dtype == DType::BFloat16) {
      round_stochastically<round_bf16>(piece, count, begin, run.key);
    } else if (run.rounding == Rounding::Stochastic && t.into_dtype == DType::Float16) {
      round_stochastically<round_f16>(piece, count, begin, run.key);
    }
  }
  int64_t changed = 0;
  const float* values = moves ? piece.stepped : piece.param;
  with_dtype(t.into_dtype, [&](auto type) {
    changed = narrow<decltype(type)>(values, piece.param, count, t.into, begin);
  });
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
