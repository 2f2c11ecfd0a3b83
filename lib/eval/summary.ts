/** From judged responses to the numbers of a table. */
import { meanFeatures } from '../tasks/features.js';
import type { Problem } from '../tasks/types.js';
import { answerClasses, majAtK } from './majority.js';
import { passAtK } from './pass-at-k.js';
import { type Estimate, mean, meanEstimate, shareEstimate } from './statistics.js';
import type { EvaluationSet, Phase, ResponseRecord } from './types.js';

/** Lengths and ends of the responses of one phase. */
export interface ResponseStatistics {
  responses: number;
  /** Tokens of a response, on average. */
  meanLength: number;
  /** Share that was cut off at maxNewTokens. */
  truncated: number;
  /** Share in which no answer was found. */
  noAnswer: number;
  /** Number that could not be decided within the verifier's bounds; they count as wrong. */
  undecided: number;
  /** Number without a reward: they are in no accuracy. */
  missing: number;
  /** Mean entropy in nats over all tokens. */
  meanEntropy: number;
  /** Means of the set's features over the responses; only where it has any. */
  features?: Record<string, number>;
}

/** One problem. `null` where it was not measured. */
export interface ProblemSummary {
  id: string;
  greedyCorrect: boolean | null;
  /** Judged, that is: samples without a reward are not among them. */
  samples: number;
  correct: number;
  /** Distinct correct solutions among the samples; null where the set cannot tell. */
  distinct: number | null;
  distinctAlgebraic: number | null;
}

/** One set. */
export interface SetSummary {
  /** Problems decoded greedily or, without greedy, sampled. */
  problems: number;
  /** pass@1 by greedy decoding: the paper's tables. */
  greedy: Estimate | null;
  /** n, samples per problem. */
  samples: number;
  sampledProblems: number;
  /** Mean accuracy of the n samples. */
  avgAtK: Estimate | null;
  majAtK: Record<number, Estimate>;
  passAtK: Record<number, Estimate>;
  /** Sampled problems with at least one correct sample. */
  solved: number;
  /** Distinct correct solutions per problem that was solved at least once. */
  distinctPerSolved: number | null;
  distinctAlgebraicPerSolved: number | null;
  greedyResponses: ResponseStatistics | null;
  sampledResponses: ResponseStatistics | null;
  /** One per problem, in the set's order. */
  rows: ProblemSummary[];
}

export interface SummaryPlan {
  /** Problems decoded greedily: the first so many; 0 = none. */
  greedyProblems: number;
  /** Problems that are sampled: the first so many. */
  sampledProblems: number;
  samples: number;
  /** Each between 1 and `samples`. */
  ks: readonly number[];
}

/** Summarizes a set whose responses are all there; records beyond the plan are passed over. */
export async function summarize(
  set: EvaluationSet,
  records: readonly ResponseRecord[],
  plan: SummaryPlan,
): Promise<SetSummary> {
  const greedy = byProblem(records, 'greedy', set.problems.slice(0, plan.greedyProblems), 1);
  const sampled = byProblem(records, 'sample', set.problems.slice(0, plan.sampledProblems), plan.samples);
  const judged = sampled.map((records) => records.filter(hasVerdict));
  const rows = set.problems.slice(0, Math.max(plan.greedyProblems, plan.sampledProblems)).map(({ id }, i) => {
    const samples = judged[i] ?? [];
    const correct = samples.filter(({ verdict }) => verdict === 'correct');
    return {
      id,
      greedyCorrect: greedyVerdict(greedy[i]),
      samples: samples.length,
      correct: correct.length,
      distinct: set.distinctKey && samples.length > 0 ? distinct(correct.map((r) => r.distinct)) : null,
      distinctAlgebraic: set.algebraicKey && samples.length > 0 ? distinct(correct.map((r) => r.algebraic)) : null,
    };
  });
  const own = rows.slice(0, sampled.length).filter(({ samples }) => samples > 0);
  const firsts = rows.map(({ greedyCorrect }) => greedyCorrect).filter((right) => right !== null);
  const solved = own.filter(({ correct }) => correct > 0);
  const n = plan.samples;
  return {
    problems: greedy.length > 0 ? greedy.length : sampled.length,
    greedy: firsts.length > 0 ? shareEstimate(firsts.map(Number)) : null,
    samples: sampled.length > 0 ? n : 0,
    sampledProblems: sampled.length,
    avgAtK: own.length > 0 ? meanEstimate(own.map(({ correct, samples }) => correct / samples)) : null,
    majAtK: own.length > 0 ? await majorities(set, judged, plan.ks) : {},
    passAtK: passes(own, plan.ks),
    solved: solved.length,
    distinctPerSolved: meanOrNull(solved.map((row) => row.distinct)),
    distinctAlgebraicPerSolved: meanOrNull(solved.map((row) => row.distinctAlgebraic)),
    greedyResponses: responseStatistics(greedy.flat()),
    sampledResponses: responseStatistics(sampled.flat()),
    rows,
  };
}

/** Whether anything is known of a response. */
const hasVerdict = ({ verdict }: ResponseRecord): boolean => verdict !== 'missing';

function greedyVerdict(records: readonly ResponseRecord[] | undefined): boolean | null {
  const [record] = records ?? [];
  return record === undefined || !hasVerdict(record) ? null : record.verdict === 'correct';
}

function passes(rows: readonly ProblemSummary[], ks: readonly number[]): Record<number, Estimate> {
  return byKOf(
    rows,
    ({ samples }) => samples,
    ks,
    ({ samples, correct }, k) => passAtK(samples, correct, k),
  );
}

/** Responses of both phases without a reward. */
export function missingOf({
  greedyResponses,
  sampledResponses,
}: Pick<SetSummary, 'greedyResponses' | 'sampledResponses'>): number {
  return (greedyResponses?.missing ?? 0) + (sampledResponses?.missing ?? 0);
}

/** Problems whose votes are counted at once: enough to keep a pool of verifiers busy. */
const CONCURRENT_PROBLEMS = 32;

/** maj@k for every k above 1; maj@1 is avg@k. */
async function majorities(
  set: EvaluationSet,
  sampled: readonly ResponseRecord[][],
  ks: readonly number[],
): Promise<Record<number, Estimate>> {
  const sameAnswer = set.sameAnswer?.bind(set);
  const wanted = ks.filter((k) => k > 1);
  if (sameAnswer === undefined || wanted.length === 0) return {};
  const classes: (number | null)[][] = [];
  for (let begin = 0; begin < sampled.length; begin += CONCURRENT_PROBLEMS) {
    const votes = sampled.slice(begin, begin + CONCURRENT_PROBLEMS);
    classes.push(...(await Promise.all(votes.map((own) => answerClasses(own, sameAnswer)))));
  }
  return byKOf(
    classes,
    ({ length }) => length,
    wanted,
    (own, k) => majAtK(own, k),
  );
}

/** For every k the mean over the problems that have k samples with a verdict; no such k where none has. */
function byKOf<T>(
  problems: readonly T[],
  samplesOf: (problem: T) => number,
  ks: readonly number[],
  value: (problem: T, k: number) => number,
): Record<number, Estimate> {
  const entries = ks.flatMap((k): [number, Estimate][] => {
    const own = problems.filter((problem) => samplesOf(problem) >= k);
    return own.length === 0 ? [] : [[k, meanEstimate(own.map((problem) => value(problem, k)))]];
  });
  return Object.fromEntries(entries);
}

/** The records of each problem by sample index. */
function byProblem(
  records: readonly ResponseRecord[],
  phase: Phase,
  problems: readonly Problem[],
  samples: number,
): ResponseRecord[][] {
  const own = new Map(problems.map(({ id }) => [id, new Array<ResponseRecord>(samples)]));
  for (const record of records) {
    const list = record.phase === phase && record.sample < samples ? own.get(record.problem) : undefined;
    if (list !== undefined) list[record.sample] = record;
  }
  return [...own.values()];
}

function responseStatistics(records: readonly ResponseRecord[]): ResponseStatistics | null {
  if (records.length === 0) return null;
  const share = (test: (record: ResponseRecord) => boolean): number => records.filter(test).length / records.length;
  const tokens = records.reduce((total, record) => total + record.tokens, 0);
  return {
    responses: records.length,
    meanLength: tokens / records.length,
    truncated: share(({ finishReason }) => finishReason === 'length'),
    noAnswer: share(({ verdict }) => verdict === 'no-answer'),
    undecided: records.filter(({ verdict }) => verdict === 'undecided').length,
    missing: records.filter(({ verdict }) => verdict === 'missing').length,
    meanEntropy: records.reduce((total, record) => total + record.entropy, 0) / Math.max(1, tokens),
    ...(records.some(({ features }) => features)
      ? { features: meanFeatures(records.map(({ features = {} }) => features)) }
      : {}),
  };
}

function distinct(keys: readonly (string | null | undefined)[]): number {
  return new Set(keys.filter((key) => key !== null && key !== undefined)).size;
}

function meanOrNull(values: readonly (number | null)[]): number | null {
  const present = values.filter((value) => value !== null);
  return present.length === 0 ? null : mean(present);
}
