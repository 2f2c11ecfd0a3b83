/** Real numbers with 64 digits, by the decimals of mathjs: what agrees there to 52 digits is taken as equal. */
import type { FunctionName } from '../latex/ast.js';
import { bitLength, integerOf, type Rational } from '../rational.js';
import type { Arithmetic } from './arithmetic.js';
import { type Decimal, numbers } from './library.js';
import { coefficients } from './unknown.js';

/** Beyond this an argument of a transcendental function has no digits left, or takes too long. */
const MAX_ARGUMENT = 1e5;
const MAX_BITS = 20_000;
const MAX_POWER = 1e6;

const finite = (x: Decimal): Decimal | null => (x.isFinite() ? x : null);
const small = (x: Decimal): boolean => x.abs().lt(MAX_ARGUMENT);

function fromRational({ numerator, denominator }: Rational): Decimal | null {
  if (bitLength(numerator) > MAX_BITS || bitLength(denominator) > MAX_BITS) return null;
  const { Decimal } = numbers();
  const top = new Decimal(numerator.toString());
  return denominator === 1n ? top : top.div(denominator.toString());
}

const TRANSCENDENTAL: Partial<Record<FunctionName, (x: Decimal) => Decimal>> = {
  sin: (x) => x.sin(),
  cos: (x) => x.cos(),
  tan: (x) => x.tan(),
  cot: (x) => x.cos().div(x.sin()),
  sec: (x) => x.cos().pow(-1),
  csc: (x) => x.sin().pow(-1),
  asin: (x) => x.asin(),
  acos: (x) => x.acos(),
  atan: (x) => x.atan(),
  acot: (x) => numbers().pi.div(2).minus(x.atan()),
  asec: (x) => x.pow(-1).acos(),
  acsc: (x) => x.pow(-1).asin(),
  sinh: (x) => x.sinh(),
  cosh: (x) => x.cosh(),
  tanh: (x) => x.tanh(),
  coth: (x) => x.cosh().div(x.sinh()),
  asinh: (x) => x.asinh(),
  acosh: (x) => x.acosh(),
  atanh: (x) => x.atanh(),
  exp: (x) => x.exp(),
};

function root(x: Decimal, degree: number): Decimal | null {
  if (!Number.isInteger(degree) || degree < 1 || degree > 1000) return null;
  if (degree === 1) return x;
  if (x.isZero()) return x;
  if (degree === 2) return x.isNegative() ? null : finite(x.sqrt());
  if (x.isNegative()) {
    if (degree % 2 === 0) return null;
    const positive = root(x.neg(), degree);
    return positive === null ? null : positive.neg();
  }
  return degree === 3 ? finite(x.cbrt()) : finite(x.ln().div(degree).exp());
}

function freePower(base: Decimal, exponent: Decimal): Decimal | null {
  if (!base.isPositive() || base.isZero()) return null;
  const power = base.ln().times(exponent);
  return small(power) ? finite(power.exp()) : null;
}

export const DECIMAL: Arithmetic<Decimal> = {
  rational: fromRational,
  constant: (name) => (name === 'pi' ? numbers().pi : name === 'e' ? numbers().e : null),
  add: (x, y) => finite(x.plus(y)),
  multiply: (x, y) => finite(x.times(y)),
  divide: (x, y) => (y.isZero() ? null : finite(x.div(y))),
  power(base, exponent) {
    const whole = integerOf(exponent);
    if (whole !== null) {
      if (base.isZero() && whole <= 0n) return null;
      return whole > -MAX_POWER && whole < MAX_POWER ? finite(base.pow(Number(whole))) : null;
    }
    if (exponent.denominator > 1000n || exponent.numerator > 10_000n || exponent.numerator < -10_000n) {
      const value = fromRational(exponent);
      return value === null ? null : freePower(base, value);
    }
    const rooted = root(base, Number(exponent.denominator));
    if (rooted === null || (rooted.isZero() && exponent.numerator < 0n)) return null;
    return finite(rooted.pow(Number(exponent.numerator)));
  },
  pow: freePower,
  call(fn, args) {
    const [x, y] = args;
    if (x === undefined) return null;
    switch (fn) {
      case 'ln':
        return x.isPositive() && !x.isZero() ? finite(x.ln()) : null;
      case 'log': {
        if (!x.isPositive() || x.isZero() || (y !== undefined && (!y.isPositive() || y.isZero() || y.eq(1))))
          return null;
        return finite(x.ln().div(y === undefined ? new (numbers().Decimal)(10).ln() : y.ln()));
      }
      case 'root':
        return root(x, y === undefined ? 2 : y.toNumber());
      case 'abs':
        return x.abs();
      case 'max':
        return args.reduce((a, b) => (a.lt(b) ? b : a));
      case 'min':
        return args.reduce((a, b) => (b.lt(a) ? b : a));
      case 'floor':
        return x.floor();
      case 'ceil':
        return x.ceil();
      default: {
        const f = TRANSCENDENTAL[fn];
        return f === undefined || !small(x) ? null : finite(f(x));
      }
    }
  },
  unknown(name, args) {
    const c = coefficients(name);
    let value = new (numbers().Decimal)(c[0]);
    for (const [k, x] of args.entries()) {
      if (!small(x)) return null;
      value = value
        .plus(
          x
            .times(c[2])
            .plus(c[3] + k)
            .sin()
            .times(c[1]),
        )
        .plus(x.times(c[4] * (k + 1)));
    }
    return finite(value);
  },
};

/** Whether two values agree, given how large the rounding of a double was on the way (`scale`). */
export function agree(x: Decimal, y: Decimal, scale: number): boolean {
  const difference = x.minus(y).abs();
  if (difference.isZero()) return true;
  const size = x.abs().gt(y.abs()) ? x.abs() : y.abs();
  return (
    difference.lte(size.times('1e-52')) ||
    (Number.isFinite(scale) && difference.lte(new (numbers().Decimal)(scale).times('1e-52')))
  );
}
