// What the tests of the kernels share: logits in any dtype, random inputs, and how errors are counted.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/error.h"
#include "kernels/token_grad.h"
#include "kernels/token_stats.h"
#include "kernels/token_stats_blocks.h"
#include "test/check.h"

namespace eepo::test {

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

inline std::string text(const char* format, auto... values) {
  char buffer[128];
  std::snprintf(buffer, sizeof buffer, format, values...);
  return buffer;
}

inline const char* dtype_name(DType dtype) {
  return dtype == DType::Float32 ? "float32" : dtype == DType::BFloat16 ? "bfloat16" : "float16";
}

inline bool throws(ErrorCode code, const std::string& part, const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.code() == code && std::string(error.what()).find(part) != std::string::npos;
  }
  return false;
}

// Logits in any dtype, with room behind every row that the kernels must leave alone.
struct Logits {
  DType dtype;
  int64_t rows, cols, stride;
  std::vector<unsigned char> bytes;

  Logits(DType type, int64_t r, int64_t c, int64_t gap = 0)
      : dtype(type),
        rows(r),
        cols(c),
        stride(c + gap),
        bytes(static_cast<size_t>(r * (c + gap)) * size_of(type), 0x7b) {}

  void set(int64_t row, int64_t col, float value) {
    void* p = bytes.data() + static_cast<size_t>(row * stride + col) * size_of(dtype);
    if (dtype == DType::Float32) {
      std::memcpy(p, &value, sizeof value);
      return;
    }
    const uint16_t half = dtype == DType::BFloat16 ? float_to_bf16(value) : float_to_f16(value);
    std::memcpy(p, &half, sizeof half);
  }
  float get(int64_t row, int64_t col) const { return element(bytes.data(), dtype, row * stride + col); }
  LogitsView view() const { return {bytes.data(), dtype, rows, cols, stride}; }
  MutableLogitsView mutable_view() { return {bytes.data(), dtype, rows, cols, stride}; }
};

inline Logits random_logits(DType dtype, int64_t rows, int64_t cols, uint32_t seed, int64_t gap = 0, float shift = 0,
                            float scale = 3) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  Logits logits(dtype, rows, cols, gap);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < cols; ++j) logits.set(r, j, normal(random) + shift);
  return logits;
}

inline std::vector<int64_t> random_targets(int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int64_t> targets(static_cast<size_t>(rows));
  for (int64_t& y : targets) y = static_cast<int64_t>(random() % static_cast<uint32_t>(cols));
  return targets;
}

struct Stats {
  std::vector<float> logprob, entropy, q;
  explicit Stats(int64_t rows) : logprob(rows), entropy(rows), q(rows) {}
};

inline Stats run_stats(const LogitsView& view, const std::vector<int64_t>& targets, float temperature = 1) {
  Stats s(view.rows);
  token_stats(view, targets.data(), temperature, s.logprob.data(), s.entropy.data(), s.q.data());
  return s;
}

// 1e-6, or one unit in the last place of a float32 where that is more (from 8.4 on), counts as 1e-6.
inline double unit_difference(double got, double want) {
  const double unit = std::isfinite(want) ? std::fabs(want) * 0x1p-23 : 0;
  return difference(got, want) / std::fmax(1, unit / 1e-6);
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline std::vector<float> random_floats(int64_t count, uint32_t seed, float scale) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& x : values) x = normal(random);
  return values;
}

}  // namespace eepo::test
