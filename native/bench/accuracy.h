// Errors against float64, on a sample of rows, by libtorch's own operations in double precision.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "bench/workload.h"

namespace eepo::bench {

/// At most `count` rows, spread over all and not in step with anything.
std::vector<int64_t> sample_rows(int64_t rows, int64_t count = 32);

/// float64 of one row: log p of every token, the entropy, and 1 - p of the target.
struct ExactRow {
  at::Tensor log_p;  // [vocab]
  double logprob, entropy, one_minus_p;

  /// `logits`: [vocab], any float dtype.
  ExactRow(const at::Tensor& logits, int64_t target);
  /// dL/dz, [vocab].
  at::Tensor gradient(double a, double b, int64_t target) const;
};

/// |x - exact|, NaN counting as infinite.
double absolute_error(double x, double exact);
double relative_error(double x, double exact);
/// max |x - exact|, any dtypes, one shape.
double absolute_error(const at::Tensor& x, const at::Tensor& exact);
/// max |x - exact| / max |exact|, any dtypes, one shape.
double relative_error(const at::Tensor& x, const at::Tensor& exact);
/// max (|x - exact| / max(|exact|, least)).
double elementwise_error(const at::Tensor& x, const at::Tensor& exact, double least = 1e-30);

/// errors[name] = max(errors[name], error).
void raise(Errors& errors, const char* name, double error);

}  // namespace eepo::bench
