/** A task from files of prompts and answers: JSON lines, JSON or Parquet, of this machine or of the hub. */
import { AbortedError, InvalidArgumentError, InvalidFileError } from '../errors.js';
import type { HubOptions } from '../hub/index.js';
import { checkOptions, type OptionKeys, SIGNAL } from '../options.js';
import { encodeAll, type PromptEncoder } from '../tokenizer/prompts.js';
import { isAnswer, isBlank } from './answers.js';
import { isChat, PROMPT_KEYS, type PromptMaker, type PromptOptions, promptMaker } from './data/prompts.js';
import { readParquet } from './data/read-parquet.js';
import { readJsonDocument, readJsonLines } from './data/read-text.js';
import { RowMemory } from './data/row-memory.js';
import { columnValue, type PlacedRow, type Row, shown, topColumn } from './data/rows.js';
import { type DataFile, type DataFormat, findDataFiles, formatOf } from './data/source.js';
import { hubFetch } from './hub.js';
import { Random } from './random.js';
import type { ChatMessage, Problem, RewardFunction, Task } from './types.js';
import { VERIFIERS, type VerifierName, verifierReward } from './verifiers.js';

/** What counts the tokens of a prompt; `Tokenizer` does. */
export type PromptTokenizer = PromptEncoder;

export interface DatasetOptions extends PromptOptions {
  /**
   * Files by split: `{ train: 'train.jsonl.gz', test: ['a.parquet', 'b/*.parquet'] }`. A path, a pattern with `*` and
   * `?`, or `hf://datasets/OWNER/NAME/FILE`. The ending says how a file is read: `.jsonl`, `.json`, `.parquet`, the
   * first two also with `.gz`.
   */
  files: Readonly<Record<string, string | readonly string[]>>;
  /** How a file of another ending is read. Default 'jsonl'. */
  format?: DataFormat;
  /** Default 'jsonl'. */
  name?: string;
  /**
   * Column of the prompt: text, or a list of chat messages, which is taken as it is. Dots lead into structs and lists:
   * `prompt.0.content`. Default: the first of `prompt`, `problem`, `question`.
   */
  promptColumn?: string;
  /** Column of the gold answer, e.g. `reward_model.ground_truth`. Default: the first of `answer`, `answers`. */
  answerColumn?: string;
  /** Columns kept in `problem.meta`, for rewards of one's own. Default all others; [] saves memory. */
  metaColumns?: readonly string[];
  /** Rows for which it is false are left out, counted in `notes`. */
  filter?: (row: Readonly<Row>, split: string, where: string) => boolean;
  /** Longer prompts are left out, counted in `notes`. Needs `tokenizer`. */
  maxPromptTokens?: number;
  tokenizer?: PromptTokenizer;
  /** Default 'math'. */
  reward?: VerifierName | RewardFunction;
  /** Order of every split: a seed, or null for the order of the files. Default null. */
  shuffleSeed?: number | null;
  /** Keep at most so many problems, after shuffling and filtering: of each split, or by split. Default all. */
  maxProblems?: number | Readonly<Record<string, number>>;
  /** Leave out of `train` what is asked in another split too. Default false: only counted in `notes`. */
  dropEvalPrompts?: boolean;
  /** How the hub is used for `hf://` files; a revision stands in their address. */
  hub?: Omit<HubOptions, 'revision'>;
  signal?: AbortSignal;
}

export const DATASET_KEYS: OptionKeys<DatasetOptions> = {
  ...PROMPT_KEYS,
  files: true,
  format: true,
  name: true,
  promptColumn: true,
  answerColumn: true,
  metaColumns: true,
  filter: true,
  maxPromptTokens: true,
  tokenizer: true,
  reward: true,
  shuffleSeed: true,
  maxProblems: true,
  dropEvalPrompts: true,
  hub: true,
  ...SIGNAL,
};

/** What a preset adds to the options. */
export interface DatasetRules {
  promptColumns: readonly string[];
  answerColumns: readonly string[];
  /** The answer in a column. Default: as it stands. */
  answerOf?: (value: unknown, column: string, where: string) => unknown;
}

const USUAL: DatasetRules = { promptColumns: ['prompt', 'problem', 'question'], answerColumns: ['answer', 'answers'] };

/**
 * Loads every file, row by row. A row's answer is a string, a number, or a list of accepted ones; of a worked solution
 * that ends in `#### x` or `\boxed{x}`, x is the answer. Rows whose answer is empty text are left out, counted in
 * `notes`.
 *
 * @throws InvalidFileError naming file and line (of Parquet: row); InvalidArgumentError naming the option
 */
export async function datasetTask(options: DatasetOptions, rules: DatasetRules = USUAL): Promise<Task> {
  checkOptions(options, DATASET_KEYS, 'datasetTask');
  checkDataset(options);
  const { name = 'jsonl', reward = 'math' } = options;
  const makePrompt = promptMaker(options);
  const notes: string[] = [];
  const splits: Record<string, readonly Problem[]> = {};
  // The training split last: what is asked elsewhere is known by then.
  const names = Object.keys(options.files).sort((x, y) => Number(x === 'train') - Number(y === 'train'));
  const asked = new Set<string>();
  for (const split of names) {
    const loader = new SplitLoader(split, options, rules, makePrompt, split === 'train' ? asked : new Set());
    splits[split] = await loader.load();
    notes.push(...loader.notes());
    if (split !== 'train') for (const { prompt } of splits[split]) asked.add(promptKey(prompt));
  }
  const inOrder = Object.fromEntries(Object.keys(options.files).map((split) => [split, splits[split] as Problem[]]));
  return { name, splits: inOrder, notes, reward: typeof reward === 'function' ? reward : verifierReward(reward) };
}

/** Prompts that are tokenized at once, where their number is limited. */
const ENCODED_AT_ONCE = 512;

/** Reads the files of one split. */
class SplitLoader {
  readonly #split: string;
  readonly #options: DatasetOptions;
  readonly #rules: DatasetRules;
  readonly #makePrompt: PromptMaker;
  /** Prompts of the other splits. */
  readonly #asked: ReadonlySet<string>;
  readonly #label: string;
  readonly #memory: RowMemory;
  #rows = 0;
  #filtered = 0;
  #blank = 0;
  #overlap = 0;
  #measured = 0;
  #long = 0;

  constructor(
    split: string,
    options: DatasetOptions,
    rules: DatasetRules,
    makePrompt: PromptMaker,
    asked: ReadonlySet<string>,
  ) {
    this.#split = split;
    this.#options = options;
    this.#rules = rules;
    this.#makePrompt = makePrompt;
    this.#asked = asked;
    this.#label = pathsOf(options, split).join(', ');
    this.#memory = new RowMemory(this.#label);
  }

  async load(): Promise<Problem[]> {
    const limit = limitOf(this.#options, this.#split);
    const kept: Problem[] = [];
    let batch: Problem[] = [];
    const take = async (): Promise<void> => {
      const fitting = await this.#fitting(batch);
      if (!this.#shuffled) for (const problem of fitting) this.#memory.add(problem);
      kept.push(...fitting);
      batch = [];
    };
    for await (const problem of this.#inOrder()) {
      batch.push(problem);
      // No row is read that the limit leaves out.
      if (batch.length >= Math.min(ENCODED_AT_ONCE, limit - kept.length)) await take();
      if (kept.length >= limit) return kept;
    }
    await take();
    if (kept.length > 0) return kept;
    throw new InvalidFileError(`${this.#label}: no problems left for split '${this.#split}': ${this.#why()}`);
  }

  get #shuffled(): boolean {
    return (this.#options.shuffleSeed ?? null) !== null;
  }

  /** As they are read, or shuffled, which needs them all. */
  async *#inOrder(): AsyncGenerator<Problem> {
    if (!this.#shuffled) {
      yield* this.#problems();
      return;
    }
    const all: Problem[] = [];
    for await (const problem of this.#problems()) {
      this.#memory.add(problem);
      all.push(problem);
    }
    yield* new Random(this.#options.shuffleSeed as number).shuffle(all);
  }

  async *#problems(): AsyncGenerator<Problem> {
    const { hub, signal } = this.#options;
    const files = await findDataFiles(pathsOf(this.#options, this.#split), hubFetch(hub), signal);
    for (const [index, file] of files.entries()) {
      const prefix = files.length > 1 ? `${this.#split}:${index + 1}` : this.#split;
      for await (const placed of this.#read(file)) {
        if (signal?.aborted) throw new AbortedError(`${file.name}: reading was aborted`, { cause: signal.reason });
        const problem = this.#problem(placed, prefix);
        if (problem !== null) yield problem;
      }
    }
  }

  /** One line for each kind of row that was left out. */
  notes(): string[] {
    const { maxPromptTokens, dropEvalPrompts } = this.#options;
    const overlap = dropEvalPrompts ? 'are left out' : 'stay; dropEvalPrompts leaves them out';
    return [
      [this.#filtered, `of ${this.#rows} rows are left out by the filter`],
      [this.#blank, `of ${this.#rows} rows have an empty answer and are left out`],
      [this.#overlap, `of ${this.#rows} prompts are also asked in another split and ${overlap}`],
      [this.#long, `of ${this.#measured} prompts are longer than ${maxPromptTokens} tokens`],
    ].flatMap(([count, what]) => ((count as number) > 0 ? [`${this.#label}: ${count} ${what}`] : []));
  }

  #read(file: DataFile): AsyncGenerator<PlacedRow> {
    const format = formatOf(file.name, this.#options.format ?? 'jsonl');
    if (format === 'jsonl') return readJsonLines(file);
    return format === 'json' ? readJsonDocument(file) : readParquet(file, this.#wantedColumns());
  }

  /** Of a Parquet file only what is used need be read; undefined: everything is. */
  #wantedColumns(): string[] | undefined {
    const { promptColumn, answerColumn, metaColumns, filter } = this.#options;
    if (metaColumns === undefined || filter !== undefined) return undefined;
    const names = [
      ...(promptColumn === undefined ? this.#rules.promptColumns : [promptColumn]),
      ...(answerColumn === undefined ? this.#rules.answerColumns : [answerColumn]),
      ...metaColumns,
    ];
    return names.flatMap((name) => [name, name.split('.')[0] as string]);
  }

  /** null for a row that is left out. */
  #problem({ row, number, where }: PlacedRow, prefix: string): Problem | null {
    const { promptColumn, answerColumn, filter } = this.#options;
    this.#rows += 1;
    if (filter !== undefined && !filter(row, this.#split, where)) {
      this.#filtered += 1;
      return null;
    }
    const promptName = findColumn(row, promptColumn, this.#rules.promptColumns, 'promptColumn', where);
    const answerName = findColumn(row, answerColumn, this.#rules.answerColumns, 'answerColumn', where);
    const raw = columnValue(row, answerName);
    const answer = this.#rules.answerOf === undefined ? raw : this.#rules.answerOf(raw, answerName, where);
    if (!isAnswer(answer)) {
      throw new InvalidFileError(
        `${where}: "${answerName}" must be a string, a number or a list of these, got ${shown(answer)}`,
      );
    }
    const prompt = this.#prompt(columnValue(row, promptName), promptName, where);
    if (isBlank(answer)) {
      this.#blank += 1;
      return null;
    }
    if (this.#asked.size > 0 && this.#asked.has(promptKey(prompt))) {
      this.#overlap += 1;
      if (this.#options.dropEvalPrompts) return null;
    }
    return { id: `${prefix}:${number}`, prompt, answer, meta: this.#meta(row, promptName, answerName, answer !== raw) };
  }

  #prompt(value: unknown, column: string, where: string): string | ChatMessage[] {
    if (typeof value === 'string' && value.trim() !== '') return this.#makePrompt(value);
    if (!isChat(value)) {
      throw new InvalidFileError(
        `${where}: "${column}" must be a non-empty string or a list of { role, content } messages, got ${shown(value)}`,
      );
    }
    const { template, system } = this.#options;
    if (template === undefined && system === undefined) return value.map(({ role, content }) => ({ role, content }));
    throw new InvalidFileError(
      `${where}: "${column}" is a chat, which is taken as it is; for a template, name a column of text ` +
        `(such as ${column}.${value.length - 1}.content) with promptColumn`,
    );
  }

  /** What is left of a row; a worked solution that an answer was taken from stays. */
  #meta(row: Row, promptName: string, answerName: string, keepAnswer: boolean): Row {
    const { metaColumns } = this.#options;
    const names = metaColumns?.filter((name) => columnValue(row, name) !== undefined) ?? Object.keys(row);
    const used = new Set([topColumn(row, promptName), ...(keepAnswer ? [] : [answerName])]);
    return Object.fromEntries(
      names
        .filter((name) => metaColumns !== undefined || !used.has(name))
        .map((name) => [name, columnValue(row, name)]),
    );
  }

  /** Those whose prompts are short enough. */
  async #fitting(problems: readonly Problem[]): Promise<readonly Problem[]> {
    const { maxPromptTokens, tokenizer } = this.#options;
    if (maxPromptTokens === undefined || tokenizer === undefined) return problems;
    const ids = await encodeAll(
      tokenizer,
      problems.map(({ prompt }) => prompt),
    ).catch((error) => this.#explain(error, problems, tokenizer));
    const fitting = problems.filter((_, i) => (ids[i] as number[]).length <= maxPromptTokens);
    this.#measured += problems.length;
    this.#long += problems.length - fitting.length;
    return fitting;
  }

  /** Which of many prompts the tokenizer or its chat template refuses, and what else to do. */
  async #explain(error: unknown, problems: readonly Problem[], tokenizer: PromptTokenizer): Promise<never> {
    if (error instanceof AbortedError) throw error;
    for (const { id, prompt } of problems) {
      try {
        await tokenizer.encodePrompt(prompt);
      } catch (cause) {
        const hint =
          typeof prompt === 'string' ? '' : ". Plain text needs no chat template: promptStyle 'simplerl' or 'plain'";
        throw new InvalidFileError(
          `${this.#label}: the prompt of problem ${id} cannot be tokenized: ${(cause as Error).message}${hint}`,
          { cause },
        );
      }
    }
    throw error;
  }

  #why(): string {
    if (this.#rows === 0 || this.#blank === this.#rows) return 'it has no rows with an answer';
    if (this.#filtered + this.#blank >= this.#rows) return 'no row with an answer passes the filter';
    if (this.#long > 0) return `every prompt is longer than ${this.#options.maxPromptTokens} tokens`;
    return 'every prompt is also asked in another split; give other files or leave dropEvalPrompts out';
  }
}

function pathsOf({ files }: DatasetOptions, split: string): readonly string[] {
  const paths = files[split] as string | readonly string[];
  return typeof paths === 'string' ? [paths] : paths;
}

function limitOf({ maxProblems }: DatasetOptions, split: string): number {
  const limit = typeof maxProblems === 'object' ? maxProblems[split] : maxProblems;
  return limit ?? Number.POSITIVE_INFINITY;
}

/** Equal for prompts that ask the same, whatever the spaces. */
function promptKey(prompt: string | readonly ChatMessage[]): string {
  const text =
    typeof prompt === 'string' ? prompt : prompt.map(({ role, content }) => `${role}: ${content}`).join('\n');
  return text.replace(/\s+/g, ' ').trim();
}

function findColumn(row: Row, wanted: string | undefined, usual: readonly string[], option: string, where: string) {
  const names = wanted === undefined ? usual : [wanted];
  const name = names.find((candidate) => columnValue(row, candidate) !== undefined);
  if (name !== undefined) return name;
  throw new InvalidFileError(
    `${where}: no column ${names.map((n) => `"${n}"`).join(' or ')}; the row has ${Object.keys(row).join(', ') || 'none'}. ` +
      `Name the column with ${option}`,
  );
}

function checkDataset(options: DatasetOptions): void {
  const { files, maxPromptTokens, tokenizer, maxProblems, reward } = options;
  const lists = Object.values(files ?? {});
  if (lists.length === 0 || lists.some((list) => list.length === 0)) {
    throw new InvalidArgumentError("files must name at least one file for every split, e.g. { train: 'train.jsonl' }");
  }
  if (maxPromptTokens !== undefined) {
    if (!(Number.isInteger(maxPromptTokens) && maxPromptTokens >= 1)) {
      throw new InvalidArgumentError(`maxPromptTokens must be a positive integer, got ${maxPromptTokens}`);
    }
    if (tokenizer === undefined) throw new InvalidArgumentError('maxPromptTokens needs a tokenizer to count with');
  }
  const limits = typeof maxProblems === 'object' ? Object.values(maxProblems) : [maxProblems];
  const wrong = limits.find((limit) => limit !== undefined && !(Number.isInteger(limit) && limit >= 1));
  if (wrong !== undefined) throw new InvalidArgumentError(`maxProblems must be a positive integer, got ${wrong}`);
  if (reward !== undefined && typeof reward !== 'function' && !VERIFIERS.includes(reward)) {
    throw new InvalidArgumentError(
      `reward must be ${VERIFIERS.map((name) => `'${name}'`).join(', ')} or a function, got ${JSON.stringify(reward)}`,
    );
  }
}
