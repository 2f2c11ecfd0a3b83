// Draw one token per row of logits, with its log-probability and the row's entropy, from one pass.
//
// Block-CDF: the online-softmax pass of token_stats keeps each block's (max, sum); ONE uniform per row picks a
// block by prefix sum, and only that block is re-read to find the token. Exact inverse-CDF sampling, one exp
// per element, one random number per row. The uniform is Philox(seed, counter of the row), so the draw depends
// on neither batch nor threads.
//
// temperature 0 is greedy: the first index of the maximum; its log-prob and entropy are those at temperature 1.
// top_k (0 = off) keeps the k largest logits, ties broken towards the lower index; top_p (1 = off) then keeps the
// smallest set of most probable of those whose share of their mass reaches top_p (always at least one). `logprob` and
// `entropy` are always those of the FULL distribution at `temperature`, which is what an importance ratio needs (see
// docs/decisions.md), and the same bits as token_stats gives for that token. A token of probability 0 is never drawn.
// Floor: every logit read once (a few times with top_k or top_p), 16 bytes a row written.
#pragma once

#include <cstdint>

#include "core/philox.h"
#include "kernels/token_stats.h"

namespace eepo {

struct SampleOptions {
  float temperature = 1.0f;
  int64_t top_k = 0;
  float top_p = 1.0f;
  uint64_t seed = 0;
};

/// counters: [rows]. token: [rows]. logprob, entropy: [rows], may be null.
/// A row with NaN, +inf or no finite logit throws NonFinite naming the (first such) row; its token is then -1, its
/// statistics NaN, and the other rows are drawn all the same. temperature < 0, top_k < 0 or top_p outside (0, 1] throws
/// InvalidArgument.
void sample(const LogitsView& logits, const SampleOptions& options, const PhiloxCounter* counters, int64_t* token,
            float* logprob, float* entropy);

/// The plain reference: softmax in double, sequential inverse CDF of the same uniform.
void sample_reference(const LogitsView& logits, const SampleOptions& options, const PhiloxCounter* counters,
                      int64_t* token, double* logprob, double* entropy);

}  // namespace eepo
