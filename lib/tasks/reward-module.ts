/** Rewards of a module that the configuration names: code of the configuration's owner, never of a data set. */
import { existsSync } from 'node:fs';
import { basename, extname } from 'node:path';
import { pathToFileURL } from 'node:url';
import { InvalidArgumentError, RewardError } from '../errors.js';
import { checkRewards } from './rewards.js';
import type { NamedReward, TimeoutPolicy } from './types.js';

export interface RewardModuleOptions {
  /** Weight of a default export that is a function. Default 1. */
  weight?: number;
  /** For rewards that say none. Default: no limit. */
  timeoutMs?: number;
  /** For rewards that say none. Default 'null'. */
  onTimeout?: TimeoutPolicy;
}

/**
 * The rewards of a JavaScript module: its export `rewards`, a list of { name, fn, weight, timeoutMs, onTimeout }, or a
 * function as its default export, which is named as the file.
 *
 * @throws InvalidArgumentError for a file that is not there or exports neither, RewardError for one that throws
 */
export async function loadRewardModule(path: string, options: RewardModuleOptions = {}): Promise<NamedReward[]> {
  if (!existsSync(path)) throw new InvalidArgumentError(`reward.module: ${path}: no such file`);
  const exported = await importModule(path);
  const { timeoutMs, onTimeout, weight } = options;
  const defaults = {
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(onTimeout === undefined ? {} : { onTimeout }),
  };
  const list = exported.rewards ?? exported.default;
  if (typeof list !== 'function' && !Array.isArray(list)) {
    throw new InvalidArgumentError(
      `reward.module: ${path} must export a function as its default, or a list of { name, fn, weight } as "rewards"`,
    );
  }
  const rewards: NamedReward[] =
    typeof list === 'function'
      ? [
          {
            name: nameOf(path),
            fn: list as NamedReward['fn'],
            ...(weight === undefined ? {} : { weight }),
            ...defaults,
          },
        ]
      : list.map((reward) => ({ ...defaults, ...reward }));
  try {
    checkRewards(rewards);
  } catch (cause) {
    throw new InvalidArgumentError(`reward.module: ${path}: ${(cause as Error).message}`, { cause });
  }
  return rewards;
}

async function importModule(path: string): Promise<Record<string, unknown>> {
  try {
    return (await import(pathToFileURL(path).href)) as Record<string, unknown>;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new RewardError(`reward.module: ${path} cannot be loaded: ${reason}`, { cause });
  }
}

/** The file's name without its ending, as a name of metrics. */
function nameOf(path: string): string {
  return basename(path, extname(path)).replace(/[^\w.-]+/g, '_') || 'module';
}
