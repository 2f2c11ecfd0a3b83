/** The first half of an iteration: prompts are answered and judged, until enough of them teach something. */
import { type GroupAdvantages, groupAdvantages } from '../algorithm/advantages.js';
import { overlongPenalty } from '../algorithm/overlong.js';
import type { Rollout, RolloutPhase, RolloutSample } from '../rollout.js';
import type { RewardReport } from '../tasks/rewards.js';
import type { Reward, RewardInput } from '../tasks/types.js';
import type { TrainConfig } from './config.js';
import type { IterationRewards } from './iteration-rewards.js';
import type { Metrics } from './metrics.js';
import { partsOf } from './trainer-setup.js';
import type { TrainSample } from './trainer-types.js';
import type { TrainPrompt } from './training-prompts.js';

/** A drawn prompt: `id` keys its random numbers. */
export interface DrawnPrompt extends TrainPrompt {
  id: number;
}

/** What a collection works with. */
export interface Collecting {
  config: TrainConfig;
  /** The next prompts. */
  draw(count: number): DrawnPrompt[];
  /** G samples of each; `refill` says that it is not the first time in this iteration. */
  rollout(
    prompts: readonly DrawnPrompt[],
    refill: boolean,
    judge: (samples: readonly RolloutSample[]) => Promise<Reward[]>,
  ): Promise<Rollout>;
  /** What judges the samples of one round: the first of them, where they are asked for early, and then all. */
  rewards(input: (sample: RolloutSample) => RewardInput): Pick<IterationRewards, 'judge' | 'finish'>;
  decode(tokens: readonly number[]): string;
}

/** Prompts that were answered together. */
export interface Round {
  prompts: readonly DrawnPrompt[];
  rollout: Rollout;
  judged: RewardReport;
}

/** A batch for an update. */
export interface Collected {
  /** rollout.promptsPerIteration of them. */
  prompts: DrawnPrompt[];
  /** Prompt-major, G of each. */
  samples: TrainSample[];
  groups: GroupAdvantages;
  /** One; more with dynamic sampling. */
  rounds: Round[];
  metrics: Metrics;
}

/** One prompt with its samples, before there are advantages. */
interface Answered {
  prompt: DrawnPrompt;
  samples: Omit<TrainSample, 'advantage'>[];
  /** Whether its rewards differ, what is taken off for length not counted. */
  useful: boolean;
}

/**
 * Answers `rollout.promptsPerIteration` prompts. With dynamic sampling (DAPO, Eq. 11: 0 < number of right answers < G) those
 * whose rewards are all equal are replaced by fresh prompts, `rollout.dynamicSampling` times at most; what is still
 * missing then is filled up with the first of them, so that a batch has always the same size.
 */
export async function collect(work: Collecting): Promise<Collected> {
  const { rollout, objective } = work.config;
  const wanted = rollout.promptsPerIteration;
  const rounds: Round[] = [];
  const useful: Answered[] = [];
  const useless: Answered[] = [];
  const answer = async (count: number): Promise<void> => {
    const { round, answered } = await answerPrompts(work, count, rounds.length > 0);
    rounds.push(round);
    for (const one of answered) (one.useful || rollout.dynamicSampling === 0 ? useful : useless).push(one);
  };
  await answer(wanted);
  while (useful.length < wanted && rounds.length <= rollout.dynamicSampling) await answer(wanted - useful.length);
  const batch = [...useful, ...useless.slice(0, wanted - useful.length)];
  const samples = batch.flatMap((one, promptIndex) => one.samples.map((sample) => ({ ...sample, promptIndex })));
  const groups = groupAdvantages(
    samples.map(({ reward }) => reward),
    rollout.groupSize,
    {
      normalizeByStd: objective.advantageStd,
      ...(objective.advantageGroup === 'stage' ? { stages: samples.map(({ stage }) => stage) } : {}),
    },
  );
  return {
    prompts: batch.map(({ prompt }) => prompt),
    samples: samples.map((sample, i) => ({ ...sample, advantage: groups.advantages[i] as number })),
    groups,
    rounds,
    metrics: {
      ...overlongMetrics(work.config, samples),
      ...(rollout.dynamicSampling > 0 ? dynamicMetrics(rounds, useful.length) : {}),
    },
  };
}

async function answerPrompts(
  work: Collecting,
  count: number,
  refill: boolean,
): Promise<{ round: Round; answered: Answered[] }> {
  const prompts = work.draw(count);
  const texts = new Map<readonly number[], string>();
  const textOf = ({ tokens }: RolloutSample): string => {
    const text = texts.get(tokens) ?? work.decode(tokens);
    texts.set(tokens, text);
    return text;
  };
  const rewards = work.rewards((sample) => ({
    problem: (prompts[sample.promptIndex] as DrawnPrompt).problem,
    response: textOf(sample),
    tokens: sample.tokens,
    finishReason: sample.finishReason,
  }));
  const rollout = await work.rollout(prompts, refill, rewards.judge);
  const judged = await rewards.finish(rollout.samples);
  const answered = prompts.map((prompt): Answered => ({ prompt, samples: [], useful: false }));
  rollout.samples.forEach((sample, i) => {
    const { prompt, samples } = answered[sample.promptIndex] as Answered;
    samples.push({
      ...sample,
      problem: prompt.problem,
      response: textOf(sample),
      reward: shaped(judged.rewards[i] as Reward, sample, work.config),
      ...partsOf(judged, i),
    });
  });
  const size = rollout.samples.length / prompts.length;
  answered.forEach((one, p) => {
    const given = judged.rewards.slice(p * size, (p + 1) * size).filter((reward) => reward !== null);
    one.useful = given.some((reward) => reward !== given[0]);
  });
  return { round: { prompts, rollout, judged }, answered };
}

function penaltyOf({ tokens }: Pick<RolloutSample, 'tokens'>, { rollout, reward }: TrainConfig): number {
  const { maxNewTokens } = rollout;
  return reward.overlongPenalty * overlongPenalty(tokens.length, maxNewTokens, reward.overlongBuffer * maxNewTokens);
}

/** The reward with what the length takes off it. */
function shaped(reward: Reward, sample: RolloutSample, config: TrainConfig): Reward {
  if (reward === null || config.reward.overlongBuffer === 0) return reward;
  return reward + penaltyOf(sample, config);
}

function overlongMetrics(config: TrainConfig, samples: readonly RolloutSample[]): Metrics {
  if (config.reward.overlongBuffer === 0) return {};
  const sum = samples.reduce((total, sample) => total + penaltyOf(sample, config), 0);
  return { 'reward/overlong_penalty': sum / samples.length };
}

function dynamicMetrics(rounds: readonly Round[], useful: number): Metrics {
  const drawn = rounds.reduce((sum, { prompts }) => sum + prompts.length, 0);
  const rewards = rounds.flatMap(({ judged }) => judged.rewards).filter((reward) => reward !== null);
  return {
    'dynamic_sampling/refills': rounds.length - 1,
    'dynamic_sampling/prompts': drawn,
    'dynamic_sampling/useful_frac': useful / drawn,
    ...(rewards.length === 0
      ? {}
      : { 'dynamic_sampling/reward': rewards.reduce((sum, r) => sum + r, 0) / rewards.length }),
  };
}

/** Seconds of every phase over all rounds. */
export function totalTimings(rounds: readonly Round[]): Record<RolloutPhase, number> {
  const total = { stage1: 0, unlearn: 0, stage2: 0 };
  for (const { rollout } of rounds) {
    for (const phase of ['stage1', 'unlearn', 'stage2'] as const) total[phase] += rollout.timings[phase];
  }
  return total;
}

/** The share of the responses of all rounds with a reward that failed. */
export function failedShareOf(rounds: readonly Round[]): number {
  if (rounds.length === 1) return (rounds[0] as Round).judged.failedShare;
  const samples = rounds.reduce((sum, { rollout }) => sum + rollout.samples.length, 0);
  return rounds.reduce((sum, { rollout, judged }) => sum + judged.failedShare * rollout.samples.length, 0) / samples;
}
