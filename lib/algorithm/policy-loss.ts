/** A surrogate, an aggregation and penalties, put together: every policy loss on the (a, b) interface. */
import { InvalidArgumentError } from '../errors.js';
import { checkOptions, type OptionKeys } from '../options.js';
import { advantageOf, checkBatch, checkTokens, keptLengths, tokenWeight } from './batch.js';
import { KL_ESTIMATORS, type KlEstimator } from './kl.js';
import { count, newTally, policyMetrics, type Tally } from './policy-metrics.js';
import { logRatios, truncatedWeights } from './ratio.js';
import { type ClipRange, cispoSurrogate, clippedSurrogate, SURROGATES, type SurrogateName } from './surrogate.js';
import {
  AGGREGATIONS,
  type Aggregation,
  LEVELS,
  type Normalizer,
  type Objective,
  type ObjectiveResult,
  RATIO_MODES,
  type RatioLevel,
  type RatioMode,
  type TokenBatch,
} from './types.js';

/** Of `grpo`, `drGrpo`, `dapo`, `gspo` and `cispo`, which differ in their defaults; those named here are grpo's. */
export interface PolicyLossOptions {
  /** 'ppo' (default): the clipped surrogate of Eq. 2. 'cispo': the clipped ratio as a weight of the log-prob. */
  surrogate?: SurrogateName;
  /** The ratio is clipped to [1 - clipLow, 1 + clipHigh]. Default 0.2 (not given in the paper); 1 = no lower bound. */
  clipLow?: number;
  /** Default 0.2; DAPO's clip-higher is 0.28. */
  clipHigh?: number;
  /** clipHigh of stage-2 tokens. Default null: the same. */
  clipHighStage2?: number | null;
  /** c of the dual clip, above 1: a token with A < 0 costs at most c |A| (verl's clip_ratio_c). Default null: none. */
  dualClip?: number | null;
  /** beta of Eq. 2. Default 1e-4 (the paper's). 0 needs no `refLogprob`. */
  klCoef?: number;
  /** Default 'k3'. What the gradient of each is: lib/algorithm/kl.ts, docs/objectives.md. */
  klEstimator?: KlEstimator;
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
  /** 'token' (default): Eq. 3. 'sequence': one ratio for all tokens of a response, as in GSPO. */
  ratioLevel?: RatioLevel;
  /** `cap` of 'decoupled'. Default 2. */
  decoupledCap?: number;
  /** Whether the weight of 'decoupled' is one of a token (default) or one of a response, the product over its tokens. */
  decoupledLevel?: RatioLevel;
  /** Every stage-2 token counts so many times in the loss, all of its terms. The normalizer stays. Default 1. */
  stage2Weight?: number;
}

const KEYS: OptionKeys<PolicyLossOptions> = {
  surrogate: true,
  clipLow: true,
  clipHigh: true,
  clipHighStage2: true,
  dualClip: true,
  klCoef: true,
  klEstimator: true,
  entropyCoef: true,
  aggregation: true,
  ratio: true,
  ratioLevel: true,
  decoupledCap: true,
  decoupledLevel: true,
  stage2Weight: true,
};

/** A policy loss with every option decided. */
export type PolicyLoss = Required<PolicyLossOptions>;

/**
 * Fills in what is left out.
 *
 * @param name - the function that was called, for messages
 * @throws InvalidArgumentError naming the option
 */
export function completeOptions(options: PolicyLossOptions, defaults: PolicyLoss, name: string): PolicyLoss {
  checkOptions(options, KEYS, name);
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const full: PolicyLoss = { ...defaults, ...given };
  for (const key of ['clipLow', 'clipHigh', 'klCoef', 'entropyCoef', 'stage2Weight'] as const) {
    if (!(full[key] >= 0)) throw new InvalidArgumentError(`${key} must not be negative, got ${full[key]}`);
  }
  if (full.clipLow > 1) throw new InvalidArgumentError(`clipLow must be at most 1, got ${full.clipLow}`);
  if (full.clipHighStage2 !== null && !(full.clipHighStage2 >= 0)) {
    throw new InvalidArgumentError(`clipHighStage2 must not be negative, got ${full.clipHighStage2}`);
  }
  if (full.dualClip !== null && !(full.dualClip > 1)) {
    throw new InvalidArgumentError(`dualClip must be above 1, got ${full.dualClip}`);
  }
  if (!(full.decoupledCap > 0))
    throw new InvalidArgumentError(`decoupledCap must be positive, got ${full.decoupledCap}`);
  checkChoices(full);
  if (full.surrogate === 'cispo' && full.dualClip !== null) {
    throw new InvalidArgumentError(`dualClip = ${full.dualClip} bounds the clipped surrogate; 'cispo' has none`);
  }
  return full;
}

function checkChoices(full: PolicyLoss): void {
  const choices = {
    surrogate: SURROGATES,
    klEstimator: Object.keys(KL_ESTIMATORS),
    aggregation: AGGREGATIONS,
    ratio: RATIO_MODES,
    ratioLevel: LEVELS,
    decoupledLevel: LEVELS,
  } as const;
  for (const [key, values] of Object.entries(choices)) {
    const value = full[key as keyof typeof choices];
    if ((values as readonly string[]).includes(value)) continue;
    const all = values.map((name) => `'${name}'`);
    throw new InvalidArgumentError(`${key} must be ${all.slice(0, -1).join(', ')} or ${all.at(-1)}, got '${value}'`);
  }
}

/** A function of a micro-batch whose options have been checked. */
export const bound =
  (loss: PolicyLoss): Objective =>
  (batch, normalizer) =>
    policyLoss(batch, normalizer, loss);

/**
 * The loss that is minimized:
 *
 *     L = sum_t w_t [ c_t s_t + beta kl_t - lambda H_t ]
 *     a_t = w_t (c_t ds_t/dl_t + beta dkl_t/dl_t),  b_t = -w_t lambda
 *
 * with the surrogate s_t, the weight w_t of the aggregation (times `stage2Weight` in stage 2) and c_t = 1, or the truncated
 * weight of 'decoupled'. NaN in `logprob` reaches `loss` and `a`, so the optimizer step is refused instead of something
 * being hidden here. A masked token has a = b = 0 and is in no sum.
 *
 * Metrics (S is 1 or 2): `actor/loss`, `actor/pg_loss`, `actor/kl_loss`, `actor/kl` and `actor/entropy` (token means),
 * `actor/clip_frac`, `actor/ratio/stageS/mean`, `.../max`, `actor/clip_frac/stageS`, `actor/clip_frac/stageS/positive` and
 * `.../negative` (of the tokens whose advantage has that sign), `actor/pg_loss/stageS`, `actor/kl/stageS`,
 * `actor/entropy/stageS` (token means); with 'decoupled' also `actor/decoupled_weight/stageS`, with a dual clip
 * `actor/dual_clip_frac/stageS`.
 */
export function policyLoss(batch: TokenBatch, normalizer: Normalizer, options: PolicyLoss): ObjectiveResult {
  checkBatch(batch, normalizer);
  const { klCoef, entropyCoef, stage2Weight } = options;
  const { logprob, entropy, offsets, mask = null } = batch;
  const tokens = logprob.length;
  const logRatio = logRatios(batch, options.ratio, options.ratioLevel);
  const correction =
    options.ratio === 'decoupled' ? truncatedWeights(batch, options.decoupledCap, options.decoupledLevel) : null;
  const reference = referenceLogprob(batch, klCoef);
  const klOf = KL_ESTIMATORS[options.klEstimator];
  const advantageAt = advantageOf(batch);
  const surrogate = options.surrogate === 'cispo' ? cispoSurrogate : clippedSurrogate;
  const ranges = clipRanges(options);
  const lengths = keptLengths(batch);

  const a = new Float32Array(tokens);
  const b = new Float32Array(tokens);
  const stages = [newTally(), newTally()] as const;
  const total = { pg: 0, kl: 0, entropy: 0 };
  for (let k = 0; k + 1 < offsets.length; k += 1) {
    const stage = (batch.stage[k] as number) - 1;
    const weight = tokenWeight(options.aggregation, normalizer, lengths[k] as number);
    const w = stage === 1 ? weight * stage2Weight : weight;
    const tally = stages[stage] as Tally;
    const range = ranges[stage] as ClipRange;
    for (let t = offsets[k] as number; t < (offsets[k + 1] as number); t += 1) {
      if (mask !== null && mask[t] === 0) continue;
      const l = logprob[t] as number;
      const h = entropy[t] as number;
      const advantage = advantageAt(t, k);
      const c = correction === null ? 1 : (correction[t] as number);
      const token = surrogate(logRatio[t] as number, advantage, range, l);
      const kl = reference === null ? NO_KL : klOf(l, reference[t] as number);
      a[t] = w * (c * token.gradient + klCoef * kl.gradient);
      b[t] = -w * entropyCoef;
      total.pg += w * c * token.loss;
      total.kl += w * kl.value;
      total.entropy += w * h;
      count(tally, token, advantage, c, kl.value, h);
    }
  }
  const loss = total.pg + klCoef * total.kl - entropyCoef * total.entropy;
  const share = normalizer.tokens > 0 ? stages.reduce((sum, tally) => sum + tally.tokens, 0) / normalizer.tokens : 0;
  const metrics = policyMetrics(
    stages,
    share,
    { loss, pg: total.pg, kl: total.kl },
    {
      klCoef: reference === null ? null : klCoef,
      correction: correction !== null,
      dualClip: options.dualClip !== null,
    },
  );
  return { loss, a, b, metrics };
}

const NO_KL = { value: 0, gradient: 0 } as const;

/** One range for each stage. */
function clipRanges({ clipLow, clipHigh, clipHighStage2, dualClip }: PolicyLoss): [ClipRange, ClipRange] {
  return [
    { clipLow, clipHigh, dualClip },
    { clipLow, clipHigh: clipHighStage2 ?? clipHigh, dualClip },
  ];
}

function referenceLogprob(batch: TokenBatch, klCoef: number): Float32Array | null {
  const reference = batch.refLogprob ?? null;
  if (reference === null && klCoef === 0) return null;
  checkTokens('refLogprob', reference, batch.logprob.length, `: klCoef ${klCoef} needs a reference model`);
  return reference;
}
