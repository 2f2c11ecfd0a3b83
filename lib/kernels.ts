/** The fused kernels on a user's own tensors. Plain references of all of them: `reference`. */
import { InvalidArgumentError } from './errors.js';
import { callNative, loadNative, type NativeAddon } from './native.js';
import { checkOptions, describe, type OptionKeys, SIGNAL } from './options.js';
import { type DType, type NativeTensor, nativeOf, Tensor, wrapTensor } from './tensor.js';

/** Logits [rows, vocab], or what they are the product of: hidden states [rows, dim] and a head [vocab, dim]. */
export type TokenInput = Tensor | { hidden: Tensor; head: Tensor };

/** One token id per row. */
export type TokenTargets = Tensor<'int64'> | readonly number[] | Int32Array | BigInt64Array;

/** float32 numbers: a Tensor, or an array that is copied into one. */
export type Reals = Tensor | Float32Array | readonly number[];

interface Call {
  /** Aborted: a queued call is dropped and a running one stops between kernels; rejects with AbortedError. */
  signal?: AbortSignal;
}

export interface TokenStatsOptions extends Call {
  /** tau > 0. Default 1. */
  temperature?: number;
}

/** float32, [rows]. */
export interface TokenStats {
  /** l = log p(y), natural logarithm. */
  logprob: Tensor;
  /** H in nats. */
  entropy: Tensor;
  /** 1 - p(y), summed from the other tokens: exact also where p(y) is close to 1. */
  oneMinusP: Tensor;
}

export interface TokenGradOptions extends Call {
  /** a = dL/dl, [rows]. */
  a: Reals;
  /** b = dL/dH, [rows]. Default null: all 0. */
  b?: Reals | null;
  /** tau > 0. Default 1. */
  temperature?: number;
}

export interface ComplementaryLossInput extends Call {
  /** l of the drawn tokens, [tokens], sequence after sequence. */
  logprob: Reals;
  /** H in nats of the distribution each was drawn from, [tokens]. */
  entropy: Reals;
  /** 1 - p, [tokens]. Default -expm1(l). */
  oneMinusP?: Reals;
  /** [sequences + 1]: sequence k owns tokens offsets[k] to offsets[k + 1] (exclusive). */
  offsets: TokenTargets;
  /** w of every token of a sequence, [sequences]. Default 1 / (sequences T_k), Eq. 10. */
  weight?: Reals;
  /**
   * The entropies that precede each sequence's first token here, newest first, NaN where there is none:
   * [sequences, window - 1]. Written: what the next chunk of the same sequences needs. Default: sequences start here.
   */
  carry?: Tensor | Float32Array;
  /** Gate threshold in nats; Infinity opens every token. Default 0.3. */
  alpha?: number;
  /** m, token positions. Default 3. */
  window?: number;
  /** eL. Default 1e-6. */
  epsLow?: number;
  /** eR. Default 1e-5. */
  epsHigh?: number;
  /** The gradient of a clipped token: 'zero' (autograd of clamp; default) or 'saturate' (that at the bound). */
  clampGrad?: 'zero' | 'saturate';
}

export interface ComplementaryLossReport {
  /** L of Eq. 10. It is ascended. */
  loss: number;
  /** a_t = dL/dl_t <= 0, float32 [tokens]: what {@link tokenGrad} needs. */
  a: Tensor;
  /** I_t of 0 and 1, [tokens]. */
  gate: Uint8Array;
  tokens: number;
  /** I_t = 1. */
  openTokens: number;
  /** Open tokens with p < eL. */
  clampedLow: number;
  /** Open tokens with p > 1 - eR. */
  clampedHigh: number;
  /** a_t != 0. */
  activeTokens: number;
}

export interface ComplementaryGradOptions
  extends Call,
    Pick<
      ComplementaryLossInput,
      'offsets' | 'weight' | 'carry' | 'alpha' | 'window' | 'epsLow' | 'epsHigh' | 'clampGrad'
    > {
  /** H in nats, recorded when each token was drawn, [rows]: it decides the gate, before anything is computed. */
  entropy: Reals;
  /** tau > 0 of the logits. Default 1. */
  temperature?: number;
}

export interface ComplementaryGradReport extends ComplementaryLossReport {
  /** l of the open tokens, NaN of the others and of those of weight 0 (which count as not clamped), float32 [rows]. */
  logprob: Tensor;
}

export interface AscendOptions extends Call {
  eta: number;
  /**
   * Where the result goes, in the shapes of `params` and any real dtype. To step in place say `into: params`;
   * any other overlap with `params` or `grads` is an error.
   */
  into: readonly Tensor[];
  /**
   * 'nearest' (ties to even; default), or 'stochastic': up with probability equal to the remainder, which keeps a step
   * that is smaller than half a unit of bfloat16 alive on average. The same for float32.
   */
  rounding?: 'nearest' | 'stochastic';
  /** Of stochastic rounding: the same seed gives the same bits. Default 0. */
  seed?: number | bigint;
}

export interface AscendReport {
  /** Elements stepped; a tied storage counts once. */
  elements: number;
  /** Elements of `into` whose bits differ from the cast of their parameter. */
  changed: number;
}

export interface SampleOptions extends Call {
  /** Default 1. 0 is greedy: the first index of the maximum. */
  temperature?: number;
  /** Keeps the k largest logits, ties broken towards the lower index. Default 0: off. */
  topK?: number;
  /** Then keeps the smallest set of most probable tokens whose mass reaches topP, in (0, 1]. Default 1: off. */
  topP?: number;
  /** Default 0. */
  seed?: number | bigint;
  /**
   * Four 32-bit numbers per row. A draw is a pure function of (seed, counter, row of logits). Default: (row, 0, 0, 0),
   * so give your own when sampling more than once with one seed.
   */
  counters?: readonly (readonly [number, number, number, number])[];
}

export interface Samples {
  /** int64, [rows]. */
  tokens: Tensor<'int64'>;
  /** log-prob of each token under the FULL distribution at `temperature` (at 1 when greedy), float32 [rows]. */
  logprob: Tensor;
  /** Entropy in nats of that distribution, float32 [rows]. */
  entropy: Tensor;
}

const STATS_KEYS: OptionKeys<TokenStatsOptions> = { temperature: true, ...SIGNAL };
const GRAD_KEYS: OptionKeys<TokenGradOptions> = { a: true, b: true, ...STATS_KEYS };
const LOSS_KEYS: OptionKeys<ComplementaryLossInput> = {
  logprob: true,
  entropy: true,
  oneMinusP: true,
  offsets: true,
  weight: true,
  carry: true,
  alpha: true,
  window: true,
  epsLow: true,
  epsHigh: true,
  clampGrad: true,
  ...SIGNAL,
};
const { logprob: _logprob, oneMinusP: _oneMinusP, ...LOSS_GRAD_KEYS } = LOSS_KEYS;
const COMPLEMENTARY_GRAD_KEYS: OptionKeys<ComplementaryGradOptions> = { ...LOSS_GRAD_KEYS, temperature: true };
const ASCEND_KEYS: OptionKeys<AscendOptions> = { eta: true, into: true, rounding: true, seed: true, ...SIGNAL };
const SAMPLE_KEYS: OptionKeys<SampleOptions> = {
  ...STATS_KEYS,
  topK: true,
  topP: true,
  seed: true,
  counters: true,
};
const HEAD_KEYS: OptionKeys<Exclude<TokenInput, Tensor>> = { hidden: true, head: true };

type Optional<T> = T | undefined;

declare module './native.js' {
  interface NativeAddon {
    tokenStats(
      logits: Optional<NativeTensor>,
      hidden: Optional<NativeTensor>,
      head: Optional<NativeTensor>,
      targets: NativeTensor,
      temperature: number,
      signal: Optional<AbortSignal>,
    ): Promise<[NativeTensor, NativeTensor, NativeTensor]>;
    tokenGrad(
      logits: Optional<NativeTensor>,
      hidden: Optional<NativeTensor>,
      head: Optional<NativeTensor>,
      targets: NativeTensor,
      a: NativeTensor,
      b: Optional<NativeTensor>,
      temperature: number,
      signal: Optional<AbortSignal>,
    ): Promise<[] | [NativeTensor, NativeTensor]>;
    sample(
      logits: NativeTensor,
      temperature: number,
      topK: number,
      topP: number,
      seed: number | bigint,
      counters: Optional<Uint32Array>,
      signal: Optional<AbortSignal>,
    ): Promise<[NativeTensor, NativeTensor, NativeTensor]>;
    complementaryLoss(
      options: Record<string, unknown>,
      signal: Optional<AbortSignal>,
    ): Promise<Omit<ComplementaryLossReport, 'a'> & { a: NativeTensor }>;
    complementaryGrad(
      logits: Optional<NativeTensor>,
      hidden: Optional<NativeTensor>,
      head: Optional<NativeTensor>,
      targets: NativeTensor,
      options: Record<string, unknown>,
      signal: Optional<AbortSignal>,
    ): Promise<Omit<ComplementaryLossReport, 'a'> & { tensors: NativeTensor[] }>;
    ascend(
      params: NativeTensor[],
      grads: (NativeTensor | null)[],
      into: NativeTensor[],
      eta: number,
      rounding: string,
      seed: number | bigint,
      signal: Optional<AbortSignal>,
    ): Promise<AscendReport>;
  }
}

/**
 * Log-probability, entropy and 1 - p of one target token per row, in one read of the logits:
 *
 *     z' = z / tau     l = z'_y - logsumexp(z')     H = logsumexp(z') - sum_j p_j z'_j     1 - p = sum_{j != y} p_j
 *
 * With `{ hidden, head }` the logits hidden head^T exist for one chunk of rows at a time and never as [rows, vocab].
 * A logit of -Infinity has probability 0. NaN or +Infinity in a row makes that row's results NaN.
 *
 * @param input logits [rows, vocab] in float32, bfloat16 or float16, or `{ hidden: [rows, dim], head: [vocab, dim] }`.
 * @param targets one id per row, in 0..vocab-1.
 * @throws InvalidArgumentError for a wrong shape or dtype, and for a target out of range (naming the row).
 */
export async function tokenStats(
  input: TokenInput,
  targets: TokenTargets,
  options: TokenStatsOptions = {},
): Promise<TokenStats> {
  checkOptions(options, STATS_KEYS, 'tokenStats');
  const { temperature = 1, signal } = options;
  const [logprob, entropy, oneMinusP] = await withTemporaries((temporary) => {
    const [logits, hidden, head] = inputHandles(input);
    const ids = integers(targets, 'targets', temporary);
    return callNative(() => loadNative().tokenStats(logits, hidden, head, ids, temperature, signal));
  });
  return { logprob: wrapTensor(logprob), entropy: wrapTensor(entropy), oneMinusP: wrapTensor(oneMinusP) };
}

/**
 * The gradient of any loss that sees a row of logits only through l = log p(y) and the entropy H. With a = dL/dl and
 * b = dL/dH:
 *
 *     dL/dz_j = (1/tau) [ a 1[j=y] - p_j (a + b (log p_j + H)) ]
 *
 * For logits the gradient is written IN PLACE, in their dtype, and the same Tensor is returned. For `{ hidden, head }`
 * the gradients dz head and dz^T hidden are returned in float32. Rows with a = b = 0 give zeros and cost nothing.
 *
 * @param input as of {@link tokenStats}.
 * @param targets one id per row, in 0..vocab-1.
 * @throws InvalidArgumentError for a wrong shape or dtype, and for a target out of range (nothing is written then).
 */
export async function tokenGrad(input: Tensor, targets: TokenTargets, options: TokenGradOptions): Promise<Tensor>;
export async function tokenGrad(
  input: { hidden: Tensor; head: Tensor },
  targets: TokenTargets,
  options: TokenGradOptions,
): Promise<{ hidden: Tensor; head: Tensor }>;
export async function tokenGrad(
  input: TokenInput,
  targets: TokenTargets,
  options: TokenGradOptions,
): Promise<Tensor | { hidden: Tensor; head: Tensor }> {
  checkOptions(options, GRAD_KEYS, 'tokenGrad');
  const { a, b, temperature = 1, signal } = options;
  const [dHidden, dHead] = await withTemporaries((temporary) => {
    const [logits, hidden, head] = inputHandles(input);
    const ids = integers(targets, 'targets', temporary);
    const [dl, dh] = [reals(a, 'a', temporary), b == null ? undefined : reals(b, 'b', temporary)];
    return callNative(() => loadNative().tokenGrad(logits, hidden, head, ids, dl, dh, temperature, signal));
  });
  if (dHidden === undefined || dHead === undefined) return input as Tensor;
  return { hidden: wrapTensor(dHidden), head: wrapTensor(dHead) };
}

/**
 * The entropy gate and the complementary unlearning loss (Eq. 4-5 and 8-10), with the coefficient {@link tokenGrad}
 * needs, in one pass:
 *
 *     Hbar_t = mean(H_t, ..., H_{max(0, t-m+1)})        I_t = [Hbar_t < alpha]
 *     L      = sum_t w_t I_t log(1 - clip(p_t, eL, 1 - eR))
 *     a_t    = dL/dl_t = -w_t I_t [eL <= p_t <= 1 - eR] p_t / (1 - p_t)
 *
 * L is ascended (Eq. 11), which lowers the log-prob of the tokens. The gate is an indicator: no gradient through H.
 *
 * @throws InvalidArgumentError for lengths that do not fit, offsets that do not start at 0, decrease or do not end at
 *   the number of tokens, and options out of range.
 */
export async function complementaryLoss(input: ComplementaryLossInput): Promise<ComplementaryLossReport> {
  checkOptions(input, LOSS_KEYS, 'complementaryLoss');
  const { signal, carry, ...rest } = input;
  const { alpha = 0.3, window = 3, epsLow = 1e-6, epsHigh = 1e-5, clampGrad = 'zero' } = rest;
  const temporaries = new Temporaries();
  try {
    const optional = (value: Reals | undefined, name: string): NativeTensor | undefined =>
      value == null ? undefined : reals(value, name, temporaries);
    const offsets = integers(rest.offsets, 'offsets', temporaries);
    const carried = carryHandle(carry, offsets.size - 1, window - 1, temporaries);
    const arguments_ = {
      logprob: reals(rest.logprob, 'logprob', temporaries),
      entropy: reals(rest.entropy, 'entropy', temporaries),
      oneMinusP: optional(rest.oneMinusP, 'oneMinusP'),
      offsets,
      weight: optional(rest.weight, 'weight'),
      carry: carried,
      ...{ alpha, window, epsLow, epsHigh, clampGrad },
    };
    const report = await callNative(() => loadNative().complementaryLoss(arguments_, signal));
    const result = { ...report, a: wrapTensor(report.a) };
    await carryBack(carry, carried);
    return result;
  } finally {
    temporaries.dispose();
  }
}

/**
 * The unlearning loss of Eq. 9-10 and its gradient, fused: for open tokens log-prob, 1 - p, coefficient and gradient come
 * from one read and one write of their logits, or from one product with the head (6 instead of 8 dim vocab FLOPs a row);
 * tokens behind a closed gate are dropped before anything is computed.
 *
 * For logits the gradient of L is written IN PLACE, in their dtype; with `{ hidden, head }` it is returned in float32. It
 * is to be ascended.
 *
 * @param input logits [rows, vocab], or `{ hidden: [rows, dim], head: [vocab, dim] }`; rows are the sequences' tokens.
 * @param targets the drawn token of every row.
 * @throws InvalidArgumentError for a wrong shape, dtype, option or target (nothing is written then); NonFiniteError for
 *   an entropy or log-prob that is not a number.
 */
export async function complementaryGrad(
  input: Tensor,
  targets: TokenTargets,
  options: ComplementaryGradOptions,
): Promise<ComplementaryGradReport>;
export async function complementaryGrad(
  input: { hidden: Tensor; head: Tensor },
  targets: TokenTargets,
  options: ComplementaryGradOptions,
): Promise<ComplementaryGradReport & { hidden: Tensor; head: Tensor }>;
export async function complementaryGrad(
  input: TokenInput,
  targets: TokenTargets,
  options: ComplementaryGradOptions,
): Promise<ComplementaryGradReport & { hidden?: Tensor; head?: Tensor }> {
  checkOptions(options, COMPLEMENTARY_GRAD_KEYS, 'complementaryGrad');
  const { signal, carry, ...rest } = options;
  const { alpha = 0.3, window = 3, epsLow = 1e-6, epsHigh = 1e-5, clampGrad = 'zero', temperature = 1 } = rest;
  const temporaries = new Temporaries();
  let report: Awaited<ReturnType<NativeAddon['complementaryGrad']>>;
  try {
    const [logits, hidden, head] = inputHandles(input);
    const ids = integers(targets, 'targets', temporaries);
    const offsets = integers(rest.offsets, 'offsets', temporaries);
    const carried = carryHandle(carry, offsets.size - 1, window - 1, temporaries);
    const arguments_ = {
      entropy: reals(rest.entropy, 'entropy', temporaries),
      offsets,
      weight: rest.weight == null ? undefined : reals(rest.weight, 'weight', temporaries),
      carry: carried,
      ...{ alpha, window, epsLow, epsHigh, clampGrad, temperature },
    };
    report = await callNative(() => loadNative().complementaryGrad(logits, hidden, head, ids, arguments_, signal));
    await carryBack(carry, carried);
  } finally {
    temporaries.dispose();
  }
  const { tensors, ...numbers } = report;
  const [a, logprob, dHidden, dHead] = tensors;
  const result = { ...numbers, a: wrapTensor(a as NativeTensor), logprob: wrapTensor(logprob as NativeTensor) };
  if (dHidden === undefined || dHead === undefined) return result;
  return { ...result, hidden: wrapTensor(dHidden), head: wrapTensor(dHead) };
}

/**
 * One momentum-free step of gradient ascent over many tensors, out of place (Eq. 11):
 *
 *     into_i = cast(params_i + eta grads_i)
 *
 * `params` is not written unless `into` names it. A null gradient, or eta = 0, is a plain cast: that is also how a step
 * is undone, by casting `params` again. Parameters that share a storage (tied embeddings) are stepped once, with the
 * gradient of the first; the others' must be null or the same tensor.
 *
 * @param params float32, bfloat16 or float16.
 * @param grads one per parameter, in its shape and any real dtype, or null.
 * @throws InvalidArgumentError for counts, shapes or dtypes that do not fit and for overlapping memory.
 */
export async function ascend(
  params: readonly Tensor[],
  grads: readonly (Tensor | null)[],
  options: AscendOptions,
): Promise<AscendReport> {
  checkOptions(options, ASCEND_KEYS, 'ascend');
  const { eta, into, rounding = 'nearest', seed = 0, signal } = options;
  if (into == null) {
    throw new InvalidArgumentError(
      'into must be given: the tensors that receive the result (`into: params` is in place)',
    );
  }
  const [from, to] = [tensorList(params, 'params'), tensorList(into, 'into')];
  const steps = requireArray(grads, 'grads').map((grad, i) => (grad == null ? null : nativeOf(grad, `grads[${i}]`)));
  return callNative(() => loadNative().ascend(from, steps, to, eta, rounding, seed, signal));
}

/**
 * Draws one token per row of logits by exact inverse-CDF sampling with one uniform number per row, and gives its
 * log-probability and the row's entropy from the same pass.
 *
 * @param logits [rows, vocab] in float32, bfloat16 or float16.
 * @throws NonFiniteError naming a row with NaN, +Infinity or no finite logit; InvalidArgumentError for options out of
 *   range.
 */
export async function sample(logits: Tensor, options: SampleOptions = {}): Promise<Samples> {
  checkOptions(options, SAMPLE_KEYS, 'sample');
  const { temperature = 1, topK = 0, topP = 1, seed = 0, counters, signal } = options;
  const words = counters == null ? undefined : counterWords(counters);
  const handle = nativeOf(logits, 'logits');
  const [tokens, logprob, entropy] = await callNative(() =>
    loadNative().sample(handle, temperature, topK, topP, seed, words, signal),
  );
  return { tokens: wrapTensor(tokens), logprob: wrapTensor(logprob), entropy: wrapTensor(entropy) };
}

/** Tensors made of a caller's arrays. A job counts references, so they may be disposed as soon as it is queued. */
class Temporaries {
  readonly #handles: NativeTensor[] = [];

  make(data: ArrayBufferView, shape: readonly number[], dtype: DType, name: string): NativeTensor {
    let handle: NativeTensor;
    try {
      handle = callNative(() => loadNative().tensorFrom(data, shape, dtype));
    } catch (cause) {
      if (!(cause instanceof InvalidArgumentError)) throw cause;
      throw new InvalidArgumentError(`${name}: ${cause.message}`, { cause });
    }
    this.#handles.push(handle);
    return handle;
  }

  dispose(): void {
    for (const handle of this.#handles) handle.dispose();
  }
}

/** `carry` of the unlearning loss as a tensor; a Float32Array is copied, and filled again by {@link carryBack}. */
function carryHandle(
  carry: ComplementaryLossInput['carry'],
  sequences: number,
  history: number,
  temporaries: Temporaries,
): Optional<NativeTensor> {
  if (carry instanceof Float32Array) return temporaries.make(carry, [sequences, history], 'float32', 'carry');
  return carry == null ? undefined : nativeOf(carry, 'carry');
}

async function carryBack(carry: ComplementaryLossInput['carry'], carried: Optional<NativeTensor>): Promise<void> {
  if (!(carry instanceof Float32Array) || carried === undefined) return;
  carry.set((await callNative(() => carried.data())) as Float32Array);
}

function withTemporaries<T>(body: (temporary: Temporaries) => T): T {
  const temporaries = new Temporaries();
  try {
    return body(temporaries);
  } finally {
    temporaries.dispose();
  }
}

function integers(value: TokenTargets, name: string, temporary: Temporaries): NativeTensor {
  if (value instanceof Int32Array || value instanceof BigInt64Array) {
    return temporary.make(value, [value.length], 'int64', name);
  }
  if (!Array.isArray(value)) {
    if (value instanceof Tensor) return nativeOf(value, name);
    throw new InvalidArgumentError(
      `${name} must be an int64 Tensor, number[], Int32Array or BigInt64Array, got ${describe(value)}`,
    );
  }
  for (const [i, element] of value.entries()) {
    if (!Number.isSafeInteger(element)) {
      throw new InvalidArgumentError(`${name}[${i}] must be an integer, got ${describe(element)}`);
    }
  }
  return temporary.make(Float64Array.from(value), [value.length], 'int64', name);
}

function reals(value: Reals, name: string, temporary: Temporaries): NativeTensor {
  if (value instanceof Float32Array) return temporary.make(value, [value.length], 'float32', name);
  if (!Array.isArray(value)) {
    if (value instanceof Tensor) return nativeOf(value, name);
    throw new InvalidArgumentError(
      `${name} must be a float32 Tensor, Float32Array or number[], got ${describe(value)}`,
    );
  }
  for (const [i, element] of value.entries()) {
    if (typeof element !== 'number') {
      throw new InvalidArgumentError(`${name}[${i}] must be a number, got ${describe(element)}`);
    }
  }
  return temporary.make(Float64Array.from(value), [value.length], 'float32', name);
}

function inputHandles(input: TokenInput): [Optional<NativeTensor>, Optional<NativeTensor>, Optional<NativeTensor>] {
  if (
    typeof input === 'object' &&
    input !== null &&
    !(input instanceof Tensor) &&
    ('hidden' in input || 'head' in input)
  ) {
    checkOptions(input, HEAD_KEYS, 'input');
    return [undefined, nativeOf(input.hidden, 'hidden'), nativeOf(input.head, 'head')];
  }
  return [nativeOf(input, 'input (logits, or { hidden, head })'), undefined, undefined];
}

function tensorList(value: readonly Tensor[], name: string): NativeTensor[] {
  return requireArray(value, name).map((tensor, i) => nativeOf(tensor, `${name}[${i}]`));
}

function requireArray<T>(value: readonly T[], name: string): readonly T[] {
  if (Array.isArray(value)) return value;
  throw new InvalidArgumentError(`${name} must be an array of Tensors, got ${describe(value)}`);
}

function counterWords(counters: readonly (readonly number[])[]): Uint32Array {
  const words = new Uint32Array(requireArray(counters, 'counters').length * 4);
  counters.forEach((counter, row) => {
    const valid = (word: unknown): boolean =>
      Number.isInteger(word) && (word as number) >= 0 && (word as number) < 2 ** 32;
    if (!Array.isArray(counter) || counter.length !== 4 || !counter.every(valid)) {
      throw new InvalidArgumentError(`counters[${row}] must be four integers from 0 to 4294967295`);
    }
    words.set(counter, row * 4);
  });
  return words;
}
