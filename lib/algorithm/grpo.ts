/** GRPO (Eq. 2-3) on the (a, b) interface. */
import { InvalidArgumentError } from '../errors.js';
import { checkOptions, type OptionKeys } from '../options.js';
import { MetricAccumulator } from './accumulator.js';
import { advantageOf, checkBatch, checkTokens, tokenWeight } from './batch.js';
import { k3 } from './kl.js';
import type { Aggregation, Normalizer, Objective, ObjectiveResult, RatioMode, TokenBatch } from './types.js';

export interface GrpoOptions {
  /** The ratio is clipped to [1 - clipLow, 1 + clipHigh]. Default 0.2 (not given in the paper). */
  clipLow?: number;
  /** Default 0.2; DAPO's clip-higher is 0.28. */
  clipHigh?: number;
  /** beta of Eq. 2. Default 1e-4 (the paper's). 0 needs no `refLogprob`. */
  klCoef?: number;
  /** lambda: the loss falls by lambda times the entropy. Default 1e-5 (the paper's). */
  entropyCoef?: number;
  /** Default 'token-mean', Eq. 2 over the mini-batch. */
  aggregation?: Aggregation;
  /**
   * The denominator of Eq. 3.
   * 'behavior' (default, the paper): pi that drew the token, theta for stage 1 and theta' for stage 2.
   * 'policy': theta_k for every token, recomputed before the first update (what a naive port does; biased on stage 2).
   * 'decoupled': the ratio and its clip are around theta_k, and the token counts min(pi_theta_k / pi_behavior, cap) times.
   */
  ratio?: RatioMode;
  /** `cap` of 'decoupled'. Default 2. */
  decoupledCap?: number;
}

const KEYS: OptionKeys<GrpoOptions> = {
  clipLow: true,
  clipHigh: true,
  klCoef: true,
  entropyCoef: true,
  aggregation: true,
  ratio: true,
  decoupledCap: true,
};

/** Log-ratios are clamped to +-20 before exp, so that no float overflows; there the gradient is 0. */
const MAX_LOG_RATIO = 20;

/**
 * The loss that GRPO minimizes:
 *
 *     L = sum_t w_t [ -c_t min(r_t A_t, clip(r_t, 1 - clipLow, 1 + clipHigh) A_t) + beta k3_t - lambda H_t ]
 *     r_t = exp(l_t - l_old_t),  c_t = 1 (or the capped weight of 'decoupled'),  w_t by `aggregation`
 *     a_t = w_t ( -c_t A_t r_t [not clipped] + beta dk3/dl ),  b_t = -w_t lambda
 *
 * A token is clipped when A > 0 and r > 1 + clipHigh, or A < 0 and r < 1 - clipLow (strictly). NaN in `logprob` reaches
 * `loss` and `a`, so the optimizer step is refused instead of something being hidden here.
 *
 * Metrics (S is 1 or 2): `actor/loss`, `actor/pg_loss`, `actor/kl_loss`, `actor/kl` and `actor/entropy` (token means),
 * `actor/clip_frac`, `actor/ratio/stageS/mean`, `.../max`, `actor/clip_frac/stageS`, `actor/clip_frac/stageS/positive` and
 * `.../negative` (of the tokens whose advantage has that sign), `actor/pg_loss/stageS`, `actor/kl/stageS`,
 * `actor/entropy/stageS` (token means); with 'decoupled' also `actor/decoupled_weight/stageS`.
 */
export function grpoLoss(batch: TokenBatch, normalizer: Normalizer, options: GrpoOptions = {}): ObjectiveResult {
  const { clipLow, clipHigh, klCoef, entropyCoef, aggregation, ratio, decoupledCap } = withDefaults(options);
  checkBatch(batch, normalizer);
  const { logprob, entropy, offsets } = batch;
  const tokens = logprob.length;
  const old = denominator(batch, ratio);
  const correction = ratio === 'decoupled' ? capped(batch, decoupledCap) : null;
  const reference = referenceLogprob(batch, klCoef);
  const advantageAt = advantageOf(batch);

  const a = new Float32Array(tokens);
  const b = new Float32Array(tokens);
  const stages = [newTally(), newTally()] as const;
  const total = { pg: 0, kl: 0, entropy: 0 };
  for (let k = 0; k + 1 < offsets.length; k += 1) {
    const begin = offsets[k] as number;
    const end = offsets[k + 1] as number;
    const w = tokenWeight(aggregation, normalizer, end - begin);
    const tally = stages[(batch.stage[k] as number) - 1] as Tally;
    for (let t = begin; t < end; t += 1) {
      const l = logprob[t] as number;
      const h = entropy[t] as number;
      const advantage = advantageAt(t, k);
      const c = correction === null ? 1 : (correction[t] as number);
      const token = surrogate(l - (old[t] as number), advantage, clipLow, clipHigh);
      const kl = reference === null ? NO_KL : k3(l, reference[t] as number);
      a[t] = w * (c * token.gradient + klCoef * kl.gradient);
      b[t] = -w * entropyCoef;
      total.pg += w * c * token.loss;
      total.kl += w * kl.value;
      total.entropy += w * h;
      count(tally, token, advantage, c, kl.value, h);
    }
  }
  const loss = total.pg + klCoef * total.kl - entropyCoef * total.entropy;
  const share = normalizer.tokens > 0 ? tokens / normalizer.tokens : 0;
  return {
    loss,
    a,
    b,
    metrics: metricsOf(stages, share, loss, total, klCoef, reference !== null, correction !== null),
  };
}

/** `grpoLoss` with its options bound, checked once. */
export function grpo(options: GrpoOptions = {}): Objective {
  withDefaults(options);
  return (batch, normalizer) => grpoLoss(batch, normalizer, options);
}

interface TokenTerm {
  ratio: number;
  loss: number;
  gradient: number;
  clipped: boolean;
}

/** -min(r A, clip(r) A) of one token with its derivative by l. */
function surrogate(logRatio: number, advantage: number, clipLow: number, clipHigh: number): TokenTerm {
  const ratio = Math.exp(Math.min(Math.max(logRatio, -MAX_LOG_RATIO), MAX_LOG_RATIO));
  const clipped = (advantage > 0 && ratio > 1 + clipHigh) || (advantage < 0 && ratio < 1 - clipLow);
  if (clipped) {
    return { ratio, loss: -advantage * (advantage > 0 ? 1 + clipHigh : 1 - clipLow), gradient: 0, clipped };
  }
  const saturated = Math.abs(logRatio) > MAX_LOG_RATIO;
  return { ratio, loss: -advantage * ratio, gradient: saturated ? 0 : -advantage * ratio, clipped };
}

const NO_KL = { value: 0, gradient: 0 } as const;

function denominator(batch: TokenBatch, ratio: RatioMode): Float32Array {
  const tokens = batch.logprob.length;
  if (ratio !== 'policy') checkTokens('behaviorLogprob', batch.behaviorLogprob, tokens);
  if (ratio === 'behavior') return batch.behaviorLogprob;
  const policy = batch.policyLogprob;
  checkTokens('policyLogprob', policy, tokens, `: ratio '${ratio}' needs the log-probs under theta_k`);
  return policy;
}

/** min(pi_theta_k / pi_behavior, cap): a constant, no gradient flows through it. */
function capped(batch: TokenBatch, cap: number): Float64Array {
  const policy = batch.policyLogprob as Float32Array;
  return Float64Array.from(policy, (l, t) => Math.min(Math.exp(l - (batch.behaviorLogprob[t] as number)), cap));
}

function referenceLogprob(batch: TokenBatch, klCoef: number): Float32Array | null {
  const reference = batch.refLogprob ?? null;
  if (reference === null && klCoef === 0) return null;
  checkTokens('refLogprob', reference, batch.logprob.length, `: klCoef ${klCoef} needs a reference model`);
  return reference;
}

function withDefaults(options: GrpoOptions): Required<GrpoOptions> {
  checkOptions(options, KEYS, 'grpo');
  const full = {
    clipLow: options.clipLow ?? 0.2,
    clipHigh: options.clipHigh ?? 0.2,
    klCoef: options.klCoef ?? 1e-4,
    entropyCoef: options.entropyCoef ?? 1e-5,
    aggregation: options.aggregation ?? 'token-mean',
    ratio: options.ratio ?? 'behavior',
    decoupledCap: options.decoupledCap ?? 2,
  };
  for (const key of ['clipLow', 'clipHigh', 'klCoef', 'entropyCoef'] as const) {
    if (!(full[key] >= 0)) throw new InvalidArgumentError(`${key} must not be negative, got ${full[key]}`);
  }
  if (full.clipLow >= 1) throw new InvalidArgumentError(`clipLow must be below 1, got ${full.clipLow}`);
  if (!(full.decoupledCap > 0))
    throw new InvalidArgumentError(`decoupledCap must be positive, got ${full.decoupledCap}`);
  if (!['behavior', 'policy', 'decoupled'].includes(full.ratio)) {
    throw new InvalidArgumentError(`ratio must be 'behavior', 'policy' or 'decoupled', got '${full.ratio}'`);
  }
  tokenWeight(full.aggregation, { tokens: 1, sequences: 1 }, 1);
  return full;
}

interface Tally {
  tokens: number;
  ratio: number;
  maxRatio: number;
  clipped: number;
  positive: number;
  clippedPositive: number;
  negative: number;
  clippedNegative: number;
  pg: number;
  kl: number;
  entropy: number;
  correction: number;
}

function newTally(): Tally {
  return {
    tokens: 0,
    ratio: 0,
    maxRatio: 0,
    clipped: 0,
    positive: 0,
    clippedPositive: 0,
    negative: 0,
    clippedNegative: 0,
    pg: 0,
    kl: 0,
    entropy: 0,
    correction: 0,
  };
}

function count(tally: Tally, token: TokenTerm, advantage: number, c: number, kl: number, entropy: number): void {
  tally.tokens += 1;
  tally.ratio += token.ratio;
  tally.maxRatio = Math.max(tally.maxRatio, token.ratio);
  tally.pg += c * token.loss;
  tally.kl += kl;
  tally.entropy += entropy;
  tally.correction += c;
  if (token.clipped) tally.clipped += 1;
  if (advantage > 0) {
    tally.positive += 1;
    if (token.clipped) tally.clippedPositive += 1;
  } else if (advantage < 0) {
    tally.negative += 1;
    if (token.clipped) tally.clippedNegative += 1;
  }
}

function metricsOf(
  stages: readonly Tally[],
  share: number,
  loss: number,
  total: { pg: number; kl: number },
  klCoef: number,
  withKl: boolean,
  withCorrection: boolean,
): MetricAccumulator {
  const metrics = new MetricAccumulator();
  // These are sums over the mini-batch already: the counts of its micro-batches add up to 1.
  metrics.addMean('actor/loss', loss, share);
  metrics.addMean('actor/pg_loss', total.pg, share);
  if (withKl) metrics.addMean('actor/kl_loss', klCoef * total.kl, share);
  stages.forEach((tally, index) => {
    if (tally.tokens === 0) return;
    const stage = `stage${index + 1}`;
    metrics.addMean('actor/entropy', tally.entropy, tally.tokens);
    if (withKl) metrics.addMean('actor/kl', tally.kl, tally.tokens);
    metrics.addMean('actor/clip_frac', tally.clipped, tally.tokens);
    metrics.addMean(`actor/ratio/${stage}/mean`, tally.ratio, tally.tokens);
    metrics.addMax(`actor/ratio/${stage}/max`, tally.maxRatio);
    metrics.addMean(`actor/clip_frac/${stage}`, tally.clipped, tally.tokens);
    metrics.addMean(`actor/clip_frac/${stage}/positive`, tally.clippedPositive, tally.positive);
    metrics.addMean(`actor/clip_frac/${stage}/negative`, tally.clippedNegative, tally.negative);
    metrics.addMean(`actor/pg_loss/${stage}`, tally.pg, tally.tokens);
    if (withKl) metrics.addMean(`actor/kl/${stage}`, tally.kl, tally.tokens);
    metrics.addMean(`actor/entropy/${stage}`, tally.entropy, tally.tokens);
    if (withCorrection) metrics.addMean(`actor/decoupled_weight/${stage}`, tally.correction, tally.tokens);
  });
  return metrics;
}
