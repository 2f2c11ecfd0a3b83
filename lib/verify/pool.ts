/** Judging answers in processes that can be killed: model output is hostile. */
import { availableParallelism } from 'node:os';
import { AbortedError, DisposedError, InvalidArgumentError, VerifierError } from '../errors.js';
import { checkOptions, type OptionKeys, SIGNAL } from '../options.js';
import { checkKeys, type Verdict, type VerifyItem, type VerifyOutcome } from './judge.js';
import { type Ending, WorkerProcess } from './worker-process.js';

export interface VerifierPoolOptions {
  /** Most worker processes; they are started as work comes. Default: as many as there are cores, at most 4. */
  workers?: number;
  /** Most milliseconds of one item, extraction and all gold answers together. Default 5000. */
  timeoutMs?: number;
  /** Most memory of one worker beside the program itself, in MiB, at least 16. Default 256. */
  maxMemoryMb?: number;
  /**
   * Most characters: of a longer response the end is searched; a longer prediction or gold answer is undecided.
   * Default 1,000,000.
   */
  maxLength?: number;
  /**
   * Told the first problem of every kind. Default: a process warning (`EepoVerifierWarning`) for a timeout, a worker out
   * of memory and a crash.
   */
  onProblem?: (problem: VerifierProblem) => void;
  /** Path of another module that exports `judge`. @internal */
  judgeModule?: string;
}

const KEYS: OptionKeys<VerifierPoolOptions> = {
  workers: true,
  timeoutMs: true,
  maxMemoryMb: true,
  maxLength: true,
  onProblem: true,
  judgeModule: true,
};

/** The first item that came to an outcome that is no decision. */
export interface VerifierProblem {
  outcome: Exclude<VerifyOutcome, 'equal' | 'different' | 'no-answer'>;
  item: VerifyItem;
  message: string;
}

/** What a pool has done so far. The outcomes add up to `compared`. */
export interface VerifierStats {
  compared: number;
  equal: number;
  different: number;
  noAnswer: number;
  undecided: number;
  timeouts: number;
  memory: number;
  crashes: number;
  /** Workers that were started in place of one that ended. */
  restarts: number;
  /** Mean time of an item in a worker, of those that ended there. */
  msPerComparison: number;
}

interface Job {
  item: VerifyItem;
  done(verdict: Verdict): void;
  fail(error: Error): void;
  cancelled(): boolean;
  /** A crash may have come from outside: the item gets a second try. */
  crashes: number;
}

interface Batch {
  id: number;
  jobs: (Job | null)[];
  /** The item the worker was at when it was killed. */
  suspect: Job | null;
  /** Milliseconds since the worker was last heard of. */
  silentMs: number;
}

/** Items of a message, and characters beyond which it takes no further ones. */
const BATCH_ITEMS = 32;
const BATCH_CHARACTERS = 2 ** 20;
const MAX_STARTING_MS = 60_000;
/** Beside twice what its items may take, so long a worker goes on that nobody ends. */
const ORPHAN_MS = 2_000;
const MAX_FAILED_STARTS = 3;
const COUNTERS = {
  equal: 'equal',
  different: 'different',
  'no-answer': 'noAnswer',
  undecided: 'undecided',
  timeout: 'timeouts',
  memory: 'memory',
  crashed: 'crashes',
} as const satisfies Record<VerifyOutcome, keyof VerifierStats>;

/**
 * Judges items in worker processes. Every item has a time and a memory bound: what exceeds one is killed, gets an outcome
 * that says so and counts as wrong; the rest of its batch goes on in a new worker. Several callers may use a pool at
 * once. Its workers never keep the process alive, and end with it.
 */
export class VerifierPool implements AsyncDisposable {
  readonly #options: Required<Omit<VerifierPoolOptions, 'judgeModule' | 'onProblem'>>;
  readonly #judgeModule: string | undefined;
  readonly #onProblem: ((problem: VerifierProblem) => void) | undefined;
  readonly #workers = new Map<WorkerProcess, Batch | null>();
  /** Milliseconds that workers which are not ready yet have had. */
  readonly #starting = new Map<WorkerProcess, number>();
  #queue: Job[] = [];
  #next = 0;
  #pending = 0;
  #batches = 0;
  #failedStarts = 0;
  #closed = false;
  #watch: NodeJS.Timeout | undefined;
  #watchedAt = 0;
  readonly #reported = new Set<VerifyOutcome>();
  #busyMs = 0;
  #timed = 0;
  readonly #stats: Omit<VerifierStats, 'msPerComparison'> = {
    compared: 0,
    equal: 0,
    different: 0,
    noAnswer: 0,
    undecided: 0,
    timeouts: 0,
    memory: 0,
    crashes: 0,
    restarts: 0,
  };

  /** Starts nothing yet. @throws InvalidArgumentError naming the option */
  constructor(options: VerifierPoolOptions = {}) {
    checkOptions(options, KEYS, 'new VerifierPool');
    const { workers = Math.min(4, availableParallelism()), timeoutMs = 5_000 } = options;
    const { maxMemoryMb = 256, maxLength = 1_000_000, judgeModule, onProblem } = options;
    this.#options = {
      workers: whole('workers', workers, 1),
      timeoutMs: whole('timeoutMs', timeoutMs, 1),
      maxMemoryMb: whole('maxMemoryMb', maxMemoryMb, 16),
      maxLength: whole('maxLength', maxLength, 1),
    };
    this.#judgeModule = judgeModule;
    this.#onProblem = onProblem;
  }

  /** What was done so far: a snapshot. */
  get stats(): VerifierStats {
    return { ...this.#stats, msPerComparison: this.#timed === 0 ? 0 : this.#busyMs / this.#timed };
  }

  /**
   * Judges every item; verdict i belongs to item i. What goes wrong with an item is its verdict, not a rejection.
   *
   * @throws InvalidArgumentError for an item without prediction and response, or without gold answer; AbortedError when
   *   `signal` fires; DisposedError after {@link close}; VerifierError when no worker can be started
   */
  verify(items: readonly VerifyItem[], options: { signal?: AbortSignal } = {}): Promise<Verdict[]> {
    return new Promise((resolve, reject) => {
      checkOptions(options, SIGNAL, 'pool.verify');
      const { signal } = options;
      if (this.#closed) throw new DisposedError('this VerifierPool is closed');
      items.forEach(checkItem);
      if (signal?.aborted) throw aborted(signal);
      const verdicts: Verdict[] = new Array(items.length);
      let left = items.length;
      let over = left === 0;
      const end = (): void => {
        over = true;
        signal?.removeEventListener('abort', abort);
      };
      const fail = (error: Error): void => {
        end();
        reject(error);
      };
      const abort = (): void => fail(aborted(signal as AbortSignal));
      if (over) return resolve(verdicts);
      signal?.addEventListener('abort', abort, { once: true });
      items.forEach((item, i) => {
        const done = (verdict: Verdict): void => {
          verdicts[i] = verdict;
          left -= 1;
          if (left > 0 || over) return;
          end();
          resolve(verdicts);
        };
        this.#add({ item: this.#shortened(item), done, fail, cancelled: () => over, crashes: 0 });
      });
      this.#dispatch();
    });
  }

  /** Ends all workers. What is still being judged rejects with DisposedError. May be called twice. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#failAll(new DisposedError('this VerifierPool was closed while it judged'));
    for (const worker of this.#workers.keys()) worker.close();
    this.#workers.clear();
    this.#starting.clear();
    this.#watchWhileBusy();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Only what is compared travels, and of a long response the end. */
  #shortened({ prediction, response, gold, options }: VerifyItem): VerifyItem {
    const { maxLength } = this.#options;
    return prediction === undefined
      ? { response: (response as string).slice(-maxLength), gold, options }
      : { prediction, gold, options };
  }

  #add(job: Job): void {
    this.#pending += 1;
    const { prediction = '', gold } = job.item;
    const longest = Math.max(prediction.length, ...golds(gold).map((text) => text.length));
    if (longest > this.#options.maxLength) {
      const reason = `an answer of ${longest} characters is longer than maxLength ${this.#options.maxLength}`;
      this.#finish(job, { outcome: 'undecided', answer: null, reason });
    } else {
      this.#queue.push(job);
    }
  }

  #finish(job: Job, verdict: Omit<Verdict, 'equal'>): void {
    this.#pending -= 1;
    const { outcome, reason } = verdict;
    this.#stats.compared += 1;
    this.#stats[COUNTERS[outcome]] += 1;
    job.done({ equal: outcome === 'equal', ...verdict });
    if (outcome === 'equal' || outcome === 'different' || outcome === 'no-answer' || this.#reported.has(outcome))
      return;
    this.#reported.add(outcome);
    const problem = { outcome, item: job.item, message: reason };
    if (this.#onProblem !== undefined) this.#onProblem(problem);
    else if (outcome !== 'undecided') process.emitWarning(describeProblem(problem), 'EepoVerifierWarning');
  }

  /** Gives work to idle workers, and starts further ones while there is more work than they can take. */
  #dispatch(): void {
    for (const [worker, batch] of this.#workers) {
      if (batch === null && worker.isReady && !worker.isEnding) this.#give(worker);
    }
    const waiting = this.#queue.length - this.#next;
    const wanted = Math.ceil(waiting / BATCH_ITEMS);
    while (this.#starting.size < wanted && this.#workers.size < this.#options.workers) this.#start();
    this.#watchWhileBusy();
  }

  #start(): void {
    const worker = new WorkerProcess(
      { maxMemoryMb: this.#options.maxMemoryMb, judgeModule: this.#judgeModule },
      {
        ready: (ready) => {
          this.#starting.delete(ready);
          this.#failedStarts = 0;
          this.#dispatch();
        },
        reply: (from, [batch, index, outcome, answer, reason, milliseconds]) => {
          const current = this.#workers.get(from);
          const job = current?.id === batch ? current.jobs[index] : undefined;
          if (current === undefined || current === null || job === undefined || job === null) return;
          current.jobs[index] = null;
          current.silentMs = 0;
          this.#busyMs += milliseconds;
          this.#timed += 1;
          this.#finish(job, { outcome, answer, reason });
          if (index < current.jobs.length - 1) return;
          this.#workers.set(from, null);
          this.#dispatch();
        },
        ended: (gone, ending) => this.#replace(gone, ending),
      },
    );
    this.#workers.set(worker, null);
    this.#starting.set(worker, 0);
  }

  #give(worker: WorkerProcess): void {
    const jobs: Job[] = [];
    let characters = 0;
    while (this.#next < this.#queue.length && jobs.length < BATCH_ITEMS && characters < BATCH_CHARACTERS) {
      const job = this.#queue[this.#next] as Job;
      this.#next += 1;
      if (job.cancelled()) {
        this.#pending -= 1;
        continue;
      }
      jobs.push(job);
      characters += sizeOf(job.item);
    }
    if (this.#next === this.#queue.length) {
      this.#queue = [];
      this.#next = 0;
    }
    if (jobs.length === 0) return;
    this.#batches += 1;
    this.#workers.set(worker, { id: this.#batches, jobs, suspect: null, silentMs: 0 });
    const limitMs = ORPHAN_MS + 2 * jobs.length * this.#options.timeoutMs;
    worker.send(
      this.#batches,
      jobs.map(({ item }) => item),
      limitMs,
    );
  }

  /** A worker has ended: the item it was at is to blame, the others of its batch go to the front of the queue. */
  #replace(worker: WorkerProcess, ending: Ending): void {
    const batch = this.#workers.get(worker) ?? null;
    this.#workers.delete(worker);
    const failedToStart = this.#starting.delete(worker);
    this.#stats.restarts += 1;
    if (failedToStart) {
      this.#failedStarts += 1;
      if (this.#failedStarts >= MAX_FAILED_STARTS) {
        this.#failAll(new VerifierError(`no worker of the verifier can be started: ${ending.message}`));
      }
    }
    const left = batch?.jobs.filter((job) => job !== null) ?? [];
    const blamed = left[0];
    // A killed worker may have got over its item just before it died.
    const isGuilty = batch?.suspect === null || batch?.suspect === blamed;
    if (blamed !== undefined && isGuilty) {
      blamed.crashes += 1;
      const secondTry = ending.cause === 'crashed' && blamed.crashes === 1;
      if (!secondTry) {
        left.shift();
        const answer = blamed.item.prediction ?? null;
        this.#finish(blamed, { outcome: ending.cause, answer, reason: ending.message });
      }
    }
    if (left.length > 0) {
      this.#queue.splice(0, this.#next, ...left);
      this.#next = 0;
    }
    if (!this.#closed) this.#dispatch();
  }

  #failAll(error: Error): void {
    const jobs = [...this.#queue.slice(this.#next)];
    for (const [worker, batch] of this.#workers) {
      jobs.push(...(batch?.jobs ?? []).filter((job) => job !== null));
      if (batch !== null) this.#workers.set(worker, null);
    }
    this.#queue = [];
    this.#next = 0;
    this.#pending -= jobs.length;
    this.#failedStarts = 0;
    for (const job of jobs) job.fail(error);
  }

  /** The timer looks after the workers while there is work, and keeps the process alive so long. */
  #watchWhileBusy(): void {
    if (this.#pending === 0) {
      clearInterval(this.#watch);
      this.#watch = undefined;
    } else if (this.#watch === undefined) {
      this.#watchedAt = performance.now();
      const tick = Math.min(100, Math.max(5, this.#options.timeoutMs / 10));
      this.#watch = setInterval(() => this.#lookAfter(tick), tick);
    }
  }

  #lookAfter(tick: number): void {
    const now = performance.now();
    // After a long pause (a stopped process, a busy main thread) the workers' news come after this timer: not all of
    // the time counts at once.
    const passed = Math.min(now - this.#watchedAt, 2 * tick);
    this.#watchedAt = now;
    const { timeoutMs } = this.#options;
    for (const [worker, batch] of this.#workers) {
      if (worker.isEnding) continue;
      const memory = worker.overMemory();
      if (memory !== null) kill(worker, batch, { cause: 'memory', message: memory });
      else if (batch !== null) {
        batch.silentMs += passed;
        if (batch.silentMs > timeoutMs) {
          kill(worker, batch, { cause: 'timeout', message: `longer than ${timeoutMs} ms` });
        }
      } else if (!worker.isReady) {
        const startingMs = (this.#starting.get(worker) ?? 0) + passed;
        this.#starting.set(worker, startingMs);
        if (startingMs > MAX_STARTING_MS) {
          kill(worker, batch, { cause: 'timeout', message: `it was not ready after ${MAX_STARTING_MS} ms` });
        }
      }
    }
    this.#watchWhileBusy();
  }
}

function kill(worker: WorkerProcess, batch: Batch | null, ending: Ending): void {
  if (batch !== null) batch.suspect = batch.jobs.find((job) => job !== null) ?? null;
  worker.kill(ending);
}

let shared: VerifierPool | undefined;

/** The pool that whoever has none of their own uses: made at the first call, never closed. */
export function verifierPool(): VerifierPool {
  shared ??= new VerifierPool();
  return shared;
}

const golds = (gold: string | readonly string[]): readonly string[] => (typeof gold === 'string' ? [gold] : gold);

const sizeOf = ({ prediction = '', response = '', gold }: VerifyItem): number =>
  prediction.length + response.length + golds(gold).reduce((sum, text) => sum + text.length, 0);

const isText = (value: unknown): boolean => typeof value === 'string';

function checkItem(item: VerifyItem, i: number): void {
  checkKeys(item, `items[${i}]`);
  const { prediction, response, gold } = item;
  if (!isText(prediction) && !(prediction === undefined && isText(response))) {
    throw new InvalidArgumentError(`items[${i}] must have a prediction or a response, a string`);
  }
  if (!isText(gold) && !(Array.isArray(gold) && gold.length > 0 && gold.every(isText))) {
    throw new InvalidArgumentError(`items[${i}].gold must be a string or a non-empty list of strings`);
  }
}

function whole(name: string, value: number, min: number): number {
  if (Number.isSafeInteger(value) && value >= min) return value;
  throw new InvalidArgumentError(`${name} must be a whole number, at least ${min}, got ${value}`);
}

function aborted(signal: AbortSignal): Error {
  return signal.reason instanceof AbortedError
    ? signal.reason
    : new AbortedError('verification was aborted', { cause: signal.reason });
}

function describeProblem({ outcome, item, message }: VerifierProblem): string {
  const answer = (item.prediction ?? item.response ?? '').slice(-200);
  return (
    `a comparison ended as '${outcome}' and counts as wrong: ${message}; the answer: ${JSON.stringify(answer)}. ` +
    'Further ones are only counted (stats)'
  );
}
