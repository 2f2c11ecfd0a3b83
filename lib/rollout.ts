/** The two-stage rollout: sample, gate, forget, sample (Algorithm 1, lines 3-9). */
import { SAMPLES_TO_FORGET, type SamplesToForget } from './algorithm/forgettable.js';
import type { EntropyGate, GateDecision } from './algorithm/gate.js';
import { InvalidArgumentError, NonFiniteError, UnsupportedError } from './errors.js';
import { checkOptions, choice, type OptionKeys, SIGNAL } from './options.js';
import { UNLEARNING_STEP } from './policy/options.js';
import type { ForgetReport, PolicyLike } from './policy.js';
import { chooseSamples, concatFloat32, mergeReports, type UnlearnStep, unlearnStep } from './rollout/unlearn.js';

/** What a rollout needs of a policy. */
export type RolloutPolicy = Pick<
  PolicyLike,
  'config' | 'generate' | 'forget' | 'syncRollout' | 'dropMemory' | 'findNonFinite'
>;

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
  normalize?: 'none' | 'gradNorm' | 'relative';
  /** Default 'complementary'. */
  loss?: 'complementary' | 'nll';
  /** Default 1. */
  steps?: number;
  /** Default 'gradient'. */
  direction?: 'gradient' | 'random';
  /** Share of the last iteration's theta' - theta that is kept. Default 0: theta' starts from theta (the paper). */
  memory?: number;
  /**
   * 'batch' (default; the paper): one theta' for all prompts. 'prompt': one for each, made from its own stage-1 samples;
   * its stage 2 is drawn from it, then it is dropped. One prompt after the other.
   */
  scope?: 'batch' | 'prompt';
  /** Which stage-1 samples are forgotten ({@link SamplesToForget}). Default 'all'; the others need `judge`. */
  samples?: SamplesToForget;
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
  /** Rewards of stage-1 samples, in their order; null: left out. Asked once, where `unlearn.samples` is not 'all'. */
  judge?: (samples: readonly RolloutSample[]) => Promise<readonly (number | null)[]>;
  signal?: AbortSignal;
  /** Called when a phase begins. */
  onPhase?: (phase: RolloutPhase) => void;
  /** Tokens drawn so far in this phase, samples still running. */
  onProgress?: (progress: { tokens: number; running: number }) => void;
}

const UNLEARN_KEYS: OptionKeys<UnlearnOptions> = {
  ...UNLEARNING_STEP,
  gate: true,
  scope: true,
  samples: true,
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
  judge: true,
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
  /**
   * What unlearning did; null for GRPO and where nothing was tried (a closed gate, no sample to forget). With scope
   * 'prompt': counts added up over the prompts, means of the rest.
   */
  forget: ForgetReport | null;
  /** The gate's decision; null for GRPO. */
  gate: GateDecision | null;
  /** Why the (first) unlearning step that diverged was undone, so that stage 2 was drawn from theta; else null. */
  undone: string | null;
  /** Shares, null for GRPO. Of the steps 0 or 1, but for scope 'prompt', where they are of the prompts. */
  unlearned: {
    /** Steps whose theta' drew stage 2. */
    moved: number;
    /** Steps that were undone. */
    undone: number;
    /** Stage-1 samples that were chosen to be forgotten. */
    samples: number;
  } | null;
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
  if (unlearn !== null) checkUnlearn(unlearn, policy, options);
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

function checkUnlearn(unlearn: UnlearnOptions, policy: RolloutPolicy, { judge }: RolloutOptions): void {
  const { scope = 'batch', samples = 'all', memory = 0 } = unlearn;
  choice(scope, 'unlearn.scope', ['batch', 'prompt']);
  choice(samples, 'unlearn.samples', SAMPLES_TO_FORGET);
  if (samples !== 'all' && judge === undefined) {
    throw new InvalidArgumentError(`unlearn.samples = "${samples}" needs the rewards of stage 1: pass \`judge\``);
  }
  if (memory === 0) return;
  if (scope === 'prompt') {
    throw new InvalidArgumentError('unlearn.memory keeps one theta\' for all prompts; leave it 0 with scope "prompt"');
  }
  if (!policy.dropMemory) throw new UnsupportedError('unlearn.memory is above 0, but this policy remembers nothing');
}

export { concatFloat32 };

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
 * What is studied beside the paper's step is in {@link UnlearnOptions}: other losses, lengths, directions, several steps,
 * theta' kept from one iteration to the next, one theta' per prompt, a part of the samples.
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
  const everyone = prompts.map((_, index) => index);
  const sample = async (
    stage: 1 | 2,
    count: number,
    offset: number,
    weights: 'policy' | 'rollout',
    indices: readonly number[],
  ) => {
    const chosen = indices.map((index) => prompts[index] as RolloutPrompt);
    const generations = await policy.generate(
      chosen.map(({ tokens }) => tokens),
      {
        maxNewTokens: options.maxNewTokens,
        temperature,
        samplesPerPrompt: count,
        sampleOffset: offset,
        seed: options.seed ?? 0,
        iteration: options.iteration ?? 0,
        promptIds: chosen.map(({ id }) => id),
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
        promptIndex: indices[prompt] as number,
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
    const samples = await timed('stage1', () => sample(1, groupSize, 0, 'policy', everyone));
    return { samples, forget: null, gate: null, undone: null, unlearned: null, timings };
  }

  const half = groupSize / 2;
  const stage1 = await timed('stage1', () => sample(1, half, 0, 'policy', everyone));
  const gate = unlearn.gate.decide(meanTokenEntropy(stage1));
  const forgotten = new Set(gate.skip ? [] : await chooseSamples(stage1, unlearn, options.judge));

  /** What is remembered of theta' is used though no step is taken: by a gate that is open for no token. */
  const step = (chosen: readonly RolloutSample[], own: readonly RolloutSample[]): Promise<UnlearnStep> => {
    const context = { ...options, unlearn };
    if (chosen.length > 0) return unlearnStep(policy, prompts, chosen, gate.alpha, context);
    return unlearnStep(policy, prompts, own, 0, context);
  };

  /** One theta' for these prompts, and their stage 2. */
  const exploreFrom = async (indices: readonly number[]) => {
    const own =
      indices.length === prompts.length ? stage1 : stage1.filter(({ promptIndex }) => indices.includes(promptIndex));
    const chosen = own.filter((one) => forgotten.has(one));
    const nothing = chosen.length === 0 && !((unlearn.memory ?? 0) > 0);
    const { forget, undone: diverged } = nothing
      ? { forget: null, undone: null }
      : await timed('unlearn', () => step(chosen, own));
    let undone = diverged;
    let stage2: RolloutSample[] | null = null;
    if (forget !== null && undone === null) {
      try {
        stage2 = await timed('stage2', () => sample(2, half, half, 'rollout', indices));
      } catch (error) {
        if (!(error instanceof NonFiniteError)) throw error;
        undone = `under theta' ${error.message}`;
      }
    }
    if (undone !== null) {
      await policy.syncRollout();
      if ((unlearn.memory ?? 0) > 0) await policy.dropMemory?.(options.iteration ?? 0);
    }
    stage2 ??= await timed('stage2', () => sample(2, half, half, 'policy', indices));
    const moved = forget !== null && forget.skipped === null && undone === null;
    return { forget, undone, moved, stage2 };
  };

  try {
    const units = unlearn.scope === 'prompt' ? everyone.map((index) => [index]) : [everyone];
    const explored = [];
    for (const [u, indices] of units.entries()) {
      if (u > 0) await policy.syncRollout();
      explored.push(await exploreFrom(indices));
    }
    const shareOf = (flags: readonly boolean[]): number => flags.filter(Boolean).length / flags.length;
    return {
      samples: interleave(
        stage1,
        explored.flatMap(({ stage2 }) => stage2),
        prompts.length,
      ),
      forget: mergeReports(explored.flatMap(({ forget }) => (forget === null ? [] : [forget]))),
      gate,
      undone: explored.find(({ undone }) => undone !== null)?.undone ?? null,
      unlearned: {
        moved: shareOf(explored.map(({ moved }) => moved)),
        undone: shareOf(explored.map(({ undone }) => undone !== null)),
        samples: forgotten.size / stage1.length,
      },
      timings,
    };
  } finally {
    await policy.syncRollout();
  }
}
