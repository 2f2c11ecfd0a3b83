/** Tasks of one's own. */
import { InvalidArgumentError } from '../errors.js';
import { checkOptions, type OptionKeys } from '../options.js';
import { isChat } from './data/prompts.js';
import { checkRewards, combinedReward } from './rewards.js';
import type { Problem, Task } from './types.js';

/** A task as it is written: ids may be left out, and `reward` where `rewards` are given. */
export type TaskDefinition = Omit<Task, 'splits' | 'reward'> &
  Partial<Pick<Task, 'reward'>> & {
    splits: Readonly<Record<string, readonly (Omit<Problem, 'id'> & { id?: string })[]>>;
  };

const KEYS: OptionKeys<TaskDefinition> = {
  name: true,
  splits: true,
  reward: true,
  rewards: true,
  distinctKey: true,
  algebraicKey: true,
  features: true,
  demonstrations: true,
  notes: true,
};

/**
 * A task of one's own, checked: every prompt is text or a chat, ids are unique (those left out become `train:1`, ...),
 * and there is a reward.
 *
 *     const task = defineTask({
 *       name: 'spelling',
 *       splits: { train: [{ prompt: 'Spell "eight": ', answer: 'e-i-g-h-t' }] },
 *       reward: (inputs) => inputs.map(({ problem, response }) => (response.trim() === problem.answer ? 1 : 0)),
 *     });
 *
 * @throws InvalidArgumentError naming what is wrong
 */
export function defineTask(given: TaskDefinition): Task {
  checkOptions(given, KEYS, 'defineTask');
  const { splits, ...definition } = given;
  const { name, rewards } = definition;
  if (typeof name !== 'string' || name === '') throw new InvalidArgumentError('defineTask: name must be a text');
  if (rewards !== undefined) checkRewards(rewards);
  const reward = definition.reward ?? (rewards === undefined ? undefined : combinedReward(rewards, name));
  if (typeof reward !== 'function') {
    throw new InvalidArgumentError(`defineTask: task "${name}" has no reward; give reward or rewards`);
  }
  const ids = new Set<string>();
  const checked = Object.entries(splits ?? {}).map(([split, problems]): [string, Problem[]] => {
    const list = problems.map((problem, i) => {
      const id = problem.id ?? `${split}:${i + 1}`;
      if ((typeof problem.prompt !== 'string' || problem.prompt === '') && !isChat(problem.prompt)) {
        throw new InvalidArgumentError(
          `defineTask: the prompt of ${id} must be a non-empty text or a list of { role, content } messages`,
        );
      }
      if (ids.has(id)) throw new InvalidArgumentError(`defineTask: two problems have the id ${JSON.stringify(id)}`);
      ids.add(id);
      return { ...problem, id };
    });
    return [split, list];
  });
  if (checked.length === 0) throw new InvalidArgumentError(`defineTask: task "${name}" has no splits`);
  return { ...definition, splits: Object.fromEntries(checked), reward };
}
