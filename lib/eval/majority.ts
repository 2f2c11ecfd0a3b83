/** maj@k: the answer that most of k samples give. */
import { InvalidArgumentError } from '../errors.js';
import type { ResponseVerdict } from './types.js';

/** What a sample of one problem votes for. */
export interface Vote {
  answer: string | null;
  verdict: ResponseVerdict;
}

/** Whether the answers of each pair are the same. */
export type SameAnswers = (pairs: readonly (readonly [string, string])[]) => Promise<readonly boolean[]>;

/** An empty box is no answer either. */
const isBlank = (answer: string | null): answer is null => answer === null || answer.trim() === '';

/** The class of all correct answers; wrong ones have positive numbers; null: no vote. */
export const CORRECT_CLASS = 0;

/**
 * Sorts the answers of one problem into classes of equal ones. Correct answers equal the gold one and so each other:
 * they are one class, whatever their spelling. A wrong answer joins the first class whose first member it equals; one
 * that could not be decided stands for its exact spelling alone. A sample without an answer has no vote.
 *
 * @returns a class for every vote, in their order
 */
export async function answerClasses(votes: readonly Vote[], sameAnswer: SameAnswers): Promise<(number | null)[]> {
  const classOf = new Map<string, number>();
  for (const { answer, verdict } of votes) {
    if (!isBlank(answer) && verdict === 'correct') classOf.set(answer, CORRECT_CLASS);
  }
  const representatives: { answer: string; id: number }[] = [];
  let classes = 1;
  for (const { answer, verdict } of votes) {
    if (isBlank(answer) || classOf.has(answer)) continue;
    const known =
      verdict === 'undecided' || representatives.length === 0
        ? undefined
        : representatives[(await sameAnswer(representatives.map((r) => [answer, r.answer] as const))).indexOf(true)];
    const id = known?.id ?? classes++;
    classOf.set(answer, id);
    if (known === undefined && verdict !== 'undecided') representatives.push({ answer, id });
  }
  return votes.map(({ answer, verdict }) => {
    if (verdict === 'correct') return CORRECT_CLASS;
    return isBlank(answer) ? null : (classOf.get(answer) as number);
  });
}

/** The class with most votes; of several the one that was seen first; null when nobody votes. */
export function majorityClass(classes: readonly (number | null)[]): number | null {
  const counts = new Map<number, number>();
  for (const id of classes) if (id !== null) counts.set(id, (counts.get(id) ?? 0) + 1);
  let best: number | null = null;
  // A Map keeps the order of first insertion, so a later class must have more votes.
  for (const [id, count] of counts) if (best === null || count > (counts.get(best) as number)) best = id;
  return best;
}

/**
 * The probability that the majority of k samples is right, estimated over the floor(n/k) disjoint blocks of k
 * consecutive samples: unbiased, as samples are exchangeable. With k = n it is the plain majority vote.
 *
 * @param classes - of the n samples of one problem, from {@link answerClasses}
 * @throws InvalidArgumentError unless 1 <= k <= n
 */
export function majAtK(classes: readonly (number | null)[], k: number): number {
  if (!Number.isInteger(k) || k < 1 || k > classes.length) {
    throw new InvalidArgumentError(`maj@k: k must be between 1 and the number of samples ${classes.length}, got ${k}`);
  }
  const blocks = Math.floor(classes.length / k);
  let right = 0;
  for (let block = 0; block < blocks; block += 1) {
    if (majorityClass(classes.slice(block * k, (block + 1) * k)) === CORRECT_CLASS) right += 1;
  }
  return right / blocks;
}
