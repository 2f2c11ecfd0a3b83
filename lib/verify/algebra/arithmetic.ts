/** Values of expressions: one walk over the tree, several kinds of number. */
import { childrenOf, type FunctionName, type Node } from '../latex/ast.js';
import type { Rational } from '../rational.js';
import { integerOf } from '../rational.js';

/** A kind of number. Every operation may answer null: not defined there, or too large. */
export interface Arithmetic<T> {
  rational(value: Rational): T | null;
  constant(name: 'pi' | 'e' | 'i'): T | null;
  add(x: T, y: T): T | null;
  multiply(x: T, y: T): T | null;
  divide(x: T, y: T): T | null;
  /** An exponent known exactly. */
  power(base: T, exponent: Rational): T | null;
  pow(base: T, exponent: T): T | null;
  call(fn: FunctionName, args: T[]): T | null;
  /** A function nobody defined: any smooth function of its arguments that depends on the name. */
  unknown(name: string, args: T[]): T | null;
}

/** Values of the variables. */
export type Point = ReadonlyMap<string, Rational>;

/** Steps a comparison may take in all its evaluations. */
export class Budget {
  constructor(public left: number) {}

  spend(amount: number): boolean {
    this.left -= amount;
    return this.left >= 0;
  }
}

/** Terms of a sum or product that are added up. */
const MAX_TERMS = 400n;
const EXACT_ONLY = new Set<FunctionName>(['factorial', 'binomial', 'gcd', 'lcm', 'mod']);
const EXACT_FIRST = new Set<FunctionName>(['floor', 'ceil', 'max', 'min', 'abs', 'sign', 'root']);

export class Evaluator<T> {
  constructor(
    private readonly arithmetic: Arithmetic<T>,
    private readonly budget: Budget,
    /** The same walk with exact numbers, for exponents and integer functions; null where this is that walk. */
    private readonly exact: Evaluator<Rational> | null,
  ) {}

  value(node: Node, point: Point): T | null {
    if (!this.budget.spend(1)) return null;
    const { arithmetic } = this;
    switch (node.kind) {
      case 'number':
        return arithmetic.rational(node.value);
      case 'constant':
        return node.name === 'infinity' ? null : (this.bound(node.name, point) ?? arithmetic.constant(node.name));
      case 'symbol':
        return this.bound(node.name, point);
      case 'add':
        return this.fold(node.args, point, (x, y) => arithmetic.add(x, y));
      case 'mul':
        return this.fold(node.args, point, (x, y) => arithmetic.multiply(x, y));
      case 'div': {
        const numerator = this.value(node.num, point);
        const denominator = numerator === null ? null : this.value(node.den, point);
        return denominator === null || numerator === null ? null : arithmetic.divide(numerator, denominator);
      }
      case 'pow':
        return this.power(node.base, node.exponent, point);
      case 'call':
        return this.call(node, point);
      case 'apply': {
        const args = this.all(node.args, point);
        return args === null ? null : arithmetic.unknown(node.name, args);
      }
      case 'percent':
        return this.times(node.of, { numerator: 1n, denominator: 100n }, point);
      case 'quantity': {
        const word = node.unit.parts.length === 1 ? node.unit.parts[0]?.word : undefined;
        if (word !== 'degree' && word !== 'degrees') return null;
        const degrees = this.times(node.value, { numerator: 1n, denominator: 180n }, point);
        const pi = arithmetic.constant('pi');
        return degrees === null || pi === null ? null : arithmetic.multiply(degrees, pi);
      }
      case 'big':
        return this.series(node, point);
      default:
        return null;
    }
  }

  private bound(name: string, point: Point): T | null {
    const value = point.get(name);
    return value === undefined ? null : this.arithmetic.rational(value);
  }

  private times(node: Node, factor: Rational, point: Point): T | null {
    const value = this.value(node, point);
    const scale = this.arithmetic.rational(factor);
    return value === null || scale === null ? null : this.arithmetic.multiply(value, scale);
  }

  private all(nodes: Node[], point: Point): T[] | null {
    const values: T[] = [];
    for (const node of nodes) {
      const value = this.value(node, point);
      if (value === null) return null;
      values.push(value);
    }
    return values;
  }

  private fold(nodes: Node[], point: Point, step: (x: T, y: T) => T | null): T | null {
    let result: T | null = null;
    for (const node of nodes) {
      const value = this.value(node, point);
      if (value === null) return null;
      result = result === null ? value : step(result, value);
      if (result === null) return null;
    }
    return result;
  }

  private exactly(node: Node, point: Point): Rational | null {
    return this.exact === null ? (this.value(node, point) as Rational | null) : this.exact.value(node, point);
  }

  private power(base: Node, exponent: Node, point: Point): T | null {
    const known = this.exactly(exponent, point);
    const value = this.value(base, point);
    if (value === null) return null;
    if (known !== null && (known.denominator === 1n || isConstant(exponent) || integerOf(known) !== null)) {
      return this.arithmetic.power(value, known);
    }
    const free = this.value(exponent, point);
    return free === null ? null : this.arithmetic.pow(value, free);
  }

  private call(node: Node & { kind: 'call' }, point: Point): T | null {
    if (this.exact === null) {
      const args = this.all(node.args, point);
      return args === null ? null : this.arithmetic.call(node.fn, args);
    }
    if (EXACT_ONLY.has(node.fn) || EXACT_FIRST.has(node.fn)) {
      const exact = this.exact.value(node, point);
      if (exact !== null) return this.arithmetic.rational(exact);
      if (EXACT_ONLY.has(node.fn)) return null;
    }
    const args = this.all(node.args, point);
    return args === null ? null : this.arithmetic.call(node.fn, args);
  }

  /** A finite sum or product, term by term. */
  private series(node: Node & { kind: 'big' }, point: Point): T | null {
    if ((node.op !== 'sum' && node.op !== 'prod') || node.variable === '' || node.low === null || node.high === null)
      return null;
    const low = this.exactly(node.low, point);
    const high = this.exactly(node.high, point);
    const first = low === null ? null : integerOf(low);
    const last = high === null ? null : integerOf(high);
    if (first === null || last === null || last - first > MAX_TERMS) return null;
    const zero = node.op === 'sum' ? 0n : 1n;
    let result = this.arithmetic.rational({ numerator: zero, denominator: 1n });
    const inner = new Map(point);
    for (let k = first; k <= last && result !== null; k += 1n) {
      inner.set(node.variable, { numerator: k, denominator: 1n });
      const term = this.value(node.body, inner);
      if (term === null) return null;
      result = node.op === 'sum' ? this.arithmetic.add(result, term) : this.arithmetic.multiply(result, term);
    }
    return result;
  }
}

const constants = new WeakMap<Node, boolean>();

/** Whether an expression has no variables. -1 to the power n is no real number between the integers, (-8)^{1/3} is -2. */
function isConstant(node: Node): boolean {
  let known = constants.get(node);
  if (known === undefined) {
    known = node.kind !== 'symbol' && node.kind !== 'big' && childrenOf(node).every(isConstant);
    constants.set(node, known);
  }
  return known;
}

/** The free variables of an expression, in order of their names. */
export function variablesOf(...nodes: Node[]): string[] {
  const names = new Set<string>();
  for (const node of nodes) collect(node, names, new Set());
  return [...names].sort();
}

function collect(node: Node, names: Set<string>, bound: Set<string>): void {
  if (node.kind === 'symbol' && !bound.has(node.name)) names.add(node.name);
  if (node.kind === 'big' && node.variable !== '') {
    for (const limit of [node.low, node.high]) if (limit !== null) collect(limit, names, bound);
    collect(node.body, names, new Set(bound).add(node.variable));
    return;
  }
  for (const child of childrenOf(node)) collect(child, names, bound);
}

/** Whether `predicate` holds anywhere in the tree. */
export function contains(node: Node, predicate: (node: Node) => boolean): boolean {
  return predicate(node) || childrenOf(node).some((child) => contains(child, predicate));
}
