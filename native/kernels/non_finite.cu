// CUDA form of first_non_finite (see non_finite.h): every thread looks at elements a grid apart, the lowest index wins.
// Floor: 4 (2) bytes read per element. It runs after something went wrong, so it is plain.
#include "cuda/common.cuh"
#include "cuda/kernels.h"

namespace eepo::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 4096;

/// `exponent`: the bits that are all set where an element is not finite.
template <class Word>
__global__ void __launch_bounds__(kThreads)
    first_non_finite_words(const Word* words, int64_t n, Word exponent, long long* first) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n; i += int64_t{gridDim.x} * kThreads) {
    if ((words[i] & exponent) != exponent) continue;
    atomicMin(first, static_cast<long long>(i));
    return;  // this thread's later ones are higher
  }
}

template <class Word>
void launch_search(const Context& context, const void* x, int64_t n, Word exponent, long long* first) {
  const int64_t blocks = ceil_div(n, kThreads);
  EEPO_LAUNCH((first_non_finite_words<Word>), static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks),
              kThreads, 0, context.stream, static_cast<const Word*>(x), n, exponent, first);
}

}  // namespace

void first_non_finite(const Context& context, const void* x, DType dtype, int64_t n, long long* first) {
  if (n <= 0) return;
  switch (dtype) {
    case DType::Float32: launch_search(context, x, n, uint32_t{0x7f800000}, first); break;
    case DType::BFloat16: launch_search(context, x, n, uint16_t{0x7f80}, first); break;
    case DType::Float16: launch_search(context, x, n, uint16_t{0x7c00}, first); break;
    case DType::Int64: break;
  }
}

}  // namespace eepo::cuda
