// The part of the CUDA programming model that our kernels use, for the CPU: found in place of the real header when the
// .cu files are compiled as C++20 (g++ -x c++ -Inative/test/emulator -Inative). Every thread of a block is a fiber, run
// in a shuffled order, so that a missing barrier shows; blocks run on several OS threads. What real hardware refuses or
// hangs on (too large blocks, barriers that not all threads reach, shuffles with exited lanes) ends the process with
// the kernel's name. Not checked: the size of static shared memory (ptxas does that) and __launch_bounds__.
//
// Environment: EEPO_EMULATOR_SEED=n changes the order of threads; EEPO_EMULATOR_POISON=0 leaves dynamic shared memory
// as it was instead of filling it with NaN at the start of each block.
#pragma once

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#define __host__
#define __device__
#define __global__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline
#define __noinline__  // system headers write __attribute__((__noinline__))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static thread_local

#define EEPO_LAUNCH(kernel, grid, block, shared, stream, ...) \
  ::eepo_emulator::launch(#kernel, kernel, (grid), (block), (shared), (stream)__VA_OPT__(, ) __VA_ARGS__)
#define EEPO_DYNAMIC_SHARED(name) unsigned char* const name = ::eepo_emulator::dynamic_shared()

// ---- vector types ---------------------------------------------------------------------------------------------------

#define EEPO_VECTORS(name, type)                                                              \
  struct name##1 { type x; };                                                                 \
  struct alignas(2 * sizeof(type)) name##2 { type x, y; };                                    \
  struct name##3 { type x, y, z; };                                                           \
  struct alignas(4 * sizeof(type) < 16 ? 4 * sizeof(type) : 16) name##4 { type x, y, z, w; }; \
  inline name##1 make_##name##1(type x) { return {x}; }                                       \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }                            \
  inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                 \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EEPO_VECTORS(char, signed char)
EEPO_VECTORS(uchar, unsigned char)
EEPO_VECTORS(short, short)
EEPO_VECTORS(ushort, unsigned short)
EEPO_VECTORS(int, int)
EEPO_VECTORS(uint, unsigned)
EEPO_VECTORS(longlong, long long)
EEPO_VECTORS(ulonglong, unsigned long long)
EEPO_VECTORS(float, float)
EEPO_VECTORS(double, double)
#undef EEPO_VECTORS

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Set by the scheduler whenever it resumes a thread.
extern __thread uint3 threadIdx, blockIdx;
extern __thread uint3 blockDim, gridDim;
constexpr int warpSize = 32;

// ---- host side ------------------------------------------------------------------------------------------------------

using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9
};

enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 2 : 227 * 1024;
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t = nullptr) {
  if (bytes > 0) std::memmove(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t = nullptr) {
  if (bytes > 0) std::memset(to, value, bytes);
  return cudaSuccess;
}

namespace eepo_emulator {

/// Dynamic shared memory of the running block.
unsigned char* dynamic_shared();
/// Allows `kernel` up to `bytes` of dynamic shared memory.
cudaError_t allow_shared(const void* kernel, int bytes);

using Body = void (*)(void* arguments);
/// Runs body(arguments) once per thread of the grid; returns when all have finished.
void run(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared, Body body, void* arguments);

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t,
            Arguments&&... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> values;
  } call{kernel, std::tuple<Parameters...>(static_cast<Parameters>(arguments)...)};
  run(
      name, reinterpret_cast<const void*>(kernel), grid, block, shared,
      [](void* p) {
        const Call& c = *static_cast<const Call*>(p);
        std::apply(c.kernel, c.values);
      },
      &call);
}

enum class Collective : uint8_t {
  None,
  Sync,
  Shuffle,
  Ballot,
  Add,
  Min,
  Max,
  SignedMin,
  SignedMax,
  And,
  Or,
  Xor,
  Match
};
/// Waits until every lane of `mask` has called with the same mask and operation, and returns this lane's result.
uint64_t collective(Collective what, unsigned mask, uint64_t value, int source_lane);
/// __syncthreads; returns the number of threads whose predicate was not 0.
int barrier(int predicate);
int lane();
[[noreturn]] void fail(const char* message);

template <class T>
uint64_t to_word(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof value);
  return word;
}
template <class T>
T from_word(uint64_t word) {
  T value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

template <class T>
T shuffle(unsigned mask, T value, int source) {
  return from_word<T>(collective(Collective::Shuffle, mask, to_word(value), source));
}

template <class T, class Next>
T atomic_update(T* address, Next next) {
  using Word = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  Word* const word = reinterpret_cast<Word*>(address);
  Word seen = __atomic_load_n(word, __ATOMIC_SEQ_CST);
  for (;;) {
    T old;
    std::memcpy(&old, &seen, sizeof old);
    const T value = next(old);
    Word desired;
    std::memcpy(&desired, &value, sizeof desired);
    if (__atomic_compare_exchange_n(word, &seen, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) return old;
  }
}

}  // namespace eepo_emulator

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  return eepo_emulator::allow_shared(reinterpret_cast<const void*>(kernel), value);
}

// ---- barriers, warps ------------------------------------------------------------------------------------------------

inline void __syncthreads() { eepo_emulator::barrier(0); }
inline int __syncthreads_count(int predicate) { return eepo_emulator::barrier(predicate); }
inline int __syncthreads_or(int predicate) { return eepo_emulator::barrier(predicate) != 0; }
inline int __syncthreads_and(int predicate) { return eepo_emulator::barrier(predicate == 0) == 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  eepo_emulator::collective(eepo_emulator::Collective::Sync, mask, 0, 0);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int lane = eepo_emulator::lane();
  return eepo_emulator::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  const int lane = eepo_emulator::lane(), source = lane ^ lanes;
  return eepo_emulator::shuffle(mask, value, source < (lane & ~(width - 1)) + width ? source : lane);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = eepo_emulator::lane(), source = lane + static_cast<int>(delta);
  return eepo_emulator::shuffle(mask, value, source < (lane & ~(width - 1)) + width ? source : lane);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = eepo_emulator::lane(), source = lane - static_cast<int>(delta);
  return eepo_emulator::shuffle(mask, value, source >= (lane & ~(width - 1)) ? source : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return static_cast<unsigned>(eepo_emulator::collective(eepo_emulator::Collective::Ballot, mask, predicate != 0, 0));
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
template <class T>
unsigned __match_any_sync(unsigned mask, T value) {
  return static_cast<unsigned>(
      eepo_emulator::collective(eepo_emulator::Collective::Match, mask, eepo_emulator::to_word(value), 0));
}
#define EEPO_REDUCE(name, what, type)                                                                       \
  inline type name(unsigned mask, type value) {                                                             \
    return static_cast<type>(                                                                               \
        eepo_emulator::collective(eepo_emulator::Collective::what, mask, static_cast<uint32_t>(value), 0)); \
  }
EEPO_REDUCE(__reduce_add_sync, Add, unsigned)
EEPO_REDUCE(__reduce_add_sync, Add, int)
EEPO_REDUCE(__reduce_min_sync, Min, unsigned)
EEPO_REDUCE(__reduce_max_sync, Max, unsigned)
EEPO_REDUCE(__reduce_min_sync, SignedMin, int)
EEPO_REDUCE(__reduce_max_sync, SignedMax, int)
EEPO_REDUCE(__reduce_and_sync, And, unsigned)
EEPO_REDUCE(__reduce_or_sync, Or, unsigned)
EEPO_REDUCE(__reduce_xor_sync, Xor, unsigned)
#undef EEPO_REDUCE
inline unsigned __activemask() { return 1u << eepo_emulator::lane(); }  // each lane is on its own between collectives

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
[[noreturn]] inline void __trap() { eepo_emulator::fail("__trap()"); }

// ---- atomics --------------------------------------------------------------------------------------------------------

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return eepo_emulator::atomic_update(address, [&](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicSub(T* address, std::type_identity_t<T> value) {
  return eepo_emulator::atomic_update(address, [&](T old) { return static_cast<T>(old - value); });
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  return eepo_emulator::atomic_update(address, [&](T old) { return value < old ? value : old; });
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  return eepo_emulator::atomic_update(address, [&](T old) { return value > old ? value : old; });
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return eepo_emulator::atomic_update(address, [&](T old) { return static_cast<T>(old | value); });
}
template <class T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return eepo_emulator::atomic_update(address, [&](T old) { return static_cast<T>(old & value); });
}
template <class T>
T atomicXor(T* address, std::type_identity_t<T> value) {
  return eepo_emulator::atomic_update(address, [&](T old) { return static_cast<T>(old ^ value); });
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return eepo_emulator::atomic_update(address, [&](T) { return value; });
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  return eepo_emulator::atomic_update(address, [&](T old) { return old == compare ? value : old; });
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return eepo_emulator::atomic_update(address, [&](unsigned old) { return old >= limit ? 0u : old + 1; });
}

// ---- memory ---------------------------------------------------------------------------------------------------------

#define EEPO_LOAD(name)      \
  template <class T>         \
  T name(const T* address) { \
    return *address;         \
  }
EEPO_LOAD(__ldg)
EEPO_LOAD(__ldca)
EEPO_LOAD(__ldcg)
EEPO_LOAD(__ldcs)
EEPO_LOAD(__ldlu)
EEPO_LOAD(__ldcv)
#undef EEPO_LOAD
#define EEPO_STORE(name)                                 \
  template <class T>                                     \
  void name(T* address, std::type_identity_t<T> value) { \
    *address = value;                                    \
  }
EEPO_STORE(__stwb)
EEPO_STORE(__stcg)
EEPO_STORE(__stcs)
EEPO_STORE(__stwt)
#undef EEPO_STORE

// ---- numbers --------------------------------------------------------------------------------------------------------

inline unsigned __float_as_uint(float x) { return eepo_emulator::from_word<unsigned>(eepo_emulator::to_word(x)); }
inline int __float_as_int(float x) { return eepo_emulator::from_word<int>(eepo_emulator::to_word(x)); }
inline float __uint_as_float(unsigned x) { return eepo_emulator::from_word<float>(eepo_emulator::to_word(x)); }
inline float __int_as_float(int x) { return eepo_emulator::from_word<float>(eepo_emulator::to_word(x)); }
inline long long __double_as_longlong(double x) {
  return eepo_emulator::from_word<long long>(eepo_emulator::to_word(x));
}
inline double __longlong_as_double(long long x) { return eepo_emulator::from_word<double>(eepo_emulator::to_word(x)); }
inline double __hiloint2double(int high, int low) {
  return __longlong_as_double(
      static_cast<long long>((uint64_t{static_cast<uint32_t>(high)} << 32) | static_cast<uint32_t>(low)));
}

inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __frsqrt_rn(float x) { return static_cast<float>(1.0 / sqrt(static_cast<double>(x))); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
// Never contracted into a fused multiply-add, as on the device: compile with -ffp-contract=off.
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline float __double2float_rn(double x) { return static_cast<float>(x); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((uint64_t{a} * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>((static_cast<Wide>(a) * b) >> 64);
}

#define EEPO_MIN_MAX(type)                                  \
  inline type min(type a, type b) { return b < a ? b : a; } \
  inline type max(type a, type b) { return a < b ? b : a; }
EEPO_MIN_MAX(int)
EEPO_MIN_MAX(unsigned)
EEPO_MIN_MAX(long)
EEPO_MIN_MAX(unsigned long)
EEPO_MIN_MAX(long long)
EEPO_MIN_MAX(unsigned long long)
#undef EEPO_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
