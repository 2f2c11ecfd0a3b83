/** One answer judged: find it in the response, then compare it with the gold answers. */
import { equivalent } from './equivalent.js';
import { type ExtractOptions, extractAnswer, lastBoxed } from './extract.js';

/** What a comparison came to. Everything but 'equal' is wrong as a reward. */
export type VerifyOutcome = 'equal' | 'different' | 'no-answer' | 'undecided' | 'timeout' | 'memory' | 'crashed';

/** One answer to be judged: a `prediction`, or a `response` that holds one. */
export interface VerifyItem {
  /** The answer itself. */
  prediction?: string;
  /** A whole response, in which the answer is looked for. */
  response?: string;
  /** The gold answer, or a list of accepted ones. Of a worked solution that ends in `#### x` or a box, x counts. */
  gold: string | readonly string[];
  options?: VerifyOptions;
}

/** How an item is judged. */
export interface VerifyOptions {
  /** How the answer is found in a response. */
  extract?: ExtractOptions;
}

/** The judgement of a {@link VerifyItem}. */
export interface Verdict {
  /** True only for outcome 'equal'. */
  equal: boolean;
  outcome: VerifyOutcome;
  /** What was compared; null where the response gives no answer, '' where it gives an empty one. */
  answer: string | null;
  /** Why, in words: which rule decided, or the message of what went wrong. */
  reason: string;
}

/** Judges one item here and now. Total time is whatever the comparison takes: the pool is what bounds it. */
export function judge(item: VerifyItem): Verdict {
  const answer = item.prediction ?? extractAnswer(item.response ?? '', item.options?.extract);
  if (answer === null) return { equal: false, outcome: 'no-answer', answer, reason: 'the response gives no answer' };
  const golds = typeof item.gold === 'string' ? [item.gold] : item.gold;
  const equal = golds.some((gold) => equivalent(answer, goldAnswer(gold)));
  return { equal, outcome: equal ? 'equal' : 'different', answer, reason: '' };
}

/** The answer of a gold text: after the last `####`, else in the last box, else all of it. */
export function goldAnswer(gold: string): string {
  const hashes = gold.lastIndexOf('####');
  return hashes >= 0 ? gold.slice(hashes + 4).trim() : (lastBoxed(gold) ?? gold);
}
