// Row kernels of a decoder layer, one copy per instruction set; blocks.cc parallelizes them over rows.
#pragma once

#include <cstdint>

#include "core/isa.h"

namespace eepo {

/// A token's row holds `groups` vectors of `dim` floats side by side (1 for a layer norm, the number of heads for
/// QK-norm); `ld` is the distance between tokens.
struct NormShape {
  int64_t groups, dim, ld_in, ld_out;
};

/// One key-value head of one sequence in the cache: keys and values transposed, [head_dim, capacity] each.
struct CacheSlice {
  const float* keys;
  const float* values;
  int64_t length, capacity;
};

// clang-format off
EEPO_ISA_DECLARE(
  void rms_norm_rows(const float* x, const float* weight, float eps, const NormShape& shape, int64_t begin, int64_t end, float* y, float* inv);
  void rms_norm_backward_rows(const float* dy, const float* x, const float* weight, const float* inv, const NormShape& shape, int64_t begin, int64_t end, bool accumulate, float* dx, float* dweight);
  void swiglu_rows(const float* gate_up, int64_t width, int64_t begin, int64_t end, float* out);
  void swiglu_backward_rows(const float* gate_up, const float* d_out, int64_t width, int64_t begin, int64_t end, float* d_gate_up);
  void softmax_columns(float* scores, int64_t keys, int64_t diagonal, int64_t ld, float* lse);
  void probability_columns(float* scores, int64_t keys, int64_t diagonal, int64_t ld, const float* lse);
  void softmax_backward_columns(const float* p, float* dp, const float* delta, int64_t keys, int64_t ld);
  void decode_head(const float* q, int64_t head_dim, float scale, const CacheSlice* slices, int slice_count, float* scratch, float* out);
  void adamw_range(float* param, const float* grad, float* m, float* v, int64_t begin, int64_t end, float grad_scale, float lr, float beta1, float beta2, float eps, float weight_decay, float bias1, float bias2);
  double square_sum_range(const float* x, int64_t begin, int64_t end);
  void add_range(const float* x, int64_t begin, int64_t end, float* y)
)
// clang-format on

}  // namespace eepo
