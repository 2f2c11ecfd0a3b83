/** Expressions: sums, products, powers, functions, brackets. Recursive descent, bounded in depth by the cursor. */

import { table } from '../table.js';
import { call, type Node, negate, num, type Unit } from './ast.js';
import { basedNumber, lettersOf, symbol, takeOne, withSubscript } from './atoms.js';
import { type Cursor, fail } from './cursor.js';
import { derivative, parseFunction, startsFunction } from './functions.js';
import { type Items, parseBrackets, parseEnvironment, parseGroup } from './groups.js';
import type { Token } from './tokens.js';

const DEGREE: Unit = { parts: [{ word: 'degree', power: 1 }] };
const DOLLAR: Unit = { parts: [{ word: 'dollar', power: 1 }] };
const CURRENCIES = table<Unit>({
  euro: { parts: [{ word: 'euro', power: 1 }] },
  pounds: { parts: [{ word: 'sterling', power: 1 }] },
  yen: { parts: [{ word: 'yen', power: 1 }] },
});
const ACCENTS = new Set(
  'overline bar hat widehat tilde widetilde vec overrightarrow overleftrightarrow dot ddot underline mathring'.split(
    ' ',
  ),
);
const SAME_ACCENT = table<string>({
  overrightarrow: 'vec',
  overline: 'bar',
  widehat: 'hat',
  widetilde: 'tilde',
});
/** Commands that end a factor: relations, separators, closing brackets. */
const STOPS = new Set(
  'le ge ne approx sim simeq cong equiv in notin subset subseteq to rightarrow Rightarrow longrightarrow mapsto implies iff cup cap setminus backslash newline rfloor rceil rangle rvert rVert rbrace pmod bmod mod pod choose over times cdot div ast star pm mp mid vert end land lor wedge vee colon circ therefore quad ldots degree llcorner lrcorner ulcorner urcorner lgroup rgroup rbrack'.split(
    ' ',
  ),
);
const OPENING = new Set('lfloor lceil langle lvert lVert vert lbrace ulcorner llcorner lbrack lgroup'.split(' '));
/** Sum of terms; `±` keeps both readings. */
export function parseSum(c: Cursor, items: Items): Node {
  let left: Node | null = null;
  for (;;) {
    const sign = takeSign(c);
    if (sign === null && left !== null) return left;
    const term = parseTerm(c, items);
    const modulus = takeModulus(c, items);
    if (modulus === null) left = combine(left, sign, term);
    // Before `mod` stands the whole first term, its sign included: -7 mod 5 is 3.
    else if (left === null) left = call('mod', combine(null, sign, term), modulus);
    else left = combine(left, sign, call('mod', term, modulus));
  }
}

function takeModulus(c: Cursor, items: Items): Node | null {
  return c.takeCommand('mod') || c.takeCommand('bmod') ? signedFactors(c, items) : null;
}

type Sign = '+' | '-' | 'pm' | 'mp';

function takeSign(c: Cursor): Sign | null {
  let sign: Sign | null = null;
  for (let count = 0; count < 8; count += 1) {
    let found: Sign;
    if (c.take('+')) found = '+';
    else if (c.take('-')) found = '-';
    else if (c.takeCommand('pm') || c.take('pm')) found = 'pm';
    else if (c.takeCommand('mp')) found = 'mp';
    else return sign;
    if (sign === '-' && found === '-') sign = '+';
    else if (sign === null || sign === '+') sign = found;
  }
  return fail();
}

function combine(left: Node | null, sign: Sign | null, term: Node): Node {
  if (sign === 'pm' || sign === 'mp') return { kind: 'pm', left, right: term, sign: sign === 'pm' ? 1 : -1 };
  const signed = sign === '-' ? negated(term) : term;
  if (left === null) return signed;
  return sum(left, signed);
}

function negated(term: Node): Node {
  if (term.kind === 'quantity') return { ...term, value: negate(term.value) };
  if (term.kind === 'percent') return { kind: 'percent', of: negate(term.of) };
  return negate(term);
}

/** `3 ft + 4 ft` is a length; `40 - 20\%` stays what it is. */
function sum(left: Node, right: Node): Node {
  if (left.kind === 'quantity' && right.kind === 'quantity' && sameUnit(left.unit, right.unit)) {
    return { kind: 'quantity', value: sum(left.value, right.value), unit: left.unit };
  }
  return left.kind === 'add' ? { kind: 'add', args: [...left.args, right] } : { kind: 'add', args: [left, right] };
}

const sameUnit = (a: Unit, b: Unit): boolean =>
  a.parts.length === b.parts.length &&
  a.parts.every((part, i) => part.word === b.parts[i]?.word && part.power === b.parts[i]?.power);

/** Factors, written with or without a sign between them. */
export function parseTerm(c: Cursor, items: Items): Node {
  let left = parseFactors(c, items);
  for (;;) {
    if (takeTimes(c)) left = product(left, signedFactors(c, items));
    else if (startsDivision(c)) left = quotient(left, denominator(c, items));
    else if (left.kind === 'div' && startsFactor(c)) {
      // `1/2x`: the number alone was below.
      left = product(left, parseFactors(c, items));
    } else return left;
  }
}

function takeTimes(c: Cursor): boolean {
  return c.take('*') || c.takeCommand('times') || c.takeCommand('cdot') || c.takeCommand('ast');
}

function startsDivision(c: Cursor): boolean {
  if (c.isMark('/') && !(c.peek(1)?.kind === 'word')) return c.take('/');
  return c.takeCommand('div');
}

function signedFactors(c: Cursor, items: Items): Node {
  if (c.take('-')) return negate(signedFactors(c, items));
  if (c.take('+')) return signedFactors(c, items);
  return parseFactors(c, items);
}

/** After `/`: a number alone (`1/2x` is x/2), otherwise all factors that stand together (`a/2b` is a/(2b)). */
function denominator(c: Cursor, items: Items): Node {
  if (c.take('-')) return negate(denominator(c, items));
  const before = c.peek(-2);
  const numeric = before?.kind === 'number' && c.next?.kind === 'number';
  return numeric ? parsePower(c, items) : parseFactors(c, items);
}

function product(left: Node, right: Node): Node {
  // A point with its name: `A(1, 2)`.
  if (right.kind === 'tuple' && left.kind === 'symbol' && /^[A-Z]/.test(left.name)) return right;
  // Curly brackets around one factor are brackets.
  if (left.kind === 'set' && left.items.length === 1) return product(left.items[0] as Node, right);
  if (right.kind === 'set' && right.items.length === 1) return product(left, right.items[0] as Node);
  if (left.kind === 'quantity') return { kind: 'quantity', value: product(left.value, right), unit: left.unit };
  if (right.kind === 'quantity') return { kind: 'quantity', value: product(left, right.value), unit: right.unit };
  return left.kind === 'mul' ? { kind: 'mul', args: [...left.args, right] } : { kind: 'mul', args: [left, right] };
}

function quotient(numerator: Node, denominator: Node): Node {
  if (numerator.kind === 'quantity') {
    return { kind: 'quantity', value: { kind: 'div', num: numerator.value, den: denominator }, unit: numerator.unit };
  }
  return derivative(numerator, denominator) ?? { kind: 'div', num: numerator, den: denominator };
}

/** Factors side by side. */
function parseFactors(c: Cursor, items: Items): Node {
  let left = parsePower(c, items);
  while (left.kind !== 'tuple' && startsFactor(c)) {
    const mixed = mixedNumber(c, left);
    if (mixed !== null) left = mixed;
    else if (c.next?.kind === 'number' && c.peek(-1)?.kind === 'number') return fail();
    else left = product(left, parsePower(c, items));
  }
  return left;
}

export function startsFactor(c: Cursor): boolean {
  const token = c.next;
  if (token === undefined) return false;
  switch (token.kind) {
    case 'number':
    case 'symbol':
      return true;
    case 'word':
      return false;
    case 'command':
      if (token.name === 'vert' || token.name === 'mid') return c.bars === 0 && token.name === 'vert';
      return OPENING.has(token.name) || !STOPS.has(token.name);
    case 'mark':
      if (token.name === '|') return c.bars === 0;
      if (token.name === '[') return !c.reversed;
      return token.name === '(' || token.name === '{' || token.name === '\\{';
  }
}

/** `1\frac{1}{2}` and `1 1/2`: an integer before a proper fraction is added. */
function mixedNumber(c: Cursor, left: Node): Node | null {
  const whole = c.peek(-1);
  if (left.kind !== 'number' || whole?.kind !== 'number' || whole.digits.includes('.')) return null;
  const [top, slash, bottom] = [c.next, c.peek(1), c.peek(2)];
  if (
    top?.kind === 'number' &&
    slash?.kind === 'mark' &&
    slash.name === '/' &&
    bottom?.kind === 'number' &&
    top.space
  ) {
    if (top.digits.includes('.') || Number(top.digits) >= Number(bottom.digits)) return null;
    c.at += 3;
    return { kind: 'add', args: [left, { kind: 'div', num: num(top.value), den: num(bottom.value) }] };
  }
  if (!c.isCommand('frac')) return null;
  const start = c.at;
  const fraction = parsePrimaryFraction(c);
  if (fraction !== null) return { kind: 'add', args: [left, fraction] };
  c.at = start;
  return null;
}

/** `\frac{a}{b}` of natural numbers a < b, or null. */
function parsePrimaryFraction(c: Cursor): Node | null {
  c.at += 1;
  const read = (): Token | null => {
    if (!c.take('{')) return c.next?.kind === 'number' ? takeDigit(c) : null;
    const token = c.next;
    c.at += 1;
    return token?.kind === 'number' && c.take('}') ? token : null;
  };
  const top = read();
  const bottom = top === null ? null : read();
  if (top?.kind !== 'number' || bottom?.kind !== 'number') return null;
  if (`${top.digits}${bottom.digits}`.includes('.') || top.value.numerator >= bottom.value.numerator) return null;
  return { kind: 'div', num: num(top.value), den: num(bottom.value) };
}

/** The next digit: an argument without braces is one digit of a longer number. */
function takeDigit(c: Cursor): Token {
  const token = c.next as Token & { kind: 'number' };
  if (token.digits.length === 1 || !/^\d+$/.test(token.digits)) {
    c.at += 1;
    return token;
  }
  const first = token.digits[0] as string;
  const rest = token.digits.slice(1);
  c.tokens[c.at] = { ...token, digits: rest, value: { numerator: BigInt(rest), denominator: 1n } };
  return { ...token, digits: first, value: { numerator: BigInt(first), denominator: 1n } };
}

/** The argument of a command: a group, a digit, a letter or a command with its own arguments. */
export function parseArgument(c: Cursor, items: Items): Node {
  if (c.isMark('{')) return parseGroup(c, items);
  if (c.next?.kind === 'number') {
    const token = takeDigit(c);
    return token.kind === 'number' ? num(token.value) : fail();
  }
  if (c.take('-')) return negate(parseArgument(c, items));
  return c.nested(() => parsePrimary(c, items));
}

/** A primary with what follows it: `!`, powers, degrees. */
export function parsePower(c: Cursor, items: Items): Node {
  let base = c.nested(() => parsePrimary(c, items));
  for (;;) {
    if (c.isMark('!')) {
      c.at += 1;
      base = { kind: 'call', fn: 'factorial', args: [base] };
    } else if (c.takeCommand('degree') || c.takeCommand('circ')) {
      base = { kind: 'quantity', value: base, unit: DEGREE };
    } else if (c.isMark('^')) {
      c.at += 1;
      const exponent = parseExponent(c, items);
      if (exponent === 'degree') base = { kind: 'quantity', value: base, unit: DEGREE };
      else if (exponent !== null) base = { kind: 'pow', base: withSubscript(c, base), exponent };
    } else if (c.isMark('\\$') && !numberFollows(c)) {
      c.at += 1;
      base = { kind: 'quantity', value: base, unit: DOLLAR };
    } else if (c.next?.kind === 'command' && c.next.name in CURRENCIES && !numberFollows(c)) {
      base = { kind: 'quantity', value: base, unit: CURRENCIES[c.next.name] as Unit };
      c.at += 1;
    } else return base;
  }
}

const numberFollows = (c: Cursor): boolean => c.peek(1)?.kind === 'number';

/** The exponent; `'degree'` for `^\circ`, null for one that says nothing (`^{th}`). */
export function parseExponent(c: Cursor, items: Items): Node | 'degree' | null {
  if (c.takeCommand('circ') || c.takeCommand('degree')) return 'degree';
  if (c.isMark('{') && (c.isCommand('circ', 1) || c.isCommand('degree', 1)) && c.isMark('}', 2)) {
    c.at += 3;
    return 'degree';
  }
  if (c.isMark('{') && c.isWord(1) && c.isMark('}', 2)) {
    c.at += 3;
    return null;
  }
  // A limit from above or below.
  if (c.isMark('{') && (c.isMark('+', 1) || c.isMark('-', 1)) && c.isMark('}', 2)) {
    c.at += 1;
    const side = takeOne(c);
    c.at += 1;
    return { kind: 'symbol', name: side };
  }
  if (c.isMark('{')) return parseGroup(c, items);
  if (c.take('-')) return negate(exponentAtom(c, items));
  c.take('+');
  return exponentAtom(c, items);
}

/** Without braces: one number whole (`2^10` in plain text), one letter, one bracket, one command. */
function exponentAtom(c: Cursor, items: Items): Node {
  if (c.next?.kind === 'number') {
    const token = c.next;
    c.at += 1;
    // A tower without braces is one of exponents: 2^3^2 = 2^9.
    if (c.isMark('^')) c.at += 1;
    else return num(token.value);
    return { kind: 'pow', base: num(token.value), exponent: c.nested(() => exponentAtom(c, items)) };
  }
  const base = c.nested(() => parsePrimary(c, items));
  return c.take('^') ? { kind: 'pow', base, exponent: c.nested(() => exponentAtom(c, items)) } : base;
}

function parsePrimary(c: Cursor, items: Items): Node {
  const token = c.next;
  if (token === undefined) return fail();
  switch (token.kind) {
    case 'number':
      c.at += 1;
      return c.isMark('_') ? basedNumber(c, token.digits) : num(token.value);
    case 'symbol':
      c.at += 1;
      return symbol(c, token.name, items);
    case 'word':
      return fail();
    case 'command':
      return parseCommand(c, token.name, items);
    case 'mark':
      if (token.name === '{') return parseGroup(c, items);
      if (token.name === '\\$' || token.name === '$') {
        c.at += 1;
        return {
          kind: 'quantity',
          value: c.take('-') ? negate(parsePower(c, items)) : parsePower(c, items),
          unit: DOLLAR,
        };
      }
      return parseBrackets(c, items);
  }
}

function parseCommand(c: Cursor, name: string, items: Items): Node {
  if (startsFunction(name)) return parseFunction(c, name, items);
  if (OPENING.has(name)) return parseBrackets(c, items);
  if (STOPS.has(name) && name !== 'ldots') return fail();
  c.at += 1;
  if (name in CURRENCIES) return { kind: 'quantity', value: parsePower(c, items), unit: CURRENCIES[name] as Unit };
  switch (name) {
    case 'pi':
      return c.isMark('_') ? symbol(c, 'pi', items) : { kind: 'constant', name: 'pi' };
    case 'infty':
      return { kind: 'constant', name: 'infinity' };
    case 'exponentialE':
      return { kind: 'constant', name: 'e' };
    case 'imaginaryI':
    case 'imath':
      return { kind: 'constant', name: 'i' };
    case 'emptyset':
    case 'varnothing':
      return { kind: 'set', items: [] };
    case 'mathbb':
      return { kind: 'named', name: c.take('{') ? c.rawGroup() : takeOne(c) };
    case 'begin':
      return parseEnvironment(c, items);
    case 'ldots':
    case 'dots':
    case 'cdots':
    case 'dotsc':
    case 'vdots':
      return { kind: 'symbol', name: 'dots' };
    case 'angle':
    case 'triangle':
    case 'measuredangle':
      return { kind: 'symbol', name: `${name}:${lettersOf(c)}` };
  }
  if (ACCENTS.has(name))
    return symbol(c, `${SAME_ACCENT[name] ?? name}:${c.take('{') ? c.rawGroup() : takeOne(c)}`, items);
  return symbol(c, `\\${name}`, items);
}
