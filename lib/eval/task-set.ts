/** A split of a task as a set of problems: its reward is the judge. */
import { InvalidArgumentError } from '../errors.js';
import { checkOptions, type OptionKeys, SIGNAL } from '../options.js';
import { featuresOf } from '../tasks/features.js';
import { computeRewards, type RewardFailure, type RewardOptions, rewardList } from '../tasks/rewards.js';
import type { Reward, Task } from '../tasks/types.js';
import { verifierReward } from '../tasks/verifiers.js';
import { mathSet } from './math-set.js';
import type { EvaluationSet, Judgement } from './types.js';

/** What becomes of a reward that fails or does not come, as in training. Default: no limit of time, errors are thrown. */
export interface TaskSetOptions extends Pick<RewardOptions, 'timeoutMs' | 'onTimeout' | 'onError' | 'signal'> {
  /** Called where rewards failed or were cut off and that did not end the evaluation. */
  onFailures?: (failures: readonly RewardFailure[]) => void;
}

const KEYS: OptionKeys<TaskSetOptions> = {
  timeoutMs: true,
  onTimeout: true,
  onError: true,
  onFailures: true,
  ...SIGNAL,
};

/**
 * A split of a task as a set. A response is correct where its reward is above 0; where it has none (null, cut off, or
 * left out because of an error) nothing is known, and it counts neither as correct nor as wrong.
 *
 * @throws InvalidArgumentError when there is no such split, or nothing in it
 */
export function taskSet(task: Task, split: string, options: TaskSetOptions = {}): EvaluationSet {
  checkOptions(options, KEYS, 'taskSet');
  const { onFailures, ...policy } = options;
  const problems = Object.hasOwn(task.splits, split) ? task.splits[split] : undefined;
  if (problems === undefined) {
    throw new InvalidArgumentError(
      `split: task '${task.name}' has no split '${split}'; it has ${Object.keys(task.splits).join(', ')}`,
    );
  }
  if (problems.length === 0) throw new InvalidArgumentError(`split '${split}' of task '${task.name}' has no problems`);
  // The verifier's judge also says what was answered, so that answers can vote.
  if (task.reward === verifierReward('math')) return { ...mathSet(split, split, problems), ...featuresIn(task) };
  const list = rewardList(undefined, task.reward);
  return {
    name: split,
    problems,
    judge: async (inputs) => {
      const { rewards, failures } = await computeRewards(list, inputs, { ...policy, task: task.name });
      if (failures.length > 0) onFailures?.(failures);
      return rewards.map(judgementOf);
    },
    ...(task.distinctKey === undefined ? {} : { distinctKey: task.distinctKey.bind(task) }),
    ...(task.algebraicKey === undefined ? {} : { algebraicKey: task.algebraicKey.bind(task) }),
    ...featuresIn(task),
  };
}

function featuresIn(task: Task): Pick<EvaluationSet, 'features'> {
  if (task.features === undefined) return {};
  return { features: (problem, response) => featuresOf(task, problem, response) };
}

function judgementOf(reward: Reward): Judgement {
  if (reward === null) return { verdict: 'missing', answer: null, reason: 'no reward' };
  return { verdict: reward > 0 ? 'correct' : 'wrong', answer: null };
}

/** Failures of several batches: one for every reward. */
export function addFailures(failures: readonly RewardFailure[]): RewardFailure[] {
  const byLabel = new Map<string, RewardFailure>();
  for (const failure of failures) {
    const known = byLabel.get(failure.label);
    if (known === undefined) byLabel.set(failure.label, { ...failure });
    else {
      for (const count of ['errors', 'nonfinite', 'timeouts', 'asked'] as const) known[count] += failure[count];
      known.first ||= failure.first;
    }
  }
  return [...byLabel.values()];
}
