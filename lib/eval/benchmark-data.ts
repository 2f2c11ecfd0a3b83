/** Loading benchmarks: from files that the user names, else from the hub's cache or the hub. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { EepoError, InvalidArgumentError, InvalidFileError } from '../errors.js';
import { download, type HubOptions } from '../hub/index.js';
import { checkOptions, type OptionKeys, SIGNAL } from '../options.js';
import { type Answer, isAnswer, isBlank } from '../tasks/answers.js';
import { isChat, PROMPT_KEYS, type PromptMaker, type PromptOptions, promptMaker } from '../tasks/data/prompts.js';
import { readParquet } from '../tasks/data/read-parquet.js';
import { readJsonDocument, readJsonLines } from '../tasks/data/read-text.js';
import { columnValue, type PlacedRow, type Row, shown } from '../tasks/data/rows.js';
import { type DataFile, findDataFiles, formatOf } from '../tasks/data/source.js';
import { hubFetch } from '../tasks/hub.js';
import type { ChatMessage, Problem } from '../tasks/types.js';
import { lastBoxed } from '../verify/index.js';
import { BENCHMARK_NAMES, type Benchmark, benchmarkOf } from './benchmarks.js';
import { mathSet } from './math-set.js';
import type { EvaluationSet } from './types.js';

export interface BenchmarkOptions extends PromptOptions {
  /**
   * Where benchmarks lie on this machine: files whose rows name theirs (`{ bench, problem, answers }`), a file of one
   * benchmark as `<benchmark>=FILE`, or folders that hold `<benchmark>.jsonl`, `<benchmark>.parquet` or
   * `<benchmark>/test.jsonl`. What is not found there comes from the hub. Default: all from the hub.
   */
  data?: readonly string[];
  /** Relative tolerance of numeric answers, in place of the benchmark's own. */
  tolerance?: number;
  /** How the hub is used. */
  hub?: HubOptions;
  signal?: AbortSignal;
}

const KEYS: OptionKeys<BenchmarkOptions> = {
  ...PROMPT_KEYS,
  data: true,
  tolerance: true,
  hub: true,
  ...SIGNAL,
};

/** A set, and what is worth telling about how it was loaded. */
export interface LoadedSet extends EvaluationSet {
  readonly notes: readonly string[];
}

/** The prompts that benchmarks are asked with where nothing else is said: as in the paper's recipe. */
export const DEFAULT_PROMPT_STYLE = 'qwen-boxed';

/**
 * Loads benchmarks by name, in the order of `names`.
 *
 * @throws InvalidArgumentError for an unknown name; InvalidFileError naming file and line, or what to download and where
 *   to put it
 */
export async function loadBenchmarks(names: readonly string[], options: BenchmarkOptions = {}): Promise<LoadedSet[]> {
  checkOptions(options, KEYS, 'loadBenchmarks');
  const benchmarks = names.map(benchmarkOf);
  const makePrompt = promptMaker({ promptStyle: DEFAULT_PROMPT_STYLE, ...options });
  const local = await localRows(options);
  const sets: LoadedSet[] = [];
  for (const benchmark of benchmarks) {
    const rows = local.get(benchmark.name) ?? (await hubRows(benchmark, options));
    const tolerance = options.tolerance ?? benchmark.tolerance;
    const set = setOf(benchmark.name, benchmark.title, rows, makePrompt, tolerance);
    const count = set.problems.length;
    const notes =
      count === benchmark.problems
        ? set.notes
        : [...set.notes, `${benchmark.name}: ${count} problems; the benchmark has ${benchmark.problems}`];
    sets.push({ ...set, notes });
  }
  return sets;
}

/**
 * Loads a file of problems as a set of its own: JSON lines, JSON or Parquet, or `hf://datasets/OWNER/NAME/FILE`; the set
 * is named after the file, or as in `NAME=FILE`. A row
 * has the problem in `problem`, `question` or `prompt` and the gold answer in `answer`, `answers` (any of which is
 * accepted), `final_answer`, `reward_model.ground_truth` or, boxed, `solution`.
 *
 * @throws InvalidFileError naming file and line
 */
export async function loadDataSet(file: string, options: BenchmarkOptions = {}): Promise<LoadedSet> {
  checkOptions(options, KEYS, 'loadDataSet');
  const makePrompt = promptMaker({ promptStyle: DEFAULT_PROMPT_STYLE, ...options });
  const { name, path } = assignment(file);
  const title =
    name ??
    basename(path)
      .replace(/\.gz$/, '')
      .replace(/\.(jsonl|ndjson|json|parquet)$/i, '');
  const rows = await rowsOf([path], options);
  if (rows.length === 0) throw new InvalidFileError(`${path}: no rows`);
  return setOf(title.replace(/[^A-Za-z0-9._-]/g, '_') || 'data', title, rows, makePrompt, options.tolerance);
}

/** `gsm8k=test.jsonl`; a file that is called just so is a path. */
function assignment(text: string): { name: string | null; path: string } {
  const [, name, path] = /^([A-Za-z0-9_][A-Za-z0-9._-]*)=(.+)$/.exec(text) ?? [];
  return name === undefined || path === undefined || existsSync(text) ? { name: null, path: text } : { name, path };
}

async function rowsOf(paths: readonly string[], { hub, signal }: BenchmarkOptions): Promise<PlacedRow[]> {
  const rows: PlacedRow[] = [];
  for (const file of await findDataFiles(paths, hubFetch(hub), signal)) {
    for await (const row of readFile(file)) rows.push(row);
  }
  return rows;
}

function readFile(file: DataFile): AsyncGenerator<PlacedRow> {
  const format = formatOf(file.name, 'jsonl');
  if (format === 'parquet') return readParquet(file);
  return format === 'json' ? readJsonDocument(file) : readJsonLines(file);
}

/** Rows by benchmark, of all that the user's files and folders hold. */
async function localRows(options: BenchmarkOptions): Promise<Map<string, PlacedRow[]>> {
  const { data = [] } = options;
  const found = new Map<string, PlacedRow[]>();
  for (const entry of data) {
    const { name: one, path } = assignment(entry);
    if (one !== null) {
      found.set(benchmarkOf(one).name, await rowsOf([path], options));
      continue;
    }
    if (existsSync(path) && statSync(path).isDirectory()) {
      const before = found.size;
      for (const [name, file] of filesOfFolder(path)) found.set(name, await rowsOf([file], options));
      if (found.size > before) continue;
      throw new InvalidFileError(
        `${path} holds no benchmark: expected <name>.jsonl, <name>.parquet or <name>/test.jsonl with a name of ` +
          BENCHMARK_NAMES.join(', '),
      );
    }
    for (const placed of await rowsOf([path], options)) {
      const name = placed.row.bench;
      if (typeof name !== 'string') {
        throw new InvalidFileError(
          `${placed.where}: no column "bench" that names the row's benchmark; give a file of one benchmark as ` +
            '<benchmark>=FILE, problems of your own with --data',
        );
      }
      const own = found.get(name);
      if (own === undefined) found.set(name, [placed]);
      else own.push(placed);
    }
  }
  return found;
}

function filesOfFolder(folder: string): [string, string][] {
  return BENCHMARK_NAMES.flatMap((name): [string, string][] => {
    const candidates = [
      ...['.jsonl', '.jsonl.gz', '.json', '.parquet'].map((ending) => `${name}${ending}`),
      join(name, 'test.jsonl'),
      join(name, 'test.parquet'),
    ];
    const file = candidates.map((candidate) => join(folder, candidate)).find((path) => existsSync(path));
    return file === undefined ? [] : [[name, file]];
  });
}

async function hubRows(benchmark: Benchmark, options: BenchmarkOptions): Promise<PlacedRow[]> {
  const { hub, signal } = options;
  const { dataset, files, revision } = benchmark.source;
  let folder: string;
  let paths: string[];
  try {
    folder = await download(dataset, {
      ...hub,
      type: 'dataset',
      include: [files],
      ...(revision === undefined ? {} : { revision }),
      ...(signal === undefined ? {} : { signal }),
    });
    paths = dataFiles(folder, files);
    if (paths.length === 0) throw new InvalidFileError(`${dataset} has no data file that matches ${files}`);
  } catch (cause) {
    if (!(cause instanceof EepoError) || cause.code === 'EEPO_ABORTED') throw cause;
    throw new InvalidFileError(
      `the problems of ${benchmark.name} (${benchmark.licence}) are not here: ${cause.message}\n` +
        `Download the data set ${dataset} from the hub where there is a connection ` +
        `(npx eepo eval ... --benchmarks ${benchmark.name} does, into the cache), or give a file of ` +
        `{"bench": "${benchmark.name}", "problem": ..., "answers": [...]} a line, or ` +
        `${benchmark.name}=FILE, or a folder with ${benchmark.name}.jsonl or ${benchmark.name}/test.jsonl, with ` +
        '--benchmark-data',
      { cause },
    );
  }
  return rowsOf(paths, options);
}

/** The data files of a snapshot that a pattern matches; `*` is any text, `/` too. */
function dataFiles(folder: string, pattern: string): string[] {
  const expression = new RegExp(`^${pattern.replace(/[.+^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*')}$`);
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((path) => expression.test(path) && /\.(jsonl|json|parquet)(\.gz)?$/.test(path))
    .sort()
    .map((path) => join(folder, path));
}

const PROMPT_COLUMNS = ['problem', 'question', 'prompt', 'Problem', 'Question'];
const ANSWER_COLUMNS = [
  'answers',
  'final_answer',
  'answer',
  'Answer',
  'expected_answer',
  'reward_model.ground_truth',
  'solution',
];

function setOf(
  name: string,
  title: string,
  rows: readonly PlacedRow[],
  makePrompt: PromptMaker,
  tolerance: number | undefined,
): LoadedSet {
  if (tolerance !== undefined && !(tolerance >= 0 && tolerance < 1)) {
    throw new InvalidArgumentError(`tolerance must be at least 0 and below 1, got ${tolerance}`);
  }
  const ids = rows.map(({ row }) => row.idx ?? row.id ?? row.unique_id);
  const named = ids.every((id) => typeof id === 'string' || typeof id === 'number') && new Set(ids).size === ids.length;
  const problems = rows.map(
    (placed, i): Problem => ({
      id: `${name}/${named ? ids[i] : i}`,
      prompt: promptOf(placed, makePrompt),
      answer: answerOf(placed),
      meta: toleranceOf(placed.row, tolerance),
    }),
  );
  const kept = problems.filter(({ answer }) => !isBlank(answer as Answer));
  const blank = problems.length - kept.length;
  if (kept.length === 0) throw new InvalidFileError(`${name}: no problem has an answer`);
  const notes =
    blank === 0 ? [] : [`${name}: ${blank} of ${problems.length} rows have an empty answer and are left out`];
  return { ...mathSet(name, title, kept, tolerance), notes };
}

/** OlympiadBench gives a few answers an absolute error of their own. */
function toleranceOf(row: Row, relative: number | undefined): Record<string, unknown> {
  const absolute = Number(row.tolerance ?? row.error ?? Number.NaN);
  if (relative === undefined && absolute > 0) return { tolerance: { absolute } };
  return relative === undefined ? {} : { tolerance: relative };
}

function promptOf({ row, where }: PlacedRow, makePrompt: PromptMaker): string | ChatMessage[] {
  const column = PROMPT_COLUMNS.find((name) => row[name] !== undefined);
  if (column === undefined) throw missing(row, PROMPT_COLUMNS, where);
  const value = row[column];
  if (isChat(value)) return value;
  if (typeof value !== 'string' || value.trim() === '') {
    throw new InvalidFileError(`${where}: "${column}" must be a text or a list of chat messages, got ${shown(value)}`);
  }
  // OlympiadBench: what several questions share.
  const context = typeof row.context === 'string' && row.context.trim() !== '' ? `${row.context}\n` : '';
  return makePrompt(context + value);
}

function answerOf({ row, where }: PlacedRow): Answer {
  const column = ANSWER_COLUMNS.find((name) => !isEmpty(columnValue(row, name)));
  if (column === undefined) throw missing(row, ANSWER_COLUMNS, where);
  const value = columnValue(row, column);
  // Of a worked solution only the box is an answer; "#### x" and boxes elsewhere are the verifier's to find.
  const answer = column === 'solution' && typeof value === 'string' ? lastBoxed(value) : value;
  if (isAnswer(answer)) return answer;
  throw new InvalidFileError(
    column === 'solution'
      ? `${where}: "solution" has no \\boxed{...} to take the answer from`
      : `${where}: "${column}" must be a text, a number or a list of these, got ${shown(value)}`,
  );
}

function isEmpty(value: unknown): boolean {
  return value === undefined || value === null || (Array.isArray(value) && value.length === 0);
}

function missing(row: Row, columns: readonly string[], where: string): InvalidFileError {
  return new InvalidFileError(
    `${where}: none of the columns ${columns.map((name) => `"${name}"`).join(', ')}; the row has ${Object.keys(row).join(', ')}; rename one`,
  );
}
