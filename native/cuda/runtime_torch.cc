// The platform on a GPU: memory from libtorch's caching allocator, a stream of its pool, cuBLAS.
//
// One GPU: the first that CUDA_VISIBLE_DEVICES leaves visible. Our stream is the executor thread's current one, so what
// libtorch itself does for us (conversions) is queued on it too. cuBLAS gets a handle and a workspace of our own: the
// products then allocate nothing and give the same bits every time.
#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <string>

#include "core/error.h"
#include "cuda/pinned_ring.h"
#include "cuda/runtime.h"
#include "device/scalar_type.h"

namespace eepo::cuda {
namespace {

void require(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  fail(ErrorCode::Native, "CUDA: ", what, " failed: ", cudaGetErrorString(status),
       " (a kernel queued earlier may be the cause; CUDA_LAUNCH_BLOCKING=1 finds it)");
}

void require(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  check(status != CUBLAS_STATUS_ALLOC_FAILED, ErrorCode::OutOfMemory, "cuBLAS: ", what, " found no GPU memory");
  fail(ErrorCode::Native, "cuBLAS: ", what, " failed: ", cublasGetStatusString(status));
}

cudaDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::BFloat16: return CUDA_R_16BF;
    case DType::Float16: return CUDA_R_16F;
    default: return CUDA_R_32F;
  }
}

std::string gigabytes(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f GB", static_cast<double>(bytes) * 1e-9);
  return text;
}

class Event {
 public:
  Event() { require(cudaEventCreate(&event_), "creating an event"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  operator cudaEvent_t() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

class TorchRuntime final : public Runtime {
 public:
  TorchRuntime() : stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, kDevice)) {
    begin_job();
    require(cudaGetDeviceProperties(&properties_, kDevice), "reading the device's properties");
    require(cublasCreate(&blas_), "creating a handle");
    require(cublasSetStream(blas_, stream_.stream()), "setting the stream");
    // What cuBLAS recommends for Hopper and later; fixed, so that the choice of algorithm does not vary.
    constexpr int64_t kWorkspace = int64_t{32} << 20;
    workspace_ = empty({kWorkspace / 8}, DType::Int64);
    require(cublasSetWorkspace(blas_, workspace_.data_ptr(), kWorkspace), "setting the workspace");
    require(cublasSetMathMode(blas_, static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH |
                                                               CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)),
            "setting the math mode");
  }

  DeviceInfo info() override {
    size_t free = 0, total = 0;
    require(cudaMemGetInfo(&free, &total), "asking for the free memory");
    DeviceInfo info;
    info.name = properties_.name;
    info.total_bytes = static_cast<int64_t>(total);
    info.free_bytes = static_cast<int64_t>(free);
    info.major = properties_.major;
    info.minor = properties_.minor;
    info.multiprocessors = properties_.multiProcessorCount;
    return info;
  }

  void begin_job() override {
    c10::cuda::set_device(kDevice);
    c10::cuda::setCurrentCUDAStream(stream_);
  }
  Stream stream() override { return stream_.stream(); }

  at::Tensor empty(const std::vector<int64_t>& shape, DType dtype) override {
    int64_t bytes = static_cast<int64_t>(size_of(dtype));
    for (const int64_t d : shape) bytes *= d;
    try {
      return at::empty(shape, at::TensorOptions().dtype(scalar_type(dtype)).device(c10::Device(c10::kCUDA, kDevice)));
    } catch (const c10::OutOfMemoryError&) {
      size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      cudaGetLastError();  // the failed allocation's, which would look like the next launch's
      fail(ErrorCode::OutOfMemory, "the GPU is out of memory: ", gigabytes(bytes), " were asked for, ",
           gigabytes(static_cast<int64_t>(free)), " of ", gigabytes(static_cast<int64_t>(total)), " are free and ",
           gigabytes(memory().allocated),
           " are held by tensors of this process. Lower microBatchTokens (training), the number of prompts or samples "
           "generated at once, or maxNewTokens; or dispose() what is no longer needed");
    }
  }
  bool owns(const at::Tensor& tensor) const override { return tensor.is_cuda(); }
  at::Tensor convert(const at::Tensor& tensor, DType dtype) override {
    return tensor.to(scalar_type(dtype), /*non_blocking=*/true, /*copy=*/true, at::MemoryFormat::Contiguous);
  }

  void zero(void* to, int64_t bytes) override {
    if (bytes) require(cudaMemsetAsync(to, 0, bytes, stream_.stream()), "clearing memory");
  }
  void copy(void* to, const void* from, int64_t bytes) override {
    if (bytes) require(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_.stream()), "a copy");
  }
  void copy_2d(void* to, int64_t to_pitch, const void* from, int64_t from_pitch, int64_t width,
               int64_t height) override {
    if (width == 0 || height == 0) return;
    require(
        cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, height, cudaMemcpyDeviceToDevice, stream_.stream()),
        "a copy of rows");
  }
  void upload(void* to, const void* host, int64_t bytes) override {
    if (bytes == 0) return;
    if (PinnedRing::fits(bytes)) return require(ring_.upload(to, host, bytes, stream_.stream()), "an upload");
    // From memory that is not pinned the driver takes its own copy before it returns, in stream order.
    require(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, stream_.stream()), "an upload");
  }
  void download(void* host, const void* from, int64_t bytes) override {
    if (bytes) require(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, stream_.stream()), "a download");
    synchronize();
  }
  void synchronize() override { require(cudaStreamSynchronize(stream_.stream()), "waiting for the GPU"); }

  MemoryStats memory() override {
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(kDevice);
    const auto& all = stats.allocated_bytes[0];  // of all pools
    return {all.current, all.peak};
  }
  void reset_peak() override { c10::cuda::CUDACachingAllocator::resetPeakStats(kDevice); }
  void empty_cache() override { c10::cuda::CUDACachingAllocator::emptyCache(); }

  double elapsed_ms(const std::function<void()>& body) override {
    Event begin, end;
    require(cudaEventRecord(begin, stream_.stream()), "recording an event");
    body();
    require(cudaEventRecord(end, stream_.stream()), "recording an event");
    require(cudaEventSynchronize(end), "waiting for the GPU");
    float ms = 0;
    require(cudaEventElapsedTime(&ms, begin, end), "reading a time");
    return ms;
  }

  void check_launches() override { require(cudaGetLastError(), "launching a kernel"); }

  void gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const Matrix& a, const Matrix& b,
            float beta, const Matrix& c) override {
    if (m == 0 || n == 0) return;
    const auto op = [](Op o) { return o == Op::None ? CUBLAS_OP_N : CUBLAS_OP_T; };
    if (k == 0) {
      if (beta == 0) copy_zero_rows(c, m, n);
      return;
    }
    // cuBLAS thinks in columns: C^T = op(B)^T op(A)^T.
    require(cublasGemmEx(blas_, op(op_b), op(op_a), static_cast<int>(n), static_cast<int>(m), static_cast<int>(k),
                         &alpha, b.data, data_type(b.dtype), static_cast<int>(b.ld), a.data, data_type(a.dtype),
                         static_cast<int>(a.ld), &beta, c.data, CUDA_R_32F, static_cast<int>(c.ld), CUBLAS_COMPUTE_32F,
                         CUBLAS_GEMM_DEFAULT),
            "a matrix product");
  }

 private:
  static constexpr c10::DeviceIndex kDevice = 0;

  void copy_zero_rows(const Matrix& c, int64_t m, int64_t n) {
    require(cudaMemset2DAsync(c.data, c.ld * sizeof(float), 0, n * sizeof(float), m, stream_.stream()),
            "clearing rows");
  }

  c10::cuda::CUDAStream stream_;
  cudaDeviceProp properties_{};
  cublasHandle_t blas_ = nullptr;
  at::Tensor workspace_;
  PinnedRing ring_;
};

}  // namespace

std::unique_ptr<Runtime> make_runtime(std::string* error) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    cudaGetLastError();
    *error = status == cudaSuccess ? std::string("no GPU is visible (CUDA_VISIBLE_DEVICES?)")
                                   : std::string("CUDA: ") + cudaGetErrorString(status);
    return nullptr;
  }
  // What at::empty does on first use: sets the caching allocator up.
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  return std::make_unique<TorchRuntime>();
}

}  // namespace eepo::cuda
