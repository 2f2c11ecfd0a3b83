// CUDA form of ascend (see ascend.h): the bits of the CPU (but for the payload of a NaN that a gradient brings).
//
// The trick: all tensors in one launch. The table of tensors is uploaded with the number of each one's first block; a
// block finds its tensor by bisection and steps 16,384 elements of it, 8 per thread at a time, whatever the dtypes.
//
// Floor: every parameter and gradient read once and every element of `into` written once: 10 bytes an element for a
// float32 master and gradient and a bfloat16 copy. Per element: 2 conversions to double, 1 DMUL, 1 DADD, 1 conversion
// back, and about 10 integer operations (24 with stochastic rounding): memory-bound on an H100, near the double
// precision rate's limit on consumer devices. 64 bytes in flight a thread.
#include "core/philox.h"
#include "cuda/common.cuh"
#include "cuda/kernels.h"

namespace eepo::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kGroup = 8;  // elements of a thread at a time
constexpr int64_t kBlockElements = 16384;

struct DeviceTensor {
  const void *param, *grad;
  void* into;
  int64_t size, first_block;
  uint64_t key;  // of the random bits
  DType param_dtype, grad_dtype, into_dtype;
};

/// A block's run of one tensor; element i of a thread's group is at + i.
template <class T>
__device__ __forceinline__ void load_group(const T* data, int64_t at, int64_t size, float (&x)[kGroup]) {
  using Vector = Pack<T, kPack<T>>;
  const T* const p = data + at;
  if (at + kGroup <= size && reinterpret_cast<uintptr_t>(p) % 16 == 0) {
#pragma unroll
    for (int part = 0; part < kGroup; part += kPack<T>) {
      const Vector v = *reinterpret_cast<const Vector*>(p + part);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) x[part + i] = to_float(v.at[i]);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kGroup; ++i) x[i] = at + i < size ? to_float(p[i]) : 0.0f;
}

__device__ __forceinline__ void load_group(const void* data, DType dtype, int64_t at, int64_t size,
                                           float (&x)[kGroup]) {
  switch (dtype) {
    case DType::Float32: load_group(static_cast<const float*>(data), at, size, x); break;
    case DType::BFloat16: load_group(static_cast<const BFloat16*>(data), at, size, x); break;
    case DType::Float16: load_group(static_cast<const Float16*>(data), at, size, x); break;
    case DType::Int64: break;
  }
}

/// To nearest, as on the CPU for NaN too.
__device__ __forceinline__ uint32_t narrow(float x, float) { return __float_as_uint(x); }
__device__ __forceinline__ uint32_t narrow(float x, BFloat16) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x40u;
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}
__device__ __forceinline__ uint32_t narrow(float x, Float16) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return ((bits >> 16) & 0x8000u) | 0x7e00u | ((bits >> 13) & 0x3ffu);
  return from_float<Float16>(x).bits;
}

/// Rounds the group into `into` and counts the elements whose bits differ from those of the rounded parameter.
template <class T>
__device__ __forceinline__ int store_group(const float (&x)[kGroup], const float (&param)[kGroup], T* data, int64_t at,
                                           int64_t size) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>;
  Bits* const p = reinterpret_cast<Bits*>(data) + at;
  Bits bits[kGroup];
  int changed = 0;
#pragma unroll
  for (int i = 0; i < kGroup; ++i) {
    bits[i] = static_cast<Bits>(narrow(x[i], T{}));
    changed += at + i < size && bits[i] != static_cast<Bits>(narrow(param[i], T{})) ? 1 : 0;
  }
  if (at + kGroup <= size && reinterpret_cast<uintptr_t>(p) % 16 == 0) {
    // By intrinsic: plain stores the compiler would merge with the scalar ones below.
    constexpr int kPerWord = 4 / static_cast<int>(sizeof(T)), kWords = kGroup / kPerWord;
    uint32_t words[kWords];
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      words[i] = bits[i * kPerWord];
      if constexpr (kPerWord == 2) words[i] |= uint32_t{bits[2 * i + 1]} << 16;
    }
#pragma unroll
    for (int i = 0; i < kWords; i += 4) {
      __stwb(reinterpret_cast<uint4*>(p) + i / 4, uint4{words[i], words[i + 1], words[i + 2], words[i + 3]});
    }
    return changed;
  }
#pragma unroll
  for (int i = 0; i < kGroup; ++i) {
    if (at + i < size) p[i] = bits[i];
  }
  return changed;
}

__device__ __forceinline__ int store_group(const float (&x)[kGroup], const float (&param)[kGroup], void* data,
                                           DType dtype, int64_t at, int64_t size) {
  switch (dtype) {
    case DType::Float32: return store_group(x, param, static_cast<float*>(data), at, size);
    case DType::BFloat16: return store_group(x, param, static_cast<BFloat16*>(data), at, size);
    case DType::Float16: return store_group(x, param, static_cast<Float16*>(data), at, size);
    case DType::Int64: break;
  }
  return 0;
}

// ---- stochastic rounding: the functions of ascend_isa.cc, one lane at a time ----------------------------------------

__device__ __forceinline__ uint32_t mix(uint32_t x) {
  x ^= x >> 16;
  x *= 0x21f0aaadu;
  x ^= x >> 15;
  x *= 0xd35a2d97u;
  return x ^ (x >> 15);
}

__device__ __forceinline__ uint32_t random_bits(uint64_t key, int64_t element) {
  const uint32_t beyond = static_cast<uint32_t>(element >> 32);
  const uint32_t key0 = static_cast<uint32_t>(key) ^ beyond * 0x9e3779b9u;
  const uint32_t key1 = static_cast<uint32_t>(key >> 32) + beyond;
  return mix(mix(static_cast<uint32_t>(element) ^ key0) + key1);
}

__device__ __forceinline__ float stochastic_bf16(float x, uint32_t random) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return x;
  return __uint_as_float((bits + (random >> 16)) & 0xffff0000u);
}

__device__ __forceinline__ float stochastic_f16(float x, uint32_t random) {
  const uint32_t bits = __float_as_uint(x), magnitude = bits & 0x7fffffffu;
  if (magnitude >= 0x477fe000u) return x;  // 65504 and above: to nearest
  if (magnitude >= 0x38800000u) return __uint_as_float((bits + (random >> 19)) & 0xffffe000u);
  // Below 2^-14 the unit is 2^-24.
  const float scaled = __fmul_rn(__uint_as_float(magnitude), 0x1p24f);
  const float whole = __fsub_rn(__fadd_rn(scaled, 8388608.0f), 8388608.0f);
  const float below = whole > scaled ? __fsub_rn(whole, 1.0f) : whole;
  const float uniform = __fmul_rn(static_cast<float>(random >> 8), 0x1p-24f);
  const float up = uniform < __fsub_rn(scaled, below) ? __fadd_rn(below, 1.0f) : below;
  return __uint_as_float(__float_as_uint(__fmul_rn(up, 0x1p-24f)) | (bits & 0x80000000u));
}

__device__ __forceinline__ float stepped(float param, float grad, double eta, bool stochastic, const DeviceTensor& t,
                                         int64_t element) {
  const double move = __dmul_rn(eta, static_cast<double>(grad));
  if (move == 0 || param != param) return param;  // -0 + 0 is +0, which would count as a change
  const float moved = static_cast<float>(__dadd_rn(static_cast<double>(param), move));
  if (!stochastic || moved == param || t.into_dtype == DType::Float32) return moved;
  const uint32_t random = random_bits(t.key, element);
  return t.into_dtype == DType::BFloat16 ? stochastic_bf16(moved, random) : stochastic_f16(moved, random);
}

__device__ __forceinline__ int64_t find_tensor(const DeviceTensor* tensors, int64_t count, int64_t block) {
  int64_t low = 0, high = count;  // tensors[low].first_block <= block < tensors[high].first_block
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (tensors[middle].first_block <= block ? low : high) = middle;
  }
  return low;
}

__global__ void __launch_bounds__(kThreads) ascend_blocks(const DeviceTensor* tensors, int64_t count, double eta,
                                                          bool stochastic, unsigned long long* changed) {
  __shared__ int warp_changes[kThreads / kWarp];
  const int64_t block = blockIdx.x;
  const DeviceTensor t = tensors[find_tensor(tensors, count, block)];
  const int64_t begin = (block - t.first_block) * kBlockElements;
  const int64_t end = begin + kBlockElements < t.size ? begin + kBlockElements : t.size;
  const bool steps = t.grad != nullptr && eta != 0;
  int changes = 0;
  for (int64_t at = begin + int64_t{threadIdx.x} * kGroup; at < end; at += int64_t{kThreads} * kGroup) {
    float param[kGroup], x[kGroup];
    load_group(t.param, t.param_dtype, at, t.size, param);
    if (steps) {
      load_group(t.grad, t.grad_dtype, at, t.size, x);
#pragma unroll
      for (int i = 0; i < kGroup; ++i) x[i] = stepped(param[i], x[i], eta, stochastic, t, at + i);
    } else {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) x[i] = param[i];
    }
    changes += store_group(x, param, t.into, t.into_dtype, at, t.size);
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) changes += __shfl_xor_sync(kFullMask, changes, offset);
  if (threadIdx.x % kWarp == 0) warp_changes[threadIdx.x / kWarp] = changes;
  __syncthreads();
  if (threadIdx.x != 0) return;
  unsigned long long total = 0;
  for (const int part : warp_changes) total += static_cast<unsigned long long>(part);
  if (total != 0) atomicAdd(changed, total);  // integers: in any order
}

uint64_t tensor_key(uint64_t seed, size_t index) {
  const PhiloxCounter bits =
      philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(uint64_t{index} >> 32), 0, 0}, seed);
  return (uint64_t{bits[1]} << 32) | bits[0];
}

}  // namespace

void ascend(const Context& context, const std::vector<AscendTensor>& tensors, double eta, Rounding rounding,
            uint64_t seed, unsigned long long* changed) {
  cudaMemsetAsync(changed, 0, sizeof *changed, context.stream);
  std::vector<DeviceTensor> table;
  int64_t blocks = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const AscendTensor& t = tensors[i];
    if (t.size <= 0) continue;
    table.push_back(
        {t.param, t.grad, t.into, t.size, blocks, tensor_key(seed, i), t.param_dtype, t.grad_dtype, t.into_dtype});
    blocks += ceil_div(t.size, kBlockElements);
  }
  if (table.empty()) return;
  const size_t bytes = table.size() * sizeof(DeviceTensor);
  auto* const device = static_cast<DeviceTensor*>(context.scratch(bytes));
  context.upload(device, table.data(), bytes);
  EEPO_LAUNCH((ascend_blocks), static_cast<unsigned>(blocks), kThreads, 0, context.stream, device,
              static_cast<int64_t>(table.size()), eta, rounding == Rounding::Stochastic, changed);
}

}  // namespace eepo::cuda
