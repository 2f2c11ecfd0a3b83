/** Several rewards for one response: their weighted sum, and what each of them says. */
import { InvalidArgumentError, RewardError } from '../errors.js';
import { checkOptions, type OptionKeys } from '../options.js';
import { type CallReport, callRewardFully, type ErrorPolicy, joinCalls } from './call-reward.js';
import type {
  NamedReward,
  PerSampleRewardFunction,
  Reward,
  RewardFunction,
  RewardInput,
  TimeoutPolicy,
} from './types.js';
import { verifierName } from './verifiers.js';

/**
 * What becomes of a response that was cut off at `maxNewTokens`: it is judged like every other (the paper's), its reward
 * is 0, or it is left out.
 */
export type OverlongPolicy = (typeof OVERLONG)[number];

export const OVERLONG = ['verify', 'zero', 'null'] as const;

/** A reward whose name nobody gave: it has no metrics of its own but what it counts, those of the sum say the rest. */
export type AnyReward = Omit<NamedReward, 'name'> & { name: string | null };

export interface RewardOptions {
  /** Of the task, for messages. */
  task: string;
  /** Default 'verify'. */
  overlong?: OverlongPolicy;
  /** Default 'stop'. */
  onError?: ErrorPolicy;
  /** For rewards that have no limit of their own and do not keep the time themselves. Default: none. */
  timeoutMs?: number;
  /** For rewards that say none. Default 'null'. */
  onTimeout?: TimeoutPolicy;
  signal?: AbortSignal;
}

/** Functions that end by themselves in bounded time: those of modules; verifiers are known by name. */
export const keepsOwnTime = new WeakSet<PerSampleRewardFunction>();

/** What of a reward was left out. */
export interface RewardFailure {
  /** `reward "x"`, or the reward of the task. */
  label: string;
  errors: number;
  nonfinite: number;
  timeouts: number;
  /** Responses it was asked about. */
  asked: number;
  /** The first, in words; empty for what was only late. */
  first: string;
}

export interface RewardReport {
  /** One per input: the sum of weight times reward; null leaves the response out. */
  rewards: Reward[];
  /** What each named reward gave, in the order of the list; null also where it was not asked. */
  parts: { name: string; rewards: Reward[] }[];
  /** `reward/<name>/mean`, `std`, `null_frac`, `timeouts`, `errors`, `nonfinite`, and what the functions count. */
  metrics: Record<string, number>;
  /** Rewards that failed for some response, or were cut off. */
  failures: RewardFailure[];
  /** Share of the responses for which one of them failed; of modules those that were cut off are counted, not known. */
  failedShare: number;
}

/**
 * Judges a batch by every reward at once.
 *
 * A response's reward is the sum of weight times value over the rewards that are not null there. It is null, the
 * response left out, where all of them are, or one that is `required`.
 *
 * @throws RewardError naming the reward that misbehaves
 */
export async function computeRewards(
  list: readonly AnyReward[],
  inputs: readonly RewardInput[],
  options: RewardOptions,
): Promise<RewardReport> {
  return reportRewards(list, await judgeResponses(list, inputs, options), options);
}

/** What every reward said of some responses, before it is added up. */
export interface Judgement {
  inputs: readonly RewardInput[];
  /** Whether a response was judged at all. */
  asked: readonly boolean[];
  /** One per reward. */
  calls: readonly CallReport[];
}

/** The first half of {@link computeRewards}: the functions are called. */
export async function judgeResponses(
  list: readonly AnyReward[],
  inputs: readonly RewardInput[],
  options: RewardOptions,
): Promise<Judgement> {
  const { overlong = 'verify' } = options;
  const asked = inputs.map(({ finishReason }) => overlong === 'verify' || finishReason === 'stop');
  const judged = inputs.filter((_, i) => asked[i]);
  return { inputs, asked, calls: judged.length === 0 ? list.map(() => NOTHING) : await callAll(list, judged, options) };
}

/** Two judgements by the same rewards as one, those of `first` in front. */
export function joinJudgements(first: Judgement, second: Judgement): Judgement {
  return {
    inputs: [...first.inputs, ...second.inputs],
    asked: [...first.asked, ...second.asked],
    calls: first.calls.map((call, r) => joinCalls(call, second.calls[r] as CallReport)),
  };
}

/** The second half of {@link computeRewards}: sums, metrics and failures. */
export function reportRewards(
  list: readonly AnyReward[],
  { inputs, asked, calls }: Judgement,
  options: RewardOptions,
): RewardReport {
  const { overlong = 'verify' } = options;
  const judged = asked.filter(Boolean);
  const overflow: RewardFailure = {
    label: 'the weighted sum',
    errors: 0,
    nonfinite: 0,
    timeouts: 0,
    asked: judged.length,
    first: '',
  };
  const parts = list.map((reward, r) => ({ reward, call: calls[r] as CallReport, rewards: spread(calls[r], asked) }));
  const rewards = inputs.map((input, i): Reward => {
    if (!asked[i]) return overlong === 'zero' ? 0 : null;
    const sum = weightedSum(
      list,
      parts.map((part) => part.rewards[i] as Reward),
    );
    if (sum === null || Number.isFinite(sum)) return sum;
    const message = `task "${options.task}": the weighted sum of the rewards is ${sum} for a response to problem ${input.problem.id}`;
    if (options.onError !== 'skip') throw new RewardError(message, { sample: i, problem: input.problem.id });
    overflow.nonfinite += 1;
    overflow.first ||= message;
    return null;
  });
  const failures = [...list.flatMap((reward, r) => failureOf(reward, calls[r] as CallReport, options.task)), overflow];
  return {
    rewards,
    failures: failures.filter(({ errors, nonfinite, timeouts }) => errors + nonfinite + timeouts > 0),
    failedShare: failedShare(calls, judged.length, overflow.nonfinite),
    parts: parts.flatMap(({ reward: { name }, rewards: own }) => (name === null ? [] : [{ name, rewards: own }])),
    metrics: Object.assign({}, ...parts.map(({ reward, call }) => metricsOf(reward, call, options))),
  };
}

const NOTHING: CallReport = { rewards: [], timeouts: 0, errors: 0, nonfinite: 0, failure: null, counts: {} };

const labelOf = (name: string | null, task: string): string =>
  name === null ? `the reward of task "${task}"` : `reward "${name}" of task "${task}"`;

/** A module's thread reports what it cut off as a count. */
const timeoutsOf = ({ timeouts, counts }: CallReport): number => timeouts + (counts.timeouts ?? 0);

function failureOf({ name }: AnyReward, call: CallReport, task: string): RewardFailure {
  const { errors, nonfinite, failure, rewards } = call;
  return {
    label: labelOf(name, task),
    errors,
    nonfinite,
    timeouts: timeoutsOf(call),
    asked: rewards.length,
    first: failure?.message ?? '',
  };
}

function failedShare(calls: readonly CallReport[], asked: number, more: number): number {
  if (asked === 0) return 0;
  const any = Array.from({ length: asked }, (_, i) => calls.some(({ failed }) => failed?.[i] === true));
  const cutOff = calls.reduce((sum, { counts }) => sum + (counts.timeouts ?? 0), 0);
  return Math.min(1, (any.filter(Boolean).length + cutOff + more) / asked);
}

/** All at once; the first failure ends the others. */
async function callAll(
  list: readonly AnyReward[],
  inputs: readonly RewardInput[],
  { task, signal, onError, ...defaults }: RewardOptions,
): Promise<CallReport[]> {
  const failed = new AbortController();
  const any = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
  try {
    return await Promise.all(
      list.map(({ name, fn, timeoutMs = limitOf(fn, defaults), onTimeout = defaults.onTimeout }) =>
        callRewardFully(fn, inputs, {
          label: labelOf(name, task),
          signal: any,
          ...(name === null ? {} : { name }),
          ...(onError === undefined ? {} : { onError }),
          ...(timeoutMs === undefined ? {} : { timeoutMs }),
          ...(onTimeout === undefined ? {} : { onTimeout }),
        }),
      ),
    );
  } catch (error) {
    failed.abort(error);
    throw error;
  }
}

function limitOf(fn: PerSampleRewardFunction, { timeoutMs }: Pick<RewardOptions, 'timeoutMs'>): number | undefined {
  return keepsOwnTime.has(fn) || verifierName(fn) !== null ? undefined : timeoutMs;
}

/** The values at the places that were asked, null elsewhere. */
function spread(call: CallReport | undefined, asked: readonly boolean[]): Reward[] {
  let next = 0;
  return asked.map((yes) => (yes ? (call?.rewards[next++] ?? null) : null));
}

function weightedSum(list: readonly AnyReward[], values: readonly Reward[]): Reward {
  let sum: Reward = null;
  for (const [r, { weight = 1, required = false }] of list.entries()) {
    const value = values[r] as Reward;
    if (value !== null) sum = (sum ?? 0) + weight * value;
    else if (required) return null;
  }
  return sum;
}

function metricsOf(
  { name, timeoutMs }: AnyReward,
  call: CallReport,
  { onError }: RewardOptions,
): Record<string, number> {
  const { rewards, timeouts, errors, nonfinite, counts } = call;
  const prefix = name === null ? 'reward/task' : `reward/${name}`;
  const own = Object.fromEntries(Object.entries(counts).map(([what, count]) => [`${prefix}/${what}`, count]));
  const cutOff = {
    ...(timeoutMs === undefined && timeouts === 0 ? {} : { [`${prefix}/timeouts`]: timeouts }),
    ...(onError === 'skip' ? { [`${prefix}/errors`]: errors, [`${prefix}/nonfinite`]: nonfinite } : {}),
  };
  if (name === null) return { ...own, ...cutOff };
  const given = rewards.filter((value) => value !== null);
  const mean = given.reduce((sum, value) => sum + value, 0) / given.length;
  const variance = given.reduce((sum, value) => sum + (value - mean) ** 2, 0) / given.length;
  return {
    ...(given.length === 0 ? {} : { [`${prefix}/mean`]: mean, [`${prefix}/std`]: Math.sqrt(variance) }),
    [`${prefix}/null_frac`]: rewards.length === 0 ? 0 : 1 - given.length / rewards.length,
    ...cutOff,
    ...own,
  };
}

const REWARD_KEYS: OptionKeys<NamedReward> = {
  name: true,
  fn: true,
  weight: true,
  timeoutMs: true,
  onTimeout: true,
  required: true,
};

/** @throws InvalidArgumentError naming what is wrong with a list of rewards */
export function checkRewards(list: readonly NamedReward[]): void {
  if (!Array.isArray(list) || list.length === 0) {
    throw new InvalidArgumentError('rewards must be a list of { name, fn, weight }, not empty');
  }
  const names = new Set<string>();
  for (const [i, reward] of list.entries()) {
    checkOptions(reward, REWARD_KEYS, `rewards[${i}]`);
    const { name, fn, weight = 1, timeoutMs, onTimeout = 'null' } = reward;
    if (typeof name !== 'string' || !/^[\w.-]+$/.test(name)) {
      throw new InvalidArgumentError(
        `rewards[${i}].name must be letters, digits, "_", "-" and ".", got ${JSON.stringify(name)}`,
      );
    }
    const wrong = (what: string, got: unknown): InvalidArgumentError =>
      new InvalidArgumentError(`reward "${name}": ${what}, got ${JSON.stringify(got) ?? String(got)}`);
    if (names.has(name)) throw new InvalidArgumentError(`two rewards have the name "${name}"`);
    names.add(name);
    if (typeof fn !== 'function') throw wrong('fn must be a function', fn);
    if (!(typeof weight === 'number' && Number.isFinite(weight))) throw wrong('weight must be a finite number', weight);
    if (timeoutMs !== undefined && !(typeof timeoutMs === 'number' && timeoutMs > 0 && timeoutMs <= MAX_TIMEOUT)) {
      throw wrong(`timeoutMs must be a number of milliseconds above 0 and at most ${MAX_TIMEOUT}`, timeoutMs);
    }
    if (!['null', 'zero', 'throw'].includes(onTimeout)) {
      throw wrong("onTimeout must be 'null', 'zero' or 'throw'", onTimeout);
    }
  }
}

/** The longest time a timer can wait. */
const MAX_TIMEOUT = 2 ** 31 - 1;

/** The rewards that a function is the sum of. */
const terms = new WeakMap<PerSampleRewardFunction, readonly NamedReward[]>();

/** One reward function that is the weighted sum of several, for evaluation; {@link rewardList} knows its terms. */
export function combinedReward(list: readonly NamedReward[], task: string): RewardFunction {
  const sum: RewardFunction = async (inputs, context) => {
    const { rewards } = await computeRewards(list, inputs, {
      task,
      ...(context === undefined ? {} : { signal: context.signal }),
    });
    return rewards;
  };
  terms.set(sum, list);
  return sum;
}

/**
 * What training maximizes: `rewards`, else the terms of a combined function, else one function, which has a name of its
 * own where it is a verifier.
 */
export function rewardList(
  rewards: readonly NamedReward[] | undefined,
  fn: PerSampleRewardFunction | undefined,
): readonly AnyReward[] {
  if (rewards !== undefined || fn === undefined) return rewards ?? [];
  return terms.get(fn) ?? [{ name: verifierName(fn), fn }];
}

/**
 * Calls every reward once, with an empty response to the first problem, so that a broken function stops a run before
 * anything was sampled; where errors are skipped, they are returned.
 */
export async function tryRewards(
  list: readonly AnyReward[],
  problem: RewardInput['problem'],
  options: RewardOptions,
): Promise<RewardFailure[]> {
  const { failures } = await computeRewards(
    list,
    [{ problem, response: '', tokens: [], finishReason: 'stop' }],
    options,
  );
  return failures;
}
