/** Exact rational numbers, bounded: an operation whose result would be too long gives null. */

export interface Rational {
  numerator: bigint;
  /** Positive. */
  denominator: bigint;
}

/** Numbers longer than this are not worth the time of exact arithmetic. */
const MAX_BITS = 16_384;
/** Fractions are reduced only when they grow: a greatest common divisor is the dearest step. */
const REDUCE_BITS = 192;
const MAX_EXPONENT = 4_000;
const MAX_DIGITS = 4_000;
const DECIMAL = /^([0-9]*)(?:\.([0-9]*))?(?:[eE]([-+]?[0-9]{1,6}))?$/;

export const ZERO: Rational = { numerator: 0n, denominator: 1n };
export const ONE: Rational = { numerator: 1n, denominator: 1n };

/** `12`, `0.50`, `.5`, `1.`, `1e-3` without a sign, or null. */
export function parseDecimal(text: string): Rational | null {
  if (text.length > MAX_DIGITS) return null;
  const match = DECIMAL.exec(text);
  if (match === null) return null;
  const [, whole = '', decimals = '', power = '0'] = match;
  const digits = whole + decimals;
  const exponent = Number(power) - decimals.length;
  if (digits === '' || Math.abs(exponent) > MAX_EXPONENT) return null;
  return exponent >= 0
    ? { numerator: BigInt(digits) * 10n ** BigInt(exponent), denominator: 1n }
    : { numerator: BigInt(digits), denominator: 10n ** BigInt(-exponent) };
}

/** About the number of bits, at most three too many. */
export function bitLength(n: bigint): number {
  if (n >= -0xffffffffn && n <= 0xffffffffn) return 32;
  return n.toString(16).length * 4;
}

const sizeOf = (x: Rational): number => bitLength(x.numerator) + bitLength(x.denominator);

export function equalRationals(x: Rational, y: Rational): boolean {
  return x.numerator * y.denominator === y.numerator * x.denominator;
}

export const isInteger = (x: Rational): boolean => x.numerator % x.denominator === 0n;

/** The integer `x` is, or null. */
export const integerOf = (x: Rational): bigint | null => (isInteger(x) ? x.numerator / x.denominator : null);

export function addRationals(x: Rational, y: Rational): Rational | null {
  if (sizeOf(x) + sizeOf(y) > MAX_BITS * 2) return null;
  if (x.denominator === y.denominator) {
    return reduce({ numerator: x.numerator + y.numerator, denominator: x.denominator });
  }
  return reduce({
    numerator: x.numerator * y.denominator + y.numerator * x.denominator,
    denominator: x.denominator * y.denominator,
  });
}

export function multiplyRationals(x: Rational, y: Rational): Rational | null {
  if (sizeOf(x) + sizeOf(y) > MAX_BITS * 2) return null;
  return reduce({ numerator: x.numerator * y.numerator, denominator: x.denominator * y.denominator });
}

/** 1/x, or null for zero. */
export function invert(x: Rational): Rational | null {
  if (x.numerator === 0n) return null;
  return x.numerator > 0n
    ? { numerator: x.denominator, denominator: x.numerator }
    : { numerator: -x.denominator, denominator: -x.numerator };
}

/** x to an integer power, or null (0 to a negative power, 0^0, or too long). */
export function powerOf(x: Rational, exponent: bigint): Rational | null {
  if (exponent === 0n) return x.numerator === 0n ? null : ONE;
  const base = exponent < 0n ? invert(x) : x;
  if (base === null) return null;
  const n = exponent < 0n ? -exponent : exponent;
  const { numerator, denominator } = lowest(base);
  if (denominator === 1n && (numerator === 0n || numerator === 1n)) return { numerator, denominator };
  if (denominator === 1n && numerator === -1n) return { numerator: n % 2n === 0n ? 1n : -1n, denominator };
  const bits = Math.max(exactBits(numerator), exactBits(denominator));
  if (n > BigInt(MAX_BITS) || Number(n) * bits > MAX_BITS) return null;
  return { numerator: numerator ** n, denominator: denominator ** n };
}

function exactBits(n: bigint): number {
  return (n < 0n ? -n : n).toString(2).length;
}

/** The exact k-th root, or null where it is irrational (or of an even root of a negative number). */
export function rootOf(x: Rational, k: number): Rational | null {
  if (!Number.isInteger(k) || k < 1 || k > 64) return null;
  const { numerator, denominator } = lowest(x);
  if (numerator < 0n && k % 2 === 0) return null;
  const top = integerRoot(numerator < 0n ? -numerator : numerator, k);
  const bottom = integerRoot(denominator, k);
  if (top === null || bottom === null) return null;
  return { numerator: numerator < 0n ? -top : top, denominator: bottom };
}

/** The integer whose k-th power is n, or null. */
function integerRoot(n: bigint, k: number): bigint | null {
  if (n < 2n) return n;
  const bits = exactBits(n);
  if (bits > 4096) return null;
  const K = BigInt(k);
  let x = 1n << BigInt(Math.ceil(bits / k));
  for (let step = 0; step < 400; step += 1) {
    const next = ((K - 1n) * x + n / x ** (K - 1n)) / K;
    if (next >= x) return x ** K === n ? x : null;
    x = next;
  }
  return null;
}

/** In lowest terms. */
export function lowest(x: Rational): Rational {
  let a = x.numerator < 0n ? -x.numerator : x.numerator;
  let b = x.denominator;
  while (b !== 0n) [a, b] = [b, a % b];
  return a <= 1n ? x : { numerator: x.numerator / a, denominator: x.denominator / a };
}

function reduce(x: Rational): Rational | null {
  if (x.denominator === 1n) return bitLength(x.numerator) > MAX_BITS ? null : x;
  const bits = sizeOf(x);
  if (bits <= REDUCE_BITS) return x;
  if (bits > MAX_BITS * 4) return null;
  const lower = lowest(x);
  return sizeOf(lower) > MAX_BITS * 2 ? null : lower;
}

/** The nearest double; Infinity where there is none. */
export function toNumber(x: Rational): number {
  const top = Number(x.numerator);
  const bottom = Number(x.denominator);
  if (Number.isFinite(top) && Number.isFinite(bottom)) return top / bottom;
  const shift = BigInt(Math.max(0, Math.min(bitLength(x.numerator), bitLength(x.denominator)) - 1000));
  return Number(x.numerator >> shift) / Number(x.denominator >> shift);
}
