/** Functions of exact numbers: factorials, divisors, rounding. Bounded. */
import type { FunctionName } from '../latex/ast.js';
import {
  addRationals,
  equalRationals,
  integerOf,
  invert,
  lowest,
  multiplyRationals,
  ONE,
  type Rational,
  rootOf,
  ZERO,
} from '../rational.js';

const MAX_FACTORIAL = 1_400n;
const MAX_BINOMIAL = 3_000n;

/** An exact value of an exact argument, or null where it is irrational, undefined or too large. */
export function exactCall(fn: FunctionName, args: Rational[]): Rational | null {
  const [x, y] = args;
  if (x === undefined) return null;
  switch (fn) {
    case 'abs':
      return x.numerator < 0n ? negative(x) : x;
    case 'sign':
      return whole(x.numerator < 0n ? -1n : x.numerator > 0n ? 1n : 0n);
    case 'floor':
      return whole(floor(x));
    case 'ceil':
      return whole(-floor(negative(x)));
    case 'root': {
      const degree = y === undefined ? 2n : integerOf(y);
      return degree === null || degree < 1n || degree > 64n ? null : rootOf(x, Number(degree));
    }
    case 'factorial':
      return factorial(x);
    case 'binomial':
      return y === undefined ? null : binomial(x, y);
    case 'mod':
      return y === undefined ? null : modulo(x, y);
    case 'gcd':
      return args.reduce<Rational | null>((a, b) => (a === null ? null : gcd(a, b)), ZERO);
    case 'lcm':
      return args.reduce<Rational | null>((a, b) => (a === null ? null : lcm(a, b)), x);
    case 'max':
      return args.reduce((a, b) => (less(a, b) ? b : a));
    case 'min':
      return args.reduce((a, b) => (less(b, a) ? b : a));
    case 'exp':
    case 'cos':
    case 'cosh':
      return x.numerator === 0n ? ONE : null;
    case 'sin':
    case 'tan':
    case 'sinh':
    case 'tanh':
    case 'asin':
    case 'atan':
      return x.numerator === 0n ? ZERO : null;
    case 'ln':
      return equalRationals(x, ONE) ? ZERO : null;
    default:
      return null;
  }
}

const whole = (numerator: bigint): Rational => ({ numerator, denominator: 1n });
const negative = (x: Rational): Rational => ({ numerator: -x.numerator, denominator: x.denominator });
const less = (x: Rational, y: Rational): boolean => x.numerator * y.denominator < y.numerator * x.denominator;

function floor(x: Rational): bigint {
  const quotient = x.numerator / x.denominator;
  return x.numerator < 0n && quotient * x.denominator !== x.numerator ? quotient - 1n : quotient;
}

function factorial(x: Rational): Rational | null {
  const n = integerOf(x);
  if (n === null || n < 0n || n > MAX_FACTORIAL) return null;
  let product = 1n;
  for (let k = 2n; k <= n; k += 1n) product *= k;
  return whole(product);
}

function binomial(x: Rational, y: Rational): Rational | null {
  const n = integerOf(x);
  let k = integerOf(y);
  if (n === null || k === null || n < 0n || n > MAX_BINOMIAL) return null;
  if (k < 0n || k > n) return ZERO;
  if (k > n - k) k = n - k;
  let result = 1n;
  for (let j = 1n; j <= k; j += 1n) result = (result * (n - k + j)) / j;
  return whole(result);
}

/** x - y floor(x/y): the sign of y. */
function modulo(x: Rational, y: Rational): Rational | null {
  const inverse = invert(y);
  const quotient = inverse === null ? null : multiplyRationals(x, inverse);
  const multiple = quotient === null ? null : multiplyRationals(whole(-floor(quotient)), y);
  return multiple === null ? null : addRationals(x, multiple);
}

function gcd(x: Rational, y: Rational): Rational | null {
  const [a, b] = [lowest(x), lowest(y)];
  const numerator = integerGcd(a.numerator * b.denominator, b.numerator * a.denominator);
  return { numerator, denominator: a.denominator * b.denominator };
}

function integerGcd(a: bigint, b: bigint): bigint {
  let [x, y] = [a < 0n ? -a : a, b < 0n ? -b : b];
  while (y !== 0n) [x, y] = [y, x % y];
  return x;
}

/** In lowest terms: the least common multiple of the numerators over the divisor of the denominators. */
function lcm(x: Rational, y: Rational): Rational | null {
  const [a, b] = [lowest(x), lowest(y)];
  if (a.numerator === 0n || b.numerator === 0n) return ZERO;
  const product = (a.numerator / integerGcd(a.numerator, b.numerator)) * b.numerator;
  return { numerator: product < 0n ? -product : product, denominator: integerGcd(a.denominator, b.denominator) };
}
