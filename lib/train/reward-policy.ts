/** What becomes of rewards that fail or do not come: the same in training and in its evaluations. */
import type { RewardFailure, RewardOptions } from '../tasks/rewards.js';
import type { TrainConfig } from './config.js';

/** As [reward] says. */
export function rewardPolicy({
  reward: { onError, onTimeout, timeoutMs },
}: Pick<TrainConfig, 'reward'>): Pick<RewardOptions, 'onError' | 'onTimeout' | 'timeoutMs'> {
  return { onError, onTimeout, ...(timeoutMs > 0 ? { timeoutMs } : {}) };
}

/** A failure in words. */
export function failureText({ label, errors, nonfinite, timeouts, asked, first }: RewardFailure): string {
  return (
    `${label} failed for ${errors + nonfinite + timeouts} of ${asked} responses ` +
    `(${errors} errors, ${nonfinite} not finite, ${timeouts} cut off)${first === '' ? '' : `; the first: ${first}`}`
  );
}
