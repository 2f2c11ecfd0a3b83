/**
 * Whether two expressions are equal, or two equations say the same. Different values at one point settle "different"; values
 * that agree at many points are checked again exactly (rational numbers) or to 52 digits before "equal" is said.
 */
import { keyOf } from '../canonical.js';
import type { FunctionName, Node } from '../latex/ast.js';
import { equalRationals, lowest, type Rational, toNumber } from '../rational.js';
import { type Budget, contains, Evaluator, type Point, variablesOf } from './arithmetic.js';
import { BALL, type Ball } from './ball.js';
import { COMPLEX, type Complex } from './complex.js';
import { agree, DECIMAL } from './decimal.js';
import { GAUSSIAN, RATIONAL } from './exact.js';
import type { Decimal } from './library.js';
import { type Domain, pointAt } from './points.js';

export type Verdict = 'equal' | 'different' | 'undecided';

/** Points at which both sides must have a value. */
const ENOUGH = 5;
const TRIES = 48;
const CONFIRMATIONS = 2;
/** Relative difference of doubles that are taken as equal where nothing better is at hand. */
const COMPLEX_TOLERANCE = 1e-10;
const INTEGER_FUNCTIONS = new Set<FunctionName>(['floor', 'ceil', 'factorial', 'binomial', 'gcd', 'lcm', 'mod']);

/** Evaluators that share one budget of steps: an answer too large to evaluate is undecided, not slow. */
export class Algebra {
  private readonly exact: Evaluator<Rational>;
  private readonly ball: Evaluator<Ball>;
  private readonly decimal: Evaluator<Decimal>;
  private readonly complex: Evaluator<Complex>;

  constructor(private readonly budget: Budget) {
    this.exact = new Evaluator(RATIONAL, budget, null);
    this.ball = new Evaluator(BALL, budget, this.exact);
    this.decimal = new Evaluator(DECIMAL, budget, this.exact);
    this.complex = new Evaluator(COMPLEX, budget, this.exact);
  }

  /** The exact value of a constant expression, or null. */
  rational(node: Node): Rational | null {
    return this.exact.value(node, new Map());
  }

  /** Whether `target` is the value of a real constant that is no decimal itself, rounded or cut off to a multiple of `unit`. */
  roundsTo(node: Node, target: Rational, unit: Rational): boolean {
    const exact = this.rational(node);
    if (exact !== null && isTerminating(exact)) return false;
    const near = this.real(node);
    // Most numbers are far off.
    if (near === null || Math.abs(near - toNumber(target)) > 1e-8 * Math.abs(near)) return false;
    const value = this.decimal.value(node, new Map());
    const wanted = value === null ? null : DECIMAL.rational(target);
    const bound = DECIMAL.rational(unit);
    if (value === null || wanted === null || bound === null) return false;
    // Rounded, or cut off towards zero, or as exact as a double is.
    const missing = value.abs().minus(wanted.abs());
    if (missing.lt(bound) && missing.times(-2).lte(bound)) return true;
    return bound.lt(value.abs().times(1e-15)) && missing.abs().lt(value.abs().times(2 ** -52));
  }

  /** The value of a real constant as a double, or null. */
  real(node: Node): number | null {
    return this.ball.value(node, new Map())?.value ?? null;
  }

  /** Whether two expressions have the same value wherever both have one. */
  same(x: Node, y: Node): Verdict {
    if (keyOf(x) === keyOf(y)) return 'equal';
    if (isOpaque(x) || isOpaque(y)) return 'undecided';
    const variables = variablesOf(x, y);
    if (isComplex(x) || isComplex(y)) return this.sameComplex(x, y, variables);
    if (variables.length === 0) return this.sameConstant(x, y);
    const domain = domainOf(variables, x, y);
    const points: { point: Point; scale: number }[] = [];
    for (let t = 0; t < TRIES && points.length < ENOUGH; t += 1) {
      const point = pointAt(t, variables, domain);
      const a = this.ball.value(x, point);
      const b = a === null ? null : this.ball.value(y, point);
      if (a === null || b === null) continue;
      if (apart(a, b)) return 'different';
      points.push({ point, scale: scaleOf(a, b) });
    }
    if (this.budget.left < 0) return 'undecided';
    if (points.length === 0) return this.sameComplex(x, y, variables);
    if (points.length < ENOUGH - 2) return 'undecided';
    return this.confirm(x, y, points);
  }

  private sameConstant(x: Node, y: Node): Verdict {
    const empty: Point = new Map();
    const exact = this.sameExactly(x, y, empty);
    if (exact !== null) return exact ? 'equal' : 'different';
    const a = this.ball.value(x, empty);
    const b = this.ball.value(y, empty);
    if (a === null || b === null) {
      if (a !== null || b !== null) return 'different';
      return this.sameLarge(x, y) ?? this.sameComplex(x, y, []);
    }
    if (apart(a, b)) return 'different';
    return this.confirm(x, y, [{ point: empty, scale: scaleOf(a, b) }]);
  }

  /** Beyond a double's range: different where decimals say so; agreement there is too little to go by. */
  private sameLarge(x: Node, y: Node): Verdict | null {
    const a = this.decimal.value(x, new Map());
    const b = a === null ? null : this.decimal.value(y, new Map());
    if (a === null || b === null) return null;
    return agree(a, b, 0) ? 'undecided' : 'different';
  }

  private sameExactly(x: Node, y: Node, point: Point): boolean | null {
    const a = this.exact.value(x, point);
    const b = a === null ? null : this.exact.value(y, point);
    return a === null || b === null ? null : equalRationals(a, b);
  }

  /** Points where doubles agree, looked at more closely. */
  private confirm(x: Node, y: Node, points: { point: Point; scale: number }[]): Verdict {
    for (const { point, scale } of points.slice(0, CONFIRMATIONS)) {
      const exact = this.sameExactly(x, y, point);
      if (exact === false) return 'different';
      if (exact === true) continue;
      const a = this.decimal.value(x, point);
      const b = a === null ? null : this.decimal.value(y, point);
      if (a === null || b === null) return 'undecided';
      if (!agree(a, b, scale)) return 'different';
    }
    return 'equal';
  }

  /** Principal values of complex numbers. */
  private sameComplex(x: Node, y: Node, variables: string[]): Verdict {
    if (variables.length === 0) {
      const gaussian = new Evaluator(GAUSSIAN, this.budget, this.exact);
      const a = gaussian.value(x, new Map());
      const b = a === null ? null : gaussian.value(y, new Map());
      if (a !== null && b !== null)
        return equalRationals(a.re, b.re) && equalRationals(a.im, b.im) ? 'equal' : 'different';
    }
    const wanted = variables.length === 0 ? 1 : ENOUGH;
    const domain = domainOf(variables, x, y);
    let common = 0;
    for (let t = 0; t < (variables.length === 0 ? 1 : TRIES) && common < wanted; t += 1) {
      const point = pointAt(t, variables, domain);
      const a = this.complex.value(x, point);
      const b = a === null ? null : this.complex.value(y, point);
      if (a === null || b === null) continue;
      const distance = Math.hypot(a.re - b.re, a.im - b.im);
      const size = Math.max(Math.hypot(a.re, a.im), Math.hypot(b.re, b.im));
      if (!(distance <= COMPLEX_TOLERANCE * size + 1e-13)) return 'different';
      common += 1;
    }
    return common >= wanted ? 'equal' : 'undecided';
  }

  /**
   * Whether x = c y for one number c other than 0 (above 0 if `positive`), wherever both have a value: whether the equations
   * x = 0 and y = 0 are the same up to a factor.
   */
  proportional(x: Node, y: Node, positive: boolean): Verdict {
    const variables = variablesOf(x, y);
    if (isOpaque(x) || isOpaque(y) || isComplex(x) || isComplex(y)) return 'undecided';
    const domain = domainOf(variables, x, y);
    const points: { point: Point; x: Ball; y: Ball }[] = [];
    for (let t = 0; t < TRIES && points.length < ENOUGH + 1; t += 1) {
      const point = pointAt(t, variables, domain);
      const a = this.ball.value(x, point);
      const b = a === null ? null : this.ball.value(y, point);
      if (a === null || b === null) continue;
      const zeroA = Math.abs(a.value) <= 4 * a.error;
      const zeroB = Math.abs(b.value) <= 4 * b.error;
      if (zeroA !== zeroB) return 'different';
      if (zeroA) continue;
      if (positive && Math.sign(a.value) !== Math.sign(b.value)) return 'different';
      const first = points[0];
      if (first !== undefined) {
        const left = BALL.multiply(a, first.y);
        const right = BALL.multiply(b, first.x);
        if (left === null || right === null) continue;
        if (apart(left, right)) return 'different';
      }
      points.push({ point, x: a, y: b });
    }
    if (points.length < ENOUGH - 1) return 'undecided';
    return this.confirmProportion(x, y, points);
  }

  private confirmProportion(x: Node, y: Node, points: { point: Point; x: Ball; y: Ball }[]): Verdict {
    const [first, ...rest] = points as [{ point: Point }, ...{ point: Point; x: Ball; y: Ball }[]];
    const cross = <T>(evaluator: Evaluator<T>, multiply: (a: T, b: T) => T | null, point: Point): [T, T] | null => {
      const values = [
        evaluator.value(x, point),
        evaluator.value(y, first.point),
        evaluator.value(y, point),
        evaluator.value(x, first.point),
      ];
      if (values.some((value) => value === null)) return null;
      const [a, b, c, d] = values as [T, T, T, T];
      const left = multiply(a, b);
      const right = multiply(c, d);
      return left === null || right === null ? null : [left, right];
    };
    for (const { point } of rest.slice(0, CONFIRMATIONS)) {
      const exact = cross(this.exact, RATIONAL.multiply, point);
      if (exact !== null) {
        if (!equalRationals(...exact)) return 'different';
        continue;
      }
      const decimal = cross(this.decimal, DECIMAL.multiply, point);
      if (decimal === null) return 'undecided';
      if (!agree(decimal[0], decimal[1], 0)) return 'different';
    }
    return 'equal';
  }
}

/** Whether a rational number has finitely many decimals. */
function isTerminating(x: Rational): boolean {
  let { denominator } = lowest(x);
  for (const prime of [2n, 5n]) while (denominator % prime === 0n) denominator /= prime;
  return denominator === 1n;
}

const apart = (a: Ball, b: Ball): boolean => Math.abs(a.value - b.value) > 4 * (a.error + b.error);

/** How large a rounding error of one unit is in the end, for a unit of 1 instead of 2^-52. */
const scaleOf = (a: Ball, b: Ball): number => (a.error + b.error) * 2 ** 52;

/** The difference of the two sides of an equation. */
export function differenceOf(left: Node, right: Node): Node {
  return {
    kind: 'add',
    args: [left, { kind: 'mul', args: [{ kind: 'number', value: { numerator: -1n, denominator: 1n } }, right] }],
  };
}

/** Parts no arithmetic evaluates. */
function isOpaque(node: Node): boolean {
  return contains(node, ({ kind }) =>
    ['pm', 'tuple', 'set', 'list', 'matrix', 'setop', 'named', 'relation', 'ratio', 'based', 'text'].includes(kind),
  );
}

const isComplex = (node: Node): boolean => contains(node, (part) => part.kind === 'constant' && part.name === 'i');

function domainOf(variables: string[], ...nodes: Node[]): Domain {
  const integral = nodes.some((node) =>
    contains(node, (part) => part.kind === 'call' && INTEGER_FUNCTIONS.has(part.fn)),
  );
  return integral && variables.every((name) => /^[i-nKMNpqr](?:_.*)?$/.test(name)) ? 'naturals' : 'mixed';
}
