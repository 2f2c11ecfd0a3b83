/** What callers hand to a policy, checked and flattened for the native side. */
import type { PolicyConfig } from './config-json.js';
import { InvalidArgumentError } from './errors.js';
import { checkOptions, describe } from './options.js';
import { BATCH } from './policy-options.js';
import type { SequenceBatch } from './policy-types.js';

/** Flattens sequences after checking that each is non-empty, in the vocabulary and, with `extra`, in the context. */
export function packSequences(
  config: Pick<PolicyConfig, 'vocabSize' | 'maxPositionEmbeddings'>,
  sequences: readonly (readonly number[])[],
  name: string,
  extra = 0,
): { ids: Int32Array; lengths: Int32Array } {
  const { vocabSize, maxPositionEmbeddings: context } = config;
  const total = sequences.reduce((sum, sequence) => sum + sequence.length, 0);
  const ids = new Int32Array(total);
  const lengths = new Int32Array(sequences.length);
  let at = 0;
  sequences.forEach((sequence, s) => {
    if (typeof sequence !== 'object' || sequence === null) {
      throw new InvalidArgumentError(`${name}[${s}] must be an array of token ids, got ${describe(sequence)}`);
    }
    if (sequence.length === 0) {
      throw new InvalidArgumentError(`${name}[${s}] is empty: it needs at least one token (a bos token, for instance)`);
    }
    if (sequence.length + extra > context) {
      const more = extra > 0 ? ` and maxNewTokens ${extra}` : '';
      throw new InvalidArgumentError(
        `${name}[${s}] has ${sequence.length} tokens${more}, more than the model's context of ${context} ` +
          `(max_position_embeddings); shorten it${extra > 0 ? ' or lower maxNewTokens' : ''}`,
      );
    }
    lengths[s] = sequence.length;
    for (const id of sequence) {
      if (!(Number.isInteger(id) && id >= 0 && id < vocabSize)) {
        throw new InvalidArgumentError(
          `${name}[${s}] holds ${describe(id)}, not a token id from 0 to ${vocabSize - 1}`,
        );
      }
      ids[at++] = id;
    }
  });
  return { ids, lengths };
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
    throw new InvalidArgumentError(`${name} must be an integer >= ${lowest}, got ${value}`);
  }
  return value;
}

/** The sampling temperature: 1 unless given. */
export function temperatureOf(value = 1, allowZero: boolean): number {
  if (!(Number.isFinite(value) && (value > 0 || (allowZero && value === 0)))) {
    throw new InvalidArgumentError(
      `temperature must be a finite number > 0${allowZero ? ', or 0 for greedy decoding' : ''}, got ${value}`,
    );
  }
  return value;
}
