/**
 * Text in which special tokens are only text. A problem that quotes `<|im_end|>` must not end the user's turn.
 *
 * The library always parses special tokens, so a second tokenizer is built in which each has another, unguessable name:
 * what the data says is then plain text, and what a chat template writes is renamed before it is encoded.
 */
import { randomUUID } from 'node:crypto';
import type { Json } from './folder.js';
import { buildTokenizer, encodeTexts, type NativeTokenizer } from './native.js';

export class GuardedTokenizer {
  readonly #native: NativeTokenizer;
  readonly #special: readonly string[];
  readonly #pattern: RegExp | null;
  readonly #nonce = randomUUID().replaceAll('-', '');

  /**
   * @param definition - the parsed tokenizer.json
   * @param path - names it in errors
   */
  constructor(definition: Json & { model: Json }, path: string) {
    const added = (Array.isArray(definition.added_tokens) ? definition.added_tokens : []) as Json[];
    this.#special = added.filter(({ special }) => special === true).map(({ content }) => String(content));
    // The longest first, as the library matches them.
    const choices = [...this.#special].filter((token) => token !== '').sort((a, b) => b.length - a.length);
    this.#pattern = choices.length === 0 ? null : new RegExp(choices.map(escaped).join('|'), 'g');
    this.#native = buildTokenizer(JSON.stringify(this.#renamed(definition, added)), path);
  }

  /** Ids of texts in which no special token is meant. */
  encode(texts: readonly string[], addSpecialTokens: boolean): Promise<number[][]> {
    return encodeTexts(this.#native, texts, addSpecialTokens);
  }

  /** Marks special tokens' texts anywhere in a value that a template is given. */
  mark<T>(value: T): T {
    if (typeof value === 'string') return this.#replace(value, (index) => this.#markOf(index)) as T;
    if (Array.isArray(value)) return value.map((item) => this.mark(item)) as T;
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, this.mark(item)])) as T;
  }

  /** What a template rendered of marked values: `text` as it would be without marks, `guarded` to be encoded. */
  unmark(rendered: string): { text: string; guarded: string } {
    const plain = (text: string): string =>
      text.replace(
        new RegExp(`\\[${this.#nonce}:(\\d+)\\]`, 'g'),
        (_, index) => this.#special[Number(index)] as string,
      );
    return { text: plain(rendered), guarded: plain(this.#replace(rendered, (index) => this.#nameOf(index))) };
  }

  #replace(text: string, by: (index: number) => string): string {
    return this.#pattern === null ? text : text.replace(this.#pattern, (token) => by(this.#special.indexOf(token)));
  }

  #markOf(index: number): string {
    return `[${this.#nonce}:${index}]`;
  }

  #nameOf(index: number): string {
    return `<${this.#nonce}:${index}>`;
  }

  /** The definition with other names, also where the model's vocabulary has them; ids stay. */
  #renamed(definition: Json & { model: Json }, added: readonly Json[]): Json {
    const names = new Map(this.#special.map((token, index) => [token, this.#nameOf(index)]));
    const rename = (token: unknown): unknown => names.get(String(token)) ?? token;
    const { vocab, unk_token: unknown } = definition.model;
    const renamedVocab = Array.isArray(vocab)
      ? vocab.map(([token, score]) => [rename(token), score])
      : Object.fromEntries(Object.entries(vocab as Json).map(([token, id]) => [rename(token), id]));
    return {
      ...definition,
      added_tokens: added.map((token) =>
        token.special === true ? { ...token, content: rename(token.content) } : token,
      ),
      model: {
        ...definition.model,
        vocab: renamedVocab,
        ...(typeof unknown === 'string' ? { unk_token: rename(unknown) } : {}),
      },
    };
  }
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/-]/g, '\\$&');
}
