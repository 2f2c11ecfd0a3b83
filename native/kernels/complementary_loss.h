// The entropy gate and the complementary unlearning loss of EEPO (Eq. 4-5 and 8-10), with the coefficient
// that token_grad needs, in one pass over the stage-1 tokens.
//
//   Hbar_t = mean(H_t, ..., H_{max(0, t-m+1)})  within one response          (Eq. 5; shorter at its start)
//   I_t    = [Hbar_t < alpha]                                                (Eq. 4; strict)
//   L      = sum_t w_t I_t log(1 - clip(p_t, eL, 1 - eR))                    (Eq. 9-10; w_t = 1 / (|O1| T_k))
//   a_t    = dL/dl_t = -w_t I_t [eL <= p_t <= 1 - eR] p_t / (1 - p_t)        (zero: autograd of clamp)
//          = -w_t I_t pc_t / (1 - pc_t),  pc = clip(p)                       (saturate)
//
// Where a token is clamped, log(1 - clip(p)) is a constant. 1 - p comes from one_minus_p or -expm1(l), never from 1 -
// p. Floor: 8 bytes a token read (12 with one_minus_p), 4 written (5 with gate).
//
// L is ASCENDED (Eq. 11): a < 0, so ascending lowers l. The gate is an indicator: no gradient through H.
#pragma once

#include <cstdint>

namespace eepo {

enum class ClampGrad : uint8_t { Zero, Saturate };
/// Eq. 9, or in its place -log p, which has no clip: a_t = -w_t I_t, the same push for every open token.
enum class TokenLoss : uint8_t { Complementary, Nll };

struct ComplementaryOptions {
  float alpha = 0.3f;  // gate threshold in nats; +inf opens every token
  int window = 3;      // m
  float eps_low = 1e-6f;
  float eps_high = 1e-5f;
  ClampGrad clamp_grad = ClampGrad::Zero;
  TokenLoss loss = TokenLoss::Complementary;
};

struct ComplementaryResult {
  double loss = 0;            // L
  int64_t tokens = 0;         // all tokens seen
  int64_t open_tokens = 0;    // I_t = 1
  int64_t clamped_low = 0;    // open tokens with p < eL
  int64_t clamped_high = 0;   // open tokens with p > 1 - eR
  int64_t active_tokens = 0;  // a_t != 0
};

/// Eq. 4-5 alone: gate[t] = I_t of every token. What a forward pass need not compute is known before it. carry: as
/// below, but read only; may be null.
void entropy_gate(const float* entropy, const int64_t* offsets, int64_t sequences, const float* carry,
                  const ComplementaryOptions& options, uint8_t* gate);

/// All token arrays have `offsets[sequences]` elements; sequence k owns [offsets[k], offsets[k+1]).
/// logprob, entropy: of the sampling distribution, recorded when the token was drawn or recomputed.
/// one_minus_p: may be null; then 1 - p = -expm1(l).
/// weight: [sequences], w of every token of that sequence; null means 1 / (sequences * T_k).
/// carry: null, or [sequences, window - 1] entropies that precede each sequence's first token here, newest
///   first, NaN where there is none: the gate continues across chunks. Updated in place for the next chunk.
///   Pass `weight` then too: a chunk does not know T_k. Gates and a are the same bits for any split into chunks.
/// NaN (or an infinite entropy) throws NonFinite naming the token; a bad option or falling offsets, InvalidArgument.
/// a: [tokens], written. gate: [tokens] of 0/1, may be null.
ComplementaryResult complementary_loss(const float* logprob, const float* entropy, const float* one_minus_p,
                                       const int64_t* offsets, int64_t sequences, const float* weight, float* carry,
                                       const ComplementaryOptions& options, float* a, uint8_t* gate);

}  // namespace eepo
