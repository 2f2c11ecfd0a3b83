// Tests of the emulator itself: right kernels give right results, wrong ones end the process. Run by
// scripts/test-cuda-kernels.sh before the kernels' tests.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "cuda/common.cuh"
#include "test/check.h"

namespace eepo::test {
namespace {

using cuda::kFullMask;

__global__ void reverse(const int* x, int* y) {
  EEPO_DYNAMIC_SHARED(raw);
  int* const shared = reinterpret_cast<int*>(raw);
  shared[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
  __syncthreads();
  y[blockIdx.x * blockDim.x + threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

__global__ void reverse_without_barrier(const int* x, int* y) {
  EEPO_DYNAMIC_SHARED(raw);
  int* const shared = reinterpret_cast<int*>(raw);
  shared[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

__global__ void warp_operations(unsigned* out) {
  const unsigned lane = threadIdx.x & 31u;
  const unsigned sum = cuda::warp_sum(static_cast<float>(lane)) == 496.0f;
  const unsigned even = __ballot_sync(kFullMask, lane % 2 == 0);
  const unsigned below = __shfl_up_sync(kFullMask, lane, 1), half = __shfl_xor_sync(kFullMask, lane, 8, 16);
  unsigned low = 0;
  if (lane < 8) low = __reduce_add_sync(0xffu, lane);  // a part of the warp by itself
  const bool ok = sum != 0 && even == 0x55555555u && below == (lane == 0 ? 0 : lane - 1) && half == (lane ^ 8u) &&
                  low == (lane < 8 ? 28u : 0u);
  atomicAdd(out, ok ? 1u : 0u);
}

__global__ void half_at_barrier() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __shfl_sync(kFullMask, 0, threadIdx.x == 40 ? 0 : 1);
    if (threadIdx.x == 40) __syncwarp(1u << 8 | 1u);
    __syncthreads();
  }
}

__global__ void shuffle_after_exit() {
  if (threadIdx.x == 5) return;
  __shfl_sync(kFullMask, 0, 0);
}

__global__ void different_operations() {
  if (threadIdx.x % 2 == 0) {
    __syncwarp();
  } else {
    __shfl_sync(kFullMask, 0, 0);
  }
}

__global__ void nothing() {}

__global__ void beyond_shared(int bytes) {
  EEPO_DYNAMIC_SHARED(raw);
  raw[bytes] = 1;
}

// Whether `work` ends the process with a message that holds `part` (any end will do where that is empty).
bool dies(const char* part, const std::function<void()>& work) {
  int pipes[2];
  if (pipe(pipes) != 0) return false;
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(pipes[1], 2);
    work();
    _exit(0);
  }
  close(pipes[1]);
  std::string message;
  char buffer[512];
  for (ssize_t n = 0; (n = read(pipes[0], buffer, sizeof buffer)) > 0;) message.append(buffer, static_cast<size_t>(n));
  close(pipes[0]);
  int status = 0;
  waitpid(child, &status, 0);
  const bool ended = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  return ended && message.find(part) != std::string::npos;
}

// Before anything has started a thread, which a forked child would not have.
void test_misuse() {
  const auto launch = [](void (*kernel)(), dim3 grid, dim3 block, size_t shared) {
    return [=] { EEPO_LAUNCH((kernel), grid, block, shared, nullptr); };
  };
  check_true("emulator: a barrier that not all threads reach", dies("deadlock", launch(half_at_barrier, 1, 64, 0)));
  check_true("emulator: a shuffle with an exited lane", dies("exited", launch(shuffle_after_exit, 1, 32, 0)));
  check_true("emulator: a full mask in half a warp", dies("exited", launch(different_operations, 1, 16, 0)));
  check_true("emulator: different operations in one warp", dies("different", launch(different_operations, 1, 32, 0)));
  check_true("emulator: 1,025 threads", dies("threads per block", launch(nothing, 1, 1025, 0)));
  check_true("emulator: grid.y of 65,536", dies("grid.y", launch(nothing, dim3(1, 65536), 1, 0)));
  check_true("emulator: an empty grid", dies("grid.x", launch(nothing, 0, 1, 0)));
  check_true("emulator: 49,153 bytes of shared memory", dies("shared memory", launch(nothing, 1, 1, 49153)));
  check_true("emulator: a store behind shared memory",
             dies("", [] { EEPO_LAUNCH((beyond_shared), 1, 1, 64, nullptr, 64); }));
}

void test_results() {
  cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024);
  EEPO_LAUNCH((nothing), 1, 1, 227 * 1024, nullptr);

  std::vector<int> x(70000 * 4), y(x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<int>(i) + 1;
  EEPO_LAUNCH((reverse), 70000, 4, 4 * sizeof(int), nullptr, x.data(), y.data());
  bool right = true;
  for (size_t i = 0; i < x.size(); ++i) right = right && y[i] == x[i / 4 * 4 + 3 - i % 4];
  check_true("emulator: 70,000 blocks with a barrier", right);

  int shown = 0;
  for (int attempt = 0; attempt < 20; ++attempt) {
    EEPO_LAUNCH((reverse_without_barrier), 1, 256, 1024, nullptr, x.data(), y.data());
    for (size_t i = 0; i < 256; ++i) {
      if (y[i] == x[255 - i]) continue;
      ++shown;
      break;
    }
  }
  check_true("emulator: a missing barrier shows", shown == 20);

  unsigned passed = 0;
  EEPO_LAUNCH((warp_operations), 50, 128, 0, nullptr, &passed);
  check_true("emulator: warp-wide operations and atomics", passed == 50 * 128);
}

}  // namespace
}  // namespace eepo::test

int main() {
  eepo::test::test_misuse();
  eepo::test::test_results();
  return eepo::test::failures == 0 ? 0 : 1;
}
