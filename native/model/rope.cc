// Angles are float32 products as in transformers, so that long positions agree.
#include "model/rope.h"

#include <algorithm>
#include <cmath>

namespace eepo {

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
