/** Whether two answers are the same: the public face of the comparison. */
import { InvalidArgumentError } from '../errors.js';
import { checkOptions, describe, type OptionKeys } from '../options.js';
import { keyOf } from './canonical.js';
import { Comparison, type Tolerance } from './compare/compare.js';
import { mapTree } from './compare/tree.js';
import { extractAnswer, statedAnswer as statedAnswerOf } from './extract.js';
import { parseAnswer } from './latex/answer.js';
import type { Node } from './latex/ast.js';
import { cleanLatex } from './latex/clean.js';
import { joinedParts } from './latex/parts.js';
import { equalRationals, parseDecimal, type Rational } from './rational.js';

export type { Tolerance } from './compare/compare.js';

import { isProse, mayBeProse } from './prose.js';
import { choiceOf, saysNone, textKey, timeOf, wordedMathematics } from './text.js';

/** No answer is longer; of a longer text only what it states as its answer is read. */
const MAX_ANSWER = 2_000;
/** Of a text beyond this only the end is read. */
const MAX_TEXT = 20_000;
/** A comma between the digits of one amount of money: a list has no unit of its own. */
const DECIMAL_COMMA = /^[-+]?\d+,\d{1,2} *\\(?:\$|euro|pounds)$/;
/** No thousands, which are groups of three after another digit than 0, and not `1,5`, which is likelier a list. */
const COMMA_NUMBER = /^(?![-+]?[1-9]\d{0,2},\d{3}$)([-+]?(?:\d{1,3}(?:\.\d{3})+|0(?=,\d)|\d+(?=,\d\d))),(\d+)$/;
const PLAIN_NUMBER = /^([-+]?)(\d+(?:\.\d+)?|\.\d+)$/;

export interface EquivalentOptions {
  /**
   * How far two real numbers may be apart: a number is relative to the larger of them. Default: not at all, `0.333` is not
   * `\frac{1}{3}`. A benchmark that asks for measured values sets one.
   */
  tolerance?: number | Tolerance;
}

export const COMPARE_KEYS: OptionKeys<EquivalentOptions> = { tolerance: true };
const TOLERANCE_KEYS: OptionKeys<Tolerance> = { relative: true, absolute: true };

/** @throws InvalidArgumentError for an unknown option, or one that is no option at all */
export function checkComparison(options: EquivalentOptions, where: string): void {
  checkOptions(options, COMPARE_KEYS, where);
  const { tolerance } = options;
  if (tolerance !== undefined && typeof tolerance !== 'number') {
    checkOptions(tolerance, TOLERANCE_KEYS, `${where}: tolerance`);
  }
}

/** The outcome of a comparison with its reason. */
export interface AnswerComparison {
  equal: boolean;
  /** Nothing was found out: too long, too large, or mathematics we do not evaluate. Counts as not equal. */
  undecided: boolean;
  /** What settled it, for people: `same text`, `same value`, `different`, `too long`... */
  reason: string;
}

/**
 * Whether `prediction` is the answer `gold`, by the rules of docs/verifier.md: equal numbers, expressions equal wherever both
 * are defined, the same interval, set, tuple, matrix, equation up to a factor, unit or word. Symmetric, total (it throws
 * nothing, whatever the texts hold) and bounded in time and memory; what cannot be decided within the bounds is not equal.
 */
export function equivalent(
  prediction: string | number,
  gold: string | number,
  options: EquivalentOptions = {},
): boolean {
  checkComparison(options, 'equivalent');
  return compareAnswers(prediction, gold, options).equal;
}

/** {@link equivalent} with the reason, and whether anything was decided at all. */
export function compareAnswers(
  prediction: string | number,
  gold: string | number,
  options: EquivalentOptions = {},
): AnswerComparison {
  checkComparison(options, 'compareAnswers');
  const tolerance = typeof options.tolerance === 'number' ? { relative: options.tolerance } : (options.tolerance ?? {});
  const x = answerOf(textOf(prediction, 'prediction'));
  const y = answerOf(textOf(gold, 'gold'));
  if (x === null || y === null) return outcome('undecided', 'too long');
  const result = compareTexts(x, y, tolerance);
  if (result.equal) return result;
  return compareStated(x, y, tolerance) ?? result;
}

/** Gold answers are often numbers in a file. */
function textOf(answer: string | number, name: string): string {
  if (typeof answer === 'string') return answer;
  if (typeof answer === 'number') return String(answer);
  throw new InvalidArgumentError(`${name} must be a string or a number, got ${describe(answer)}`);
}

const outcome = (verdict: 'equal' | 'different' | 'undecided', reason: string): AnswerComparison => ({
  equal: verdict === 'equal',
  undecided: verdict === 'undecided',
  reason,
});

/** What is known of one answer. */
interface Answer {
  raw: string;
  cleaned: string;
  /** The trees it can be read as, the likeliest first; filled when needed. */
  readings: Node[] | null;
}

/** Gold answers come again with every sample of a prompt. */
const CACHE_SIZE = 1_000;
const cache = new Map<string, Answer>();

function answerOf(text: string): Answer | null {
  const known = cache.get(text);
  if (known !== undefined) return known;
  let raw = text;
  if (raw.length > MAX_ANSWER) {
    const stated = extractAnswer(raw.slice(-MAX_TEXT));
    if (stated === null || stated.length > MAX_ANSWER) return null;
    raw = stated;
  }
  const cleaned = cleanLatex(raw);
  const worded = wordedMathematics(cleaned) ?? joinedParts(cleaned);
  const answer: Answer = { raw: worded ?? raw, cleaned: worded ?? cleaned, readings: null };
  if (text.length <= MAX_ANSWER) {
    if (cache.size >= CACHE_SIZE) cache.delete(cache.keys().next().value as string);
    cache.set(text, answer);
  }
  return answer;
}

function compareTexts(x: Answer, y: Answer, tolerance: Tolerance): AnswerComparison {
  if (x.cleaned === '' || y.cleaned === '') return outcome('different', 'no answer');
  if (x.cleaned === y.cleaned) return outcome('equal', 'same text');
  const numbers = plainNumbers(x.cleaned, y.cleaned, tolerance);
  if (numbers !== null) return numbers;
  if (equalByComma(x.cleaned, y.cleaned) || equalByComma(y.cleaned, x.cleaned))
    return outcome('equal', 'same number, with a decimal comma');
  const words = compareWords(x.cleaned, y.cleaned);
  if (words !== null) return words;
  return compareReadings(readingsOf(x), readingsOf(y), tolerance);
}

/** Two numbers without anything around them: most comparisons there are. */
function plainNumbers(x: string, y: string, tolerance: Tolerance): AnswerComparison | null {
  const a = plainNumber(x);
  const b = a === null ? null : plainNumber(y);
  if (a === null || b === null) return null;
  if (equalRationals(a, b)) return outcome('equal', 'same number');
  return tolerance.relative || tolerance.absolute ? null : outcome('different', 'different numbers');
}

/** `2,74` and `0,5` are two numbers, except beside the decimal fractions 2.74 and 0.5; `1.234,5` can be nothing else. */
function equalByComma(text: string, other: string): boolean {
  const match = COMMA_NUMBER.exec(text);
  if (match === null || !(other.includes('.') || match[1]?.includes('.'))) return false;
  const value = plainNumber(`${(match[1] as string).replaceAll('.', '')}.${match[2]}`);
  const number = value === null ? null : plainNumber(other);
  return value !== null && number !== null && equalRationals(value, number);
}

function plainNumber(text: string): Rational | null {
  const match = PLAIN_NUMBER.exec(text);
  const value = match === null ? null : parseDecimal(match[2] as string);
  return value !== null && match?.[1] === '-' ? { numerator: -value.numerator, denominator: value.denominator } : value;
}

/** Names, choices, times of day, "no solution". */
function compareWords(x: string, y: string): AnswerComparison | null {
  const key = textKey(x);
  // Where braces and spaces mean something, the parser compares.
  const grouped = key.includes(',') && !/[a-z]{3}/i.test(key);
  if (key !== '' && !grouped && !/[\\^_/]/.test(key) && key === textKey(y)) return outcome('equal', 'same text');
  if (saysNone(x) && saysNone(y)) return outcome('equal', 'both say there is none');
  const [s, t] = [timeOf(x), timeOf(y)];
  if (s !== null && t !== null) {
    const same = s.fields === t.fields && (s.half === t.half || s.half === '' || t.half === '');
    return outcome(same ? 'equal' : 'different', 'times of day');
  }
  const [a, b] = [choiceOf(x), choiceOf(y)];
  if (a !== null && b !== null && (a.alone || b.alone))
    return outcome(a.letter === b.letter ? 'equal' : 'different', 'choices');
  return null;
}

function compareReadings(xs: Node[], ys: Node[], tolerance: Tolerance): AnswerComparison {
  if (xs.length === 0 || ys.length === 0)
    return outcome(xs.length === ys.length ? 'undecided' : 'different', 'not mathematics we read');
  let undecided = false;
  for (const [i, x] of xs.entries()) {
    for (const [j, y] of ys.entries()) {
      if (!readTogether(x, y, i, j)) continue;
      const verdict = new Comparison(tolerance).same(x, y);
      if (verdict === 'equal') return outcome('equal', 'same value');
      undecided ||= verdict === 'undecided';
    }
  }
  return outcome(undecided ? 'undecided' : 'different', undecided ? 'not decided within the bounds' : 'different');
}

/** `1,234` is two numbers only beside an answer that is plainly several. */
function readTogether(x: Node, y: Node, i: number, j: number): boolean {
  if (i === 0 && j === 0) return true;
  const several = (node: Node): boolean => node.kind === 'list' || node.kind === 'set' || node.kind === 'tuple';
  return several(x) === several(y);
}

function readingsOf(answer: Answer): Node[] {
  if (answer.readings !== null) return answer.readings;
  const { cleaned } = answer;
  const readings: Node[] = [];
  answer.readings = readings;
  // Capital letters in a row are a name or an order of things, not a product.
  if (isProse(answer.raw) || /^[A-Z]{2,}$/.test(textKey(cleaned))) return readings;
  const add = (node: Node | null): void => {
    if (node !== null && !readings.some((known) => keyOf(known) === keyOf(node))) readings.push(node);
  };
  const first = parseAnswer(cleaned, { commas: 'thousands' });
  add(first);
  if (/\d,\d{3}/.test(cleaned)) add(parseAnswer(cleaned, { commas: 'list' }));
  if (/\d [mgshLNJWV]\b/.test(cleaned)) add(parseAnswer(cleaned, { commas: 'thousands', letters: 'units' }));
  if (DECIMAL_COMMA.test(cleaned)) add(parseAnswer(cleaned.replace(',', '.'), { commas: 'thousands' }));
  if (first !== null && /log(?!_)/.test(cleaned)) add(naturalLogarithms(first));
  return readings;
}

/** A logarithm without a base is to base 10, or in analysis the natural one. */
function naturalLogarithms(node: Node): Node {
  const visit = (part: Node): Node | null =>
    part.kind === 'call' && part.fn === 'log' && part.args.length === 1
      ? { kind: 'call', fn: 'ln', args: [mapTree(part.args[0] as Node, visit)] }
      : null;
  return mapTree(node, visit);
}

/** An answer in a sentence: what the sentence states. */
function compareStated(x: Answer, y: Answer, tolerance: Tolerance): AnswerComparison | null {
  const a = statedAnswer(x);
  const b = statedAnswer(y);
  if (a === null && b === null) return null;
  const left = a ?? x;
  const right = b ?? y;
  const result = compareTexts(left, right, tolerance);
  return result.equal ? { ...result, reason: `stated answer: ${result.reason}` } : null;
}

function statedAnswer(answer: Answer): Answer | null {
  if (readingsOf(answer).length > 0 || !mayBeProse(answer.raw)) return null;
  const stated = statedAnswerOf(answer.raw);
  return stated === null || stated === answer.raw ? null : answerOf(stated);
}
