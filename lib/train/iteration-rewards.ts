/** The rewards of one iteration: some of its samples may be judged before the others are drawn, none twice. */
import type { RolloutSample } from '../rollout.js';
import {
  type AnyReward,
  type Judgement,
  joinJudgements,
  judgeResponses,
  type RewardOptions,
  type RewardReport,
  reportRewards,
} from '../tasks/rewards.js';
import type { Reward, RewardInput } from '../tasks/types.js';

export class IterationRewards {
  readonly #list: readonly AnyReward[];
  readonly #options: RewardOptions;
  readonly #input: (sample: RolloutSample) => RewardInput;
  #early: { samples: readonly RolloutSample[]; judgement: Judgement } | null = null;

  constructor(list: readonly AnyReward[], options: RewardOptions, input: (sample: RolloutSample) => RewardInput) {
    this.#list = list;
    this.#options = options;
    this.#input = input;
  }

  /** Rewards of the first samples, once. */
  async judge(samples: readonly RolloutSample[]): Promise<Reward[]> {
    const judgement = await this.#ask(samples);
    this.#early = { samples, judgement };
    return reportRewards(this.#list, judgement, this.#options).rewards;
  }

  /** Everything about all samples of the iteration, in their order; those of `judge` are not asked about again. */
  async finish(samples: readonly RolloutSample[]): Promise<RewardReport> {
    if (this.#early === null) return reportRewards(this.#list, await this.#ask(samples), this.#options);
    const { samples: first, judgement } = this.#early;
    const known = new Set(first);
    const rest = samples.filter((sample) => !known.has(sample));
    const joined = joinJudgements(judgement, await this.#ask(rest));
    const report = reportRewards(this.#list, joined, this.#options);
    const place = new Map([...first, ...rest].map((sample, i) => [sample, i]));
    const order = samples.map((sample) => place.get(sample) as number);
    const sorted = (rewards: readonly Reward[]): Reward[] => order.map((i) => rewards[i] as Reward);
    return {
      ...report,
      rewards: sorted(report.rewards),
      parts: report.parts.map(({ name, rewards }) => ({ name, rewards: sorted(rewards) })),
    };
  }

  #ask(samples: readonly RolloutSample[]): Promise<Judgement> {
    return judgeResponses(this.#list, samples.map(this.#input), this.#options);
  }
}
