/** Python's operators on the values of a template. */
import {
  asItems,
  asNumber,
  asText,
  bool,
  contains,
  float,
  integer,
  isEqual,
  list,
  printed,
  text,
  typeName,
  type Value,
} from './jinja-values.js';
import { compareTexts } from './python.js';

/** @throws Error where Python has no such operation */
export function binary(operator: string, left: Value, right: Value): Value {
  switch (operator) {
    case '==':
      return bool(isEqual(left, right));
    case '!=':
      return bool(!isEqual(left, right));
    case 'in':
      return bool(contains(right, left));
    case 'not in':
      return bool(!contains(right, left));
    case '~':
      return text(printed(left) + printed(right));
    case '<':
    case '<=':
    case '>':
    case '>=':
      return bool(compare(operator, order(left, right)));
  }
  const [a, b] = [asNumber(left), asNumber(right)];
  if (a !== null && b !== null) return arithmetic(operator, left, right, a, b);
  if (operator === '+') return concatenate(left, right);
  if (operator === '*') return repeat(left, right);
  throw new Error(`cannot compute ${typeName(left)} ${operator} ${typeName(right)}`);
}

function compare(operator: '<' | '<=' | '>' | '>=', difference: number): boolean {
  if (operator === '<') return difference < 0;
  if (operator === '<=') return difference <= 0;
  return operator === '>' ? difference > 0 : difference >= 0;
}

function order(left: Value, right: Value): number {
  const [a, b] = [asNumber(left), asNumber(right)];
  if (a !== null && b !== null) return a - b;
  const [one, other] = [asText(left), asText(right)];
  if (one !== null && other !== null) return compareTexts(one, other);
  throw new Error(`cannot compare ${typeName(left)} with ${typeName(right)}`);
}

function arithmetic(operator: string, left: Value, right: Value, a: number, b: number): Value {
  if (['/', '//', '%'].includes(operator) && b === 0) throw new Error('division by zero');
  const results: Record<string, number> = {
    '+': a + b,
    '-': a - b,
    '*': a * b,
    '/': a / b,
    '//': Math.floor(a / b),
    // Python's remainder has the sign of the divisor.
    '%': a - b * Math.floor(a / b),
    '**': a ** b,
  };
  const result = results[operator];
  if (result === undefined) throw new Error(`unknown operator ${operator}`);
  if (!Number.isFinite(result)) throw new Error(`${a} ${operator} ${b} is not a number`);
  const isFloat = [left, right].some(({ type }) => type === 'FloatValue') || operator === '/';
  return isFloat || !Number.isInteger(result) ? float(result) : integer(result);
}

function concatenate(left: Value, right: Value): Value {
  const [a, b] = [asText(left), asText(right)];
  if (a !== null && b !== null) return text(a + b);
  const [one, other] = [asItems(left), asItems(right)];
  if (one !== null && other !== null && left.type === right.type) return list([...one, ...other]);
  throw new Error(`cannot add ${typeName(left)} and ${typeName(right)}`);
}

/** More than any template needs. */
const MAX_REPEATED = 1_000_000;

function repeat(left: Value, right: Value): Value {
  const [string, times] = [asText(left) ?? asText(right), asNumber(left) ?? asNumber(right)];
  if (string === null || times === null || !Number.isInteger(times)) {
    throw new Error(`cannot multiply ${typeName(left)} and ${typeName(right)}`);
  }
  if (string.length * times > MAX_REPEATED)
    throw new Error(`a text of ${string.length * times} characters is too long`);
  return text(string.repeat(Math.max(0, times)));
}
