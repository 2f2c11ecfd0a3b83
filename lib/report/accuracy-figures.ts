/** The figures of evaluations: accuracy, pass@k, distinct solutions. Pure. */
import type { Estimate } from '../eval/statistics.js';
import { type FigureData, type FigureSeries, rounded } from './figure.js';
import type { RunData } from './read-run.js';
import { evaluatedRows, ITERATION, perRun, slug } from './series.js';

const ACCURACY = 'Accuracy';

/** One figure of accuracy a set, pass@k by k, pass@k over training, distinct solutions. */
export function accuracyFigures(runs: readonly RunData[]): FigureData[] {
  const sets = evaluatedSets(runs);
  return sets.flatMap((set) => [
    accuracy(runs, set),
    passAtK(runs, set),
    largestPass(runs, set),
    {
      id: `distinct-${slug(set)}`,
      title: `Distinct correct solutions on ${setTitle(set)}`,
      section: ACCURACY,
      caption:
        'Different correct solutions among the samples of a problem, mean over the problems solved at least once.',
      x: ITERATION,
      y: { label: 'distinct solutions per solved problem' },
      series: perRun(runs, `eval/${set}/distinct`),
    },
  ]);
}

/** More are not shown: a page has four figures of each. */
const MAX_SETS = 32;

/** Names of all sets that any run was evaluated on: test first, then the others as they come. */
export function evaluatedSets(runs: readonly RunData[]): string[] {
  const names = new Set<string>();
  for (const run of runs) {
    for (const { values } of evaluatedRows(run)) {
      for (const name of Object.keys(values)) {
        const set = /^eval\/(.+)\/(?:greedy|avg@\d+)$/.exec(name)?.[1];
        if (set !== undefined) names.add(set);
      }
    }
    for (const { sets } of run.evaluations) for (const set of Object.keys(sets)) names.add(set);
  }
  return [...names].sort((a, b) => Number(b === 'test') - Number(a === 'test')).slice(0, MAX_SETS);
}

/** What a set is called in a sentence. */
function setTitle(set: string): string {
  return set === 'test' ? 'the test set' : set === 'ood' ? 'the out-of-distribution set' : set;
}

function accuracy(runs: readonly RunData[], set: string): FigureData {
  const greedy = runs.some((run) =>
    evaluatedRows(run).some(({ values }) => values[`eval/${set}/greedy`] !== undefined),
  );
  const series = runs.map((run, color): FigureSeries => {
    const points: [number, number][] = [];
    const intervals: (readonly [number, number] | null)[] = [];
    for (const { iteration, values } of evaluatedRows(run)) {
      const estimate = estimateAt(run, iteration, set, greedy);
      const value = estimate?.value ?? valueAt(values, set, greedy);
      if (value === undefined) continue;
      points.push([iteration, rounded(value)]);
      intervals.push(intervalOf(estimate));
    }
    return withIntervals({ name: run.name, color, points, dots: true }, intervals);
  });
  return {
    id: `accuracy-${slug(set)}`,
    title: `Accuracy on ${setTitle(set)}`,
    paper: set === 'test' ? 'Fig. 2, Tables 1-3' : 'Fig. 2 and 7a, Tables 1-3',
    section: ACCURACY,
    caption: greedy
      ? 'Share of the problems solved by greedy decoding, with 95 % intervals over the problems.'
      : 'Mean accuracy of a sample, with 95 % intervals over the problems.',
    x: ITERATION,
    y: { label: greedy ? 'greedy accuracy' : 'accuracy of a sample', format: 'percent' },
    series,
  };
}

function valueAt(values: Readonly<Record<string, number>>, set: string, greedy: boolean): number | undefined {
  if (greedy) return values[`eval/${set}/greedy`];
  const name = Object.keys(values).find((key) => key.startsWith(`eval/${set}/avg@`));
  return name === undefined ? undefined : values[name];
}

function estimateAt(run: RunData, iteration: number, set: string, greedy: boolean): Estimate | null {
  const summary = run.evaluations.find((evaluation) => evaluation.iteration === iteration)?.sets[set];
  return (greedy ? summary?.greedy : summary?.avgAtK) ?? null;
}

const intervalOf = (estimate: Estimate | null | undefined): readonly [number, number] | null =>
  estimate ? [rounded(estimate.interval[0]), rounded(estimate.interval[1])] : null;

function withIntervals(series: FigureSeries, intervals: (readonly [number, number] | null)[]): FigureSeries {
  return intervals.some((interval) => interval !== null) ? { ...series, intervals } : series;
}

/** One point of pass@k. */
interface PassPoint {
  k: number;
  value: number;
  interval: readonly [number, number] | null;
}

/** pass@k of a set at an iteration, by k. */
export function passPoints(run: RunData, iteration: number, set: string): PassPoint[] {
  const values = evaluatedRows(run).find((row) => row.iteration === iteration)?.values ?? {};
  const estimates = run.evaluations.find((evaluation) => evaluation.iteration === iteration)?.sets[set]?.passAtK ?? {};
  const ks = new Set(Object.keys(estimates).map(Number));
  for (const name of Object.keys(values)) {
    if (name.startsWith(`eval/${set}/pass@`)) ks.add(Number(name.slice(`eval/${set}/pass@`.length)));
  }
  return [...ks]
    .filter((k) => Number.isInteger(k) && k > 0)
    .sort((a, b) => a - b)
    .flatMap((k) => {
      const value = estimates[k]?.value ?? values[`eval/${set}/pass@${k}`];
      return value === undefined ? [] : [{ k, value, interval: intervalOf(estimates[k]) }];
    });
}

/** Iterations with samples of a set. */
function sampledIterations(run: RunData, set: string): number[] {
  const all = new Set([
    ...evaluatedRows(run)
      .filter(({ values }) => Object.keys(values).some((name) => name.startsWith(`eval/${set}/pass@`)))
      .map((row) => row.iteration),
    ...run.evaluations
      .filter(({ sets }) => Object.keys(sets[set]?.passAtK ?? {}).length > 0)
      .map((one) => one.iteration),
  ]);
  return [...all].sort((a, b) => a - b);
}

function passAtK(runs: readonly RunData[], set: string): FigureData {
  const curve = (run: RunData, iteration: number, color: number, before: boolean): FigureSeries => {
    const points = passPoints(run, iteration, set);
    return withIntervals(
      {
        name: before ? 'before training' : run.name,
        color,
        dash: before ? 'dotted' : 'solid',
        points: points.map(({ k, value }) => [k, rounded(value)]),
        dots: true,
      },
      before ? [] : points.map(({ interval }) => interval),
    );
  };
  const last = runs.flatMap((run, color) => {
    const at = sampledIterations(run, set).at(-1);
    return at === undefined ? [] : [curve(run, at, color, false)];
  });
  // Runs that begin at the same policy have the same curve: it is drawn once.
  const first = runs.find((run) => {
    const iterations = sampledIterations(run, set);
    return iterations[0] === 0 && iterations.length > 1;
  });
  return {
    id: `pass-at-k-${slug(set)}`,
    title: `pass@k on ${setTitle(set)}`,
    paper: 'Fig. 7b',
    section: ACCURACY,
    caption:
      'Share of the problems that one of k samples solves, unbiased, with 95 % intervals over the problems, at the last ' +
      `evaluation${first === undefined ? '' : `; dotted: before training${runs.length > 1 ? ` (${first.name})` : ''}`}.`,
    x: { label: 'k (samples)', scale: 'log', format: 'integer' },
    y: { label: 'pass@k', format: 'percent' },
    series: first === undefined ? last : [...last, curve(first, 0, -1, true)],
  };
}

function largestPass(runs: readonly RunData[], set: string): FigureData {
  const largest = Math.max(
    0,
    ...runs.flatMap((run) =>
      sampledIterations(run, set)
        .slice(-1)
        .flatMap((at) => passPoints(run, at, set).map(({ k }) => k)),
    ),
  );
  const series = runs.map((run, color): FigureSeries => {
    const points: [number, number][] = [];
    const intervals: (readonly [number, number] | null)[] = [];
    for (const iteration of sampledIterations(run, set)) {
      const point = passPoints(run, iteration, set).find(({ k }) => k === largest);
      if (point === undefined) continue;
      points.push([iteration, rounded(point.value)]);
      intervals.push(point.interval);
    }
    return withIntervals({ name: run.name, color, points, dots: true }, intervals);
  });
  return {
    id: `pass-at-${largest}-${slug(set)}`,
    title: `pass@${largest} on ${setTitle(set)} during training`,
    section: ACCURACY,
    caption: `Share of the problems that one of ${largest} samples solves. Where it falls while pass@1 rises, the policy has only become surer of what it could do before.`,
    x: ITERATION,
    y: { label: `pass@${largest}`, format: 'percent' },
    series: largest > 1 ? series : [],
  };
}
