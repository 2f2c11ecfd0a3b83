/** The second half of an iteration: from scored samples to new weights. */
import { MetricAccumulator } from '../algorithm/accumulator.js';
import { normalizerOf } from '../algorithm/batch.js';
import type { Objective } from '../algorithm/types.js';
import type { PolicyLike, StepReport } from '../policy.js';
import { chunk, type LossSample, microBatches, sequenceBatch, splitTokens, tokenBatch } from './batching.js';
import type { TrainConfig } from './config.js';
import type { Metrics, ScoredSample } from './metrics.js';
import { badForward, badInput, badObjective, describeNonFinite, type Incident } from './non-finite.js';

/** What the KL penalty needs of the reference model. */
export type ReferencePolicy = Pick<PolicyLike, 'forward'>;

/** What an update works with. */
export interface Updating {
  policy: Pick<PolicyLike, 'forward' | 'backward' | 'step' | 'zeroGrad' | 'findNonFinite'>;
  config: TrainConfig;
  /** Called between micro-batches; throws to end the work. */
  check: () => void;
}

/** What the loss needs of a sample; the log-probs that must be computed are left null for {@link addLogprobs}. */
export function lossSample(
  { objective }: TrainConfig,
  sample: ScoredSample,
  prompt: readonly number[],
  problem: string,
): LossSample {
  return {
    prompt,
    response: sample.tokens,
    behaviorLogprob: sample.logprob,
    // Stage 1 was drawn from theta itself: what was recorded is what would be computed again.
    policyLogprob: objective.ratio !== 'behavior' && sample.stage === 1 ? sample.logprob : null,
    refLogprob: null,
    advantage: sample.advantage,
    stage: sample.stage,
    inLoss: !(objective.maskTruncated && sample.finishReason === 'length'),
    label: `sample ${sample.sampleIndex} of prompt ${problem}`,
  };
}

/** What some objectives need beside the recorded log-probs: those under theta_k and under the reference model. */
export async function addLogprobs(
  samples: readonly LossSample[],
  reference: ReferencePolicy | null,
  updating: Updating,
): Promise<void> {
  const needed = samples.filter(({ inLoss }) => inLoss);
  if (updating.config.objective.ratio !== 'behavior') {
    const stage2 = needed.filter(({ stage }) => stage === 2);
    await logprobs(updating.policy, stage2, updating, (sample, logprob) => {
      sample.policyLogprob = logprob;
    });
  }
  if (reference !== null) {
    await logprobs(reference, needed, updating, (sample, logprob) => {
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

/** What an update came to. */
export interface UpdateReport {
  metrics: Metrics;
  /** One for each step that was skipped. */
  incidents: Incident[];
  /** Steps skipped in a row, those before this update included. */
  skippedInARow: number;
}

/**
 * One optimizer step per mini-batch of prompts, `optimizer.epochs` times over. Samples that are not in the loss are not in
 * its normalizer either; a mini-batch that has no others has no step.
 *
 * A mini-batch with an advantage, log-prob, loss coefficient or gradient that is not finite has no step: weights, moments
 * and the count of steps keep their bits. It is explained by the first tensor in which that appeared, and not part of
 * the metrics. After `optimizer.maxSkippedSteps` of them in a row nothing more is tried.
 *
 * @param skippedInARow - steps skipped in a row until now
 */
export async function updatePolicy(
  samples: readonly LossSample[],
  objective: Objective,
  updating: Updating,
  iteration: number,
  skippedInARow = 0,
): Promise<UpdateReport> {
  const { optimizer, rollout } = updating.config;
  const total = new MetricAccumulator();
  const applied: StepReport[] = [];
  const incidents: Incident[] = [];
  const miniBatches = chunk(samples, optimizer.miniBatchPrompts * rollout.groupSize)
    .map((miniBatch) => miniBatch.filter(({ inLoss }) => inLoss))
    .filter((miniBatch) => miniBatch.length > 0);
  const steps = miniBatches.length * optimizer.epochs;
  let streak = skippedInARow;
  for (let step = 0; step < steps; step++) {
    const metrics = new MetricAccumulator();
    const miniBatch = miniBatches[step % miniBatches.length] as LossSample[];
    const done = await updateOnce(miniBatch, objective, updating, metrics);
    if (typeof done === 'string') {
      incidents.push({
        kind: 'update',
        message: `iteration ${iteration}: update ${step + 1} of ${steps} was skipped, nothing was changed: ${done}`,
      });
      streak += 1;
      if (optimizer.maxSkippedSteps > 0 && streak >= optimizer.maxSkippedSteps) break;
    } else {
      total.merge(metrics);
      applied.push(done);
      streak = 0;
    }
  }
  return {
    metrics: {
      ...total.values(),
      ...(applied.length === 0
        ? {}
        : { 'actor/grad_norm': applied.reduce((sum, { gradNorm }) => sum + gradNorm, 0) / applied.length }),
      ...(updating.config.objective.maskTruncated
        ? { 'actor/masked_frac': samples.filter(({ inLoss }) => !inLoss).length / samples.length }
        : {}),
      'actor/skipped_steps': incidents.length,
      'actor/lr': optimizer.lr,
    },
    incidents,
    skippedInARow: streak,
  };
}

/** One step, or why there is none. */
async function updateOnce(
  miniBatch: readonly LossSample[],
  objective: Objective,
  updating: Updating,
  metrics: MetricAccumulator,
): Promise<StepReport | string> {
  const { policy, config } = updating;
  const { optimizer } = config;
  const bad = await addGradient(miniBatch, objective, updating, metrics);
  if (bad !== null) {
    await policy.zeroGrad();
    return bad;
  }
  const report = await policy.step({
    lr: optimizer.lr,
    betas: [optimizer.betas[0], optimizer.betas[1]],
    eps: optimizer.eps,
    weightDecay: optimizer.weightDecay,
    maxGradNorm: optimizer.maxGradNorm > 0 ? optimizer.maxGradNorm : null,
  });
  if (report.applied) return report;
  await policy.zeroGrad();
  return report.cause ? describeNonFinite(report.cause) : `the norm of the gradient is ${report.gradNorm}`;
}

/** The gradient of a mini-batch, micro-batch by micro-batch, until something is not finite: then what it is. */
async function addGradient(
  miniBatch: readonly LossSample[],
  objective: Objective,
  { policy, config: { optimizer, rollout }, check }: Updating,
  metrics: MetricAccumulator,
): Promise<string | null> {
  for (const sample of miniBatch) {
    const bad = badInput(sample);
    if (bad !== null) return bad;
  }
  const { temperature } = rollout;
  const normalizer = normalizerOf(
    miniBatch.map(({ response }) => response.length),
    rollout.maxNewTokens,
  );
  for (const part of microBatches(miniBatch, optimizer.microBatchTokens)) {
    check();
    const seen = await policy.forward(sequenceBatch(part), { temperature });
    const badStatistics = await badForward(policy, part, seen, temperature);
    if (badStatistics !== null) return badStatistics;
    const result = objective(tokenBatch(part, seen), normalizer);
    const badLoss = badObjective(result, part);
    if (badLoss !== null) return badLoss;
    metrics.merge(result.metrics);
    await policy.backward(result.a, result.b);
  }
  return null;
}
