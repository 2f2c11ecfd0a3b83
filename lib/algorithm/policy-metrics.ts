/** What a policy loss tells of its tokens, stage by stage. */
import { MetricAccumulator } from './accumulator.js';
import type { SurrogateTerm } from './surrogate.js';

/** Sums over the tokens of one stage. */
export interface Tally {
  tokens: number;
  ratio: number;
  maxRatio: number;
  clipped: number;
  positive: number;
  clippedPositive: number;
  negative: number;
  clippedNegative: number;
  dualClipped: number;
  pg: number;
  kl: number;
  entropy: number;
  correction: number;
}

export function newTally(): Tally {
  return {
    tokens: 0,
    ratio: 0,
    maxRatio: 0,
    clipped: 0,
    positive: 0,
    clippedPositive: 0,
    negative: 0,
    clippedNegative: 0,
    dualClipped: 0,
    pg: 0,
    kl: 0,
    entropy: 0,
    correction: 0,
  };
}

/** Adds one token. @param c - its correction, 1 where there is none */
export function count(
  tally: Tally,
  token: SurrogateTerm,
  advantage: number,
  c: number,
  kl: number,
  entropy: number,
): void {
  tally.tokens += 1;
  tally.ratio += token.ratio;
  tally.maxRatio = Math.max(tally.maxRatio, token.ratio);
  tally.pg += c * token.loss;
  tally.kl += kl;
  tally.entropy += entropy;
  tally.correction += c;
  if (token.clipped) tally.clipped += 1;
  if (token.dualClipped) tally.dualClipped += 1;
  if (advantage > 0) {
    tally.positive += 1;
    if (token.clipped) tally.clippedPositive += 1;
  } else if (advantage < 0) {
    tally.negative += 1;
    if (token.clipped) tally.clippedNegative += 1;
  }
}

/** What there is to tell beside the surrogate. */
export interface MetricParts {
  /** null: no reference. */
  klCoef: number | null;
  correction: boolean;
  dualClip: boolean;
}

/**
 * @param share - the micro-batch's share of the mini-batch's tokens
 * @param total - its share of the loss and of its parts
 */
export function policyMetrics(
  stages: readonly Tally[],
  share: number,
  total: { loss: number; pg: number; kl: number },
  { klCoef, correction, dualClip }: MetricParts,
): MetricAccumulator {
  const metrics = new MetricAccumulator();
  const withKl = klCoef !== null;
  // These are sums over the mini-batch already: the counts of its micro-batches add up to 1.
  metrics.addMean('actor/loss', total.loss, share);
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
    if (dualClip) metrics.addMean(`actor/dual_clip_frac/${stage}`, tally.dualClipped, tally.tokens);
    metrics.addMean(`actor/pg_loss/${stage}`, tally.pg, tally.tokens);
    if (withKl) metrics.addMean(`actor/kl/${stage}`, tally.kl, tally.tokens);
    metrics.addMean(`actor/entropy/${stage}`, tally.entropy, tally.tokens);
    if (correction) metrics.addMean(`actor/decoupled_weight/${stage}`, tally.correction, tally.tokens);
  });
  return metrics;
}
