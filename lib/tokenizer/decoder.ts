/** Ids to text, whole or as they come. */
import { InvalidArgumentError } from '../errors.js';
import { byteLevelBytes } from './byte-level.js';
import type { Json } from './folder.js';
import type { NativeTokenizer } from './native.js';

export interface DecodeOptions {
  /** Leaves out special tokens such as `<|im_end|>`. Default true. */
  skipSpecialTokens?: boolean;
  /** Removes the spaces of ` .`, ` n't`, ... as transformers does. Default: what tokenizer_config.json says, off for BPE. */
  cleanUpTokenizationSpaces?: boolean;
}

/** Turns ids into text as `Tokenizer.decode` of the native library does, without leaving JavaScript's thread. */
export class Detokenizer {
  readonly #native: NativeTokenizer;
  readonly #decoder: { decode(tokens: string[]): string } | null;
  readonly #special: ReadonlySet<string>;
  readonly #cleanUp: boolean;
  readonly #kind: DecoderKind;
  readonly #tokens = new Map<number, string | null>();
  readonly #bytes = new Map<number, Uint8Array>();

  /**
   * @param definition - the parsed tokenizer.json
   * @param cleanUp - the default of `cleanUpTokenizationSpaces`
   */
  constructor(native: NativeTokenizer, definition: Json, cleanUp: boolean) {
    this.#native = native;
    this.#decoder = native.getDecoder();
    this.#special = specialTexts(definition);
    this.#cleanUp = cleanUp;
    this.#kind = decoderKind(definition.decoder as Json | null | undefined);
  }

  /** Ids without a token (a model's vocabulary may be padded) have no text. */
  decode(ids: readonly number[], options: DecodeOptions = {}): string {
    const known = ids.filter((id) => this.#isShown(id, options.skipSpecialTokens ?? true));
    const text = this.#kind === 'bytes' ? decodeBytes(known.map((id) => this.#bytesOf(id))) : this.#join(known);
    return (options.cleanUpTokenizationSpaces ?? this.#cleanUp) ? cleanUpSpaces(text) : text;
  }

  /** Whether the vocabulary's tokens are bytes. */
  get isByteLevel(): boolean {
    return this.#kind === 'bytes';
  }

  stream(options: DecodeOptions = {}): DecodeStream {
    const shown = (id: number): boolean => this.#isShown(id, options.skipSpecialTokens ?? true);
    const source =
      this.#kind === 'bytes'
        ? new ByteSource((id) => this.#bytesOf(id))
        : new TokenSource(
            (ids) => this.#join(ids),
            (id) => this.#kind === 'opaque' || BYTE_TOKEN.test(this.#token(id) as string),
          );
    return new DecodeStream(shown, source, options.cleanUpTokenizationSpaces ?? this.#cleanUp);
  }

  #join(ids: readonly number[]): string {
    const tokens = ids.map((id) => this.#token(id) as string);
    return this.#decoder === null ? tokens.join(' ') : this.#decoder.decode(tokens);
  }

  #isShown(id: number, skipSpecial: boolean): boolean {
    const token = this.#token(id);
    return token !== null && !(skipSpecial && this.#special.has(token));
  }

  #token(id: number): string | null {
    let token = this.#tokens.get(id);
    if (token === undefined) {
      if (!(Number.isInteger(id) && id >= 0 && id < 2 ** 32)) {
        throw new InvalidArgumentError(`${JSON.stringify(id)} is not a token id; ids are whole numbers of at least 0`);
      }
      token = this.#native.idToToken(id);
      this.#tokens.set(id, token);
    }
    return token;
  }

  #bytesOf(id: number): Uint8Array {
    let bytes = this.#bytes.get(id);
    if (bytes === undefined) {
      bytes = byteLevelBytes(this.#token(id) as string);
      this.#bytes.set(id, bytes);
    }
    return bytes;
  }
}

/**
 * Text of tokens as they come. Every piece is final, and all pieces together are `decode` of all ids: a character whose
 * bytes are spread over several tokens appears when it is complete, what never completes as U+FFFD.
 *
 * ```ts
 * const stream = tokenizer.stream();
 * for (const id of ids) process.stdout.write(stream.push(id));
 * process.stdout.write(stream.end());
 * ```
 */
export class DecodeStream {
  readonly #isShown: (id: number) => boolean;
  readonly #source: TextSource;
  readonly #cleanUp: boolean;
  #held = '';

  /** Made by `tokenizer.stream()`. */
  constructor(isShown: (id: number) => boolean, source: TextSource, cleanUp: boolean) {
    this.#isShown = isShown;
    this.#source = source;
    this.#cleanUp = cleanUp;
  }

  /** The text that is certain now; often one token's, sometimes empty. */
  push(id: number): string {
    return this.#isShown(id) ? this.#clean(this.#source.push(id), false) : '';
  }

  /** What was still held back. The stream is then empty and may be used again. */
  end(): string {
    return this.#clean(this.#source.end(), true);
  }

  /** The clean-up looks at up to four characters, none of them a line break: whole lines can be cleaned one by one. */
  #clean(text: string, atEnd: boolean): string {
    if (!this.#cleanUp) return text;
    const all = this.#held + text;
    const end = atEnd ? all.length : all.lastIndexOf('\n') + 1;
    this.#held = all.slice(end);
    return cleanUpSpaces(all.slice(0, end));
  }
}

/** Text that is certain after each id. */
interface TextSource {
  push(id: number): string;
  end(): string;
}

/** Byte-level vocabularies: tokens are bytes, the text is their UTF-8. */
class ByteSource implements TextSource {
  readonly #bytesOf: (id: number) => Uint8Array;
  #decoder = newTextDecoder();

  constructor(bytesOf: (id: number) => Uint8Array) {
    this.#bytesOf = bytesOf;
  }

  push(id: number): string {
    return this.#decoder.decode(this.#bytesOf(id), { stream: true });
  }

  end(): string {
    const rest = this.#decoder.decode();
    this.#decoder = newTextDecoder();
    return rest;
  }
}

/** Other vocabularies: everything is decoded again, because a first token's text depends on being the first. */
class TokenSource implements TextSource {
  readonly #decode: (ids: readonly number[]) => string;
  readonly #mayChange: (id: number) => boolean;
  #ids: number[] = [];
  #given = 0;

  constructor(decode: (ids: readonly number[]) => string, mayChange: (id: number) => boolean) {
    this.#decode = decode;
    this.#mayChange = mayChange;
  }

  push(id: number): string {
    this.#ids.push(id);
    return this.#mayChange(id) ? '' : this.#rest();
  }

  end(): string {
    const rest = this.#rest();
    this.#ids = [];
    this.#given = 0;
    return rest;
  }

  #rest(): string {
    const text = this.#decode(this.#ids);
    const rest = text.slice(this.#given);
    this.#given = text.length;
    return rest;
  }
}

/** A byte of a character that the vocabulary lacks. A run of them is text only when it is whole. */
const BYTE_TOKEN = /^<0x[0-9A-Fa-f]{2}>$/;

/**
 * `bytes`: byte-level. `growing`: the text of some tokens begins the text of more of them, but for a run of byte tokens
 * at its end. `opaque`: neither is known.
 */
type DecoderKind = 'bytes' | 'growing' | 'opaque';

function decoderKind(decoder: Json | null | undefined): DecoderKind {
  if (decoder === null || decoder === undefined) return 'growing';
  const steps = decoder.type === 'Sequence' ? ((decoder.decoders ?? []) as Json[]) : [decoder];
  if (steps.length === 1 && steps[0]?.type === 'ByteLevel') return 'bytes';
  const growing = steps.every((step, i) => {
    if (['ByteFallback', 'Fuse', 'Metaspace', 'WordPiece'].includes(String(step.type))) return true;
    if (step.type === 'Strip') return step.stop === 0;
    const beforeFuse = steps.findIndex(({ type }) => type === 'Fuse') > i || !steps.some(({ type }) => type === 'Fuse');
    return step.type === 'Replace' && beforeFuse;
  });
  return growing ? 'growing' : 'opaque';
}

function specialTexts({ added_tokens: added }: Json): Set<string> {
  const tokens = Array.isArray(added) ? (added as Json[]) : [];
  return new Set(tokens.filter(({ special }) => special === true).map(({ content }) => String(content)));
}

/** Invalid sequences become U+FFFD, a byte order mark stays: as in Rust. */
function newTextDecoder(): InstanceType<typeof TextDecoder> {
  return new TextDecoder('utf-8', { ignoreBOM: true });
}

function decodeBytes(parts: readonly Uint8Array[]): string {
  return newTextDecoder().decode(Buffer.concat(parts));
}

const CLEAN_UP: readonly (readonly [string, string])[] = [
  [' .', '.'],
  [' ?', '?'],
  [' !', '!'],
  [' ,', ','],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
];

function cleanUpSpaces(text: string): string {
  return CLEAN_UP.reduce((clean, [from, to]) => clean.replaceAll(from, to), text);
}
