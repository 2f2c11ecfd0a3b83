/** Tasks by name. */
import { distance } from 'fastest-levenshtein';
import { InvalidArgumentError } from '../errors.js';
import { type CountdownOptions, countdown } from './countdown.js';
import { type JsonlOptions, jsonlTask } from './jsonl.js';
import type { Task } from './types.js';

export type { CountdownAnswer, CountdownOptions } from './countdown.js';
export { countdown } from './countdown.js';
export type { JsonlOptions, JsonlReward } from './jsonl.js';
export { jsonlTask } from './jsonl.js';
export type { ChatMessage, Demonstration, Problem, RewardFunction, RewardInput, Task } from './types.js';

/** Options of every built-in task. */
export interface TaskOptions {
  countdown: CountdownOptions;
  jsonl: JsonlOptions;
}

export const TASK_NAMES = ['countdown', 'jsonl'] as const satisfies readonly (keyof TaskOptions)[];

/**
 * Loads a built-in task: `createTask('countdown', { seed: 0 })`, `createTask('jsonl', { files: { train: 'x.jsonl' } })`.
 *
 * @throws InvalidArgumentError for an unknown name
 */
export async function createTask<Name extends keyof TaskOptions>(
  name: Name,
  options?: TaskOptions[Name],
): Promise<Task> {
  switch (name) {
    case 'countdown':
      return countdown(options as CountdownOptions | undefined);
    case 'jsonl':
      return jsonlTask((options ?? {}) as JsonlOptions);
    default: {
      const known = [...TASK_NAMES].sort((x, y) => distance(x, String(name)) - distance(y, String(name)));
      throw new InvalidArgumentError(
        `there is no task '${String(name)}'; did you mean '${known[0]}'? Known: ${TASK_NAMES.join(', ')}`,
      );
    }
  }
}
