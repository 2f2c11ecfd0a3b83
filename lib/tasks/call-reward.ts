/** Calling a reward function within its time, and telling its author what is wrong with what it did. */
import { AbortedError, RewardError } from '../errors.js';
import type { PerSampleRewardFunction, Reward, RewardContext, RewardInput, TimeoutPolicy } from './types.js';

/** What becomes of a reward that throws or is no finite number: the end of the run, or it is left out and counted. */
export type ErrorPolicy = (typeof ERROR_POLICIES)[number];

export const ERROR_POLICIES = ['stop', 'skip'] as const;

export interface CallOptions {
  /** Named in messages. Default: the reward of the task. */
  label?: string;
  /** The reward's own name, of errors. */
  name?: string;
  /** Most milliseconds for a response. Default: no limit. */
  timeoutMs?: number;
  /** Default 'null'. */
  onTimeout?: TimeoutPolicy;
  /** Default 'stop'. */
  onError?: ErrorPolicy;
  signal?: AbortSignal;
}

/** What a call came to. */
export interface CallReport {
  /** One per input. */
  rewards: Reward[];
  /** Inputs whose time was over. */
  timeouts: number;
  /** Inputs left out because the function threw, or gave what is no number. */
  errors: number;
  /** Inputs left out because their reward was NaN or infinite. */
  nonfinite: number;
  /** For each input whether it is one of those; undefined where all are well. */
  failed?: boolean[];
  /** Of the first that failed. */
  failure: RewardError | null;
  /** What the function reported, added up. */
  counts: Record<string, number>;
}

/** Two calls of the same function as one. */
export function joinCalls(first: CallReport, second: CallReport): CallReport {
  const flags = ({ failed, rewards }: CallReport): boolean[] => failed ?? rewards.map(() => false);
  const counts = { ...first.counts };
  for (const [what, count] of Object.entries(second.counts)) counts[what] = (counts[what] ?? 0) + count;
  return {
    rewards: [...first.rewards, ...second.rewards],
    timeouts: first.timeouts + second.timeouts,
    errors: first.errors + second.errors,
    nonfinite: first.nonfinite + second.nonfinite,
    ...(first.failed || second.failed ? { failed: [...flags(first), ...flags(second)] } : {}),
    failure: first.failure ?? second.failure,
    counts,
  };
}

/** So many failures in a row of a function that is asked for one response at a time; then it is not asked again. */
const MAX_FAILURES = 16;

/** The time was over and the policy is to end the run, whatever becomes of other errors. */
export class LateError extends RewardError {}

const LATE = Symbol('late');
type Late = typeof LATE;

/** An entry that is not there: what was thrown in its place. */
class Failure {
  constructor(
    readonly error: RewardError,
    readonly kind: 'errors' | 'nonfinite',
  ) {}
}

type Entry = Reward | Late | Failure;

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
  const { label, onTimeout = 'null', onError = 'stop', timeoutMs } = options;
  const counts: Record<string, number> = {};
  let entries: Entry[];
  try {
    entries = await callBatch(reward, inputs, counts, options);
  } catch (error) {
    if (onError === 'stop' || !(error instanceof RewardError) || error instanceof LateError) throw error;
    entries = await oneByOne(reward, inputs, counts, options, error);
  }
  const failures = entries.filter((entry) => entry instanceof Failure);
  const late = entries.indexOf(LATE);
  if (late >= 0 && onTimeout === 'throw') {
    throw new LateError(
      `${label} took longer than ${timeoutMs} ms for a response to problem ${idOf(inputs, late)}`,
      placeOf(inputs, late, options),
    );
  }
  const failed = entries.map((entry) => entry === LATE || entry instanceof Failure);
  return {
    rewards: entries.map((entry) => {
      if (entry === LATE) return onTimeout === 'zero' ? 0 : null;
      return entry instanceof Failure ? null : entry;
    }),
    timeouts: entries.filter((entry) => entry === LATE).length,
    errors: failures.filter(({ kind }) => kind === 'errors').length,
    nonfinite: failures.filter(({ kind }) => kind === 'nonfinite').length,
    ...(failed.includes(true) ? { failed } : {}),
    failure: failures[0]?.error ?? null,
    counts,
  };
}

/**
 * The batch failed as a whole, and nothing says because of which response: each is judged alone. A function that fails
 * for one after the other is broken, and the rest is not tried.
 */
async function oneByOne(
  reward: PerSampleRewardFunction,
  inputs: readonly RewardInput[],
  counts: Record<string, number>,
  options: CallOptions & { label: string },
  first: RewardError,
): Promise<Entry[]> {
  if (inputs.length === 1) return [new Failure(placed(first, inputs, 0, options), 'errors')];
  const entries: Entry[] = [];
  let inARow = 0;
  for (const [i, input] of inputs.entries()) {
    if (inARow >= MAX_FAILURES) {
      entries.push(entries[i - 1] as Entry);
      continue;
    }
    let entry: Entry;
    try {
      entry = (await callBatch(reward, [input], counts, options))[0] as Entry;
    } catch (error) {
      if (!(error instanceof RewardError) || error instanceof LateError) throw error;
      entry = new Failure(placed(error, inputs, i, options), 'errors');
    }
    inARow = entry === LATE || entry instanceof Failure ? inARow + 1 : 0;
    entries.push(entry);
  }
  return entries;
}

/** One call. What is wrong with a single entry is in its place; what is wrong with the whole is thrown. */
async function callBatch(
  reward: PerSampleRewardFunction,
  inputs: readonly RewardInput[],
  counts: Record<string, number>,
  options: CallOptions & { label: string },
): Promise<Entry[]> {
  const { label, timeoutMs, signal, name } = options;
  if (signal?.aborted) throw new AbortedError(`${label} was aborted`, { cause: signal.reason });
  const ending = new Ending(timeoutMs, signal, label);
  try {
    const context: RewardContext = {
      signal: ending.signal,
      report: (more) => {
        for (const [key, value] of Object.entries(more)) counts[key] = (counts[key] ?? 0) + value;
      },
    };
    const given: unknown = reward(inputs, context);
    const returned: unknown = await ending.race(given);
    if (returned === LATE) {
      void Promise.resolve(given).then(silence, () => {});
      return inputs.map(() => LATE);
    }
    const entries = listOf(returned, inputs, options);
    return await Promise.all(entries.map((entry, i) => settleEntry(entry, i, inputs, ending, options)));
  } catch (error) {
    if (error instanceof AbortedError) throw error;
    throw wrapped(error, label, name === undefined ? {} : { reward: name });
  } finally {
    ending.clear();
  }
}

function listOf(
  returned: unknown,
  inputs: readonly RewardInput[],
  { label, name }: CallOptions & { label: string },
): unknown[] {
  const place: Place = name === undefined ? {} : { reward: name };
  if (!Array.isArray(returned) && !ArrayBuffer.isView(returned)) {
    throw new RewardError(`${label} returned ${describe(returned)}; expected an array of numbers`, place);
  }
  const entries = Array.from(returned as ArrayLike<unknown>);
  if (entries.length !== inputs.length) {
    silence(entries);
    throw new RewardError(
      `${label} returned ${entries.length} values for ${inputs.length} responses; expected one each`,
      place,
    );
  }
  return entries;
}

async function settleEntry(
  entry: unknown,
  i: number,
  inputs: readonly RewardInput[],
  ending: Ending,
  options: CallOptions & { label: string },
): Promise<Entry> {
  const { label } = options;
  let value = entry;
  if (isPromise(entry)) {
    try {
      value = await ending.race(entry);
    } catch (error) {
      if (error instanceof AbortedError) throw error;
      return failure(wrapped(error, label, placeOf(inputs, i, options)), 'errors', options);
    }
  }
  if (value === LATE) return LATE;
  if (value === null || (typeof value === 'number' && Number.isFinite(value))) return value;
  const error = new RewardError(
    `${label} returned ${describe(value)} for a response to problem ${idOf(inputs, i)}; ` +
      'expected a finite number, or null to leave the response out',
    placeOf(inputs, i, options),
  );
  return failure(error, typeof value === 'number' ? 'nonfinite' : 'errors', options);
}

/** Where errors end the run, the first one need not wait for the other entries. */
function failure(error: RewardError, kind: Failure['kind'], { onError }: CallOptions): Failure {
  if (onError !== 'skip' || error instanceof LateError) throw error;
  return new Failure(error, kind);
}

/** Promises that nobody waits for any more must not end the process when they fail. */
function silence(entries: unknown): void {
  if (!Array.isArray(entries)) return;
  for (const entry of entries) if (isPromise(entry)) void Promise.resolve(entry).catch(() => {});
}

interface Place {
  reward?: string;
  sample?: number;
  problem?: string;
}

function placeOf(inputs: readonly RewardInput[], i: number, { name }: CallOptions): Place {
  return { sample: i, problem: idOf(inputs, i), ...(name === undefined ? {} : { reward: name }) };
}

/** The same error, with the response it is about. */
function placed(error: RewardError, inputs: readonly RewardInput[], i: number, options: CallOptions): RewardError {
  return new RewardError(`${error.message} (for a response to problem ${idOf(inputs, i)})`, {
    cause: error.cause ?? error,
    ...placeOf(inputs, i, options),
  });
}

/** What was thrown as a RewardError that begins with the reward's name. */
function wrapped(error: unknown, label: string, place: Place): RewardError {
  const reason = error instanceof Error ? error.message : String(error);
  if (!(error instanceof RewardError)) return new RewardError(`${label} threw: ${reason}`, { cause: error, ...place });
  if (reason.startsWith(label)) return error;
  const Kind = error instanceof LateError ? LateError : RewardError;
  return new Kind(`${label}: ${reason}`, { cause: error, ...place });
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

const idOf = (inputs: readonly RewardInput[], i: number): string => inputs[i]?.problem.id ?? '?';

function describe(value: unknown): string {
  if (typeof value === 'number') return String(value);
  if (value === undefined) return 'undefined';
  return `a value of type ${value === null ? 'null' : typeof value}`;
}
