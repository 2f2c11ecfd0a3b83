/** Evaluation as a run does it: the splits and benchmarks of [eval], as metrics. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigError } from '../errors.js';
import { type BenchmarkOptions, loadBenchmarks } from '../eval/benchmark-data.js';
import { type MeasureOptions, measure, measurePlan, memoryStore } from '../eval/measure.js';
import { openResponses } from '../eval/response-file.js';
import type { Estimate } from '../eval/statistics.js';
import { checkNames, responsesPath, writeSummary } from '../eval/suite.js';
import { missingOf, type ResponseStatistics, type SetSummary } from '../eval/summary.js';
import { addFailures, taskSet } from '../eval/task-set.js';
import type { EvaluationSet, EvaluationTokenizer } from '../eval/types.js';
import { cacheTokensFor } from '../memory/estimate.js';
import type { PolicyLike } from '../policy.js';
import { isEmbedded } from '../tasks/index.js';
import { PRESET_STYLES } from '../tasks/presets.js';
import type { RewardFailure } from '../tasks/rewards.js';
import type { Task } from '../tasks/types.js';
import { encodeAll } from '../tokenizer/prompts.js';
import { resolveStopTokens } from '../tokenizer/stop-tokens.js';
import { keepBestSetProblem } from './best-metric.js';
import type { TrainConfig } from './config.js';
import { finiteOnly, type Metrics } from './metrics.js';
import { failureText, rewardPolicy } from './reward-policy.js';
import type { Evaluator } from './trainer.js';

/**
 * `math500/greedy`, `math500/avg@64`, `math500/maj@8`, `math500/pass@8`, `test/entropy`, `test/distinct`, ... of one set;
 * what was not measured is left out.
 */
export function evaluationMetrics(name: string, summary: SetSummary): Metrics {
  const { sampledResponses: sampled, greedyResponses: greedy } = summary;
  const undecided = (greedy?.undecided ?? 0) + (sampled?.undecided ?? 0);
  const byK = (kind: string, estimates: Record<number, Estimate>): Record<string, number> =>
    Object.fromEntries(Object.entries(estimates).map(([k, { value }]) => [`${name}/${kind}@${k}`, value]));
  const features = (kind: string, statistics: ResponseStatistics | null): Record<string, number> =>
    Object.fromEntries(
      Object.entries(statistics?.features ?? {}).map(([feature, value]) => [`${name}/${kind}/${feature}`, value]),
    );
  return finiteOnly({
    [`${name}/greedy`]: summary.greedy?.value,
    [`${name}/avg@${summary.samples}`]: summary.avgAtK?.value,
    ...byK('maj', summary.majAtK),
    ...byK('pass', summary.passAtK),
    [`${name}/entropy`]: sampled?.meanEntropy,
    [`${name}/response_length`]: sampled?.meanLength,
    [`${name}/greedy_length`]: greedy?.meanLength,
    [`${name}/truncated_frac`]: (greedy ?? sampled)?.truncated,
    [`${name}/undecided`]: undecided > 0 ? undecided : null,
    [`${name}/missing`]: missingOf(summary) || null,
    [`${name}/distinct`]: summary.distinctPerSolved,
    [`${name}/distinct_algebraic`]: summary.distinctAlgebraicPerSolved,
    ...features('task', sampled),
    ...features('greedy_task', greedy),
  });
}

/** The splits that a configuration evaluates on. */
export function evaluationSplits(task: Task, config: TrainConfig): string[] {
  const all = Object.keys(task.splits);
  if (config.eval.splits.length === 0) return all.filter((split) => split !== 'train');
  const unknown = config.eval.splits.find((split) => !all.includes(split));
  if (unknown !== undefined) {
    throw new ConfigError(
      `eval.splits: task "${task.name}" has no split ${JSON.stringify(unknown)}; it has ${all.join(', ')}`,
    );
  }
  return config.eval.splits;
}

/** How a run asks the problems of a benchmark: as those that it trains on. */
export function benchmarkPrompt({ task }: TrainConfig): BenchmarkOptions {
  const { name, promptStyle, template, system } = task;
  // The embedded tasks have no words to ask with.
  if (isEmbedded(name)) return {};
  const styles: Readonly<Record<string, BenchmarkOptions['promptStyle']>> = PRESET_STYLES;
  return {
    promptStyle: promptStyle === 'auto' ? (styles[name] ?? 'plain') : promptStyle,
    ...(template === '' ? {} : { template }),
    ...(system === '' ? {} : { system }),
  };
}

/** Everything that [eval] names: splits of the task, then benchmarks. */
async function evaluationSets(
  task: Task,
  config: TrainConfig,
  signal: AbortSignal | undefined,
  onFailures: (failures: readonly RewardFailure[]) => void,
): Promise<EvaluationSet[]> {
  const { benchmarks, benchmarkData } = config.eval;
  const splits = evaluationSplits(task, config);
  if (splits.length + benchmarks.length === 0) {
    throw new ConfigError(
      `eval: task "${task.name}" has only a training split; set task.evalPath, or name eval.splits or eval.benchmarks`,
    );
  }
  const both = benchmarks.find((name) => splits.includes(name));
  if (both !== undefined) throw new ConfigError(`eval: "${both}" is a split and a benchmark; name one of them`);
  const loaded = await loadBenchmarks(benchmarks, {
    ...benchmarkPrompt(config),
    data: typeof benchmarkData === 'string' ? [benchmarkData].filter((path) => path !== '') : benchmarkData,
    ...(signal === undefined ? {} : { signal }),
  });
  const rewarding = { ...rewardPolicy(config), onFailures, ...(signal === undefined ? {} : { signal }) };
  return [...splits.map((split) => taskSet(task, split, rewarding)), ...loaded];
}

/** Where an evaluation of a run keeps its responses: `evals/iteration-000020`. */
export function evaluationFolder(run: string, iteration: number): string {
  return join(run, 'evals', `iteration-${String(iteration).padStart(6, '0')}`);
}

/**
 * `evaluate` for the trainer, and `check` for what can be known to be wrong before the run: splits and benchmarks that
 * do not exist, data that is not there, prompts that do not fit into the context.
 *
 * @param run - the folder of the run, where `eval.keepResponses` writes; null: nothing is written.
 */
export function makeEvaluator(
  policy: PolicyLike,
  tokenizer: EvaluationTokenizer,
  task: Task,
  config: TrainConfig,
  signal?: AbortSignal,
  run: string | null = null,
): { evaluate: Evaluator; check: () => Promise<void> } {
  const options = config.eval;
  const maxNewTokens = options.maxNewTokens > 0 ? options.maxNewTokens : config.rollout.maxNewTokens;
  const wanted = options.every > 0 || options.atStart || options.atEnd;
  let failures: RewardFailure[] = [];
  let loading: Promise<EvaluationSet[]> | undefined;
  const sets = (): Promise<EvaluationSet[]> => {
    loading ??= evaluationSets(task, config, signal, (more) => failures.push(...more));
    return loading;
  };
  const check = async (): Promise<void> => {
    if (!wanted) return;
    if (!options.greedy && options.samplesPerPrompt === 0) {
      throw new ConfigError('eval: nothing to measure; set eval.greedy = true or eval.samplesPerPrompt above 0');
    }
    const problem = keepBestSetProblem(
      config.checkpoint.keepBest,
      (await sets()).map(({ name }) => name),
    );
    if (problem !== null) throw new ConfigError(problem);
    if (run !== null && options.keepResponses) checkNames(await sets());
    for (const set of await sets()) await checkContext(set, policy, tokenizer, config, maxNewTokens);
  };
  const evaluate: Evaluator = async (iteration) => {
    const metrics: Metrics = {};
    const out = run === null || !options.keepResponses ? null : evaluationFolder(run, iteration);
    // What an earlier attempt left is of other weights.
    if (out !== null) rmSync(out, { recursive: true, force: true });
    for (const set of await sets()) {
      const plan = measurePlan(set.problems.length, measureOptions(config, tokenizer, maxNewTokens));
      failures = [];
      const store = out === null ? memoryStore() : openResponses(responsesPath(out, set));
      const summary = await measure({
        policy,
        tokenizer,
        set,
        plan,
        store,
        ...(signal === undefined ? {} : { signal }),
      });
      for (const failure of addFailures(failures)) {
        process.emitWarning(
          `evaluation after iteration ${iteration}, "${set.name}": ${failureText(failure)}`,
          'EepoRewardWarning',
        );
      }
      if (out !== null) writeSummary(out, set, summary);
      Object.assign(metrics, evaluationMetrics(set.name, summary));
    }
    return metrics;
  };
  return { evaluate, check };
}

function measureOptions(
  { eval: options, run, rollout }: TrainConfig,
  tokenizer: EvaluationTokenizer,
  maxNewTokens: number,
): MeasureOptions {
  return {
    greedy: options.greedy,
    samples: options.samplesPerPrompt,
    ks: options.passK.filter((k) => k <= options.samplesPerPrompt),
    maxProblems: options.maxProblems,
    sampleProblems: options.sampleProblems,
    temperature: options.temperature,
    // Other random numbers than the rollouts'; the same at every evaluation, so that these can be compared.
    seed: (run.seed ^ 0x5eed) >>> 0,
    maxNewTokens,
    maxRows: rollout.maxRows,
    cacheTokens: rollout.cacheTokens,
    ...(rollout.stopTokens.length > 0 ? { stopTokens: resolveStopTokens(tokenizer, rollout.stopTokens) } : {}),
  };
}

async function checkContext(
  set: EvaluationSet,
  policy: PolicyLike,
  tokenizer: EvaluationTokenizer,
  config: TrainConfig,
  maxNewTokens: number,
): Promise<void> {
  const context = policy.config.maxPositionEmbeddings;
  const problems = set.problems.slice(0, config.eval.maxProblems);
  const prompts = await encodeAll(
    tokenizer,
    problems.map(({ prompt }) => prompt),
  );
  for (const [i, { id }] of problems.entries()) {
    const length = (prompts[i] as number[]).length;
    const what = `eval: problem ${id} of "${set.name}" has ${length} tokens; with ${maxNewTokens} new tokens it does not fit into`;
    if (length + maxNewTokens > context) {
      throw new ConfigError(
        `${what} the model's context of ${context}; lower eval.maxNewTokens or task.maxPromptTokens`,
      );
    }
    const { cacheTokens } = config.rollout;
    if (cacheTokens > 0 && cacheTokensFor(length, maxNewTokens) > cacheTokens) {
      throw new ConfigError(
        `${what} rollout.cacheTokens = ${cacheTokens}, which bounds evaluation too; lower eval.maxNewTokens or raise it`,
      );
    }
  }
}
