/** The values in a text: mathematics between delimiters, LaTeX formulas, tuples and numbers. */

/** A value and where it is. */
export interface Value {
  begin: number;
  end: number;
  /** Mathematics between delimiters (`$...$`), which are part of the value. */
  math: boolean;
}

const MAX_INLINE = 2_000;
const MAX_DISPLAY = 4_000;

const NUMBER = /(?:[0-9]{1,3}(?:(?:,|\{,\}|,\\!\s?|\\,| )[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+/y;
/** The second half of a fraction or of a power of ten, and percent. */
const AFTER_NUMBER = /(?:[eE][-+]?[0-9]{1,4}(?![A-Za-z0-9])|\s?\/\s?[0-9]+(?:\.[0-9]+)?)?(?:\s?\\?%)?/y;
/** Macros that are no part of a formula that is written outside delimiters. */
const OTHER_MACRO =
  /\\(?:text[a-z]*|math[a-z]*|q?quad|times|cdot|div|pm|mp|le|leq|ge|geq|ne|neq|lt|gt|approx|equiv|sim|to|in|implies|iff|[a-zA-Z]*arrow|therefore|because|item|begin|end|displaystyle|boxed|fbox|left|right|[bB]igg?[lr]?|hline|section|emph|label|tag|ldots|cdots|dots)(?![a-zA-Z])/y;
const MACRO = /\\[a-zA-Z]+(?:\[[0-9n]{1,3}\])?/y;
const TUPLE = /(?:[([]|\\\{)\s?[^()[\]{}$\n]{1,100}?,[^()[\]{}$\n]{1,100}(?:[)\]]|\\\})/y;
/** Words make a parenthesis of a tuple; macros and the names of environments are none. */
const WORD = /[A-Za-z]{2}/;
const MACROS = /\\(?:begin\s*\{array\}\s*\{[lcr| ]*\}|(?:begin|end|text|mathrm|mbox)\s*\{[^{}]*\}|[A-Za-z]+)/g;
const hasWord = (text: string): boolean => WORD.test(text.replace(MACROS, ' '));

/** The values of a short text in their order. */
export function valuesOf(text: string): Value[] {
  const values: Value[] = [];
  let i = 0;
  while (i < text.length) {
    const value = valueAt(text, i);
    if (value === null) {
      i += text[i] === '\\' ? 2 : 1;
      continue;
    }
    if (!value.math && !/[0-9]/.test(text.slice(value.begin, value.end))) {
      i = value.end;
      continue;
    }
    const previous = values.at(-1);
    if (previous !== undefined && !previous.math && !value.math && isJoined(text.slice(previous.end, value.begin))) {
      previous.end = value.end;
    } else {
      values.push(value);
    }
    i = value.end;
  }
  return values;
}

/** `3\sqrt{2}` and `5 + 1` are one value each. */
const isJoined = (between: string): boolean =>
  between === '' || /^[ \t]?(?:[-−+*×·÷/^]|\\times|\\cdot|\\div)[ \t]{0,2}$/.test(between);

function valueAt(text: string, i: number): Value | null {
  const math = mathEnd(text, i);
  if (math > i) return { begin: i, end: math, math: true };
  const c = text[i] as string;
  if (c === '(' || c === '[' || (c === '\\' && text[i + 1] === '{')) return tupleAt(text, i);
  if (c === '\\') return macroEnd(text, i) < 0 ? null : formulaAt(text, i);
  return isWord(c) || c === '.' ? formulaAt(text, i) : null;
}

/**
 * The end of the mathematics that begins at i, its closing delimiter included; -1 where none begins. A dollar sign opens
 * and closes as in Pandoc, so that `$5 and $6` is no mathematics.
 */
export function mathEnd(text: string, i: number): number {
  if (text.startsWith('\\(', i)) return closingBracket(text, i + 2, '\\)', MAX_INLINE);
  if (text.startsWith('\\[', i)) return closingBracket(text, i + 2, '\\]', MAX_DISPLAY);
  if (text[i] !== '$' || text[i - 1] === '\\') return -1;
  if (text[i + 1] === '$') return closing(text, i + 2, '$$', MAX_DISPLAY);
  const end = closing(text, i + 1, '$', MAX_INLINE);
  if (end < 0) return -1;
  const inside = text.slice(i + 1, end - 1);
  if (inside.includes('\n\n') || /[0-9]/.test(text[end] ?? '')) return -1;
  if (/^\S[\s\S]*\S$|^\S$/.test(inside)) return end;
  return /\S/.test(inside) && !hasWord(inside) ? end : -1;
}

/** The last search: what was not found from there on is not searched for again, however often mathematics opens. */
let searched = { text: '', delimiter: '', from: 0, at: -1 };

function closingBracket(text: string, from: number, delimiter: string, limit: number): number {
  const known = searched.text === text && searched.delimiter === delimiter && searched.from <= from;
  if (!known || (searched.at >= 0 && searched.at < from)) {
    searched = { text, delimiter, from, at: text.indexOf(delimiter, from) };
  }
  const { at } = searched;
  return at < 0 || at + delimiter.length > from + limit ? -1 : at + delimiter.length;
}

function closing(text: string, from: number, delimiter: string, limit: number): number {
  const window = text.slice(from, from + limit);
  let at = window.indexOf(delimiter);
  // `\$` is a dollar sign.
  while (at > 0 && delimiter === '$' && window[at - 1] === '\\' && window.indexOf('$', at + 1) >= 0) {
    at = window.indexOf('$', at + 1);
  }
  return at < 0 ? -1 : from + at + delimiter.length;
}

/** The end of the macro at i if it belongs to a formula, its arguments not included; else -1. */
function macroEnd(text: string, i: number): number {
  OTHER_MACRO.lastIndex = i;
  if (OTHER_MACRO.test(text)) return -1;
  MACRO.lastIndex = i;
  const macro = MACRO.exec(text)?.[0];
  return macro === undefined ? -1 : i + macro.length;
}

/** The end of the `{...}` at i. */
function groupEnd(text: string, i: number): number {
  let depth = 0;
  const limit = Math.min(text.length, i + MAX_INLINE);
  for (let at = i; at < limit; at += 1) {
    if (text[at] === '{') depth += 1;
    else if (text[at] === '}') {
      depth -= 1;
      if (depth === 0) return at + 1;
    }
  }
  return limit;
}

function tupleAt(text: string, i: number): Value | null {
  TUPLE.lastIndex = i;
  const tuple = TUPLE.exec(text)?.[0];
  if (tuple === undefined || hasWord(tuple) || !/[0-9]/.test(tuple)) return null;
  return { begin: i, end: i + tuple.length, math: false };
}

const MAX_FORMULA = 2_000;
const isWord = (c: string | undefined): boolean => c !== undefined && /[A-Za-z0-9_√π²³°]/.test(c);
const isDigit = (c: string | undefined): boolean => c !== undefined && c >= '0' && c <= '9';

/**
 * A number, word or macro with all that is written onto it: `3x`, `x^{12}`, `2^10` and `AZ2A` are not cut into pieces.
 * What has no digit is skipped.
 */
function formulaAt(text: string, begin: number): Value {
  const limit = Math.min(text.length, begin + MAX_FORMULA);
  let i = begin;
  while (i < limit) {
    const next = formulaPart(text, i, begin);
    if (next <= i) break;
    i = next;
  }
  return { begin: withSign(text, begin), end: Math.max(i, begin + 1), math: false };
}

/** The end of the part of a formula that begins at i; not above i where the formula is over. */
function formulaPart(text: string, i: number, begin: number): number {
  const c = text[i] as string;
  if (isDigit(c) || (c === '.' && isDigit(text[i + 1]))) return numberEnd(text, i);
  if (isWord(c)) return i + 1;
  if (c === '\\') return macroEnd(text, i);
  if (i === begin) return -1;
  if (c === '{') return groupEnd(text, i);
  if (c === '^') return i + 1;
  return '+-*/'.includes(c) && (isWord(text[i + 1]) || text[i + 1] === '\\') ? i + 1 : -1;
}

function numberEnd(text: string, i: number): number {
  NUMBER.lastIndex = i;
  const number = NUMBER.exec(text)?.[0] ?? '';
  AFTER_NUMBER.lastIndex = i + number.length;
  return i + number.length + (AFTER_NUMBER.exec(text)?.[0].length ?? 0);
}

/** With a minus sign that is no subtraction. */
function withSign(text: string, begin: number): number {
  const sign = text[begin - 1];
  if (sign !== '-' && sign !== '−' && sign !== '–') return begin;
  return /[A-Za-z0-9)\]}]/.test(text[begin - 2] ?? '') ? begin : begin - 1;
}

/** The text with mathematics blanked out, every position kept. */
export function withoutMath(text: string): string {
  let visible = '';
  let i = 0;
  while (i < text.length) {
    const math = mathEnd(text, i);
    if (math > i) {
      visible += '#'.repeat(math - i);
      i = math;
    } else {
      visible += text[i];
      i += 1;
    }
  }
  return visible;
}
