// What every CUDA kernel of ours shares: element types, 16-byte loads, warp reductions, launches.
//
// Kernels are written in the plain CUDA model (blocks, warps, shared memory, shuffles; no inline assembly outside this
// file), take raw pointers and a stream, and include nothing of libtorch. So nvcc compiles them in seconds, and the
// same files compile as C++ against native/test/emulator, where every thread is a fiber: that is how they are tested
// on machines without a GPU.
#pragma once

#include <cuda_runtime.h>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include <cstdint>

#include "core/dtype.h"

#ifdef __CUDACC__
/// EEPO_LAUNCH((kernel<float, 4>), grid, block, shared_bytes, stream, arguments...)
#define EEPO_LAUNCH(kernel, grid, block, shared, stream, ...) \
  EEPO_UNWRAP kernel<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
#define EEPO_UNWRAP(...) __VA_ARGS__
/// Names the dynamic shared memory of a kernel as an array of bytes, 16-byte aligned.
#define EEPO_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif  // the emulator's cuda_runtime.h defines both for itself

namespace eepo::cuda {

constexpr int kWarp = 32;
constexpr unsigned kFullMask = 0xffffffffu;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(BFloat16 x) { return __uint_as_float(uint32_t{x.bits} << 16); }
template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
#ifdef __CUDACC__
__device__ __forceinline__ float to_float(Float16 x) { return __half2float(__ushort_as_half(x.bits)); }
template <>
__device__ __forceinline__ BFloat16 from_float<BFloat16>(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}
template <>
__device__ __forceinline__ Float16 from_float<Float16>(float x) {
  return {__half_as_ushort(__float2half_rn(x))};
}
#else
inline float to_float(Float16 x) { return f16_to_float(x.bits); }
template <>
inline BFloat16 from_float<BFloat16>(float x) {
  return {float_to_bf16(x)};
}
template <>
inline Float16 from_float<Float16>(float x) {
  return {float_to_f16(x)};
}
#endif

/// Up to 16 bytes that are loaded and stored as one.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T at[N];
};
/// As many elements as 16 bytes hold.
template <class T>
constexpr int kPack = 16 / static_cast<int>(sizeof(T));

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) x = fmaxf(x, __shfl_xor_sync(kFullMask, x, offset));
  return x;
}
/// The same bits in every lane: the butterfly adds the same pairs whichever lane looks.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(kFullMask, x, offset);
  return x;
}
__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(kFullMask, x, offset);
  return x;
}

/// Calls body(T{}) with the element type of `dtype`: float, BFloat16 or Float16. Others are the caller's error.
template <class Body>
void with_dtype(DType dtype, Body body) {
  switch (dtype) {
    case DType::Float32: body(float{}); break;
    case DType::BFloat16: body(BFloat16{}); break;
    case DType::Float16: body(Float16{}); break;
    case DType::Int64: break;
  }
}

/// 2^x in one instruction of the special-function unit: within 2^-22 of it, 0 below 2^-126; NaN stays NaN.
__device__ __forceinline__ float exp2_approx(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return x < -126.0f ? 0.0f : exp2f(x);
#endif
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace eepo::cuda
