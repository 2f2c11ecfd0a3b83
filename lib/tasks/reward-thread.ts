/** A reward function in a thread of its own, which can be ended whatever it is doing. */
import { Worker } from 'node:worker_threads';
import { withoutTokens } from '../environment.js';
import { AbortedError, RewardError } from '../errors.js';
import type { ModuleOutline, RewardReply, RewardRequest, RewardThreadData } from './reward-worker.js';
import type { RewardInput } from './types.js';

/** How long a thread that is not computing may take to say so, in milliseconds. */
const PONG_MS = 1_000;

const PROGRAM = new URL('./reward-worker.js', import.meta.url);

/** What a call came to. */
export interface ThreadResult {
  /** One per input, undefined where none came in time; null: what the function returned is no list. */
  values: ({ value: unknown } | undefined)[] | null;
  /** With `values` null: what was returned, or something like it. */
  returned?: unknown;
  counts: Record<string, number>;
  /** The thread was at work when the time was over, and has been ended. */
  blocked: boolean;
}

/** Starts its thread when it is first needed, and again after it was ended. It never keeps the process alive by itself. */
export class RewardThread {
  readonly #data: RewardThreadData;
  #worker: Worker | null = null;
  #outline: Promise<ModuleOutline> | null = null;
  #calls = 0;

  constructor(path: string, index = 0) {
    this.#data = { path, index };
  }

  /**
   * Loads the module.
   *
   * @throws RewardError when it throws or ends its thread
   */
  outline(): Promise<ModuleOutline> {
    this.#outline ??= this.#start();
    return this.#outline;
  }

  /**
   * Calls the function once, and waits for its entries until all are there or the time is over.
   *
   * @throws RewardError when the thread ends, Error with the function's own message when it throws, AbortedError
   */
  async call(
    inputs: readonly RewardInput[],
    timeoutMs: number | undefined,
    signal?: AbortSignal,
  ): Promise<ThreadResult> {
    await this.outline();
    const worker = this.#worker as Worker;
    this.#calls += 1;
    const call = this.#calls;
    const result: ThreadResult = { values: inputs.map(() => undefined), counts: {}, blocked: false };
    const waiting = new Waiting(worker, timeoutMs, signal);
    let missing = Number.POSITIVE_INFINITY;
    const onReply = (reply: RewardReply): void => {
      if ('pong' in reply) waiting.end('idle');
      if (!('call' in reply) || reply.call !== call) return;
      if ('error' in reply) waiting.fail(new Error(reply.error));
      else if ('counts' in reply) add(result.counts, reply.counts);
      else if ('entries' in reply) {
        result.values = reply.entries === null ? null : new Array(reply.entries).fill(undefined);
        result.returned = reply.what;
        missing = reply.entries ?? 0;
        // Another number than was asked for is an error already.
        if (reply.entries !== inputs.length || missing === 0) waiting.end('done');
      } else if (result.values !== null) {
        result.values[reply.entry] = { value: reply.value };
        missing -= 1;
        if (missing === 0) waiting.end('done');
      }
    };
    worker.on('message', onReply);
    try {
      worker.postMessage({ call, inputs: inputs.map(cloneable) } satisfies RewardRequest);
      const ending = await waiting.ended;
      result.blocked = ending === 'blocked';
      if (ending === 'blocked') this.end();
      if (ending === 'idle') worker.postMessage({ abort: call } satisfies RewardRequest);
      return result;
    } catch (error) {
      if (error instanceof AbortedError) this.end();
      throw error;
    } finally {
      worker.off('message', onReply);
      waiting.clear();
    }
  }

  /** Ends the thread, whatever it is doing. */
  end(): void {
    void this.#worker?.terminate();
    this.#worker = null;
    this.#outline = null;
  }

  #start(): Promise<ModuleOutline> {
    const worker = new Worker(PROGRAM, { workerData: this.#data, env: withoutTokens(process.env) });
    this.#worker = worker;
    const { path } = this.#data;
    const gone = (reason: string): RewardError => {
      if (this.#worker === worker) this.end();
      return new RewardError(`reward.module: ${path} ${reason}`);
    };
    return new Promise<ModuleOutline>((resolve, reject) => {
      worker.once('error', (error) => reject(gone(`ended its thread: ${error.message}`)));
      worker.once('exit', (code) => reject(gone(`ended its thread with exit code ${code}`)));
      worker.on('message', (reply: RewardReply) => {
        if ('failed' in reply) reject(gone(`cannot be loaded: ${reply.failed}`));
        if (!('outline' in reply)) return;
        resolve(reply.outline);
        worker.unref();
      });
    });
  }
}

type EndOfWaiting = 'done' | 'idle' | 'blocked';

/** Until the entries are there, the time is over, or the thread is gone. */
class Waiting {
  readonly ended: Promise<EndOfWaiting>;
  end: (how: EndOfWaiting) => void = () => {};
  fail: (error: Error) => void = () => {};
  readonly #clear: (() => void)[] = [];

  constructor(worker: Worker, timeoutMs: number | undefined, signal: AbortSignal | undefined) {
    this.ended = new Promise((resolve, reject) => {
      this.end = resolve;
      this.fail = reject;
    });
    worker.ref();
    const onError = (error: Error): void => this.fail(error);
    const onExit = (code: number): void => this.fail(new RewardError(`its thread ended with exit code ${code}`));
    const onAbort = (): void => this.fail(new AbortedError('the reward was aborted', { cause: signal?.reason }));
    worker.once('error', onError);
    worker.once('exit', onExit);
    signal?.addEventListener('abort', onAbort, { once: true });
    let timer =
      timeoutMs === undefined
        ? undefined
        : setTimeout(() => {
            worker.postMessage({ ping: 0 } satisfies RewardRequest);
            timer = setTimeout(() => this.end('blocked'), PONG_MS);
          }, timeoutMs);
    this.#clear.push(() => {
      clearTimeout(timer);
      worker.off('error', onError);
      worker.off('exit', onExit);
      signal?.removeEventListener('abort', onAbort);
      worker.unref();
    });
  }

  clear(): void {
    for (const clear of this.#clear) clear();
  }
}

function add(counts: Record<string, number>, more: Readonly<Record<string, number>>): void {
  for (const [name, value] of Object.entries(more)) counts[name] = (counts[name] ?? 0) + value;
}

/** What a thread can be given: everything of a problem but functions. */
function cloneable(input: RewardInput): RewardInput {
  return { ...input, tokens: Array.from(input.tokens) };
}
