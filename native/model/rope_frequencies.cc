#include "model/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace eepo {
namespace {

// Low frequencies divided by the factor, high ones kept, a linear blend between.
double llama3_frequency(const RopeConfig& rope, double frequency) {
  const double turns = static_cast<double>(rope.original_positions) * frequency / (2 * std::numbers::pi);
  if (turns < rope.low_freq) return frequency / rope.factor;
  if (turns > rope.high_freq) return frequency;
  const double smooth = (turns - rope.low_freq) / (rope.high_freq - rope.low_freq);
  return (1 - smooth) * frequency / rope.factor + smooth * frequency;
}

// The ends of YaRN's ramp, in frequencies: where `beta` turns fit the original context.
struct Ramp {
  double low, high;
  double operator()(double i) const { return std::clamp((i - low) / (high - low), 0.0, 1.0); }
};

Ramp yarn_ramp(const RopeConfig& rope, int64_t head_dim) {
  const auto dim = static_cast<double>(head_dim);
  const auto turning = [&](double turns) {
    return dim * std::log(static_cast<double>(rope.original_positions) / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  Ramp ramp{turning(rope.beta_fast), turning(rope.beta_slow)};
  if (rope.truncate) ramp = {std::floor(ramp.low), std::ceil(ramp.high)};
  ramp = {std::max(ramp.low, 0.0), std::min(ramp.high, dim - 1)};
  if (ramp.low == ramp.high) ramp.high += 0.001;
  return ramp;
}

// NTK: the base that makes the slowest frequency fit `length` tokens, given the factor.
double stretched_base(const RopeConfig& rope, int64_t head_dim, int64_t length) {
  const double ratio = static_cast<double>(length) / static_cast<double>(rope.original_positions);
  const auto dim = static_cast<double>(head_dim);
  return rope.theta * std::pow(rope.factor * ratio - (rope.factor - 1), dim / (dim - 2));
}

}  // namespace

std::vector<float> rope_frequencies(const RopeConfig& rope, int64_t head_dim, int64_t length) {
  const bool stretched = rope.type == RopeType::Dynamic && length > rope.original_positions;
  const double base = stretched ? stretched_base(rope, head_dim, length) : rope.theta;
  const Ramp ramp = rope.type == RopeType::Yarn ? yarn_ramp(rope, head_dim) : Ramp{0, 1};
  std::vector<float> frequencies;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const auto index = static_cast<double>(i);
    double frequency = 1.0 / std::pow(base, 2 * index / static_cast<double>(head_dim));
    switch (rope.type) {
      case RopeType::Linear: frequency /= rope.factor; break;
      case RopeType::Llama3: frequency = llama3_frequency(rope, frequency); break;
      case RopeType::Yarn: frequency *= ramp(index) / rope.factor + (1 - ramp(index)); break;
      case RopeType::Default:
      case RopeType::Dynamic: break;
    }
    frequencies.push_back(static_cast<float>(frequency));
  }
  return frequencies;
}

void check_rope(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  check(std::isfinite(static_cast<float>(rope.attention_factor)), ErrorCode::InvalidFile,
        "config.json: attention_factor of the rope scaling must be a finite float32, got ", rope.attention_factor);
  const auto farthest = static_cast<float>(config.max_positions);
  for (const int64_t length : {int64_t{1}, config.max_positions})
    for (const float frequency : rope_frequencies(rope, config.head_dim, length))
      check(std::isfinite(farthest * frequency), ErrorCode::InvalidFile, "config.json: rope_theta ", rope.theta,
            " and the rope scaling make a rotary angle that is not finite");
}

}  // namespace eepo
