/** Which of the stage-1 samples are forgotten: O1 of Eq. 9 as it is, or a part of it. */
import { InvalidArgumentError } from '../errors.js';

/**
 * - 'all' (the paper): every sample.
 * - 'correct', 'wrong': those with a reward above 0, or of 0 and less.
 * - 'solved': those of prompts whose stage-1 samples are all correct.
 *
 * L is the mean over what is kept: with K the samples that are forgotten,
 *
 *     L = 1/|K| sum_{k in K} 1/T_k sum_t I_t log(1 - clip(p_t, eL, 1 - eR)),
 *
 * so that eta means the same for many samples and for few; K = O1 is Eq. 10.
 */
export type SamplesToForget = (typeof SAMPLES_TO_FORGET)[number];

export const SAMPLES_TO_FORGET = ['all', 'correct', 'wrong', 'solved'] as const;

/**
 * For each sample whether it is forgotten. One whose reward is null (left out) is neither correct nor wrong, and its
 * prompt is not solved.
 *
 * @param prompts - the prompt of each sample, by any number
 * @param rewards - one per sample; not looked at where `which` is 'all'
 */
export function samplesToForget(
  which: SamplesToForget,
  prompts: readonly number[],
  rewards: readonly (number | null)[],
): boolean[] {
  if (!SAMPLES_TO_FORGET.includes(which)) {
    throw new InvalidArgumentError(
      `samples must be ${SAMPLES_TO_FORGET.map((one) => `"${one}"`).join(', ')}, got ${JSON.stringify(which)}`,
    );
  }
  if (which === 'all') return prompts.map(() => true);
  if (rewards.length !== prompts.length) {
    throw new InvalidArgumentError(`rewards has ${rewards.length} entries for ${prompts.length} samples`);
  }
  const correct = rewards.map((reward) => reward !== null && reward > 0);
  if (which === 'correct') return correct;
  if (which === 'wrong') return rewards.map((reward) => reward !== null && reward <= 0);
  const open = new Set(prompts.filter((_, i) => !correct[i]));
  return prompts.map((prompt) => !open.has(prompt));
}
