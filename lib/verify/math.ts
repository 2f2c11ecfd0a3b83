/** Mathematical answers as a reward. */
import { checkOptions, type OptionKeys, SIGNAL } from '../options.js';
import type { Verdict, VerifyItem } from './judge.js';
import { type VerifierPool, verifierPool } from './pool.js';

interface BatchOptions {
  pool?: VerifierPool;
  signal?: AbortSignal;
}

const KEYS: OptionKeys<BatchOptions> = { pool: true, ...SIGNAL };

/**
 * Judges a batch of answers in the worker processes of `pool` (default {@link verifierPool}); verdict i belongs to item i
 * and `equal` is the reward. What cannot be decided within the pool's bounds is wrong, says so in `outcome` and is counted
 * in `pool.stats`.
 *
 * ```ts
 * const verdicts = await verifyMath([{ response: 'so it is \\boxed{\\frac12}', gold: '0.5' }]);
 * ```
 *
 * @throws as {@link VerifierPool.verify}
 */
export async function verifyMath(items: readonly VerifyItem[], options: BatchOptions = {}): Promise<Verdict[]> {
  checkOptions(options, KEYS, 'verifyMath');
  const { pool = verifierPool(), signal } = options;
  return await pool.verify(items, { signal });
}
