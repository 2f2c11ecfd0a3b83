// The gradient of any loss that sees a row of logits only through l = log p_y and the entropy H.
// With a = dL/dl and b = dL/dH, and p = softmax(z / tau):
//
//   dL/dz_j = (1/tau) [ a 1[j=y] - p_j (a + b (log p_j + H)) ]
//
// written over the logits, row by row (one read and one write). Rows with a = b = 0 become zeros without
// being read. The target's own entry is formed from q = 1 - p_y, not from p_y - 1, which cancels.
// Floor: every logit read once and written once (the second look finds the row in the cache).
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/complementary_loss.h"

namespace eepo {

struct MutableLogitsView {
  void* data;
  DType dtype;
  int64_t rows, cols, stride;
};

/// a, b: [rows]; b may be null (all zero). Overwrites `logits` with the gradient in its dtype. targets[r] in [0, cols)
/// where a or b is not 0, not read elsewhere. temperature > 0. A row with NaN, +inf or no finite logit becomes NaN.
void token_grad(const MutableLogitsView& logits, const int64_t* targets, const float* a, const float* b,
                float temperature);

/// The unlearning loss as the rule that gives every row its a (Eq. 9-10), so that statistics, coefficients and gradient
/// come out of one read and one write. The gate is decided already, by entropies recorded when the tokens were drawn.
struct ComplementaryRows {
  const float* weight;           // w_t I_t, [rows]; 0 (gate closed, padding): zeros are written, nothing is read
  ComplementaryOptions options;  // eps_low, eps_high, clamp_grad
  float* logprob;                // l and 1 - p of the rows of weight other than 0, NaN elsewhere; [rows], may be null
  float* one_minus_p;
};

/// token_grad with a = complementary_coefficient(weight, p, 1 - p) and b = 0.
void complementary_grad(const MutableLogitsView& logits, const int64_t* targets, const ComplementaryRows& rows,
                        float temperature);

/// The plain reference: reads `logits` (not overwritten), writes double [rows, cols] densely into `gradient`.
void token_grad_reference(const MutableLogitsView& logits, const int64_t* targets, const double* a, const double* b,
                          double temperature, double* gradient);

}  // namespace eepo
