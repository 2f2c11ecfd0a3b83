/** A language model that can be scored, sampled, trained and made to forget: the native decoder's TypeScript face. */
import { createHash } from 'node:crypto';
import { type Lora, writeAdapter } from './adapter.js';
import { type SaveOptions, writeCheckpoint } from './checkpoint-writer.js';
import { normalizeConfig, type PolicyConfig, readConfig } from './config-json.js';
import { DisposedError, InvalidArgumentError, UnsupportedError } from './errors.js';
import { modelFolder } from './hub/index.js';
import { weightFiles } from './model-folder.js';
import { callNative, loadNative } from './native.js';
import type { NativeModel } from './native-model.js';
import { checkOptions, choice, describe, SIGNAL } from './options.js';
import { adamwArguments } from './policy/adamw.js';
import { packBatch, packSequences, temperatureOf, wholeNumber } from './policy/arguments.js';
import { requireFolder, sameAdapter } from './policy/files.js';
import { forgetArguments } from './policy/forget.js';
import { generateArguments, toGenerations } from './policy/generate.js';
import { modelOptions, type PolicyKind } from './policy/kind.js';
import { CREATE, FIND_NON_FINITE, FORGET, FORWARD, GENERATE, LOAD, SAVE, STEP } from './policy/options.js';
import type {
  CreateOptions,
  FindNonFiniteOptions,
  ForgetOptions,
  ForgetReport,
  ForwardOptions,
  GenerateOptions,
  Generation,
  LoadOptions,
  NonFinite,
  PolicyLike,
  PolicyMemory,
  SequenceBatch,
  StepOptions,
  StepReport,
  TokenStatistics,
  WeightDType,
} from './policy-types.js';
import { type NativeTensor, requireDevice, type Tensor, type TensorDevice, wrapTensor } from './tensor.js';

/** Tokens (prompt + response) that one `score` pass holds at a time. */
const scoreMicroBatchTokens = 2048;

/**
 * A causal language model (`qwen2`, `qwen3` or `llama`) on its device, with its gradients, optimizer state and the
 * rollout copy theta' of EEPO. All computation runs on the device's own thread; every method that computes is async.
 *
 * ```ts
 * const policy = await Policy.load('models/countdown');
 * const [sample] = await policy.generate([[5, 7, 9]], { maxNewTokens: 8 });
 * policy.dispose();
 * ```
 */
export class Policy implements PolicyLike {
  readonly config: PolicyConfig;
  /** Where its weights are and where it computes. */
  readonly device: TensorDevice;
  /** Parameters of the model; an adapter's are not among them. */
  readonly numParameters: number;
  /** How many of them are trained: all, none, or those of the adapter. */
  readonly numTrainable: number;
  /** The low-rank adapter that is trained in place of the weights; null without one. */
  readonly adapter: Readonly<Lora> | null;
  /** What its matrices are kept in. */
  readonly dtype: WeightDType;
  /** false: it can be scored and sampled, not trained. */
  readonly trainable: boolean;
  #model: NativeModel | null;
  /** config.json as it was read, written back by save(). */
  readonly #raw: Record<string, unknown>;
  /** Where the companion files (tokenizer, generation config) come from; null for a model made from scratch. */
  readonly #source: string | null;

  private constructor(
    model: NativeModel,
    device: TensorDevice,
    config: PolicyConfig,
    raw: Record<string, unknown>,
    source: string | null,
    { dtype, trainable, lora }: PolicyKind,
  ) {
    this.dtype = dtype;
    this.trainable = trainable;
    this.adapter = lora;
    this.#model = model;
    this.device = device;
    this.config = config;
    this.numParameters = model.numParameters;
    this.numTrainable = model.numTrainable;
    this.#raw = raw;
    this.#source = source;
  }

  /**
   * Loads a model in Hugging Face layout: config.json and model.safetensors, or shards with
   * model.safetensors.index.json. float32, bfloat16 and float16 files become `dtype`.
   *
   * @param model - a folder, or `owner/name` on the Hugging Face hub, which is downloaded into the cache where it is
   *   not there yet (docs/models.md). A folder that exists wins; `./name` is never the hub.
   * @throws InvalidFileError naming the file (and tensor) that is missing or broken; UnsupportedError naming an
   *   architecture, option, device or dtype this build does not have; HubError where a download fails.
   */
  static async load(model: string, options: LoadOptions = {}): Promise<Policy> {
    checkOptions(options, LOAD, 'Policy.load');
    const { device: where, dtype: _d, trainable: _t, lora: _l, adapter: _a, gradientCheckpointing, ...hub } = options;
    const { kind, native: nativeOptions } = await modelOptions(options);
    const device = requireDevice(where);
    const dir = await modelFolder(model, hub);
    const { config, raw } = await readConfig(dir);
    const paths = await weightFiles(dir);
    const { signal, onProgress } = options;
    const progress = onProgress && ((done: number, total: number) => onProgress({ phase: 'load', model, done, total }));
    const native = await callNative(() =>
      loadNative().loadModel(config, paths, signal, device, nativeOptions, progress),
    );
    if (gradientCheckpointing) await native.setGradientCheckpointing(true);
    return new Policy(native, device, config, raw, dir, kind);
  }

  /**
   * A model with random weights: matrices N(0, 0.02^2), norms 1, biases 0.
   *
   * @param configJson the content of a config.json (the same checks as for a file).
   * @param options.seed of the weights; default 0. `companions`: a folder whose tokenizer files save() copies.
   */
  static async create(configJson: Record<string, unknown>, options: CreateOptions = {}): Promise<Policy> {
    checkOptions(options, CREATE, 'Policy.create');
    const { kind, native } = await modelOptions(options);
    const device = requireDevice(options.device);
    const config = normalizeConfig(configJson, 'configJson');
    const seed = wholeNumber(options.seed ?? 0, 'seed', 0);
    const model = await callNative(() => loadNative().createModel(config, seed, device, native));
    if (options.gradientCheckpointing) await model.setGradientCheckpointing(true);
    return new Policy(model, device, config, configJson, options.companions ?? null, kind);
  }

  /** The model folder it was loaded from (or made with, `companions`): where its tokenizer is. null if there is none. */
  get folder(): string | null {
    return this.#source;
  }

  get #native(): NativeModel {
    if (!this.#model) throw new DisposedError('the policy was disposed; do not use it after dispose()');
    return this.#model;
  }

  /**
   * Log-probabilities and entropies (natural log, temperature 1) of given sequences.
   *
   * @param sequences token ids, each of length T from 1 to the context.
   * @returns per sequence `logprob` (T-1: logprob[t] of ids[t+1] given ids[..t]) and `entropy` (T: after ids[..t]).
   */
  async score(
    sequences: readonly (readonly number[])[],
    options: { signal?: AbortSignal } = {},
  ): Promise<{ logprob: Float32Array; entropy: Float32Array }[]> {
    const native = this.#native;
    checkOptions(options, SIGNAL, 'policy.score');
    const { ids, lengths } = packSequences(this.config, sequences, 'sequences');
    if (lengths.length === 0) return [];
    const flat = await callNative(() => native.score(ids, lengths, scoreMicroBatchTokens, options.signal));
    let at = 0;
    return Array.from(lengths, (length, s) => {
      const entropy = flat.entropy.slice(at, at + length);
      // every sequence before this one has one log-prob fewer than tokens
      const logprob = flat.logprob.slice(at - s, at - s + length - 1);
      at += length;
      return { logprob, entropy };
    });
  }

  /**
   * The logits after every position of one sequence, [T, vocabSize] float32: for inspection and tests (T x V floats).
   */
  async logits(ids: readonly number[], options: { signal?: AbortSignal } = {}): Promise<Tensor<'float32'>> {
    const native = this.#native;
    checkOptions(options, SIGNAL, 'policy.logits');
    const packed = packSequences(this.config, [ids], 'ids');
    return wrapTensor<'float32'>(await callNative(() => native.logits(packed.ids, options.signal)));
  }

  /**
   * Samples responses. Each prompt is computed once for all its samples; finished rows leave the batch. The token at
   * position t of sample s of prompt p is drawn with a random number keyed by (seed, iteration, prompt id, s, t), and the
   * arithmetic of a row does not depend on the rows beside it: a response is the same whatever it is batched with.
   *
   * @returns prompts.length x samplesPerPrompt samples, prompt-major.
   * @throws InvalidArgumentError naming the prompt that is empty or, with maxNewTokens, exceeds the context.
   */
  async generate(prompts: readonly (readonly number[])[], options: GenerateOptions): Promise<Generation[]> {
    const native = this.#native;
    if (!Array.isArray(prompts))
      throw new InvalidArgumentError(`prompts must be arrays of token ids, got ${describe(prompts)}`);
    checkOptions(options, GENERATE, 'policy.generate');
    const { ids, lengths, settings } = generateArguments(this.config, prompts, options);
    const { signal, onProgress } = options;
    const result = await callNative(() =>
      native.generate(
        ids,
        lengths,
        settings,
        signal,
        onProgress && ((tokens, running) => onProgress({ tokens, running })),
      ),
    );
    return toGenerations(result, settings.samplesPerPrompt);
  }

  /**
   * Log-probability and entropy of every response token, at `temperature` (default 1). Keeps the activations for one
   * `backward` unless `keepActivations` is false. `adapter: false` asks the base of a policy with an adapter, which
   * keeps no activations: a reference model that costs no memory.
   */
  async forward(batch: SequenceBatch, options: ForwardOptions = {}): Promise<TokenStatistics> {
    const native = this.#native;
    checkOptions(options, FORWARD, 'policy.forward');
    const { keepActivations = true, adapter = true } = options;
    if (!adapter && keepActivations) {
      throw new InvalidArgumentError('adapter: false needs keepActivations: false, as the base cannot be trained');
    }
    const { ids, lengths, promptLengths } = packBatch(this.config, batch);
    const temperature = temperatureOf(options.temperature, false);
    return callNative(() =>
      native.forward(ids, lengths, promptLengths, temperature, keepActivations, options.signal, !adapter),
    );
  }

  /**
   * Adds the gradient of sum_t (a_t l_t + b_t H_t) over the response tokens of the last `forward` to the gradient of
   * every parameter: a = dL/dl, b = dL/dH of any loss. `b` null means zeros.
   *
   * @throws InvalidArgumentError for the wrong length; BusyError without a forward to go back through.
   */
  async backward(a: Float32Array, b: Float32Array | null = null): Promise<void> {
    const native = this.#native;
    for (const [name, values] of [['a', a] as const, ['b', b] as const]) {
      if (values !== null && !(values instanceof Float32Array)) {
        throw new InvalidArgumentError(`${name} must be a Float32Array with one entry per response token`);
      }
    }
    await callNative(() => native.backward(a, b));
  }

  /**
   * One AdamW step (decoupled weight decay, as in PyTorch) on the accumulated gradients, which are cleared. A gradient
   * that is not finite changes nothing, weights, moments and the count of steps keep their bits: `applied` is false, and
   * `cause` names the gradient.
   */
  async step(options: StepOptions): Promise<StepReport> {
    const native = this.#native;
    checkOptions(options, STEP, 'policy.step');
    const values = adamwArguments(options);
    return callNative(() => native.step(values));
  }

  /**
   * The first tensor with NaN or Infinity, in the order of computation: a weight (by its Hugging Face name), then what
   * the responses of the batch pass through, row by row (the hidden state after each layer, the logits, the log-prob),
   * then accumulated gradients (the head first) and the optimizer's moments. null where everything is finite. It looks
   * at everything and computes the batch again: a call for when something went wrong.
   *
   *     const found = await policy.findNonFinite({ prompts: [[1, 2]], responses: [[3, 4]] });
   *     if (found) console.error(found.text); // model.layers.1.mlp.down_proj.weight: element 3 is NaN
   *
   * @param batch null: weights, gradients and moments alone
   */
  async findNonFinite(
    batch: SequenceBatch | null = null,
    options: FindNonFiniteOptions = {},
  ): Promise<NonFinite | null> {
    const native = this.#native;
    checkOptions(options, FIND_NON_FINITE, 'policy.findNonFinite');
    const { adapter = true } = options;
    const weights = choice(options.weights, 'weights', ['policy', 'rollout']);
    const packed = batch === null ? null : packBatch(this.config, batch);
    const temperature = temperatureOf(options.temperature, false);
    return callNative(() =>
      native.findNonFinite(
        packed?.ids ?? null,
        packed?.lengths ?? null,
        packed?.promptLengths ?? null,
        temperature,
        weights === 'rollout',
        !adapter,
        options.signal,
      ),
    );
  }

  /** Clears the accumulated gradients. */
  async zeroGrad(): Promise<void> {
    const native = this.#native;
    await callNative(() => native.zeroGrad());
  }

  /**
   * The temporary unlearning step (Eq. 4-11): theta' = theta + eta grad L(O1), into the rollout copy that
   * `generate({ weights: 'rollout' })` samples from until `syncRollout()`. The policy's own weights, gradients and
   * optimizer state are not changed; two calls do not accumulate.
   *
   * @throws BusyError while gradients of a `backward` are waiting for `step` or `zeroGrad`.
   */
  async forget(batch: SequenceBatch, options: ForgetOptions): Promise<ForgetReport> {
    const native = this.#native;
    checkOptions(options, FORGET, 'policy.forget');
    const { ids, lengths, promptLengths } = packBatch(this.config, batch);
    const settings = forgetArguments(options, this.dtype);
    return callNative(() => native.forget(ids, lengths, promptLengths, options.entropy, settings, options.signal));
  }

  /** theta' = theta again: the rollout copy is dropped. */
  async syncRollout(): Promise<void> {
    const native = this.#native;
    await callNative(() => native.syncRollout());
  }

  /** What `forget` with `memory` keeps of the theta' of this iteration becomes nothing. */
  async dropMemory(iteration: number): Promise<void> {
    const native = this.#native;
    const at = wholeNumber(iteration, 'iteration', 0);
    await callNative(() => native.dropMemory(at));
  }

  /**
   * Writes what `forget` with `memory` keeps at the end of this iteration: theta' - theta in float32 by parameter name
   * (`<name>.delta`) and the `iteration` of the step, in safetensors; where nothing is kept, only `iteration` 0.
   *
   * @param file is written beside its name, synced and renamed.
   * @throws UnsupportedError for a frozen policy; InvalidFileError when the disk is full.
   */
  async saveMemory(file: string, iteration: number): Promise<void> {
    const native = this.#native;
    const at = wholeNumber(iteration, 'iteration', 0);
    await callNative(() => native.saveMemory(file, at));
  }

  /**
   * Takes up what `saveMemory()` wrote, after `restoreWeights()`, which drops what is kept. A file that is refused
   * changes nothing.
   *
   * @throws InvalidFileError naming the tensor that is missing, one too many, or has another shape, type or values.
   */
  async loadMemory(file: string): Promise<void> {
    const native = this.#native;
    await callNative(() => native.loadMemory(file));
  }

  /**
   * Whether `forward` and `forget` keep only what goes into each layer, layers x tokens x hiddenSize floats. `backward`
   * then computes each layer again before it goes back through it: the same bits, for about a third more time.
   */
  async setGradientCheckpointing(on: boolean): Promise<void> {
    const native = this.#native;
    await callNative(() => native.setGradientCheckpointing(on));
  }

  /**
   * Copies of the accumulated gradients by Hugging Face parameter name; zeros before the first `backward`. With an
   * adapter: of the adapter, by the names of PEFT's files.
   */
  async gradients(): Promise<Map<string, Tensor>> {
    const native = this.#native;
    return named(await callNative(() => native.gradients()));
  }

  /**
   * Copies of the weights by Hugging Face parameter name, in float32: of the master copy, or of what a frozen policy
   * has. A tied head is not listed twice. With an adapter: its A and B alone, by the names of PEFT's files.
   */
  async parameters(): Promise<Map<string, Tensor>> {
    const native = this.#native;
    return named(await callNative(() => native.parameters()));
  }

  /** What it holds on its device. */
  async memory(): Promise<PolicyMemory> {
    const native = this.#native;
    return callNative(() => native.memory());
  }

  /**
   * A copy of the weights alone (no gradients, no optimizer state): a reference model. That of a policy in bfloat16 is
   * frozen; that of one in float32 can be trained if its original can. With an adapter only that is copied; the base
   * is shared.
   */
  async clone(): Promise<Policy> {
    const native = this.#native;
    const model = await callNative(() => native.clone());
    const { dtype } = this;
    const trainable = this.trainable && (dtype === 'float32' || this.adapter !== null);
    return new Policy(model, this.device, this.config, this.#raw, this.#source, {
      dtype,
      trainable,
      lora: this.adapter,
    });
  }

  /**
   * Writes a folder that transformers loads: config.json, the weights in safetensors (one file, or several with an index
   * above 5 GB) and the tokenizer and generation files of the folder the policy came from. Everything is written beside
   * its place first and then renamed: a save that fails leaves what was there. An adapter is merged into the weights.
   *
   * @throws InvalidArgumentError for a folder that cannot be made; InvalidFileError when the disk is full.
   */
  async save(dir: string, options: SaveOptions = {}): Promise<void> {
    const native = this.#native;
    checkOptions(options, SAVE, 'policy.save');
    requireFolder(dir);
    await writeCheckpoint(
      dir,
      {
        layout: native.layout,
        write: (files, dtype, signal) => callNative(() => native.save(files, dtype, signal)),
        config: this.config,
        raw: this.#raw,
        companions: this.#source,
      },
      options,
    );
  }

  /**
   * Writes the adapter alone: adapter_config.json and adapter_model.safetensors, as PEFT reads them.
   *
   * @throws UnsupportedError without an adapter; InvalidArgumentError for a folder that cannot be made.
   */
  async saveAdapter(dir: string): Promise<void> {
    const native = this.#native;
    requireFolder(dir);
    if (!this.adapter) throw new UnsupportedError('this policy has no adapter to save; save() writes the whole model');
    await writeAdapter(dir, this.adapter, this.#source, (path) => callNative(() => native.saveAdapter(path)));
  }

  /**
   * Writes the state of the optimizer: the two moments of AdamW in float32 by parameter name (`<name>.exp_avg`,
   * `<name>.exp_avg_sq`) and the number of its steps (`step`), in safetensors. Before the first step that is 0 and no
   * moments. With the weights of `save()` (or `saveAdapter()`) it is all that training goes on from.
   *
   * @param file is written beside its name, synced and renamed.
   * @throws UnsupportedError for a frozen policy; InvalidFileError when the disk is full.
   */
  async saveOptimizer(file: string): Promise<void> {
    const native = this.#native;
    await callNative(() => native.saveOptimizer(file));
  }

  /**
   * Takes up what `saveOptimizer()` wrote. A file that is refused changes nothing.
   *
   * @throws InvalidFileError naming the tensor that is missing, one too many, or has another shape, type or values than
   *   the moments of this policy can have.
   */
  async loadOptimizer(file: string): Promise<void> {
    const native = this.#native;
    await callNative(() => native.loadOptimizer(file));
  }

  /**
   * Puts saved weights in the place of this policy's, bit for bit where they were saved in float32: those of a folder of
   * `save()`, or the adapter of a folder of `saveAdapter()` for a policy with one. Gradients, theta' and the optimizer's
   * state are dropped; `loadOptimizer()` goes after.
   *
   * @throws InvalidFileError naming what does not fit this policy; its weights are then unchanged, unless the file breaks
   *   off while it is read. UnsupportedError for a frozen policy.
   */
  async restoreWeights(dir: string): Promise<void> {
    const native = this.#native;
    if (this.adapter === null) {
      const paths = await weightFiles(dir);
      return callNative(() => native.restore(paths));
    }
    const weights = await sameAdapter(dir, this.adapter);
    return callNative(() => native.restoreAdapter(weights));
  }

  /**
   * SHA-256 of what is trained: the master weights, or the adapter (of a frozen policy: its weights, widened), hex:
   * equal for equal bytes.
   */
  async hash(): Promise<string> {
    const hash = createHash('sha256');
    for (const [name, tensor] of await this.parameters()) {
      const data = await tensor.data();
      hash.update(name).update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      tensor.dispose();
    }
    return hash.digest('hex');
  }

  /** Frees the model. Idempotent; work already queued finishes. Every later call throws DisposedError. */
  dispose(): void {
    this.#model?.dispose();
    this.#model = null;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function named(list: [string, NativeTensor][]): Map<string, Tensor> {
  return new Map(list.map(([name, native]) => [name, wrapTensor<'float32'>(native)]));
}

export type * from './policy-types.js';
export type { PolicyConfig, SaveOptions };
