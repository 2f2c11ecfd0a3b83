/** The smallest parts: letters with subscripts and primes, functions nobody defined, numerals in a base. */

import { table } from '../table.js';
import type { Node } from './ast.js';
import { type Cursor, fail, spelling } from './cursor.js';
import { type Items, parseBrackets } from './groups.js';

/** Names that are functions where a bracket follows. */
const FUNCTION_NAMES = new Set(['f', 'g', 'h']);

/** `x^2_1`: the subscript belongs to the letter. */
export function withSubscript(c: Cursor, base: Node): Node {
  if (base.kind !== 'symbol' || !c.take('_')) return base;
  return { kind: 'symbol', name: `${base.name}_${c.take('{') ? c.rawGroup() : takeOne(c)}` };
}

/** `204_5`: the digits and their base. */
export function basedNumber(c: Cursor, digits: string): Node {
  c.at += 1;
  const token = (c.take('{') ? c.rawGroup() : takeOne(c)).replace(/^\((.*)\)$/, '$1');
  const base = NUMBER_WORDS[token.toLowerCase()] ?? (/^\d{1,2}$/.test(token) ? Number(token) : 0);
  if (base < 2 || base > 36 || ![...digits].every((d) => d === '.' || Number.parseInt(d, 36) < base)) return fail();
  return { kind: 'based', digits: digits.replace(/^0+(?=\d)/, ''), base };
}

const NUMBER_WORDS = table<number>({
  two: 2,
  three: 3,
  four: 4,
  five: 5,
  six: 6,
  seven: 7,
  eight: 8,
  nine: 9,
  ten: 10,
  eleven: 11,
  twelve: 12,
  sixteen: 16,
});

export function takeOne(c: Cursor): string {
  const token = c.next;
  if (token === undefined) return fail();
  c.at += 1;
  return spelling(token);
}

/** A letter: a constant, a variable with its subscript and primes, or a function that a bracket follows. */
export function symbol(c: Cursor, letter: string, items: Items): Node {
  let name = letter;
  for (let count = 0; count < 8; count += 1) {
    if (c.take("'")) name += "'";
    else if (c.isMark('^') && c.isCommand('prime', 1)) {
      c.at += 2;
      name += "'";
    } else if (c.isMark('^') && c.isMark('{') === false && c.isMark('{', 1) && c.isCommand('prime', 2)) {
      c.at += 2;
      while (c.takeCommand('prime')) name += "'";
      c.expect('}');
    } else if (c.isMark('_')) {
      c.at += 1;
      name += `_${c.take('{') ? c.rawGroup() : takeOne(c)}`;
    } else break;
  }
  if (name === 'e') return { kind: 'constant', name: 'e' };
  if (name === 'i') return { kind: 'constant', name: 'i' };
  if (isApplication(c, letter, name)) {
    const bracket = c.bracketed(() => parseBrackets(c, items));
    return { kind: 'apply', name, args: bracket.kind === 'tuple' ? bracket.items : [bracket] };
  }
  return { kind: 'symbol', name };
}

/** `f(x)`, `P(A)`, `f'(2)`, `x(0)`, `W(n) =`; but `x(x+1)` is a product. */
function isApplication(c: Cursor, letter: string, name: string): boolean {
  if (!c.isMark('(') || c.next?.space) return false;
  if (FUNCTION_NAMES.has(letter) || name.includes("'")) return true;
  // A probability or an expectation: `P(X = 2) = 0.3`; but `P(1+r)^t` is a product.
  if ((letter === 'P' || letter === 'E') && c.at === 1 && equalsAfterBracket(c)) return true;
  const inside = c.peek(1);
  if (!c.isMark(')', 2)) return false;
  const label = c.isMark('=', 3) && c.at === 1;
  if (inside?.kind === 'number') return /^[A-Z]/.test(letter) || inside.digits === '0' || label;
  return inside?.kind === 'symbol' && (/^[A-Z]/.test(letter) || label);
}

function equalsAfterBracket(c: Cursor): boolean {
  let depth = 0;
  for (let offset = 0; offset < 40; offset += 1) {
    if (c.isMark('(', offset)) depth += 1;
    if (c.isMark(')', offset)) depth -= 1;
    if (depth === 0) return c.isMark('=', offset + 1);
  }
  return false;
}

export function lettersOf(c: Cursor): string {
  let text = '';
  while (c.next?.kind === 'symbol' || (c.next?.kind === 'word' && /^[A-Z]+$/.test(c.next.name))) text += takeOne(c);
  return text === '' ? fail() : text;
}
