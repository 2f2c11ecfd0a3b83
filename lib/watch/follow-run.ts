/** A run folder that is read again and again while it is written: only what changed is read. */
import { open, readdir, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { EepoError, InvalidFileError } from '../errors.js';
import { readCompletions } from '../report/completions.js';
import { eachLine } from '../report/lines.js';
import {
  addMetrics,
  inOrder,
  type MetricsRow,
  type RunData,
  readEvaluations,
  readRunConfig,
  readSummary,
} from '../report/read-run.js';
import { isLocked } from '../train/run-lock.js';

/**
 * What a run is doing. `waiting`: it has not begun. `training`: a process works in its folder. `stopped`: none does, and
 * the run has not come to its end. `complete`. `gone`: its folder was there and has vanished. `broken`: a file in it
 * cannot be read, and `message` says which.
 */
export type RunState = 'waiting' | 'training' | 'stopped' | 'complete' | 'gone' | 'broken';

export interface RunStatus {
  name: string;
  state: RunState;
  /** What is wrong, or ''. */
  message: string;
  /** The last iteration that has a line, and how many there are to be; null: not known yet. */
  iteration: number | null;
  iterations: number | null;
  /** When the last line was written, in milliseconds since 1970; null: there is none. */
  updated: number | null;
}

const COMPLETION_BYTES = 4 << 20;
/** So many bytes before the end of what was read must be there again, else the file is another one. */
const CHECKED_BYTES = 512;

/** Changes whenever a file does; '' where it is not there. */
async function stampOf(path: string): Promise<string> {
  const found = await stat(path).catch(() => null);
  return found === null ? '' : `${found.ino} ${found.size} ${found.mtimeMs}`;
}

export class RunFollower {
  readonly folder: string;
  readonly name: string;
  readonly #metrics: MetricsTail;
  /** What the files were when they were last read, by name. */
  readonly #stamps = new Map<string, string>();
  #config: RunData['config'] = {};
  #evaluations: RunData['evaluations'] = [];
  #summary: RunData['summary'] = null;
  #completions: RunData['completions'] = [];
  #seen = false;
  #status: RunStatus;

  constructor(folder: string, name = basename(resolve(folder))) {
    this.folder = resolve(folder);
    this.name = name;
    this.#metrics = new MetricsTail(this.#file('metrics.jsonl'));
    this.#status = { name, state: 'waiting', message: '', iteration: null, iterations: null, updated: null };
  }

  get status(): RunStatus {
    return this.#status;
  }

  /** What is known of the run; null before it has begun. What was known of one that is gone or broken stays. */
  get data(): RunData | null {
    if (!this.#seen) return null;
    return {
      folder: this.folder,
      name: this.name,
      config: this.#config,
      metrics: this.#metrics.rows,
      evaluations: this.#evaluations,
      summary: this.#summary,
      completions: this.#completions,
    };
  }

  /** Reads what has changed. Never throws: what is wrong is the status. Returns whether anything is different. */
  async refresh(): Promise<boolean> {
    const before = JSON.stringify(this.#status);
    let changed = false;
    let state: RunState;
    let message = '';
    try {
      if ((await stampOf(this.#file('config.toml'))) === '') {
        state = this.#seen ? 'gone' : 'waiting';
      } else {
        changed = await this.#read();
        state = this.#summary !== null ? 'complete' : isLocked(this.folder) ? 'training' : 'stopped';
      }
    } catch (error) {
      // a file may vanish between two looks at it; anything else is a bug that the page should show, not hide
      message = error instanceof EepoError ? error.message : String((error as Error)?.stack ?? error);
      state = 'broken';
      changed = true;
    }
    this.#status = {
      name: this.name,
      state,
      message,
      iteration: this.#metrics.rows.at(-1)?.iteration ?? null,
      iterations: countOf(this.#config.run?.iterations),
      updated: this.#metrics.updated,
    };
    return changed || before !== JSON.stringify(this.#status);
  }

  #file(name: string): string {
    return join(this.folder, name);
  }

  async #read(): Promise<boolean> {
    const parts = [
      await this.#changed('config.toml', async () => {
        this.#config = await readRunConfig(this.folder);
        this.#seen = true;
      }),
      await this.#metrics.refresh(),
      await this.#changed('summary.json', async () => {
        this.#summary = await readSummary(this.#file('summary.json'));
      }),
      await this.#changed('completions.jsonl', async () => {
        this.#completions = await readCompletions(this.#file('completions.jsonl'), COMPLETION_BYTES);
      }),
      await this.#ifOther('evals', await this.#evaluationsStamp(), async () => {
        this.#evaluations = await readEvaluations(this.#file('evals'));
      }),
    ];
    return parts.includes(true);
  }

  /** Reads a file if it is not as it was. */
  async #changed(name: string, read: () => Promise<void>): Promise<boolean> {
    return this.#ifOther(name, await stampOf(this.#file(name)), read);
  }

  async #ifOther(name: string, stamp: string, read: () => Promise<void>): Promise<boolean> {
    if (this.#stamps.get(name) === stamp) return false;
    // first: where it cannot be read, it is tried again
    await read();
    this.#stamps.set(name, stamp);
    return true;
  }

  async #evaluationsStamp(): Promise<string> {
    const stamps: string[] = [];
    for (const iteration of await namesIn(this.#file('evals'))) {
      for (const set of await namesIn(join(this.#file('evals'), iteration))) {
        const file = join('evals', iteration, set, 'summary.json');
        stamps.push(`${file} ${await stampOf(this.#file(file))}`);
      }
    }
    return stamps.join('\n');
  }
}

const namesIn = async (folder: string): Promise<string[]> => (await readdir(folder).catch(() => [])).sort();

const countOf = (value: unknown): number | null => (typeof value === 'number' && Number.isFinite(value) ? value : null);

/** metrics.jsonl as it grows. A run that goes on from a checkpoint cuts it back: then it is read from its beginning. */
class MetricsTail {
  readonly #path: string;
  #stamp = '';
  #rowsByIteration = new Map<number, MetricsRow>();
  #rows: readonly MetricsRow[] = [];
  /** Where the first line begins that was not read, and how many are before it. */
  #end = 0;
  #lines = 0;
  /** The bytes before it. */
  #tail: Buffer = Buffer.alloc(0);
  updated: number | null = null;

  constructor(path: string) {
    this.#path = path;
  }

  get rows(): readonly MetricsRow[] {
    return this.#rows;
  }

  async refresh(): Promise<boolean> {
    const stamp = await stampOf(this.#path);
    if (stamp === this.#stamp) return false;
    const cut = !(await this.#goesOn());
    if (cut) this.#forget();
    const from = this.#end;
    try {
      await eachLine(
        this.#path,
        (row, line, end) => {
          addMetrics(this.#rowsByIteration, row, `${this.#path}:${line}`, this.#path);
          this.#end = end;
          this.#lines = line;
        },
        { from, linesBefore: this.#lines },
      );
    } finally {
      if (cut || this.#end > from) await this.#remember();
    }
    this.#stamp = stamp;
    return cut || this.#end > from;
  }

  /** Whether what was read is still where it was. */
  async #goesOn(): Promise<boolean> {
    if (this.#end === 0) return true;
    const now = await bytesBefore(this.#path, this.#end);
    return now?.equals(this.#tail) ?? false;
  }

  #forget(): void {
    this.#rowsByIteration = new Map();
    this.#end = 0;
    this.#lines = 0;
  }

  async #remember(): Promise<void> {
    this.#rows = inOrder(this.#rowsByIteration);
    this.#tail = (await bytesBefore(this.#path, this.#end)) ?? Buffer.alloc(0);
    this.updated = this.#end === 0 ? null : ((await stat(this.#path).catch(() => null))?.mtimeMs ?? null);
  }
}

/** The last bytes before a place in a file; null where it has become shorter, or is no file any more. */
async function bytesBefore(path: string, end: number): Promise<Buffer | null> {
  const found = await stat(path).catch(() => null);
  if (!found?.isFile() || found.size < end) return null;
  const file = await open(path).catch((cause) => {
    throw new InvalidFileError(`${path}: cannot be read: ${(cause as Error).message}`, { cause });
  });
  try {
    const bytes = Buffer.alloc(Math.min(CHECKED_BYTES, end));
    const { bytesRead } = await file.read(bytes, 0, bytes.length, end - bytes.length);
    return bytes.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}
