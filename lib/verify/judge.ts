/** One answer judged: find it in the response, then compare it with the gold answers. */
import { checkOptions, type OptionKeys } from '../options.js';
import { checkComparison, compareAnswers, type EquivalentOptions } from './equivalent.js';
import { EXTRACT_KEYS, type ExtractOptions, extractAnswer, lastBoxed } from './extract.js';

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
  /** How answers are compared. */
  compare?: EquivalentOptions;
}

const ITEM_KEYS: OptionKeys<VerifyItem> = { prediction: true, response: true, gold: true, options: true };
const OPTION_KEYS: OptionKeys<VerifyOptions> = { extract: true, compare: true };

/** @throws InvalidArgumentError for a key that nobody would read, of the item or of its options */
export function checkKeys(item: VerifyItem, where: string): void {
  checkOptions(item, ITEM_KEYS, where);
  const { options } = item;
  if (options === undefined) return;
  checkOptions(options, OPTION_KEYS, `${where}.options`);
  if (options.extract !== undefined) checkOptions(options.extract, EXTRACT_KEYS, `${where}.options.extract`);
  if (options.compare !== undefined) checkComparison(options.compare, `${where}.options.compare`);
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

/**
 * Judges one item here and now, in whatever time and memory its comparison takes; {@link verifyMath} bounds both. Several
 * gold answers: equal to one is right; undecided only where none is equal.
 */
export function judge({ prediction, response = '', gold, options = {} }: VerifyItem): Verdict {
  const answer = prediction ?? extractAnswer(response, options.extract);
  if (answer === null) return { equal: false, outcome: 'no-answer', answer, reason: 'the response gives no answer' };
  let result: Verdict = { equal: false, outcome: 'different', answer, reason: 'there is no gold answer' };
  for (const accepted of typeof gold === 'string' ? [gold] : gold) {
    const { equal, undecided, reason } = compareAnswers(answer, goldAnswer(accepted), options.compare);
    if (equal) return { equal, outcome: 'equal', answer, reason };
    if (result.outcome !== 'undecided') {
      result = { equal, outcome: undecided ? 'undecided' : 'different', answer, reason };
    }
  }
  return result;
}

/** The answer of a gold text: after the last `####`, else in its last boxes, else all of it. */
export function goldAnswer(gold: string): string {
  const hashes = gold.lastIndexOf('####');
  return hashes >= 0 ? gold.slice(hashes + 4).trim() : (lastBoxed(gold) ?? gold);
}
