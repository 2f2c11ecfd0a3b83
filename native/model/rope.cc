// Angles are float32 products as in transformers, so that long positions agree.
#include "model/rope.h"

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

void RopeTable::append(int64_t position, const std::vector<float>& frequencies) {
  const auto scale = static_cast<float>(rope_.attention_factor);
  for (const float frequency : frequencies) {
    const double angle = static_cast<float>(position) * frequency;
    cosine_.push_back(static_cast<float>(std::cos(angle)) * scale);
    sine_.push_back(static_cast<float>(std::sin(angle)) * scale);
  }
}

void RopeTable::extend(Ops& ops, int64_t count) {
  const int64_t half = head_dim_ / 2, known = rows();
  if (count <= known && cosine_at_ != nullptr) return;
  if (base_.empty()) base_ = rope_frequencies(rope_, head_dim_, 1);
  // A copy on a device is made anew whenever it grows: grow rarely.
  const int64_t wanted = ops.device() == Device::Cpu ? count : std::max({count, 2 * known, int64_t{1024}});
  cosine_at_ = sine_at_ = nullptr;  // on a CPU they point into what may move now: an exception must not leave them
  cosine_.resize(known * half);     // both end at a whole position, also after a failed allocation
  sine_.resize(known * half);
  for (int64_t p = known; p < wanted; ++p)
    append(p, own_angles(p + 1) ? rope_frequencies(rope_, head_dim_, p + 1) : base_);
  upload(ops);
}

void RopeTable::append_sequence(int64_t length) {
  const std::vector<float> frequencies = rope_frequencies(rope_, head_dim_, length);
  for (int64_t p = 0; p < length; ++p) append(p, frequencies);
}

void RopeTable::upload(Ops& ops) {
  cosine_at_ = ops.stage(cosine_, cosine_memory_);
  sine_at_ = ops.stage(sine_, sine_memory_);
}

}  // namespace eepo
