/** The tokenizer of a model folder: text and chats to ids, ids to text. */
import { copyFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { InvalidArgumentError } from './errors.js';
import { type HubOptions, modelFolder } from './hub/index.js';
import { HUB_KEYS } from './hub/settings.js';
import { makeGivenFolder } from './make-folder.js';
import { checkOptions, type OptionKeys } from './options.js';
import { byteLevelText } from './tokenizer/byte-level.js';
import {
  type ChatTemplateOptions,
  ChatTemplates,
  chosenTemplates,
  type TemplateMessage,
} from './tokenizer/chat-template.js';
import { checkDefinition } from './tokenizer/check.js';
import { type DecodeOptions, type DecodeStream, Detokenizer } from './tokenizer/decoder.js';
import { type Json, readTokenizerFolder, type TemplateSource, type TokenizerFolder } from './tokenizer/folder.js';
import { GuardedTokenizer } from './tokenizer/guarded.js';
import { buildTokenizer, encodeTexts, type NativeTokenizer } from './tokenizer/native.js';
import { PromptCache } from './tokenizer/prompt-cache.js';
import { eosTokenIds, type StopToken, stopTokenIds } from './tokenizer/stop-tokens.js';

export type { ChatTemplateOptions, TemplateMessage } from './tokenizer/chat-template.js';
export type { DecodeOptions, DecodeStream } from './tokenizer/decoder.js';
export type { StopToken } from './tokenizer/stop-tokens.js';

/** A prompt: text, or a chat that the tokenizer's template renders. */
export type Prompt = string | readonly TemplateMessage[];

export interface TokenizerOptions extends HubOptions {
  /** Instead of the folder's own template: a file, the template's text, or the name of one of several. */
  chatTemplate?: string;
  /** What chat templates read beside the messages, for every prompt, such as `{ date_string: '26 Jul 2024' }`. */
  templateVariables?: Readonly<Record<string, unknown>>;
  /** Ids or texts of tokens that end a response, instead of what generation_config.json says. */
  eosTokens?: readonly StopToken[];
}

export interface EncodeOptions {
  /** What the tokenizer's post-processor adds, such as BOS. Default false; true in `encodePrompt` of a text. */
  addSpecialTokens?: boolean;
  /** Puts the begin-of-sequence id first; an error when the tokenizer has none. Default false. */
  addBos?: boolean;
  /**
   * Whether the text of a special token, such as `<|im_end|>`, becomes that token, as in Python. false for text that is
   * not to be trusted: it is then tokenized like any other. In chats it applies to what the messages hold, never to what
   * the template writes. Default true.
   */
  parseSpecialTokens?: boolean;
}

export interface EncodePromptOptions extends ChatTemplateOptions, Pick<EncodeOptions, 'parseSpecialTokens'> {}

const LOAD: OptionKeys<TokenizerOptions> = {
  ...HUB_KEYS,
  chatTemplate: true,
  templateVariables: true,
  eosTokens: true,
};
const ENCODE: OptionKeys<EncodeOptions> = { addSpecialTokens: true, addBos: true, parseSpecialTokens: true };
const PROMPT: OptionKeys<EncodePromptOptions> = {
  addGenerationPrompt: true,
  tools: true,
  documents: true,
  enableThinking: true,
  variables: true,
  templateName: true,
  parseSpecialTokens: true,
};
const DECODE: OptionKeys<DecodeOptions> = { skipSpecialTokens: true, cleanUpTokenizationSpaces: true };

/** A rendered chat. */
export interface RenderedChat {
  text: string;
  ids: number[];
}

/** Loaded with {@link Tokenizer.load}. Its answers depend on nothing but their arguments (and, in a template, the date). */
export class Tokenizer {
  readonly #native: NativeTokenizer;
  readonly #path: string;
  readonly #files: readonly string[];
  readonly #dir: string;
  readonly #detokenizer: Detokenizer;
  readonly #templates: ChatTemplates;
  readonly #chosen: TemplateSource | null;
  readonly #variables: Readonly<Record<string, unknown>>;
  readonly #added: ReadonlySet<string>;
  readonly #special: readonly string[];
  readonly #cache = new PromptCache();
  #guarded: Promise<GuardedTokenizer> | null = null;
  #endOfTurn: number | null | undefined;
  /**
   * Ids that end a response: the option `eosTokens`, else generation_config.json's, else config.json's, else the
   * tokenizer's own. May be empty.
   */
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId: number | null;
  readonly padTokenId: number | null;
  /** Largest id + 1. A model's vocabulary may be larger (padding), never smaller. */
  readonly vocabSize: number;

  private constructor(
    native: NativeTokenizer,
    dir: string,
    folder: TokenizerFolder,
    templates: ReadonlyMap<string, TemplateSource>,
    options: TokenizerOptions,
  ) {
    const { definition, config } = folder;
    this.#native = native;
    this.#dir = dir;
    this.#path = folder.path;
    this.#files = folder.files;
    // As transformers: the clean-up is made for WordPiece and would turn the `x , y` of a byte-pair model into `x, y`.
    const cleanUp = config.clean_up_tokenization_spaces === true && definition.model.type !== 'BPE';
    this.#detokenizer = new Detokenizer(native, definition, cleanUp);
    this.#templates = new ChatTemplates(templates, specialTokenMap(config), folder.path);
    this.#chosen = options.chatTemplate ? (templates.get('default') ?? null) : null;
    this.#variables = options.templateVariables ?? {};
    const added = addedTokens(definition);
    this.#added = new Set(added.map(({ content }) => String(content)));
    this.#special = added.filter(({ special }) => special === true).map(({ content }) => String(content));
    this.vocabSize = vocabularySize(definition);
    this.bosTokenId = this.#specialId(config, 'bos_token');
    this.padTokenId = this.#specialId(config, 'pad_token');
    this.eosTokenIds = options.eosTokens
      ? this.stopTokenIds(options.eosTokens)
      : eosTokenIds(folder.generation, folder.model, this.#specialId(config, 'eos_token'));
  }

  /**
   * Reads `tokenizer.json` (and, where they are, `tokenizer_config.json`, `generation_config.json`, `config.json` and chat
   * templates).
   *
   * @param model - a folder, or `owner/name` on the Hugging Face hub, of which only the small files are downloaded.
   * @throws InvalidFileError naming the file that is missing or broken, the usual chat template too; HubError where a
   *   download fails.
   */
  static async load(model: string, options: TokenizerOptions = {}): Promise<Tokenizer> {
    checkOptions(options, LOAD, 'Tokenizer.load');
    const { chatTemplate: _template, templateVariables: _variables, eosTokens: _eos, ...hub } = options;
    const dir = await modelFolder(model, { ...hub, weights: false });
    const folder = await readTokenizerFolder(dir);
    checkDefinition(folder.definition, folder.path);
    const native = buildTokenizer(folder.text, folder.path);
    const templates = await chosenTemplates(folder.templates, options.chatTemplate);
    const tokenizer = new Tokenizer(native, dir, folder, templates, options);
    tokenizer.#templates.check();
    return tokenizer;
  }

  /** Ids of a text; without special tokens around it unless asked for. Runs outside of JavaScript's thread. */
  async encode(text: string, options: EncodeOptions = {}): Promise<number[]> {
    const [ids] = await this.encodeBatch([text], options);
    return ids as number[];
  }

  /** Ids of many texts, on all cores: much faster than one by one. */
  async encodeBatch(texts: readonly string[], options: EncodeOptions = {}): Promise<number[][]> {
    checkOptions(options, ENCODE, 'tokenizer.encode');
    const { addSpecialTokens = false, addBos = false, parseSpecialTokens = true } = options;
    const bos = this.bosTokenId;
    if (addBos && bos === null) throw new InvalidArgumentError('addBos: this tokenizer has no bos_token');
    const at = texts.findIndex((text) => typeof text !== 'string');
    if (at >= 0) throw new InvalidArgumentError(`text ${at} is not a text but ${typeof texts[at]}`);
    const ids = parseSpecialTokens
      ? await encodeTexts(this.#native, texts, addSpecialTokens)
      : await (await this.#guard()).encode(texts, addSpecialTokens);
    return addBos ? ids.map((list) => [bos as number, ...list]) : ids;
  }

  /**
   * Ids of a prompt as the model expects it. A text gets what the post-processor puts around it (BOS, or nothing; no
   * second BOS where the text begins with one). A chat is rendered by the chat template with the beginning of the
   * assistant's turn.
   *
   * @throws InvalidArgumentError, InvalidFileError or UnsupportedError as {@link Tokenizer.applyChatTemplate}
   */
  async encodePrompt(prompt: Prompt, options: EncodePromptOptions = {}): Promise<number[]> {
    const [ids] = await this.encodePrompts([prompt], options);
    return ids as number[];
  }

  /** `encodePrompt` of many. A prompt that was asked for before is not tokenized again. */
  async encodePrompts(prompts: readonly Prompt[], options: EncodePromptOptions = {}): Promise<number[][]> {
    checkOptions(options, PROMPT, 'tokenizer.encodePrompt');
    const keys = prompts.map((prompt) => JSON.stringify([prompt, options]));
    const missing = [...new Set(keys.keys())].filter((i) => !this.#cache.has(keys[i] as string));
    const fresh = new Map<string, number[]>();
    const encode = async (indices: number[], make: (prompts: Prompt[]) => Promise<number[][]>): Promise<void> => {
      const made = await make(indices.map((i) => prompts[i] as Prompt));
      for (const [k, i] of indices.entries()) fresh.set(keys[i] as string, made[k] as number[]);
    };
    const isText = (i: number): boolean => typeof prompts[i] === 'string';
    await encode(missing.filter(isText), (texts) => this.#encodeTextPrompts(texts as string[], options));
    await encode(
      missing.filter((i) => !isText(i)),
      async (chats) =>
        (await this.#chats(chats as TemplateMessage[][], { addGenerationPrompt: true, ...options })).map(
          ({ ids }) => ids,
        ),
    );
    return keys.map((key) => {
      const ids = fresh.get(key) ?? this.#cache.get(key);
      this.#cache.set(key, ids as number[]);
      return [...(ids as number[])];
    });
  }

  /**
   * Renders a chat as transformers does, text and ids. Special tokens in the rendered text are parsed as such (see
   * `parseSpecialTokens`), and none is added: templates write their own BOS.
   *
   * Templates come with the model and are bounded in what they compute; see docs/tokenizers.md.
   *
   * @throws InvalidArgumentError where the template refuses the messages; InvalidFileError naming a template that cannot
   *   be parsed or fails; UnsupportedError where the folder has none
   */
  async applyChatTemplate(
    messages: readonly TemplateMessage[],
    options: EncodePromptOptions = {},
  ): Promise<RenderedChat> {
    checkOptions(options, PROMPT, 'tokenizer.applyChatTemplate');
    const [chat] = await this.#chats([messages], options);
    return chat as RenderedChat;
  }

  /** Names of the chat templates; empty where there is none. */
  get chatTemplateNames(): readonly string[] {
    return this.#templates.names;
  }

  /** The text of ids. Ids without a token (a model's vocabulary may be padded) have no text. */
  decode(ids: readonly number[], options: DecodeOptions = {}): string {
    checkOptions(options, DECODE, 'tokenizer.decode');
    return this.#detokenizer.decode(ids, options);
  }

  /** Text of ids as they come: pieces that are final and never end within a character. */
  stream(options: DecodeOptions = {}): DecodeStream {
    checkOptions(options, DECODE, 'tokenizer.stream');
    return this.#detokenizer.stream(options);
  }

  /** The id of a text that is exactly one token, `<|im_end|>` or ` the`; null where it is none or several. */
  tokenId(text: string): number | null {
    if (this.#added.has(text)) return this.#native.tokenToId(text);
    return this.#native.tokenToId(this.#detokenizer.isByteLevel ? byteLevelText(text) : text);
  }

  /**
   * Ids of stop tokens given by id or text.
   *
   * @throws InvalidArgumentError naming one that the tokenizer does not have
   */
  stopTokenIds(tokens: readonly StopToken[]): number[] {
    return stopTokenIds(tokens, (text) => this.tokenId(text), this.vocabSize, this.#special);
  }

  /**
   * The token that ends a turn in the chat template, such as `<|im_end|>`; null without a template or where it ends turns
   * in another way. A base model's `eosTokenIds` often lack it.
   */
  get endOfTurnTokenId(): number | null {
    this.#endOfTurn ??= this.#findEndOfTurn();
    return this.#endOfTurn;
  }

  /**
   * @param model - the model's name, for the error
   * @throws InvalidArgumentError where the tokenizer has ids that the model has no embedding for
   */
  checkVocabulary(modelVocabSize: number, model = 'the model'): void {
    if (this.vocabSize <= modelVocabSize) return;
    throw new InvalidArgumentError(
      `${this.#path} has ids up to ${this.vocabSize - 1}, but the vocabulary of ${model} has only ` +
        `${modelVocabSize} (vocab_size in config.json): the tokenizer belongs to another model`,
    );
  }

  /** The tokenizer's files, to be copied into a saved model: absolute or relative as the folder was. */
  files(): readonly string[] {
    return this.#files.map((name) => join(this.#dir, name));
  }

  /** Copies the tokenizer's files into a folder; a template given as `chatTemplate` becomes its chat_template.jinja. */
  async save(dir: string): Promise<void> {
    for (const name of this.#files) {
      const target = join(dir, name);
      makeGivenFolder(dirname(target));
      await copyFile(join(this.#dir, name), target);
    }
    if (this.#chosen !== null) await writeFile(join(dir, 'chat_template.jinja'), this.#chosen.text);
  }

  async #encodeTextPrompts(
    texts: readonly string[],
    { parseSpecialTokens = true }: EncodePromptOptions,
  ): Promise<number[][]> {
    const lists = await this.encodeBatch(texts, { addSpecialTokens: true, parseSpecialTokens });
    const bos = this.bosTokenId;
    return lists.map((ids) => (bos !== null && ids[0] === bos && ids[1] === bos ? ids.slice(1) : ids));
  }

  async #chats(chats: readonly (readonly TemplateMessage[])[], options: EncodePromptOptions): Promise<RenderedChat[]> {
    const { parseSpecialTokens = true } = options;
    const variables = { ...this.#variables, ...options.variables };
    const texts: string[] = [];
    const encoded: string[] = [];
    for (const messages of chats) {
      if (parseSpecialTokens) {
        const text = this.#templates.render(messages, { ...options, variables });
        texts.push(text);
        encoded.push(text);
      } else {
        const guard = await this.#guard();
        const { tools, documents } = options;
        const marked = {
          ...options,
          variables,
          ...(tools && { tools: guard.mark(tools) }),
          ...(documents && { documents: guard.mark(documents) }),
        };
        const { text, guarded } = guard.unmark(this.#templates.render(guard.mark(messages), marked));
        texts.push(text);
        encoded.push(guarded);
      }
    }
    const ids = parseSpecialTokens
      ? await encodeTexts(this.#native, encoded, false)
      : await (await this.#guard()).encode(encoded, false);
    return texts.map((text, i) => ({ text, ids: ids[i] as number[] }));
  }

  /** Made when it is first needed: it takes as much memory as the tokenizer itself. */
  #guard(): Promise<GuardedTokenizer> {
    this.#guarded ??= readTokenizerFolder(this.#dir).then(({ definition, path }) => {
      checkDefinition(definition, path);
      return new GuardedTokenizer(definition, path);
    });
    return this.#guarded;
  }

  /** What follows an assistant's words in the template begins with the token that ends the turn. */
  #findEndOfTurn(): number | null {
    if (this.#templates.names.length === 0) return null;
    const words = 'eepo-end-of-turn';
    let text: string;
    try {
      text = this.#templates.render(
        [
          { role: 'user', content: 'a' },
          { role: 'assistant', content: words },
        ],
        { variables: this.#variables },
      );
    } catch {
      // A template that does not take this chat has no end of turn that could be known; prompts fail by themselves.
      return null;
    }
    const rest = text.slice(text.lastIndexOf(words) + words.length).trimStart();
    const token = this.#special.find((special) => special !== '' && rest.startsWith(special));
    return token === undefined ? null : this.#native.tokenToId(token);
  }

  #specialId(config: Json, key: string): number | null {
    const content = contentOf(config[key]);
    return content === null ? null : this.#native.tokenToId(content);
  }
}

const SPECIAL_KEYS = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'];

/** The special tokens' texts by their names: variables of chat templates. */
function specialTokenMap(config: Json): Record<string, string> {
  const extra = config.extra_special_tokens;
  const named = typeof extra === 'object' && extra !== null && !Array.isArray(extra) ? (extra as Json) : {};
  const pairs = [...SPECIAL_KEYS.map((key) => [key, config[key]] as const), ...Object.entries(named)];
  return Object.fromEntries(
    pairs.flatMap(([key, value]) => {
      const content = contentOf(value);
      return content === null ? [] : [[key, content]];
    }),
  );
}

/** A special token is written as its text or as an object with `content`. */
function contentOf(entry: unknown): string | null {
  const content = typeof entry === 'object' && entry !== null ? (entry as Json).content : entry;
  return typeof content === 'string' ? content : null;
}

function addedTokens({ added_tokens: added }: Json): Json[] {
  return Array.isArray(added) ? (added as Json[]) : [];
}

function vocabularySize(definition: TokenizerFolder['definition']): number {
  const { vocab } = definition.model;
  const listed = Array.isArray(vocab) ? vocab.length : 0;
  const ids = Array.isArray(vocab) ? [] : Object.values((vocab ?? {}) as Record<string, number>);
  const added = addedTokens(definition).map(({ id }) => Number(id));
  return [...ids, ...added].reduce((size, id) => Math.max(size, id + 1), listed);
}
