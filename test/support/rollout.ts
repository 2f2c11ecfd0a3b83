/** A small rollout: three prompts, six samples of each. */
import type { RolloutOptions } from '../../lib/rollout.js';

export const prompts = [
  { id: 3, tokens: [1, 4] },
  { id: 7, tokens: [2] },
  { id: 9, tokens: [8, 5, 6] },
];

export const options = (more: Partial<RolloutOptions> = {}): RolloutOptions => ({
  groupSize: 6,
  maxNewTokens: 12,
  seed: 5,
  iteration: 2,
  unlearn: null,
  ...more,
});
