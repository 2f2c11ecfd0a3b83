/** Calling a reward function within its time, and telling its author what is wrong with what it did. */
import { AbortedError, RewardError } from '../errors.js';
import type { PerSampleRewardFunction, Reward, RewardContext, RewardInput, TimeoutPolicy } from './types.js';

export interface CallOptions {
  /** Named in messages. Default: the reward of the task. */
  label?: string;
  /** Most milliseconds for a response. Default: no limit. */
  timeoutMs?: number;
  /** Default 'null'. */
  onTimeout?: TimeoutPolicy;
  signal?: AbortSignal;
}

/** What a call came to. */
export interface CallReport {
  /** One per input. */
  rewards: Reward[];
  /** Inputs whose time was over. */
  timeouts: number;
  /** What the function reported, added up. */
  counts: Record<string, number>;
}

const LATE = Symbol('late');
type Late = typeof LATE;

/**
 * Judges a batch.
 *
 * @param name - of the task, for messages
 * @throws RewardError when the function throws, returns another number of values, or one that is neither a finite number
 *   nor null; AbortedError as soon as the signal fires
 */
export async function callReward(
  reward: PerSampleRewardFunction,
  inputs: readonly RewardInput[],
  name: string,
  options: CallOptions = {},
): Promise<Reward[]> {
  const { rewards } = await callRewardFully(reward, inputs, { label: `the reward of task "${name}"`, ...options });
  return rewards;
}

/** As {@link callReward}, with everything that came of the call. */
export async function callRewardFully(
  reward: PerSampleRewardFunction,
  inputs: readonly RewardInput[],
  options: CallOptions & { label: string },
): Promise<CallReport> {
  const { label, timeoutMs, signal, onTimeout = 'null' } = options;
  if (signal?.aborted) throw new AbortedError(`${label} was aborted`, { cause: signal.reason });
  const counts: Record<string, number> = {};
  const ending = new Ending(timeoutMs, signal, label);
  let values: (unknown | Late)[];
  try {
    values = await settle(reward, inputs, ending, counts, label);
  } catch (error) {
    if (error instanceof AbortedError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    if (!(error instanceof RewardError)) throw new RewardError(`${label} threw: ${reason}`, { cause: error });
    throw reason.startsWith(label) ? error : new RewardError(`${label}: ${reason}`, { cause: error });
  } finally {
    ending.clear();
  }
  const late = values.indexOf(LATE);
  if (late >= 0 && onTimeout === 'throw') {
    throw new RewardError(`${label} took longer than ${timeoutMs} ms for a response to problem ${idOf(inputs, late)}`);
  }
  return {
    rewards: values.map((value, i) => (value === LATE ? lateReward(onTimeout) : checked(value, i, inputs, label))),
    timeouts: values.filter((value) => value === LATE).length,
    counts,
  };
}

const lateReward = (policy: TimeoutPolicy): Reward => (policy === 'zero' ? 0 : null);

/** What the function returns, each entry on its own where it is a promise. */
async function settle(
  reward: PerSampleRewardFunction,
  inputs: readonly RewardInput[],
  ending: Ending,
  counts: Record<string, number>,
  label: string,
): Promise<unknown[]> {
  const context: RewardContext = {
    signal: ending.signal,
    report: (more) => {
      for (const [name, value] of Object.entries(more)) counts[name] = (counts[name] ?? 0) + value;
    },
  };
  const returned: unknown = await ending.race(reward(inputs, context));
  if (returned === LATE) return inputs.map(() => LATE);
  if (!Array.isArray(returned) && !ArrayBuffer.isView(returned)) {
    throw new RewardError(`${label} returned ${describe(returned)}; expected an array of numbers`);
  }
  const entries = Array.from(returned as ArrayLike<unknown>);
  if (entries.length !== inputs.length) {
    throw new RewardError(
      `${label} returned ${entries.length} values for ${inputs.length} responses; expected one each`,
    );
  }
  return Promise.all(entries.map((entry) => (isPromise(entry) ? ending.race(entry) : entry)));
}

/** When waiting ends: the time is over, or the run is stopped. */
class Ending {
  readonly #controller = new AbortController();
  readonly #late: Promise<Late>;
  readonly #aborted: Promise<never>;
  #clear = (): void => {};

  constructor(timeoutMs: number | undefined, outer: AbortSignal | undefined, label: string) {
    this.#late = new Promise((resolve) => {
      if (timeoutMs === undefined) return;
      const timer = setTimeout(() => {
        resolve(LATE);
        this.#controller.abort(new RewardError(`${label}: ${timeoutMs} ms are over`));
      }, timeoutMs);
      this.#clear = () => clearTimeout(timer);
    });
    this.#aborted = new Promise((_, reject) => {
      if (outer === undefined) return;
      const stop = (): void => {
        reject(new AbortedError(`${label} was aborted`, { cause: outer.reason }));
        this.#controller.abort(outer.reason);
      };
      outer.addEventListener('abort', stop, { once: true });
      const clear = this.#clear;
      this.#clear = () => {
        clear();
        outer.removeEventListener('abort', stop);
      };
    });
    this.#aborted.catch(() => {});
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Whichever comes first; what comes later, an error too, is nobody's business any more. */
  race(value: unknown): Promise<unknown> {
    return Promise.race([value, this.#late, this.#aborted]);
  }

  clear(): void {
    this.#clear();
  }
}

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function';
}

function checked(value: unknown, i: number, inputs: readonly RewardInput[], label: string): Reward {
  if (value === null || (typeof value === 'number' && Number.isFinite(value))) return value;
  throw new RewardError(
    `${label} returned ${describe(value)} for a response to problem ${idOf(inputs, i)}; ` +
      'expected a finite number, or null to leave the response out',
  );
}

const idOf = (inputs: readonly RewardInput[], i: number): string => inputs[i]?.problem.id ?? '?';

function describe(value: unknown): string {
  if (typeof value === 'number') return String(value);
  if (value === undefined) return 'undefined';
  return `a value of type ${value === null ? 'null' : typeof value}`;
}
