/** Calculations modulo 23, and how prompts and responses spell them. */
import type { Random } from './random.js';

/** Every value is a residue of it: one token each. */
export const MODULUS = 23;

export const CALCULATOR_OPERATORS = ['+', '-', '*'] as const;
export type CalculatorOperator = (typeof CALCULATOR_OPERATORS)[number];

/** Token i of the embedded model's vocabulary: 0..22, then + - * # ; . _ = ? */
export const CALCULATOR_VOCABULARY: readonly string[] = [
  ...Array.from({ length: MODULUS }, (_, value) => `${value}`),
  ...CALCULATOR_OPERATORS,
  '#',
  ';',
  '.',
  '_',
  '=',
  '?',
];

/** Most operations of a prompt, which has two tokens for each, one for the first number and one for its end. */
export const MAX_OPERATIONS = 7;
/** A thousand tokens are a third of this; longer text is refused unread. */
const MAX_RESPONSE_CHARACTERS = 2 ** 14;

/** start operators[0] operands[0] operators[1] operands[1] ... */
export interface Calculation {
  /** 0..22. */
  start: number;
  operators: readonly CalculatorOperator[];
  /** Each 2..9. */
  operands: readonly number[];
}

/** Uniform: the first number 0..22, operators + - *, operands 2..9. */
export function drawCalculation(random: Random, operations: number): Calculation {
  const start = random.int(MODULUS);
  const operators: CalculatorOperator[] = [];
  const operands: number[] = [];
  for (let i = 0; i < operations; i += 1) {
    operators.push(CALCULATOR_OPERATORS[random.int(CALCULATOR_OPERATORS.length)] as CalculatorOperator);
    operands.push(2 + random.int(8));
  }
  return { start, operators, operands };
}

/** The value after each operation, each in 0..22. */
export function runningResidues({ start, operators, operands }: Calculation): number[] {
  let value = start;
  return operators.map((operator, i) => {
    const operand = operands[i] as number;
    const next = operator === '+' ? value + operand : operator === '-' ? value - operand : value * operand;
    value = ((next % MODULUS) + MODULUS) % MODULUS;
    return value;
  });
}

/** `7 * 3 + 4`: what a calculation is known by. */
export function calculationText({ start, operators, operands }: Calculation): string {
  return [start, ...operators.map((operator, i) => `${operator} ${operands[i]}`)].join(' ');
}

/**
 * `7 * 3 + 4 _ _ _ _ _ _ _ _ _ _ =`, always 16 tokens.
 *
 * @param end - `=` asks for the answer; `?`, in demonstrations alone, for the running values too
 */
export function calculatorPrompt(calculation: Calculation, end: '=' | '?' = '='): string {
  const padding = '_ '.repeat(2 * (MAX_OPERATIONS - calculation.operators.length));
  return `${calculationText(calculation)} ${padding}${end}`;
}

/** `# 2 .`, or with the running values before it, `; 21 ; 2 # 2 .`. */
export function calculatorResponse(calculation: Calculation, style: 'direct' | 'chain'): string {
  const values = runningResidues(calculation);
  return `${style === 'chain' ? `${values.map((value) => `; ${value}`).join(' ')} ` : ''}# ${values.at(-1)} .`;
}

/** The value of a response that ends in `# value .` and has no other `#`; null for any other text. Linear time. */
export function finalAnswer(response: string): number | null {
  const words = wordsOf(response);
  const at = words.indexOf('#');
  return at >= 0 && at === words.length - 3 && words[at + 2] === '.' ? residue(words[at + 1] as string) : null;
}

/** The values before the first `#` of a response that begins `; value ; value ... #`; null where there are none. */
export function chainValues(response: string): number[] | null {
  const words = wordsOf(response);
  const end = words.indexOf('#');
  if (end < 2 || end % 2 !== 0) return null;
  const values: number[] = [];
  for (let i = 0; i < end; i += 2) {
    const value = residue(words[i + 1] as string);
    if (words[i] !== ';' || value === null) return null;
    values.push(value);
  }
  return values;
}

function wordsOf(response: string): string[] {
  return response.length > MAX_RESPONSE_CHARACTERS ? [] : response.trim().split(/\s+/);
}

/** A number as the vocabulary spells it: 0..22 without leading zeros. */
function residue(word: string): number | null {
  return /^(?:[0-9]|1[0-9]|2[0-2])$/.test(word) ? Number(word) : null;
}
