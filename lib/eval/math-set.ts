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
    sameAnswer: (pairs) => sameAnswers(pairs, tolerance),
  };
}

/** Most answers are plain numbers, and most votes compare different ones: these need no verifier. */
async function sameAnswers(
  pairs: readonly (readonly [string, string])[],
  tolerance: number | Tolerance | undefined,
): Promise<boolean[]> {
  const same = pairs.map(([prediction, gold]): boolean | VerifyItem => {
    const [x, y] = tolerance === undefined ? [plainNumber(prediction), plainNumber(gold)] : [null, null];
    return x !== null && y !== null ? x === y : { prediction, gold, ...comparing(tolerance) };
  });
  const verdicts = await verifyMath(same.filter((entry) => typeof entry !== 'boolean'));
  return same.map((entry) => (typeof entry === 'boolean' ? entry : (verdicts.shift()?.equal ?? false)));
}

/** One spelling of a number that is written out: `007.50` is `7.5`; null for anything else. */
function plainNumber(text: string): string | null {
  const [, sign, whole, decimals = ''] = /^(-?)0*(\d{1,40})(?:\.(\d{1,40}?)0*)?$/.exec(text.trim()) ?? [];
  if (whole === undefined) return null;
  const digits = decimals === '' || decimals === '0' ? whole : `${whole}.${decimals}`;
  return digits === '0' ? '0' : `${sign}${digits}`;
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
