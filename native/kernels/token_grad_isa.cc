// The writing sweep of token_grad (see token_grad.h and token_grad_blocks.h), compiled once per instruction set.
#include "kernels/token_grad_blocks.h"
#include "kernels/token_stats_simd.h"

namespace eepo::EEPO_ISA_NAMESPACE {
namespace {

template <class Type, class Exponential>
void gradient(typename Type::Stored* z, int64_t count, const Exponential& exponential, const GradientLine& line) {
  const Vec shift = splat(line.max), constant = splat(line.constant), slope = splat(line.slope);
  const auto of = [&](Vec logit) {
    const Vec d = exponential.clamp(logit - shift);
    return exponential(d) * (slope * d + constant);
  };
  const int64_t whole = count - count % kLanes;
#pragma GCC unroll 4
  for (int64_t i = 0; i < whole; i += kLanes) Type::store(z + i, of(Type::load(z + i)));
  if (whole < count) store_tail<Type>(z + whole, count - whole, of(load_tail<Type>(z + whole, count - whole)));
}

}  // namespace

void grad_block(void* block, DType dtype, int64_t count, const ExpScale& scale, const GradientLine& line) {
  with_dtype(dtype, [&](auto type) {
    using Type = decltype(type);
    with_exponential(scale, [&](const auto& exponential) {
      gradient<Type>(static_cast<typename Type::Stored*>(block), count, exponential, line);
    });
  });
}

}  // namespace eepo::EEPO_ISA_NAMESPACE
