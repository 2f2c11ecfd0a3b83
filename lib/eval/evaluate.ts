/** How good a policy is on a split of a task: greedy accuracy, pass@k, distinct correct solutions. */
import { AbortedError, InvalidArgumentError } from '../errors.js';
import type { Generation, PolicyLike } from '../policy.js';
import { callReward } from '../tasks/call-reward.js';
import type { ChatMessage, Problem, Task } from '../tasks/types.js';
import { passAtK } from './pass-at-k.js';

/** What evaluation needs of a tokenizer; `Tokenizer` has it. */
export interface EvaluationTokenizer {
  encodePrompt(prompt: string | readonly ChatMessage[]): number[];
  decode(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string;
  readonly eosTokenIds: readonly number[];
}

export interface EvaluationOptions {
  /** Also decode every problem greedily (the paper's pass@1). Default true. */
  greedy?: boolean;
  /** Samples per problem for pass@k and the distinct solutions; 0 = none. Default 64. */
  samples?: number;
  /** Default [1, 8, 64], without those above `samples`. */
  ks?: readonly number[];
  /** The first so many problems of the split are decoded greedily. Default all. */
  maxProblems?: number;
  /** The first so many of these are sampled. Default all of them. */
  sampleProblems?: number;
  /** Of the samples. Default 1 (the paper's). */
  temperature?: number;
  /** Default 0. */
  seed?: number;
  maxNewTokens: number;
  /** Responses generated at once. Default 1024. */
  batchSize?: number;
  /** Default: the tokenizer's end-of-sequence ids; the policy's where it has none. */
  stopTokens?: readonly number[];
  signal?: AbortSignal;
  onProgress?: (progress: { phase: 'greedy' | 'sample'; done: number; total: number }) => void;
}

/** One problem. `null` where it was not measured. */
export interface EvaluationRow {
  id: string;
  greedyCorrect: boolean | null;
  samples: number;
  correct: number;
  /** Distinct correct solutions among the samples; null without the task's `distinctKey`. */
  distinct: number | null;
  distinctAlgebraic: number | null;
}

export interface Evaluation {
  /** Share of greedy responses that are correct. */
  greedy: number | null;
  /** Mean over the sampled problems of the unbiased estimate. */
  passAtK: Record<number, number>;
  /** Mean entropy in nats over all sampled tokens. */
  meanEntropy: number | null;
  /** Mean length of the sampled responses in tokens. */
  meanLength: number | null;
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
 * positive; a null reward counts as not correct.
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
  const plan = planOf(task, split, options);
  const rows = plan.problems.map(
    (problem): EvaluationRow => ({
      id: problem.id,
      greedyCorrect: null,
      samples: 0,
      correct: 0,
      distinct: null,
      distinctAlgebraic: null,
    }),
  );
  const run = { policy, tokenizer, task, options, batchSize: plan.batchSize };
  if (plan.greedy) {
    for await (const { index, correct } of judge(run, plan.problems, 1, 'greedy')) {
      (rows[index] as EvaluationRow).greedyCorrect = correct.length > 0;
    }
  }
  const totals = { tokens: 0, entropy: 0 };
  const sampled = plan.samples > 0 ? plan.problems.slice(0, plan.sampleProblems) : [];
  for await (const result of judge(run, sampled, plan.samples, 'sample')) {
    const row = rows[result.index] as EvaluationRow;
    row.samples = plan.samples;
    row.correct = result.correct.length;
    const problem = plan.problems[result.index] as Problem;
    row.distinct = countDistinct(result.correct, task.distinctKey?.bind(task, problem));
    row.distinctAlgebraic = countDistinct(result.correct, task.algebraicKey?.bind(task, problem));
    totals.tokens += result.tokens;
    totals.entropy += result.entropy;
  }
  return summarize(plan, rows, sampled.length, totals);
}

interface Plan {
  problems: readonly Problem[];
  greedy: boolean;
  samples: number;
  sampleProblems: number;
  ks: readonly number[];
  batchSize: number;
}

function planOf(task: Task, split: string, options: EvaluationOptions): Plan {
  const all = Object.hasOwn(task.splits, split) ? task.splits[split] : undefined;
  if (all === undefined) {
    throw new InvalidArgumentError(
      `split: task '${task.name}' has no split '${split}'; it has ${Object.keys(task.splits).join(', ')}`,
    );
  }
  const { greedy = true, samples = 64, maxProblems = all.length, batchSize = 1024 } = options;
  const problems = all.slice(0, maxProblems);
  if (problems.length === 0) throw new InvalidArgumentError(`split '${split}' of task '${task.name}' has no problems`);
  if (!greedy && samples === 0) {
    throw new InvalidArgumentError('nothing to evaluate: greedy is false and samples is 0');
  }
  checkInteger('samples', samples, 0);
  checkInteger('maxNewTokens', options.maxNewTokens, 1);
  checkInteger('batchSize', batchSize, 1);
  checkInteger('maxProblems', maxProblems, 1);
  const sampleProblems = Math.min(options.sampleProblems ?? problems.length, problems.length);
  checkInteger('sampleProblems', sampleProblems, 0);
  const ks = options.ks ?? [1, 8, 64].filter((k) => k <= samples);
  for (const k of ks) {
    if (samples > 0 && !(Number.isInteger(k) && k >= 1 && k <= samples)) {
      throw new InvalidArgumentError(`ks: pass@${k} needs at least ${k} samples per problem, samples is ${samples}`);
    }
  }
  return { problems, greedy, samples, sampleProblems, ks, batchSize };
}

interface Run {
  policy: PolicyLike;
  tokenizer: EvaluationTokenizer;
  task: Task;
  options: EvaluationOptions;
  batchSize: number;
}

interface Judged {
  /** Of the problem. */
  index: number;
  /** Texts of the correct responses. */
  correct: string[];
  tokens: number;
  entropy: number;
}

/** Generates and rewards `samples` responses per problem, a batch of problems at a time. */
async function* judge(
  { policy, tokenizer, task, options, batchSize }: Run,
  problems: readonly Problem[],
  samples: number,
  phase: 'greedy' | 'sample',
): AsyncGenerator<Judged> {
  const { signal, maxNewTokens, temperature = 1, seed = 0, onProgress } = options;
  const stopTokens = options.stopTokens ?? (tokenizer.eosTokenIds.length > 0 ? tokenizer.eosTokenIds : undefined);
  const perBatch = Math.max(1, Math.floor(batchSize / Math.max(1, samples)));
  for (let begin = 0; begin < problems.length; begin += perBatch) {
    if (signal?.aborted) throw new AbortedError('The evaluation was aborted', { cause: signal.reason });
    const batch = problems.slice(begin, begin + perBatch);
    const generations = await policy.generate(
      batch.map((problem) => tokenizer.encodePrompt(problem.prompt)),
      {
        maxNewTokens,
        temperature: phase === 'greedy' ? 0 : temperature,
        samplesPerPrompt: samples,
        seed,
        // Keyed by the problem, so that the result does not depend on the batch size.
        promptIds: batch.map((_, i) => begin + i),
        weights: 'policy',
        ...(stopTokens === undefined ? {} : { stopTokens }),
        ...(signal === undefined ? {} : { signal }),
      },
    );
    yield* collect(task, tokenizer, batch, begin, generations);
    onProgress?.({ phase, done: Math.min(begin + perBatch, problems.length), total: problems.length });
  }
}

async function* collect(
  task: Task,
  tokenizer: EvaluationTokenizer,
  batch: readonly Problem[],
  begin: number,
  generations: readonly Generation[],
): AsyncGenerator<Judged> {
  const inputs = generations.map(({ prompt, tokens, finishReason }) => ({
    problem: batch[prompt] as Problem,
    response: tokenizer.decode(tokens),
    tokens,
    finishReason,
  }));
  const rewards = await callReward(task.reward, inputs, task.name);
  const judged = batch.map((_, i): Judged => ({ index: begin + i, correct: [], tokens: 0, entropy: 0 }));
  generations.forEach((generation, i) => {
    const entry = judged[generation.prompt] as Judged;
    entry.tokens += generation.tokens.length;
    for (const h of generation.entropy) entry.entropy += h;
    if ((rewards[i] ?? 0) > 0) entry.correct.push((inputs[i] as { response: string }).response);
  });
  yield* judged;
}

function countDistinct(responses: readonly string[], key: ((response: string) => string | null) | undefined) {
  if (key === undefined) return null;
  return new Set(responses.map(key).filter((value) => value !== null)).size;
}

function summarize(
  plan: Plan,
  rows: EvaluationRow[],
  sampledProblems: number,
  totals: { tokens: number; entropy: number },
): Evaluation {
  const sampled = rows.slice(0, sampledProblems);
  const solved = sampled.filter(({ correct }) => correct > 0);
  const responses = sampledProblems * plan.samples;
  return {
    greedy: plan.greedy ? mean(rows.map(({ greedyCorrect }) => Number(greedyCorrect))) : null,
    passAtK: Object.fromEntries(
      sampledProblems === 0
        ? []
        : plan.ks.map((k) => [k, mean(sampled.map(({ correct }) => passAtK(plan.samples, correct, k))) as number]),
    ),
    meanEntropy: totals.tokens > 0 ? totals.entropy / totals.tokens : null,
    meanLength: responses > 0 ? totals.tokens / responses : null,
    distinctPerSolved: mean(present(solved.map(({ distinct }) => distinct))),
    distinctAlgebraicPerSolved: mean(present(solved.map(({ distinctAlgebraic }) => distinctAlgebraic))),
    problems: plan.greedy ? rows.length : sampledProblems,
    sampledProblems,
    solved: solved.length,
    rows: plan.greedy ? rows : sampled,
  };
}

function present(values: readonly (number | null)[]): number[] {
  return values.filter((value): value is number => value !== null);
}

function mean(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}

function checkInteger(name: string, value: number, min: number): void {
  if (!Number.isInteger(value) || value < min) {
    throw new InvalidArgumentError(`${name} must be an integer of at least ${min}, got ${value}`);
  }
}
