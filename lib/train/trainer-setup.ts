/** What the trainer makes of its options before the first iteration. */
import { ConfigError } from '../errors.js';
import { type AnyReward, checkRewards, type RewardReport, rewardList } from '../tasks/rewards.js';
import type { Reward } from '../tasks/types.js';
import { defaultStopTokens, resolveStopTokens } from '../tokenizer/stop-tokens.js';
import { Tokenizer } from '../tokenizer.js';
import type { TrainConfig } from './config.js';
import type { TrainablePolicy, TrainerOptions, TrainerTokenizer, TrainSample } from './trainer-types.js';
import type { TrainPrompt } from './training-prompts.js';

/** @throws ConfigError where nothing rewards, InvalidArgumentError for a reward that is none */
export function rewardsOf({ task, reward, rewards }: TrainerOptions): readonly AnyReward[] {
  if (reward !== undefined && rewards !== undefined) {
    throw new ConfigError('new Trainer({ reward, rewards, ... }): give one of the two');
  }
  const own = reward === undefined ? (rewards ?? task.rewards) : undefined;
  if (own !== undefined) checkRewards(own);
  const fn = reward ?? task.reward;
  if (own === undefined && typeof fn !== 'function') {
    throw new ConfigError(`task "${task.name}" has no reward; give one: new Trainer({ reward, ... })`);
  }
  return rewardList(own, fn);
}

/** What each of several rewards gave for sample i. */
export function partsOf({ parts }: RewardReport, i: number): Pick<TrainSample, 'rewards'> {
  if (parts.length < 2) return {};
  return { rewards: Object.fromEntries(parts.map(({ name, rewards }) => [name, rewards[i] as Reward])) };
}

/** What the configuration asks of the policy itself. */
export async function setUpPolicy(policy: TrainablePolicy, { lora, optimizer }: TrainConfig): Promise<void> {
  if (lora.rank > 0 && !policy.adapter) {
    throw new ConfigError(
      `lora.rank = ${lora.rank}, but this policy has no adapter; load it with Policy.load(path, { lora: { rank: ${lora.rank} } })`,
    );
  }
  if (!optimizer.gradientCheckpointing) return;
  if (!policy.setGradientCheckpointing) {
    throw new ConfigError('optimizer.gradientCheckpointing = true, but this policy cannot do it');
  }
  await policy.setGradientCheckpointing(true);
}

/** The tokenizer of the policy's folder. */
export async function ownTokenizer({ folder }: TrainablePolicy, { model }: TrainConfig): Promise<TrainerTokenizer> {
  if (folder == null) {
    throw new ConfigError('this policy comes from no folder; give its tokenizer: new Trainer({ tokenizer, ... })');
  }
  const { chatTemplate } = model;
  return Tokenizer.load(folder, chatTemplate === '' ? {} : { chatTemplate });
}

/** rollout.stopTokens, else what the tokenizer says for such prompts; undefined: the policy's. */
export function chooseStopTokens(
  tokenizer: TrainerTokenizer,
  { rollout }: TrainConfig,
  prompts: readonly TrainPrompt[],
): number[] | undefined {
  if (rollout.stopTokens.length > 0) return resolveStopTokens(tokenizer, rollout.stopTokens);
  return defaultStopTokens(
    tokenizer,
    prompts.map(({ problem }) => problem.prompt),
  );
}
