// Rotary angles. A row of a table holds the cosines and sines of one position: [head_dim / 2] each. The kernels take
// row numbers, so what a row stands for is decided here.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "device/ops.h"
#include "model/config.h"
#include "model/rope_frequencies.h"

namespace eepo {

/// Cosines and sines on a device.
struct RopeRows {
  const float *cosine = nullptr, *sine = nullptr;
};

/// A growing table, its copy on the device included.
class RopeTable {
 public:
  RopeTable(const RopeConfig& rope, int64_t head_dim) : rope_(rope), head_dim_(head_dim) {}

  /// Whether the angles of a sequence of this length are its own: dynamic, beyond the original context.
  bool own_angles(int64_t length) const { return length > longest_common(); }
  /// The longest sequence whose angles are everybody's.
  int64_t longest_common() const {
    return rope_.type == RopeType::Dynamic ? rope_.original_positions : std::numeric_limits<int64_t>::max();
  }

  /// Whole rows: a sine is appended after its cosine.
  int64_t rows() const { return static_cast<int64_t>(sine_.size()) / (head_dim_ / 2); }
  /// Makes rows [0, count) the angles of positions [0, count): of dynamic ones, those a token has that is the last of
  /// its sequence so far. A decoding step wants them so.
  void extend(Ops& ops, int64_t count);
  /// Appends the `length` rows of one sequence of that length.
  void append_sequence(int64_t length);
  /// The rows on the device, after append_sequence().
  void upload(Ops& ops);

  RopeRows at() const { return {cosine_at_, sine_at_}; }

 private:
  void append(int64_t position, const std::vector<float>& frequencies);

  RopeConfig rope_;
  int64_t head_dim_;
  std::vector<float> base_;  // frequencies up to the original context
  std::vector<float> cosine_, sine_;
  at::Tensor cosine_memory_, sine_memory_;
  const float *cosine_at_ = nullptr, *sine_at_ = nullptr;
};

}  // namespace eepo
