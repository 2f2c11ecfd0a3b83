/** What the addon's model can do: the JavaScript side of native/node/model_binding.cc. */
import type { PolicyConfig } from './config-json.js';
import type {
  ForgetReport,
  NonFinite,
  PolicyMemory,
  StepReport,
  TokenStatistics,
  WeightDType,
} from './policy-types.js';
import type { NativeTensor, TensorDevice } from './tensor.js';

/** native/node/model_binding.cc. */
export interface NativeModel {
  readonly numParameters: number;
  readonly numTrainable: number;
  /** Every parameter, in the order of a checkpoint. */
  readonly layout: { name: string; shape: number[] }[];
  memory(): Promise<PolicyMemory>;
  score(ids: Int32Array, lengths: Int32Array, microBatchTokens: number, signal?: AbortSignal): Promise<TokenStatistics>;
  logits(ids: Int32Array, signal?: AbortSignal): Promise<NativeTensor>;
  generate(
    ids: Int32Array,
    lengths: Int32Array,
    options: Record<string, unknown>,
    signal?: AbortSignal,
    onProgress?: (tokens: number, running: number) => void,
  ): Promise<{
    tokens: Int32Array;
    lengths: Int32Array;
    logprob: Float32Array;
    entropy: Float32Array;
    stopped: Uint8Array;
  }>;
  forward(
    ids: Int32Array,
    lengths: Int32Array,
    promptLengths: Int32Array,
    temperature: number,
    keep: boolean,
    signal: AbortSignal | undefined,
    /** Without the adapter. */
    base: boolean,
  ): Promise<TokenStatistics>;
  backward(a: Float32Array, b: Float32Array | null): Promise<void>;
  step(options: Record<string, number>): Promise<StepReport>;
  zeroGrad(): Promise<void>;
  /** Without a batch (null, null, null): weights, gradients and moments. */
  findNonFinite(
    ids: Int32Array | null,
    lengths: Int32Array | null,
    promptLengths: Int32Array | null,
    temperature: number,
    rollout: boolean,
    base: boolean,
    signal: AbortSignal | undefined,
  ): Promise<NonFinite | null>;
  forget(
    ids: Int32Array,
    lengths: Int32Array,
    promptLengths: Int32Array,
    entropy: Float32Array,
    options: Record<string, unknown>,
    signal?: AbortSignal,
  ): Promise<ForgetReport>;
  syncRollout(): Promise<void>;
  dropMemory(iteration: number): Promise<void>;
  saveMemory(path: string, iteration: number): Promise<void>;
  loadMemory(path: string): Promise<void>;
  gradients(): Promise<[string, NativeTensor][]>;
  parameters(): Promise<[string, NativeTensor][]>;
  clone(): Promise<NativeModel>;
  save(files: { path: string; names: string[] }[], dtype: WeightDType, signal?: AbortSignal): Promise<void>;
  saveAdapter(path: string): Promise<void>;
  restoreAdapter(path: string): Promise<void>;
  restore(paths: string[]): Promise<void>;
  saveOptimizer(path: string): Promise<void>;
  loadOptimizer(path: string): Promise<void>;
  setGradientCheckpointing(on: boolean): Promise<void>;
  dispose(): void;
}

export interface NativeModelOptions {
  dtype: WeightDType;
  trainable: boolean;
  /** On a frozen model. */
  adapter: NativeAdapterOptions | null;
}

export interface NativeAdapterOptions {
  rank: number;
  scale: number;
  targets: readonly string[];
  seed: number;
  /** File of the numbers; null: a new adapter. */
  path: string | null;
}

declare module './native.js' {
  interface NativeAddon {
    loadModel(
      config: PolicyConfig,
      paths: string[],
      signal: AbortSignal | undefined,
      device: TensorDevice,
      options: NativeModelOptions,
      onProgress?: (done: number, total: number) => void,
    ): Promise<NativeModel>;
    createModel(
      config: PolicyConfig,
      seed: number,
      device: TensorDevice,
      options: NativeModelOptions,
    ): Promise<NativeModel>;
  }
}
