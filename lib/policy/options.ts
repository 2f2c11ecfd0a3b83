/** The keys of a policy's options, each beside its type. */
import type { SaveOptions } from '../checkpoint-writer.js';
import { HUB_KEYS } from '../hub/settings.js';
import { type OptionKeys, SIGNAL } from '../options.js';
import type {
  CreateOptions,
  FindNonFiniteOptions,
  ForgetOptions,
  ForwardOptions,
  GenerateOptions,
  LoadOptions,
  SequenceBatch,
  StepOptions,
} from '../policy-types.js';

const MODEL = {
  device: true,
  dtype: true,
  trainable: true,
  lora: true,
  adapter: true,
  gradientCheckpointing: true,
} as const;

export const LOAD: OptionKeys<LoadOptions> = { ...HUB_KEYS, ...MODEL };
export const CREATE: OptionKeys<CreateOptions> = { ...MODEL, seed: true, companions: true };
export const FORWARD: OptionKeys<ForwardOptions> = {
  temperature: true,
  keepActivations: true,
  adapter: true,
  ...SIGNAL,
};
export const FIND_NON_FINITE: OptionKeys<FindNonFiniteOptions> = {
  temperature: true,
  weights: true,
  adapter: true,
  ...SIGNAL,
};
export const BATCH: OptionKeys<SequenceBatch> = { prompts: true, responses: true };
export const SAVE: OptionKeys<SaveOptions> = { dtype: true, maxShardBytes: true, ...SIGNAL };
export const STEP: OptionKeys<StepOptions> = {
  lr: true,
  betas: true,
  eps: true,
  weightDecay: true,
  maxGradNorm: true,
};
export const GENERATE: OptionKeys<GenerateOptions> = {
  maxNewTokens: true,
  temperature: true,
  topK: true,
  topP: true,
  samplesPerPrompt: true,
  seed: true,
  iteration: true,
  promptIds: true,
  sampleOffset: true,
  stopTokens: true,
  maxRows: true,
  cacheTokens: true,
  weights: true,
  onProgress: true,
  ...SIGNAL,
};
/** How an unlearning step is made: of `forget` and of a rollout alike. */
export const UNLEARNING_STEP = {
  eta: true,
  epsLow: true,
  epsHigh: true,
  clampGrad: true,
  normalize: true,
  loss: true,
  steps: true,
  direction: true,
  memory: true,
  probeTokens: true,
  microBatchTokens: true,
  rolloutDtype: true,
} as const;
export const FORGET: OptionKeys<ForgetOptions> = {
  ...UNLEARNING_STEP,
  entropy: true,
  alpha: true,
  window: true,
  temperature: true,
  seed: true,
  iteration: true,
  ...SIGNAL,
};
