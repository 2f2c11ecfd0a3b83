#include "core/threads.h"

#include <ATen/Parallel.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>

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

}  // namespace

int num_threads() { return setting().load(std::memory_order_relaxed); }

void set_num_threads(int n) {
  check(n >= 1, ErrorCode::InvalidArgument, "threads must be at least 1, got ", n);
  setting().store(n, std::memory_order_relaxed);
}

void apply_num_threads() {
  const int wanted = num_threads();
  if (omp_get_max_threads() != wanted) omp_set_num_threads(wanted);
  if (at::get_num_threads() != wanted) at::set_num_threads(wanted);
}

}  // namespace eepo
