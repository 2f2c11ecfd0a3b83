/**
 * What rollout, trainer and evaluation need of a policy, and the shapes that go in and out. `Policy` (policy.ts) is the
 * native one; anything that keeps this contract can be trained.
 */
import type { LoraOptions } from './adapter.js';
import type { SaveOptions } from './checkpoint-writer.js';
import type { PolicyConfig } from './config-json.js';
import type { HubOptions } from './hub/index.js';
import type { Tensor } from './tensor.js';

export type Device = 'cpu' | 'cuda' | 'auto';

/**
 * What matrices are kept in. 'bfloat16' halves the memory and its traffic of everything that computes; norms, biases,
 * activations, sums, gradients, moments and the optimizer's master copy stay float32.
 */
export type WeightDType = 'float32' | 'bfloat16';

/** Where the model comes from ({@link HubOptions}), and as what it is loaded. */
export interface LoadOptions extends HubOptions {
  /** Default 'cpu'. */
  device?: Device;
  /** Type of the weight matrices; default 'float32'. Files in another type are converted. See {@link WeightDType}. */
  dtype?: WeightDType;
  /** Default true. false: a reference or a model to evaluate; it holds neither master weights nor gradients. */
  trainable?: boolean;
  /** Train a new low-rank adapter; the weights themselves stay as they are, in `dtype`, without a master copy. */
  lora?: LoraOptions;
  /** A folder with an adapter in the format of PEFT, to go on training or to use; see {@link LoraOptions}. */
  adapter?: string;
  /** See {@link PolicyLike.setGradientCheckpointing}. Default false. */
  gradientCheckpointing?: boolean;
}

export interface ForwardOptions {
  /** Default 1. */
  temperature?: number;
  /** Default true: `backward` may follow. */
  keepActivations?: boolean;
  /** false: what the base says without its adapter, keeping no activations. Default true. */
  adapter?: boolean;
  signal?: AbortSignal;
}

/** What kind of policy is made. */
export type ModelChoices = Pick<
  LoadOptions,
  'device' | 'dtype' | 'trainable' | 'lora' | 'adapter' | 'gradientCheckpointing'
>;

export interface CreateOptions extends ModelChoices {
  /** Of the weights. Default 0. */
  seed?: number;
  /** A folder whose tokenizer files `save` copies. */
  companions?: string;
}

export interface GenerateOptions {
  maxNewTokens: number;
  /** Default 1. 0 is greedy. */
  temperature?: number;
  topK?: number;
  topP?: number;
  /** Default 1. */
  samplesPerPrompt?: number;
  /** Default 0. */
  seed?: number;
  /** Random numbers are keyed by (seed, iteration, prompt id, sample, position). Default 0. */
  iteration?: number;
  /** Default: the index in `prompts`. */
  promptIds?: readonly number[];
  /** Added to the sample index (stage 2 passes G/2). Default 0. */
  sampleOffset?: number;
  /** Ids that end a response; the stop token is part of the response. Default: config.eosTokenIds. */
  stopTokens?: readonly number[];
  /**
   * Samples drawn at a time; one that has ended makes room for the next. Bounds memory, changes no response on a CPU
   * (on a GPU last bits may depend on what a row is computed with). Default 0: all at once.
   */
  maxRows?: number;
  /**
   * Tokens (prompts and responses together) that the key-value cache may hold: layers * 2 * key-value heads * head size
   * * 4 bytes each. Where it is full, samples wait, and the youngest may be begun again; they become the same responses.
   * Must hold the longest prompt and one whole response. Default 0: as many as there are.
   */
  cacheTokens?: number;
  /** Which weights sample: theta or theta'. Default 'policy'. */
  weights?: 'policy' | 'rollout';
  signal?: AbortSignal;
  /** Called on the event loop now and then: tokens drawn so far, rows still running. */
  onProgress?: (progress: { tokens: number; running: number }) => void;
}

/** One response. Samples come prompt-major: index = prompt * samplesPerPrompt + sample. */
export interface Generation {
  prompt: number;
  sample: number;
  tokens: number[];
  /** log-prob of every drawn token under the weights that drew it, at `temperature`. */
  logprob: Float32Array;
  /** entropy (nats) of the distribution each token was drawn from. */
  entropy: Float32Array;
  finishReason: 'stop' | 'length';
}

/** Rows of prompt + response; packed without padding. */
export interface SequenceBatch {
  prompts: readonly (readonly number[])[];
  responses: readonly (readonly number[])[];
}

/** One entry per RESPONSE token, row after row. */
export interface TokenStatistics {
  logprob: Float32Array;
  entropy: Float32Array;
}

export interface StepOptions {
  lr: number;
  /** Default [0.9, 0.999]. */
  betas?: readonly [number, number];
  /** Default 1e-8. */
  eps?: number;
  /** Decoupled. Default 0.01. */
  weightDecay?: number;
  /** Global L2 norm clip; null or 0 = off. Default 1.0. */
  maxGradNorm?: number | null;
}

export interface StepReport {
  /** Global gradient norm before clipping. */
  gradNorm: number;
  /** false when the gradient was not finite: nothing was changed but the gradients were cleared. */
  applied: boolean;
  /**
   * Of a step that was not applied: the first gradient that is not finite, in the order of the backward pass (the head
   * first). null where all are finite, but too large for float32 moments (their norm, after clipping, 1e18 or more).
   */
  cause?: NonFinite | null;
}

/** Where NaN or Infinity was found first. */
export interface NonFinite {
  kind: 'weight' | 'hidden' | 'logits' | 'logprob' | 'entropy' | 'gradient' | 'moment';
  /** The Hugging Face name of a weight, gradient or moment; else a few words: "the hidden state after layer 3". */
  name: string;
  /** Of the element in its tensor; of hidden states and logits, within the row of their token. */
  index: number;
  /** NaN, Infinity or -Infinity. */
  value: number;
  /** Hidden states: the layer after which they are bad, from 0; null for the token embedding and everything else. */
  layer: number | null;
  /** Index of the row in the batch, and of the token in prompt + response; null for weights and gradients. */
  sequence: number | null;
  position: number | null;
  /** All of it in words: "model.norm.weight: element 3 is NaN". */
  text: string;
}

export interface FindNonFiniteOptions {
  /** Default 1. */
  temperature?: number;
  /** theta or theta'. Default 'policy'. */
  weights?: 'policy' | 'rollout';
  /** false: the base without its adapter. Default true. */
  adapter?: boolean;
  signal?: AbortSignal;
}

export interface ForgetOptions {
  /** The stage-1 entropies recorded while sampling, one per response token. */
  entropy: Float32Array;
  eta: number;
  /** Gate threshold in nats; Infinity opens every token (gate = 'always'). */
  alpha: number;
  window: number;
  epsLow: number;
  epsHigh: number;
  clampGrad: 'zero' | 'saturate';
  /**
   * What eta measures. 'none' (the paper): theta' - theta = eta grad L. 'gradNorm': eta grad L / ||grad L||, so that eta
   * is the length of the step. 'relative': eta ||theta|| grad L / ||grad L||, so that it is the length relative to that of
   * what is trained (all weights, or the adapter).
   */
  normalize: 'none' | 'gradNorm' | 'relative';
  /**
   * 'complementary' (default): Eq. 9. 'nll': -log p in its place, L = sum_t w_t I_t (-log p_t), ascended as well:
   * every open token is pushed down alike, a_t = -w_t I_t; nothing is clipped.
   */
  loss?: 'complementary' | 'nll';
  /**
   * How often a step is taken; default 1. Step k > 1 is taken from theta' of step k - 1, with the gradient there and its
   * own normalization; the gate stays that of `entropy`. From step to step theta' - theta is kept in float32.
   */
  steps?: number;
  /**
   * 'gradient' (default), or the control 'random': every step has the length it would have had, but a direction drawn
   * at random over all that is trained (Gaussian, keyed by seed, iteration, step and element; the same on any device).
   */
  direction?: 'gradient' | 'random';
  /**
   * d, from 0 to 1; default 0: theta' starts from theta. Above: theta'_i = theta_i + d (theta'_{i-1} - theta_{i-1}) +
   * eta grad L, the gradient of the first step at theta_i. What is kept is the difference before it is rounded, in
   * float32, of the newest iteration before `iteration`, so that an iteration can be made again; a step with d = 0 drops
   * it, `restoreWeights` too. Without an open token theta'_i = theta_i + d (theta'_{i-1} - theta_{i-1}).
   */
  memory?: number;
  temperature?: number;
  /** Response tokens whose log-prob is measured again under theta' for `stage1LogpDelta`. Default 256, 0 = none. */
  probeTokens?: number;
  /** Upper bound of tokens (prompt + response) in one micro-batch. Default 2048. */
  microBatchTokens?: number;
  /**
   * Type of theta' of a policy in bfloat16. 'same' (default): bfloat16, rounded stochastically, so that small steps
   * survive on average. 'float32': twice the memory, nothing is rounded away.
   */
  rolloutDtype?: 'same' | 'float32';
  /** Key of the stochastic rounding and of random directions, with `iteration`. Defaults 0. */
  seed?: number;
  iteration?: number;
  signal?: AbortSignal;
}

/** Bytes that a policy holds on its device, by purpose; 0 where nothing is allocated (yet). Activations not counted. */
export interface PolicyMemory {
  /** float32 weights that the optimizer steps; in float32 also what computes. */
  master: number;
  /** The copy that computes, where it is not the master: bfloat16 matrices; of a frozen policy all weights. */
  working: number;
  gradients: number;
  moments: number;
  /** theta', and theta' - theta where several steps are taken or it is remembered. */
  rollout: number;
}

export interface ForgetReport {
  /** L(O1) of Eq. 10, or of the loss in its place; as all counts and `gradNorm`, of the first step. */
  loss: number;
  /** Steps taken. */
  steps: number;
  tokens: number;
  openTokens: number;
  clampedLow: number;
  clampedHigh: number;
  activeTokens: number;
  gradNorm: number;
  /** ||theta' - theta|| / ||theta||, before rounding. */
  relativeStep: number;
  /** Share of parameters whose bits changed. */
  paramChangedFrac: number;
  /** Mean change of log-prob of the probed stage-1 tokens that the step acted on (active), theta' minus theta; NaN if none. */
  stage1LogpDelta: number;
  /** Why theta' equals theta after all, or null. */
  skipped: 'no-open-token' | 'non-finite' | null;
  /** With 'non-finite': the first gradient, weight of theta' or what comes of them; null where it is the loss itself. */
  cause?: NonFinite | null;
}

/** A policy that can be sampled, scored, trained and made to forget. */
export interface PolicyLike {
  readonly config: PolicyConfig;
  readonly device: 'cpu' | 'cuda';
  readonly numParameters: number;
  /** logprob[t] of ids[t+1] (length T-1), entropy[t] after ids[..t] (length T); natural log, temperature 1. */
  score(
    sequences: readonly (readonly number[])[],
    options?: { signal?: AbortSignal },
  ): Promise<{ logprob: Float32Array; entropy: Float32Array }[]>;
  generate(prompts: readonly (readonly number[])[], options: GenerateOptions): Promise<Generation[]>;
  /** Keeps the activations for `backward` unless keepActivations is false. */
  forward(batch: SequenceBatch, options?: ForwardOptions): Promise<TokenStatistics>;
  /**
   * Whether `forward` and `forget` keep only what goes into each layer; `backward` then computes the layer again, with
   * the same bits, for about a third more time and a fraction of the memory.
   */
  setGradientCheckpointing?(on: boolean): Promise<void>;
  /** The adapter alone, where there is one, in the format of PEFT. */
  saveAdapter?(dir: string): Promise<void>;
  /** Whether there is an adapter. */
  readonly adapter?: unknown;
  /** The model folder it was loaded from; null if there is none. */
  readonly folder?: string | null;
  /** Writes the optimizer's state to a file, for {@link loadOptimizer}. */
  saveOptimizer?(file: string): Promise<void>;
  /** Takes up the optimizer's state, which belongs to the weights of the same moment. */
  loadOptimizer?(file: string): Promise<void>;
  /** Puts saved weights (a folder of `save`, or of `saveAdapter` where there is an adapter) in the place of its own. */
  restoreWeights?(dir: string): Promise<void>;
  /** Accumulates gradients of sum_t (a_t l_t + b_t H_t) for the last forward. b null = zeros. */
  backward(a: Float32Array, b: Float32Array | null): Promise<void>;
  /** AdamW on the accumulated gradients, then clears them. */
  step(options: StepOptions): Promise<StepReport>;
  zeroGrad(): Promise<void>;
  /** Where the first number is that is not finite: weights, then what the batch passes through, gradients, moments. */
  findNonFinite?(batch: SequenceBatch | null, options?: FindNonFiniteOptions): Promise<NonFinite | null>;
  /** theta' = theta + eta grad L(O1), into the rollout copy. The policy's weights are not written. */
  forget(batch: SequenceBatch, options: ForgetOptions): Promise<ForgetReport>;
  /** theta' = theta again. */
  syncRollout(): Promise<void>;
  /** What `ForgetOptions.memory` keeps of the theta' of this iteration becomes nothing. */
  dropMemory?(iteration: number): Promise<void>;
  /** Writes what is kept of theta' at the end of this iteration to a file, for {@link loadMemory}. */
  saveMemory?(file: string, iteration: number): Promise<void>;
  /** Takes up what is kept of theta'; it belongs to the weights of the same moment. */
  loadMemory?(file: string): Promise<void>;
  gradients(): Promise<Map<string, Tensor>>;
  parameters(): Promise<Map<string, Tensor>>;
  /** A copy of the weights (no optimizer): a reference model. In bfloat16 it is frozen. */
  clone(): Promise<PolicyLike>;
  save(dir: string, options?: SaveOptions): Promise<void>;
  /** SHA-256 of the master weights, hex. */
  hash(): Promise<string>;
  dispose(): void;
}
