/** The figures of a study: means over units with their 95 % intervals. */
import type { FigureData, FigureSeries } from '../report/figure.js';
import { type Choice, scoreOf } from './choose.js';
import type { Study } from './load.js';
import { methodRun, rounded, targetOf, thinned } from './results.js';
import type { StudyState } from './runner.js';
import type { FigureSpec } from './schema.js';
import { type Point, pathOf, seriesOf } from './series.js';
import type { Method, Setting } from './settings.js';
import { type MeanInterval, meanInterval } from './statistics.js';

/** What is drawn of a study, as far as there are runs. */
export function studyFigures(study: Study, state: StudyState): FigureData[] {
  const make = { curves, tradeoff, sweep };
  return study.spec.figure
    .map((spec) => make[spec.kind](study, state, spec))
    .filter(({ series }) => series.some(({ points }) => points.length > 0));
}

const idOf = (name: string): string => name.toLowerCase().replace(/[^a-z0-9]+/g, '-');
const UNITS = 'Means over seeds and base models; bands and bars are 95 % confidence intervals (Student).';

const LABELS: Readonly<Record<string, string>> = {
  'rollout/stage1/entropy': 'entropy of stage 1 (nats)',
  'rollout/stage2/entropy': 'entropy of stage 2 (nats)',
  'rollout/stage1/reward': 'reward of stage 1',
  'rollout/stage2/reward': 'reward of stage 2',
  seconds: 'seconds of training',
};

/** `pass@1 (test)` for `eval/test/pass@1`. */
export function metricLabel(metric: string): string {
  const known = LABELS[metric];
  if (known !== undefined) return known;
  const evaluated = /^eval\/([^/]+)\/(.+)$/.exec(metric);
  if (evaluated !== null) return `${evaluated[2]} (${evaluated[1]})`;
  const feature = /^task\/(.+)\/stage(\d)$/.exec(metric);
  return feature === null ? metric : `share with ${feature[1]}, stage ${feature[2]}`;
}

interface Target {
  label: string;
  method: Method;
  stop: number | null;
}

/** Methods that a figure names; else all that are not another one stopped early. */
function targetsOf(study: Study, spec: FigureSpec): Target[] {
  const names = spec.methods ?? study.methods.flatMap(({ name, spec: { stop } }) => (stop === undefined ? [name] : []));
  return names.map((target) => {
    const { method, stop } = targetOf(study, target);
    return { label: stop === null ? method.label : `${method.label}, iteration ${stop}`, method, stop };
  });
}

/** Runs of a method that are there, each with where it ends. */
function runsOf(study: Study, state: StudyState, { method, stop }: Target) {
  return study.unitsOf(method).flatMap((unit) => {
    const run = methodRun(study, state, method, unit);
    return run === null ? [] : [{ data: run.data, stop: stop ?? run.stop }];
  });
}

/** Student's interval of two values is 13 times their standard error: nothing else could be seen beside it. */
const bounds = (interval: MeanInterval): readonly [number, number] | null =>
  interval.half === null || interval.n < 3
    ? null
    : [rounded(interval.mean - interval.half), rounded(interval.mean + interval.half)];

/** Means over the curves at every x that all of them have. */
export function meanCurve(curves: readonly (readonly Point[])[]): { x: number; y: MeanInterval }[] {
  const byX = new Map<number, number[]>();
  for (const points of curves) for (const [x, y] of points) byX.set(x, [...(byX.get(x) ?? []), y]);
  return [...byX]
    .filter(([, values]) => values.length === curves.length)
    .sort(([a], [b]) => a - b)
    .map(([x, values]) => ({ x, y: meanInterval(values) as MeanInterval }));
}

function curves(study: Study, state: StudyState, spec: FigureSpec): FigureData {
  const { metrics = [] } = spec;
  const dashes = ['solid', 'dashed', 'dotted'] as const;
  const series = targetsOf(study, spec).flatMap((target, color) =>
    metrics.map((metric, i): FigureSeries => {
      const runs = runsOf(study, state, target);
      const points = meanCurve(runs.map(({ data, stop }) => thinned(seriesOf(data, metric, stop))));
      const intervals = points.map(({ y }) => bounds(y));
      const whole = intervals.every((interval) => interval !== null);
      return {
        name: target.label,
        color,
        dash: dashes[i % dashes.length] as (typeof dashes)[number],
        points: points.map(({ x, y }) => [x, rounded(y.mean)]),
        ...(whole && points.length > 0 ? { intervals, uncertainty: 'band' as const } : {}),
        dots: points.length <= 12,
      };
    }),
  );
  const lines =
    metrics.length > 1
      ? ` Solid: ${metricLabel(metrics[0] as string)}; dashed: ${metricLabel(metrics[1] as string)}.`
      : '';
  return {
    id: idOf(spec.name),
    title: spec.title,
    caption: `${UNITS}${lines}`,
    x: { label: 'iteration', format: 'integer' },
    y: { label: metrics.map(metricLabel).join(', ') },
    series: series.filter(({ points }) => points.length > 0),
  };
}

function tradeoff(study: Study, state: StudyState, spec: FigureSpec): FigureData {
  const [xMetric, yMetric] = [spec.x as string, spec.y as string];
  const series = targetsOf(study, spec).map((target, color): FigureSeries => {
    const paths = runsOf(study, state, target).map(({ data, stop }) => pathOf(data, xMetric, yMetric, stop));
    // the same evaluation of every run
    const steps = Math.min(...paths.map(({ length }) => length));
    const points = Array.from({ length: Number.isFinite(steps) ? steps : 0 }, (_, i) =>
      ([0, 1] as const).map((axis) => meanInterval(paths.map((path) => (path[i] as Point)[axis])) as MeanInterval),
    ) as [MeanInterval, MeanInterval][];
    const last = points.length - 1;
    return {
      name: target.label,
      color,
      points: points.map(([x, y]) => [rounded(x.mean), rounded(y.mean)]),
      intervals: points.map(([, y], i) => (i === last ? bounds(y) : null)),
      xIntervals: points.map(([x], i) => (i === last ? bounds(x) : null)),
      uncertainty: 'bars',
      dots: true,
    };
  });
  return {
    id: idOf(spec.name),
    title: spec.title,
    caption: `The path of each method over its evaluations; the end of training, with 95 % confidence intervals in both directions, is the last point. Up and to the right is better.`,
    x: { label: metricLabel(xMetric) },
    y: { label: metricLabel(yMetric) },
    series: series.filter(({ points }) => points.length > 0),
  };
}

function sweep(study: Study, state: StudyState, spec: FigureSpec): FigureData {
  const family = study.methods.filter((method) => method.family === spec.method);
  const rows = family.flatMap((method) => sweepRows(study, state, method, spec.metric as string));
  const shown = (name: string, color: number, chosen: boolean): FigureSeries => {
    const own = rows.map((row, i) => ({ ...row, i })).filter((row) => row.chosen === chosen && row.value !== null);
    return {
      name,
      color,
      points: own.map(({ i, value }) => [i, rounded((value as MeanInterval).mean)]),
      intervals: own.map(({ value }) => bounds(value as MeanInterval)),
      uncertainty: 'bars',
      line: false,
      dots: true,
    };
  };
  const tuned = family.some((method) => method.tuned);
  const series = tuned ? [shown('chosen', 1, true), shown('not chosen', 0, false)] : [shown('settings', 0, false)];
  return {
    id: idOf(spec.name),
    title: spec.title,
    caption: `${tuned ? 'On the seeds that settings are chosen on. ' : ''}${UNITS}`,
    x: { label: 'setting', categories: rows.map(({ name }) => name) },
    y: { label: metricLabel(spec.metric as string) },
    series: series.filter(({ points }) => points.length > 0),
  };
}

interface SweepRow {
  name: string;
  chosen: boolean;
  value: MeanInterval | null;
}

/** A metric at the end of training at every setting: of a tuned method on the seeds of selection. */
function sweepRows(study: Study, state: StudyState, method: Method, metric: string): SweepRow[] {
  const choice: Choice | undefined = state.choices.get(method);
  const row = (setting: Setting, units = study.selectUnits): SweepRow => {
    const score = { score: { [metric]: 1 } };
    return {
      name: setting.id,
      chosen: method.tuned && setting === choice?.setting,
      value: scoreOf(study, method, setting, state, units, score).score,
    };
  };
  if (method.tuned) return (choice?.scores ?? []).map(({ setting }) => row(setting));
  return choice?.setting == null ? [] : [row(choice.setting, study.unitsOf(method))];
}
