// CUDA forms of adamw and square_sum (see blocks.h).
//
// The trick of square_sum: a block sums 65,536 fixed elements in double and a second kernel the blocks, so the order
// depends on n alone, not on the device.
//
// Floor: adamw reads 16 and writes 12 bytes per parameter; square_sum reads 4. adamw: 2 MUFU (a root and a division)
// and about 20 other operations per parameter, in 16-byte accesses where the arrays allow them: memory-bound
// everywhere.
#include <cmath>

#include "cuda/common.cuh"
#include "cuda/kernels.h"

namespace eepo::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kSumElements = 65536;

struct AdamWStep {
  float grad_scale, beta1, beta2, eps;
  float step;  // lr / (1 - beta1^t)
  float root;  // sqrt(1 - beta2^t)
  float keep;  // 1 - lr weight_decay
};

__device__ __forceinline__ void step_one(float& param, float grad, float& m, float& v, const AdamWStep& o) {
  const float g = grad * o.grad_scale;
  m = o.beta1 * m + (1.0f - o.beta1) * g;
  v = o.beta2 * v + (1.0f - o.beta2) * g * g;
  param = param * o.keep - o.step * m / (sqrtf(v) / o.root + o.eps);
}

/// One thread per pack of N elements.
template <int N>
__global__ void __launch_bounds__(kThreads)
    adamw_packs(float* param, const float* grad, float* m, float* v, int64_t packs, AdamWStep options) {
  using Vector = Pack<float, N>;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= packs) return;
  Vector p = reinterpret_cast<Vector*>(param)[i], first = reinterpret_cast<Vector*>(m)[i],
         second = reinterpret_cast<Vector*>(v)[i];
  const Vector g = reinterpret_cast<const Vector*>(grad)[i];
#pragma unroll
  for (int k = 0; k < N; ++k) step_one(p.at[k], g.at[k], first.at[k], second.at[k], options);
  reinterpret_cast<Vector*>(param)[i] = p;
  reinterpret_cast<Vector*>(m)[i] = first;
  reinterpret_cast<Vector*>(v)[i] = second;
}

template <int N>
void launch_packs(const Context& context, float* param, const float* grad, float* m, float* v, int64_t packs,
                  const AdamWStep& options) {
  if (packs <= 0) return;
  EEPO_LAUNCH((adamw_packs<N>), static_cast<unsigned>(ceil_div(packs, kThreads)), kThreads, 0, context.stream, param,
              grad, m, v, packs, options);
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

/// The sum over the block's threads, in thread 0.
__device__ __forceinline__ double block_sum(double x) {
  __shared__ double warps[kThreads / kWarp];
  x = warp_sum(x);
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  double total = 0;
  for (const double part : warps) total += part;
  return total;
}

__global__ void __launch_bounds__(kThreads) square_parts(const float* x, int64_t n, double* parts) {
  const int64_t begin = int64_t{blockIdx.x} * kSumElements;
  const int64_t end = begin + kSumElements < n ? begin + kSumElements : n;
  const bool packs = reinterpret_cast<uintptr_t>(x) % 16 == 0;
  double sum = 0;
  // Four neighbours per thread, in either way of loading them: alignment does not show.
  for (int64_t i = begin + int64_t{threadIdx.x} * 4; i < end; i += int64_t{kThreads} * 4) {
    Pack<float, 4> v{};
    if (packs && i + 4 <= end) {
      v = *reinterpret_cast<const Pack<float, 4>*>(x + i);
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) v.at[k] = i + k < end ? x[i + k] : 0.0f;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) sum = fma(static_cast<double>(v.at[k]), static_cast<double>(v.at[k]), sum);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) sum_parts(const double* parts, int64_t count, double* out) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += parts[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *out = sum;
}

}  // namespace

void adamw(const Context& context, float* param, const float* grad, float* m, float* v, int64_t n, const AdamW& o,
           int64_t step, float grad_scale) {
  if (n <= 0) return;
  const auto bias = [&](float beta) {
    return static_cast<float>(1.0 - std::pow(static_cast<double>(beta), static_cast<double>(step)));
  };
  const AdamWStep options{grad_scale,
                          o.beta1,
                          o.beta2,
                          o.eps,
                          o.lr / bias(o.beta1),
                          std::sqrt(bias(o.beta2)),
                          1.0f - o.lr * o.weight_decay};
  int64_t done = 0;
  if (aligned(param) && aligned(grad) && aligned(m) && aligned(v)) {
    launch_packs<4>(context, param, grad, m, v, n / 4, options);
    done = n / 4 * 4;
  }
  launch_packs<1>(context, param + done, grad + done, m + done, v + done, n - done, options);
}

void square_sum(const Context& context, const float* x, int64_t n, double* out) {
  const int64_t blocks = n > 0 ? ceil_div(n, kSumElements) : 0;
  double* const parts =
      blocks > 0 ? static_cast<double*>(context.scratch(static_cast<size_t>(blocks) * sizeof(double))) : nullptr;
  if (blocks > 0) {
    EEPO_LAUNCH((square_parts), static_cast<unsigned>(blocks), kThreads, 0, context.stream, x, n, parts);
  }
  EEPO_LAUNCH((sum_parts), 1, kThreads, 0, context.stream, parts, blocks, out);
}

}  // namespace eepo::cuda
