/** What went wrong in an iteration and did not end the run, in words. */
import type { Rollout } from '../rollout.js';
import type { RewardReport } from '../tasks/rewards.js';
import type { Incident } from './non-finite.js';

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
  return failures.map(({ label, errors, nonfinite, timeouts, asked, first }) => ({
    kind: 'reward',
    message:
      `iteration ${iteration}: ${label} failed for ${errors + nonfinite + timeouts} of ${asked} responses ` +
      `(${errors} errors, ${nonfinite} not finite, ${timeouts} cut off)${first === '' ? '' : `; the first: ${first}`}`,
  }));
}
