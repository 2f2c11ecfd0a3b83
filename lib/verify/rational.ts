/** Exact numbers: integers, decimals, fractions and powers of ten. */

export interface Rational {
  numerator: bigint;
  /** Positive. */
  denominator: bigint;
}

/** Digits beyond this are not worth the time of exact arithmetic. */
const MAX_CHARACTERS = 400;
const MAX_EXPONENT = 400;
const NUMBER = /^([-+]?)([0-9]*)(?:\.([0-9]*))?(?:(?:[eE]|\\times10\^|\\cdot10\^)\{?([-+]?[0-9]{1,3})\}?)?$/;

/** Reads `12`, `-0.50`, `.5`, `3/4`, `1e-3`, `3\times10^{5}` after normalization, or null. */
export function parseRational(text: string): Rational | null {
  if (text.length > MAX_CHARACTERS) return null;
  const bare = /^\(([^()]*)\)$/.exec(text)?.[1] ?? text;
  const parts = bare.split('/');
  if (parts.length > 2) return null;
  const top = parseNumber(parts[0] as string);
  if (top === null) return null;
  if (parts.length === 1) return top;
  const bottom = parseNumber(parts[1] as string);
  if (bottom === null || bottom.numerator === 0n) return null;
  const sign = bottom.numerator < 0n ? -1n : 1n;
  return {
    numerator: sign * top.numerator * bottom.denominator,
    denominator: sign * top.denominator * bottom.numerator,
  };
}

/** Whether two rationals are the same number. */
export function equalRationals(x: Rational, y: Rational): boolean {
  return x.numerator * y.denominator === y.numerator * x.denominator;
}

function parseNumber(text: string): Rational | null {
  const match = NUMBER.exec(text);
  if (match === null) return null;
  const [, sign, whole = '', decimals = '', power = '0'] = match;
  const digits = whole + decimals;
  const exponent = Number(power) - decimals.length;
  if (digits === '' || Math.abs(exponent) > MAX_EXPONENT) return null;
  const value = BigInt(digits) * (sign === '-' ? -1n : 1n);
  return exponent >= 0
    ? { numerator: value * 10n ** BigInt(exponent), denominator: 1n }
    : { numerator: value, denominator: 10n ** BigInt(-exponent) };
}
