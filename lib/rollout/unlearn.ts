/** The step between the two stages: who is forgotten, what came of it, and whether it can be used. */
import { samplesToForget } from '../algorithm/forgettable.js';
import { NonFiniteError } from '../errors.js';
import type { ForgetReport } from '../policy.js';
import type { RolloutOptions, RolloutPolicy, RolloutPrompt, RolloutSample, UnlearnOptions } from '../rollout.js';

/** What of the options an unlearning step needs. */
export type UnlearnContext = Pick<RolloutOptions, 'signal' | 'temperature' | 'seed' | 'iteration'> & {
  unlearn: UnlearnOptions;
};

export interface UnlearnStep {
  forget: ForgetReport | null;
  /** Why theta' is no use and is to be dropped, or null. */
  undone: string | null;
}

/** The stage-1 samples that are forgotten; `judge` is asked only where that depends on rewards. */
export async function chooseSamples(
  stage1: readonly RolloutSample[],
  { samples: which = 'all' }: UnlearnOptions,
  judge: RolloutOptions['judge'],
): Promise<RolloutSample[]> {
  const rewards = which === 'all' || judge === undefined ? [] : await judge(stage1);
  const chosen = samplesToForget(
    which,
    stage1.map(({ promptIndex }) => promptIndex),
    rewards,
  );
  return stage1.filter((_, i) => chosen[i]);
}

/** theta' = theta + eta grad L(O1), or why there is none: then what was made of it is to be dropped. */
export async function unlearnStep(
  policy: RolloutPolicy,
  prompts: readonly RolloutPrompt[],
  samples: readonly RolloutSample[],
  alpha: number,
  { unlearn, signal, temperature = 1, seed = 0, iteration = 0 }: UnlearnContext,
): Promise<UnlearnStep> {
  const batch = {
    prompts: samples.map(({ promptIndex }) => (prompts[promptIndex] as RolloutPrompt).tokens),
    responses: samples.map(({ tokens }) => tokens),
  };
  try {
    const forget = await policy.forget(batch, {
      entropy: concatFloat32(samples.map(({ entropy }) => entropy)),
      eta: unlearn.eta,
      alpha,
      window: unlearn.gate.window,
      loss: unlearn.loss ?? 'complementary',
      epsLow: unlearn.epsLow ?? 1e-6,
      epsHigh: unlearn.epsHigh ?? 1e-5,
      clampGrad: unlearn.clampGrad ?? 'zero',
      normalize: unlearn.normalize ?? 'none',
      direction: unlearn.direction ?? 'gradient',
      steps: unlearn.steps ?? 1,
      memory: unlearn.memory ?? 0,
      temperature,
      probeTokens: unlearn.probeTokens ?? 256,
      rolloutDtype: unlearn.rolloutDtype ?? 'same',
      seed,
      iteration,
      ...(unlearn.microBatchTokens === undefined ? {} : { microBatchTokens: unlearn.microBatchTokens }),
      ...(signal === undefined ? {} : { signal }),
    });
    return { forget, undone: divergence(forget, unlearn) };
  } catch (error) {
    if (!(error instanceof NonFiniteError)) throw error;
    const found = await policy.findNonFinite?.(batch, { temperature }).catch(() => null);
    return { forget: null, undone: found?.text ?? error.message };
  }
}

/** What says that theta' is no use, or null. */
function divergence(forget: ForgetReport, { maxRelativeStep = 1, maxLogpDelta = 20 }: UnlearnOptions): string | null {
  const { skipped, cause, loss, gradNorm, relativeStep, stage1LogpDelta } = forget;
  if (skipped === 'no-open-token') return null;
  if (skipped === 'non-finite') {
    const what = cause?.kind === 'gradient' ? `the gradient of ${cause.text}` : `theta': ${cause?.text}`;
    return cause ? what : `the loss is ${loss} and the norm of its gradient ${gradNorm}`;
  }
  if (maxRelativeStep > 0 && !(relativeStep <= maxRelativeStep)) {
    return `the step is ${relativeStep} times as long as the weights; at most ${maxRelativeStep} is allowed (unlearn.maxRelativeStep)`;
  }
  // NaN: nothing was probed.
  if (maxLogpDelta > 0 && Math.abs(stage1LogpDelta) > maxLogpDelta) {
    return `the log-prob of stage-1 tokens changed by ${stage1LogpDelta} nats on average; at most ${maxLogpDelta} are allowed (unlearn.maxLogpDelta)`;
  }
  return null;
}

/**
 * The reports of several steps, each of its own prompt, as one: counts are added up, losses, norms and fractions are
 * means over the steps. null where there was none.
 */
export function mergeReports(reports: readonly ForgetReport[]): ForgetReport | null {
  const [first] = reports;
  if (first === undefined || reports.length === 1) return first ?? null;
  const sum = (of: (report: ForgetReport) => number): number =>
    reports.reduce((total, report) => total + of(report), 0);
  const mean = (of: (report: ForgetReport) => number): number => {
    const values = reports.map(of).filter((value) => !Number.isNaN(value));
    return values.length === 0 ? Number.NaN : values.reduce((total, value) => total + value, 0) / values.length;
  };
  return {
    loss: mean(({ loss }) => loss),
    steps: Math.max(...reports.map(({ steps }) => steps)),
    tokens: sum(({ tokens }) => tokens),
    openTokens: sum(({ openTokens }) => openTokens),
    clampedLow: sum(({ clampedLow }) => clampedLow),
    clampedHigh: sum(({ clampedHigh }) => clampedHigh),
    activeTokens: sum(({ activeTokens }) => activeTokens),
    gradNorm: mean(({ gradNorm }) => gradNorm),
    relativeStep: mean(({ relativeStep }) => relativeStep),
    paramChangedFrac: mean(({ paramChangedFrac }) => paramChangedFrac),
    stage1LogpDelta: mean(({ stage1LogpDelta }) => stage1LogpDelta),
    skipped: reports.every(({ skipped }) => skipped !== null) ? first.skipped : null,
    cause: reports.find(({ cause }) => cause)?.cause ?? null,
  };
}

/** All entries of `arrays` in one array. */
export function concatFloat32(arrays: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(arrays.reduce((sum, array) => sum + array.length, 0));
  let at = 0;
  for (const array of arrays) {
    out.set(array, at);
    at += array.length;
  }
  return out;
}
