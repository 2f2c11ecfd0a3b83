/** What a run measured, and how one number is read off it. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Reading } from './schema.js';

/** A line of metrics.jsonl. */
export interface MetricsRow {
  iteration: number;
  metrics: Readonly<Record<string, number>>;
}

/** A finished run, with the running totals `seconds` (training alone, without evaluations) and `samples` in every row. */
export interface RunData {
  rows: readonly MetricsRow[];
  /** Wall clock of the whole run. */
  seconds: number;
}

/** A point of a curve: iteration and value. */
export type Point = readonly [iteration: number, value: number];

/**
 * Reads a run folder.
 *
 * @param samplesPerIteration - responses drawn in an iteration
 * @returns null for a run that is not finished
 */
export function readRunData(folder: string, iterations: number, samplesPerIteration: number): RunData | null {
  const summary = readSummary(join(folder, 'summary.json'));
  if (summary === null || summary.iterations < iterations) return null;
  const path = join(folder, 'metrics.jsonl');
  if (!existsSync(path)) return null;
  let seconds = 0;
  const rows = parseRows(readFileSync(path, 'utf8')).map(({ iteration, metrics }) => {
    seconds += metrics['timing_s/iteration'] ?? 0;
    return { iteration, metrics: { ...metrics, seconds, samples: iteration * samplesPerIteration } };
  });
  return { rows, seconds: summary.seconds };
}

/** Every whole line; one that is cut off is passed over. */
export function parseRows(text: string): MetricsRow[] {
  return text.split('\n').flatMap((line) => {
    if (line === '') return [];
    let row: unknown;
    try {
      row = JSON.parse(line);
    } catch {
      return [];
    }
    if (typeof row !== 'object' || row === null) return [];
    const { iteration, ...rest } = row as Record<string, unknown>;
    if (typeof iteration !== 'number') return [];
    const metrics = Object.entries(rest).filter((entry): entry is [string, number] => Number.isFinite(entry[1]));
    return [{ iteration, metrics: Object.fromEntries(metrics) }];
  });
}

function readSummary(path: string): { iterations: number; seconds: number } | null {
  if (!existsSync(path)) return null;
  try {
    const { iterations, seconds } = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
    return typeof iterations === 'number' && typeof seconds === 'number' ? { iterations, seconds } : null;
  } catch {
    return null;
  }
}

/** A metric where it was measured, up to an iteration. */
export function seriesOf({ rows }: RunData, metric: string, stop: number | null = null): Point[] {
  return rows.flatMap(({ iteration, metrics }): Point[] => {
    const value = metrics[metric];
    return value === undefined || (stop !== null && iteration > stop) ? [] : [[iteration, value]];
  });
}

/** A number that was read off a run; `censored`: what was waited for did not come. */
export interface Value {
  value: number;
  censored: boolean;
}

/**
 * Reads one number off a run.
 *
 * @param stop - the run is taken to have ended after this iteration
 * @returns null where the metric was not measured
 */
export function readValue(run: RunData, metric: string, reading: Reading, stop: number | null = null): Value | null {
  const points = seriesOf(run, metric, stop);
  if (points.length === 0) return null;
  if (reading.crosses !== undefined) return firstCrossing(run, points, { ...reading, crosses: reading.crosses }, stop);
  if (reading.range !== undefined) {
    const [first, last] = reading.range;
    const inside = points.filter(([iteration]) => iteration >= first && iteration <= last);
    if (inside.length === 0) return null;
    return { value: inside.reduce((sum, [, value]) => sum + value, 0) / inside.length, censored: false };
  }
  const { at } = reading;
  const point = at === undefined ? points.at(-1) : points.findLast(([iteration]) => iteration <= at);
  return point === undefined ? null : { value: point[1], censored: false };
}

/** What it took until the mean of the last `smooth` measurements reached a value; all there was where it never did. */
function firstCrossing(
  run: RunData,
  points: readonly Point[],
  { crosses, below = false, smooth = 1, cost = 'iterations' }: Reading & { crosses: number },
  stop: number | null,
): Value | null {
  const reached = points.find((_, i) => {
    if (i + 1 < smooth) return false;
    const window = points.slice(i + 1 - smooth, i + 1);
    const mean = window.reduce((sum, [, value]) => sum + value, 0) / smooth;
    return below ? mean <= crosses : mean >= crosses;
  });
  const rows = run.rows.filter(({ iteration }) => stop === null || iteration <= stop);
  const end = reached?.[0] ?? rows.at(-1)?.iteration;
  if (end === undefined) return null;
  const value = cost === 'iterations' ? end : rows.findLast(({ iteration }) => iteration <= end)?.metrics[cost];
  return value === undefined ? null : { value, censored: reached === undefined };
}

/** Pairs (x, y) of the rows in which both were measured, in the order of training. */
export function pathOf(run: RunData, x: string, y: string, stop: number | null = null): Point[] {
  return run.rows.flatMap(({ iteration, metrics }): Point[] => {
    const [a, b] = [metrics[x], metrics[y]];
    return a === undefined || b === undefined || (stop !== null && iteration > stop) ? [] : [[a, b]];
  });
}

/** y where a path that x never leaves behind reaches x, on straight lines; beyond its ends, that of the end. */
export function interpolate(path: readonly Point[], x: number): number | null {
  const after = path.findIndex(([at]) => at >= x);
  if (after < 0) return path.at(-1)?.[1] ?? null;
  const [b, before] = [path[after] as Point, path[after - 1]];
  if (before === undefined || b[0] === before[0]) return b[1];
  return before[1] + ((x - before[0]) / (b[0] - before[0])) * (b[1] - before[1]);
}

/**
 * The largest y that a path has at x, where it passes x on the straight lines between its points, going up or down.
 * Where it never does: y of the point whose x is nearest, and `beyond` says so.
 */
export function bestAt(path: readonly Point[], x: number): { value: number; beyond: boolean } | null {
  let best: number | null = null;
  for (const [i, b] of path.entries()) {
    const a = path[Math.max(0, i - 1)] as Point;
    if (x < Math.min(a[0], b[0]) || x > Math.max(a[0], b[0])) continue;
    const y = a[0] === b[0] ? Math.max(a[1], b[1]) : a[1] + ((x - a[0]) / (b[0] - a[0])) * (b[1] - a[1]);
    best = best === null ? y : Math.max(best, y);
  }
  if (best !== null) return { value: best, beyond: false };
  const nearest = path.toSorted((a, b) => Math.abs(a[0] - x) - Math.abs(b[0] - x))[0];
  return nearest === undefined ? null : { value: nearest[1], beyond: true };
}
