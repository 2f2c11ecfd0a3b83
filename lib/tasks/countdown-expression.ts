/** Left-to-right expressions over a multiset of numbers: their values, their text, all solutions. */

export const OPERATORS = ['+', '-', '*'] as const;
export type Operator = (typeof OPERATORS)[number];

/** Every value on the way, the result included, stays in 0..MAX_VALUE: each is one token. */
export const MAX_VALUE = 99;

/** operands[0] operators[0] operands[1] operators[1] ..., evaluated strictly left to right. */
export interface Expression {
  operands: readonly number[];
  operators: readonly Operator[];
}

/** x op y. */
export function apply(x: number, operator: Operator, y: number): number {
  return operator === '+' ? x + y : operator === '-' ? x - y : x * y;
}

/** The running values after each operator, or null as soon as one leaves 0..99. */
export function runningValues({ operands, operators }: Expression): number[] | null {
  const values: number[] = [];
  let value = operands[0] as number;
  for (let i = 0; i < operators.length; i += 1) {
    value = apply(value, operators[i] as Operator, operands[i + 1] as number);
    if (value < 0 || value > MAX_VALUE) return null;
    values.push(value);
  }
  return values;
}

/** `a op b op c ...` without scratch: the canonical string of a solution. */
export function expressionText({ operands, operators }: Expression): string {
  return operands.map((operand, i) => (i === 0 ? `${operand}` : `${operators[i - 1]} ${operand}`)).join(' ');
}

/** What is known about all solutions of one multiset that reach one target. */
export interface SolutionCount {
  /** Distinct expression strings. */
  total: number;
  /** Of these, how many start with the multiset's largest number. */
  largestFirst: number;
}

/**
 * Counts the distinct valid expressions over all of `numbers` by their value, exactly: index = target 0..99. Equal
 * numbers are interchangeable, so an order is visited once.
 */
export function countSolutions(numbers: readonly number[]): SolutionCount[] {
  const counts = Array.from({ length: MAX_VALUE + 1 }, () => ({ total: 0, largestFirst: 0 }));
  const largest = Math.max(...numbers);
  const left = new Uint8Array(MAX_VALUE + 1);
  for (const number of numbers) left[number] = (left[number] as number) + 1;
  const distinct = [...new Set(numbers)];

  const visit = (value: number, remaining: number, startsLargest: boolean): void => {
    if (remaining === 0) {
      const count = counts[value] as SolutionCount;
      count.total += 1;
      if (startsLargest) count.largestFirst += 1;
      return;
    }
    for (const number of distinct) {
      if (left[number] === 0) continue;
      left[number] = (left[number] as number) - 1;
      for (const operator of OPERATORS) {
        const next = apply(value, operator, number);
        if (next >= 0 && next <= MAX_VALUE) visit(next, remaining - 1, startsLargest);
      }
      left[number] = (left[number] as number) + 1;
    }
  };
  for (const number of distinct) {
    left[number] = (left[number] as number) - 1;
    visit(number, numbers.length - 1, number === largest);
    left[number] = (left[number] as number) + 1;
  }
  return counts;
}

// A prime below 2^26, so that a product of two residues is exact in a double.
const PRIME = 67108859;
// Two fixed random points: two formulas that agree at both are the same polynomial but for a chance of about 1e-14.
const POINTS: readonly (readonly number[])[] = [
  [0, 51260401, 23894413, 60118367, 9377731, 44905129, 31750583, 17046661, 65201047, 38613899],
  [0, 7719683, 62480227, 14526107, 55833761, 29104837, 3617909, 48390523, 20962841, 41127653],
];

/** The formula's identity: equal for expressions over 1..9 that are the same polynomial in the numbers' names. */
export function algebraicIdentity({ operands, operators }: Expression): string {
  return POINTS.map((point) => {
    let value = point[operands[0] as number] as number;
    for (let i = 0; i < operators.length; i += 1) {
      const next = apply(value, operators[i] as Operator, point[operands[i + 1] as number] as number) % PRIME;
      value = next < 0 ? next + PRIME : next;
    }
    return value;
  }).join('/');
}
