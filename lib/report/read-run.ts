/** What a run folder holds, read for a report: also while the run is being written. */
import { readdir, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { z } from 'zod';
import { ConfigError, InvalidFileError } from '../errors.js';
import { readChecked, setSummarySchema } from '../eval/files.js';
import type { SetSummary } from '../eval/summary.js';
import { checkOptions, type OptionKeys } from '../options.js';
import { parseJsonObject, readBytes } from '../read-file.js';
import { parseTomlText } from '../train/config-file.js';
import { type Completion, readCompletions } from './completions.js';
import { eachLine } from './lines.js';

/** A line of metrics.jsonl: the names and units are those of docs/metrics.md. */
export interface MetricsRow {
  /** 1, 2, ...; 0 for the evaluation before the first. */
  iteration: number;
  /** Without `iteration`. A metric that had no value is not there. */
  values: Readonly<Record<string, number>>;
}

/** One evaluation of a run, with intervals and one row per problem; only where `eval.keepResponses` kept its files. */
export interface RunEvaluation {
  iteration: number;
  /** By name of the split or benchmark. A set that is still being measured is not there. */
  sets: Readonly<Record<string, SetSummary>>;
}

/** summary.json of a complete run. */
export interface RunSummary {
  iterations: number;
  /** Wall clock, evaluations and saving included. */
  seconds: number;
  [name: string]: unknown;
}

/** What a run folder holds. */
export interface RunData {
  /** Absolute. */
  folder: string;
  /** What to call it: the folder's own name, unless given. */
  name: string;
  /** config.toml as it stands, by section and key; not checked against this version's schema. */
  config: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  /** In order of iteration, each once. Empty before the first iteration is done. */
  metrics: readonly MetricsRow[];
  /** In order of iteration. */
  evaluations: readonly RunEvaluation[];
  /** null: the run is not complete. */
  summary: RunSummary | null;
  /** Of the newest iterations, at most about {@link ReadRunOptions.completionBytes}. */
  completions: readonly Completion[];
}

export interface ReadRunOptions {
  /** What to call the run. Default: the folder's own name. */
  name?: string;
  /** So many bytes from the end of completions.jsonl are read; 0: none. Default 4 MiB. */
  completionBytes?: number;
  /** Read `evals/`. Default true. */
  evaluations?: boolean;
}

const KEYS: OptionKeys<ReadRunOptions> = { name: true, completionBytes: true, evaluations: true };

/** Longer runs are thinned out by nobody who trains models: this only bounds the memory. */
const MAX_ROWS = 2_000_000;
const MAX_FILE_BYTES = 64 << 20;

const summarySchema = z.looseObject({ iterations: z.number(), seconds: z.number() });

/**
 * Reads the folder of a run of `eepo train`, complete or not: a last line that is being written is passed over, an
 * evaluation without its summary too. Nothing is written, no lock is taken.
 *
 * @throws ConfigError for a folder that is no run; InvalidFileError naming the file, line or field that is broken
 */
export async function readRun(folder: string, options: ReadRunOptions = {}): Promise<RunData> {
  checkOptions(options, KEYS, 'readRun');
  const path = resolve(folder);
  const config = await readRunConfig(folder);
  const metrics = await readMetrics(join(path, 'metrics.jsonl'));
  return {
    folder: path,
    name: options.name ?? basename(path),
    config,
    metrics,
    evaluations: options.evaluations === false ? [] : await readEvaluations(join(path, 'evals')),
    summary: await readSummary(join(path, 'summary.json')),
    completions: await readCompletions(join(path, 'completions.jsonl'), options.completionBytes ?? 4 << 20),
  };
}

/** The sections of a run's config.toml. @throws ConfigError where there is no such run */
export async function readRunConfig(folder: string): Promise<RunData['config']> {
  const file = join(folder, 'config.toml');
  const found = await stat(folder).catch(() => null);
  if (found === null) throw new ConfigError(`${folder}: no such folder; give the folder of a run`);
  const bytes = await readBytes(file, 1 << 20);
  if (bytes === null) {
    throw new ConfigError(
      `${folder} is no folder of a run: it has no config.toml; give a folder that \`eepo train\` wrote`,
    );
  }
  const raw = parseTomlText(bytes.toString('utf8'), file);
  const sections = Object.entries(raw).filter(([, section]) => isObject(section));
  if (sections.some(([name]) => name === 'sft')) {
    throw new ConfigError(`${folder} is a run of \`eepo sft\`; a report needs one of \`eepo train\``);
  }
  return Object.fromEntries(sections) as RunData['config'];
}

async function readMetrics(path: string): Promise<MetricsRow[]> {
  const rows = new Map<number, MetricsRow>();
  await eachLine(path, (row, line) => addMetrics(rows, row, `${path}:${line}`, path));
  return inOrder(rows);
}

/**
 * Adds a line of metrics.jsonl; one of the same iteration is replaced.
 *
 * @param where file and line, for messages
 * @throws InvalidFileError for a line without an iteration, or too many of them
 */
export function addMetrics(
  rows: Map<number, MetricsRow>,
  row: Readonly<Record<string, unknown>>,
  where: string,
  path: string,
): void {
  const { iteration, ...rest } = row;
  if (typeof iteration !== 'number' || !Number.isInteger(iteration) || iteration < 0) {
    const hint = 'step' in row ? '; this is a run of `eepo sft`, a report needs one of `eepo train`' : '';
    throw new InvalidFileError(`${where}: expected "iteration", a whole number from 0${hint}`);
  }
  const values = Object.fromEntries(
    Object.entries(rest).filter((entry): entry is [string, number] => Number.isFinite(entry[1])),
  );
  rows.set(iteration, { iteration, values });
  if (rows.size > MAX_ROWS) throw new InvalidFileError(`${path}: more than ${MAX_ROWS} lines`);
}

/** The rows in order of iteration. */
export const inOrder = (rows: ReadonlyMap<number, MetricsRow>): MetricsRow[] =>
  [...rows.values()].sort((a, b) => a.iteration - b.iteration);

/** summary.json; null where it is not there. @throws InvalidFileError for another file of that name */
export async function readSummary(path: string): Promise<RunSummary | null> {
  const bytes = await readBytes(path, MAX_FILE_BYTES);
  if (bytes === null) return null;
  const value = parseJsonObject(bytes.toString('utf8'), path);
  const checked = summarySchema.safeParse(value);
  if (checked.success) return checked.data;
  throw new InvalidFileError(`${path}: expected numbers "iterations" and "seconds", as \`eepo train\` writes them`);
}

/** The evaluations in `evals/` of a run. */
export async function readEvaluations(folder: string): Promise<RunEvaluation[]> {
  const evaluations: RunEvaluation[] = [];
  for (const name of await foldersIn(folder)) {
    const iteration = /^iteration-(\d{1,15})$/.exec(name)?.[1];
    if (iteration === undefined) continue;
    const sets: Record<string, SetSummary> = {};
    for (const set of await foldersIn(join(folder, name))) {
      const file = join(folder, name, set, 'summary.json');
      if ((await stat(file).catch(() => null)) === null) continue;
      sets[set] = readChecked<SetSummary>(file, setSummarySchema, 'the summary of an evaluation');
    }
    if (Object.keys(sets).length > 0) evaluations.push({ iteration: Number(iteration), sets });
  }
  return evaluations.sort((a, b) => a.iteration - b.iteration);
}

async function foldersIn(path: string): Promise<string[]> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
  return entries.flatMap((entry) => (entry.isDirectory() && !entry.name.startsWith('.') ? [entry.name] : [])).sort();
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
