// What the kernels of a head should give, in float64: the products in pieces of the vocabulary, by libtorch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace eepo::bench {

class HeadReference {
 public:
  /// hidden [rows, dim], head [vocab, dim], targets [rows]; `index`: the rows to compute, int64 [n].
  HeadReference(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets, at::Tensor index);

  /// float64, [n].
  at::Tensor logprob, entropy, one_minus_p;
  at::Tensor index;

  /// Gradients for coefficients a and b, float64 [n]: d_hidden [n, dim], and of d_head the rows `columns` (int64 [c]),
  /// summed over the n rows.
  struct Gradients {
    at::Tensor d_hidden, d_head;
  };
  Gradients gradients(const at::Tensor& a, const at::Tensor& b, const at::Tensor& columns) const;

 private:
  /// dL/dz of the tokens `first`, ... whose head rows these are, without the target's own term.
  at::Tensor common_gradient(const at::Tensor& head_rows, const at::Tensor& a, const at::Tensor& b) const;

  at::Tensor hidden_, head_, targets_;  // of the n rows, hidden in float64
  at::Tensor log_sum_;
};

}  // namespace eepo::bench
