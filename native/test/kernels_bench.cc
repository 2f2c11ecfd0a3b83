// Times the row kernels against the memory floors of this machine, measured in the same run. Interleaved rounds, and
// the best of each, so that a busy neighbour slows all alike. Run by scripts/test-kernels.sh --bench.
#include <omp.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/isa.h"
#include "kernels/ascend.h"
#include "kernels/sample.h"
#include "kernels/token_grad.h"
#include "kernels/token_stats.h"

namespace eepo::test {
namespace {

// Aligned as tensors are: a vector load that straddles two cache lines costs double.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t count) : data_(static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(64)))) {
    std::memset(data_, 0, count * sizeof(T));
  }
  ~Buffer() { ::operator delete(data_, std::align_val_t(64)); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* data() { return data_; }
  T& operator[](size_t i) { return data_[i]; }

 private:
  T* data_;
};

struct Timed {
  std::string name;
  std::function<void()> work;
  double best_ms = 1e30;
};

// On one thread its processor time, which a busy machine does not lengthen much; on several, the clock on the wall.
double now_ms() {
  timespec time{};
  clock_gettime(omp_get_max_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) * 1e-6;
}

void run(std::vector<Timed>& all, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    for (Timed& timed : all) {
      const double start = now_ms();
      timed.work();
      timed.best_ms = std::min(timed.best_ms, now_ms() - start);
    }
  }
}

// 64-bit words, several sums at once: plain enough for the compiler to vectorize in any instruction set.
uint64_t read_all(const void* data, size_t bytes) {
  const uint64_t* words = static_cast<const uint64_t*>(data);
  const int64_t count = static_cast<int64_t>(bytes / sizeof(uint64_t));
  uint64_t total = 0;
#pragma omp parallel for simd reduction(+ : total) schedule(static)
  for (int64_t i = 0; i < count; ++i) total += words[i];
  return total;
}

void read_write_all(void* data, size_t bytes) {
  uint64_t* words = static_cast<uint64_t*>(data);
  const int64_t count = static_cast<int64_t>(bytes / sizeof(uint64_t));
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < count; ++i) words[i] ^= 0x8000800080008000u;
}

volatile uint64_t sink;

void bench(DType dtype, const char* name) {
  constexpr int64_t kRows = 256, kCols = 151936;
  const size_t bytes = static_cast<size_t>(kRows * kCols) * size_of(dtype);
  Buffer<unsigned char> logits(bytes), scratch(bytes);
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> pattern(65536);
  for (float& x : pattern) x = normal(random);
  for (int64_t i = 0; i < kRows * kCols; ++i) {
    const float x = pattern[static_cast<size_t>(i * 7919 % 65536)];
    if (dtype == DType::Float32) {
      std::memcpy(&logits[static_cast<size_t>(i) * 4], &x, 4);
    } else {
      const uint16_t half = dtype == DType::BFloat16 ? float_to_bf16(x) : float_to_f16(x);
      std::memcpy(&logits[static_cast<size_t>(i) * 2], &half, 2);
    }
  }
  std::memcpy(scratch.data(), logits.data(), bytes);
  std::vector<int64_t> targets(kRows, 1234), tokens(kRows);
  std::vector<float> l(kRows), h(kRows), q(kRows), a(kRows, -0.5f), b(kRows, 0.1f);
  std::vector<PhiloxCounter> counters(kRows);
  for (uint32_t r = 0; r < kRows; ++r) counters[r] = {r, 0, 0, 0};
  const LogitsView view{logits.data(), dtype, kRows, kCols, kCols};
  // In place, the gradient of a gradient is as much work as the gradient of logits.
  const MutableLogitsView in_place{scratch.data(), dtype, kRows, kCols, kCols};
  std::vector<Timed> all{
      {"read floor", [&] { sink = read_all(logits.data(), bytes); }},
      {"token_stats", [&] { token_stats(view, targets.data(), 1, l.data(), h.data(), q.data()); }},
      {"sample", [&] { sample(view, {}, counters.data(), tokens.data(), l.data(), h.data()); }},
      {"read+write floor", [&] { read_write_all(scratch.data(), bytes); }},
      {"token_grad (a)", [&] { token_grad(in_place, targets.data(), a.data(), nullptr, 1); }},
      {"token_grad (a, b)", [&] { token_grad(in_place, targets.data(), a.data(), b.data(), 1); }},
  };
  run(all, 15);
  std::printf("%s, N = %d, V = %d\n", name, static_cast<int>(kRows), static_cast<int>(kCols));
  for (size_t i = 0; i < all.size(); ++i) {
    const double floor = all[i < 3 ? 0 : 3].best_ms;
    std::printf("  %-20s %8.2f ms  %5.2fx of its floor\n", all[i].name.c_str(), all[i].best_ms, all[i].best_ms / floor);
  }
}

void bench_ascend() {
  constexpr int64_t kSize = int64_t{1} << 24;
  Buffer<float> param(kSize), grad(kSize), into(kSize);
  Buffer<uint16_t> half(kSize);
  std::fill_n(param.data(), kSize, 0.01f);
  std::fill_n(grad.data(), kSize, 0.3f);
  const auto step = [&](void* out, DType dtype, Rounding rounding) {
    ascend({{param.data(), DType::Float32, grad.data(), DType::Float32, out, dtype, kSize}}, 3e-3, rounding, 1);
  };
  std::vector<Timed> all{
      {"read 2 floats", [&] { sink = read_all(param.data(), kSize * 4) + read_all(grad.data(), kSize * 4); }},
      {"-> float32", [&] { step(into.data(), DType::Float32, Rounding::Nearest); }},
      {"-> bfloat16 nearest", [&] { step(half.data(), DType::BFloat16, Rounding::Nearest); }},
      {"-> bfloat16 stoch.", [&] { step(half.data(), DType::BFloat16, Rounding::Stochastic); }},
      {"-> float16 stoch.", [&] { step(half.data(), DType::Float16, Rounding::Stochastic); }},
  };
  run(all, 15);
  std::printf("ascend of %d M elements\n", static_cast<int>(kSize >> 20));
  for (const Timed& timed : all) {
    std::printf("  %-20s %8.2f ms  %5.2fx of the read\n", timed.name.c_str(), timed.best_ms,
                timed.best_ms / all[0].best_ms);
  }
}

}  // namespace
}  // namespace eepo::test

int main() {
  std::printf("instruction set: %s, threads: %d\n", eepo::isa_name(eepo::isa()), omp_get_max_threads());
  eepo::test::bench(eepo::DType::Float32, "float32");
  eepo::test::bench(eepo::DType::BFloat16, "bfloat16");
  eepo::test::bench(eepo::DType::Float16, "float16");
  eepo::test::bench_ascend();
  return 0;
}
