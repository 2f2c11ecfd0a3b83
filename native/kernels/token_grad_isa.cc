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

}  // namespace

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
