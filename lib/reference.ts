/**
 * The kernels of `kernels.ts` written from their equations on plain arrays in double precision, to check against. They
 * need no addon. `export * as reference from './reference.js'`.
 */
import { InvalidArgumentError, NonFiniteError } from './errors.js';
import { checkOptions, type OptionKeys } from './options.js';

export {
  type ComplementaryLossOptions,
  type ComplementaryLossResult,
  complementaryLossReference,
} from './algorithm/unlearning.js';

/** Rows of logits. */
export type Rows = readonly ArrayLike<number>[];

/** What {@link tokenStatsReference} gives, per row. */
export interface TokenStatsReference {
  logprob: Float64Array;
  entropy: Float64Array;
  oneMinusP: Float64Array;
}

/** log p of every entry: z' - logsumexp(z'), with z' = z / temperature. */
function logSoftmax(row: ArrayLike<number>, temperature: number): Float64Array {
  const scaled = Float64Array.from(row, (z) => z / temperature);
  const maximum = scaled.reduce((a, b) => Math.max(a, b), -Infinity);
  let total = 0;
  for (const z of scaled) total += Math.exp(z - maximum);
  const shift = maximum + Math.log(total);
  return scaled.map((z) => z - shift);
}

function entropyOf(logp: Float64Array): number {
  let entropy = 0;
  for (const l of logp) if (l !== -Infinity) entropy -= Math.exp(l) * l;
  return entropy;
}

/**
 *     l = log p_y,   H = -sum_j p_j log p_j (0 log 0 = 0),   q = sum_{j != y} p_j,   p = softmax(z / tau)
 *
 * @param logits rows of equal length
 * @param targets one index per row
 */
export function tokenStatsReference(logits: Rows, targets: ArrayLike<number>, temperature = 1): TokenStatsReference {
  const rows = logits.length;
  const stats = { logprob: new Float64Array(rows), entropy: new Float64Array(rows), oneMinusP: new Float64Array(rows) };
  logits.forEach((row, r) => {
    const target = checkedTarget(targets, r, row.length);
    const logp = logSoftmax(row, temperature);
    let others = 0;
    logp.forEach((l, j) => {
      if (j !== target) others += Math.exp(l);
    });
    stats.logprob[r] = logp[target] as number;
    stats.entropy[r] = entropyOf(logp);
    stats.oneMinusP[r] = others;
  });
  return stats;
}

/**
 *     dL/dz_j = (1/tau) [ a 1[j=y] - p_j (a + b (log p_j + H)) ]
 *
 * @param a dL/dl per row
 * @param b dL/dH per row; null is all 0
 * @returns the gradient, row by row; the logits are not changed.
 */
export function tokenGradReference(
  logits: Rows,
  targets: ArrayLike<number>,
  a: ArrayLike<number>,
  b: ArrayLike<number> | null = null,
  temperature = 1,
): Float64Array[] {
  return logits.map((row, r) => {
    const target = checkedTarget(targets, r, row.length);
    const [dl, dh] = [a[r] as number, b === null ? 0 : (b[r] as number)];
    const logp = logSoftmax(row, temperature);
    const entropy = entropyOf(logp);
    let others = 0;
    logp.forEach((l, j) => {
      if (j !== target) others += Math.exp(l);
    });
    return logp.map((l, j) => {
      const p = Math.exp(l);
      const throughEntropy = l === -Infinity ? 0 : dh * p * (l + entropy);
      // 1 - p_y as the sum of the others, which does not cancel.
      const throughLogprob = j === target ? dl * others : -dl * p;
      return (throughLogprob - throughEntropy) / temperature;
    });
  });
}

/** Rounds a float32 to bfloat16: to nearest, ties to even. */
export function roundToBfloat16(x: number): number {
  const words = new Uint32Array(Float32Array.of(x).buffer);
  const bits = words[0] as number;
  if ((bits & 0x7fffffff) > 0x7f800000) return NaN;
  words[0] = (bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000;
  return new Float32Array(words.buffer)[0] as number;
}

/** Rounds a number to float16: to nearest, ties to even; beyond 65504 to Infinity as IEEE 754 says. */
export function roundToFloat16(x: number): number {
  const magnitude = Math.abs(x);
  if (!(magnitude > 0) || magnitude === Infinity) return x;
  // The unit in the last place: 2^(exponent - 10), not below the subnormals' 2^-24.
  let exponent = Math.floor(Math.log2(magnitude));
  if (2 ** exponent > magnitude) exponent -= 1;
  else if (2 ** (exponent + 1) <= magnitude) exponent += 1;
  const unit = 2 ** Math.max(exponent - 10, -24);
  const quotient = magnitude / unit; // exact: a division by a power of two
  const floor = Math.floor(quotient);
  const rest = quotient - floor;
  const rounded = (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor) * unit;
  return Math.sign(x) * (rounded > 65504 ? Infinity : rounded);
}

/**
 *     into = cast(params + eta grads)                                                                    (Eq. 11)
 *
 * rounded to nearest: to float32 first, then to `dtype`.
 *
 * @param grads null is a plain cast.
 */
export function ascendReference(
  params: ArrayLike<number>,
  grads: ArrayLike<number> | null,
  eta: number,
  dtype: 'float32' | 'bfloat16' | 'float16' = 'float32',
): Float64Array {
  const narrow = { float32: (x: number) => x, bfloat16: roundToBfloat16, float16: roundToFloat16 }[dtype];
  return Float64Array.from(params, (p, i) => narrow(Math.fround(grads === null ? p : p + eta * (grads[i] as number))));
}

/** Options of {@link sampleReference}; see `SampleOptions`. */
export interface SampleReferenceOptions {
  temperature?: number;
  topK?: number;
  topP?: number;
  seed?: number | bigint;
  counters?: readonly (readonly number[])[];
}

const SAMPLE_KEYS: OptionKeys<SampleReferenceOptions> = {
  temperature: true,
  topK: true,
  topP: true,
  seed: true,
  counters: true,
};

/** What {@link sampleReference} gives, per row. */
export interface SampleReference {
  tokens: number[];
  logprob: Float64Array;
  entropy: Float64Array;
}

/**
 * Softmax, top-k, top-p and the sequential inverse CDF of one Philox uniform per row.
 */
export function sampleReference(logits: Rows, options: SampleReferenceOptions = {}): SampleReference {
  checkOptions(options, SAMPLE_KEYS, 'sampleReference');
  const { temperature = 1, topK = 0, topP = 1, seed = 0, counters } = options;
  const tokens = logits.map((row, r) => {
    if (!Array.from(row).every((z) => z < Infinity) || !Array.from(row).some((z) => z > -Infinity)) {
      throw new NonFiniteError(`row ${r} of the logits holds NaN or Infinity, or no finite logit`);
    }
    const descending = Array.from(row, (_, j) => j).sort((i, j) => (row[j] as number) - (row[i] as number) || i - j);
    if (temperature === 0) return descending[0] as number;
    const p = logSoftmax(row, temperature).map(Math.exp);
    const kept = restrict(p, descending, topK, topP);
    const uniform = philoxUniform(counters?.[r] ?? [r, 0, 0, 0], seed);
    return inverseCdf(p, kept, uniform);
  });
  const { logprob, entropy } = tokenStatsReference(logits, tokens, temperature === 0 ? 1 : temperature);
  return { tokens, logprob, entropy };
}

/** The indices that top-k and then top-p keep, in index order. */
function restrict(p: Float64Array, descending: number[], topK: number, topP: number): number[] {
  let kept = topK > 0 ? descending.slice(0, topK) : descending;
  if (topP < 1) {
    const needed = topP * kept.reduce((sum, j) => sum + (p[j] as number), 0);
    let mass = 0;
    let size = 0;
    while (size < kept.length && (size === 0 || mass < needed)) mass += p[kept[size++] as number] as number;
    kept = kept.slice(0, size);
  }
  return [...kept].sort((i, j) => i - j);
}

function inverseCdf(p: Float64Array, kept: number[], uniform: number): number {
  const goal = uniform * kept.reduce((sum, j) => sum + (p[j] as number), 0);
  let sum = 0;
  let last = kept[0] as number;
  for (const j of kept) {
    if ((p[j] as number) <= 0) continue;
    sum += p[j] as number;
    last = j;
    if (sum > goal) break;
  }
  return last;
}

/**
 * Philox4x32-10 (Salmon et al. 2011): four random 32-bit words of a counter of four and a 64-bit seed.
 */
export function philox4x32(counter: readonly number[], seed: number | bigint): [number, number, number, number] {
  const mask = 0xffffffffn;
  let [c0, c1, c2, c3] = counter.map(BigInt) as [bigint, bigint, bigint, bigint];
  let [key0, key1] = [BigInt(seed) & mask, (BigInt(seed) >> 32n) & mask];
  for (let round = 0; round < 10; round++) {
    const [product0, product1] = [0xd2511f53n * c0, 0xcd9e8d57n * c2];
    [c0, c1, c2, c3] = [(product1 >> 32n) ^ c1 ^ key0, product1 & mask, (product0 >> 32n) ^ c3 ^ key1, product0 & mask];
    [key0, key1] = [(key0 + 0x9e3779b9n) & mask, (key1 + 0xbb67ae85n) & mask];
  }
  return [c0, c1, c2, c3].map(Number) as [number, number, number, number];
}

/** A uniform number in [0, 1) with 53 random bits. */
export function philoxUniform(counter: readonly number[], seed: number | bigint): number {
  const [high, low] = philox4x32(counter, seed);
  return Number(((BigInt(high) << 32n) | BigInt(low)) >> 11n) * 2 ** -53;
}

function checkedTarget(targets: ArrayLike<number>, row: number, vocab: number): number {
  const target = targets[row];
  if (target !== undefined && Number.isInteger(target) && target >= 0 && target < vocab) return target;
  throw new InvalidArgumentError(`targets[${row}] is ${target}, outside the vocabulary 0..${vocab - 1}`);
}
