/** The unbiased estimator of pass@k. */
import { InvalidArgumentError } from '../errors.js';

/**
 * The probability that at least one of k samples, drawn without replacement from n of which c are correct, is correct:
 * 1 - C(n-c, k) / C(n, k), as the product 1 - prod_{i=n-c+1..n} (1 - k/i), which never overflows.
 *
 * @throws InvalidArgumentError unless 0 <= c <= n and 1 <= k <= n, all integers
 */
export function passAtK(n: number, c: number, k: number): number {
  if (!Number.isInteger(n) || !Number.isInteger(c) || c < 0 || c > n) {
    throw new InvalidArgumentError(`pass@k: need 0 <= correct <= samples, got ${c} correct of ${n} samples`);
  }
  if (!Number.isInteger(k) || k < 1 || k > n) {
    throw new InvalidArgumentError(`pass@k: k must be between 1 and the number of samples ${n}, got ${k}`);
  }
  if (n - c < k) return 1;
  let allWrong = 1;
  for (let i = n - c + 1; i <= n; i += 1) allWrong *= 1 - k / i;
  return 1 - allWrong;
}
