/** What responses are like, as numbers: `Task.features`, checked, and the means of them. */
import { InvalidArgumentError } from '../errors.js';
import type { Problem, Task } from './types.js';

/** Value by feature; only finite ones. */
export type Features = Record<string, number>;

const NAME = /^[A-Za-z0-9_.-]+$/;

/**
 * The features of a response; none where the task has no features.
 *
 * @throws InvalidArgumentError that names task and problem, where the function throws or does not return numbers by name
 */
export function featuresOf(task: Pick<Task, 'name' | 'features'>, problem: Problem, response: string): Features {
  if (task.features === undefined) return {};
  const what = `the features of task "${task.name}", problem ${JSON.stringify(problem.id)}`;
  let found: unknown;
  try {
    found = task.features(problem, response);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new InvalidArgumentError(`${what}: the function threw: ${reason}`, { cause });
  }
  if (typeof found !== 'object' || found === null || Array.isArray(found)) {
    throw new InvalidArgumentError(`${what}: expected an object of numbers by name, got ${String(found)}`);
  }
  const entries = Object.entries(found).map(([name, value]: [string, unknown]): [string, number] => {
    if (!NAME.test(name)) {
      throw new InvalidArgumentError(
        `${what}: the name ${JSON.stringify(name)} may only have letters, digits, "_", "-" and "."`,
      );
    }
    if (typeof value !== 'number') {
      throw new InvalidArgumentError(`${what}: ${name} must be a number, got ${String(value)}`);
    }
    return [name, value];
  });
  return Object.fromEntries(entries.filter(([, value]) => Number.isFinite(value)));
}

/** The mean of every feature over the responses that have it. */
export function meanFeatures(all: readonly Features[]): Features {
  const sums = new Map<string, { sum: number; count: number }>();
  for (const features of all) {
    for (const [name, value] of Object.entries(features)) {
      const own = sums.get(name) ?? { sum: 0, count: 0 };
      sums.set(name, { sum: own.sum + value, count: own.count + 1 });
    }
  }
  return Object.fromEntries([...sums].map(([name, { sum, count }]) => [name, sum / count]));
}
