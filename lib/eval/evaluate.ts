/** How good a policy is on a split of a task: greedy accuracy, avg@k, pass@k, distinct correct solutions. */
import { checkOptions } from '../options.js';
import type { PolicyLike } from '../policy.js';
import type { Task } from '../tasks/types.js';
import { MEASURE_KEYS, type MeasureOptions, measure, measurePlan, memoryStore } from './measure.js';
import type { Estimate } from './statistics.js';
import { missingOf, type ProblemSummary, type SetSummary } from './summary.js';
import { taskSet } from './task-set.js';
import type { EvaluationTokenizer } from './types.js';

export type EvaluationOptions = MeasureOptions;

/** One problem. `null` where it was not measured. */
export type EvaluationRow = ProblemSummary;

export interface Evaluation {
  /** Share of greedy responses that are correct. */
  greedy: number | null;
  /** Mean accuracy of the samples. */
  avgAtK: number | null;
  /** Share of problems whose most frequent answer is right; empty where the task has no answers to count. */
  majAtK: Record<number, number>;
  /** Mean over the sampled problems of the unbiased estimate. */
  passAtK: Record<number, number>;
  /** Mean entropy in nats over all sampled tokens. */
  meanEntropy: number | null;
  /** Mean length of the sampled responses in tokens. */
  meanLength: number | null;
  /** Share of the sampled responses that were cut off at maxNewTokens. */
  truncated: number | null;
  /** Responses, greedy ones and samples, whose reward was null: they are in no accuracy. */
  missing: number;
  /** Distinct correct solutions per problem that was solved at least once. */
  distinctPerSolved: number | null;
  distinctAlgebraicPerSolved: number | null;
  /** Problems decoded greedily or, without greedy, sampled. */
  problems: number;
  /** Problems that were sampled. */
  sampledProblems: number;
  /** Sampled problems with at least one correct sample. */
  solved: number;
  /** One per problem, in the split's order. */
  rows: EvaluationRow[];
}

/**
 * Evaluates `policy` (its own weights, never theta') on `task.splits[split]`. A response is correct when its reward is
 * positive; one whose reward is null is left out of every accuracy, and counted (`missing`). Prompts are keyed by their place in the split, so the result does not
 * depend on the batch size.
 *
 * @throws InvalidArgumentError naming the option; RewardError when the task's reward misbehaves; AbortedError
 */
export async function evaluatePolicy(
  policy: PolicyLike,
  tokenizer: EvaluationTokenizer,
  task: Task,
  split: string,
  options: EvaluationOptions,
): Promise<Evaluation> {
  checkOptions(options, MEASURE_KEYS, 'evaluatePolicy');
  const { signal, onProgress } = options;
  const set = taskSet(task, split, signal === undefined ? {} : { signal });
  const summary = await measure({
    policy,
    tokenizer,
    set,
    plan: measurePlan(set.problems.length, options),
    store: memoryStore(),
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  });
  return evaluationOf(summary);
}

function evaluationOf(summary: SetSummary): Evaluation {
  const values = (estimates: Record<number, Estimate>): Record<number, number> =>
    Object.fromEntries(Object.entries(estimates).map(([k, { value }]) => [k, value]));
  return {
    greedy: summary.greedy?.value ?? null,
    avgAtK: summary.avgAtK?.value ?? null,
    majAtK: values(summary.majAtK),
    passAtK: values(summary.passAtK),
    meanEntropy: summary.sampledResponses?.meanEntropy ?? null,
    meanLength: summary.sampledResponses?.meanLength ?? null,
    truncated: summary.sampledResponses?.truncated ?? null,
    missing: missingOf(summary),
    distinctPerSolved: summary.distinctPerSolved,
    distinctAlgebraicPerSolved: summary.distinctAlgebraicPerSolved,
    problems: summary.problems,
    sampledProblems: summary.sampledProblems,
    solved: summary.solved,
    rows: summary.rows,
  };
}
