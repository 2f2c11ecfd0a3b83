/** Equations without denominators: `y = 1/x` says `xy = 1`. */
import type { Algebra } from '../algebra/algebra.js';
import { contains, variablesOf } from '../algebra/arithmetic.js';
import { int, type Node } from '../latex/ast.js';
import { integerOf } from '../rational.js';
import { substitute } from './tree.js';

interface Fraction {
  numerator: Node;
  /** Factors, powers of variables all. */
  denominator: Map<string, number>;
}

const MAX_PARTS = 24;

/**
 * An expression times the variables in its denominators, or null: no such denominators, or others. Null as well where the
 * product is zero at a zero of what it was multiplied by, since that would be a solution the equation has not.
 */
export function withoutDenominators(node: Node, algebra: Algebra): Node | null {
  if (!contains(node, ({ kind }) => kind === 'div')) return null;
  const fraction = fractionOf(node);
  if (fraction === null || fraction.denominator.size === 0) return null;
  for (const name of fraction.denominator.keys()) {
    if (algebra.same(substitute(fraction.numerator, name, int(0)), int(0)) !== 'different') return null;
  }
  return fraction.numerator;
}

const whole = (numerator: Node): Fraction => ({ numerator, denominator: new Map() });

function fractionOf(node: Node): Fraction | null {
  switch (node.kind) {
    case 'div': {
      const top = fractionOf(node.num);
      const bottom = monomial(node.den);
      return top === null || bottom === null
        ? null
        : {
            numerator: { kind: 'div', num: top.numerator, den: bottom.factor },
            denominator: product(top.denominator, bottom.powers),
          };
    }
    case 'mul': {
      const parts = node.args.map(fractionOf);
      if (parts.length > MAX_PARTS || parts.some((part) => part === null)) return null;
      const all = parts as Fraction[];
      return {
        numerator: { kind: 'mul', args: all.map(({ numerator }) => numerator) },
        denominator: all.map(({ denominator }) => denominator).reduce(product),
      };
    }
    case 'add':
      return sum(node.args.map(fractionOf));
    default:
      return contains(node, ({ kind }) => kind === 'div') && variablesOf(node).length > 0 ? null : whole(node);
  }
}

/** Over the least common denominator. */
function sum(parts: (Fraction | null)[]): Fraction | null {
  if (parts.length > MAX_PARTS || parts.some((part) => part === null)) return null;
  const all = parts as Fraction[];
  const common = new Map<string, number>();
  for (const { denominator } of all) {
    for (const [name, power] of denominator) common.set(name, Math.max(common.get(name) ?? 0, power));
  }
  const args = all.map(({ numerator, denominator }): Node => {
    const missing = [...common].map(([name, power]) => powerOf(name, power - (denominator.get(name) ?? 0)));
    return { kind: 'mul', args: [numerator, ...missing] };
  });
  return { numerator: { kind: 'add', args }, denominator: common };
}

const powerOf = (name: string, power: number): Node =>
  power === 0 ? int(1) : { kind: 'pow', base: { kind: 'symbol', name }, exponent: int(power) };

function product(a: Map<string, number>, b: Map<string, number>): Map<string, number> {
  const result = new Map(a);
  for (const [name, power] of b) result.set(name, (result.get(name) ?? 0) + power);
  return result;
}

/** A number times powers of variables, or null. */
function monomial(node: Node): { factor: Node; powers: Map<string, number> } | null {
  if (variablesOf(node).length === 0) return { factor: node, powers: new Map() };
  if (node.kind === 'symbol') return { factor: int(1), powers: new Map([[node.name, 1]]) };
  if (node.kind === 'pow' && node.base.kind === 'symbol' && node.exponent.kind === 'number') {
    const power = integerOf(node.exponent.value);
    return power === null || power < 1n || power > 20n
      ? null
      : { factor: int(1), powers: new Map([[node.base.name, Number(power)]]) };
  }
  if (node.kind !== 'mul') return null;
  const parts = node.args.map(monomial);
  if (parts.some((part) => part === null)) return null;
  const all = parts as { factor: Node; powers: Map<string, number> }[];
  return {
    factor: { kind: 'mul', args: all.map(({ factor }) => factor) },
    powers: all.map(({ powers }) => powers).reduce(product),
  };
}
