/** Evaluation as a run does it: the splits and sizes of [eval], as metrics. */
import { ConfigError } from '../errors.js';
import { type Evaluation, evaluatePolicy } from '../eval/evaluate.js';
import type { EvaluationTokenizer } from '../eval/types.js';
import type { PolicyLike } from '../policy.js';
import type { Task } from '../tasks/types.js';
import type { TrainConfig } from './config.js';
import { finiteOnly, type Metrics } from './metrics.js';
import type { Evaluator } from './trainer.js';

/** `test/greedy`, `test/pass@8`, `test/entropy`, `test/distinct`, ... of one split; what was not measured is left out. */
export function evaluationMetrics(split: string, evaluation: Evaluation): Metrics {
  return finiteOnly({
    [`${split}/greedy`]: evaluation.greedy,
    ...Object.fromEntries(Object.entries(evaluation.passAtK).map(([k, value]) => [`${split}/pass@${k}`, value])),
    [`${split}/entropy`]: evaluation.meanEntropy,
    [`${split}/response_length`]: evaluation.meanLength,
    [`${split}/distinct`]: evaluation.distinctPerSolved,
    [`${split}/distinct_algebraic`]: evaluation.distinctAlgebraicPerSolved,
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

/**
 * `evaluate` for the trainer, and `check` for what can be known to be wrong before the run: splits that do not exist,
 * prompts that do not fit into the context.
 */
export function makeEvaluator(
  policy: PolicyLike,
  tokenizer: EvaluationTokenizer,
  task: Task,
  config: TrainConfig,
  signal?: AbortSignal,
): { evaluate: Evaluator; check: () => void } {
  const options = config.eval;
  const maxNewTokens = options.maxNewTokens > 0 ? options.maxNewTokens : config.rollout.maxNewTokens;
  const wanted = options.every > 0 || options.atStart || options.atEnd;
  const check = (): void => {
    if (!wanted) return;
    if (!options.greedy && options.samplesPerPrompt === 0) {
      throw new ConfigError('eval: nothing to measure; set eval.greedy = true or eval.samplesPerPrompt above 0');
    }
    const splits = evaluationSplits(task, config);
    if (splits.length === 0) {
      throw new ConfigError(
        `eval: task "${task.name}" has only a training split; set task.evalPath or name eval.splits`,
      );
    }
    const context = policy.config.maxPositionEmbeddings;
    for (const split of splits) {
      for (const { id, prompt } of (task.splits[split] ?? []).slice(0, options.maxProblems)) {
        const length = tokenizer.encodePrompt(prompt).length;
        if (length + maxNewTokens <= context) continue;
        throw new ConfigError(
          `eval: problem ${id} of split "${split}" has ${length} tokens; with ${maxNewTokens} new tokens it does not fit ` +
            `into the model's context of ${context}; lower eval.maxNewTokens or task.maxPromptTokens`,
        );
      }
    }
  };
  const evaluate: Evaluator = async () => {
    const metrics: Metrics = {};
    for (const split of evaluationSplits(task, config)) {
      const evaluation = await evaluatePolicy(policy, tokenizer, task, split, {
        greedy: options.greedy,
        samples: options.samplesPerPrompt,
        ks: options.passK.filter((k) => k <= options.samplesPerPrompt),
        maxProblems: options.maxProblems,
        sampleProblems: options.sampleProblems,
        temperature: options.temperature,
        // Other random numbers than the rollouts'; the same at every evaluation, so that these can be compared.
        seed: (config.run.seed ^ 0x5eed) >>> 0,
        maxNewTokens,
        ...(config.rollout.stopTokens.length > 0 ? { stopTokens: config.rollout.stopTokens } : {}),
        ...(signal === undefined ? {} : { signal }),
      });
      Object.assign(metrics, evaluationMetrics(split, evaluation));
    }
    return metrics;
  };
  return { evaluate, check };
}
