/**
 * The decoder of qwen2, qwen3 and llama in plain double-precision TypeScript, written from the models' equations and
 * sharing nothing with the native one: what that is compared with. Slow; for tiny models.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { normalizeConfig, type PolicyConfig } from '../../lib/config-json.js';
import type { Policy } from '../../lib/policy.js';

export type Weights = Map<string, { shape: number[]; data: Float64Array }>;

/** The weights of a policy, by name. */
export async function weightsOf(policy: Policy): Promise<Weights> {
  const weights: Weights = new Map();
  for (const [name, tensor] of await policy.parameters()) {
    weights.set(name, { shape: [...tensor.shape], data: Float64Array.from(await tensor.data()) });
    tensor.dispose();
  }
  return weights;
}

/** Writes config.json and model.safetensors (float32). */
export async function writeModel(dir: string, config: object, weights: Weights): Promise<void> {
  const header: Record<string, unknown> = {};
  const parts: Buffer[] = [];
  let at = 0;
  for (const [name, { shape, data }] of weights) {
    const bytes = Buffer.from(Float32Array.from(data).buffer);
    header[name] = { dtype: 'F32', shape, data_offsets: [at, at + bytes.length] };
    at += bytes.length;
    parts.push(bytes);
  }
  const json = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(json.length));
  await writeFile(join(dir, 'config.json'), JSON.stringify(config));
  await writeFile(join(dir, 'model.safetensors'), Buffer.concat([size, json, ...parts]));
}

export class ReferenceDecoder {
  readonly config: PolicyConfig;
  readonly weights: Weights;

  constructor(configJson: object, weights: Weights) {
    this.config = normalizeConfig(configJson);
    this.weights = weights;
  }

  /** [T][vocab] logits after every position. */
  logits(ids: readonly number[]): number[][] {
    const { numLayers, hiddenSize, rmsNormEps, tieWordEmbeddings } = this.config;
    const embedding = this.#get('model.embed_tokens.weight');
    let x = ids.map((id) => Array.from(embedding.subarray(id * hiddenSize, (id + 1) * hiddenSize)));
    for (let l = 0; l < numLayers; l++) {
      const layer = `model.layers.${l}.`;
      const attended = this.#attention(
        layer,
        x.map((row) => rmsNorm(row, this.#get(`${layer}input_layernorm.weight`), rmsNormEps)),
      );
      x = x.map((row, t) => add(row, attended[t] as number[]));
      x = x.map((row) => {
        const normed = rmsNorm(row, this.#get(`${layer}post_attention_layernorm.weight`), rmsNormEps);
        const gate = this.#linear(`${layer}mlp.gate_proj`, normed);
        const up = this.#linear(`${layer}mlp.up_proj`, normed);
        const product = gate.map((g, i) => (g / (1 + Math.exp(-g))) * (up[i] as number));
        return add(row, this.#linear(`${layer}mlp.down_proj`, product));
      });
    }
    const head = tieWordEmbeddings ? 'model.embed_tokens' : 'lm_head';
    return x.map((row) => this.#linear(head, rmsNorm(row, this.#get('model.norm.weight'), rmsNormEps)));
  }

  /** sum_t a_t log p_t + b_t H_t over the response's tokens. */
  objective(prompt: number[], response: number[], a: ArrayLike<number>, b: ArrayLike<number>, temperature: number) {
    const logits = this.logits([...prompt, ...response]);
    return response.reduce((total, token, t) => {
      const { logprobs, entropy } = distribution(logits[prompt.length + t - 1] as number[], temperature);
      return total + (a[t] as number) * (logprobs[token] as number) + (b[t] as number) * entropy;
    }, 0);
  }

  #attention(layer: string, normed: number[][]): number[][] {
    const { numHeads, numKeyValueHeads, headDim, qkNorm, rmsNormEps } = this.config;
    const heads = (kind: string, count: number) =>
      normed.map((row, position) => {
        const flat = this.#linear(`${layer}self_attn.${kind}_proj`, row);
        return Array.from({ length: count }, (_, h) => {
          let head = flat.slice(h * headDim, (h + 1) * headDim);
          if (kind === 'v') return head;
          if (qkNorm) head = rmsNorm(head, this.#get(`${layer}self_attn.${kind}_norm.weight`), rmsNormEps);
          return this.#rotate(head, position);
        });
      });
    const q = heads('q', numHeads);
    const k = heads('k', numKeyValueHeads);
    const v = heads('v', numKeyValueHeads);
    return normed.map((_, t) => {
      const mixed = Array.from({ length: numHeads }, (_, h) => {
        const group = Math.floor(h / (numHeads / numKeyValueHeads));
        const query = q[t]?.[h] as number[];
        const scores = k.slice(0, t + 1).map((keys) => dot(query, keys[group] as number[]) / Math.sqrt(headDim));
        const { logprobs } = distribution(scores, 1);
        return Array.from({ length: headDim }, (_, d) =>
          logprobs.reduce((sum, l, s) => sum + Math.exp(l) * (v[s]?.[group]?.[d] as number), 0),
        );
      });
      return this.#linear(`${layer}self_attn.o_proj`, mixed.flat());
    });
  }

  #rotate(head: number[], position: number): number[] {
    const half = head.length / 2;
    return head.map((value, i) => {
      const angle = position * this.#frequency(i % half);
      const other = i < half ? -(head[i + half] as number) : (head[i - half] as number);
      return value * Math.cos(angle) + other * Math.sin(angle);
    });
  }

  #frequency(i: number): number {
    const { ropeTheta, headDim, ropeScaling } = this.config;
    const frequency = ropeTheta ** ((-2 * i) / headDim);
    if (!ropeScaling) return frequency;
    if (ropeScaling.type !== 'llama3') throw new Error(`no ${ropeScaling.type} here`);
    const { factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings } = ropeScaling;
    const turns = (originalMaxPositionEmbeddings * frequency) / (2 * Math.PI);
    if (turns < lowFreqFactor) return frequency / factor;
    if (turns > highFreqFactor) return frequency;
    const smooth = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
    return ((1 - smooth) * frequency) / factor + smooth * frequency;
  }

  #get(name: string): Float64Array {
    const found = this.weights.get(name);
    if (!found) throw new Error(`no weight ${name}`);
    return found.data;
  }

  #linear(name: string, x: number[]): number[] {
    const weight = this.#get(`${name}.weight`);
    const bias = this.weights.get(`${name}.bias`)?.data;
    return Array.from({ length: weight.length / x.length }, (_, row) =>
      x.reduce((sum, value, i) => sum + value * (weight[row * x.length + i] as number), bias?.[row] ?? 0),
    );
  }
}

const dot = (a: number[], b: number[]) => a.reduce((sum, x, i) => sum + x * (b[i] as number), 0);
const add = (a: number[], b: number[]) => a.map((x, i) => x + (b[i] as number));

function rmsNorm(x: number[], weight: Float64Array, eps: number): number[] {
  const scale = 1 / Math.sqrt(dot(x, x) / x.length + eps);
  return x.map((value, i) => value * scale * (weight[i] as number));
}

/** Log-probabilities and entropy of softmax(logits / temperature). */
export function distribution(logits: readonly number[], temperature: number) {
  const top = Math.max(...logits);
  const shifted = logits.map((z) => (z - top) / temperature);
  const logSum = Math.log(shifted.reduce((sum, z) => sum + Math.exp(z), 0));
  const logprobs = shifted.map((z) => z - logSum);
  return { logprobs, entropy: -logprobs.reduce((sum, l) => sum + Math.exp(l) * l, 0) };
}
