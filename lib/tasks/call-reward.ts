/** Calling a reward function, and telling its author what is wrong with what it did. */
import { AbortedError, RewardError } from '../errors.js';
import type { RewardFunction, RewardInput } from './types.js';

/**
 * Judges a batch.
 *
 * @param name - of the task, for messages
 * @throws RewardError when the function throws, returns another number of values, or one that is neither a finite number
 *   nor null
 */
export async function callReward(
  reward: RewardFunction,
  inputs: readonly RewardInput[],
  name: string,
): Promise<(number | null)[]> {
  let rewards: readonly (number | null)[];
  try {
    rewards = await reward(inputs);
  } catch (error) {
    if (error instanceof AbortedError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new RewardError(`the reward of task "${name}" threw: ${reason}`, { cause: error });
  }
  if (!Array.isArray(rewards) && !ArrayBuffer.isView(rewards)) {
    throw new RewardError(`the reward of task "${name}" returned ${describe(rewards)}; expected an array of numbers`);
  }
  if (rewards.length !== inputs.length) {
    throw new RewardError(
      `the reward of task "${name}" returned ${rewards.length} values for ${inputs.length} responses; expected one each`,
    );
  }
  const checked = Array.from(rewards);
  checked.forEach((value, i) => {
    if (value === null || (typeof value === 'number' && Number.isFinite(value))) return;
    const id = inputs[i]?.problem.id ?? '?';
    throw new RewardError(
      `the reward of task "${name}" returned ${describe(value)} for a response to problem ${id}; ` +
        'expected a finite number, or null to leave the response out',
    );
  });
  return checked;
}

function describe(value: unknown): string {
  if (typeof value === 'number') return String(value);
  if (value === undefined) return 'undefined';
  return `a value of type ${value === null ? 'null' : typeof value}`;
}

/**
 * Calls the reward once, with an empty response to the first problem, so that a broken function stops a run before
 * anything was sampled.
 */
export async function tryReward(reward: RewardFunction, problem: RewardInput['problem'], name: string): Promise<void> {
  await callReward(reward, [{ problem, response: '', tokens: [], finishReason: 'length' }], name);
}
