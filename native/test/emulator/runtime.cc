// The platform of an emulated GPU: its memory is the host's, its products are plain loops. With this, the emulator and
// the kernels, scripts/build-emulated-cuda.sh makes a CUDA half that runs without a GPU: the whole package can then be
// tested with device 'cuda'. Slow, and of no use to anybody else.
#include "cuda/runtime.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "core/error.h"
#include "device/scalar_type.h"

namespace eepo::cuda {
namespace {

constexpr int64_t kTotalBytes = int64_t{2} << 30;
constexpr int64_t kMaxPitch = int64_t{1} << 20;  // of copy_2d; a GPU's is 2 GiB, too much to be reached by a test

// Every byte that belongs to the "GPU": so that host memory handed to a kernel is found.
class Memory {
 public:
  void* take(int64_t bytes) {
    std::lock_guard lock(mutex_);
    check(used_ + bytes <= kTotalBytes, ErrorCode::OutOfMemory, "the GPU is out of memory: ", bytes,
          " bytes were asked for, ", kTotalBytes - used_, " of ", kTotalBytes, " are free; lower microBatchTokens");
    void* data = std::aligned_alloc(256, static_cast<size_t>((bytes + 511) / 256 * 256));
    std::memset(data, 0xff, static_cast<size_t>(bytes));  // NaN: nobody may count on zeros
    blocks_.insert(data);
    sizes_[data] = bytes;
    used_ += bytes;
    peak_ = std::max(peak_, used_);
    return data;
  }
  void give(void* data) {
    std::lock_guard lock(mutex_);
    used_ -= sizes_[data];
    sizes_.erase(data);
    blocks_.erase(data);
    std::free(data);
  }
  bool owns(const void* data) const {
    std::lock_guard lock(mutex_);
    return blocks_.contains(data);
  }
  MemoryStats stats() const {
    std::lock_guard lock(mutex_);
    return {used_, peak_};
  }
  void reset_peak() {
    std::lock_guard lock(mutex_);
    peak_ = used_;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_set<const void*> blocks_;
  std::unordered_map<const void*, int64_t> sizes_;
  int64_t used_ = 0, peak_ = 0;
};

Memory& gpu_memory() {
  static auto* memory = new Memory();  // tensors may outlive static destructors
  return *memory;
}

float element(const Matrix& m, int64_t i) {
  switch (m.dtype) {
    case DType::BFloat16: return bf16_to_float(static_cast<const uint16_t*>(m.data)[i]);
    case DType::Float16: return f16_to_float(static_cast<const uint16_t*>(m.data)[i]);
    default: return static_cast<const float*>(m.data)[i];
  }
}

// op(M) dense in float, [rows, cols]
std::vector<float> unpacked(const Matrix& m, Op op, int64_t rows, int64_t cols) {
  std::vector<float> out(static_cast<size_t>(rows * cols));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) out[i * cols + j] = element(m, op == Op::None ? i * m.ld + j : j * m.ld + i);
  return out;
}

class EmulatedRuntime final : public Runtime {
 public:
  DeviceInfo info() override {
    return {"emulated GPU", kTotalBytes, kTotalBytes - gpu_memory().stats().allocated, 9, 0, 4};
  }
  void begin_job() override {}
  Stream stream() override { return nullptr; }

  at::Tensor empty(const std::vector<int64_t>& shape, DType dtype) override {
    int64_t bytes = static_cast<int64_t>(size_of(dtype));
    for (const int64_t d : shape) bytes *= d;
    void* data = gpu_memory().take(bytes);
    return at::from_blob(
        data, shape, [](void* block) { gpu_memory().give(block); }, at::TensorOptions().dtype(scalar_type(dtype)));
  }
  bool owns(const at::Tensor& tensor) const override { return gpu_memory().owns(tensor.storage().data()); }
  at::Tensor convert(const at::Tensor& tensor, DType dtype) override {
    at::Tensor out = empty(tensor.sizes().vec(), dtype);
    out.copy_(tensor);
    return out;
  }
  void zero(void* to, int64_t bytes) override {
    if (bytes) std::memset(to, 0, static_cast<size_t>(bytes));
  }
  void copy(void* to, const void* from, int64_t bytes) override {
    if (bytes) std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  void copy_2d(void* to, int64_t to_pitch, const void* from, int64_t from_pitch, int64_t width,
               int64_t height) override {
    check(std::max(to_pitch, from_pitch) <= kMaxPitch, ErrorCode::Native, "CUDA: a copy of rows failed: pitch");
    for (int64_t i = 0; i < height; ++i)
      std::memcpy(static_cast<char*>(to) + i * to_pitch, static_cast<const char*>(from) + i * from_pitch,
                  static_cast<size_t>(width));
  }
  void upload(void* to, const void* host, int64_t bytes) override { copy(to, host, bytes); }
  void download(void* host, const void* from, int64_t bytes) override { copy(host, from, bytes); }
  void synchronize() override {}
  MemoryStats memory() override { return gpu_memory().stats(); }
  void reset_peak() override { gpu_memory().reset_peak(); }
  void empty_cache() override {}
  double elapsed_ms(const std::function<void()>& body) override {
    const auto begin = std::chrono::steady_clock::now();
    body();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  }
  void check_launches() override {}

  void gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const Matrix& a, const Matrix& b,
            float beta, const Matrix& c) override {
    const std::vector<float> left = unpacked(a, op_a, m, k), right = unpacked(b, op_b, k, n);
    auto* out = static_cast<float*>(c.data);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < m; ++i) {
      std::vector<double> row(static_cast<size_t>(n), 0.0);
      for (int64_t l = 0; l < k; ++l) {
        const double x = left[i * k + l];
        for (int64_t j = 0; j < n; ++j) row[j] += x * static_cast<double>(right[l * n + j]);
      }
      for (int64_t j = 0; j < n; ++j) {
        float& to = out[i * c.ld + j];
        to = static_cast<float>(alpha * row[j] + (beta == 0 ? 0.0 : static_cast<double>(beta) * to));
      }
    }
  }
};

}  // namespace

std::unique_ptr<Runtime> make_runtime(std::string*) { return std::make_unique<EmulatedRuntime>(); }

}  // namespace eepo::cuda
