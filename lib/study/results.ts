/** Everything a study found, as one object: what results.json holds, and tables and figures are made of. */

import { namedMetrics, unmeasured } from './check-metrics.js';
import { neededRuns } from './choose.js';
import { type ClaimResult, judgeClaim, type MethodRun } from './claims.js';
import type { Study, Unit } from './load.js';
import type { StudyState } from './runner.js';
import { parseTarget, type TableSpec } from './schema.js';
import { type Point, type RunData, readValue, seriesOf } from './series.js';
import { chainOf, type Method, type Setting } from './settings.js';
import { type MeanInterval, meanInterval } from './statistics.js';

/** A setting that was, or might have been, chosen. */
export interface SettingResult {
  setting: string;
  score: MeanInterval | null;
  /** Runs without a score. */
  missing: number;
}

export interface MethodResult {
  name: string;
  label: string;
  family: string;
  /** What it is reported at; null while that is open, or where no setting could be scored. */
  setting: string | null;
  /** Options of the setting, with those of the method it starts from. */
  values: Record<string, unknown>;
  /** Iteration at which training is taken to have ended. */
  stop: number | null;
  /** Of a method that had a choice, every setting on the seeds of selection. */
  scores: SettingResult[];
}

export interface RunResult {
  hash: string;
  name: string;
  methods: string[];
  setting: string;
  unit: string;
  seed: number;
  model: string | null;
  phase: 'select' | 'report';
  status: 'finished' | 'failed' | 'open';
  /** Wall clock, evaluations included; other runs worked beside it. */
  seconds: number | null;
  failure?: string;
  /** Every metric where it was last measured. */
  last: Record<string, number>;
  /** Metrics that the study asks about and evaluations, thinned out. */
  curves: Record<string, Point[]>;
}

export interface TableRow {
  method: string;
  label: string;
  cells: (MeanInterval | null)[];
  /** Paired difference to the reference method. */
  differences: (MeanInterval | null)[];
}

export interface TableResult {
  title: string;
  metrics: string[];
  reference: string | null;
  rows: TableRow[];
}

export interface StudyResults {
  name: string;
  about: string;
  /** Of the package. */
  version: string;
  node: string;
  seeds: number[];
  selectSeeds: number[];
  counts: { finished: number; failed: number; open: number };
  /** Once all runs are done: metrics that are asked for and that none has, with where, and the nearest that there is. */
  unmeasured: string[];
  methods: MethodResult[];
  claims: ClaimResult[];
  tables: TableResult[];
  runs: RunResult[];
}

/** A run for a unit of a method at its setting; null where there is none (yet). */
export function methodRun(study: Study, state: StudyState, method: Method, unit: Unit): MethodRun | null {
  const setting = state.choices.get(method)?.setting;
  if (setting == null) return null;
  const data = state.finished.get(study.runOf(method, setting.variant, unit).hash);
  return data === undefined ? null : { data, stop: setting.stop };
}

/** Method and stop of `grpo@45`; the name was checked when the study was read. */
export function targetOf(study: Study, target: string): { method: Method; stop: number | null } {
  const { method: name, stop } = parseTarget(target);
  return { method: study.methods.find((method) => method.name === name) as Method, stop };
}

/** One value per unit of a method at its setting, by unit. */
export function valuesOf(
  study: Study,
  state: StudyState,
  target: string,
  read: (run: RunData, stop: number | null) => number | null,
): Map<string, number> {
  const { method, stop } = targetOf(study, target);
  const values = new Map<string, number>();
  for (const unit of study.unitsOf(method)) {
    const run = methodRun(study, state, method, unit);
    const value = run === null ? null : read(run.data, stop ?? run.stop);
    if (value !== null) values.set(unit.id, value);
  }
  return values;
}

/** Judges all claims and fills all tables from what is finished. */
export function collectResults(study: Study, state: StudyState, version: string): StudyResults {
  const runs = runResults(study, state);
  const count = (status: RunResult['status']): number => runs.filter((run) => run.status === status).length;
  return {
    name: study.spec.study.name,
    about: study.spec.study.about,
    version,
    node: process.version,
    seeds: study.spec.study.seeds,
    selectSeeds: study.spec.select?.seeds ?? [],
    counts: { finished: count('finished'), failed: count('failed'), open: count('open') },
    unmeasured: count('open') > 0 ? [] : unmeasured(study.spec, state.finished.values()),
    methods: study.methods.map((method) => methodResult(state, method)),
    claims: judgeClaims(study, state),
    tables: tableSpecs(study, runs).map((spec) => tableResult(study, state, spec)),
    runs,
  };
}

function methodResult(state: StudyState, method: Method): MethodResult {
  const choice = state.choices.get(method);
  const setting = choice?.setting ?? null;
  return {
    name: method.name,
    label: method.label,
    family: method.family,
    setting: setting?.id ?? null,
    values: setting === null ? {} : Object.assign({}, ...chainOf(setting.variant).map(({ values }) => values)),
    stop: setting?.stop ?? null,
    scores: (choice?.scores ?? []).map(({ setting: { id }, score, missing }) => ({ setting: id, score, missing })),
  };
}

function judgeClaims(study: Study, state: StudyState): ClaimResult[] {
  const units = new Map(study.methods.flatMap((method) => study.unitsOf(method)).map((unit) => [unit.id, unit]));
  const lookup = (name: string, unit: string): MethodRun | null =>
    methodRun(study, state, targetOf(study, name).method, units.get(unit) as Unit);
  const both = (a: string, b: string): string[] => {
    const other = new Set(study.unitsOf(targetOf(study, b).method).map(({ id }) => id));
    return study.unitsOf(targetOf(study, a).method).flatMap(({ id }) => (other.has(id) ? [id] : []));
  };
  return study.spec.claim.map((spec) => judgeClaim(spec, lookup, both));
}

/** Where the study asks for no table: every metric of its evaluations. */
function tableSpecs(study: Study, runs: readonly RunResult[]): TableSpec[] {
  if (study.spec.table.length > 0) return study.spec.table;
  const metrics = [...new Set(runs.flatMap(({ last }) => Object.keys(last)))].filter((metric) =>
    metric.startsWith('eval/'),
  );
  if (metrics.length === 0) return [];
  return [{ title: 'Evaluations', metrics, below: false, smooth: 1, cost: 'iterations' }];
}

function tableResult(study: Study, state: StudyState, spec: TableSpec): TableResult {
  const reference = study.spec.study.reference ?? null;
  const columnsOf = (target: string): Map<string, number>[] =>
    spec.metrics.map((metric) =>
      valuesOf(study, state, target, (run, stop) => readValue(run, metric, spec, stop)?.value ?? null),
    );
  const against = reference === null ? null : columnsOf(reference);
  const rows = (spec.methods ?? study.methods.map(({ name }) => name)).map((target): TableRow => {
    const { method, stop } = targetOf(study, target);
    const columns = columnsOf(target);
    return {
      method: target,
      label: stop === null ? method.label : `${method.label}, iteration ${stop}`,
      cells: columns.map((values) => meanInterval([...values.values()])),
      differences:
        against === null || target === reference
          ? columns.map(() => null)
          : columns.map((values, i) => pairedDifference(values, against[i] as Map<string, number>)),
    };
  });
  return { title: spec.title, metrics: spec.metrics, reference, rows };
}

/** a - b over the units of both. */
export function pairedDifference(a: ReadonlyMap<string, number>, b: ReadonlyMap<string, number>): MeanInterval | null {
  return meanInterval(
    [...a].flatMap(([unit, value]) => {
      const other = b.get(unit);
      return other === undefined ? [] : [value - other];
    }),
  );
}

const CURVE_POINTS = 40;
const ALWAYS = /^(?:eval\/|reward\/mean$|response_length\/mean$|seconds$|rollout\/stage\d\/(?:entropy|reward)$)/;

function runResults(study: Study, state: StudyState): RunResult[] {
  const wanted = new Set(namedMetrics(study.spec).map(([, metric]) => metric));
  return neededRuns(study, state.choices).map(({ run, setting, unit, phase }): RunResult => {
    const data = state.finished.get(run.hash);
    const failure = state.failed.get(run.hash);
    const metrics = new Set(data?.rows.flatMap((row) => Object.keys(row.metrics)));
    const kept = [...metrics].filter((metric) => wanted.has(metric) || ALWAYS.test(metric));
    const curve = (metric: string): Point[] => thinned(seriesOf(data as RunData, metric));
    return {
      hash: run.hash,
      name: run.name,
      methods: methodsOf(study, run.hash, unit),
      setting: setting.variant.id,
      unit: unit.id,
      seed: unit.seed,
      model:
        unit.model === null
          ? null
          : (run.name
              .split('/')
              .at(-1)
              ?.replace(/_seed\d+$/, '') ?? null),
      phase,
      status: data !== undefined ? 'finished' : failure !== undefined ? 'failed' : 'open',
      seconds: data === undefined ? null : rounded(data.seconds),
      ...(failure === undefined ? {} : { failure }),
      last: Object.fromEntries(
        [...metrics].map((metric) => [metric, rounded(seriesOf(data as RunData, metric).at(-1)?.[1] as number)]),
      ),
      curves: Object.fromEntries(kept.map((metric) => [metric, curve(metric)])),
    };
  });
}

/** Every method that may use a run. */
function methodsOf(study: Study, hash: string, unit: Unit): string[] {
  return study.methods.flatMap((method) => {
    const uses = method.settings.some(({ variant }: Setting) => study.runOf(method, variant, unit).hash === hash);
    return uses ? [method.name] : [];
  });
}

/** Six significant digits. */
export const rounded = (value: number): number => Number(value.toPrecision(6));

/** A curve in at most about {@link CURVE_POINTS} points: means of as many neighbours as it takes. */
export function thinned(points: readonly Point[]): Point[] {
  const size = Math.ceil(points.length / CURVE_POINTS);
  const groups = Array.from({ length: Math.ceil(points.length / size || 0) }, (_, i) =>
    points.slice(i * size, (i + 1) * size),
  );
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  return groups.map((group) => [(group.at(-1) as Point)[0], rounded(mean(group.map(([, value]) => value)))]);
}
