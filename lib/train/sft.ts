/** Supervised fine-tuning: negative log-likelihood of demonstrations, on the same (a, b) interface as GRPO. */
import { MetricAccumulator } from '../algorithm/accumulator.js';
import { normalizerOf } from '../algorithm/batch.js';
import { nll } from '../algorithm/nll.js';
import { AbortedError, ConfigError, NonFiniteError } from '../errors.js';
import { checkOptions, type OptionKeys, SIGNAL } from '../options.js';
import type { PolicyLike } from '../policy.js';
import type { Demonstration } from '../tasks/types.js';
import { microBatches, sequenceBatch, tokenOffsets } from './batching.js';
import { type DemonstrationTokenizer, type TokenizedDemonstration, tokenizeDemonstration } from './demonstrations.js';
import type { Metrics } from './metrics.js';
import { describeNonFinite } from './non-finite.js';
import type { SftConfig } from './sft-config.js';

/** The share of the highest learning rate in step 0, 1, ...: a linear rise, then half a cosine. */
export function cosineSchedule(
  step: number,
  { steps, warmupSteps, finalLrFraction }: { steps: number; warmupSteps: number; finalLrFraction: number },
): number {
  if (step < warmupSteps) return (step + 1) / warmupSteps;
  const progress = (step - warmupSteps) / Math.max(1, steps - 1 - warmupSteps);
  return finalLrFraction + (1 - finalLrFraction) * 0.5 * (1 + Math.cos(Math.PI * Math.min(1, progress)));
}

export interface SftStep {
  /** 1, 2, ... */
  step: number;
  /** `sft/loss` (nats per response token), `sft/entropy`, `sft/grad_norm`, `sft/lr`, `perf/tokens_per_s`. */
  metrics: Metrics;
}

export interface SftTrainerOptions {
  policy: Pick<PolicyLike, 'config' | 'forward' | 'backward' | 'step' | 'zeroGrad' | 'findNonFinite'>;
  tokenizer: DemonstrationTokenizer;
  /** Must not end before run.steps * optimizer.batchSize demonstrations. */
  demonstrations: Iterator<Demonstration, unknown>;
  config: SftConfig;
  signal?: AbortSignal;
}

const KEYS: OptionKeys<SftTrainerOptions> = {
  policy: true,
  tokenizer: true,
  demonstrations: true,
  config: true,
  ...SIGNAL,
};

/**
 * Trains on demonstrations: `for await (const { step, metrics } of new SftTrainer({ ... }))`. The loss is the mean over
 * all response tokens of a step, whatever the micro-batch size.
 */
export class SftTrainer implements AsyncIterable<SftStep> {
  readonly #options: SftTrainerOptions;
  readonly #objective = nll();

  constructor(options: SftTrainerOptions) {
    checkOptions(options, KEYS, 'new SftTrainer');
    this.#options = options;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<SftStep> {
    const { config, policy } = this.#options;
    try {
      for (let step = 0; step < config.run.steps; step++) yield await this.#step(step);
    } catch (error) {
      await policy.zeroGrad();
      throw error;
    }
  }

  async #draw(): Promise<TokenizedDemonstration> {
    const { demonstrations, tokenizer, config, policy } = this.#options;
    const { value, done } = demonstrations.next();
    if (done)
      throw new ConfigError('the demonstrations ended before run.steps * optimizer.batchSize of them were drawn');
    const tokens = await tokenizeDemonstration(value, tokenizer, config.data.appendEos);
    const length = tokens.prompt.length + tokens.response.length;
    const context = policy.config.maxPositionEmbeddings;
    if (tokens.prompt.length === 0 || tokens.response.length === 0) {
      throw new ConfigError(`a demonstration has an empty prompt or response: ${JSON.stringify(value)}`);
    }
    if (length > context) {
      throw new ConfigError(
        `a demonstration has ${length} tokens, the model's context ${context}; its prompt begins ` +
          JSON.stringify(value.prompt.slice(0, 60)),
      );
    }
    return tokens;
  }

  async #step(index: number): Promise<SftStep> {
    const { config, policy, signal } = this.#options;
    const { optimizer, run } = config;
    const start = performance.now();
    const batch = await Promise.all(Array.from({ length: optimizer.batchSize }, () => this.#draw()));
    const normalizer = normalizerOf(batch.map(({ response }) => response.length));
    const total = new MetricAccumulator();
    for (const part of microBatches(batch, optimizer.microBatchTokens)) {
      if (signal?.aborted) throw new AbortedError('training was aborted');
      const seen = await policy.forward(sequenceBatch(part));
      const { a, b, metrics } = this.#objective(
        {
          ...seen,
          behaviorLogprob: seen.logprob,
          advantage: new Float32Array(part.length).fill(1),
          offsets: tokenOffsets(part.map(({ response }) => response)),
          stage: new Uint8Array(part.length).fill(1),
        },
        normalizer,
      );
      total.merge(metrics);
      await policy.backward(a, b);
    }
    const { warmupSteps, finalLrFraction } = optimizer;
    const lr = optimizer.lr * cosineSchedule(index, { steps: run.steps, warmupSteps, finalLrFraction });
    const report = await policy.step({
      lr,
      betas: [optimizer.betas[0], optimizer.betas[1]],
      eps: optimizer.eps,
      weightDecay: optimizer.weightDecay,
      maxGradNorm: optimizer.maxGradNorm > 0 ? optimizer.maxGradNorm : null,
    });
    if (!report.applied) {
      const found = (await policy.findNonFinite?.(sequenceBatch(batch)).catch(() => null)) ?? report.cause;
      const what = found ? describeNonFinite(found) : `their norm is ${report.gradNorm}`;
      throw new NonFiniteError(`step ${index + 1}: the gradients are NaN or infinite (${what}); lower optimizer.lr`);
    }
    return {
      step: index + 1,
      metrics: {
        ...total.values(),
        'sft/grad_norm': report.gradNorm,
        'sft/lr': lr,
        'perf/tokens_per_s': normalizer.tokens / ((performance.now() - start) / 1000),
      },
    };
  }
}
