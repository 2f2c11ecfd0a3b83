// The parts of a decoder layer that are not matrix products, parallel over rows. Where a sum runs over rows
// (gradients of norms and biases), rows are summed in blocks of fixed size and the blocks in order, so the
// result does not depend on the number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "core/dtype.h"
#include "kernels/blocks_isa.h"

namespace eepo {

/// y = w * x * r, r = (mean(x^2) + eps)^(-1/2); inv receives r ([tokens * groups]) and may be null. In place allowed.
void rms_norm(const float* x, const float* weight, float eps, const NormShape& shape, int64_t tokens, float* y,
              float* inv);

/// dx (+)= r w dy - x r^3/D sum(w dy x);  dweight += sum over tokens of dy x r.
void rms_norm_backward(const float* dy, const float* x, const float* weight, const float* inv, const NormShape& shape,
                       int64_t tokens, bool accumulate, float* dx, float* dweight);

/// out = silu(gate) * up of rows [gate | up], each `width` wide.
void swiglu(const float* gate_up, int64_t width, int64_t tokens, float* out);
void swiglu_backward(const float* gate_up, const float* d_out, int64_t width, int64_t tokens, float* d_gate_up);

/// Rotary embedding in the half-split form of Hugging Face: (x1, x2) -> (x1 c - x2 s, x2 c + x1 s), applied in place to
/// `heads` heads per token; cosine and sine are [positions, head_dim / 2]. `inverse` rotates back (the gradient).
void rope(float* x, int64_t ld, int64_t heads, int64_t head_dim, const int32_t* positions, int64_t tokens,
          const float* cosine, const float* sine, bool inverse);

/// out[t] = table[ids[t]], of a float32 or bfloat16 table; and its gradient, x[rows[r]] += d_out[r] in the order of r.
void embed(const void* table, DType dtype, const int32_t* ids, int64_t tokens, int64_t dim, float* out);
void scatter_add_rows(const float* d_out, const int32_t* rows, int64_t count, int64_t dim, float* x);

/// Every row += bias; and dbias += sum of rows.
void add_bias(float* x, const float* bias, int64_t rows, int64_t cols);
void bias_backward(const float* dx, int64_t rows, int64_t cols, float* dbias);

/// y += x
void add(const float* x, int64_t n, float* y);

/// sum x^2 in double, in a fixed order.
double square_sum(const float* x, int64_t n);

struct AdamW {
  float lr, beta1, beta2, eps, weight_decay;
};
/// One decoupled AdamW step as in PyTorch; `step` counts from 1. The gradient is scaled by grad_scale first.
void adamw(float* param, const float* grad, float* m, float* v, int64_t n, const AdamW& options, int64_t step,
           float grad_scale);

}  // namespace eepo
