// Small uploads without a wait: the driver copies from ordinary memory only after the stream has come that far, from
// pinned memory whenever it likes. So tables are first copied into pinned memory of ours, two halves in turn; a half is
// used again when the copies out of it are done, which they are but for a host that runs megabytes ahead.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <mutex>

namespace eepo::cuda {

class PinnedRing {
 public:
  static constexpr int64_t kHalfBytes = int64_t{4} << 20;

  PinnedRing() = default;
  PinnedRing(const PinnedRing&) = delete;
  PinnedRing& operator=(const PinnedRing&) = delete;

  /// Whether upload() takes so much; larger copies are rare (weights) and go directly.
  static bool fits(int64_t bytes) { return bytes <= kHalfBytes / 4; }

  /// From any thread. The first call allocates.
  cudaError_t upload(void* to, const void* host, int64_t bytes, cudaStream_t stream) {
    std::lock_guard lock(mutex_);
    if (memory_ == nullptr) {
      if (const cudaError_t status = allocate(); status != cudaSuccess) return status;
    }
    if (used_ + bytes > kHalfBytes) {
      if (const cudaError_t status = turn(stream); status != cudaSuccess) return status;
    }
    unsigned char* staged = memory_ + half_ * kHalfBytes + used_;
    used_ += (bytes + 255) / 256 * 256;
    std::memcpy(staged, host, static_cast<size_t>(bytes));
    return cudaMemcpyAsync(to, staged, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream);
  }

 private:
  cudaError_t allocate() {
    void* memory = nullptr;
    cudaError_t status = cudaMallocHost(&memory, 2 * kHalfBytes);
    for (cudaEvent_t& event : done_)
      if (status == cudaSuccess) status = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    if (status == cudaSuccess) memory_ = static_cast<unsigned char*>(memory);
    return status;
  }

  // Marks this half as in use until the copies queued so far are done, and waits for the other's.
  cudaError_t turn(cudaStream_t stream) {
    if (const cudaError_t status = cudaEventRecord(done_[half_], stream); status != cudaSuccess) return status;
    half_ = 1 - half_;
    used_ = 0;
    return cudaEventSynchronize(done_[half_]);  // returns at once for an event that was never recorded
  }

  std::mutex mutex_;
  unsigned char* memory_ = nullptr;
  cudaEvent_t done_[2] = {};
  int half_ = 0;
  int64_t used_ = 0;
};

}  // namespace eepo::cuda
