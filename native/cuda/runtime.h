// What CudaOps needs of the platform besides our own kernels: memory, copies, matrix products, timing. Two of them
// exist: runtime_torch.cc (libtorch's caching allocator, a stream of its pool, cuBLAS) and the emulator's
// (native/test/emulator/runtime.cc), with which the whole CUDA path runs on a CPU in the tests.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda/kernels.h"
#include "device/ops.h"

namespace eepo::cuda {

/// One operand of a matrix product.
struct Matrix {
  void* data;
  DType dtype;
  int64_t ld;  // elements between rows
};

class Runtime {
 public:
  virtual ~Runtime() = default;
  virtual DeviceInfo info() = 0;
  virtual void begin_job() = 0;
  virtual Stream stream() = 0;

  /// Throws OutOfMemory.
  virtual at::Tensor empty(const std::vector<int64_t>& shape, DType dtype) = 0;
  virtual bool owns(const at::Tensor& tensor) const = 0;
  virtual at::Tensor convert(const at::Tensor& tensor, DType dtype) = 0;
  virtual void zero(void* to, int64_t bytes) = 0;
  virtual void copy(void* to, const void* from, int64_t bytes) = 0;
  virtual void copy_2d(void* to, int64_t to_pitch, const void* from, int64_t from_pitch, int64_t width,
                       int64_t height) = 0;
  virtual void upload(void* to, const void* host, int64_t bytes) = 0;
  /// Waits.
  virtual void download(void* host, const void* from, int64_t bytes) = 0;
  virtual void synchronize() = 0;
  virtual MemoryStats memory() = 0;
  virtual void reset_peak() = 0;
  virtual void empty_cache() = 0;
  virtual double elapsed_ms(const std::function<void()>& body) = 0;
  /// After launches: throws Native for a launch that the driver refused.
  virtual void check_launches() = 0;

  /// C = alpha op(A) op(B) + beta C, row-major, accumulated in float32 (never TF32, never split in half precision). A
  /// and B of one dtype; C float32.
  virtual void gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const Matrix& a, const Matrix& b,
                    float beta, const Matrix& c) = 0;
};

/// Null with `error` set where there is no driver or no GPU.
std::unique_ptr<Runtime> make_runtime(std::string* error);

}  // namespace eepo::cuda
