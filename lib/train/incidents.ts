/** What went wrong in an iteration and did not end the run, in words. */
import { NonFiniteError, RewardError } from '../errors.js';
import type { Rollout } from '../rollout.js';
import type { RewardReport } from '../tasks/rewards.js';
import type { TrainConfig } from './config.js';
import type { Incident } from './non-finite.js';
import { failureText } from './reward-policy.js';
import type { Streaks } from './trainer-types.js';

export type { Incident };

export function unlearnIncidents({ undone }: Rollout, iteration: number): Incident[] {
  if (undone === null) return [];
  return [
    {
      kind: 'unlearn',
      message: `iteration ${iteration}: the unlearning step diverged and was undone, stage 2 was drawn from theta: ${undone}`,
    },
  ];
}

export function rewardIncidents({ failures }: RewardReport, iteration: number): Incident[] {
  return failures.map((failure) => ({ kind: 'reward', message: `iteration ${iteration}: ${failureText(failure)}` }));
}

/** What ends the run after this iteration, or null: something has gone wrong too often in a row. */
export function tooMany(
  { skippedSteps, failedRewards }: Streaks,
  { optimizer, reward }: TrainConfig,
  incidents: readonly Incident[],
): NonFiniteError | RewardError | null {
  const { maxSkippedSteps } = optimizer;
  const { maxFailedShare, maxFailedIterations } = reward;
  const last = (kind: Incident['kind']): string =>
    incidents.findLast((incident) => incident.kind === kind)?.message ?? '';
  if (maxSkippedSteps > 0 && skippedSteps >= maxSkippedSteps) {
    return new NonFiniteError(
      `${skippedSteps} updates in a row were not finite (optimizer.maxSkippedSteps = ${maxSkippedSteps}); the weights ` +
        `are those before the first of them. The last one: ${last('update')}. Lower optimizer.lr or unlearn.eta, or ` +
        'clip more with optimizer.maxGradNorm',
    );
  }
  if (maxFailedIterations > 0 && failedRewards >= maxFailedIterations) {
    return new RewardError(
      `in ${failedRewards} iterations in a row more than ${maxFailedShare} of the responses had a reward that failed ` +
        `(reward.maxFailedShare, reward.maxFailedIterations). The last one: ${last('reward')}`,
    );
  }
  return null;
}
