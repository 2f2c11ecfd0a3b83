/** Chats to text, as transformers renders them. */
import { EepoError, InvalidArgumentError, InvalidFileError, UnsupportedError } from '../errors.js';
import { readTemplateFile, type TemplateSource } from './folder.js';
import { JinjaTemplate, TemplateRefusal } from './jinja.js';
import { TemplateLimit } from './jinja-budget.js';

/** A message of a chat. Templates may read more than its role and content: `tool_calls`, `reasoning_content`, ... */
export interface TemplateMessage {
  readonly role: string;
  /** Usually a text; some templates take lists of parts. */
  readonly content?: unknown;
  readonly tool_calls?: unknown;
  readonly tool_call_id?: unknown;
  readonly name?: unknown;
  readonly reasoning_content?: unknown;
}

/** What a chat template is given beside the messages. */
export interface ChatTemplateOptions {
  /** Ends with the beginning of the assistant's turn. Default false; `encodePrompt` sets it. */
  addGenerationPrompt?: boolean;
  /** JSON schemas of functions that the model may call. */
  tools?: readonly Record<string, unknown>[];
  /** `{ title, text }` each. */
  documents?: readonly Record<string, unknown>[];
  /** Qwen3: false puts an empty thought before the answer. Default: what the template does without it. */
  enableThinking?: boolean;
  /** Anything else that the template reads, such as `date_string`. */
  variables?: Readonly<Record<string, unknown>>;
  /** One of several templates by name. Default: `tool_use` where there are tools and it exists, else `default`. */
  templateName?: string;
}

/** A data set has thousands of prompts: a template that stays just within its bound would still never end. */
const SLOW_MS = 1000;
const MAX_SLOW = 20;

/** The templates of one tokenizer; all but the usual one are parsed when they are first used. */
export class ChatTemplates {
  readonly #sources: ReadonlyMap<string, TemplateSource>;
  readonly #specialTokens: Readonly<Record<string, string>>;
  readonly #place: string;
  readonly #parsed = new Map<string, JinjaTemplate>();
  #slow = 0;

  /**
   * @param specialTokens - `bos_token`, `eos_token`, ..., which templates read
   * @param place - the tokenizer's file, for errors
   */
  constructor(
    sources: ReadonlyMap<string, TemplateSource>,
    specialTokens: Readonly<Record<string, string>>,
    place: string,
  ) {
    this.#sources = sources;
    this.#specialTokens = specialTokens;
    this.#place = place;
  }

  get names(): string[] {
    return [...this.#sources.keys()];
  }

  /** Parses the usual template, where there is one. @throws InvalidFileError naming it where it cannot be parsed */
  check(): void {
    if (this.#sources.has('default')) this.#template('default');
  }

  /**
   * @throws InvalidArgumentError where the template refuses the messages; InvalidFileError naming a template that cannot
   *   be parsed or fails; UnsupportedError where there is none
   */
  render(messages: readonly TemplateMessage[], options: ChatTemplateOptions = {}): string {
    checkMessages(messages);
    if (this.#slow > MAX_SLOW) throw this.#tooSlow();
    const name = this.#choose(options);
    const { file } = this.#sources.get(name) as TemplateSource;
    const { addGenerationPrompt = false, tools, documents, enableThinking, variables } = options;
    const template = this.#template(name);
    const began = performance.now();
    try {
      return template.render(
        {
          ...this.#specialTokens,
          ...variables,
          ...(enableThinking === undefined ? {} : { enable_thinking: enableThinking }),
          messages,
          tools: tools ?? null,
          documents: documents ?? null,
          add_generation_prompt: addGenerationPrompt,
        },
        new Date(),
      );
    } catch (cause) {
      throw explained(cause, file);
    } finally {
      if (performance.now() - began > SLOW_MS) this.#slow += 1;
    }
  }

  #tooSlow(): InvalidFileError {
    return new InvalidFileError(
      `${this.#place}: its chat template took longer than ${SLOW_MS / 1000} s for each of ${MAX_SLOW} chats; others take ` +
        'a thousandth of it: give another one with the option chatTemplate',
    );
  }

  #template(name: string): JinjaTemplate {
    let template = this.#parsed.get(name);
    if (template === undefined) {
      const { text, file } = this.#sources.get(name) as TemplateSource;
      try {
        template = new JinjaTemplate(text);
      } catch (cause) {
        throw new InvalidFileError(
          `${file}: the chat template cannot be parsed: ${(cause as Error).message}; give another one with chatTemplate`,
          { cause },
        );
      }
      this.#parsed.set(name, template);
    }
    return template;
  }

  #choose({ templateName, tools }: ChatTemplateOptions): string {
    if (this.#sources.size === 0) {
      throw new UnsupportedError(
        `a chat needs a chat template, and beside ${this.#place} there is none (chat_template.jinja, or "chat_template" ` +
          'in tokenizer_config.json); give one with the option chatTemplate, or pass rendered text as the prompt',
      );
    }
    const usual = tools !== undefined && this.#sources.has('tool_use') ? 'tool_use' : 'default';
    const name = templateName ?? usual;
    if (this.#sources.has(name)) return name;
    throw new InvalidArgumentError(
      `beside ${this.#place} there is no chat template ${JSON.stringify(name)}; there is ${this.names.join(', ')}. ` +
        'Choose one with templateName',
    );
  }
}

function checkMessages(messages: readonly TemplateMessage[]): void {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw new InvalidArgumentError('messages must be a list of at least one { role, content }');
  }
  const at = messages.findIndex((message) => typeof message?.role !== 'string');
  if (at >= 0) throw new InvalidArgumentError(`messages[${at}] has no role; a message is { role, content }`);
}

function explained(cause: unknown, file: string): EepoError {
  if (cause instanceof EepoError) return cause;
  const message = cause instanceof Error ? cause.message : String(cause);
  if (cause instanceof TemplateRefusal) {
    return new InvalidArgumentError(`${file}: the chat template refuses these messages: ${message}`, { cause });
  }
  const what = cause instanceof TemplateLimit ? 'the chat template computes too much' : 'the chat template fails';
  return new InvalidFileError(`${file}: ${what}: ${message}`, { cause });
}

/**
 * The templates that hold with the user's choice: a template's text, the name of one the folder has, or a file.
 *
 * @throws InvalidArgumentError where the choice is neither
 */
export async function chosenTemplates(
  own: ReadonlyMap<string, TemplateSource>,
  choice: string | undefined,
): Promise<ReadonlyMap<string, TemplateSource>> {
  if (choice === undefined || choice === '') return own;
  if (/\{[{%#]/.test(choice)) return new Map([['default', { text: choice, file: 'chatTemplate' }]]);
  const named = own.get(choice);
  if (named !== undefined) return new Map([...own, ['default', named]]);
  const file = await readTemplateFile(choice);
  if (file !== null) return new Map([['default', file]]);
  throw new InvalidArgumentError(
    `chatTemplate ${JSON.stringify(choice)} is neither a file nor a template of the model (${[...own.keys()].join(', ') || 'it has none'})`,
  );
}
