/**
 * What a tokenizer.json may ask of the native library, which ends the process on some definitions and runs out of memory
 * on others: both are refused here, by name, before it sees them.
 */
import { InvalidFileError, UnsupportedError } from '../errors.js';
import { describe } from '../options.js';
import type { Json } from './folder.js';
import { regexProblem } from './regex.js';

/** The largest known tokenizers have 10 steps in all. */
const MAX_STEPS = 100;
const MAX_DEPTH = 8;
/** How many times longer replacements may make a text; those of known tokenizers keep its length. */
const MAX_GROWTH = 64;
const MAX_ID = 2 ** 31 - 1;

/** Where the parts of a sequence stand. */
const PARTS = ['normalizers', 'pretokenizers', 'processors', 'decoders'];

/**
 * @param path - names the file in errors
 * @throws InvalidFileError naming the field; UnsupportedError for a step that cannot be trusted with text
 */
export function checkDefinition(definition: Json & { model: Json }, path: string): void {
  const check = new Check(path);
  for (const field of ['normalizer', 'pre_tokenizer', 'post_processor', 'decoder'])
    check.steps(definition[field], field);
  check.addedTokens(definition.added_tokens);
  check.model(definition.model);
}

class Check {
  readonly #path: string;
  #count = 0;
  #growth = 1;

  constructor(path: string) {
    this.#path = path;
  }

  steps(step: unknown, field: string, depth = 0): void {
    if (step === null || step === undefined) return;
    if (!isObject(step)) throw this.#wrong(field, 'an object or null', step);
    this.#count += 1;
    if (this.#count > MAX_STEPS || depth > MAX_DEPTH) {
      throw new InvalidFileError(`${this.#path}: ${field}: more than ${MAX_STEPS} steps, or nested too deeply`);
    }
    this.#step(step, field);
    for (const key of PARTS) {
      const parts = step[key];
      if (parts === undefined) continue;
      if (!Array.isArray(parts)) throw this.#wrong(`${field}.${key}`, 'a list', parts);
      for (const [i, part] of parts.entries()) this.steps(part, `${field}.${key}[${i}]`, depth + 1);
    }
  }

  #step(step: Json, field: string): void {
    const { type } = step;
    if (type !== undefined && typeof type !== 'string') throw this.#wrong(`${field}.type`, 'a text', type);
    if (type === 'Precompiled') {
      throw new UnsupportedError(
        `${this.#path}: ${field}: a character map of SentencePiece ("Precompiled") is not supported`,
      );
    }
    if (isObject(step.pattern) && 'Regex' in step.pattern) this.#regex(step.pattern.Regex, `${field}.pattern.Regex`);
    if (type === 'Replace') this.#replacement(step, field);
    if (type === 'TemplateProcessing') this.#template(step, field);
    if (type === 'Strip' && typeof step.stop === 'number' && step.stop !== 0) {
      throw new UnsupportedError(`${this.#path}: ${field}: Strip with stop ${step.stop} is not supported, only 0`);
    }
    if (type === 'FixedLength' && !(Number(step.length ?? 5) >= 1)) {
      throw this.#wrong(`${field}.length`, 'a whole number of at least 1', step.length);
    }
  }

  #regex(regex: unknown, field: string): void {
    if (typeof regex !== 'string') throw this.#wrong(field, 'a text', regex);
    const problem = regexProblem(regex);
    if (problem === null) return;
    throw new UnsupportedError(
      `${this.#path}: ${field}: ${problem}, which may take exponential time: ${describe(regex)} is not supported`,
    );
  }

  #replacement({ pattern, content }: Json, field: string): void {
    if (typeof content !== 'string') throw this.#wrong(`${field}.content`, 'a text', content);
    const given = isObject(pattern) ? pattern.String : undefined;
    // A regex may match the empty text, at every character.
    const factor = typeof given === 'string' && given !== '' ? content.length / given.length : 1 + content.length;
    this.#growth *= Math.max(1, factor);
    if (this.#growth <= MAX_GROWTH) return;
    throw new InvalidFileError(
      `${this.#path}: ${field}: the replacements make a text up to ${this.#growth} times longer; at most ${MAX_GROWTH}`,
    );
  }

  /** Every special token that a template names must be defined, ids and texts alike. */
  #template({ single, pair, special_tokens: defined }: Json, field: string): void {
    if (!isObject(defined)) throw this.#wrong(`${field}.special_tokens`, 'an object', defined);
    for (const [name, pieces] of [['single', single] as const, ['pair', pair] as const]) {
      if (!Array.isArray(pieces)) throw this.#wrong(`${field}.${name}`, 'a list', pieces);
      for (const piece of pieces) {
        const special = isObject(piece) ? piece.SpecialToken : undefined;
        if (special === undefined) continue;
        const id = isObject(special) ? special.id : special;
        if (typeof id === 'string' && Object.hasOwn(defined, id)) continue;
        throw new InvalidFileError(
          `${this.#path}: ${field}.${name} names special token ${describe(id)}, which is not in special_tokens`,
        );
      }
    }
    for (const [name, token] of Object.entries(defined)) {
      const { ids, tokens } = isObject(token) ? token : { ids: null, tokens: null };
      if (Array.isArray(ids) && Array.isArray(tokens) && ids.length === tokens.length && ids.every(isId)) continue;
      throw new InvalidFileError(
        `${this.#path}: ${field}.special_tokens.${name}: ids and tokens must be lists of one length`,
      );
    }
  }

  addedTokens(tokens: unknown): void {
    if (tokens === undefined || tokens === null) return;
    if (!Array.isArray(tokens)) throw this.#wrong('added_tokens', 'a list', tokens);
    for (const [i, token] of tokens.entries()) {
      if (!isObject(token)) throw this.#wrong(`added_tokens[${i}]`, 'an object', token);
      if (!isId(token.id)) throw this.#wrong(`added_tokens[${i}].id`, `a whole number from 0 to ${MAX_ID}`, token.id);
      if (typeof token.content !== 'string') throw this.#wrong(`added_tokens[${i}].content`, 'a text', token.content);
    }
  }

  model(model: Json): void {
    const { type, vocab, merges } = model;
    if (Array.isArray(vocab)) {
      const at = vocab.findIndex(
        (entry) => !(Array.isArray(entry) && typeof entry[0] === 'string' && Number.isFinite(entry[1])),
      );
      if (at >= 0) throw this.#wrong(`model.vocab[${at}]`, 'a token and its score', vocab[at]);
      return;
    }
    if (!isObject(vocab)) throw this.#wrong('model.vocab', 'an object of tokens and ids', vocab);
    for (const token in vocab) {
      if (isId(vocab[token])) continue;
      throw this.#wrong(`model.vocab[${JSON.stringify(token)}]`, `a whole number from 0 to ${MAX_ID}`, vocab[token]);
    }
    const { unk_token: unknown } = model;
    if (typeof unknown === 'string' && !Object.hasOwn(vocab, unknown)) {
      throw new InvalidFileError(`${this.#path}: model.unk_token: ${describe(unknown)} is not in the vocabulary`);
    }
    if (type === 'BPE' || merges !== undefined) this.#merges(model, vocab);
  }

  /** Both parts of a merge and what they make are tokens. */
  #merges({ merges, continuing_subword_prefix: prefix }: Json, vocab: Json): void {
    if (!Array.isArray(merges)) throw this.#wrong('model.merges', 'a list', merges);
    const dropped = typeof prefix === 'string' ? prefix.length : 0;
    for (const [i, merge] of merges.entries()) {
      const parts: unknown = typeof merge === 'string' ? merge.split(' ') : merge;
      if (!Array.isArray(parts) || parts.length !== 2 || !parts.every((part) => typeof part === 'string')) {
        throw this.#wrong(`model.merges[${i}]`, 'two tokens', merge);
      }
      const [left, right] = parts as [string, string];
      const missing = [left, right, left + right.slice(dropped)].find((token) => !Object.hasOwn(vocab, token));
      if (missing === undefined && right.length >= dropped) continue;
      throw new InvalidFileError(
        `${this.#path}: model.merges[${i}]: ${describe(missing ?? right)} is not in the vocabulary`,
      );
    }
  }

  #wrong(field: string, expected: string, value: unknown): InvalidFileError {
    return new InvalidFileError(`${this.#path}: ${field} must be ${expected}, got ${describe(value)}`);
  }
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MAX_ID;
}
