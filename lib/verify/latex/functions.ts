/** Functions with names: roots, fractions, trigonometry, logarithms, sums. */

import { table } from '../table.js';
import { call, type FunctionName, int, type Node } from './ast.js';
import { type Cursor, fail } from './cursor.js';
import { type Items, parseBrackets } from './groups.js';

/** Functions of one argument, which may stand without brackets. */
const UNARY = table<FunctionName>({
  sin: 'sin',
  cos: 'cos',
  tan: 'tan',
  tg: 'tan',
  cot: 'cot',
  ctg: 'cot',
  sec: 'sec',
  csc: 'csc',
  cosec: 'csc',
  arcsin: 'asin',
  arccos: 'acos',
  arctan: 'atan',
  arctg: 'atan',
  arccot: 'acot',
  arcsec: 'asec',
  arccsc: 'acsc',
  sinh: 'sinh',
  cosh: 'cosh',
  tanh: 'tanh',
  coth: 'coth',
  arsinh: 'asinh',
  arcosh: 'acosh',
  artanh: 'atanh',
  arcsinh: 'asinh',
  arccosh: 'acosh',
  arctanh: 'atanh',
  exp: 'exp',
  ln: 'ln',
  abs: 'abs',
  floor: 'floor',
  ceil: 'ceil',
  sgn: 'sign',
  cbrt: 'root',
});
const INVERSE: Partial<Record<FunctionName, FunctionName>> = {
  sin: 'asin',
  cos: 'acos',
  tan: 'atan',
  cot: 'acot',
  sec: 'asec',
  csc: 'acsc',
  sinh: 'asinh',
  cosh: 'acosh',
  tanh: 'atanh',
};
const VARIADIC = table<FunctionName>({ gcd: 'gcd', lcm: 'lcm', max: 'max', min: 'min' });
const BIG = new Set(['sum', 'prod', 'int', 'lim', 'iint', 'oint']);
const SPECIAL = new Set(['sqrt', 'frac', 'binom', 'dbinom', 'tbinom', 'log', 'lg', 'cis']);

export const startsFunction = (name: string): boolean =>
  name in UNARY || name in VARIADIC || BIG.has(name) || SPECIAL.has(name);

export function parseFunction(c: Cursor, name: string, items: Items): Node {
  c.at += 1;
  if (BIG.has(name)) return bigOperator(c, name, items);
  if (name in VARIADIC) return call(VARIADIC[name] as FunctionName, ...argumentsOf(c, items));
  switch (name) {
    case 'sqrt':
      return root(c, items);
    case 'frac':
      return fraction(c, items);
    case 'binom':
    case 'dbinom':
    case 'tbinom':
      return call('binomial', items.argument(c), items.argument(c));
    case 'log':
    case 'lg':
      return logarithm(c, name, items);
    case 'cis':
      return cis(c, items);
  }
  return unary(c, UNARY[name] as FunctionName, name, items);
}

function root(c: Cursor, items: Items): Node {
  let index: Node = int(2);
  if (c.take('[')) {
    index = items.sum(c);
    c.expect(']');
  }
  return call('root', items.argument(c), index);
}

function fraction(c: Cursor, items: Items): Node {
  const numerator = items.argument(c);
  const denominator = items.argument(c);
  const found = derivative(numerator, denominator);
  // `\frac{d}{dx}` of nothing.
  if (found?.kind === 'symbol' && /^derivative:\d*::/.test(found.name) && !items.startsFactor(c)) return fail();
  return found ?? { kind: 'div', num: numerator, den: denominator };
}

/** `\frac{dy}{dx}` is one thing, not y/x. */
export function derivative(numerator: Node, denominator: Node): Node | null {
  const top = numerator.kind === 'mul' ? numerator.args : [numerator];
  const bottom = denominator.kind === 'mul' ? denominator.args : [];
  if (!isDifferential(top[0]) || !isDifferential(bottom[0])) return null;
  const variable = bottom[1]?.kind === 'pow' ? bottom[1].base : bottom[1];
  if (variable?.kind !== 'symbol' || top.length > 2) return null;
  const of = top[1]?.kind === 'symbol' ? top[1].name : top[1] === undefined ? '' : null;
  if (of === null) return null;
  const order =
    top[0]?.kind === 'pow' && top[0].exponent.kind === 'number' ? `${top[0].exponent.value.numerator}` : '1';
  return { kind: 'symbol', name: `derivative:${order}:${of}:${variable.name}` };
}

function isDifferential(node: Node | undefined): boolean {
  if (node?.kind === 'pow') return isDifferential(node.base);
  return node?.kind === 'symbol' && (node.name === 'd' || node.name === '\\partial');
}

/** The arguments in round brackets, or one in braces. */
function argumentsOf(c: Cursor, items: Items): Node[] {
  if (!c.isMark('(') && !c.isMark('{') && !c.isMark('\\{') && !c.isMark('[')) return fail();
  const inside = c.isMark('{') ? items.argument(c) : c.bracketed(() => parseBrackets(c, items));
  return inside.kind === 'tuple' || inside.kind === 'set' || inside.kind === 'list' ? inside.items : [inside];
}

function unary(c: Cursor, fn: FunctionName, name: string, items: Items): Node {
  let power: Node | null = null;
  if (c.take('^')) {
    const exponent = items.exponent(c);
    if (exponent === 'degree' || exponent === null) return fail();
    power = exponent;
  }
  const argument = argumentOf(c, items);
  if (name === 'cbrt') return call('root', argument, int(3));
  if (power === null) return call(fn, argument);
  const inverse = INVERSE[fn];
  const minusOne = power.kind === 'number' && power.value.numerator === -1n && power.value.denominator === 1n;
  if (minusOne && inverse !== undefined) return call(inverse, argument);
  return { kind: 'pow', base: call(fn, argument), exponent: power };
}

/** A bracket alone, or the factors that follow up to the next function: `\sin 2x \cos y`. */
function argumentOf(c: Cursor, items: Items): Node {
  if (c.isMark('(') || c.isMark('[') || c.isMark('\\{') || c.isCommand('lbrace')) {
    const inside = c.bracketed(() => parseBrackets(c, items));
    if (inside.kind === 'set' && inside.items.length === 1) return inside.items[0] as Node;
    if (inside.kind === 'tuple' || inside.kind === 'set') return fail();
    return inside;
  }
  if (c.isMark('-')) {
    c.at += 1;
    return { kind: 'mul', args: [int(-1), argumentOf(c, items)] };
  }
  const factors: Node[] = [items.power(c)];
  while (
    items.startsFactor(c) &&
    !(c.next?.kind === 'command' && startsFunction(c.next.name) && !ARGUMENT_FUNCTIONS.has(c.next.name))
  ) {
    if (c.isMark('(') || c.isMark('[')) break;
    factors.push(items.power(c));
  }
  return factors.length === 1 ? (factors[0] as Node) : { kind: 'mul', args: factors };
}

/** What an argument without brackets may hold. */
const ARGUMENT_FUNCTIONS = new Set(['sqrt', 'frac', 'binom']);

function logarithm(c: Cursor, name: string, items: Items): Node {
  let base: Node | null = name === 'lg' ? int(10) : null;
  let power: Node | null = null;
  for (let count = 0; count < 2; count += 1) {
    if (c.take('_')) base = items.argument(c);
    else if (c.take('^')) {
      const exponent = items.exponent(c);
      if (exponent === 'degree' || exponent === null) return fail();
      power = exponent;
    }
  }
  const argument = argumentOf(c, items);
  const log = base === null ? call('log', argument) : call('log', argument, base);
  return power === null ? log : { kind: 'pow', base: log, exponent: power };
}

/** cis θ = cos θ + i sin θ. */
function cis(c: Cursor, items: Items): Node {
  const angle = argumentOf(c, items);
  return {
    kind: 'add',
    args: [call('cos', angle), { kind: 'mul', args: [{ kind: 'constant', name: 'i' }, call('sin', angle)] }],
  };
}

function bigOperator(c: Cursor, name: string, items: Items): Node {
  let low: Node | null = null;
  let high: Node | null = null;
  let variable = '';
  for (let count = 0; count < 2; count += 1) {
    if (c.take('_')) {
      const below = c.isMark('{') ? items.argument(c) : items.power(c);
      if (below.kind === 'relation' && below.items[0]?.kind === 'symbol') {
        variable = below.items[0].name;
        low = below.items[1] ?? null;
      } else if (below.kind === 'relation' && below.items[0]?.kind === 'constant') {
        variable = below.items[0].name;
        low = below.items[1] ?? null;
      } else low = below;
    } else if (c.take('^')) {
      const above = items.exponent(c);
      if (above === 'degree' || above === null) return fail();
      high = above;
    }
  }
  // A sum extends over its term, an integral to its differential.
  const body = name === 'int' || name === 'lim' ? items.sum(c) : items.term(c);
  return { kind: 'big', op: name, variable, low, high, body };
}
