/** Checks and small helpers that every objective shares. */
import { InvalidArgumentError } from '../errors.js';
import type { Aggregation, Normalizer, TokenBatch } from './types.js';

/** The normalizer of a mini-batch from the lengths of all its responses. */
export function normalizerOf(lengths: Iterable<number>): Normalizer {
  let tokens = 0;
  let sequences = 0;
  for (const length of lengths) {
    if (!Number.isInteger(length) || length < 0) {
      throw new InvalidArgumentError(`lengths: a response cannot have ${length} tokens`);
    }
    tokens += length;
    if (length > 0) sequences += 1;
  }
  return { tokens, sequences };
}

/**
 * Checks `offsets` against the number of tokens.
 *
 * @throws InvalidArgumentError unless offsets start at 0, never fall and end at `tokens`.
 */
export function checkOffsets(offsets: ArrayLike<number>, tokens: number): void {
  if (offsets.length < 1 || offsets[0] !== 0) throw new InvalidArgumentError('offsets must start with 0');
  for (let k = 1; k < offsets.length; k += 1) {
    if (!((offsets[k] as number) >= (offsets[k - 1] as number))) {
      throw new InvalidArgumentError(`offsets must not fall: offsets[${k}] is ${offsets[k]} after ${offsets[k - 1]}`);
    }
  }
  const last = offsets[offsets.length - 1];
  if (last !== tokens) {
    throw new InvalidArgumentError(`offsets end at ${last}, but there are ${tokens} tokens`);
  }
}

/**
 * Checks every array of a batch for its length and the normalizer for its sense.
 *
 * @throws InvalidArgumentError naming the array.
 */
export function checkBatch(batch: TokenBatch, normalizer: Normalizer): void {
  const tokens = batch.logprob.length;
  const sequences = batch.offsets.length - 1;
  checkOffsets(batch.offsets, tokens);
  checkTokens('entropy', batch.entropy, tokens);
  if (batch.advantage.length !== tokens && batch.advantage.length !== sequences) {
    throw new InvalidArgumentError(
      `advantage must have one entry per token (${tokens}) or per sequence (${sequences}), got ${batch.advantage.length}`,
    );
  }
  if (batch.stage.length !== sequences) {
    throw new InvalidArgumentError(`stage must have one entry per sequence (${sequences}), got ${batch.stage.length}`);
  }
  for (let k = 0; k < sequences; k += 1) {
    if (batch.stage[k] !== 1 && batch.stage[k] !== 2) {
      throw new InvalidArgumentError(`stage[${k}] must be 1 or 2, got ${batch.stage[k]}`);
    }
  }
  if (!(normalizer.tokens >= tokens) || !(normalizer.sequences >= countNonEmpty(batch.offsets))) {
    throw new InvalidArgumentError(
      `normalizer counts the whole mini-batch, so it cannot be smaller than this micro-batch of ${tokens} tokens; ` +
        `got ${normalizer.tokens} tokens in ${normalizer.sequences} sequences`,
    );
  }
}

/** @throws InvalidArgumentError unless `array` is there and has one entry per token. */
export function checkTokens(
  name: string,
  array: Float32Array | null | undefined,
  tokens: number,
  why = '',
): asserts array is Float32Array {
  if (array === null || array === undefined) throw new InvalidArgumentError(`${name} is missing${why}`);
  if (array.length !== tokens) {
    throw new InvalidArgumentError(`${name} must have one entry per token (${tokens}), got ${array.length}`);
  }
}

/** The weight w of every token of a sequence of `length` tokens under an aggregation. */
export function tokenWeight(aggregation: Aggregation, normalizer: Normalizer, length: number): number {
  switch (aggregation) {
    case 'token-mean':
      return 1 / normalizer.tokens;
    case 'seq-mean-token-mean':
      return 1 / (normalizer.sequences * length);
    case 'seq-mean-token-sum':
      return 1 / normalizer.sequences;
    default:
      throw new InvalidArgumentError(
        `aggregation must be 'token-mean', 'seq-mean-token-mean' or 'seq-mean-token-sum', got '${aggregation}'`,
      );
  }
}

/** The advantage of token t of sequence k, whichever way they are given. */
export function advantageOf(batch: TokenBatch): (t: number, k: number) => number {
  const { advantage } = batch;
  const perToken = advantage.length === batch.logprob.length;
  return perToken ? (t) => advantage[t] as number : (_t, k) => advantage[k] as number;
}

function countNonEmpty(offsets: Int32Array): number {
  let count = 0;
  for (let k = 1; k < offsets.length; k += 1) if ((offsets[k] as number) > (offsets[k - 1] as number)) count += 1;
  return count;
}
