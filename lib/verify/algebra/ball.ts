/** Real numbers as doubles with a bound of their error: what differs beyond the bound is different for certain. */
import type { FunctionName } from '../latex/ast.js';
import { integerOf, toNumber } from '../rational.js';
import type { Arithmetic } from './arithmetic.js';
import { coefficients } from './unknown.js';

export interface Ball {
  value: number;
  /** The true value is within this of `value`. */
  error: number;
}

/** Rounding of one operation, with room for the library's functions. */
const U = 2 ** -52;

function ball(value: number, error: number): Ball | null {
  return Number.isFinite(value) && Number.isFinite(error) ? { value, error: error + Math.abs(value) * U } : null;
}

/** f(x) and |f'(x)|. */
const SMOOTH: Partial<Record<FunctionName, (x: number) => [value: number, slope: number]>> = {
  sin: (x) => [Math.sin(x), 1],
  cos: (x) => [Math.cos(x), 1],
  tan: (x) => [Math.tan(x), 1 + Math.tan(x) ** 2],
  cot: (x) => [1 / Math.tan(x), 1 + 1 / Math.tan(x) ** 2],
  sec: (x) => [1 / Math.cos(x), Math.abs(Math.tan(x) / Math.cos(x)) + 1],
  csc: (x) => [1 / Math.sin(x), 1 + 1 / Math.sin(x) ** 2],
  asin: (x) => [Math.asin(x), 1 / Math.sqrt(1 - x * x)],
  acos: (x) => [Math.acos(x), 1 / Math.sqrt(1 - x * x)],
  atan: (x) => [Math.atan(x), 1],
  acot: (x) => [Math.PI / 2 - Math.atan(x), 1],
  asec: (x) => [Math.acos(1 / x), 1 / Math.sqrt(x ** 4 - x * x)],
  acsc: (x) => [Math.asin(1 / x), 1 / Math.sqrt(x ** 4 - x * x)],
  sinh: (x) => [Math.sinh(x), Math.cosh(x)],
  cosh: (x) => [Math.cosh(x), Math.cosh(x)],
  tanh: (x) => [Math.tanh(x), 1],
  coth: (x) => [1 / Math.tanh(x), 1 / Math.sinh(x) ** 2],
  asinh: (x) => [Math.asinh(x), 1],
  acosh: (x) => [Math.acosh(x), 1 / Math.sqrt(x * x - 1)],
  atanh: (x) => [Math.atanh(x), 1 / (1 - x * x)],
  exp: (x) => [Math.exp(x), Math.exp(x)],
};

function smooth(fn: FunctionName, x: Ball): Ball | null {
  const f = SMOOTH[fn];
  if (f === undefined) return null;
  const [value, slope] = f(x.value);
  // At an endpoint of its domain a function's slope is infinite; the root of the error bounds it there.
  const error = Number.isFinite(slope) ? slope * x.error : Math.sqrt(2 * (x.error + U));
  return ball(value, error + 4 * U * Math.abs(value));
}

function logarithm(x: Ball): Ball | null {
  if (x.value <= x.error) return null;
  return ball(Math.log(x.value), x.error / (x.value - x.error) + U);
}

function divide(x: Ball, y: Ball): Ball | null {
  const low = Math.abs(y.value) - y.error;
  if (low <= 0) return null;
  const value = x.value / y.value;
  return ball(value, (x.error + Math.abs(value) * y.error) / low);
}

function multiply(x: Ball, y: Ball): Ball | null {
  return ball(x.value * y.value, Math.abs(x.value) * y.error + Math.abs(y.value) * x.error + x.error * y.error);
}

/** x to a real power; of a negative x only where the power is a fraction with an odd denominator. */
function realPower(x: Ball, exponent: number, odd: boolean | null): Ball | null {
  const { value, error } = x;
  const size = Math.abs(value);
  if (value < 0 && odd === null)
    return value >= -error ? realPower({ value: 0, error: 2 * error }, exponent, odd) : null;
  if (size <= error) {
    // Zero, as far as is known.
    return exponent > 0 ? { value: 0, error: (2 * error) ** exponent } : null;
  }
  const magnitude = size ** exponent;
  const relative = (Math.abs(exponent) * error) / (size - error) + 4 * U;
  return ball(value < 0 && odd === true ? -magnitude : magnitude, magnitude * relative);
}

export const BALL: Arithmetic<Ball> = {
  rational: (value) => ball(toNumber(value), 0),
  constant: (name) => (name === 'pi' ? ball(Math.PI, 0) : name === 'e' ? ball(Math.E, 0) : null),
  add: (x, y) => ball(x.value + y.value, x.error + y.error),
  multiply,
  divide,
  power(base, exponent) {
    const whole = integerOf(exponent);
    const n = toNumber(exponent);
    if (whole !== null) {
      if (whole === 0n) return base.value === 0 ? null : { value: 1, error: 0 };
      return realPower(base, n, whole % 2n !== 0n);
    }
    return realPower(base, n, exponent.denominator % 2n === 1n ? exponent.numerator % 2n !== 0n : null);
  },
  pow(base, exponent) {
    const log = logarithm(base);
    const product = log === null ? null : multiply(log, exponent);
    return product === null ? null : smooth('exp', product);
  },
  call(fn, args) {
    const [x, y] = args;
    if (x === undefined) return null;
    switch (fn) {
      case 'ln':
        return logarithm(x);
      case 'log': {
        const top = logarithm(x);
        const bottom = y === undefined ? { value: Math.LN10, error: U } : logarithm(y);
        return top === null || bottom === null ? null : divide(top, bottom);
      }
      case 'root': {
        const degree = y === undefined ? 2 : y.value;
        if (!Number.isInteger(degree) || degree < 1) return degree === 0 ? null : realPower(x, 1 / degree, null);
        return realPower(x, 1 / degree, degree % 2 === 1 ? true : null);
      }
      case 'abs':
        return { value: Math.abs(x.value), error: x.error };
      case 'sign':
        return Math.abs(x.value) <= x.error ? null : { value: Math.sign(x.value), error: 0 };
      case 'floor':
      case 'ceil':
        return rounded(fn, x);
      case 'max':
        return args.reduce((a, b) => ({ value: Math.max(a.value, b.value), error: Math.max(a.error, b.error) }));
      case 'min':
        return args.reduce((a, b) => ({ value: Math.min(a.value, b.value), error: Math.max(a.error, b.error) }));
      default:
        return smooth(fn, x);
    }
  },
  unknown(name, args) {
    const c = coefficients(name);
    let value = c[0];
    let error = 0;
    for (const [k, x] of args.entries()) {
      value += c[1] * Math.sin(c[2] * x.value + c[3] + k) + c[4] * x.value * (k + 1);
      error += (Math.abs(c[1] * c[2]) + Math.abs(c[4]) * (k + 1)) * x.error;
    }
    return ball(value, error + 8 * U);
  },
};

/** Near an integer it takes exact arithmetic to tell. */
function rounded(fn: 'floor' | 'ceil', x: Ball): Ball | null {
  if (Math.abs(x.value - Math.round(x.value)) <= x.error) return null;
  return { value: Math[fn](x.value), error: 0 };
}
