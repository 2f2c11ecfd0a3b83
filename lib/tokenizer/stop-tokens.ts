/** Which ids end a response. */
import { InvalidArgumentError } from '../errors.js';
import type { Json } from './folder.js';

/** `eos_token_id` of a generation_config.json or config.json: a number or a list. */
export function idsOf(value: unknown): number[] {
  const ids = Array.isArray(value) ? value : [value];
  return [...new Set(ids.filter((id): id is number => Number.isInteger(id) && id >= 0))];
}

/**
 * generation_config.json says what ends a response; without it config.json, then the tokenizer's own eos_token. As
 * transformers' `generate`, only the first that says anything counts.
 */
export function eosTokenIds(generation: Json, model: Json, tokenizerEos: number | null): number[] {
  for (const source of [generation, model]) {
    const ids = idsOf(source.eos_token_id);
    if (ids.length > 0) return ids;
  }
  return tokenizerEos === null ? [] : [tokenizerEos];
}

/** A stop token as a configuration names it: an id, or the token's text such as `<|im_end|>`. */
export type StopToken = number | string;

/**
 * @param idOf - the id of the one token that a text is; null where it is none or several
 * @throws InvalidArgumentError naming the token
 */
export function stopTokenIds(
  tokens: readonly StopToken[],
  idOf: (text: string) => number | null,
  vocabSize: number,
  special: readonly string[],
): number[] {
  const ids = tokens.map((token) => {
    const id = typeof token === 'string' ? idOf(token) : token;
    if (id !== null && Number.isInteger(id) && id >= 0 && id < vocabSize) return id;
    if (typeof token === 'number') {
      throw new InvalidArgumentError(
        `stop token ${token} is not in the vocabulary; ids are whole numbers from 0 to ${vocabSize - 1}`,
      );
    }
    const known = special.slice(0, 12).join(', ') + (special.length > 12 ? ', ...' : '');
    throw new InvalidArgumentError(
      `stop token ${JSON.stringify(token)} is not a single token of this tokenizer; its special tokens are ${known || 'none'}`,
    );
  });
  return [...new Set(ids)];
}

/** What the choice of stop tokens needs of a tokenizer. */
export interface StoppingTokenizer {
  readonly eosTokenIds?: readonly number[];
  readonly endOfTurnTokenId?: number | null;
  stopTokenIds?(tokens: readonly StopToken[]): number[];
}

/** Ids of a configuration's stop tokens. A tokenizer of one's own may know ids only. */
export function resolveStopTokens(tokenizer: StoppingTokenizer, tokens: readonly StopToken[]): number[] {
  if (tokenizer.stopTokenIds !== undefined) return tokenizer.stopTokenIds(tokens);
  return tokens.map((token) => {
    if (typeof token === 'number') return token;
    throw new InvalidArgumentError(
      `stop token ${JSON.stringify(token)}: this tokenizer has no stopTokenIds to look texts up; give its id`,
    );
  });
}

/**
 * The ids that end a response to these prompts where nobody says otherwise: the end-of-sequence ids, and for chats also
 * the token that ends a turn in the chat template (a base model's generation_config.json often lacks it). undefined: the
 * tokenizer knows none, the model's own hold.
 */
export function defaultStopTokens(
  { eosTokenIds: eos = [], endOfTurnTokenId }: StoppingTokenizer,
  prompts: readonly unknown[],
): number[] | undefined {
  const endOfTurn = prompts.some((prompt) => typeof prompt !== 'string') ? endOfTurnTokenId : null;
  const ids = endOfTurn === null || endOfTurn === undefined ? eos : [...new Set([...eos, endOfTurn])];
  return ids.length > 0 ? [...ids] : undefined;
}
