// Rotary frequencies: theta^(-2i/d), and Llama 3's rescaling of them (low frequencies divided by `factor`, high
// ones kept, a linear blend between). Angles are float32 products as in transformers, so that long positions agree.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "model/decoder.h"

namespace eepo {

RopeTable::RopeTable(const ModelConfig& c) {
  for (int64_t i = 0; i < c.head_dim / 2; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(c.head_dim);
    double frequency = 1.0 / std::pow(c.rope_theta, exponent);
    if (c.rope_type == RopeType::Llama3) {
      const double original = static_cast<double>(c.rope_original_positions);
      const double wavelength = 2.0 * std::numbers::pi / frequency;
      const double low = original / c.rope_low_freq, high = original / c.rope_high_freq;
      if (wavelength > low) {
        frequency /= c.rope_factor;
      } else if (wavelength >= high) {
        const double smooth = (original / wavelength - c.rope_low_freq) / (c.rope_high_freq - c.rope_low_freq);
        frequency = (1 - smooth) * frequency / c.rope_factor + smooth * frequency;
      }
    }
    frequencies_.push_back(static_cast<float>(frequency));
  }
}

void RopeTable::extend(Ops& ops, int64_t count) {
  const auto half = static_cast<int64_t>(frequencies_.size());
  const int64_t known = static_cast<int64_t>(sine_.size()) / half;
  if (count <= known && cosine_at_ != nullptr) return;
  // A copy on a device is made anew whenever it grows: grow rarely.
  const int64_t wanted = ops.device() == Device::Cpu ? count : std::max({count, 2 * known, int64_t{1024}});
  cosine_.resize(known * half);  // both end at a whole position, also after a failed allocation
  sine_.resize(known * half);
  for (int64_t p = known; p < wanted; ++p)
    for (const float frequency : frequencies_) {
      const double angle = static_cast<float>(p) * frequency;
      cosine_.push_back(static_cast<float>(std::cos(angle)));
      sine_.push_back(static_cast<float>(std::sin(angle)));
    }
  cosine_at_ = ops.stage(cosine_, cosine_memory_);
  sine_at_ = ops.stage(sine_, sine_memory_);
}

}  // namespace eepo
