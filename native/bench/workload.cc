#include "bench/workload.h"

#include <malloc.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>
#include <thread>

#include "core/error.h"
#include "core/threads.h"

namespace eepo::bench {
namespace {

/// A line of /proc/self/status in bytes; 0 where there is none.
double status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(key + ":", 0) == 0) return std::stod(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
}

/// Makes VmHWM, the most memory the process had, start again from now.
bool reset_high_water_mark() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return file.good();
}

/// While it lives, every large block is memory of its own, new from the system: otherwise a kernel could use what an
/// earlier one gave back to malloc, and seem to need nothing.
struct FreshBlocks {
  FreshBlocks() { mallopt(M_MMAP_THRESHOLD, 1 << 18); }
  ~FreshBlocks() {  // what malloc's own rule arrives at once blocks of such sizes were freed
    mallopt(M_MMAP_THRESHOLD, 1 << 25);
    mallopt(M_TRIM_THRESHOLD, 1 << 26);
  }
  FreshBlocks(const FreshBlocks&) = delete;
  FreshBlocks& operator=(const FreshBlocks&) = delete;
};

void in_fresh_thread(const std::function<void()>& body) {
  std::exception_ptr error;
  std::thread([&] {
    try {
      apply_num_threads();
      body();
    } catch (...) {
      error = std::current_exception();
    }
  }).join();
  if (error) std::rethrow_exception(error);
}

double cpu_extra_memory(const Entry& entry) {
  double extra = 0;
  const FreshBlocks fresh;
  in_fresh_thread([&] {
#pragma omp parallel
    {  // the thread's team: its stacks are not the kernel's
    }
    malloc_trim(0);
    check(reset_high_water_mark(), ErrorCode::Unsupported, "/proc/self/clear_refs cannot be written here");
    const double before = status_bytes("VmRSS"), anonymous = status_bytes("RssAnon");
    entry.work();
    // The second term is for a kernel so long that the system meanwhile took back pages of libraries: they count in the
    // first, and could hide what the kernel still holds.
    extra = std::max({0.0, status_bytes("VmHWM") - before, status_bytes("RssAnon") - anonymous});
  });
  return extra;
}

}  // namespace

const Entry& Workload::entry(const std::string& name) const {
  for (const Entry& entry : entries_)
    if (entry.name == name) return entry;
  fail(ErrorCode::InvalidArgument, "this workload has nothing named '", name, "'");
}

double Workload::run(const std::string& name) {
  const Entry& chosen = entry(name);
  if (chosen.prepare) chosen.prepare();
  ops_->synchronize();
  return ops_->elapsed_ms(chosen.work);
}

double Workload::extra_memory(const std::string& name) {
  const Entry& chosen = entry(name);
  if (chosen.prepare) chosen.prepare();
  if (ops_->device() == Device::Cpu) return cpu_extra_memory(chosen);
  ops_->synchronize();
  ops_->empty_cache();
  ops_->reset_peak();
  const int64_t before = ops_->memory().allocated;
  chosen.work();
  ops_->synchronize();
  return static_cast<double>(std::max<int64_t>(0, ops_->memory().peak - before));
}

Errors Workload::errors(const std::string& name) {
  const Entry& chosen = entry(name);
  if (!chosen.errors) return {};
  if (chosen.prepare) chosen.prepare();
  chosen.work();
  ops_->synchronize();
  return chosen.errors();
}

}  // namespace eepo::bench
