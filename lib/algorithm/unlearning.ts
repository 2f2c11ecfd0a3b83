/** The unlearning loss (Eq. 8-10, or -log p in its place) in double precision: the reference of the native kernel. */
import { InvalidArgumentError } from '../errors.js';
import { checkOptions, choice, type OptionKeys } from '../options.js';
import { tokenGate } from './gate.js';

export interface ComplementaryLossOptions {
  /** Gate threshold in nats; Infinity opens every token. Default 0.3. */
  alpha?: number;
  /** m. Default 3. */
  window?: number;
  /** eL of Eq. 8. Default 1e-6. */
  epsLow?: number;
  /** eR of Eq. 8. Default 1e-5: a plain clamp has no gradient above 1 - eR, so a large eR spares the dominant tokens. */
  epsHigh?: number;
  /** Gradient of a clipped token: 'zero' (autograd of clamp; default) or 'saturate' (that of the clipped probability). */
  clampGrad?: 'zero' | 'saturate';
  /**
   * 'complementary' (default): Eq. 9. 'nll': -log p in the place of log(1 - p), ascended like it; nothing is clipped, and
   * every open token is pushed down alike, where Eq. 9 pushes by p / (1 - p).
   */
  loss?: 'complementary' | 'nll';
  /** Weight of every token of a sequence: [sequences]. Default 1 / (|O1| T_k), Eq. 10. */
  weight?: ArrayLike<number>;
  /** 1 - p where it is known better than -expm1(l): [tokens]. */
  oneMinusP?: ArrayLike<number>;
}

const KEYS: OptionKeys<ComplementaryLossOptions> = {
  alpha: true,
  window: true,
  epsLow: true,
  epsHigh: true,
  clampGrad: true,
  loss: true,
  weight: true,
  oneMinusP: true,
};

export interface ComplementaryLossResult {
  /** L(O1) of Eq. 10. It is ASCENDED (Eq. 11). */
  loss: number;
  /** dL/dl per token: never positive, so ascending lowers l. */
  a: Float64Array;
  /** I_t. */
  gate: Uint8Array;
  tokens: number;
  openTokens: number;
  /** Open tokens with p < eL. */
  clampedLow: number;
  /** Open tokens with p > 1 - eR. */
  clampedHigh: number;
  /** Tokens with a != 0. */
  activeTokens: number;
}

/**
 *     L   = sum_t w_t I_t log(1 - clip(p_t, eL, 1 - eR)),  w_t = 1 / (|O1| T_k)           (Eq. 9-10)
 *     a_t = -w_t I_t [eL <= p_t <= 1 - eR] p_t / (1 - p_t)                                ('zero')
 *     a_t = -w_t I_t pc_t / (1 - pc_t) with pc the clipped probability                    ('saturate')
 *
 *     L   = sum_t w_t I_t (-log p_t),  a_t = -w_t I_t                                     (loss 'nll')
 *
 * 1 - p is -expm1(l), which keeps its digits up to p = 1 - 1e-16. The gate is an indicator: no gradient through H.
 *
 * @param logprob l of the drawn tokens: [tokens]
 * @param entropy in nats: [tokens]
 * @param offsets [sequences + 1]
 */
export function complementaryLossReference(
  logprob: ArrayLike<number>,
  entropy: ArrayLike<number>,
  offsets: ArrayLike<number>,
  options: ComplementaryLossOptions = {},
): ComplementaryLossResult {
  checkOptions(options, KEYS, 'complementaryLossReference');
  const {
    alpha = 0.3,
    window = 3,
    epsLow = 1e-6,
    epsHigh = 1e-5,
    clampGrad = 'zero',
    loss: kind = 'complementary',
  } = options;
  const { weight, oneMinusP } = options;
  const tokens = logprob.length;
  const sequences = offsets.length - 1;
  choice(kind, 'loss', ['complementary', 'nll']);
  checkArguments(tokens, sequences, entropy, epsLow, epsHigh, weight, oneMinusP);
  const gate = tokenGate(entropy, offsets, { alpha, window });
  const a = new Float64Array(tokens);
  const counts = { openTokens: 0, clampedLow: 0, clampedHigh: 0, activeTokens: 0 };
  let loss = 0;
  for (let k = 0; k < sequences; k += 1) {
    const begin = offsets[k] as number;
    const end = offsets[k + 1] as number;
    const w = weight === undefined ? 1 / (sequences * (end - begin)) : (weight[k] as number);
    for (let t = begin; t < end; t += 1) {
      if (gate[t] === 0) continue;
      counts.openTokens += 1;
      const l = logprob[t] as number;
      if (kind === 'nll') {
        loss -= w * l;
        a[t] = -w;
        if (w !== 0) counts.activeTokens += 1;
        continue;
      }
      let p = Math.exp(l);
      let q = oneMinusP === undefined ? -Math.expm1(l) : (oneMinusP[t] as number);
      const low = p < epsLow;
      const high = q < epsHigh;
      if (low) {
        counts.clampedLow += 1;
        p = epsLow;
        q = 1 - epsLow;
      } else if (high) {
        counts.clampedHigh += 1;
        p = 1 - epsHigh;
        q = epsHigh;
      }
      loss += w * Math.log(q);
      if ((low || high) && clampGrad === 'zero') continue;
      a[t] = (-w * p) / q;
      if (a[t] !== 0) counts.activeTokens += 1;
    }
  }
  return { loss, a, gate, tokens, ...counts };
}

function checkArguments(
  tokens: number,
  sequences: number,
  entropy: ArrayLike<number>,
  epsLow: number,
  epsHigh: number,
  weight: ArrayLike<number> | undefined,
  oneMinusP: ArrayLike<number> | undefined,
): void {
  if (entropy.length !== tokens) {
    throw new InvalidArgumentError(`entropy must have one entry per token (${tokens}), got ${entropy.length}`);
  }
  if (weight !== undefined && weight.length !== sequences) {
    throw new InvalidArgumentError(`weight must have one entry per sequence (${sequences}), got ${weight.length}`);
  }
  if (oneMinusP !== undefined && oneMinusP.length !== tokens) {
    throw new InvalidArgumentError(`oneMinusP must have one entry per token (${tokens}), got ${oneMinusP.length}`);
  }
  if (!(epsLow >= 0) || !(epsHigh >= 0) || !(epsLow + epsHigh < 1)) {
    throw new InvalidArgumentError(
      `epsLow and epsHigh must be at least 0 and leave room between them, got ${epsLow} and ${epsHigh}`,
    );
  }
}
