/** The two-stage rollout: sample, gate, forget, sample (Algorithm 1, lines 3-9). */
import type { EntropyGate, GateDecision } from './algorithm/gate.js';
import { InvalidArgumentError, NonFiniteError } from './errors.js';
import { checkOptions, type OptionKeys, SIGNAL } from './options.js';
import type { ForgetReport, PolicyLike } from './policy.js';

/** What a rollout needs of a policy. */
export type RolloutPolicy = Pick<PolicyLike, 'config' | 'generate' | 'forget' | 'syncRollout' | 'findNonFinite'>;

/** One tokenized prompt. */
export interface RolloutPrompt {
  /** Keys the random numbers: a prompt's samples depend on its id, not on what it is batched with. */
  id: number;
  tokens: readonly number[];
}

/** The unlearning between the stages (Eq. 9-11). */
export interface UnlearnOptions {
  /** Step size of Eq. 11. */
  eta: number;
  /** Decides when and where; it holds alpha, the window and the entropies of past iterations. */
  gate: EntropyGate;
  /** Default 1e-6. */
  epsLow?: number;
  /** Default 1e-5. */
  epsHigh?: number;
  /** Default 'zero'. */
  clampGrad?: 'zero' | 'saturate';
  /** Default 'none'. */
  normalize?: 'none' | 'gradNorm';
  /** Default 256. */
  probeTokens?: number;
  /** Type of theta' of a policy in bfloat16; default 'same'. */
  rolloutDtype?: 'same' | 'float32';
  microBatchTokens?: number;
  /** A step whose length is more than so many times the norm of the weights is undone. Default 1; 0 = no bound. */
  maxRelativeStep?: number;
  /**
   * A step that lowers the log-prob of the probed tokens by more nats than this, or raises it by more, on average, is
   * undone. Default 20; 0 = no bound.
   */
  maxLogpDelta?: number;
}

export type RolloutPhase = 'stage1' | 'unlearn' | 'stage2';

export interface RolloutOptions {
  /** G: samples per prompt. Even for EEPO. */
  groupSize: number;
  maxNewTokens: number;
  /** Default 1; must be above 0, because a greedy sample has no probability to form a ratio with. */
  temperature?: number;
  /** Default 0. */
  seed?: number;
  /** Default 0. */
  iteration?: number;
  /** null is GRPO: all G from theta in one stage. */
  unlearn: UnlearnOptions | null;
  /** Samples drawn at a time; 0 (the default) is all. */
  maxRows?: number;
  /** Tokens the key-value cache may hold; 0 (the default) is as many as there are. */
  cacheTokens?: number;
  /** Default: the model's end-of-sequence ids. */
  stopTokens?: readonly number[];
  signal?: AbortSignal;
  /** Called when a phase begins. */
  onPhase?: (phase: RolloutPhase) => void;
  /** Tokens drawn so far in this phase, samples still running. */
  onProgress?: (progress: { tokens: number; running: number }) => void;
}

const UNLEARN_KEYS: OptionKeys<UnlearnOptions> = {
  eta: true,
  gate: true,
  epsLow: true,
  epsHigh: true,
  clampGrad: true,
  normalize: true,
  probeTokens: true,
  rolloutDtype: true,
  microBatchTokens: true,
  maxRelativeStep: true,
  maxLogpDelta: true,
};
const KEYS: OptionKeys<RolloutOptions> = {
  groupSize: true,
  maxNewTokens: true,
  temperature: true,
  seed: true,
  iteration: true,
  unlearn: true,
  maxRows: true,
  cacheTokens: true,
  stopTokens: true,
  onPhase: true,
  onProgress: true,
  ...SIGNAL,
};

/** One response with what was recorded while it was drawn. */
export interface RolloutSample {
  /** Index in `prompts`. */
  promptIndex: number;
  /** 0 ... G-1 within its prompt. */
  sampleIndex: number;
  /** 1: drawn from theta. 2: drawn from theta' (for GRPO every sample is of stage 1). */
  stage: 1 | 2;
  tokens: number[];
  /** Behaviour log-probs: under the weights that drew the token, at the sampling temperature. The denominator of Eq. 3. */
  logprob: Float32Array;
  /** Entropy in nats of the distribution each token was drawn from. */
  entropy: Float32Array;
  finishReason: 'stop' | 'length';
}

export interface Rollout {
  /** Prompt-major: the G samples of a prompt are contiguous, those of stage 1 first. */
  samples: RolloutSample[];
  /** What unlearning did; null for GRPO and where the gate kept it from running. */
  forget: ForgetReport | null;
  /** The gate's decision; null for GRPO. */
  gate: GateDecision | null;
  /** Why the unlearning step diverged and was undone, so that stage 2 was drawn from theta; else null. */
  undone: string | null;
  /** Seconds. */
  timings: Record<RolloutPhase, number>;
}

function checkRollout(policy: RolloutPolicy, prompts: readonly RolloutPrompt[], options: RolloutOptions): void {
  checkOptions(options, KEYS, 'twoStageRollout');
  const { groupSize, maxNewTokens, temperature = 1, unlearn } = options;
  if (unlearn !== null) checkOptions(unlearn, UNLEARN_KEYS, 'twoStageRollout: unlearn');
  if (prompts.length === 0) throw new InvalidArgumentError('prompts is empty; a rollout needs at least one prompt');
  if (!Number.isInteger(groupSize) || groupSize < 2) {
    throw new InvalidArgumentError(
      `groupSize is ${groupSize}; advantages compare the samples of a group, so it must be a whole number of at least 2`,
    );
  }
  if (unlearn !== null && groupSize % 2 !== 0) {
    throw new InvalidArgumentError(
      `groupSize is ${groupSize}; EEPO draws half of a group in each stage and needs an even number (${groupSize + 1}?)`,
    );
  }
  if (!Number.isInteger(maxNewTokens) || maxNewTokens < 1) {
    throw new InvalidArgumentError(`maxNewTokens is ${maxNewTokens}; it must be a whole number of at least 1`);
  }
  if (!(temperature > 0)) {
    throw new InvalidArgumentError(`temperature is ${temperature}; a rollout needs one above 0`);
  }
  const context = policy.config.maxPositionEmbeddings;
  prompts.forEach(({ tokens }, index) => {
    if (tokens.length === 0) throw new InvalidArgumentError(`prompts[${index}] has no tokens`);
    if (tokens.length + maxNewTokens > context) {
      throw new InvalidArgumentError(
        `prompts[${index}] has ${tokens.length} tokens; with maxNewTokens = ${maxNewTokens} it does not fit into the ` +
          `model's context of ${context}; shorten the prompt or ask for at most ${Math.max(0, context - tokens.length)} new tokens`,
      );
    }
  });
}

/** The mean entropy over all tokens of some samples. */
export function meanTokenEntropy(samples: readonly { entropy: Float32Array }[]): number {
  let sum = 0;
  let count = 0;
  for (const { entropy } of samples) {
    for (const h of entropy) sum += h;
    count += entropy.length;
  }
  return count === 0 ? 0 : sum / count;
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

/** Two prompt-major lists as one: of every prompt first the samples of `first`, then those of `second`. */
function interleave(first: RolloutSample[], second: RolloutSample[], prompts: number): RolloutSample[] {
  const a = first.length / prompts;
  const b = second.length / prompts;
  return Array.from({ length: prompts }, (_, p) => [
    ...first.slice(p * a, (p + 1) * a),
    ...second.slice(p * b, (p + 1) * b),
  ]).flat();
}

/**
 * Draws G responses to every prompt.
 *
 * With `unlearn`: G/2 from theta; one step of ascent on L(O1) away from them, theta' = theta + eta grad L; the other G/2
 * from theta'; theta' is thrown away, also when something fails. A step that diverges is undone: stage 2 is then drawn from
 * theta, and `undone` says why. Without: G from theta. Random numbers are keyed by
 * (seed, iteration, prompt id, sample, position), so the two agree byte for byte where eta = 0.
 *
 * The policy's weights are never written; its gradient buffers must be empty.
 *
 * @throws InvalidArgumentError before anything is sampled when an option or a prompt is wrong
 */
export async function twoStageRollout(
  policy: RolloutPolicy,
  prompts: readonly RolloutPrompt[],
  options: RolloutOptions,
): Promise<Rollout> {
  checkRollout(policy, prompts, options);
  const { groupSize, unlearn, signal, temperature = 1 } = options;
  const timings = { stage1: 0, unlearn: 0, stage2: 0 };
  const timed = async <T>(phase: RolloutPhase, work: () => Promise<T>): Promise<T> => {
    options.onPhase?.(phase);
    const start = performance.now();
    try {
      return await work();
    } finally {
      timings[phase] += (performance.now() - start) / 1000;
    }
  };
  const sample = async (stage: 1 | 2, count: number, offset: number, weights: 'policy' | 'rollout') => {
    const generations = await policy.generate(
      prompts.map(({ tokens }) => tokens),
      {
        maxNewTokens: options.maxNewTokens,
        temperature,
        samplesPerPrompt: count,
        sampleOffset: offset,
        seed: options.seed ?? 0,
        iteration: options.iteration ?? 0,
        promptIds: prompts.map(({ id }) => id),
        weights,
        maxRows: options.maxRows ?? 0,
        cacheTokens: options.cacheTokens ?? 0,
        ...(options.stopTokens === undefined ? {} : { stopTokens: options.stopTokens }),
        ...(signal === undefined ? {} : { signal }),
        ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
      },
    );
    return generations.map(
      ({ prompt, tokens, logprob, entropy, finishReason }, i): RolloutSample => ({
        promptIndex: prompt,
        sampleIndex: offset + (i % count),
        stage,
        tokens,
        logprob,
        entropy,
        finishReason,
      }),
    );
  };

  if (unlearn === null) {
    const samples = await timed('stage1', () => sample(1, groupSize, 0, 'policy'));
    return { samples, forget: null, gate: null, undone: null, timings };
  }

  const half = groupSize / 2;
  const stage1 = await timed('stage1', () => sample(1, half, 0, 'policy'));
  const gate = unlearn.gate.decide(meanTokenEntropy(stage1));
  try {
    const step = gate.skip
      ? { forget: null, undone: null }
      : await timed('unlearn', () => unlearnStep(policy, prompts, stage1, gate.alpha, { ...options, unlearn }));
    let { undone } = step;
    const moved = step.forget !== null && undone === null;
    let stage2: RolloutSample[] | null = null;
    if (moved) {
      try {
        stage2 = await timed('stage2', () => sample(2, half, half, 'rollout'));
      } catch (error) {
        if (!(error instanceof NonFiniteError)) throw error;
        undone = `under theta' ${error.message}`;
      }
    }
    if (undone !== null) await policy.syncRollout();
    stage2 ??= await timed('stage2', () => sample(2, half, half, 'policy'));
    return { samples: interleave(stage1, stage2, prompts.length), forget: step.forget, gate, undone, timings };
  } finally {
    await policy.syncRollout();
  }
}

/** theta' = theta + eta grad L(O1), or why there is none: then what was made of it is to be dropped. */
async function unlearnStep(
  policy: RolloutPolicy,
  prompts: readonly RolloutPrompt[],
  stage1: readonly RolloutSample[],
  alpha: number,
  options: RolloutOptions & { unlearn: UnlearnOptions },
): Promise<{ forget: ForgetReport | null; undone: string | null }> {
  const { unlearn, signal, temperature = 1 } = options;
  const batch = {
    prompts: stage1.map(({ promptIndex }) => (prompts[promptIndex] as RolloutPrompt).tokens),
    responses: stage1.map(({ tokens }) => tokens),
  };
  try {
    const forget = await policy.forget(batch, {
      entropy: concatFloat32(stage1.map(({ entropy }) => entropy)),
      eta: unlearn.eta,
      alpha,
      window: unlearn.gate.window,
      epsLow: unlearn.epsLow ?? 1e-6,
      epsHigh: unlearn.epsHigh ?? 1e-5,
      clampGrad: unlearn.clampGrad ?? 'zero',
      normalize: unlearn.normalize ?? 'none',
      temperature,
      probeTokens: unlearn.probeTokens ?? 256,
      rolloutDtype: unlearn.rolloutDtype ?? 'same',
      seed: options.seed ?? 0,
      iteration: options.iteration ?? 0,
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
