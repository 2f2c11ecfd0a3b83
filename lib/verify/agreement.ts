/** How often the verifier agrees with judgements that were made before. */
import type { Verdict } from './judge.js';

/** A case that was judged: by the verifier, and by whoever wrote the expected judgement (null where nobody did). */
export interface JudgedCase {
  expected: boolean | null;
  verdict: Verdict;
}

/** Counts of a group of cases. */
export interface Agreement {
  cases: number;
  equal: number;
  noAnswer: number;
  undecided: number;
  /** Ended by the bound on time or memory, or by a crash. */
  stopped: number;
  /** Cases with an expected judgement; the next three are of these. */
  expected: number;
  agree: number;
  /** Judged equal, expected different: as a reward the worse error. */
  falsePositives: number;
  /** Judged anything but equal, expected equal. */
  falseNegatives: number;
}

/** Counts the cases by group, in the order in which the groups come. */
export class AgreementTable {
  readonly groups = new Map<string, Agreement>();
  readonly total: Agreement = none();

  add(group: string, judged: JudgedCase): void {
    const counts = this.groups.get(group) ?? none();
    this.groups.set(group, counts);
    count(counts, judged);
    count(this.total, judged);
  }
}

/** Whether the verifier contradicts the expected judgement. */
export function disagrees({ expected, verdict }: JudgedCase): boolean {
  return expected !== null && expected !== verdict.equal;
}

function none(): Agreement {
  return {
    cases: 0,
    equal: 0,
    noAnswer: 0,
    undecided: 0,
    stopped: 0,
    expected: 0,
    agree: 0,
    falsePositives: 0,
    falseNegatives: 0,
  };
}

function count(counts: Agreement, judged: JudgedCase): void {
  const { expected, verdict } = judged;
  const { equal, outcome } = verdict;
  counts.cases += 1;
  counts.equal += equal ? 1 : 0;
  counts.noAnswer += outcome === 'no-answer' ? 1 : 0;
  counts.undecided += outcome === 'undecided' ? 1 : 0;
  counts.stopped += outcome === 'timeout' || outcome === 'memory' || outcome === 'crashed' ? 1 : 0;
  if (expected === null) return;
  counts.expected += 1;
  if (!disagrees(judged)) counts.agree += 1;
  else if (equal) counts.falsePositives += 1;
  else counts.falseNegatives += 1;
}
