/**
 * A whole policy in plain TypeScript: a table of logits, one row per previous token. It keeps every promise of
 * {@link Policy} (recorded behaviour log-probs, random numbers by counter, theta' out of place, accumulated
 * gradients), so the rollout and the trainer can be tested exactly and without native code.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BusyError, InvalidArgumentError, UnsupportedError } from '../../lib/errors.js';
import type {
  ForgetOptions,
  ForgetReport,
  GenerateOptions,
  Generation,
  PolicyConfig,
  PolicyLike,
  SequenceBatch,
  StepOptions,
  StepReport,
  TokenStatistics,
} from '../../lib/policy.js';
import type { Tensor } from '../../lib/tensor.js';

/** A uniform number in [0, 1) from a counter: the same for the same key, whatever was drawn before. */
export function keyedUniform(...key: number[]): number {
  let h = 0x811c9dc5;
  for (const part of key) {
    h = Math.imul(h ^ part, 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    h ^= h >>> 16;
  }
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return ((h ^ (h >>> 15)) >>> 0) / 2 ** 32;
}

interface Row {
  probability: Float64Array;
  logProbability: Float64Array;
  entropy: number;
}

interface Step {
  context: number;
  token: number;
}

/** What a call of the policy was; tests read the list. */
export interface Call {
  method: string;
  rows?: number;
  tokens?: number;
  weights?: 'policy' | 'rollout';
}

export class FakePolicy implements PolicyLike {
  readonly device = 'cpu';
  readonly config: PolicyConfig;
  readonly calls: Call[] = [];
  theta: Float64Array;
  #rollout: Float64Array | null = null;
  #gradient: Float64Array;
  readonly #m: Float64Array;
  readonly #v: Float64Array;
  #steps = 0;
  #kept: { steps: Step[]; temperature: number } | null = null;
  #memory: { iteration: number; delta: Float64Array }[] = [];

  constructor(options: { vocabSize?: number; context?: number; seed?: number; scale?: number; eos?: number[] } = {}) {
    const { vocabSize = 11, context = 64, seed = 1, scale = 1.5, eos = [0] } = options;
    this.config = {
      modelType: 'llama',
      vocabSize,
      hiddenSize: vocabSize,
      intermediateSize: 1,
      numLayers: 1,
      numHeads: 1,
      numKeyValueHeads: 1,
      headDim: vocabSize,
      maxPositionEmbeddings: context,
      rmsNormEps: 1e-5,
      ropeTheta: 1e4,
      ropeScaling: null,
      tieWordEmbeddings: false,
      attentionBias: false,
      attentionOutputBias: false,
      qkNorm: false,
      eosTokenIds: eos,
      bosTokenId: null,
      padTokenId: null,
    };
    const size = vocabSize * vocabSize;
    this.theta = Float64Array.from({ length: size }, (_, i) => scale * 2 * (keyedUniform(seed, i) - 0.5));
    this.#gradient = new Float64Array(size);
    this.#m = new Float64Array(size);
    this.#v = new Float64Array(size);
  }

  get numParameters(): number {
    return this.theta.length;
  }

  #row(weights: Float64Array, context: number, temperature: number): Row {
    const v = this.config.vocabSize;
    const logits = Array.from(weights.subarray(context * v, (context + 1) * v), (z) => z / temperature);
    const top = Math.max(...logits);
    const logSum = top + Math.log(logits.reduce((sum, z) => sum + Math.exp(z - top), 0));
    const logProbability = Float64Array.from(logits, (z) => z - logSum);
    const probability = logProbability.map((l) => Math.exp(l));
    const entropy = -probability.reduce((sum, p, j) => sum + (p > 0 ? p * (logProbability[j] as number) : 0), 0);
    return { probability, logProbability, entropy };
  }

  #stepsOf(batch: SequenceBatch): Step[] {
    return batch.responses.flatMap((response, k) => {
      const prompt = batch.prompts[k] as readonly number[];
      return response.map((token, t) => ({
        context: (t === 0 ? prompt[prompt.length - 1] : response[t - 1]) as number,
        token,
      }));
    });
  }

  async score(sequences: readonly (readonly number[])[]): Promise<{ logprob: Float32Array; entropy: Float32Array }[]> {
    return sequences.map((ids) => {
      const rows = ids.map((id) => this.#row(this.theta, id, 1));
      return {
        logprob: Float32Array.from(ids.slice(1), (id, t) => (rows[t] as Row).logProbability[id] as number),
        entropy: Float32Array.from(rows, (row) => row.entropy),
      };
    });
  }

  async generate(prompts: readonly (readonly number[])[], options: GenerateOptions): Promise<Generation[]> {
    const { maxNewTokens, temperature = 1, samplesPerPrompt = 1, seed = 0, iteration = 0, sampleOffset = 0 } = options;
    const weights = options.weights === 'rollout' ? (this.#rollout ?? this.theta) : this.theta;
    const stop = options.stopTokens ?? this.config.eosTokenIds;
    options.signal?.throwIfAborted();
    this.calls.push({
      method: 'generate',
      rows: prompts.length * samplesPerPrompt,
      weights: options.weights ?? 'policy',
    });
    return prompts.flatMap((prompt, index) => {
      if (prompt.length + maxNewTokens > this.config.maxPositionEmbeddings) {
        throw new InvalidArgumentError(`prompts[${index}] and maxNewTokens do not fit into the context`);
      }
      const id = options.promptIds?.[index] ?? index;
      return Array.from({ length: samplesPerPrompt }, (_, s): Generation => {
        const tokens: number[] = [];
        const logprob: number[] = [];
        const entropy: number[] = [];
        let context = prompt[prompt.length - 1] as number;
        let finishReason: 'stop' | 'length' = 'length';
        while (tokens.length < maxNewTokens) {
          const row = this.#row(weights, context, temperature || 1);
          const u = keyedUniform(seed, iteration, id, s + sampleOffset, tokens.length);
          const token = temperature === 0 ? argmax(row.probability) : draw(row.probability, u);
          tokens.push(token);
          logprob.push(row.logProbability[token] as number);
          entropy.push(row.entropy);
          context = token;
          if (stop.includes(token)) {
            finishReason = 'stop';
            break;
          }
        }
        return {
          prompt: index,
          sample: s,
          tokens,
          logprob: Float32Array.from(logprob),
          entropy: Float32Array.from(entropy),
          finishReason,
        };
      });
    });
  }

  async forward(
    batch: SequenceBatch,
    options: { temperature?: number; keepActivations?: boolean } = {},
  ): Promise<TokenStatistics> {
    const temperature = options.temperature ?? 1;
    const steps = this.#stepsOf(batch);
    this.calls.push({ method: 'forward', rows: batch.responses.length, tokens: steps.length });
    const rows = steps.map((step) => this.#row(this.theta, step.context, temperature));
    if (options.keepActivations !== false) this.#kept = { steps, temperature };
    return {
      logprob: Float32Array.from(steps, (step, t) => (rows[t] as Row).logProbability[step.token] as number),
      entropy: Float32Array.from(rows, (row) => row.entropy),
    };
  }

  async backward(a: Float32Array, b: Float32Array | null): Promise<void> {
    if (this.#kept === null) throw new BusyError('backward needs a forward that kept its activations');
    this.calls.push({ method: 'backward', tokens: a.length });
    const { steps, temperature } = this.#kept;
    this.#kept = null;
    this.#accumulate(this.#gradient, steps, temperature, (t) => [a[t] as number, b === null ? 0 : (b[t] as number)]);
  }

  /** dL/dz_j = (1/tau) [a 1[j=y] - p_j (a + b (log p_j + H))]. */
  #accumulate(
    into: Float64Array,
    steps: Step[],
    temperature: number,
    ab: (t: number) => [number, number],
    weights: Float64Array = this.theta,
  ): void {
    const v = this.config.vocabSize;
    steps.forEach(({ context, token }, t) => {
      const [a, b] = ab(t);
      const { probability, logProbability, entropy } = this.#row(weights, context, temperature);
      for (let j = 0; j < v; j++) {
        const p = probability[j] as number;
        const own = j === token ? a : 0;
        const grad = (own - p * (a + b * ((logProbability[j] as number) + entropy))) / temperature;
        into[context * v + j] = (into[context * v + j] as number) + grad;
      }
    });
  }

  async step(options: StepOptions): Promise<StepReport> {
    const { lr, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01, maxGradNorm = 1 } = options;
    this.calls.push({ method: 'step' });
    const gradNorm = Math.sqrt(this.#gradient.reduce((sum, g) => sum + g * g, 0));
    const applied = Number.isFinite(gradNorm);
    if (applied) {
      const scale = maxGradNorm && gradNorm > maxGradNorm ? maxGradNorm / (gradNorm + 1e-6) : 1;
      this.#steps += 1;
      for (let i = 0; i < this.theta.length; i++) {
        const g = (this.#gradient[i] as number) * scale;
        const m = betas[0] * (this.#m[i] as number) + (1 - betas[0]) * g;
        const v = betas[1] * (this.#v[i] as number) + (1 - betas[1]) * g * g;
        this.#m[i] = m;
        this.#v[i] = v;
        const mHat = m / (1 - betas[0] ** this.#steps);
        const vHat = v / (1 - betas[1] ** this.#steps);
        const decayed = (this.theta[i] as number) * (1 - lr * weightDecay);
        this.theta[i] = decayed - (lr * mHat) / (Math.sqrt(vHat) + eps);
      }
    }
    this.#gradient.fill(0);
    return { gradNorm, applied };
  }

  async zeroGrad(): Promise<void> {
    this.#gradient.fill(0);
  }

  async forget(batch: SequenceBatch, options: ForgetOptions): Promise<ForgetReport> {
    this.calls.push({ method: 'forget', rows: batch.responses.length });
    if (this.#gradient.some((g) => g !== 0)) throw new BusyError('forget needs empty gradients');
    const temperature = options.temperature ?? 1;
    const steps = this.#stepsOf(batch);
    const rows = steps.map((step) => this.#row(this.theta, step.context, temperature));
    const weight: number[] = [];
    const open: boolean[] = [];
    let from = 0;
    for (const { length } of batch.responses) {
      for (let t = 0; t < length; t++) {
        weight.push(1 / (batch.responses.length * length));
        const window = options.entropy.subarray(from + Math.max(0, t + 1 - options.window), from + t + 1);
        open.push(window.reduce((sum, h) => sum + h, 0) / window.length < options.alpha);
      }
      from += length;
    }
    const { loss: kind = 'complementary', steps: count = 1, memory = 0, iteration = 0, seed = 0 } = options;
    const weigh = (weights: Float64Array) => {
      const rowsHere = steps.map((step) => this.#row(weights, step.context, temperature));
      const flags = { low: [] as boolean[], high: [] as boolean[], active: [] as boolean[] };
      let loss = 0;
      const a = steps.map((step, t) => {
        const p = (rowsHere[t] as Row).probability[step.token] as number;
        const clips = kind === 'complementary' && open[t] === true;
        flags.low.push(clips && p < options.epsLow);
        flags.high.push(clips && p > 1 - options.epsHigh);
        flags.active.push(open[t] === true && !flags.low[t] && !flags.high[t]);
        if (!open[t]) return 0;
        const w = weight[t] as number;
        if (kind === 'nll') {
          loss -= w * Math.log(p);
          return -w;
        }
        const clipped = Math.min(Math.max(p, options.epsLow), 1 - options.epsHigh);
        loss += w * Math.log1p(-clipped);
        const inside = flags.active[t] || options.clampGrad === 'saturate';
        return inside ? w * (-clipped / (1 - clipped)) : 0;
      });
      const gradient = new Float64Array(weights.length);
      this.#accumulate(gradient, steps, temperature, (t) => [a[t] as number, 0], weights);
      return { loss, gradient, ...flags };
    };
    const norm = (xs: Float64Array): number => Math.sqrt(xs.reduce((sum, x) => sum + x * x, 0));
    const last = this.#rememberedBefore(iteration);
    const delta = (last ?? new Float64Array(this.theta.length)).map((x) => memory * x);
    const first = weigh(this.theta);
    const { low, high, active } = first;
    for (let k = 0; k < count; k++) {
      const { gradient } = k === 0 ? first : weigh(this.theta.map((w, i) => w + (delta[i] as number)));
      const length = norm(gradient);
      if (length === 0) break;
      const per = { none: 1, gradNorm: 1 / length, relative: norm(this.theta) / length }[options.normalize];
      const random = gradient.map((_, i) => gaussian(seed, iteration, k, i));
      const direction = options.direction === 'random' ? random.map((r) => (r * length) / norm(random)) : gradient;
      for (let i = 0; i < delta.length; i++)
        delta[i] = (delta[i] as number) + options.eta * per * (direction[i] as number);
    }
    if (memory > 0) this.#keep(iteration, delta);
    else this.#memory = [];
    const rollout = this.theta.map((w, i) => w + (delta[i] as number));
    this.#rollout = rollout;
    const probed = steps.flatMap((step, t) => (active[t] ? [{ step, t }] : [])).slice(0, options.probeTokens ?? 1024);
    const changes = probed.map(({ step, t }) => {
      const after = this.#row(rollout, step.context, temperature).logProbability[step.token] as number;
      return after - ((rows[t] as Row).logProbability[step.token] as number);
    });
    const total = (flags: boolean[]): number => flags.filter(Boolean).length;
    const nothing = total(open) === 0 && delta.every((x) => x === 0);
    return {
      loss: first.loss,
      steps: total(open) === 0 ? 0 : count,
      tokens: steps.length,
      openTokens: total(open),
      clampedLow: total(low),
      clampedHigh: total(high),
      activeTokens: total(active),
      gradNorm: norm(first.gradient),
      relativeStep: norm(delta) / norm(this.theta),
      paramChangedFrac: rollout.reduce((sum, w, i) => sum + (w === this.theta[i] ? 0 : 1), 0) / rollout.length,
      stage1LogpDelta: changes.length === 0 ? Number.NaN : changes.reduce((sum, d) => sum + d, 0) / changes.length,
      skipped: nothing ? 'no-open-token' : null,
    };
  }

  /** theta' - theta of the newest iteration before this one. */
  #rememberedBefore(iteration: number): Float64Array | undefined {
    return this.#memory.filter((one) => one.iteration < iteration).at(-1)?.delta;
  }

  #keep(iteration: number, delta: Float64Array): void {
    this.#memory = [...this.#memory.filter((one) => one.iteration < iteration), { iteration, delta }];
  }

  async dropMemory(iteration: number): Promise<void> {
    this.calls.push({ method: 'dropMemory' });
    this.#keep(iteration, new Float64Array(this.theta.length));
  }

  async syncRollout(): Promise<void> {
    this.calls.push({ method: 'syncRollout' });
    this.#rollout = null;
  }

  gradients(): Promise<Map<string, Tensor>> {
    return Promise.reject(new UnsupportedError('the table policy has no tensors'));
  }

  parameters(): Promise<Map<string, Tensor>> {
    return Promise.reject(new UnsupportedError('the table policy has no tensors'));
  }

  async clone(): Promise<PolicyLike> {
    this.calls.push({ method: 'clone' });
    const copy = new FakePolicy({ vocabSize: this.config.vocabSize, context: this.config.maxPositionEmbeddings });
    copy.theta = this.theta.slice();
    return copy;
  }

  async save(dir: string): Promise<void> {
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, 'table.json'), JSON.stringify(Array.from(this.theta)));
  }

  async hash(): Promise<string> {
    return createHash('sha256').update(new Uint8Array(this.theta.buffer)).digest('hex');
  }

  dispose(): void {}
}

/** N(0, 1) from a counter. */
function gaussian(...key: number[]): number {
  const u = 1 - keyedUniform(...key, 0);
  return Math.sqrt(-2 * Math.log(u)) * Math.cos(2 * Math.PI * keyedUniform(...key, 1));
}

function argmax(values: Float64Array): number {
  return values.reduce((best, value, i) => (value > (values[best] as number) ? i : best), 0);
}

function draw(probability: Float64Array, u: number): number {
  let sum = 0;
  for (let j = 0; j < probability.length; j++) {
    sum += probability[j] as number;
    if (u < sum) return j;
  }
  return probability.length - 1;
}
