/** Which shapes are measured. */
import type { FloatDType, TensorDevice } from '../tensor.js';

/** What the data of one table is; the kinds are those of native/bench/workload.h. */
export type WorkloadSpec =
  | { kind: 'logits'; rows: number; vocab: number; dtype: FloatDType }
  | { kind: 'head'; rows: number; dim: number; vocab: number; dtype: FloatDType }
  | { kind: 'loss'; tokens: number }
  | { kind: 'weights'; elements: number };

/** What the user asked for; empty lists mean the device's defaults. */
export interface ShapeOptions {
  device: TensorDevice;
  rows: readonly number[];
  vocab: readonly number[];
  dim: readonly number[];
  dtype: readonly FloatDType[];
  kinds: readonly WorkloadSpec['kind'][];
  tokens: number | undefined;
  elements: number | undefined;
  quick: boolean;
}

const or = <T>(given: readonly T[], otherwise: readonly NoInfer<T>[]): readonly T[] =>
  given.length > 0 ? given : otherwise;

/** Qwen's and Llama's vocabularies. */
const VOCABULARIES = [151_936, 128_256];

/** Every shape to measure, in order. */
export function workloads(options: ShapeOptions): WorkloadSpec[] {
  const { device, quick } = options;
  const cuda = device === 'cuda';
  const specs: WorkloadSpec[] = [];
  const rows = or(options.rows, cuda ? (quick ? [8192] : [256, 4096, 8192, 32_768]) : [256]);
  const vocab = or(options.vocab, quick ? VOCABULARIES.slice(0, 1) : VOCABULARIES);
  for (const n of rows)
    for (const v of vocab)
      for (const dtype of or(options.dtype, cuda ? ['bfloat16', 'float32'] : ['float32', 'bfloat16']))
        specs.push({ kind: 'logits', rows: n, vocab: v, dtype });
  // On a CPU each of these takes seconds: one shape, unless others are asked for.
  const headRows = options.rows.length === 0 && quick && !cuda ? [64] : rows;
  const headVocab = cuda ? vocab : or(options.vocab, VOCABULARIES.slice(0, 1));
  const dims = or(options.dim, cuda ? (quick ? [4096] : [2048, 3072, 4096]) : [2048]);
  const headDtypes = cuda ? or(options.dtype, ['bfloat16']) : (['float32'] as const);
  for (const n of headRows)
    for (const v of headVocab)
      for (const dim of dims)
        for (const dtype of headDtypes) specs.push({ kind: 'head', rows: n, dim, vocab: v, dtype });
  specs.push({ kind: 'loss', tokens: options.tokens ?? (cuda ? 2 ** 24 : 2 ** 23) });
  specs.push({ kind: 'weights', elements: options.elements ?? (cuda ? 2 ** 29 : 2 ** 25) });
  return specs.filter(({ kind }) => options.kinds.length === 0 || options.kinds.includes(kind));
}

const bytesOf = (dtype: FloatDType): number => (dtype === 'float32' ? 4 : 2);

/** Bytes that our side of a workload holds at once. */
export function workloadBytes(spec: WorkloadSpec): number {
  switch (spec.kind) {
    case 'logits':
      return 2 * spec.rows * spec.vocab * bytesOf(spec.dtype);
    case 'head': {
      const size = bytesOf(spec.dtype);
      const products = Math.min(spec.rows, 4096) * spec.vocab * size;
      const gradients = spec.dtype === 'float32' ? 4 : 4 + size;
      return (spec.vocab + spec.rows) * spec.dim * (size + gradients) + products + 1.5e9;
    }
    case 'loss':
      return spec.tokens * 20;
    case 'weights':
      return spec.elements * 30;
  }
}

/** `logits [256, 151936] float32`. */
export function workloadTitle(spec: WorkloadSpec): string {
  switch (spec.kind) {
    case 'logits':
      return `logits [${spec.rows}, ${spec.vocab}] ${spec.dtype}`;
    case 'head':
      return `hidden [${spec.rows}, ${spec.dim}], head [${spec.vocab}, ${spec.dim}] ${spec.dtype}`;
    case 'loss':
      return `${spec.tokens} tokens in sequences of 512`;
    case 'weights':
      return `${spec.elements} parameters, float32`;
  }
}
