// Inside token_grad: the sweep that writes the gradient over one block of logits.
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

// Compiled once per instruction set (token_grad_isa.cc). Overwrites `count` logits, none above line.max. `near`: none
// is scale.ceiling or more below it either.
EEPO_ISA_DECLARE(void grad_block(void* block, DType dtype, int64_t count, const ExpScale& scale,
                                 const GradientLine& line, bool near))

}  // namespace eepo
