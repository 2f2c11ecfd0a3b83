// Device memory for the tests of the CUDA kernels, in both worlds: real memory with NVIDIA's cuda_runtime.h, the host's
// with the emulator's. A test copies its inputs in, launches, and copies its results out (which waits):
//
//   TestDevice device;
//   DeviceArray<float> x(values), y(count);
//   cuda::add(device.context(), x.data(), count, y.data());
//   const std::vector<float> got = y.host();
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <utility>
#include <vector>

#include "cuda/kernels.h"

namespace eepo::test {

namespace device_memory {

#ifdef CUDART_VERSION  // the real cuda_runtime.h; the emulator has none
inline void require(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "FAIL %s: %s\n", what, cudaGetErrorString(status));
  std::exit(2);  // nothing on this device can be trusted after a failed call
}
inline void* allocate(size_t bytes) {
  void* p = nullptr;
  require(cudaMalloc(&p, bytes), "cudaMalloc");
  return p;
}
inline void release(void* p) { cudaFree(p); }
inline void fill(void* p, int byte, size_t bytes) { require(cudaMemset(p, byte, bytes), "cudaMemset"); }
inline void to_device(void* to, const void* from, size_t bytes) {
  require(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "copy to the device");
}
inline void to_host(void* to, const void* from, size_t bytes) {
  require(cudaGetLastError(), "launch");
  require(cudaDeviceSynchronize(), "kernel");
  require(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "copy from the device");
}
inline int multiprocessors() {
  int device = 0;
  int count = 0;
  require(cudaGetDevice(&device), "cudaGetDevice");
  require(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  return count;
}
#else
inline void* allocate(size_t bytes) {
  void* p = nullptr;
  if (posix_memalign(&p, 256, bytes) != 0) std::abort();
  return p;
}
inline void release(void* p) { std::free(p); }
inline void fill(void* p, int byte, size_t bytes) { std::memset(p, byte, bytes); }
inline void to_device(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
inline void to_host(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
inline int multiprocessors() { return 2; }
#endif

}  // namespace device_memory

/// `size` elements of device memory; every byte 0x7b where no contents are given, so that what a kernel did not write
/// is seen. An array of no elements has a null pointer.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t size) : size_(size) {
    if (size == 0) return;
    data_ = static_cast<T*>(device_memory::allocate(bytes()));
    device_memory::fill(data_, 0x7b, bytes());
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(static_cast<int64_t>(values.size())) {
    if (size_ > 0) device_memory::to_device(data_, values.data(), bytes());
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceArray& operator=(DeviceArray&&) = delete;
  ~DeviceArray() {
    if (data_ != nullptr) device_memory::release(data_);
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  /// A copy of the contents, after everything that was launched.
  std::vector<T> host() const {
    std::vector<T> values(static_cast<size_t>(size_));
    if (size_ > 0) device_memory::to_host(values.data(), data_, bytes());
    return values;
  }
  void set(const std::vector<T>& values) {
    if (size_ > 0) device_memory::to_device(data_, values.data(), bytes());
  }

 private:
  size_t bytes() const { return static_cast<size_t>(size_) * sizeof(T); }
  T* data_ = nullptr;
  int64_t size_ = 0;
};

/// A context on the default stream. Scratch memory is allocated anew for every call and exactly as large as asked for,
/// so that compute-sanitizer (or the address sanitizer, under the emulator) sees what is written past its end.
class TestDevice {
 public:
  /// `multiprocessors`: 0 for the device's own number; a test may pretend another.
  explicit TestDevice(int multiprocessors = 0) {
    context_.stream = nullptr;
    context_.multiprocessors = multiprocessors > 0 ? multiprocessors : device_memory::multiprocessors();
    context_.scratch = [this](size_t bytes) -> void* {
      scratch_.emplace_back(static_cast<int64_t>(bytes));
      return scratch_.back().data();
    };
    context_.upload = [](void* to, const void* from, size_t bytes) { device_memory::to_device(to, from, bytes); };
  }
  TestDevice(const TestDevice&) = delete;
  TestDevice& operator=(const TestDevice&) = delete;

  const cuda::Context& context() const { return context_; }

 private:
  std::list<DeviceArray<unsigned char>> scratch_;
  cuda::Context context_;
};

}  // namespace eepo::test
