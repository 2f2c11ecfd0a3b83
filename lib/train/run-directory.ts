/** The folder of a run and its files. */
import { appendFileSync, existsSync, readdirSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs';
import { basename, join } from 'node:path';
import { CheckpointError, ConfigError, EepoError, InvalidFileError, NonFiniteError } from '../errors.js';
import { makeFolder } from '../make-folder.js';
import type { PolicyLike } from '../policy.js';
import type { Tokenizer } from '../tokenizer.js';
import { moveFolder, sweepTemporaries, syncPath, syncTree, temporaryBeside, writeWhole } from './durable.js';
import { describeNonFinite } from './non-finite.js';
import { isRunning, RunLock } from './run-lock.js';

/**
 * The files of a run. None is ever half-written: whole files are written beside their place, synced and renamed, metrics
 * and completions grow by whole lines.
 *
 *     config.toml         every option, defaults filled in
 *     metrics.jsonl       one object per iteration
 *     completions.jsonl   { iteration, problem, prompt, response, stage, reward, advantage, finishReason }; of several rewards
 *                         also what each gave: rewards
 *     tensorboard/        metrics.jsonl once more, as an event file for TensorBoard
 *     evals/              evals/iteration-<n>/<set>/responses.jsonl and summary.json, as `eepo eval` writes them
 *     checkpoints/        what the run goes on from: checkpoints/iteration-<n>/ and the name of the newest, latest
 *     model/              the final weights in Hugging Face layout, with the tokenizer
 *     summary.json        written last: a run that has it is complete
 *
 * While a process works in it, a file .lock keeps others out.
 */
export class RunDirectory {
  readonly path: string;
  readonly #lock: RunLock;

  private constructor(path: string) {
    this.path = path;
    this.#lock = RunLock.take(path);
    sweepTemporaries(path, isRunning);
  }

  /**
   * A new or empty folder.
   *
   * @throws ConfigError when the folder has files already, so that no run is overwritten; BusyError when another process
   *   has begun a run there
   */
  static create(path: string): RunDirectory {
    makeFolder(path, 'a run');
    checkEmpty(path);
    const run = explained(path, () => new RunDirectory(path));
    try {
      checkEmpty(path);
    } catch (error) {
      run.release();
      throw error;
    }
    return run;
  }

  /** The folder of a run that is to go on. @throws BusyError when another process works there */
  static open(path: string): RunDirectory {
    if (!isRunFolder(path)) throw new ConfigError(`${path} is no folder of a run: it has no config.toml`);
    return explained(path, () => new RunDirectory(path));
  }

  /** Whether a folder is one of a run. */
  static isRun(path: string): boolean {
    return isRunFolder(path);
  }

  /** Lets other processes work in the folder. */
  release(): void {
    this.#lock.release();
  }

  /** @throws CheckpointError where the folder has vanished: nothing is to be written in its place */
  mustBeThere(): void {
    if (this.#lock.held) return;
    throw new CheckpointError(`${this.path} has vanished, or its file .lock was removed`);
  }

  file(name: string): string {
    return join(this.path, name);
  }

  has(name: string): boolean {
    return existsSync(this.file(name));
  }

  /** Writes a whole file, or leaves what was there. */
  write(name: string, content: string): void {
    writeWhole(this.file(name), content);
  }

  remove(name: string): void {
    rmSync(this.file(name), { recursive: true, force: true });
  }

  /** Appends one JSON object a line, all lines or none. */
  appendLines(name: string, rows: readonly object[]): void {
    if (rows.length === 0) return;
    const before = this.size(name);
    try {
      appendFileSync(this.file(name), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
    } catch (error) {
      if (this.has(name)) truncateSync(this.file(name), before);
      throw error;
    }
  }

  /** Bytes of a file; 0 where it is not there. */
  size(name: string): number {
    return statSync(this.file(name), { throwIfNoEntry: false })?.size ?? 0;
  }

  /** Syncs files that grow and folders, where they are there. */
  sync(names: readonly string[]): void {
    for (const name of names) {
      const entry = statSync(this.file(name), { throwIfNoEntry: false });
      if (entry?.isDirectory()) syncTree(this.file(name));
      else if (entry) syncPath(this.file(name));
    }
    syncPath(this.path);
  }

  /** Cuts a file back to its first `bytes`. Returns how many there were too few. */
  cut(name: string, bytes: number): number {
    const size = this.size(name);
    if (bytes === 0) this.remove(name);
    else if (size > bytes) truncateSync(this.file(name), bytes);
    return Math.max(0, bytes - size);
  }

  /** The objects of a file of lines. @throws InvalidFileError naming the line */
  readLines(name: string): Record<string, unknown>[] {
    if (!this.has(name)) return [];
    const lines = readFileSync(this.file(name), 'utf8').split('\n');
    return lines.flatMap((line, i) => {
      if (line === '') return [];
      try {
        return [JSON.parse(line) as Record<string, unknown>];
      } catch (cause) {
        throw new InvalidFileError(`${this.file(name)}:${i + 1}: not valid JSON; remove this line`, { cause });
      }
    });
  }

  /**
   * Writes weights, config and tokenizer to `name`, which appears only when it is complete.
   *
   * @throws NonFiniteError for weights that hold NaN or Infinity: no such model is handed on
   */
  async saveModel(
    name: string,
    policy: Pick<PolicyLike, 'save' | 'findNonFinite'>,
    tokenizer: Pick<Tokenizer, 'save'>,
  ): Promise<string> {
    const bad = await policy.findNonFinite?.(null);
    if (bad) throw new NonFiniteError(`${this.file(name)} was not written: ${describeNonFinite(bad)}`);
    return this.saveFolder(name, async (folder) => {
      await policy.save(folder);
      await tokenizer.save(folder);
    });
  }

  /** A folder that appears, synced, only when it is complete. */
  async saveFolder(name: string, fill: (folder: string) => Promise<void>): Promise<string> {
    const target = this.file(name);
    const temporary = temporaryBeside(target);
    rmSync(temporary, { recursive: true, force: true });
    try {
      await fill(temporary);
      syncTree(temporary);
      moveFolder(temporary, target);
    } catch (error) {
      rmSync(temporary, { recursive: true, force: true });
      throw error;
    }
    return target;
  }
}

/** Whether a folder is one of a run. */
export const isRunFolder = (path: string): boolean => existsSync(join(path, 'config.toml'));

function explained<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof EepoError) throw cause;
    throw new ConfigError(`${path}: a run cannot be written there (${(cause as Error).message}); give another --out`, {
      cause,
    });
  }
}

/**
 * What {@link RunDirectory.create} will refuse, before anything is loaded for the run.
 *
 * @throws ConfigError for a folder that has files already, or a file
 */
export function checkNewRun(path: string): void {
  if (!existsSync(path)) return;
  if (!statSync(path).isDirectory())
    throw new ConfigError(`${path} is a file; a run is written to a folder, give another --out`);
  checkEmpty(path);
}

/** Hidden files may be there: a killed process leaves its lock and unfinished files. */
function checkEmpty(path: string): void {
  if (readdirSync(path).every((name) => name.startsWith('.'))) return;
  throw new ConfigError(
    `${path} is not empty; give another folder with --out, or remove this one` +
      (isRunFolder(path) ? '; to go on with the run in it, use --resume' : ''),
  );
}

/** `2026-05-01T09-30-00`, for folder names. */
export function timestamp(date = new Date()): string {
  return date.toISOString().slice(0, 19).replaceAll(':', '-');
}

/** `runs/<name of the configuration>-<presets>-<time>`. */
export function defaultRunPath(configFile: string, presets: readonly string[] = []): string {
  return join('runs', `${runName(configFile, presets)}-${timestamp()}`);
}

const runName = (configFile: string, presets: readonly string[]): string =>
  [basename(configFile, '.toml'), ...presets].join('-');

/** The newest run that {@link defaultRunPath} named, or null. */
export function newestRun(configFile: string, presets: readonly string[] = []): string | null {
  const name = runName(configFile, presets);
  const runs = existsSync('runs') ? readdirSync('runs') : [];
  const own = runs
    .filter((run) => run.startsWith(`${name}-`) && /^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d$/.test(run.slice(name.length + 1)))
    .filter((run) => isRunFolder(join('runs', run)))
    .sort();
  const newest = own.at(-1);
  return newest === undefined ? null : join('runs', newest);
}
