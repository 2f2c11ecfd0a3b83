/** Complex numbers as pairs of doubles, by mathjs: principal values. */
import type { FunctionName } from '../latex/ast.js';
import { integerOf, toNumber } from '../rational.js';
import type { Arithmetic } from './arithmetic.js';
import { type ComplexNumber, numbers } from './library.js';
import { coefficients } from './unknown.js';

/** The methods we use of the class, which its declarations leave out. */
interface Methods extends ComplexNumber {
  add(y: Methods): Methods;
  mul(y: Methods): Methods;
  div(y: Methods): Methods;
  pow(y: Methods): Methods;
  abs(): number;
  log(): Methods;
  exp(): Methods;
  sqrt(): Methods;
  [fn: string]: unknown;
}
export type Complex = Methods;

const make = (re: number, im: number): Complex => new (numbers().Complex)(re, im) as Complex;
const finite = (z: Complex): Complex | null => (Number.isFinite(z.re) && Number.isFinite(z.im) ? z : null);
const isZero = (z: Complex): boolean => z.re === 0 && z.im === 0;

/** Names of the methods that differ from ours. */
const METHODS: Partial<Record<FunctionName, string>> = {
  sin: 'sin',
  cos: 'cos',
  tan: 'tan',
  cot: 'cot',
  sec: 'sec',
  csc: 'csc',
  asin: 'asin',
  acos: 'acos',
  atan: 'atan',
  acot: 'acot',
  asec: 'asec',
  acsc: 'acsc',
  sinh: 'sinh',
  cosh: 'cosh',
  tanh: 'tanh',
  coth: 'coth',
  asinh: 'asinh',
  acosh: 'acosh',
  atanh: 'atanh',
  exp: 'exp',
};

function integerPower(z: Complex, exponent: number): Complex | null {
  if (isZero(z)) return exponent > 0 ? z : null;
  let n = Math.abs(exponent);
  let result = make(1, 0);
  let square = z;
  for (; n > 0; n = Math.floor(n / 2)) {
    if (n % 2 === 1) result = result.mul(square);
    if (n > 1) square = square.mul(square);
  }
  return finite(exponent < 0 ? make(1, 0).div(result) : result);
}

function pow(base: Complex, exponent: Complex): Complex | null {
  if (isZero(base)) return null;
  return finite(base.log().mul(exponent).exp());
}

export const COMPLEX: Arithmetic<Complex> = {
  rational: (value) => finite(make(toNumber(value), 0)),
  constant: (name) => (name === 'i' ? make(0, 1) : make(name === 'pi' ? Math.PI : Math.E, 0)),
  add: (x, y) => finite(x.add(y)),
  multiply: (x, y) => finite(x.mul(y)),
  divide: (x, y) => (isZero(y) ? null : finite(x.div(y))),
  power(base, exponent) {
    const whole = integerOf(exponent);
    if (whole !== null) return whole > -4096n && whole < 4096n ? integerPower(base, Number(whole)) : null;
    return isZero(base) && exponent.numerator > 0n ? base : pow(base, make(toNumber(exponent), 0));
  },
  pow,
  call(fn, args) {
    const [x, y] = args;
    if (x === undefined) return null;
    switch (fn) {
      case 'ln':
        return isZero(x) ? null : finite(x.log());
      case 'log': {
        const base = y === undefined ? make(10, 0) : y;
        if (isZero(x) || isZero(base)) return null;
        const bottom = base.log();
        return isZero(bottom) ? null : finite(x.log().div(bottom));
      }
      case 'root': {
        if (isZero(x)) return x;
        // The square root is exact on squares; other roots are principal values.
        if (y === undefined || (y.re === 2 && y.im === 0)) return finite(x.sqrt());
        if (x.im === 0 && x.re < 0 && y.im === 0 && y.re % 2 === 1) return finite(make(-((-x.re) ** (1 / y.re)), 0));
        return isZero(y) ? null : pow(x, make(1, 0).div(y));
      }
      case 'abs':
        return finite(make(x.abs(), 0));
      default: {
        const method = METHODS[fn];
        return method === undefined ? null : finite((x[method] as () => Complex).call(x));
      }
    }
  },
  unknown(name, args) {
    const c = coefficients(name);
    let value = make(c[0], 0);
    for (const [k, x] of args.entries()) {
      const angle = x.mul(make(c[2], 0)).add(make(c[3] + k, 0));
      value = value
        .add((angle.sin as () => Complex).call(angle).mul(make(c[1], 0)))
        .add(x.mul(make(c[4] * (k + 1), 0)));
    }
    return finite(value);
  },
};
