/** The tokenizer of a model folder: text to ids and back. */
import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { InvalidArgumentError, InvalidFileError, UnsupportedError } from './errors.js';
import { type HubOptions, modelFolder } from './hub/index.js';

/** What belongs to a tokenizer in a model folder; only `tokenizer.json` is required. */
const FILES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'tokenizer.model',
  'chat_template.jinja',
];

type Json = Record<string, unknown>;

/** Loaded with {@link Tokenizer.load}. Stateless, so one instance may serve everything. */
export class Tokenizer {
  readonly #inner: HuggingFaceTokenizer;
  readonly #files: readonly string[];
  readonly #cleanUp: boolean;
  /** Ids that end a response: generation_config.json's (or config.json's), and the tokenizer's own. May be empty. */
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId: number | null;
  readonly padTokenId: number | null;
  /** Largest id + 1. A model's vocabulary may be larger (padding), never smaller. */
  readonly vocabSize: number;

  private constructor(
    inner: HuggingFaceTokenizer,
    files: readonly string[],
    config: Json,
    modelEos: readonly number[],
  ) {
    this.#inner = inner;
    this.#files = files;
    // Off unless asked for, as in transformers: it would turn `x , y` into `x, y`.
    this.#cleanUp = config.clean_up_tokenization_spaces === true;
    this.vocabSize = [...inner.get_vocab().values()].reduce((size, id) => Math.max(size, id + 1), 0);
    this.bosTokenId = this.#specialId(config, 'bos_token');
    this.padTokenId = this.#specialId(config, 'pad_token');
    const eos = this.#specialId(config, 'eos_token');
    this.eosTokenIds = [...new Set(eos === null ? modelEos : [...modelEos, eos])];
  }

  /**
   * Reads `tokenizer.json` (and, where they are, `tokenizer_config.json`, `generation_config.json`, `config.json`).
   *
   * @param model - a folder, or `owner/name` on the Hugging Face hub, of which only the small files are downloaded.
   * @throws InvalidFileError naming the file that is missing or broken; HubError where a download fails.
   */
  static async load(model: string, options: HubOptions = {}): Promise<Tokenizer> {
    const dir = await modelFolder(model, { ...options, weights: false });
    const path = join(dir, 'tokenizer.json');
    const definition = await readJson(path);
    if (definition === null) {
      throw new InvalidFileError(
        `${path}: no such file. A model folder needs the Hugging Face tokenizer.json beside its config.json`,
      );
    }
    if (typeof definition.model !== 'object' || definition.model === null) {
      throw new InvalidFileError(`${path}: "model" is missing; this is not a Hugging Face tokenizer.json`);
    }
    const config = (await readJson(join(dir, 'tokenizer_config.json'))) ?? {};
    const generation = (await readJson(join(dir, 'generation_config.json'))) ?? {};
    const modelConfig = (await readJson(join(dir, 'config.json'))) ?? {};
    let inner: HuggingFaceTokenizer;
    try {
      inner = new HuggingFaceTokenizer(withDefaults(definition), config);
    } catch (cause) {
      throw new InvalidFileError(`${path}: cannot build this tokenizer: ${messageOf(cause)}`, { cause });
    }
    const modelEos = idsOf(generation.eos_token_id ?? modelConfig.eos_token_id);
    return new Tokenizer(inner, await existing(dir), config, modelEos);
  }

  /**
   * Ids of a text, without special tokens.
   *
   * @param options.addBos puts the begin-of-sequence id first; an error when the tokenizer has none. Default false.
   */
  encode(text: string, { addBos = false }: { addBos?: boolean } = {}): number[] {
    const ids = this.#encode(text, false);
    if (!addBos) return ids;
    if (this.bosTokenId === null) throw new InvalidArgumentError('addBos: this tokenizer has no bos_token');
    return [this.bosTokenId, ...ids];
  }

  /** Ids of a prompt with the special tokens that the model expects before it (its post-processor: BOS, or nothing). */
  encodePrompt(prompt: string | readonly { role: string; content: string }[]): number[] {
    if (typeof prompt !== 'string') {
      throw new UnsupportedError(
        'a prompt made of chat messages needs a chat template, which this version does not render; pass the rendered text',
      );
    }
    return this.#encode(prompt, true);
  }

  /**
   * The text of ids. Ids that the tokenizer does not know (a model's vocabulary may be padded) have no text.
   *
   * @param options.skipSpecialTokens leaves out special tokens. Default true.
   */
  decode(ids: readonly number[], { skipSpecialTokens = true }: { skipSpecialTokens?: boolean } = {}): string {
    const known = ids.filter((id) => this.#inner.id_to_token(id) !== undefined);
    if (known.length === 0) return '';
    return this.#inner.decode(known, {
      skip_special_tokens: skipSpecialTokens,
      clean_up_tokenization_spaces: this.#cleanUp,
    });
  }

  /** The tokenizer's files, to be copied into a saved model: absolute or relative as `dir` was. */
  files(): readonly string[] {
    return this.#files;
  }

  #encode(text: string, addSpecialTokens: boolean): number[] {
    const encoding = this.#inner.encode(text, { add_special_tokens: addSpecialTokens });
    const { ids, tokens } = encoding as { ids: number[]; tokens: string[] };
    const unknown = ids.findIndex((id) => !Number.isInteger(id));
    if (unknown >= 0) {
      throw new InvalidArgumentError(
        `${JSON.stringify(tokens[unknown])} is not in the tokenizer's vocabulary, and it has no unknown token`,
      );
    }
    return ids;
  }

  #specialId(config: Json, key: string): number | null {
    const entry = config[key];
    const content = typeof entry === 'object' && entry !== null ? (entry as Json).content : entry;
    return typeof content === 'string' ? (this.#inner.token_to_id(content) ?? null) : null;
  }
}

/** Parts that a tokenizer.json may leave out. */
function withDefaults(definition: Json): Json {
  const absent = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, added_tokens: [] };
  return { ...absent, ...definition };
}

async function readJson(path: string): Promise<Json | null> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new InvalidFileError(`${path}: cannot be read: ${messageOf(cause)}`, { cause });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new InvalidFileError(`${path}: not valid JSON: ${messageOf(cause)}`, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new InvalidFileError(`${path}: must hold a JSON object`);
  }
  return value as Json;
}

async function existing(dir: string): Promise<string[]> {
  const paths = FILES.map((name) => join(dir, name));
  const there = await Promise.all(
    paths.map((path) =>
      access(path).then(
        () => true,
        () => false,
      ),
    ),
  );
  return paths.filter((_, i) => there[i]);
}

function idsOf(value: unknown): number[] {
  return (Array.isArray(value) ? value : [value]).filter((id): id is number => Number.isInteger(id));
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
