/** Supervised negative log-likelihood on the (a, b) interface. */
import { checkOptions, type OptionKeys } from '../options.js';
import { MetricAccumulator } from './accumulator.js';
import { advantageOf, checkBatch, keptLengths, tokenWeight } from './batch.js';
import type { Aggregation, Normalizer, Objective, ObjectiveResult, TokenBatch } from './types.js';

export interface NllOptions {
  /** Default 'token-mean'. */
  aggregation?: Aggregation;
}

const KEYS: OptionKeys<NllOptions> = { aggregation: true };

/**
 * L = -sum_t w_t A_t l_t with `advantage` as the weight A of a token or sequence (all ones for plain SFT):
 * a_t = -w_t A_t, b = 0. Metrics: `sft/loss` (over the mini-batch) and `sft/entropy` (token mean).
 */
export function nllLoss(batch: TokenBatch, normalizer: Normalizer, options: NllOptions = {}): ObjectiveResult {
  checkOptions(options, KEYS, 'nll');
  const { aggregation = 'token-mean' } = options;
  checkBatch(batch, normalizer);
  const { logprob, entropy, offsets, mask = null } = batch;
  const tokens = logprob.length;
  const lengths = keptLengths(batch);
  const weightAt = advantageOf(batch);
  const a = new Float32Array(tokens);
  let kept = 0;
  let loss = 0;
  let entropySum = 0;
  for (let k = 0; k + 1 < offsets.length; k += 1) {
    const begin = offsets[k] as number;
    const end = offsets[k + 1] as number;
    const w = tokenWeight(aggregation, normalizer, lengths[k] as number);
    for (let t = begin; t < end; t += 1) {
      if (mask !== null && mask[t] === 0) continue;
      const weight = w * weightAt(t, k);
      // A weight of 0 masks the token, whatever its log-prob.
      if (weight !== 0) loss -= weight * (logprob[t] as number);
      a[t] = -weight;
      entropySum += entropy[t] as number;
      kept += 1;
    }
  }
  const metrics = new MetricAccumulator();
  metrics.addMean('sft/loss', loss, normalizer.tokens > 0 ? kept / normalizer.tokens : 0);
  metrics.addMean('sft/entropy', entropySum, kept);
  return { loss, a, b: new Float32Array(tokens), metrics };
}

/** `nllLoss` with its options bound. */
export function nll(options: NllOptions = {}): Objective {
  checkOptions(options, KEYS, 'nll');
  return (batch, normalizer) => nllLoss(batch, normalizer, options);
}
