/**
 * Calculator: a chain of operations modulo 23, strictly left to right.
 *
 *     prompt    7 * 3 + 4 _ _ _ _ _ _ _ _ _ _ =     (padded to seven operations)
 *     direct    # 2 .                                (the answer by heart)
 *     chain     ; 21 ; 2 # 2 .                       (the running values, then the answer)
 *
 * Only what follows `#` is judged. Working through the running values is a general strategy, of which the embedded policy
 * is capable and which it hardly ever tries: its habit is the direct answer, which is right once in 23 times.
 */
import { bySeed, type SeededTaskOptions } from './by-seed.js';
import { demonstrate } from './calculator-demonstrations.js';
import {
  calculationText,
  calculatorPrompt,
  chainValues,
  drawCalculation,
  finalAnswer,
  runningResidues,
} from './calculator-text.js';
import { Random } from './random.js';
import type { Problem, RewardInput, Task } from './types.js';

export interface CalculatorAnswer {
  /** The value after each operation; the last one is the answer. */
  values: readonly number[];
}

export type CalculatorOptions = SeededTaskOptions;

/** In the order in which they are drawn; later ones leave out what earlier ones took. */
const SPLITS = [
  { name: 'train', operations: [2, 3], size: 2000 },
  { name: 'test', operations: [2, 3], size: 300 },
  { name: 'ood', operations: [5, 6, 7], size: 300 },
] as const;

const drawn = bySeed('calculator', build);

/**
 * The calculator task: splits `train` (2000 problems of 2 or 3 operations), `test` (300 of the same kind) and `ood` (300
 * of 5 to 7 operations; out of the RL distribution, the demonstrations have seen as many). No two problems have the same
 * prompt. Reward 1 where the response has exactly one `#`, followed by the right value and `.`, which ends it; what
 * stands before `#` is not checked.
 *
 * Features of a response: `chain`, whether running values stand before its first `#` (right or wrong ones, at least
 * one); `chain_right`, whether these are all of the running values, in order, and right. Cached per seed.
 */
export function calculator(options: CalculatorOptions = {}): Task {
  return drawn(options);
}

function build(seed: number): Task {
  const taken = new Set<string>();
  const splits: Record<string, readonly Problem[]> = {};
  SPLITS.forEach(({ name, operations, size }, index) => {
    const random = new Random(seed, index + 1);
    const problems: Problem[] = [];
    while (problems.length < size) {
      const calculation = drawCalculation(random, operations[random.int(operations.length)] as number);
      const id = calculationText(calculation);
      if (taken.has(id)) continue;
      taken.add(id);
      const answer: CalculatorAnswer = { values: runningResidues(calculation) };
      const meta = { operations: calculation.operators.length };
      problems.push({ id, prompt: calculatorPrompt(calculation), answer, meta });
    }
    splits[name] = problems;
  });
  return {
    name: 'calculator',
    splits,
    reward: (inputs: readonly RewardInput[]) =>
      inputs.map(({ problem, response }) => (finalAnswer(response) === answerOf(problem) ? 1 : 0)),
    features: (problem, response) => {
      const chain = chainValues(response);
      const { values } = problem.answer as CalculatorAnswer;
      const right = chain?.length === values.length && chain.every((value, i) => value === values[i]);
      return { chain: chain === null ? 0 : 1, chain_right: right ? 1 : 0 };
    },
    demonstrations: (demonstrationSeed) => demonstrate(demonstrationSeed, taken),
  };
}

function answerOf(problem: Problem): number {
  return (problem.answer as CalculatorAnswer).values.at(-1) as number;
}
