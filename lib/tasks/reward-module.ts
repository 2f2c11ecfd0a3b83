/** Rewards of a module that the configuration names: code of the configuration's owner, never of a data set. */
import { existsSync, statSync } from 'node:fs';
import { basename, extname } from 'node:path';
import { InvalidArgumentError } from '../errors.js';
import { LateError } from './call-reward.js';
import { RewardThread, type ThreadResult } from './reward-thread.js';
import type { ModuleOutline } from './reward-worker.js';
import { checkRewards, keepsOwnTime } from './rewards.js';
import type {
  NamedReward,
  PerSampleRewardFunction,
  Reward,
  RewardContext,
  RewardInput,
  TimeoutPolicy,
} from './types.js';

export interface RewardModuleOptions {
  /** Weight of a default export that is a function. Default 1. */
  weight?: number;
  /** For rewards that say none. Default: no limit. */
  timeoutMs?: number;
  /** For rewards that say none. Default 'null'. */
  onTimeout?: TimeoutPolicy;
}

/** So many responses of a batch may each block the thread for the whole of their time; then the rest are late too. */
const MAX_BLOCKED = 16;

/**
 * The rewards of a JavaScript module: its export `rewards`, a list of { name, fn, weight, timeoutMs, onTimeout }, or a
 * function as its default export, which is named as the file.
 *
 * Each runs in a thread of its own, so that one that computes without end is cut off as well: its thread is ended, and
 * the responses of that call are judged again one by one, each with its own time.
 *
 * @throws InvalidArgumentError for a file that is not there or exports neither, RewardError for one that throws, with
 *   the line
 */
export async function loadRewardModule(path: string, options: RewardModuleOptions = {}): Promise<NamedReward[]> {
  if (!existsSync(path)) throw new InvalidArgumentError(`reward.module: ${path}: no such file`);
  if (statSync(path).isDirectory()) {
    throw new InvalidArgumentError(`reward.module: ${path} is a folder; name the module in it, such as rewards.mjs`);
  }
  const first = new RewardThread(path);
  const outlines = rewardOutlines(await first.outline(), path, options.weight);
  const list = outlines.map((outline, i): NamedReward => {
    const timeoutMs = outline.timeoutMs ?? options.timeoutMs;
    const onTimeout = outline.onTimeout ?? options.onTimeout;
    return {
      ...outline,
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
      ...(onTimeout === undefined ? {} : { onTimeout }),
      fn: outline.fn
        ? threadFunction(i === 0 ? first : new RewardThread(path, i), timeoutMs, onTimeout)
        : (null as never),
    };
  });
  try {
    checkRewards(list);
  } catch (cause) {
    throw new InvalidArgumentError(`reward.module: ${path}: ${(cause as Error).message}`, { cause });
  }
  // The thread keeps the time: it alone knows whether one response hangs or all of them wait.
  return list.map(({ timeoutMs: _, onTimeout: __, ...reward }) => reward);
}

function rewardOutlines(outline: ModuleOutline, path: string, weight: number | undefined) {
  if (outline.kind === 'list') return outline.rewards;
  if (outline.kind === 'function') {
    return [{ name: nameOf(path), fn: true, ...(weight === undefined ? {} : { weight }) }];
  }
  throw new InvalidArgumentError(
    `reward.module: ${path} must export a function as its default, or a list of { name, fn, weight } as "rewards"`,
  );
}

/** The file's name without its ending, as a name of metrics. */
function nameOf(path: string): string {
  return basename(path, extname(path)).replace(/[^\w.-]+/g, '_') || 'module';
}

function threadFunction(
  thread: RewardThread,
  timeoutMs: number | undefined,
  onTimeout: TimeoutPolicy = 'null',
): PerSampleRewardFunction {
  const fn: PerSampleRewardFunction = async (inputs, context) => {
    const first = await thread.call(inputs, timeoutMs, context?.signal);
    context?.report(first.counts);
    if (first.values === null || first.values.length !== inputs.length) return wrongShape(first);
    const values = first.blocked ? await oneByOne(thread, inputs, first.values, timeoutMs, context) : first.values;
    const late = values.indexOf(undefined);
    if (timeoutMs !== undefined) {
      context?.report({ timeouts: values.filter((entry) => entry === undefined).length });
    }
    if (late >= 0 && onTimeout === 'throw') {
      throw new LateError(`it took longer than ${timeoutMs} ms for a response to problem ${inputs[late]?.problem.id}`);
    }
    return values.map((entry) => (entry === undefined ? (onTimeout === 'zero' ? 0 : null) : entry.value) as Reward);
  };
  keepsOwnTime.add(fn);
  return fn;
}

/** What is checked, and described, where every reward is. */
const wrongShape = ({ values, returned }: ThreadResult): never => (values ?? returned) as never;

/** Judges again what is missing, each response alone: so the one that hangs is found. */
async function oneByOne(
  thread: RewardThread,
  inputs: readonly RewardInput[],
  known: NonNullable<ThreadResult['values']>,
  timeoutMs: number | undefined,
  context: RewardContext | undefined,
): Promise<NonNullable<ThreadResult['values']>> {
  const values = [...known];
  let blocked = 0;
  for (const [i, input] of inputs.entries()) {
    // A batch of one has been tried by itself already.
    if (values[i] !== undefined || inputs.length === 1 || blocked >= MAX_BLOCKED) continue;
    const result = await thread.call([input], timeoutMs, context?.signal);
    values[i] = result.values?.[0];
    if (result.blocked) blocked += 1;
    else context?.report(result.counts);
  }
  return values;
}
