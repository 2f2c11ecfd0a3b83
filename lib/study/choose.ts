/** Which runs a study needs now, and which settings its methods take. */
import type { Run, Study, Unit } from './load.js';
import type { SelectSpec } from './schema.js';
import { type RunData, readValue } from './series.js';
import type { Method, Setting } from './settings.js';
import { type MeanInterval, meanInterval } from './statistics.js';

/** What is known of the runs so far, by hash. */
export interface Progressed {
  finished: ReadonlyMap<string, RunData>;
  failed: ReadonlyMap<string, string>;
}

/** A setting on the seeds of selection. */
export interface ScoredSetting {
  setting: Setting;
  /** null: no run of it gave a score. */
  score: MeanInterval | null;
  /** Runs that failed or lack the metric: such a setting is not chosen. */
  missing: number;
}

/** The setting that a method is reported at. */
export interface Choice {
  setting: Setting | null;
  /** Of a method that had a choice. */
  scores: readonly ScoredSetting[];
}

/** Settings that go on from what the method it starts from has chosen; null while that is open. */
function candidates(method: Method, choices: ReadonlyMap<Method, Choice>): readonly Setting[] | null {
  if (method.from === null) return method.settings;
  const parent = choices.get(method.from);
  if (parent === undefined) return null;
  return method.settings.filter(({ variant }) => variant.parent === parent.setting?.variant);
}

/**
 * The choice of every method that can be made. Every setting of a method is scored on the same seeds; the best mean
 * wins, the first of equals.
 */
export function choose(study: Study, state: Progressed): Map<Method, Choice> {
  const choices = new Map<Method, Choice>();
  for (const method of study.methods) {
    const settings = candidates(method, choices);
    if (settings === null) continue;
    if (!method.tuned) {
      choices.set(method, { setting: settings[0] ?? null, scores: [] });
      continue;
    }
    const open = settings.some((setting) =>
      study.selectUnits.some((unit) => !isDone(study.runOf(method, setting.variant, unit), state)),
    );
    if (open) continue;
    const scores = settings.map((setting) => scoreOf(study, method, setting, state));
    const sign = study.spec.select?.mode === 'min' ? -1 : 1;
    let best: ScoredSetting | null = null;
    for (const scored of scores) {
      if (scored.score === null || scored.missing > 0) continue;
      if (best?.score == null || sign * scored.score.mean > sign * best.score.mean) best = scored;
    }
    choices.set(method, { setting: best?.setting ?? null, scores });
  }
  return choices;
}

const isDone = ({ hash }: Run, { finished, failed }: Progressed): boolean => finished.has(hash) || failed.has(hash);

/** What a method is chosen by: its own score, or that of the study. */
const selectOf = (study: Study, { spec }: Method): Partial<SelectSpec> | undefined =>
  spec.score === undefined ? study.spec.select : { ...study.spec.select, score: spec.score };

/** The score of a setting on all units that are there: those of selection, by its metric, unless others are given. */
export function scoreOf(
  study: Study,
  method: Method,
  setting: Setting,
  { finished }: Progressed,
  units: readonly Unit[] = study.selectUnits,
  select: Partial<SelectSpec> | undefined = selectOf(study, method),
): ScoredSetting {
  const weights = Object.entries(select?.score ?? { [select?.metric ?? '']: 1 });
  const values = units.flatMap((unit): number[] => {
    const data = finished.get(study.runOf(method, setting.variant, unit).hash);
    if (data === undefined) return [];
    const parts = weights.map(([metric, weight]) => {
      const read = readValue(data, metric, { at: select?.at, range: select?.range }, setting.stop);
      return read === null ? null : weight * read.value;
    });
    return parts.includes(null) ? [] : [parts.reduce<number>((sum, part) => sum + (part ?? 0), 0)];
  });
  return { setting, score: meanInterval(values), missing: units.length - values.length };
}

/** A run that is needed, and for what. */
export interface Needed {
  run: Run;
  method: Method;
  setting: Setting;
  unit: Unit;
  phase: 'select' | 'report';
}

/**
 * Every run that can be named now: those that settings are chosen on first, then those that are reported, seed by seed,
 * so that what is there early can be compared. A run that several methods share is there once.
 */
export function neededRuns(study: Study, choices: ReadonlyMap<Method, Choice>): Needed[] {
  const needed = new Map<string, Needed>();
  const add = (method: Method, setting: Setting, unit: Unit, phase: Needed['phase']): void => {
    const run = study.runOf(method, setting.variant, unit);
    if (!needed.has(run.hash)) needed.set(run.hash, { run, method, setting, unit, phase });
  };
  for (const unit of study.selectUnits)
    for (const method of study.methods)
      if (method.tuned) for (const setting of candidates(method, choices) ?? []) add(method, setting, unit, 'select');
  const longest = Math.max(...study.methods.map((method) => study.unitsOf(method).length));
  for (let i = 0; i < longest; i += 1)
    for (const method of study.methods) {
      const unit = study.unitsOf(method)[i];
      const setting = choices.get(method)?.setting ?? null;
      if (unit !== undefined && setting !== null) add(method, setting, unit, 'report');
    }
  return [...needed.values()];
}

/**
 * How many runs there will be: those that are named, and for every method whose setting is open one a seed (and one a
 * setting and seed of selection where it waits for another's choice). Some of these may turn out to be shared.
 */
export function openRuns(study: Study, choices: ReadonlyMap<Method, Choice>): Run[] {
  const open: Run[] = [];
  for (const method of study.methods) {
    if (choices.has(method)) continue;
    const waits = candidates(method, choices) === null;
    const first = method.settings[0] as Setting;
    const variants = new Set(
      method.settings.map(({ variant }) => variant).filter(({ parent }) => parent === first.variant.parent),
    );
    if (waits && method.tuned)
      for (const variant of variants)
        for (const unit of study.selectUnits) open.push(study.runOf(method, variant, unit));
    for (const unit of study.unitsOf(method)) open.push(study.runOf(method, first.variant, unit));
  }
  return open;
}
