/** What an iteration reports, under the names verl and TRL use, per stage where the stages differ. */
import type { GroupAdvantages } from '../algorithm/advantages.js';
import { meanTokenEntropy, type Rollout, type RolloutSample } from '../rollout.js';
import { featuresOf, meanFeatures } from '../tasks/features.js';
import type { Problem, Task } from '../tasks/types.js';

/** Name -> value. A metric that has no value in an iteration is left out. */
export type Metrics = Record<string, number>;

/** A sample with its reward (null: left out) and advantage. */
export interface ScoredSample extends RolloutSample {
  reward: number | null;
  advantage: number;
}

const mean = (values: readonly number[]): number => values.reduce((sum, v) => sum + v, 0) / values.length;

/** Leaves out what is not a finite number. */
export function finiteOnly(metrics: Record<string, number | null | undefined>): Metrics {
  return Object.fromEntries(
    Object.entries(metrics).filter((entry): entry is [string, number] => Number.isFinite(entry[1])),
  );
}

function stageMetrics(samples: readonly ScoredSample[], stage: 1 | 2): Metrics {
  const own = samples.filter((sample) => sample.stage === stage);
  if (own.length === 0) return {};
  const rewards = own.flatMap(({ reward }) => (reward === null ? [] : [reward]));
  const prefix = `rollout/stage${stage}`;
  return finiteOnly({
    [`${prefix}/entropy`]: meanTokenEntropy(own),
    [`${prefix}/reward`]: mean(rewards),
    [`${prefix}/advantage`]: mean(own.map(({ advantage }) => advantage)),
    [`${prefix}/response_length`]: mean(own.map(({ tokens }) => tokens.length)),
    [`${prefix}/truncated_frac`]: mean(own.map(({ finishReason }) => (finishReason === 'length' ? 1 : 0))),
  });
}

/** Rewards, lengths and entropies of an iteration's samples, together and per stage. */
export function rolloutMetrics(samples: readonly ScoredSample[], groups: GroupAdvantages): Metrics {
  const rewards = samples.flatMap(({ reward }) => (reward === null ? [] : [reward]));
  const average = mean(rewards);
  const lengths = samples.map(({ tokens }) => tokens.length);
  return {
    ...finiteOnly({
      'reward/mean': average,
      'reward/std': Math.sqrt(mean(rewards.map((r) => (r - average) ** 2))),
      'reward/frac_zero_std': groups.fracRewardZeroStd,
      'reward/frac_all_zero': groups.allZero,
      'reward/frac_all_one': groups.allOne,
      'reward/frac_left_out': 1 - rewards.length / samples.length,
      'response_length/mean': mean(lengths),
      'response_length/min': Math.min(...lengths),
      'response_length/max': Math.max(...lengths),
      'response_length/truncated_frac': mean(samples.map(({ finishReason }) => (finishReason === 'length' ? 1 : 0))),
    }),
    ...stageMetrics(samples, 1),
    ...stageMetrics(samples, 2),
  };
}

/** `task/<feature>/stage<s>`: means of the task's features over the responses of each stage. */
export function featureMetrics(
  task: Pick<Task, 'name' | 'features'>,
  samples: readonly { stage: 1 | 2; problem: Problem; response: string }[],
): Metrics {
  if (task.features === undefined) return {};
  return Object.fromEntries(
    ([1, 2] as const).flatMap((stage) => {
      const own = samples.filter((sample) => sample.stage === stage);
      const means = meanFeatures(own.map(({ problem, response }) => featuresOf(task, problem, response)));
      return Object.entries(means).map(([name, value]) => [`task/${name}/stage${stage}`, value]);
    }),
  );
}

/**
 * What the unlearning step did. Fractions are of the tokens of the samples that were to be forgotten, `clamped_frac` of
 * the open ones. A zero in
 * `param_changed_frac` or `stage1_logp_delta` means that nothing was forgotten.
 */
export function unlearnMetrics({ forget, gate, unlearned }: Pick<Rollout, 'forget' | 'gate' | 'unlearned'>): Metrics {
  if (gate === null || unlearned === null) return {};
  const decision: Metrics = {
    'unlearn/gate_entropy': gate.movingEntropy,
    'unlearn/gate_step_open': gate.stepOpen ? 1 : 0,
    'unlearn/skipped': 1 - unlearned.moved,
    'unlearn/undone': unlearned.undone,
    'unlearn/sample_frac': unlearned.samples,
  };
  if (forget === null) return { ...decision, 'unlearn/open_frac': 0 };
  const open = Math.max(1, forget.openTokens);
  return finiteOnly({
    ...decision,
    'unlearn/open_frac': forget.openTokens / Math.max(1, forget.tokens),
    'unlearn/clamped_frac': (forget.clampedLow + forget.clampedHigh) / open,
    'unlearn/clamped_low_frac': forget.clampedLow / open,
    'unlearn/clamped_high_frac': forget.clampedHigh / open,
    'unlearn/loss': forget.loss,
    'unlearn/steps': forget.steps,
    'unlearn/grad_norm': forget.gradNorm,
    'unlearn/relative_step': forget.relativeStep,
    'unlearn/param_changed_frac': forget.paramChangedFrac,
    'unlearn/stage1_logp_delta': forget.stage1LogpDelta,
  });
}

/** The largest resident set of this process so far, in MiB. */
export function peakMemoryMiB(): number {
  return process.resourceUsage().maxRSS / 1024;
}

/** How long the phases of an iteration took, in seconds, and how fast they were. */
export function timingMetrics(
  samples: readonly Pick<ScoredSample, 'tokens'>[],
  { timings, gate }: Pick<Rollout, 'timings' | 'gate'>,
  phases: Readonly<Record<string, number>>,
  seconds: number,
): Metrics {
  const responseTokens = samples.reduce((sum, { tokens }) => sum + tokens.length, 0);
  return {
    'timing_s/stage1': timings.stage1,
    ...(gate === null ? {} : { 'timing_s/unlearn': timings.unlearn, 'timing_s/stage2': timings.stage2 }),
    ...Object.fromEntries(Object.entries(phases).map(([phase, s]) => [`timing_s/${phase}`, s])),
    'timing_s/iteration': seconds,
    'perf/tokens_per_s': responseTokens / seconds,
    'perf/generate_tokens_per_s': responseTokens / (timings.stage1 + timings.stage2),
    'perf/peak_memory_mib': peakMemoryMiB(),
  };
}
