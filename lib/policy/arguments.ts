/** What callers hand to a policy, checked and flattened for the native side. */
import type { PolicyConfig } from '../config-json.js';
import { InvalidArgumentError } from '../errors.js';
import { checkOptions, describe } from '../options.js';
import type { SequenceBatch } from '../policy-types.js';
import { BATCH } from './options.js';

/** Flattens sequences after checking that each is non-empty, in the vocabulary and, with `extra`, in the context. */
export function packSequences(
  config: Pick<PolicyConfig, 'vocabSize' | 'maxPositionEmbeddings'>,
  sequences: readonly (readonly number[])[],
  name: string,
  extra = 0,
): { ids: Int32Array; lengths: Int32Array } {
  const { vocabSize, maxPositionEmbeddings: context } = config;
  if (!Array.isArray(sequences)) {
    throw new InvalidArgumentError(`${name} must be an array of arrays of token ids, got ${describe(sequences)}`);
  }
  const lengths = new Int32Array(sequences.length);
  // Looked at before anything as large as they say is allocated. Not forEach, which skips holes.
  for (let s = 0; s < lengths.length; s++) {
    const sequence: readonly number[] = sequences[s];
    if (!isSequence(sequence)) {
      throw new InvalidArgumentError(`${name}[${s}] must be an array of token ids, got ${describe(sequence)}`);
    }
    const { length } = sequence; // read once: it may be a Proxy's
    if (!(length >= 1)) {
      throw new InvalidArgumentError(`${name}[${s}] is empty: it needs at least one token (a bos token, for instance)`);
    }
    if (length + extra > context) {
      const more = extra > 0 ? ` and maxNewTokens ${extra}` : '';
      throw new InvalidArgumentError(
        `${name}[${s}] has ${length} tokens${more}, more than the model's context of ${context} ` +
          `(max_position_embeddings); shorten it${extra > 0 ? ' or lower maxNewTokens' : ''}`,
      );
    }
    lengths[s] = length;
  }
  const ids = new Int32Array(lengths.reduce((sum, length) => sum + length, 0));
  let at = 0;
  for (const [s, length] of lengths.entries()) {
    for (let t = 0; t < length; t++) {
      const id: unknown = sequences[s][t];
      if (!(typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < vocabSize)) {
        throw new InvalidArgumentError(
          `${name}[${s}] holds ${describe(id)}, not a token id from 0 to ${vocabSize - 1}`,
        );
      }
      ids[at++] = id;
    }
  }
  return { ids, lengths };
}

/** An array or typed array, whatever is in it; not one whose buffer was transferred. */
function isSequence(value: unknown): value is readonly number[] {
  if (Array.isArray(value)) return true;
  if (!ArrayBuffer.isView(value) || value instanceof DataView) return false;
  try {
    (value as Uint8Array).values();
    return true;
  } catch {
    return false;
  }
}

/** Prompts and responses, row by row one after the other, after the checks of {@link packSequences}. */
export function packBatch(
  config: Pick<PolicyConfig, 'vocabSize' | 'maxPositionEmbeddings'>,
  batch: SequenceBatch,
): { ids: Int32Array; lengths: Int32Array; promptLengths: Int32Array } {
  checkOptions(batch, BATCH, 'batch');
  const { prompts, responses } = batch;
  for (const [name, rows] of Object.entries({ prompts, responses })) {
    if (!Array.isArray(rows)) {
      throw new InvalidArgumentError(`batch.${name} must be arrays of token ids, got ${describe(rows)}`);
    }
    const bad = rows.findIndex((row) => !isSequence(row));
    if (bad >= 0) {
      throw new InvalidArgumentError(`${name}[${bad}] must be an array of token ids, got ${describe(rows[bad])}`);
    }
  }
  if (prompts.length === 0) throw new InvalidArgumentError('prompts is empty: pass at least one sequence');
  if (prompts.length !== responses.length) {
    throw new InvalidArgumentError(`prompts has ${prompts.length} rows and responses ${responses.length}`);
  }
  const empty = prompts.findIndex((prompt) => prompt.length === 0);
  if (empty >= 0) {
    throw new InvalidArgumentError(`prompts[${empty}] is empty: the first response token needs a token before it`);
  }
  const packed = packSequences(
    config,
    prompts.map((prompt, i) => [...prompt, ...(responses[i] as readonly number[])]),
    'prompts + responses',
  );
  return { ...packed, promptLengths: Int32Array.from(prompts, (prompt) => prompt.length) };
}
/** `value` if it is an integer >= `lowest`. */
export function wholeNumber(value: number, name: string, lowest: number): number {
  if (!(Number.isSafeInteger(value) && value >= lowest)) {
    throw new InvalidArgumentError(`${name} must be an integer >= ${lowest}, got ${describe(value)}`);
  }
  return value;
}

/** An array of integers of at most `largest` in size, of which the native side takes the lowest 32 bits. */
export function integers(values: readonly number[], name: string, largest: number): Int32Array {
  if (!isSequence(values)) {
    throw new InvalidArgumentError(`${name} must be an array of integers, got ${describe(values)}`);
  }
  const bad = values.findIndex((value) => !(Number.isInteger(value) && Math.abs(value) <= largest));
  if (bad >= 0) {
    throw new InvalidArgumentError(
      `${name}[${bad}] must be an integer of at most ${largest}, got ${describe(values[bad])}`,
    );
  }
  return Int32Array.from(values);
}

/** The sampling temperature: 1 unless given. */
export function temperatureOf(value = 1, allowZero: boolean): number {
  if (!(Number.isFinite(value) && (value > 0 || (allowZero && value === 0)))) {
    throw new InvalidArgumentError(
      `temperature must be a finite number > 0${allowZero ? ', or 0 for greedy decoding' : ''}, got ${describe(value)}`,
    );
  }
  return value;
}
