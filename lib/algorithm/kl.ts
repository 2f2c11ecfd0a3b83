/**
 * Estimators of the KL penalty (Schulman 2020, "Approximating KL divergence"), one term of the loss per token.
 *
 * A token drawn from pi has d = l_ref - l. The value says what the metric is an estimate of, the gradient what is
 * minimized; the two are not the same thing. In expectation over tokens drawn from pi, given what is before them:
 *
 * | name | value | is an estimate of | d value / d l | pulls, on average, along the gradient of |
 * |---|---|---|---|---|
 * | k1 | -d | KL(pi, ref), unbiased, may be negative | 1 | nothing: E[grad l] = 0, so it adds noise and no penalty |
 * | k2 | d^2 / 2 | KL(pi, ref), biased | -d | KL(pi, ref): unbiased |
 * | k3 | exp(d) - d - 1 | KL(pi, ref), unbiased, never negative | 1 - exp(d) | KL(ref, pi), the other direction |
 * | k3+ | that of k3 | as k3 | -d, that of k2 | KL(pi, ref): unbiased |
 *
 * Stage-2 tokens are drawn from theta', not from pi: there every estimate is biased.
 */

const MAX_LOG_RATIO = 20;
const MAX_VALUE = 10;

export interface KlTerm {
  value: number;
  /** d value / d l. */
  gradient: number;
}

/** k1: l - l_ref. Its gradient is 1 whatever the reference says. verl: `k1` or `kl`. */
export function k1(l: number, refLogprob: number): KlTerm {
  return { value: l - refLogprob, gradient: 1 };
}

/** k2: (l - l_ref)^2 / 2, with gradient l - l_ref. verl: `k2` or `mse`. */
export function k2(l: number, refLogprob: number): KlTerm {
  const gradient = l - refLogprob;
  return { value: 0.5 * gradient * gradient, gradient };
}

/**
 * k3 of one token: with d = l_ref - l clamped to +-20, exp(d) - d - 1, clamped to 10 (it is never negative).
 * `gradient` is d k3 / d l = 1 - exp(d), and exactly 0 where a clamp acts, as autograd of a clamp gives it: a token that
 * the reference finds more than about 13 times likelier (d > 2.6) or e^11 times less likely (d < -11) than the policy has
 * k3 > 10 and is no longer pulled back. verl: `k3` or `low_var_kl`; TRL's only one, without the clamps.
 */
export function k3(l: number, refLogprob: number): KlTerm {
  const logRatio = refLogprob - l;
  const d = Math.min(Math.max(logRatio, -MAX_LOG_RATIO), MAX_LOG_RATIO);
  // expm1(d) - d keeps its digits where d is small.
  const value = Math.expm1(d) - d;
  if (value > MAX_VALUE) return { value: MAX_VALUE, gradient: 0 };
  return { value, gradient: Math.abs(logRatio) > MAX_LOG_RATIO ? 0 : -Math.expm1(d) };
}

/** The value of k3 with the gradient of k2 ("straight-through"). verl: `k3+`. */
export function k3Plus(l: number, refLogprob: number): KlTerm {
  return { value: k3(l, refLogprob).value, gradient: l - refLogprob };
}

export const KL_ESTIMATORS = { k1, k2, k3, 'k3+': k3Plus } as const;
export type KlEstimator = keyof typeof KL_ESTIMATORS;
