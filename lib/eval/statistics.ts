/** Means with their uncertainty: problems are a sample from a population of problems. */
import { Random } from '../tasks/random.js';

/** A mean over problems, between 0 and 1. */
export interface Estimate {
  value: number;
  /** Standard deviation over the problems (ddof 1) by the root of their number; null for one problem. */
  standardError: number | null;
  /** 95 % confidence interval. */
  interval: readonly [number, number];
}

const Z95 = 1.959963984540054;
const RESAMPLES = 2000;

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** s / sqrt(N) with ddof = 1; null for fewer than two values. */
export function standardError(values: readonly number[]): number | null {
  const n = values.length;
  if (n < 2) return null;
  const average = mean(values);
  const variance = values.reduce((sum, value) => sum + (value - average) ** 2, 0) / (n - 1);
  return Math.sqrt(variance / n);
}

/**
 * Wilson's 95 % score interval of a share: right for small N and for shares of 0 and 1, where the normal interval has no
 * width (Wilson 1927).
 */
export function wilsonInterval(successes: number, n: number): [number, number] {
  const p = successes / n;
  const z2 = Z95 * Z95;
  const center = (p + z2 / (2 * n)) / (1 + z2 / n);
  const half = (Z95 / (1 + z2 / n)) * Math.sqrt((p * (1 - p)) / n + z2 / (4 * n * n));
  // The bounds of 0 and n successes are exact; rounding must not move them.
  return [successes === 0 ? 0 : Math.max(0, center - half), successes === n ? 1 : Math.min(1, center + half)];
}

/**
 * The 2.5 % and 97.5 % quantiles of the mean over 2000 bootstrap resamples of the values (problems, with all their
 * samples). Deterministic: the generator's seed is fixed.
 */
export function bootstrapInterval(values: readonly number[]): [number, number] {
  const n = values.length;
  const random = new Random(0, 0xb007);
  const means = Float64Array.from({ length: RESAMPLES }, () => {
    let sum = 0;
    for (let i = 0; i < n; i += 1) sum += values[random.int(n)] as number;
    return sum / n;
  }).sort();
  const quantile = (q: number): number => means[Math.round(q * (RESAMPLES - 1))] as number;
  return [quantile(0.025), quantile(0.975)];
}

/** A share of problems: each value is 0 or 1. */
export function shareEstimate(values: readonly number[]): Estimate {
  const successes = values.reduce((sum, value) => sum + value, 0);
  return {
    value: mean(values),
    standardError: standardError(values),
    interval: wilsonInterval(successes, values.length),
  };
}

/** A mean over problems of values between 0 and 1. */
export function meanEstimate(values: readonly number[]): Estimate {
  return { value: mean(values), standardError: standardError(values), interval: bootstrapInterval(values) };
}
