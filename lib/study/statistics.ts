/** Statistics of a few independent values: one per seed. */
import { InvalidArgumentError } from '../errors.js';

/** A mean with its uncertainty. */
export interface MeanInterval {
  /** Number of values. */
  n: number;
  mean: number;
  /** Standard deviation, ddof 1; null for one value. */
  sd: number | null;
  /** Half the width of the 95 % interval; null for one value. */
  half: number | null;
}

/**
 * Mean of independent values with its 95 % confidence interval by Student's t: mean ± t(0.975, n - 1) sd / sqrt(n). It
 * supposes values of about a normal distribution; for n = 5 it is 2.8 standard errors wide on either side, not 2.
 *
 * @returns null for no values
 */
export function meanInterval(values: readonly number[]): MeanInterval | null {
  const n = values.length;
  if (n === 0) return null;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  if (n === 1) return { n, mean, sd: null, half: null };
  const sd = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1));
  return { n, mean, sd, half: (studentQuantile(0.975, n - 1) * sd) / Math.sqrt(n) };
}

/** Natural logarithm of the gamma function for x > 0 (Lanczos, g = 7, 9 terms): relative error about 1e-15. */
export function logGamma(x: number): number {
  if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x);
  const terms = LANCZOS.reduce((sum, c, i) => sum + (i === 0 ? c : c / (x - 1 + i)), 0);
  const t = x - 1 + 7.5;
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(terms);
}

const LANCZOS = [
  0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
  12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
];

/**
 * Regularized incomplete beta function I_x(a, b) for a, b > 0 and 0 <= x <= 1, by the continued fraction of DLMF 8.17.22
 * (modified Lentz).
 */
export function incompleteBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  // The fraction converges fast on one side; on the other the function is 1 minus its mirror image.
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x)) / a;
  const guard = (value: number): number => (Math.abs(value) < 1e-300 ? 1e-300 : value);
  let c = 1;
  let d = 1 / guard(1 - ((a + b) * x) / (a + 1));
  let fraction = d;
  for (let m = 1; m <= 10_000; m += 1) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / guard(1 + even * d);
    c = guard(1 + even / c);
    fraction *= d * c;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / guard(1 + odd * d);
    c = guard(1 + odd / c);
    fraction *= d * c;
    if (Math.abs(d * c - 1) < 1e-16) break;
  }
  return front * fraction;
}

/** P(T <= t) of Student's distribution with `df` > 0 degrees of freedom. */
export function studentCdf(t: number, df: number): number {
  const tail = 0.5 * incompleteBeta(df / (df + t * t), df / 2, 0.5);
  return t > 0 ? 1 - tail : tail;
}

/**
 * The t with P(T <= t) = p.
 *
 * @param p - greater than 0, less than 1
 * @param df - degrees of freedom, at least 1
 * @throws InvalidArgumentError for others
 */
export function studentQuantile(p: number, df: number): number {
  if (!(p > 0 && p < 1)) throw new InvalidArgumentError(`studentQuantile: p = ${p}; expected 0 < p < 1`);
  if (!(df >= 1)) throw new InvalidArgumentError(`studentQuantile: df = ${df}; expected at least 1`);
  if (p < 0.5) return -studentQuantile(1 - p, df);
  if (p === 0.5) return 0;
  let high = 1;
  while (studentCdf(high, df) < p) high *= 2;
  let low = high === 1 ? 0 : high / 2;
  // Halving is slow and always right; 60 halvings are all the digits there are.
  for (let i = 0; i < 60; i += 1) {
    const middle = (low + high) / 2;
    if (studentCdf(middle, df) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/**
 * Exact two-sided sign test: the probability of signs at least as one-sided as these, were either sign as likely.
 * Differences of 0 say nothing and are left out.
 *
 * @returns null where all are 0
 */
export function signTest(differences: readonly number[]): number | null {
  const positive = differences.filter((d) => d > 0).length;
  const negative = differences.filter((d) => d < 0).length;
  const n = positive + negative;
  if (n === 0) return null;
  let choose = 1;
  let tail = 0;
  for (let k = 0; k <= Math.min(positive, negative); k += 1) {
    tail += choose;
    choose = (choose * (n - k)) / (k + 1);
  }
  return Math.min(1, (2 * tail) / 2 ** n);
}
