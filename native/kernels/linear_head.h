// The two kernels above fused with the language-model head, in chunks of rows: logits exist for one chunk
// at a time, never as [tokens, vocab].
//
//   forward:   z = hidden head^T              -> l, H, q
//   backward:  dz from (a, b)                 -> d_hidden = dz head,  d_head += dz^T hidden
//
// Rows whose a and b are both 0 (gate closed, clipped, padding) are dropped before the matrix products. A chunk holds
// about 8 MB of logits, at least 32 rows; the calling thread keeps that scratch memory for the next call. A row's
// statistics and d_hidden do not depend on its chunk; d_head is a sum over rows whose order does.
// Floor: 2 rows dim vocab FLOPs forward, 6 (of the active rows) backward.
#pragma once

#include <cstdint>

#include "core/cancel.h"
#include "kernels/complementary_loss.h"
#include "kernels/gemm.h"

namespace eepo {

/// Both throw Aborted between chunks once `cancel` is set; d_hidden and d_head are then partly written.
/// hidden: [rows, dim] float32, head: [vocab, dim] float32 or bfloat16 (widened on the way, hidden is not rounded);
/// dense. Outputs [rows]; any may be null.
void linear_token_stats(const float* hidden, const GemmB& head, int64_t rows, int64_t dim, int64_t vocab,
                        const int64_t* targets, float temperature, float* logprob, float* entropy, float* one_minus_p,
                        const CancelToken* cancel = nullptr);

/// d_hidden: [rows, dim], overwritten (dropped rows become zeros). d_head: [vocab, dim], ACCUMULATED into.
/// b may be null.
void linear_token_grad(const float* hidden, const GemmB& head, int64_t rows, int64_t dim, int64_t vocab,
                       const int64_t* targets, const float* a, const float* b, float temperature, float* d_hidden,
                       float* d_head, const CancelToken* cancel = nullptr);

/// One pass over the head for the unlearning loss (Eq. 9-10): rows of weight 0 are dropped, the others' statistics,
/// coefficients and gradients are formed chunk by chunk from one product. Outputs as above; logprob and one_minus_p
/// [rows] are NaN where the weight is 0. Floor: 6 dim vocab FLOPs for every row of weight other than 0.
void linear_complementary_grad(const float* hidden, const GemmB& head, int64_t rows, int64_t dim, int64_t vocab,
                               const int64_t* targets, const float* weight, const ComplementaryOptions& options,
                               float temperature, float* logprob, float* one_minus_p, float* d_hidden, float* d_head,
                               const CancelToken* cancel = nullptr);

}  // namespace eepo
