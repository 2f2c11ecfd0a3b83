/** Mathematical answers as a reward. */
import { judge, type Verdict, type VerifyItem } from './judge.js';

/** Judges a batch of answers; verdict i belongs to item i. */
export async function verifyMath(items: readonly VerifyItem[]): Promise<Verdict[]> {
  return items.map(judge);
}
