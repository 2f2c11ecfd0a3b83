// Scheduler of the emulated blocks; see cuda_runtime.h. One fiber per thread of a block, kept for the life of the OS
// thread; a fiber runs until a barrier or a warp-wide operation that others have yet to reach. The last to arrive
// completes the operation for all and runs on without a switch.
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda_runtime.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define EEPO_FIBER_SANITIZER 1
#endif

__thread uint3 threadIdx, blockIdx;
__thread uint3 blockDim, gridDim;

#if defined(__x86_64__)
// Saves the callee-saved registers on the running stack, its pointer in *from, and returns on the other stack.
extern "C" void eepo_emulator_switch(void** from, void* to);
asm(R"(
.text
.globl eepo_emulator_switch
.type eepo_emulator_switch, @function
eepo_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size eepo_emulator_switch, .-eepo_emulator_switch
)");
#endif

namespace eepo_emulator {
namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr size_t kPage = 4096;
constexpr size_t kMaxShared = 227 * 1024;
constexpr size_t kDefaultShared = 48 * 1024;
#ifdef EEPO_FIBER_SANITIZER
constexpr size_t kStack = 256 * 1024;
#else
constexpr size_t kStack = 128 * 1024;
#endif

/// What a fiber has asked for and has not yet got.
struct Waiting {
  Collective what = Collective::None;
  bool barrier = false;
  unsigned mask = 0;
  int source = 0;
  uint64_t value = 0;
};

#if defined(__x86_64__)
using Registers = void*;
#else
using Registers = ucontext_t;
#endif

struct Fiber {
  Registers registers{};
  char* stack = nullptr;
  bool exited = true;
  Waiting waiting;
  uint64_t result = 0;
  void* fake_stack = nullptr;
};

struct Warp {
  unsigned ready = 0;    // lanes that may run
  unsigned live = 0;     // lanes that have not returned from the kernel
  unsigned arrived = 0;  // lanes that wait in a warp-wide operation
};

struct Launch {
  const char* name;
  dim3 grid, block;
  size_t shared;
  Body body;
  void* arguments;
  uint64_t seed;
  bool poison;
};

uint64_t mix(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// All that one OS thread needs to run blocks, one after another.
class Processor {
 public:
  ~Processor() {
    for (Fiber& fiber : fibers_) {
      if (fiber.stack) munmap(fiber.stack - kPage, kStack + kPage);
    }
    if (shared_) munmap(shared_, kMaxShared + 2 * kPage);
  }

  void run_block(const Launch& launch, uint64_t block_index);
  unsigned char* shared_memory() { return shared_memory_; }
  int lane() const { return static_cast<int>(current_ & 31u); }
  uint64_t collective(Collective what, unsigned mask, uint64_t value, int source);
  int barrier(int predicate);
  void fiber_main();
  [[noreturn]] void fail(const char* message, unsigned thread) const;
  [[noreturn]] void fail(const char* message) const { fail(message, current_); }

 private:
  void prepare(const Launch& launch);
  void create(Fiber& fiber);
  void resume(unsigned thread);
  void yield();
  void complete(unsigned warp, unsigned mask, Collective what);
  void release_barrier();
  [[noreturn]] void deadlock() const;
  uint64_t random() { return random_ = mix(random_); }

  const Launch* launch_ = nullptr;
  dim3 indexed_{0, 0, 0};  // the shape of block that indices_ is for
  std::vector<uint3> indices_ = std::vector<uint3>(kMaxThreads);
  std::vector<Fiber> fibers_ = std::vector<Fiber>(kMaxThreads);
  std::vector<Warp> warps_ = std::vector<Warp>(kMaxThreads / 32);
  Registers scheduler_{};
  unsigned threads_ = 0, live_ = 0, at_barrier_ = 0, current_ = 0;
  int predicates_ = 0;
  uint64_t random_ = 0;
  uint64_t block_index_ = 0;
  unsigned char* shared_ = nullptr;  // with a guard page after it
  unsigned char* shared_memory_ = nullptr;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_size_ = 0;
  void* scheduler_fake_stack_ = nullptr;
};

Processor& processor() {
  static __thread Processor* known = nullptr;
  if (known == nullptr) {
    static thread_local Processor own;
    known = &own;
  }
  return *known;
}

void fiber_entry() {
  processor().fiber_main();
  std::abort();
}

void Processor::fail(const char* message, unsigned thread) const {
  if (!launch_) {
    std::fprintf(stderr, "CUDA emulator: %s\n", message);
  } else {
    const uint3& t = indices_[thread];
    std::fprintf(stderr, "CUDA emulator: kernel %s, block %llu of (%u, %u, %u), thread (%u, %u, %u): %s\n",
                 launch_->name, static_cast<unsigned long long>(block_index_), launch_->grid.x, launch_->grid.y,
                 launch_->grid.z, t.x, t.y, t.z, message);
  }
  std::fflush(stderr);
  std::abort();
}

void Processor::deadlock() const {
  for (unsigned t = 0; t < threads_; ++t) {
    const Fiber& fiber = fibers_[t];
    if (fiber.exited) continue;
    if (fiber.waiting.barrier) {
      // The culprit is whoever is elsewhere.
      for (unsigned other = 0; other < threads_; ++other) {
        if (!fibers_[other].exited && !fibers_[other].waiting.barrier) {
          fail("deadlock: waits in a warp-wide operation while others wait at __syncthreads", other);
        }
      }
    }
    fail("deadlock: a warp-wide operation that not all lanes of its mask reach", t);
  }
  fail("deadlock", 0);
}

void Processor::create(Fiber& fiber) {
  char* const base = static_cast<char*>(
      mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (base == MAP_FAILED || mprotect(base, kPage, PROT_NONE) != 0) fail("cannot allocate a stack");
  fiber.stack = base + kPage;
#if defined(__x86_64__)
  void** top = reinterpret_cast<void**>(fiber.stack + kStack);
  *--top = nullptr;  // keeps the entry's frame aligned as after a call
  *--top = reinterpret_cast<void*>(&fiber_entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber.registers = top;
#else
  getcontext(&fiber.registers);
  fiber.registers.uc_stack.ss_sp = fiber.stack;
  fiber.registers.uc_stack.ss_size = kStack;
  fiber.registers.uc_link = nullptr;
  makecontext(&fiber.registers, &fiber_entry, 0);
#endif
}

void Processor::resume(unsigned thread) {
  Fiber& fiber = fibers_[thread];
  current_ = thread;
  threadIdx = indices_[thread];
#ifdef EEPO_FIBER_SANITIZER
  __sanitizer_start_switch_fiber(&scheduler_fake_stack_, fiber.stack, kStack);
#endif
#if defined(__x86_64__)
  eepo_emulator_switch(&scheduler_, fiber.registers);
#else
  swapcontext(&scheduler_, &fiber.registers);
#endif
#ifdef EEPO_FIBER_SANITIZER
  __sanitizer_finish_switch_fiber(scheduler_fake_stack_, nullptr, nullptr);
#endif
}

void Processor::yield() {
  Fiber& fiber = fibers_[current_];
#ifdef EEPO_FIBER_SANITIZER
  __sanitizer_start_switch_fiber(&fiber.fake_stack, scheduler_stack_, scheduler_stack_size_);
#endif
#if defined(__x86_64__)
  eepo_emulator_switch(&fiber.registers, scheduler_);
#else
  swapcontext(&fiber.registers, &scheduler_);
#endif
#ifdef EEPO_FIBER_SANITIZER
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &scheduler_stack_, &scheduler_stack_size_);
#endif
}

void Processor::fiber_main() {
#ifdef EEPO_FIBER_SANITIZER
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack_, &scheduler_stack_size_);
#endif
  for (;;) {
    launch_->body(launch_->arguments);
    fibers_[current_].exited = true;
    warps_[current_ / 32].live &= ~(1u << (current_ & 31u));
    --live_;
    if (at_barrier_ > 0 && at_barrier_ == live_) release_barrier();  // the hardware counts exited threads as arrived
    yield();
  }
}

void Processor::complete(unsigned warp, unsigned mask, Collective what) {
  Fiber* const lanes = &fibers_[warp * 32];
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const Waiting& w = lanes[__builtin_ctz(rest)].waiting;
    if (w.mask != mask) fail("lanes of one mask call with different masks");
    if (w.what != what) fail("lanes of one mask call different warp-wide operations");
  }
  uint64_t all = what == Collective::And ? 0xffffffffu : what == Collective::Min ? 0xffffffffu : 0;
  if (what == Collective::SignedMin) all = 0x7fffffffu;
  if (what == Collective::SignedMax) all = 0x80000000u;
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const int i = __builtin_ctz(rest);
    const uint64_t v = lanes[i].waiting.value;
    const int32_t s = static_cast<int32_t>(v);
    switch (what) {
      case Collective::Ballot: all |= v << i; break;
      case Collective::Add: all = static_cast<uint32_t>(all + v); break;
      case Collective::Min: all = v < all ? v : all; break;
      case Collective::Max: all = v > all ? v : all; break;
      case Collective::SignedMin: all = s < static_cast<int32_t>(all) ? v : all; break;
      case Collective::SignedMax: all = s > static_cast<int32_t>(all) ? v : all; break;
      case Collective::And: all &= v; break;
      case Collective::Or: all |= v; break;
      case Collective::Xor: all ^= v; break;
      default: break;
    }
  }
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    Fiber& lane = lanes[__builtin_ctz(rest)];
    lane.result = all;
    if (what == Collective::Shuffle) {
      if (!(mask >> lane.waiting.source & 1u)) fail("a shuffle reads a lane outside of its mask");
      lane.result = lanes[lane.waiting.source].waiting.value;
    } else if (what == Collective::Match) {
      for (unsigned other = mask; other != 0; other &= other - 1) {
        const int i = __builtin_ctz(other);
        if (lanes[i].waiting.value == lane.waiting.value) lane.result |= uint64_t{1} << i;
      }
    }
  }
  warps_[warp].arrived &= ~mask;
  warps_[warp].ready |= mask;
}

uint64_t Processor::collective(Collective what, unsigned mask, uint64_t value, int source) {
  const unsigned warp = current_ / 32, bit = 1u << (current_ & 31u);
  if (!(mask & bit)) fail("calls a warp-wide operation with a mask that leaves the caller out");
  if (mask & ~warps_[warp].live) {
    fail("a warp-wide operation whose mask names lanes that have exited or do not exist");
  }
  Fiber& fiber = fibers_[current_];
  fiber.waiting = {what, false, mask, source, value};
  warps_[warp].arrived |= bit;
  if ((warps_[warp].arrived & mask) == mask) {
    complete(warp, mask, what);
    warps_[warp].ready &= ~bit;  // runs on
  } else {
    yield();
  }
  return fiber.result;
}

void Processor::release_barrier() {
  at_barrier_ = 0;
  const int count = predicates_;
  predicates_ = 0;
  for (unsigned t = 0; t < threads_; ++t) {
    Fiber& fiber = fibers_[t];
    if (fiber.exited) continue;
    fiber.waiting.barrier = false;
    fiber.result = static_cast<uint64_t>(count);
    warps_[t / 32].ready |= 1u << (t & 31u);
  }
}

int Processor::barrier(int predicate) {
  Fiber& fiber = fibers_[current_];
  fiber.waiting.barrier = true;
  predicates_ += predicate != 0;
  if (++at_barrier_ == live_) {
    release_barrier();
    warps_[current_ / 32].ready &= ~(1u << (current_ & 31u));  // runs on
  } else {
    yield();
  }
  return static_cast<int>(fiber.result);
}

void Processor::prepare(const Launch& launch) {
  launch_ = &launch;
  threads_ = live_ = launch.block.x * launch.block.y * launch.block.z;
  at_barrier_ = 0;
  predicates_ = 0;
  for (Warp& warp : warps_) warp = {};
  const dim3& shape = launch.block;
  if (indexed_.x != shape.x || indexed_.y != shape.y || indexed_.z != shape.z) {
    for (unsigned t = 0; t < threads_; ++t) {
      indices_[t] = {t % shape.x, t / shape.x % shape.y, t / (shape.x * shape.y)};
    }
    indexed_ = shape;
  }
  for (unsigned t = 0; t < threads_; ++t) {
    Fiber& fiber = fibers_[t];
    if (!fiber.stack) create(fiber);
    fiber.exited = false;
    fiber.waiting = {};
    warps_[t / 32].ready |= 1u << (t & 31u);
    warps_[t / 32].live |= 1u << (t & 31u);
  }
  if (!shared_) {
    shared_ = static_cast<unsigned char*>(
        mmap(nullptr, kMaxShared + 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (shared_ == MAP_FAILED) fail("cannot allocate shared memory", 0);
    unsigned char* const end = shared_ + (kMaxShared + kPage) / kPage * kPage;
    if (mprotect(end, kPage, PROT_NONE) != 0) fail("cannot protect shared memory", 0);
  }
  // It ends (but for 15 bytes) where the guard page begins, so that what runs past it faults.
  unsigned char* const end = shared_ + (kMaxShared + kPage) / kPage * kPage;
  shared_memory_ = end - (launch.shared + 15) / 16 * 16;
  if (launch.poison) std::memset(shared_memory_, 0xff, launch.shared);
}

void Processor::run_block(const Launch& launch, uint64_t block_index) {
  block_index_ = block_index;
  prepare(launch);
  random_ = mix(launch.seed ^ block_index);
  const uint64_t gx = launch.grid.x, gy = launch.grid.y;
  blockIdx = {static_cast<unsigned>(block_index % gx), static_cast<unsigned>(block_index / gx % gy),
              static_cast<unsigned>(block_index / (gx * gy))};
  blockDim = {launch.block.x, launch.block.y, launch.block.z};
  gridDim = {launch.grid.x, launch.grid.y, launch.grid.z};
  const unsigned warps = (threads_ + 31) / 32;
  while (live_ > 0) {
    bool progress = false;
    const uint64_t dice = random();
    const unsigned first = static_cast<unsigned>(dice) & 31u, step = (static_cast<unsigned>(dice >> 5) & 31u) | 1u;
    const unsigned lane_step = (static_cast<unsigned>(dice >> 10) & 31u) | 1u;
    for (unsigned i = 0; i < 32; ++i) {
      const unsigned w = (first + i * step) & 31u;
      if (w >= warps || warps_[w].ready == 0) continue;
      progress = true;
      // Some warps fall behind and some run ahead.
      const unsigned turns = static_cast<unsigned>(dice >> (15 + i)) & 3u;
      for (unsigned turn = 0; turn < turns; ++turn) {
        for (unsigned l = 0; l < 32; ++l) {
          const unsigned lane = (first + w + turn + l * lane_step) & 31u;
          if (!(warps_[w].ready >> lane & 1u)) continue;
          warps_[w].ready &= ~(1u << lane);
          resume(w * 32 + lane);
        }
      }
    }
    if (!progress) deadlock();
  }
  launch_ = nullptr;
}

std::mutex shared_mutex;
std::map<const void*, size_t>& shared_limits() {
  static std::map<const void*, size_t> limits;
  return limits;
}

[[noreturn]] void refuse(const char* name, const char* message, unsigned long long value) {
  std::fprintf(stderr, "CUDA emulator: kernel %s: %s: %llu\n", name, message, value);
  std::fflush(stderr);
  std::abort();
}

void check_limits(const char* name, const void* kernel, const dim3& grid, const dim3& block, size_t shared) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64) refuse(name, "threads per block", threads);
  if (grid.x == 0 || grid.x > 0x7fffffffu) refuse(name, "grid.x is 0 or too large", grid.x);
  if (grid.y == 0 || grid.y > 65535) refuse(name, "grid.y is 0 or too large", grid.y);
  if (grid.z == 0 || grid.z > 65535) refuse(name, "grid.z is 0 or too large", grid.z);
  size_t limit = kDefaultShared;
  {
    const std::lock_guard<std::mutex> lock(shared_mutex);
    const auto found = shared_limits().find(kernel);
    if (found != shared_limits().end() && found->second > limit) limit = found->second;
  }
  if (shared > limit) refuse(name, "dynamic shared memory beyond what the kernel was allowed", shared);
}

uint64_t environment(const char* name, uint64_t fallback) {
  const char* const text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : fallback;
}

}  // namespace

unsigned char* dynamic_shared() { return processor().shared_memory(); }
int lane() { return processor().lane(); }
void fail(const char* message) { processor().fail(message); }
int barrier(int predicate) { return processor().barrier(predicate); }
uint64_t collective(Collective what, unsigned mask, uint64_t value, int source_lane) {
  return processor().collective(what, mask, value, source_lane);
}

cudaError_t allow_shared(const void* kernel, int bytes) {
  if (bytes < 0 || static_cast<size_t>(bytes) > kMaxShared)
    refuse("?", "shared memory asked for", static_cast<unsigned>(bytes));
  const std::lock_guard<std::mutex> lock(shared_mutex);
  shared_limits()[kernel] = static_cast<size_t>(bytes);
  return cudaSuccess;
}

void run(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared, Body body, void* arguments) {
  static std::atomic<uint64_t> launches{0};
  static const uint64_t seed = environment("EEPO_EMULATOR_SEED", 0);
  static const bool poison = environment("EEPO_EMULATOR_POISON", 1) != 0;
  check_limits(name, kernel, grid, block, shared);
  const Launch launch{name, grid, block, shared, body, arguments, mix(seed + ++launches), poison};
  const int64_t blocks = int64_t{grid.x} * grid.y * grid.z;
#pragma omp parallel for schedule(dynamic, 1) if (blocks > 1)
  for (int64_t b = 0; b < blocks; ++b) processor().run_block(launch, static_cast<uint64_t>(b));
}

}  // namespace eepo_emulator
