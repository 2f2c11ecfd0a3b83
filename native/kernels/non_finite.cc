#include "kernels/non_finite.h"

#include <algorithm>

#include "core/error.h"

namespace eepo {
namespace {

constexpr int64_t kBlock = 1 << 16;

// An element is not finite where every bit of its exponent is set.
template <class Word>
int64_t first_of(const Word* words, int64_t n, Word exponent) {
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  int64_t first = n;
#pragma omp parallel for schedule(static) reduction(min : first) if (blocks > 1)
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t begin = block * kBlock, end = std::min(n, begin + kBlock);
    int64_t bad = 0;
    for (int64_t i = begin; i < end; ++i) bad += (words[i] & exponent) == exponent;
    if (bad == 0) continue;
    int64_t i = begin;
    while ((words[i] & exponent) != exponent) ++i;
    first = std::min(first, i);
  }
  return first < n ? first : -1;
}

}  // namespace

int64_t first_non_finite(const void* x, DType dtype, int64_t n) {
  switch (dtype) {
    case DType::Float32: return first_of(static_cast<const uint32_t*>(x), n, uint32_t{0x7f800000});
    case DType::BFloat16: return first_of(static_cast<const uint16_t*>(x), n, uint16_t{0x7f80});
    case DType::Float16: return first_of(static_cast<const uint16_t*>(x), n, uint16_t{0x7c00});
    case DType::Int64: break;
  }
  fail(ErrorCode::InvalidArgument, "whole numbers are always finite");
}

}  // namespace eepo
