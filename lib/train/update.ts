/** The second half of an iteration: from scored samples to new weights. */
import { MetricAccumulator } from '../algorithm/accumulator.js';
import { normalizerOf } from '../algorithm/batch.js';
import type { Objective } from '../algorithm/types.js';
import { NonFiniteError } from '../errors.js';
import type { PolicyLike, StepReport } from '../policy.js';
import { chunk, type LossSample, microBatches, sequenceBatch, splitTokens, tokenBatch } from './batching.js';
import type { TrainConfig } from './config.js';
import type { Metrics, ScoredSample } from './metrics.js';

/** What the KL penalty needs of the reference model. */
export type ReferencePolicy = Pick<PolicyLike, 'forward'>;

/** What an update works with. */
export interface Updating {
  policy: Pick<PolicyLike, 'forward' | 'backward' | 'step'>;
  config: TrainConfig;
  /** Called between micro-batches; throws to end the work. */
  check: () => void;
}

/** What the loss needs of a sample; the log-probs that must be computed are left null for {@link addLogprobs}. */
export function lossSample({ objective }: TrainConfig, sample: ScoredSample, prompt: readonly number[]): LossSample {
  return {
    prompt,
    response: sample.tokens,
    behaviorLogprob: sample.logprob,
    // Stage 1 was drawn from theta itself: what was recorded is what would be computed again.
    policyLogprob: objective.ratio !== 'behavior' && sample.stage === 1 ? sample.logprob : null,
    refLogprob: null,
    advantage: sample.advantage,
    stage: sample.stage,
  };
}

/** What some objectives need beside the recorded log-probs: those under theta_k and under the reference model. */
export async function addLogprobs(
  samples: readonly LossSample[],
  reference: ReferencePolicy | null,
  updating: Updating,
): Promise<void> {
  if (updating.config.objective.ratio !== 'behavior') {
    const stage2 = samples.filter(({ stage }) => stage === 2);
    await logprobs(updating.policy, stage2, updating, (sample, logprob) => {
      sample.policyLogprob = logprob;
    });
  }
  if (reference !== null) {
    await logprobs(reference, samples, updating, (sample, logprob) => {
      sample.refLogprob = logprob;
    });
  }
}

async function logprobs(
  policy: ReferencePolicy,
  samples: readonly LossSample[],
  { config, check }: Updating,
  put: (sample: LossSample, logprob: Float32Array) => void,
): Promise<void> {
  const { temperature } = config.rollout;
  for (const part of microBatches(samples, config.optimizer.microBatchTokens)) {
    check();
    const seen = await policy.forward(sequenceBatch(part), { temperature, keepActivations: false });
    splitTokens(
      seen.logprob,
      part.map(({ response }) => response),
    ).forEach((logprob, k) => {
      put(part[k] as LossSample, logprob);
    });
  }
}

/**
 * One optimizer step per mini-batch of prompts, `optimizer.epochs` times over.
 *
 * @throws NonFiniteError where no step of the iteration could be applied
 */
export async function updatePolicy(
  samples: readonly LossSample[],
  objective: Objective,
  { policy, config, check }: Updating,
  iteration: number,
): Promise<Metrics> {
  const { optimizer, rollout } = config;
  const total = new MetricAccumulator();
  const steps: StepReport[] = [];
  for (let epoch = 0; epoch < optimizer.epochs; epoch++) {
    for (const miniBatch of chunk(samples, optimizer.miniBatchPrompts * rollout.groupSize)) {
      const normalizer = normalizerOf(miniBatch.map(({ response }) => response.length));
      for (const part of microBatches(miniBatch, optimizer.microBatchTokens)) {
        check();
        const seen = await policy.forward(sequenceBatch(part), { temperature: rollout.temperature });
        const { a, b, metrics } = objective(tokenBatch(part, seen), normalizer);
        total.merge(metrics);
        await policy.backward(a, b);
      }
      steps.push(
        await policy.step({
          lr: optimizer.lr,
          betas: [optimizer.betas[0], optimizer.betas[1]],
          eps: optimizer.eps,
          weightDecay: optimizer.weightDecay,
          maxGradNorm: optimizer.maxGradNorm > 0 ? optimizer.maxGradNorm : null,
        }),
      );
    }
  }
  const applied = steps.filter((step) => step.applied);
  if (applied.length === 0) {
    throw new NonFiniteError(
      `iteration ${iteration}: the gradients of every update are NaN or infinite, nothing was changed; ` +
        'lower optimizer.lr or unlearn.eta, or clip more with optimizer.maxGradNorm',
    );
  }
  return {
    ...total.values(),
    'actor/grad_norm': applied.reduce((sum, { gradNorm }) => sum + gradNorm, 0) / applied.length,
    'actor/skipped_steps': steps.length - applied.length,
    'actor/lr': optimizer.lr,
  };
}
