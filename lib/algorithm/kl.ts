/** The KL penalty's estimator. */

const MAX_LOG_RATIO = 20;
const MAX_VALUE = 10;

/**
 * k3 of one token: with d = l_ref - l clamped to +-20, exp(d) - d - 1, clamped to 10 (it is never negative).
 * `gradient` is d k3 / d l = 1 - exp(d), and exactly 0 where a clamp acts, as autograd of a clamp gives it: a token that
 * the reference finds more than about 13 times likelier (d > 2.6) or e^11 times less likely (d < -11) than the policy has
 * k3 > 10 and is no longer pulled back.
 */
export function k3(l: number, refLogprob: number): { value: number; gradient: number } {
  const logRatio = refLogprob - l;
  const d = Math.min(Math.max(logRatio, -MAX_LOG_RATIO), MAX_LOG_RATIO);
  // expm1(d) - d keeps its digits where d is small.
  const value = Math.expm1(d) - d;
  if (value > MAX_VALUE) return { value: MAX_VALUE, gradient: 0 };
  return { value, gradient: Math.abs(logRatio) > MAX_LOG_RATIO ? 0 : -Math.expm1(d) };
}
