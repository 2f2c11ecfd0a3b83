/** An answer: items with separators, each a relation, a set, a ratio or a quantity with its unit. */

import { equalRationals } from '../rational.js';
import { table } from '../table.js';
import { changesNumber, isUnitLetter, measureOf } from '../units.js';
import type { Node, RelationOp, Separator, Unit } from './ast.js';
import { childrenOf, int, num } from './ast.js';
import { cleanLatex } from './clean.js';
import { Cursor, FAILURE, fail } from './cursor.js';
import { parseArgument, parseExponent, parsePower, parseSum, parseTerm, startsFactor } from './expression.js';
import type { Items } from './groups.js';
import { type Token, type TokenOptions, tokenize } from './tokens.js';

const ITEMS: Items = {
  item: parseItem,
  list: parseList,
  sum: (c) => parseSum(c, ITEMS),
  term: (c) => parseTerm(c, ITEMS),
  power: (c) => parsePower(c, ITEMS),
  argument: (c) => parseArgument(c, ITEMS),
  exponent: (c) => parseExponent(c, ITEMS),
  startsFactor,
};

const RELATIONS = table<RelationOp>({
  '=': '=',
  '<': '<',
  '>': '>',
  '<=': '<=',
  '>=': '>=',
  '!=': '!=',
  '~': '~',
});
const RELATION_COMMANDS = table<RelationOp>({
  le: '<=',
  ge: '>=',
  ne: '!=',
  approx: '~',
  sim: '~',
  simeq: '~',
  cong: '~',
  doteq: '~',
  equiv: 'equiv',
  in: 'in',
  subset: 'subset',
  subseteq: 'subset',
  to: 'to',
  rightarrow: 'to',
  mapsto: 'to',
  Rightarrow: 'to',
  longrightarrow: 'to',
  Longrightarrow: 'to',
  implies: 'to',
  lt: '<',
  gt: '>',
});
/** Words before a value that add nothing. */
const FILLERS = new Set(
  'approximately about approx exactly only roughly around equals the is are nearly almost'.split(' '),
);
const MULTIPLES = table<bigint>({
  dozen: 12n,
  hundred: 100n,
  thousand: 1000n,
  million: 10n ** 6n,
  billion: 10n ** 9n,
  trillion: 10n ** 12n,
});
const PERCENT_WORDS = new Set(['percent', 'pct', 'percentage', 'percents']);

/** The meaning of an answer already cleaned, or null where it is no mathematics we read. */
export function parseAnswer(cleaned: string, options: TokenOptions): Node | null {
  const tokens = tokenize(cleaned, options);
  if (tokens === null || tokens.length === 0) return null;
  const cursor = new Cursor(tokens);
  try {
    const answer = parseList(cursor);
    return cursor.next === undefined && !isDeeper(answer, MAX_TREE_DEPTH) ? answer : null;
  } catch (error) {
    if (error === FAILURE) return null;
    throw error;
  }
}

/** Chains of operators nest as deep as they are long; everything after the parser recurses. */
const MAX_TREE_DEPTH = 150;

function isDeeper(node: Node, limit: number): boolean {
  return limit === 0 || childrenOf(node).some((child) => isDeeper(child, limit - 1));
}

/** {@link parseAnswer} of text as it comes. */
export function parseLatex(text: string): Node | null {
  return parseAnswer(cleanLatex(text), { commas: 'thousands' });
}

function parseList(c: Cursor): Node {
  const items = [parseItem(c)];
  const separators: Separator[] = [];
  for (;;) {
    const separator = takeSeparator(c);
    if (separator === null) break;
    if (c.next === undefined || closes(c)) break;
    const next = parseItem(c);
    const measured = separator === 'and' ? together(items.at(-1) as Node, next) : null;
    if (measured !== null) items[items.length - 1] = measured;
    else {
      items.push(next);
      separators.push(separator);
    }
  }
  return items.length === 1 ? (items[0] as Node) : { kind: 'list', items, separators };
}

/** `,`, `;`, `and`, `or` and `, and`: the last says most. */
function takeSeparator(c: Cursor): Separator | null {
  let found: Separator | null = null;
  for (let count = 0; count < 6; count += 1) {
    const token = c.next;
    if (c.take(',')) found = found ?? ',';
    else if (c.take(';')) found = ';';
    else if (token?.kind === 'word' && (token.name.toLowerCase() === 'and' || token.name.toLowerCase() === 'or')) {
      c.at += 1;
      found = token.name.toLowerCase() as Separator;
    } else if (c.takeCommand('newline')) found = found ?? ';';
    else if (c.takeCommand('land') || c.takeCommand('wedge')) found = 'and';
    else if (c.takeCommand('lor') || c.takeCommand('vee')) found = 'or';
    else if (c.isMark('&') && found !== null) return found;
    else return found;
  }
  return found;
}

function closes(c: Cursor): boolean {
  const token = c.next;
  return token?.kind === 'mark' && [')', ']', '}', '\\}'].includes(token.name);
}

function parseItem(c: Cursor): Node {
  // "About 8.24": how it came about is not part of it.
  if (!c.takeCommand('approx') && !c.take('~')) c.takeCommand('therefore');
  const label = leadingWords(c);
  const first = label ?? parseRatio(c);
  const items = [first];
  const ops: RelationOp[] = [];
  for (;;) {
    const op = takeRelation(c);
    if (op === null) break;
    ops.push(op);
    items.push(parseRatio(c));
  }
  const modulus = parseModulus(c);
  if (ops.length === 0 && modulus === null) return label === null ? first : fail();
  return { kind: 'relation', ops, items, modulus };
}

function takeRelation(c: Cursor): RelationOp | null {
  const token = c.next;
  const op =
    token?.kind === 'mark'
      ? RELATIONS[token.name]
      : token?.kind === 'command'
        ? RELATION_COMMANDS[token.name]
        : undefined;
  if (op === undefined) {
    if (token?.kind === 'mark' && token.name === ':' && c.isMark('=', 1)) {
      c.at += 2;
      return '=';
    }
    return null;
  }
  c.at += 1;
  // `<` and `=` apart, and `\not` before a relation, are rare enough to leave.
  if (c.take('=')) return op === '<' ? '<=' : op === '>' ? '>=' : op;
  return op;
}

/** Words before `=` name the quantity; words that add nothing are skipped. */
function leadingWords(c: Cursor): Node | null {
  const start = c.at;
  let name = '';
  while (c.next?.kind === 'word') {
    name += `${name === '' ? '' : ' '}${c.next.name.toLowerCase()}`;
    c.at += 1;
  }
  if (name === '') return null;
  if (c.isMark('=') || c.isCommand('approx')) return { kind: 'symbol', name: `label:${name}` };
  if (c.isMark(':') && c.isMark('=', 1) === false && c.peek(1) !== undefined) {
    c.at += 1;
    return null;
  }
  if (name.split(' ').every((word) => FILLERS.has(word))) return null;
  c.at = start;
  return fail();
}

/** `(mod 7)` and `\pmod{7}` after a congruence. */
function parseModulus(c: Cursor): Node | null {
  if (c.takeCommand('pmod') || c.takeCommand('pod')) return parseArgument(c, ITEMS);
  if (c.isMark('(') && (c.isCommand('mod', 1) || c.isCommand('bmod', 1))) {
    c.at += 2;
    const modulus = parseSum(c, ITEMS);
    c.expect(')');
    return modulus;
  }
  return null;
}

function parseRatio(c: Cursor): Node {
  const first = parseSetExpression(c);
  if (!c.isMark(':') || c.bars > 0 || c.isMark('=', 1)) return first;
  const items = [first];
  while (items.length < 12 && c.take(':')) items.push(parseQuantity(c));
  return { kind: 'ratio', items };
}

/** Unions, intersections and differences, from left to right. */
function parseSetExpression(c: Cursor): Node {
  let left = withoutElements(parseQuantity(c));
  for (;;) {
    let op: 'cup' | 'cap' | 'minus';
    if (c.takeCommand('cup') || takeUnionLetter(c, left)) op = 'cup';
    else if (c.takeCommand('cap')) op = 'cap';
    else if (c.takeCommand('setminus') || c.takeCommand('backslash')) op = 'minus';
    else return left;
    left = { kind: 'setop', op, left, right: parseQuantity(c) };
  }
}

/** `\mathbb{R} - \{0\}` is no difference of numbers. */
function withoutElements(node: Node): Node {
  if (node.kind !== 'add' || node.args.length !== 2) return node;
  const [left, right] = node.args as [Node, Node];
  const removed = right.kind === 'mul' ? right.args[1] : undefined;
  if ((left.kind !== 'named' && left.kind !== 'tuple') || removed?.kind !== 'set') return node;
  return { kind: 'setop', op: 'minus', left, right: removed };
}

/** `(1,2) U (3,4)`. */
function takeUnionLetter(c: Cursor, left: Node): boolean {
  const token = c.next;
  if (token?.kind !== 'symbol' || token.name !== 'U' || (left.kind !== 'tuple' && left.kind !== 'setop')) return false;
  c.at += 1;
  return true;
}

/** A sum with what it is a sum of: a percent sign, a unit, words. */
function parseQuantity(c: Cursor): Node {
  if (c.take('+') && c.next === undefined) fail();
  let value = parseSum(c, ITEMS);
  for (let count = 0; count < 3; count += 1) {
    const word = c.next?.kind === 'word' ? c.next.name.toLowerCase() : '';
    const multiple = MULTIPLES[word];
    if (multiple !== undefined) {
      c.at += 1;
      value = scaled(value, multiple);
    } else if (c.take('%') || PERCENT_WORDS.has(word)) {
      if (word !== '') c.at += 1;
      value = { kind: 'percent', of: value };
    } else break;
  }
  if (c.next?.kind !== 'word' || isSeparatorWord(c.next)) return value;
  const unit = parseUnit(c);
  if (value.kind === 'quantity' || unit.parts.length === 0) return value;
  const first: Node = { kind: 'quantity', value, unit };
  return startsNumber(c) ? (together(first, parseQuantity(c)) ?? fail()) : first;
}

const startsNumber = (c: Cursor): boolean => c.next?.kind === 'number';

/** `5 feet 6 inches` and `2 hours and 30 minutes` are one measure; null for anything else. */
function together(a: Node, b: Node): Node | null {
  if (a.kind !== 'quantity' || b.kind !== 'quantity') return null;
  const [x, y] = [measureOf(a.unit), measureOf(b.unit)];
  if (
    x.dimension === '' ||
    x.dimension.startsWith('things:') ||
    x.dimension !== y.dimension ||
    equalRationals(x.factor, y.factor)
  )
    return null;
  const value: Node = { kind: 'div', num: { kind: 'mul', args: [a.value, num(x.factor)] }, den: num(y.factor) };
  return { kind: 'quantity', value: { kind: 'add', args: [value, b.value] }, unit: b.unit };
}

function scaled(value: Node, multiple: bigint): Node {
  if (value.kind === 'quantity') return { ...value, value: scaled(value.value, multiple) };
  return { kind: 'mul', args: [value, int(multiple)] };
}

const isSeparatorWord = (token: Token): boolean =>
  token.kind === 'word' &&
  ['and', 'or', 'if', 'for', 'where', 'when', 'with', 'then'].includes(token.name.toLowerCase());

/** `square cm`, `cm^2`, `miles per hour`, `m/s^2`, `right triangles`. */
function parseUnit(c: Cursor): Unit {
  const parts: Unit['parts'] = [];
  let sign = 1;
  for (let count = 0; count < 24; count += 1) {
    const token = c.next;
    if (token?.kind === 'word' && !isSeparatorWord(token)) {
      c.at += 1;
      if (parts.length === 0 && sign === 1 && changesNumber(token.name.toLowerCase())) fail();
      if (token.name.toLowerCase() === 'per') sign = -1;
      else parts.push({ word: token.name.toLowerCase(), power: sign * exponentOf(c) });
    } else if (c.isMark('/') && (c.isWord(1) || isUnitSymbol(c.peek(1)))) {
      c.at += 1;
      sign = -1;
    } else if (sign === -1 && c.isMark('/', -1) && isUnitSymbol(token)) {
      c.at += 1;
      parts.push({ word: token.name.toLowerCase(), power: sign * exponentOf(c) });
    } else if ((c.isMark('-') || c.isCommand('cdot') || c.isMark("'")) && (c.isWord(1) || c.isMark('.'))) {
      c.at += 1;
    } else if (c.isMark('{') && c.isMark('}', 1)) c.at += 2;
    else break;
  }
  return { parts };
}

/** The hour in `mi/h`. */
function isUnitSymbol(token: Token | undefined): token is Token & { kind: 'symbol' } {
  return token?.kind === 'symbol' && isUnitLetter(token.name);
}

function exponentOf(c: Cursor): number {
  if (!c.take('^')) return 1;
  const braces = c.take('{');
  const sign = c.take('-') ? -1 : 1;
  const token = c.next;
  if (token?.kind !== 'number' || !/^\d$/.test(token.digits)) return fail();
  c.at += 1;
  if (braces) c.expect('}');
  return sign * Number(token.digits);
}
