/** Evaluating a model on several sets, with a folder that keeps every response and can be continued. */
import { existsSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import lockfile from 'proper-lockfile';
import { AbortedError, BusyError, InvalidArgumentError, InvalidFileError } from '../errors.js';
import { makeFolder } from '../make-folder.js';
import { checkOptions, type OptionKeys } from '../options.js';
import type { PolicyLike } from '../policy.js';
import { defaultStopTokens } from '../tokenizer/stop-tokens.js';
import { readChecked, resultSchema } from './files.js';
import { MEASURE_KEYS, type MeasureOptions, type MeasurePlan, measure, measurePlan, memoryStore } from './measure.js';
import { openResponses } from './response-file.js';
import { type EvaluationSettings, mergeSettings, readSettings, setFingerprint } from './settings.js';
import type { SetSummary } from './summary.js';
import type { EvaluationSet, EvaluationTokenizer } from './types.js';

export interface SuiteOptions extends MeasureOptions {
  /** Row of a table. Default 'model'. */
  name?: string;
  /** Where the model came from, for the record. */
  model?: string;
  /**
   * The folder of this model's results: settings.json, `<set>/responses.jsonl`, `<set>/summary.json`, results.json. When
   * it holds responses with the same settings, only what is missing is generated. Default: nothing is written.
   */
  out?: string;
  /** Identity of the weights for the settings. Default: `policy.hash()`. */
  weights?: string;
  /** Type of the weights that computed, for the settings. Default 'float32'. */
  dtype?: string;
  /** Called when a set is done. */
  onSet?: (set: EvaluationSet, summary: SetSummary) => void;
}

const KEYS: OptionKeys<SuiteOptions> = {
  ...MEASURE_KEYS,
  name: true,
  model: true,
  out: true,
  weights: true,
  dtype: true,
  onSet: true,
};

/** What is kept of a set in results.json. */
export interface SetResult extends Omit<SetSummary, 'rows'> {
  /** Heading of its column. */
  title: string;
}

/** A model's results: one row of a table. */
export interface ModelResult {
  name: string;
  model: string | null;
  /** By name of the set, in the order in which they were given. */
  sets: Record<string, SetResult>;
}

/**
 * Evaluates `policy` on every set: greedy pass@1, and over samples avg@k, maj@k and the unbiased pass@k. Results do not
 * depend on the batch size, nor on whether the evaluation was interrupted and continued.
 *
 * ```ts
 * const sets = await loadBenchmarks(['math500', 'aime24']);
 * const { sets: results } = await evaluateBenchmarks(policy, tokenizer, sets, { maxNewTokens: 4096, out: 'evals/mine' });
 * console.log(results.math500?.greedy?.value);
 * ```
 *
 * @throws InvalidArgumentError naming the option, or the prompt that does not fit; ConfigError naming the settings in
 *   which `out` differs; BusyError when another process works in `out`; AbortedError
 */
export async function evaluateBenchmarks(
  policy: PolicyLike,
  tokenizer: EvaluationTokenizer,
  sets: readonly EvaluationSet[],
  options: SuiteOptions,
): Promise<ModelResult> {
  checkOptions(options, KEYS, 'evaluateBenchmarks');
  checkNames(sets);
  const plans = sets.map((set) => measurePlan(set.problems.length, options));
  const result: ModelResult = { name: options.name ?? 'model', model: options.model ?? null, sets: {} };
  if (options.out === undefined) return run(policy, tokenizer, sets, plans, options, result);
  makeFolder(options.out, 'an evaluation');
  const folder = options.out;
  return locked(folder, options.signal, async (signal) => {
    const { dtype = 'float32', stopTokens } = options;
    const [first] = plans as [MeasurePlan, ...MeasurePlan[]];
    const now: EvaluationSettings = {
      model: result.model,
      weights: options.weights ?? (await policy.hash()),
      device: policy.device,
      dtype,
      temperature: first.temperature,
      topP: first.topP,
      seed: first.seed,
      maxNewTokens: first.maxNewTokens,
      stopTokens:
        stopTokens ??
        defaultStopTokens(
          tokenizer,
          sets.flatMap(({ problems }) => problems.map(({ prompt }) => prompt)),
        ) ??
        [],
      sets: Object.fromEntries(sets.map((set) => [set.name, setFingerprint(set)])),
    };
    const path = join(folder, 'settings.json');
    const settings = existsSync(path) ? mergeSettings(readSettings(path), now, folder) : now;
    writeWhole(path, settings);
    return run(policy, tokenizer, sets, plans, { ...options, signal }, result);
  });
}

async function run(
  policy: PolicyLike,
  tokenizer: EvaluationTokenizer,
  sets: readonly EvaluationSet[],
  plans: readonly MeasurePlan[],
  { out, signal, onProgress, onSet }: SuiteOptions,
  result: ModelResult,
): Promise<ModelResult> {
  for (const [i, set] of sets.entries()) {
    const summary = await measure({
      policy,
      tokenizer,
      set,
      plan: plans[i] as MeasurePlan,
      store: out === undefined ? memoryStore() : openResponses(responsesPath(out, set)),
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined ? {} : { onProgress }),
    });
    const { rows: _rows, ...numbers } = summary;
    result.sets[set.name] = { title: set.title ?? set.name, ...numbers };
    if (out !== undefined) {
      writeSummary(out, set, summary);
      writeResult(out, result);
    }
    onSet?.(set, summary);
  }
  return result;
}

/** Sets that an earlier evaluation with the same settings measured stay in the file. */
function writeResult(out: string, result: ModelResult): void {
  const there = existsSync(join(out, 'results.json')) ? readResult(out).sets : {};
  writeWhole(join(out, 'results.json'), { ...result, sets: { ...there, ...result.sets } });
}

/** @throws InvalidArgumentError for names that cannot be folders beside each other */
export function checkNames(sets: readonly EvaluationSet[]): void {
  if (sets.length === 0) throw new InvalidArgumentError('sets is empty: name at least one benchmark');
  const seen = new Set<string>();
  for (const { name } of sets) {
    // It becomes a folder.
    if (!/^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(name)) {
      throw new InvalidArgumentError(
        `a set is named ${JSON.stringify(name)}; letters, digits, ".", "_" and "-" are allowed`,
      );
    }
    if (seen.has(name)) throw new InvalidArgumentError(`two sets are named "${name}"; give each its own name`);
    seen.add(name);
  }
}

/** The file of a set's responses in a folder of results. */
export const responsesPath = (out: string, set: EvaluationSet): string => join(out, set.name, 'responses.jsonl');

/** Writes `<set>/summary.json` beside the responses. */
export function writeSummary(out: string, set: EvaluationSet, summary: SetSummary): void {
  writeWhole(join(out, set.name, 'summary.json'), summary);
}

/** Writes a whole file, or leaves what was there. */
function writeWhole(path: string, value: object): void {
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, `${JSON.stringify(value, null, 2)}\n`);
  renameSync(temporary, path);
}

/** A lock that nobody has renewed for so long was left by a process that was killed. */
const STALE_MS = 5000;

/** Runs `work` while no other process works in the folder; waits as long as a killed one may have left its lock. */
async function locked<T>(
  folder: string,
  outer: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const lost = new AbortController();
  const release = await lockfile
    .lock(folder, {
      lockfilePath: join(folder, '.lock'),
      stale: STALE_MS,
      update: STALE_MS / 4,
      retries: { retries: 5, factor: 1, minTimeout: STALE_MS / 4, maxTimeout: STALE_MS / 4 },
      onCompromised: (error) => lost.abort(new AbortedError(`the lock of ${folder} was lost: ${error.message}`)),
    })
    .catch((cause: NodeJS.ErrnoException) => {
      if (cause.code !== 'ELOCKED') throw cause;
      throw new BusyError(
        `${folder}: another evaluation is at work there; wait for it, or give another folder with --out`,
        {
          cause,
        },
      );
    });
  try {
    return await work(outer === undefined ? lost.signal : AbortSignal.any([outer, lost.signal]));
  } finally {
    if (!lost.signal.aborted) await release().catch(() => {});
  }
}

/**
 * Reads the results.json of a folder that {@link evaluateBenchmarks} wrote.
 *
 * @throws InvalidFileError naming the file
 */
export function readResult(folder: string): ModelResult {
  const path = join(folder, 'results.json');
  if (!existsSync(path)) {
    throw new InvalidFileError(
      `${folder} has no results.json; expected a folder that \`eepo eval\` has written, with at least one benchmark done`,
    );
  }
  return readChecked(path, resultSchema, 'the results of an evaluation');
}
