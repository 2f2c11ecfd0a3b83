/** Exact arithmetic: rational numbers, and complex numbers with rational parts. */
import {
  addRationals,
  integerOf,
  invert,
  multiplyRationals,
  ONE,
  powerOf,
  type Rational,
  rootOf,
  ZERO,
} from '../rational.js';
import type { Arithmetic } from './arithmetic.js';
import { exactCall } from './integers.js';

export const RATIONAL: Arithmetic<Rational> = {
  rational: (value) => value,
  constant: () => null,
  add: addRationals,
  multiply: multiplyRationals,
  divide(x, y) {
    const inverse = invert(y);
    return inverse === null ? null : multiplyRationals(x, inverse);
  },
  power(base, exponent) {
    const whole = integerOf(exponent);
    if (whole !== null) return powerOf(base, whole);
    if (exponent.denominator > 64n) return null;
    const root = rootOf(base, Number(exponent.denominator));
    return root === null ? null : powerOf(root, exponent.numerator);
  },
  pow: () => null,
  call: exactCall,
  unknown: () => null,
};

export interface Gaussian {
  re: Rational;
  im: Rational;
}

const real = (re: Rational): Gaussian => ({ re, im: ZERO });
const pair = (re: Rational | null, im: Rational | null): Gaussian | null =>
  re === null || im === null ? null : { re, im };
const minus = (x: Rational): Rational => ({ numerator: -x.numerator, denominator: x.denominator });
const difference = (x: Rational | null, y: Rational | null): Rational | null =>
  x === null || y === null ? null : addRationals(x, minus(y));
const total = (x: Rational | null, y: Rational | null): Rational | null =>
  x === null || y === null ? null : addRationals(x, y);

function multiply(x: Gaussian, y: Gaussian): Gaussian | null {
  return pair(
    difference(multiplyRationals(x.re, y.re), multiplyRationals(x.im, y.im)),
    total(multiplyRationals(x.re, y.im), multiplyRationals(x.im, y.re)),
  );
}

/** Complex numbers with rational parts. */
export const GAUSSIAN: Arithmetic<Gaussian> = {
  rational: real,
  constant: (name) => (name === 'i' ? { re: ZERO, im: ONE } : null),
  add: (x, y) => pair(addRationals(x.re, y.re), addRationals(x.im, y.im)),
  multiply,
  divide(x, y) {
    const norm = total(multiplyRationals(y.re, y.re), multiplyRationals(y.im, y.im));
    const inverse = norm === null ? null : invert(norm);
    const product = multiply(x, { re: y.re, im: minus(y.im) });
    return inverse === null || product === null ? null : multiply(product, real(inverse));
  },
  power(base, exponent) {
    let n = integerOf(exponent);
    if (n === null || n < 0n || n > 256n) return null;
    let result: Gaussian | null = real(ONE);
    let square: Gaussian | null = base;
    while (n > 0n && result !== null && square !== null) {
      if (n % 2n === 1n) result = multiply(result, square);
      n /= 2n;
      if (n > 0n) square = multiply(square, square);
    }
    return square === null ? null : result;
  },
  pow: () => null,
  call(fn, args) {
    if (args.some(({ im }) => im.numerator !== 0n)) return null;
    const value = exactCall(
      fn,
      args.map(({ re }) => re),
    );
    return value === null ? null : real(value);
  },
  unknown: () => null,
};
