/** The meaning of an answer: a small tree. */
import type { Rational } from '../rational.js';

export type FunctionName =
  | 'sin'
  | 'cos'
  | 'tan'
  | 'cot'
  | 'sec'
  | 'csc'
  | 'asin'
  | 'acos'
  | 'atan'
  | 'acot'
  | 'asec'
  | 'acsc'
  | 'sinh'
  | 'cosh'
  | 'tanh'
  | 'coth'
  | 'asinh'
  | 'acosh'
  | 'atanh'
  | 'exp'
  | 'ln'
  | 'log'
  | 'root'
  | 'abs'
  | 'floor'
  | 'ceil'
  | 'factorial'
  | 'binomial'
  | 'gcd'
  | 'lcm'
  | 'max'
  | 'min'
  | 'mod'
  | 'sign';

export type RelationOp = '=' | '<' | '>' | '<=' | '>=' | '!=' | '~' | 'in' | 'equiv' | 'subset' | 'to';

/** How the items of a bare list are separated. */
export type Separator = ',' | ';' | 'and' | 'or';

export type Node =
  /** An exact number as written: `12`, `0.50`, `1e-3`, `0.\overline{3}`. */
  | { kind: 'number'; value: Rational }
  | { kind: 'constant'; name: 'pi' | 'e' | 'i' | 'infinity' }
  /** A variable, subscripts and accents in its name. */
  | { kind: 'symbol'; name: string }
  | { kind: 'add'; args: Node[] }
  | { kind: 'mul'; args: Node[] }
  | { kind: 'div'; num: Node; den: Node }
  | { kind: 'pow'; base: Node; exponent: Node }
  | { kind: 'call'; fn: FunctionName; args: Node[] }
  /** A function nobody defined: `f(x)`. */
  | { kind: 'apply'; name: string; args: Node[] }
  /** `left ± right` (`sign` 1) or `left ∓ right` (-1). */
  | { kind: 'pm'; left: Node | null; right: Node; sign: 1 | -1 }
  /** `\sum`, `\prod`, `\int`, `\lim`: the operator, its sub- and superscript, and what it acts on. */
  | { kind: 'big'; op: string; variable: string; low: Node | null; high: Node | null; body: Node }
  /** A tuple or an interval, which only the brackets and the context tell apart. */
  | { kind: 'tuple'; open: string; close: string; items: Node[] }
  | { kind: 'set'; items: Node[] }
  | { kind: 'list'; items: Node[]; separators: Separator[] }
  | { kind: 'matrix'; rows: Node[][] }
  | { kind: 'setop'; op: 'cup' | 'cap' | 'minus'; left: Node; right: Node }
  | { kind: 'named'; name: string }
  | { kind: 'relation'; ops: RelationOp[]; items: Node[]; modulus: Node | null }
  | { kind: 'ratio'; items: Node[] }
  /** Digits in a base that is written down: `204_5`. */
  | { kind: 'based'; digits: string; base: number }
  | { kind: 'percent'; of: Node }
  | { kind: 'quantity'; value: Node; unit: Unit }
  | { kind: 'text'; text: string };

/** What a number counts or measures, as written; see units.ts. */
export interface Unit {
  /** Words in order, lower case, each with its power; empty for none. */
  parts: { word: string; power: number }[];
}

export const num = (value: Rational): Node => ({ kind: 'number', value });
export const int = (value: bigint | number): Node => num({ numerator: BigInt(value), denominator: 1n });
export const call = (fn: FunctionName, ...args: Node[]): Node => ({ kind: 'call', fn, args });

export function negate(node: Node): Node {
  if (node.kind === 'number') return num({ numerator: -node.value.numerator, denominator: node.value.denominator });
  return { kind: 'mul', args: [int(-1), node] };
}

/** Every child that is an expression, in order. */
export function childrenOf(node: Node): Node[] {
  switch (node.kind) {
    case 'add':
    case 'mul':
    case 'call':
    case 'apply':
      return node.args;
    case 'div':
      return [node.num, node.den];
    case 'pow':
      return [node.base, node.exponent];
    case 'pm':
      return node.left === null ? [node.right] : [node.left, node.right];
    case 'big':
      return [node.low, node.high, node.body].filter((child) => child !== null);
    case 'tuple':
    case 'set':
    case 'list':
    case 'ratio':
      return node.items;
    case 'relation':
      return node.modulus === null ? node.items : [...node.items, node.modulus];
    case 'matrix':
      return node.rows.flat();
    case 'setop':
      return [node.left, node.right];
    case 'percent':
      return [node.of];
    case 'quantity':
      return [node.value];
    default:
      return [];
  }
}
