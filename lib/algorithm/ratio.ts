/** Importance ratios: what they are against, of a token or of its sequence, and the weights that correct for the rest. */
import { checkTokens, keptLengths } from './batch.js';
import type { RatioLevel, RatioMode, TokenBatch } from './types.js';

/** As `MAX_LOG_RATIO` of the surrogates: no float overflows. */
const MAX_LOG_WEIGHT = 20;

/**
 * log r of every token: l_t - l_old_t, where l_old is the log-prob under what `mode` says.
 *
 * With level 'sequence' it is the logarithm of GSPO's ratio (arXiv 2507.18071, Eq. 7), one for all tokens of a response:
 *
 *     s_k = (pi_theta(o_k) / pi_old(o_k))^(1/T_k) = exp(1/T_k sum_t (l_t - l_old_t))
 *
 * Its gradient is spread over the tokens as GSPO-token does (Eq. 13-14): s_kt = sg(s_k) pi(o_t) / sg(pi(o_t)) has the
 * value s_k and d s_kt / d l_t = s_k. Where all tokens of a response have one advantage and one weight that is the
 * gradient of the loss of s_k itself, because d s_k / d l_t = s_k / T_k.
 *
 * Masked tokens have no part in it.
 */
export function logRatios(batch: TokenBatch, mode: RatioMode, level: RatioLevel): Float64Array {
  const { logprob, offsets } = batch;
  const old = denominator(batch, mode);
  const ratios = Float64Array.from(logprob, (l, t) => l - (old[t] as number));
  if (level === 'token') return ratios;
  const lengths = keptLengths(batch);
  const sums = sequenceSums(batch, ratios);
  for (let k = 0; k < lengths.length; k += 1) {
    ratios.fill((sums[k] as number) / (lengths[k] as number), offsets[k] as number, offsets[k + 1] as number);
  }
  return ratios;
}

/**
 * Truncated importance sampling (Yao et al. 2025): min(pi_theta_k / pi_behavior, cap), a constant, no gradient flows through
 * it. Of a token; or, with level 'sequence', the product over the tokens of its response (verl's and TRL's 'sequence').
 */
export function truncatedWeights(batch: TokenBatch, cap: number, level: RatioLevel): Float64Array {
  const { offsets, behaviorLogprob } = batch;
  const policy = batch.policyLogprob as Float32Array;
  const logWeights = Float64Array.from(policy, (l, t) => l - (behaviorLogprob[t] as number));
  const truncated = (logWeight: number): number => Math.min(Math.exp(logWeight), cap);
  if (level === 'token') return logWeights.map(truncated);
  const sums = sequenceSums(batch, logWeights);
  for (let k = 0; k < sums.length; k += 1) {
    const bounded = Math.min(Math.max(sums[k] as number, -MAX_LOG_WEIGHT), MAX_LOG_WEIGHT);
    logWeights.fill(truncated(bounded), offsets[k] as number, offsets[k + 1] as number);
  }
  return logWeights;
}

function sequenceSums({ offsets, mask = null }: TokenBatch, values: Float64Array): Float64Array {
  return Float64Array.from({ length: offsets.length - 1 }, (_, k) => {
    let sum = 0;
    for (let t = offsets[k] as number; t < (offsets[k + 1] as number); t += 1) {
      if (mask === null || mask[t] !== 0) sum += values[t] as number;
    }
    return sum;
  });
}

function denominator(batch: TokenBatch, ratio: RatioMode): Float32Array {
  const tokens = batch.logprob.length;
  if (ratio !== 'policy') checkTokens('behaviorLogprob', batch.behaviorLogprob, tokens);
  if (ratio === 'behavior') return batch.behaviorLogprob;
  const policy = batch.policyLogprob;
  checkTokens('policyLogprob', policy, tokens, `: ratio '${ratio}' needs the log-probs under theta_k`);
  return policy;
}
