#include "core/threads.h"

#include <ATen/Parallel.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"

namespace eepo {
namespace {

/// CPUs that a container's quota allows (cgroup v2, then v1), or a very large number where there is none.
int quota() {
  constexpr int unlimited = 1 << 20;
  double allowed = 0, period = 0;
  std::string first;
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  if (v2 >> first >> period && first != "max") {
    allowed = std::strtod(first.c_str(), nullptr);
  } else {
    std::ifstream v1_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), v1_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    if (!(v1_quota >> allowed && v1_period >> period)) return unlimited;
  }
  if (allowed <= 0 || period <= 0) return unlimited;
  return std::max(1, static_cast<int>(std::ceil(allowed / period)));
}

std::atomic<int>& setting() {
  static std::atomic<int> threads{std::getenv("OMP_NUM_THREADS") != nullptr ? omp_get_max_threads()
                                                                            : std::min(omp_get_max_threads(), quota())};
  return threads;
}

/// Tries whether this process may start `count` more threads. OpenMP ends the process where it cannot, so they are
/// tried here first; it keeps those it has started.
void require_threads(int count) {
  std::atomic<bool> go{false};
  std::vector<std::thread> threads;
  std::string reason;
  try {
    threads.reserve(count);
    for (int i = 0; i < count; ++i) threads.emplace_back([&go] { go.wait(false); });
  } catch (const std::exception& error) {  // std::system_error, or no memory for what a thread needs here
    reason = error.what();
  }
  go = true;
  go.notify_all();
  for (std::thread& thread : threads) thread.join();
  check(reason.empty(), ErrorCode::OutOfMemory, "only ", threads.size() + 1, " of ", count + 1,
        " threads could be started (", reason, "): lower the number of threads (OMP_NUM_THREADS), or raise the limits ",
        "of processes and of memory");
}

}  // namespace

int num_threads() { return setting().load(std::memory_order_relaxed); }

void set_num_threads(int n) {
  check(n >= 1, ErrorCode::InvalidArgument, "threads must be at least 1, got ", n);
  setting().store(n, std::memory_order_relaxed);
}

void apply_num_threads() {
  const int wanted = num_threads();
  thread_local int known = 1;  // the calling thread's team
  if (wanted > known) {
    require_threads(wanted - 1);
    known = wanted;
  }
  if (omp_get_max_threads() != wanted) omp_set_num_threads(wanted);
  if (at::get_num_threads() != wanted) at::set_num_threads(wanted);
}

}  // namespace eepo
