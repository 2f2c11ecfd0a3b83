/** A set of mathematical problems, judged by the verifier. */
import { type Answer, acceptedAnswers } from '../tasks/answers.js';
import type { Problem } from '../tasks/types.js';
import { type Tolerance, type Verdict, type VerifyItem, verifyMath } from '../verify/index.js';
import type { EvaluationSet, Judgement, ResponseVerdict } from './types.js';

/**
 * Problems whose `answer` is a gold answer or a list of accepted ones. A problem's `meta.tolerance` is that of its numeric
 * answers: relative, or `{ absolute }`.
 *
 * @param tolerance with which two answers are one vote; default none
 */
export function mathSet(
  name: string,
  title: string,
  problems: readonly Problem[],
  tolerance?: number | Tolerance,
): EvaluationSet {
  return {
    name,
    title,
    problems,
    judge: async (inputs) => {
      const items = inputs.map(
        ({ problem, response }): VerifyItem => ({
          response,
          gold: acceptedAnswers(problem.answer as Answer),
          ...comparing(problem.meta?.tolerance as number | Tolerance | undefined),
        }),
      );
      return (await verifyMath(items)).map(judgementOf);
    },
    sameAnswer: async (pairs) => {
      const verdicts = await verifyMath(
        pairs.map(([prediction, gold]): VerifyItem => ({ prediction, gold, ...comparing(tolerance) })),
      );
      return verdicts.map(({ equal }) => equal);
    },
  };
}

function comparing(tolerance: number | Tolerance | undefined): Pick<VerifyItem, 'options'> {
  return tolerance === undefined ? {} : { options: { compare: { tolerance } } };
}

function judgementOf({ outcome, answer, reason }: Verdict): Judgement {
  const verdict = verdictOf(outcome);
  if (verdict !== 'undecided') return { verdict, answer };
  return { verdict, answer, reason: outcome === 'undecided' ? reason : `${outcome}: ${reason}` };
}

function verdictOf(outcome: Verdict['outcome']): ResponseVerdict {
  switch (outcome) {
    case 'equal':
      return 'correct';
    case 'different':
      return 'wrong';
    case 'no-answer':
      return 'no-answer';
    default:
      return 'undecided';
  }
}
