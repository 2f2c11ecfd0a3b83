/** Checks and small helpers that every objective shares. */
import { InvalidArgumentError } from '../errors.js';
import { AGGREGATIONS, type Aggregation, type Normalizer, type TokenBatch } from './types.js';

/**
 * The normalizer of a mini-batch from the lengths of all its responses, masked tokens not counted.
 *
 * @param maxTokens - the most tokens a response can have; needed by 'seq-mean-token-sum-norm' alone
 */
export function normalizerOf(lengths: Iterable<number>, maxTokens?: number): Normalizer {
  let tokens = 0;
  let sequences = 0;
  for (const length of lengths) {
    if (!Number.isInteger(length) || length < 0) {
      throw new InvalidArgumentError(`lengths: a response cannot have ${length} tokens`);
    }
    tokens += length;
    if (length > 0) sequences += 1;
  }
  return { tokens, sequences, ...(maxTokens === undefined ? {} : { maxTokens }) };
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
  if (batch.mask != null && batch.mask.length !== tokens) {
    throw new InvalidArgumentError(`mask must have one entry per token (${tokens}), got ${batch.mask.length}`);
  }
  const lengths = keptLengths(batch);
  const kept = lengths.reduce((sum, length) => sum + length, 0);
  if (!(normalizer.tokens >= kept) || !(normalizer.sequences >= lengths.filter((length) => length > 0).length)) {
    throw new InvalidArgumentError(
      `normalizer counts the whole mini-batch, so it cannot be smaller than this micro-batch of ${kept} tokens; ` +
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
    case 'seq-mean-token-sum-norm':
      return 1 / (normalizer.sequences * maxTokensOf(normalizer));
    default:
      throw new InvalidArgumentError(`aggregation must be one of ${AGGREGATIONS.join(', ')}; got '${aggregation}'`);
  }
}

function maxTokensOf({ maxTokens }: Normalizer): number {
  if (maxTokens !== undefined && maxTokens > 0) return maxTokens;
  throw new InvalidArgumentError(
    `aggregation 'seq-mean-token-sum-norm' divides by the most tokens a response can have: normalizer.maxTokens is ${maxTokens}`,
  );
}

/** How many tokens of every sequence are not masked: [sequences]. */
export function keptLengths({ offsets, mask = null }: Pick<TokenBatch, 'offsets' | 'mask'>): Int32Array {
  return Int32Array.from({ length: offsets.length - 1 }, (_, k) => {
    const begin = offsets[k] as number;
    const end = offsets[k + 1] as number;
    if (mask === null) return end - begin;
    let kept = 0;
    for (let t = begin; t < end; t += 1) if (mask[t] !== 0) kept += 1;
    return kept;
  });
}

/** The advantage of token t of sequence k, whichever way they are given. */
export function advantageOf(batch: TokenBatch): (t: number, k: number) => number {
  const { advantage } = batch;
  const perToken = advantage.length === batch.logprob.length;
  return perToken ? (t) => advantage[t] as number : (_t, k) => advantage[k] as number;
}
