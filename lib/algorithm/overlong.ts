/** Overlong reward shaping. */
import { InvalidArgumentError } from '../errors.js';

/**
 * DAPO's soft punishment (arXiv 2503.14476, Eq. 13), to be added to the reward of a response of |y| tokens:
 *
 *     0                                        |y| <= L_max - L_cache
 *     ((L_max - L_cache) - |y|) / L_cache      above it, down to -1 at L_max
 *     -1                                       |y| > L_max
 *
 * @param length - |y|, tokens of the response
 * @param maxTokens - L_max, the most it can have
 * @param buffer - L_cache: how many of them are punished. 0 = none
 * @throws InvalidArgumentError where the buffer is not between 0 and `maxTokens`
 */
export function overlongPenalty(length: number, maxTokens: number, buffer: number): number {
  if (!(buffer >= 0 && buffer <= maxTokens)) {
    throw new InvalidArgumentError(`buffer must be at least 0 and at most maxTokens = ${maxTokens}, got ${buffer}`);
  }
  const excess = length - (maxTokens - buffer);
  if (buffer === 0 || excess <= 0) return 0;
  return -Math.min(1, excess / buffer);
}
