/** Lines of runs, from their metrics. Pure. */
import { type FigureAxis, type FigureSeries, thinned } from './figure.js';
import type { MetricsRow, RunData } from './read-run.js';

export const ITERATION: FigureAxis = { label: 'iteration', format: 'integer' };

const evaluated = new WeakMap<MetricsRow, boolean>();

/** The rows of a run that hold an evaluation: few of many, so they are looked for once. */
export function evaluatedRows({ metrics }: Pick<RunData, 'metrics'>): MetricsRow[] {
  return metrics.filter((row) => {
    const known = evaluated.get(row) ?? Object.keys(row.values).some((name) => name.startsWith('eval/'));
    evaluated.set(row, known);
    return known;
  });
}

/** A metric of a run, thinned out for drawing. */
export function metric(run: RunData, name: string): [number, number][] {
  return thinned(
    run.metrics.flatMap(({ iteration, values }): [number, number][] => {
      const value = values[name];
      return value === undefined ? [] : [[iteration, value]];
    }),
  );
}

export const perRun = (runs: readonly RunData[], name: string): FigureSeries[] =>
  runs.map((run, color) => ({ name: run.name, color, points: metric(run, name) })).filter(hasPoints);

/** Stage 1 solid, stage 2 dashed; a run without a second stage has no need to name its first. */
export function byStage(runs: readonly RunData[], name: (stage: 1 | 2) => string): FigureSeries[] {
  return runs.flatMap((run, color) => {
    const [one, two] = [metric(run, name(1)), metric(run, name(2))];
    const alone = two.length === 0;
    const series: FigureSeries[] = [
      { name: alone ? run.name : label(runs, run, 'stage 1'), color, points: one },
      { name: label(runs, run, 'stage 2'), color, dash: 'dashed', points: two },
    ];
    return series.filter(hasPoints);
  });
}

/** Of a single run what it is, of several also whose. */
export const label = (runs: readonly RunData[], run: RunData, what: string): string =>
  runs.length === 1 ? what : `${run.name}, ${what}`;

export const hasPoints = ({ points }: FigureSeries): boolean => points.length > 0;
export const yValues = ({ points }: FigureSeries): number[] => points.map(([, y]) => y);

/** For ids: letters, digits and `-`. */
export function slug(name: string): string {
  return (
    name
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, '-')
      .replace(/^-|-$/g, '') || 'x'
  );
}
