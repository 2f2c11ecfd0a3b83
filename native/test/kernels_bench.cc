// Times the row kernels and ascend against the memory floors of this machine, measured in the same run, on one thread
// and on all. Interleaved rounds, and the best of each, so that a busy neighbour slows all alike. Run by
// scripts/test-kernels.sh --bench [rounds].
#include <omp.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
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
  size_t floor;  // the index of the work that is its floor
};

// On one thread its processor time, which a busy machine does not lengthen much; on several, the clock on the wall.
double now_ms() {
  timespec time{};
  clock_gettime(omp_get_max_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) * 1e-6;
}

std::vector<double> best_of(const std::vector<Timed>& all, int rounds, int threads) {
  omp_set_num_threads(threads);
  std::vector<double> best(all.size(), 1e30);
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < all.size(); ++i) {
      const double start = now_ms();
      all[i].work();
      best[i] = std::min(best[i], now_ms() - start);
    }
  }
  return best;
}

void run(const std::vector<Timed>& all, int rounds) {
  static const int most = omp_get_max_threads();
  const std::vector<double> one = best_of(all, rounds, 1);
  const std::vector<double> every = most > 1 ? best_of(all, rounds, most) : one;
  for (size_t i = 0; i < all.size(); ++i) {
    std::printf("  %-28s %8.2f ms %5.2fx", all[i].name.c_str(), one[i], one[i] / one[all[i].floor]);
    if (most > 1) std::printf("   %8.2f ms %5.2fx", every[i], every[i] / every[all[i].floor]);
    std::printf("\n");
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

// Reads two arrays of words and writes the first `out_bytes` / 8 of their combinations: the traffic of one step of
// ascend.
void combine_all(const void* left, const void* right, size_t bytes, void* out, size_t out_bytes) {
  const uint64_t* a = static_cast<const uint64_t*>(left);
  const uint64_t* b = static_cast<const uint64_t*>(right);
  uint64_t* c = static_cast<uint64_t*>(out);
  const int64_t count = static_cast<int64_t>(out_bytes / sizeof(uint64_t));
  if (bytes == out_bytes) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; ++i) c[i] = a[i] ^ b[i];
  } else {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; ++i) c[i] = (a[2 * i] ^ b[2 * i]) + (a[2 * i + 1] ^ b[2 * i + 1]);
  }
}

volatile uint64_t sink;

void bench(DType dtype, const char* name, int rounds) {
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
  const std::vector<Timed> all{
      {"read (floor)", [&] { sink = read_all(logits.data(), bytes); }, 0},
      {"token_stats", [&] { token_stats(view, targets.data(), 1, l.data(), h.data(), q.data()); }, 0},
      {"sample", [&] { sample(view, {}, counters.data(), tokens.data(), l.data(), h.data()); }, 0},
      {"read + write (floor)", [&] { read_write_all(scratch.data(), bytes); }, 3},
      {"token_grad (a)", [&] { token_grad(in_place, targets.data(), a.data(), nullptr, 1); }, 3},
      {"token_grad (a, b)", [&] { token_grad(in_place, targets.data(), a.data(), b.data(), 1); }, 3},
  };
  std::printf("%s, N = %d, V = %d\n", name, static_cast<int>(kRows), static_cast<int>(kCols));
  run(all, rounds);
}

void bench_ascend(int rounds) {
  constexpr int64_t kSize = int64_t{1} << 24;
  Buffer<float> param(kSize), grad(kSize), into(kSize);
  Buffer<uint16_t> half(kSize);
  std::fill_n(param.data(), kSize, 0.01f);
  std::fill_n(grad.data(), kSize, 0.3f);
  const auto step = [&](void* out, DType dtype, Rounding rounding) {
    ascend({{param.data(), DType::Float32, grad.data(), DType::Float32, out, dtype, kSize}}, 3e-3, rounding, 1);
  };
  const auto floor = [&](void* out, size_t width) {
    combine_all(param.data(), grad.data(), kSize * sizeof(float), out, kSize * width);
  };
  const std::vector<Timed> all{
      {"8 bytes in, 4 out (floor)", [&] { floor(into.data(), 4); }, 0},
      {"-> float32", [&] { step(into.data(), DType::Float32, Rounding::Nearest); }, 0},
      {"8 bytes in, 2 out (floor)", [&] { floor(half.data(), 2); }, 2},
      {"-> bfloat16 nearest", [&] { step(half.data(), DType::BFloat16, Rounding::Nearest); }, 2},
      {"-> bfloat16 stochastic", [&] { step(half.data(), DType::BFloat16, Rounding::Stochastic); }, 2},
      {"-> float16 stochastic", [&] { step(half.data(), DType::Float16, Rounding::Stochastic); }, 2},
  };
  std::printf("ascend of %d M elements\n", static_cast<int>(kSize >> 20));
  run(all, rounds);
}

}  // namespace
}  // namespace eepo::test

int main(int count, char** arguments) {
  const int rounds = count > 1 ? std::max(1, std::atoi(arguments[1])) : 15;
  std::printf("instruction set: %s; best of %d rounds on 1 thread and on %d\n", eepo::isa_name(eepo::isa()), rounds,
              omp_get_max_threads());
  eepo::test::bench(eepo::DType::Float32, "float32", rounds);
  eepo::test::bench(eepo::DType::BFloat16, "bfloat16", rounds);
  eepo::test::bench(eepo::DType::Float16, "float16", rounds);
  eepo::test::bench_ascend(rounds);
  return 0;
}
