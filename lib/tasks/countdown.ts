/**
 * Countdown: reach a target from given numbers, each used once, strictly left to right.
 *
 *     prompt    2 3 7 9 _ > 41            (sorted, padded to five, then the target)
 *     response  9 + 2 11 * 3 33 ...  .    a op b v op c v ...: v is scratch for the running value and is NOT checked
 *
 * Every problem has several correct answers and guessing hardly ever finds one (about 2 % of the valid expressions), so
 * distinct solutions and pass@k mean something.
 */
import { InvalidArgumentError } from '../errors.js';
import { bySeed, type SeededTaskOptions } from './by-seed.js';
import {
  algebraicIdentity,
  countSolutions,
  type Expression,
  expressionText,
  MAX_VALUE,
  OPERATORS,
  type Operator,
  runningValues,
  type SolutionCount,
} from './countdown-expression.js';
import { Random } from './random.js';
import type { Demonstration, Problem, RewardInput, Task } from './types.js';

/** Token i of the embedded model's vocabulary: 0..99, then + - * . _ > */
export const COUNTDOWN_VOCABULARY: readonly string[] = [
  ...Array.from({ length: MAX_VALUE + 1 }, (_, value) => `${value}`),
  ...OPERATORS,
  '.',
  '_',
  '>',
];

const MAX_NUMBERS = 5;
const MIN_TARGET = 10;
/** Longer text cannot be a solution: five numbers take 14 tokens of at most two characters. */
const MAX_RESPONSE_CHARACTERS = 64;

export interface CountdownAnswer {
  /** Ascending. */
  numbers: readonly number[];
  target: number;
}

export type CountdownOptions = SeededTaskOptions;

interface SplitRule {
  name: string;
  numbers: number;
  size: number;
  accepts(count: SolutionCount): boolean;
}

/** In the order in which they are drawn; later ones leave out what earlier ones took. */
const SPLITS: readonly SplitRule[] = [
  { name: 'train', numbers: 4, size: 1500, accepts: ({ total }) => total >= 3 && total <= 60 },
  { name: 'test', numbers: 4, size: 300, accepts: ({ total }) => total >= 3 && total <= 60 },
  { name: 'ood', numbers: 5, size: 300, accepts: ({ total }) => total >= 10 && total <= 600 },
  { name: 'off', numbers: 4, size: 150, accepts: ({ total, largestFirst }) => total >= 2 && largestFirst === 0 },
];

const drawn = bySeed('countdown', build);

/**
 * The countdown task: splits `train` (1500 problems of 4 numbers, 3..60 solutions), `test` (300 of the same kind),
 * `ood` (300 of 5 numbers, 10..600 solutions; out of the RL distribution, the demonstrations have seen five numbers) and
 * `off` (150 of 4 numbers whose solutions all start with another number than the largest, against the habit of the
 * demonstrations). Numbers 1..9, targets 10..99; no two problems share numbers and target. Feature of a response:
 * `habit`, whether it starts with the largest number. Cached per seed.
 */
export function countdown(options: CountdownOptions = {}): Task {
  return drawn(options);
}

function build(seed: number): Task {
  const taken = new Set<string>();
  const counts = new Map<string, SolutionCount[]>();
  const splits: Record<string, readonly Problem[]> = {};
  SPLITS.forEach((rule, index) => {
    const random = new Random(seed, index + 1);
    const problems: Problem[] = [];
    while (problems.length < rule.size) {
      // The target of a random valid expression: reachable ones come up in proportion to their solutions.
      const numbers = drawNumbers(random, rule.numbers);
      const operands = random.shuffle([...numbers]);
      const target = runningValues({ operands, operators: drawOperators(random, rule.numbers - 1) })?.at(-1);
      if (target === undefined || target < MIN_TARGET) continue;
      const id = problemId(numbers, target);
      if (taken.has(id)) continue;
      const key = numbers.join(',');
      const table = counts.get(key) ?? countSolutions(numbers);
      counts.set(key, table);
      const count = table[target] as SolutionCount;
      if (!rule.accepts(count)) continue;
      taken.add(id);
      const answer: CountdownAnswer = { numbers, target };
      problems.push({ id, prompt: promptText(numbers, target), answer, meta: { solutions: count.total } });
    }
    splits[rule.name] = problems;
  });
  return {
    name: 'countdown',
    splits,
    reward: (inputs: readonly RewardInput[]) =>
      inputs.map(({ problem, response }) => (solutionOf(problem, response) === null ? 0 : 1)),
    distinctKey: (problem, response) => textOf(solutionOf(problem, response), expressionText),
    algebraicKey: (problem, response) => textOf(solutionOf(problem, response), algebraicIdentity),
    features: (problem, response) => {
      const [first] = response.trimStart().split(/\s/, 1);
      return { habit: first === String((problem.answer as CountdownAnswer).numbers.at(-1)) ? 1 : 0 };
    },
    demonstrations: (demonstrationSeed) => demonstrate(demonstrationSeed, taken),
  };
}

/** `2 3 7 9 _ > 41`. */
export function promptText(numbers: readonly number[], target: number): string {
  const padded = [...numbers, ...Array<string>(MAX_NUMBERS - numbers.length).fill('_')];
  return `${padded.join(' ')} > ${target}`;
}

/** `9 + 2 11 * 3 33 .` with the true running values. */
export function responseText(expression: Expression): string {
  const values = runningValues(expression);
  if (values === null)
    throw new InvalidArgumentError(`a value of ${expressionText(expression)} leaves 0..${MAX_VALUE}`);
  const steps = values.map((value, i) => `${expression.operators[i]} ${expression.operands[i + 1]} ${value}`);
  return `${expression.operands[0]} ${steps.join(' ')} .`;
}

/**
 * The expression of a response that follows the grammar `a op b v op c v ... .` with `count` operands, or null. Scratch
 * values must be numbers but need not be right. Linear time; anything after the `.` is refused.
 */
export function parseResponse(response: string, count: number): Expression | null {
  if (response.length > MAX_RESPONSE_CHARACTERS) return null;
  const words = response.trim().split(/\s+/);
  if (words.length !== 3 * count - 1 || words.at(-1) !== '.') return null;
  const operands: number[] = [];
  const operators: Operator[] = [];
  for (let i = 0; i < words.length - 1; i += 1) {
    const word = words[i] as string;
    // 0: first operand; then op, operand, scratch repeat.
    const place = i === 0 ? 1 : (i - 1) % 3;
    if (place === 0) {
      if (!isOperator(word)) return null;
      operators.push(word);
    } else {
      const value = numberToken(word);
      if (value === null) return null;
      if (place === 1) operands.push(value);
    }
  }
  return { operands, operators };
}

/** The verified solution in a response, or null if it is not one. */
function solutionOf(problem: Problem, response: string): Expression | null {
  const { numbers, target } = problem.answer as CountdownAnswer;
  const expression = parseResponse(response, numbers.length);
  if (expression === null) return null;
  const used = expression.operands.toSorted((x, y) => x - y);
  if (used.some((number, i) => number !== numbers[i])) return null;
  return runningValues(expression)?.at(-1) === target ? expression : null;
}

/** Shares of demonstrations with 3, 4 and 5 numbers. */
const DEMONSTRATION_SIZES = [
  { below: 0.2, numbers: 3 },
  { below: 0.7, numbers: 4 },
  { below: 1, numbers: 5 },
] as const;
const LARGEST_FIRST = 0.9;

/**
 * Demonstrations with a habit: nine in ten start with the largest number; operators + - * at .4/.3/.3. One that leaves
 * 0..99, or whose problem belongs to a split, is drawn again.
 */
function* demonstrate(seed: number, excluded: ReadonlySet<string>): Generator<Demonstration, never> {
  const random = new Random(seed, 0xdead);
  for (;;) {
    const size = random.next();
    const count = DEMONSTRATION_SIZES.find(({ below }) => size < below)?.numbers ?? MAX_NUMBERS;
    const numbers = drawNumbers(random, count);
    const operands = random.shuffle([...numbers]);
    if (random.next() < LARGEST_FIRST) {
      const at = operands.indexOf(numbers.at(-1) as number);
      [operands[0], operands[at]] = [operands[at] as number, operands[0] as number];
    }
    const operators = drawOperators(random, count - 1);
    const target = runningValues({ operands, operators })?.at(-1);
    if (target === undefined || excluded.has(problemId(numbers, target))) continue;
    yield { prompt: promptText(numbers, target), response: responseText({ operands, operators }) };
  }
}

/** Independent + - * at .4/.3/.3. */
function drawOperators(random: Random, count: number): Operator[] {
  return Array.from({ length: count }, () => {
    const u = random.next();
    return u < 0.4 ? '+' : u < 0.7 ? '-' : '*';
  });
}

/** Independent 1..9, ascending. */
function drawNumbers(random: Random, count: number): number[] {
  return Array.from({ length: count }, () => 1 + random.int(9)).sort((x, y) => x - y);
}

function problemId(numbers: readonly number[], target: number): string {
  return `${numbers.join(',')}>${target}`;
}

function isOperator(word: string): word is Operator {
  return (OPERATORS as readonly string[]).includes(word);
}

/** A number as the vocabulary spells it: 0..99 without leading zeros. */
function numberToken(word: string): number | null {
  return /^(?:0|[1-9][0-9]?)$/.test(word) ? Number(word) : null;
}

function textOf(expression: Expression | null, text: (expression: Expression) => string): string | null {
  return expression === null ? null : text(expression);
}
