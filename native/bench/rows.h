// Rows of logits that look like a language model's, the same on every machine and in bench/peers/data.py.
//
//   z_rj = 20 - s_r ln(1 + rank_rj),   rank_rj = ((j + m_r) P) mod V
//
// Each row is Zipf's law: the token of rank k has p ~ (1 + k)^(-s). Its exponent s_r is solved for an entropy; the 64
// entropies are spread evenly on a logarithmic scale from 0.1 to 6 nats (at most 90 % of ln V), and neighbouring rows
// have different ones. P is near 0.618 V and shares no divisor with it, so that probable tokens lie everywhere; m_r
// turns the order from row to row. Targets are drawn from the rows' own distributions.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace eepo::bench {

class ZipfRows {
 public:
  static constexpr int64_t levels = 64;

  /// `turns`: how many different m_r there are (head_workload.cc plants each in a dimension of its own).
  explicit ZipfRows(int64_t vocab, int64_t turns = int64_t{1} << 30);

  /// The entropy row r is made to have, in nats (in exact arithmetic).
  double entropy(int64_t row) const { return entropy_[level(row)]; }
  double exponent(int64_t row) const { return exponent_[level(row)]; }

  /// ln(1 + rank) of every token for m = 0, twice in a row: row r reads it from m_r. float32 [2 vocab] on the CPU.
  at::Tensor log_ranks() const;
  /// m_r.
  int64_t turn(int64_t row) const { return row % turns_ * 40503 % vocab_; }

  /// Fills [rows, vocab] of any float dtype, on any device.
  void fill(at::Tensor logits) const;
  /// One token per row, drawn from it. int64 [rows] on the CPU.
  at::Tensor targets(int64_t rows) const;

 private:
  static size_t level(int64_t row) { return static_cast<size_t>((row * 37) % levels); }
  int64_t token_of(int64_t row, int64_t rank) const;

  int64_t vocab_, turns_, multiplier_, inverse_;
  std::vector<double> entropy_, exponent_;
};

/// What a loss would ask of each row: a in (-1.25, -0.25), b (of an entropy term) in (-0.05, 0.05).
struct Coefficients {
  explicit Coefficients(int64_t rows);
  std::vector<float> a, b;
};

/// A number in [0, 1) of the sequence frac((i + 0.5) * irrational): evenly spread, and the same everywhere.
double spread(int64_t i);

}  // namespace eepo::bench
