// Inside token_grad: the sweeps over one block of logits. With an entropy term the gradient is formed from the logits
// again (grad_block). Without one, dz_j is e^((z_j - reference)/tau) times a number of the block's: the summing sweep
// leaves the exponentials of float32 logits in their place (keep_block), and the writing sweep multiplies
// (scale_block).
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/isa.h"
#include "kernels/token_stats_blocks.h"

namespace eepo {

/// dz_j = e^((z_j - max)/tau) (constant + slope (z_j - max)): the formula of token_grad.h for j != y with
///   constant = -(a - b T/S) / (tau S),  slope = -b / (tau^2 S)
struct GradientLine {
  float max, constant, slope;
};

/// While a row's gradient is written over its exponentials the memory would be idle: so much of the next row is
/// fetched, and no more, lest it drive out what is not yet written.
inline constexpr int64_t kFetchedPart = 4;

// Compiled once per instruction set (token_grad_isa.cc). Overwrites `count` logits, none above line.max. `near`: none
// is scale.ceiling or more below it either.
//
// max_block: the maximum of `count` logits, NaN left aside; -inf if there is none.
//
// keep_block: overwrites `count` logits by e^((z - max)/tau), 0 of -inf, all divided by one number near 1, and returns
// their sum (not divided) and, in place of T, that number. `max` is `reference`, or the block's maximum where the
// reference is -inf or some 20 nats or more below that maximum. +inf and NaN make the sum NaN. No logit may be needed
// afterwards.
//
// scale_block: multiplies `count` floats by `factor`; meanwhile fetches a kFetchedPart-th as many from `next` on into
// the second-level cache, unless it is null.
EEPO_ISA_DECLARE(void grad_block(void* block, DType dtype, int64_t count, const ExpScale& scale,
                                 const GradientLine& line, bool near);
                 float max_block(const float* block, int64_t count);
                 BlockSums keep_block(float* block, int64_t count, const ExpScale& scale, float reference);
                 void scale_block(float* block, int64_t count, float factor, const void* next))

}  // namespace eepo
