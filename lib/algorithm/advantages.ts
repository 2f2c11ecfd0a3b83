/** Advantages relative to the group of responses to one prompt, or to one stage of it. */
import { InvalidArgumentError } from '../errors.js';
import { checkOptions, type OptionKeys } from '../options.js';

export interface AdvantageOptions {
  /** Divide by the group's standard deviation (ddof = 1). false is Dr. GRPO's choice. Default true. */
  normalizeByStd?: boolean;
  /** Added to the standard deviation. Default 1e-6. */
  epsilon?: number;
  /**
   * The stage of every reward: mean and deviation are then those of each stage of a group. Default: both stages of a
   * prompt form one group (Algorithm 1). A stage-2 reward is lowered by what was unlearned; measured against a common mean
   * that pays stage 1, the policy's dominant mode, for it.
   */
  stages?: ArrayLike<number>;
}

const KEYS: OptionKeys<AdvantageOptions> = { normalizeByStd: true, epsilon: true, stages: true };

export interface GroupAdvantages {
  /** One per reward; 0 for every reward that is null. */
  advantages: Float32Array;
  /** Share of the groups whose rewards are all equal: they teach nothing. */
  fracRewardZeroStd: number;
  /** Share of the groups in which every reward is 0. */
  allZero: number;
  /** Share of the groups in which every reward is 1. */
  allOne: number;
}

/**
 * A_i = (r_i - mean(r)) / (std(r) + epsilon) within each group of `groupSize` consecutive rewards; both stages of a
 * prompt form one group, unless `stages` tells them apart. Exactly 0 where all rewards of the group are equal: the rewards are compared, because the
 * computed deviation of equal floats need not be 0. A null reward is left out of the group and gets advantage 0.
 *
 * @throws InvalidArgumentError when the sizes do not fit or a reward is not a finite number.
 */
export function groupAdvantages(
  rewards: ArrayLike<number | null>,
  groupSize: number,
  options: AdvantageOptions = {},
): GroupAdvantages {
  checkOptions(options, KEYS, 'groupAdvantages');
  const { normalizeByStd = true, epsilon = 1e-6, stages } = options;
  checkSizes(rewards.length, groupSize, epsilon);
  if (stages !== undefined && stages.length !== rewards.length) {
    throw new InvalidArgumentError(`stages must have one entry per reward (${rewards.length}), got ${stages.length}`);
  }
  const advantages = new Float32Array(rewards.length);
  const groups = groupsOf(rewards, groupSize, stages);
  let equal = 0;
  let allZero = 0;
  let allOne = 0;
  for (const kept of groups) {
    const first = kept[0]?.reward;
    if (kept.every(({ reward }) => reward === first)) {
      equal += 1;
      if (first === 0) allZero += 1;
      if (first === 1) allOne += 1;
      continue;
    }
    const mean = kept.reduce((sum, { reward }) => sum + reward, 0) / kept.length;
    const variance = kept.reduce((sum, { reward }) => sum + (reward - mean) ** 2, 0) / (kept.length - 1);
    const scale = normalizeByStd ? Math.sqrt(variance) + epsilon : 1;
    for (const { index, reward } of kept) advantages[index] = (reward - mean) / scale;
  }
  const all = groups.length;
  return { advantages, fracRewardZeroStd: equal / all, allZero: allZero / all, allOne: allOne / all };
}

interface KeptReward {
  index: number;
  reward: number;
}

/** The rewards that are not null, group by group. */
function groupsOf(
  rewards: ArrayLike<number | null>,
  groupSize: number,
  stages: ArrayLike<number> | undefined,
): KeptReward[][] {
  const groups: KeptReward[][] = [];
  for (let start = 0; start < rewards.length; start += groupSize) {
    const kept = keptRewards(rewards, start, groupSize);
    if (stages === undefined) {
      groups.push(kept);
      continue;
    }
    const own = Array.from({ length: groupSize }, (_, i) => stages[start + i] as number);
    for (const stage of new Set(own)) groups.push(kept.filter(({ index }) => stages[index] === stage));
  }
  return groups;
}

/**
 * How many of a group's G samples each stage draws: G/2 and G/2.
 *
 * @throws InvalidArgumentError when `groupSize` is odd or below 2.
 */
export function stageSizes(groupSize: number): [stage1: number, stage2: number] {
  if (!Number.isInteger(groupSize) || groupSize < 2 || groupSize % 2 !== 0) {
    throw new InvalidArgumentError(
      `groupSize must be an even number of at least 2 (half of the samples are drawn in each stage), got ${groupSize}`,
    );
  }
  return [groupSize / 2, groupSize / 2];
}

function checkSizes(count: number, groupSize: number, epsilon: number): void {
  if (!Number.isInteger(groupSize) || groupSize < 2) {
    throw new InvalidArgumentError(`groupSize must be an integer of at least 2, got ${groupSize}`);
  }
  if (count === 0 || count % groupSize !== 0) {
    throw new InvalidArgumentError(
      `rewards must hold whole groups: ${count} rewards are not a positive multiple of groupSize ${groupSize}`,
    );
  }
  if (!(epsilon >= 0)) throw new InvalidArgumentError(`epsilon must not be negative, got ${epsilon}`);
}

function keptRewards(rewards: ArrayLike<number | null>, start: number, size: number) {
  const kept: KeptReward[] = [];
  for (let index = start; index < start + size; index += 1) {
    const reward = rewards[index];
    if (reward === null) continue;
    if (typeof reward !== 'number' || !Number.isFinite(reward)) {
      throw new InvalidArgumentError(
        `rewards[${index}] is ${reward}; a reward is a finite number, or null to leave the response out`,
      );
    }
    kept.push({ index, reward });
  }
  return kept;
}
