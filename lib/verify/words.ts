/** Words of language among letters: which runs of letters are no product of variables. */
import { isUnitWord } from './units.js';

/** Where a run of letters stands. */
export interface Place {
  /** A number or a closing bracket comes before it. */
  afterOperand: boolean;
  /** A space comes before it. */
  afterSpace: boolean;
  /** Nothing, a word or a separator comes before it. */
  first: boolean;
}

const JOINING = new Set(['and', 'or', 'if', 'for', 'where', 'when', 'with', 'then']);
export const isJoiningWord = (word: string): boolean => JOINING.has(word);

/** Short units that are rarely products; others, such as `in`, `pt` or `rs`, need a space before them. */
const SHORT_UNITS = new Set(['cm', 'mm', 'km', 'kg', 'ft', 'lb', 'lbs', 'mph', 'kph', 'pct', 'am', 'pm', 'usd', 'deg']);
const COMMON = new Set(
  'yes true false none odd even neither both all not are the per sq east west north south day days dog dogs cat cats men way ways sec secs min mins cup cups one two six ten'.split(
    ' ',
  ),
);
/** Short words that are products as well: `by + ax`. */
const BETWEEN_NUMBERS = new Set(['to', 'of', 'by']);
const VOWEL = /[aeiouy]/i;

/** Whether `run` (letters without a backslash, not a function's name) is a word: a unit, a common word, or long. */
export function isWord(run: string, { afterOperand, afterSpace, first }: Place): boolean {
  if (run.length === 1) return false;
  const lower = run.toLowerCase();
  if (JOINING.has(lower)) return true;
  if (SHORT_UNITS.has(lower)) return afterOperand;
  if (isUnitWord(lower)) return run.length > 3 || (afterOperand && afterSpace);
  if (BETWEEN_NUMBERS.has(lower)) return afterOperand && afterSpace;
  if (COMMON.has(lower)) return afterSpace || first;
  // `2 red 3 blue`; a product of three letters has no space before it.
  if (/^[b-df-hj-np-tv-z][aeiou][b-df-hj-np-tv-z]$/.test(run) && afterOperand && afterSpace) return true;
  // Long enough for a word, and where a word can stand: `2abcd` and `\frac{abcd}{2}` are products.
  return (
    run.length > 3 && VOWEL.test(run) && /^[A-Z]?[a-z]+$|^[A-Z]+$/.test(run) && (first || (afterOperand && afterSpace))
  );
}
