/** Claims, and what the runs say of them. */
import type { ClaimSpec } from './schema.js';
import { parseTarget } from './schema.js';
import { bestAt, interpolate, pathOf, type RunData, readValue, type Value } from './series.js';
import { type MeanInterval, meanInterval, signTest } from './statistics.js';

/** A run of a method for a unit; `stop`: the iteration at which the method's training ends. */
export interface MethodRun {
  data: RunData;
  stop: number | null;
}

/** Looks up what a claim names; null where there is no such run (yet). */
export type Lookup = (method: string, unit: string) => MethodRun | null;

export type Verdict = 'holds' | 'does not hold' | 'not enough seeds';

/** One pair of values. */
export interface Pair {
  unit: string;
  a: number;
  b: number;
}

/** A against B. */
export interface Comparison {
  a: string;
  b: string;
  pairs: Pair[];
  /** Units of which one of the runs, or the metric, is missing. */
  missing: string[];
  meanA: MeanInterval | null;
  meanB: MeanInterval | null;
  /** A - B, paired. */
  difference: MeanInterval | null;
  /** Mean difference as a share of B's mean; null where that is 0. */
  relative: number | null;
  /** Exact two-sided sign test. */
  signTest: number | null;
  /** Runs in which what was waited for did not come: they count with all they had. */
  censored: { a: number; b: number };
  /** With `equal` a metric: units in which B's path never has A's value of it; then B's nearest point stands for it. */
  beyond: number;
  verdict: Verdict;
  /** In words. */
  reason: string;
}

/** A claim, judged. */
export interface ClaimResult {
  spec: ClaimSpec;
  comparisons: Comparison[];
  verdict: Verdict;
  reason: string;
}

/**
 * Judges a claim on paired units. It holds if the 95 % interval of the mean difference lies on the claimed side of the
 * margin ("same": within it), against every method it names; with fewer units than `minSeeds` nothing is said.
 *
 * @param unitsOf - the units on which both of two methods are reported
 */
export function judgeClaim(
  spec: ClaimSpec,
  lookup: Lookup,
  unitsOf: (a: string, b: string) => readonly string[],
): ClaimResult {
  const comparisons = pairsOf(spec).map(({ a, b, read }) => {
    const pairs: (Pair & { values: Values })[] = [];
    const missing: string[] = [];
    for (const unit of unitsOf(parseTarget(a.method).method, parseTarget(b.method).method)) {
      const values = read(unit, lookup);
      if (values === null) missing.push(unit);
      else pairs.push({ unit, a: values.a.value, b: values.b.value, values });
    }
    return compare(spec, a.label, b.label, pairs, missing);
  });
  return { spec, comparisons, ...overall(comparisons) };
}

interface Values {
  a: Value;
  b: Value;
  beyond?: boolean;
}

interface Side {
  method: string;
  label: string;
}

interface PairReader {
  a: Side;
  b: Side;
  read: (unit: string, lookup: Lookup) => Values | null;
}

function pairsOf(spec: ClaimSpec): PairReader[] {
  if (spec.metrics !== undefined) {
    const [one, other] = spec.metrics;
    const method = spec.method as string;
    const read = (unit: string, lookup: Lookup): Values | null => {
      const run = runOf(method, unit, lookup);
      if (run === null) return null;
      const [a, b] = [readValue(run.data, one, spec, run.stop), readValue(run.data, other, spec, run.stop)];
      return a === null || b === null ? null : { a, b };
    };
    return [{ a: { method, label: `${method}: ${one}` }, b: { method, label: `${method}: ${other}` }, read }];
  }
  const [first, rest] = spec.compare as [string, string | string[]];
  return [rest].flat().map((second) => ({
    a: { method: first, label: first },
    b: { method: second, label: second },
    read: (unit, lookup) => {
      const [a, b] = [runOf(first, unit, lookup), runOf(second, unit, lookup)];
      return a === null || b === null ? null : readPair(spec, a, b);
    },
  }));
}

/** A run, ended where the target says, or where the method's setting does. */
function runOf(target: string, unit: string, lookup: Lookup): MethodRun | null {
  const { method, stop } = parseTarget(target);
  const run = lookup(method, unit);
  return run === null || stop === null ? run : { data: run.data, stop };
}

function readPair(spec: ClaimSpec, a: MethodRun, b: MethodRun): Values | null {
  const metric = spec.metric as string;
  const { equal } = spec;
  if (equal === undefined) {
    const [one, other] = [readValue(a.data, metric, spec, a.stop), readValue(b.data, metric, spec, b.stop)];
    return one === null || other === null ? null : { a: one, b: other };
  }
  const stopA = spec.at === undefined ? a.stop : Math.min(spec.at, a.stop ?? spec.at);
  const [pathA, pathB] = [pathOf(a.data, equal, metric, stopA), pathOf(b.data, equal, metric, b.stop)];
  const [endA, endB] = [pathA.at(-1), pathB.at(-1)];
  if (endA === undefined || endB === undefined) return null;
  if (equal === 'seconds' || equal === 'samples') {
    const x = Math.min(endA[0], endB[0]);
    const [one, other] = [interpolate(pathA, x), interpolate(pathB, x)];
    return one === null || other === null ? null : { a: plain(one), b: plain(other) };
  }
  const best = bestAt(pathB, endA[0]);
  return best === null ? null : { a: plain(endA[1]), b: plain(best.value), beyond: best.beyond };
}

const plain = (value: number): Value => ({ value, censored: false });

function compare(
  spec: ClaimSpec,
  a: string,
  b: string,
  read: readonly (Pair & { values: Values })[],
  missing: string[],
): Comparison {
  const pairs = read.map(({ unit, a: one, b: other }) => ({ unit, a: one, b: other }));
  const differences = pairs.map((pair) => pair.a - pair.b);
  const difference = meanInterval(differences);
  const meanB = meanInterval(pairs.map((pair) => pair.b));
  const count = (which: (values: Values) => boolean | undefined): number =>
    read.filter(({ values }) => which(values)).length;
  return {
    a,
    b,
    pairs,
    missing,
    meanA: meanInterval(pairs.map((pair) => pair.a)),
    meanB,
    difference,
    relative: difference === null || meanB === null || meanB.mean === 0 ? null : difference.mean / meanB.mean,
    signTest: signTest(differences),
    censored: { a: count((v) => v.a.censored), b: count((v) => v.b.censored) },
    beyond: count((v) => v.beyond),
    ...verdictOf(spec, difference),
  };
}

/** What an interval of paired differences says. */
export function verdictOf(
  { direction, margin, minSeeds }: Pick<ClaimSpec, 'direction' | 'margin' | 'minSeeds'>,
  difference: MeanInterval | null,
): { verdict: Verdict; reason: string } {
  if (difference === null || difference.half === null || difference.n < minSeeds) {
    return { verdict: 'not enough seeds', reason: `${difference?.n ?? 0} of at least ${minSeeds}` };
  }
  const [low, high] = [difference.mean - difference.half, difference.mean + difference.half];
  const holds = (reason: string): { verdict: Verdict; reason: string } => ({ verdict: 'holds', reason });
  const fails = (reason: string): { verdict: Verdict; reason: string } => ({ verdict: 'does not hold', reason });
  if (direction === 'same') {
    if (low > -margin && high < margin) return holds(`the interval lies within ±${margin}`);
    if (low >= margin || high <= -margin) return fails(`they differ by more than ${margin}`);
    return fails(`not shown: the interval reaches beyond ±${margin}`);
  }
  const [lower, upper] = direction === 'higher' ? [low, high] : [-high, -low];
  if (lower > margin)
    return holds(`the interval lies ${direction === 'higher' ? 'above' : 'below'} ${bound(direction, margin)}`);
  if (upper < 0) return fails('the opposite is shown');
  if (lower > 0) return fails(`the difference is there, but not shown to be as large as ${margin}`);
  return fails('no difference shown: the interval contains 0');
}

const bound = (direction: ClaimSpec['direction'], margin: number): string =>
  margin === 0 ? '0' : String(direction === 'higher' ? margin : -margin);

/** Against several it holds only if it holds against each. */
function overall(comparisons: readonly Comparison[]): { verdict: Verdict; reason: string } {
  const [only] = comparisons;
  if (only !== undefined && comparisons.length === 1) return { verdict: only.verdict, reason: only.reason };
  const of = (verdict: Verdict): Comparison[] => comparisons.filter((one) => one.verdict === verdict);
  const names = (list: readonly Comparison[]): string => list.map(({ b }) => b).join(', ');
  const [failed, open] = [of('does not hold'), of('not enough seeds')];
  if (failed.length > 0) return { verdict: 'does not hold', reason: `not against ${names(failed)}` };
  if (open.length > 0) return { verdict: 'not enough seeds', reason: `against ${names(open)}` };
  return { verdict: 'holds', reason: `against each of ${names(comparisons)}` };
}
