/** How samples become mini-batches (one optimizer step each) and micro-batches (one forward and backward each). */
import type { TokenBatch } from '../algorithm/types.js';
import type { SequenceBatch, TokenStatistics } from '../policy.js';
import { concatFloat32 } from '../rollout.js';

/** A response on its way through the loss. */
export interface LossSample {
  prompt: readonly number[];
  response: readonly number[];
  /** Under the weights that drew it; the denominator of Eq. 3. */
  behaviorLogprob: Float32Array;
  /** Under theta before the update; null where the objective does not ask for it. */
  policyLogprob: Float32Array | null;
  /** Under the reference model; null without a KL penalty. */
  refLogprob: Float32Array | null;
  advantage: number;
  stage: 1 | 2;
  /** false: it has no part in the update. */
  inLoss: boolean;
  /** Which one it is, for messages: `sample 3 of prompt train:17`. */
  label: string;
}

/** Consecutive slices of `size` items; the last may be shorter. */
export function chunk<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size));
}

/**
 * Consecutive runs of items whose sizes add up to at most `budget`; an item that is larger by itself gets a run of its
 * own. The order is kept, so the sums over all runs are the sums over the items whatever the budget is.
 */
export function packByBudget<T>(items: readonly T[], budget: number, sizeOf: (item: T) => number): T[][] {
  const runs: T[][] = [];
  let current: T[] = [];
  let used = 0;
  for (const item of items) {
    const size = sizeOf(item);
    if (current.length > 0 && used + size > budget) {
      runs.push(current);
      current = [];
      used = 0;
    }
    current.push(item);
    used += size;
  }
  if (current.length > 0) runs.push(current);
  return runs;
}

/** Micro-batches of at most `microBatchTokens` prompt and response tokens. */
export function microBatches<T extends { prompt: readonly number[]; response: readonly number[] }>(
  samples: readonly T[],
  microBatchTokens: number,
): T[][] {
  return packByBudget(samples, microBatchTokens, ({ prompt, response }) => prompt.length + response.length);
}

/** What the policy reads of some samples. */
export function sequenceBatch(
  samples: readonly { prompt: readonly number[]; response: readonly number[] }[],
): SequenceBatch {
  return { prompts: samples.map(({ prompt }) => prompt), responses: samples.map(({ response }) => response) };
}

/** Where each response begins in a flat array of their tokens: [responses + 1]. */
export function tokenOffsets(responses: readonly { length: number }[]): Int32Array {
  const offsets = new Int32Array(responses.length + 1);
  responses.forEach(({ length }, k) => {
    offsets[k + 1] = (offsets[k] as number) + length;
  });
  return offsets;
}

/** Splits a flat per-token array back into one array per response. */
export function splitTokens(flat: Float32Array, responses: readonly { length: number }[]): Float32Array[] {
  const offsets = tokenOffsets(responses);
  return responses.map((_, k) => flat.slice(offsets[k], offsets[k + 1]));
}

function allOrNull(arrays: readonly (Float32Array | null)[]): Float32Array | null {
  const present = arrays.filter((array) => array !== null);
  return present.length === arrays.length ? concatFloat32(present) : null;
}

/** What an objective reads: the micro-batch's samples and what the policy now says about their tokens. */
export function tokenBatch(samples: readonly LossSample[], seen: TokenStatistics): TokenBatch {
  return {
    logprob: seen.logprob,
    entropy: seen.entropy,
    behaviorLogprob: concatFloat32(samples.map((sample) => sample.behaviorLogprob)),
    policyLogprob: allOrNull(samples.map((sample) => sample.policyLogprob)),
    refLogprob: allOrNull(samples.map((sample) => sample.refLogprob)),
    advantage: Float32Array.from(samples, ({ advantage }) => advantage),
    offsets: tokenOffsets(samples.map(({ response }) => response)),
    stage: Uint8Array.from(samples, ({ stage }) => stage),
  };
}
