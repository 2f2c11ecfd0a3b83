// Log-probability, entropy and 1 - p of one target token per row of logits, in one read of the logits.
//
//   z' = z / tau,  m = max_j z'_j,  S = sum_j e^(z'_j - m),  T = sum_j (z'_j - m) e^(z'_j - m)
//   l = (z'_y - m) - ln S          H = ln S - T / S          q = 1 - p_y = sum_{j != y} e^(z'_j - m) / S
//
// The trick: m, S and T are kept per block of a row and merged (online softmax), so no row is read twice
// from memory and nothing of size [rows, vocab] is written. T is summed of shifted logits, so H does not
// cancel; q sums the other tokens, so it is exact where p_y -> 1 and `1 - exp(l)` is not. A logit of -inf
// contributes 0 to all three sums (never 0 * -inf).
//
// Blocks are fixed (2048 columns) and merged in order, in double: a row's result is the same bits whatever the number
// of rows or threads. l and H are within 1e-6 of double (or one unit in the last place of their own size), q within
// 1e-5 relative down to 1e-7. Floor: every logit read once, 12 bytes a row written.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace eepo {

/// A [rows, cols] view of logits; row r starts at data + r * stride elements.
struct LogitsView {
  const void* data;
  DType dtype;  // Float32, BFloat16 or Float16
  int64_t rows, cols, stride;
};

/// Any output may be null. targets[r] in [0, cols) (checked by the caller); targets may be null when
/// logprob and one_minus_p are. temperature > 0. NaN or +inf in a row makes that row's outputs NaN, as does a row of
/// nothing but -inf; a target at -inf in any other row has l = -inf and q = 1.
void token_stats(const LogitsView& logits, const int64_t* targets, float temperature, float* logprob, float* entropy,
                 float* one_minus_p);

/// The plain reference in double precision, written from the equations with two passes.
void token_stats_reference(const LogitsView& logits, const int64_t* targets, double temperature, double* logprob,
                           double* entropy, double* one_minus_p);

}  // namespace eepo
