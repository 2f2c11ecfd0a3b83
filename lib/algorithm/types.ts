/** The shapes every objective works on: flat per-token arrays in, two numbers per token out. */
import type { MetricAccumulator } from './accumulator.js';

/**
 * The response tokens of a micro-batch, row after row without padding. Sequence k owns tokens
 * [offsets[k], offsets[k+1]); all log-probabilities are natural logarithms at the sampling temperature.
 */
export interface TokenBatch {
  /** log pi_theta(o_t), from `policy.forward`: [tokens]. */
  logprob: Float32Array;
  /** Entropy in nats of pi_theta at every token: [tokens]. */
  entropy: Float32Array;
  /**
   * log-prob under the weights that really drew the token, recorded when it was drawn: theta for stage 1, theta' for
   * stage 2 (the denominator of Eq. 3): [tokens]. An objective that needs no ratio ignores it.
   */
  behaviorLogprob: Float32Array;
  /** log-prob under theta_k, the policy before this iteration's first update: [tokens]. For `ratio` 'policy', 'decoupled'. */
  policyLogprob?: Float32Array | null;
  /** log-prob under the reference model of the KL penalty: [tokens]. Needed when the KL coefficient is not 0. */
  refLogprob?: Float32Array | null;
  /** Advantage (or, for NLL, the weight) per token [tokens] or per sequence [sequences]; per token where both fit. */
  advantage: Float32Array;
  /** [sequences + 1], starts at 0, never falls. */
  offsets: Int32Array;
  /** 1 or 2 per sequence: [sequences]. Plain GRPO is all 1. Only metrics and options named after a stage look at it. */
  stage: Uint8Array;
  /**
   * 0 leaves a token out of everything: loss, gradient, metrics, the ratio of its sequence: [tokens]. The normalizer must
   * not count it either. Default: none is left out.
   */
  mask?: Uint8Array | null;
}

/**
 * The size of the whole MINI-batch (every micro-batch of one optimizer step together). Objectives divide by it and
 * never by what the micro-batch holds, so the result does not depend on the micro-batch size.
 */
export interface Normalizer {
  /** Response tokens, without those that are masked. */
  tokens: number;
  /** Sequences with at least one such token. */
  sequences: number;
  /** The most tokens a response can have, whatever it has: the constant of 'seq-mean-token-sum-norm', which needs it. */
  maxTokens?: number;
}

/** What an objective returns for a micro-batch. Sums over the micro-batches of a mini-batch are the mini-batch's. */
export interface ObjectiveResult {
  /** This micro-batch's share of the loss that is minimized. */
  loss: number;
  /** dL/dl_t: [tokens]. */
  a: Float32Array;
  /** dL/dH_t: [tokens]. */
  b: Float32Array;
  /** Exactly reducible: `total.merge(result.metrics)` over micro-batches, then `total.values()`. */
  metrics: MetricAccumulator;
}

/** Any loss that sees a token only through its log-prob and the entropy. */
export type Objective = (batch: TokenBatch, normalizer: Normalizer) => ObjectiveResult;

export const AGGREGATIONS = [
  'token-mean',
  'seq-mean-token-mean',
  'seq-mean-token-sum',
  'seq-mean-token-sum-norm',
] as const;

/**
 * How per-token losses become one number (verl's names). N tokens, S sequences of the mini-batch, T_k of a sequence, L the
 * most a response can have: 'token-mean' 1/N sum; 'seq-mean-token-mean' 1/S sum_k 1/T_k sum_t; 'seq-mean-token-sum'
 * 1/S sum_k sum_t; 'seq-mean-token-sum-norm' 1/(S L) sum_k sum_t.
 */
export type Aggregation = (typeof AGGREGATIONS)[number];

export const RATIO_MODES = ['behavior', 'policy', 'decoupled'] as const;
/** The denominator of Eq. 3; see `PolicyLossOptions`. */
export type RatioMode = (typeof RATIO_MODES)[number];

export const LEVELS = ['token', 'sequence'] as const;
/** Whether a ratio is one of a token or one for all tokens of its sequence. */
export type RatioLevel = (typeof LEVELS)[number];

/** The readings of the paper's entropy gate; see `EntropyGate`. */
export type GateMode = 'token' | 'step' | 'token+step' | 'always' | 'never';
