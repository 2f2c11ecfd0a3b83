/** Metrics that no run of a study has: where that can be known before anything is trained, and where runs tell. */

import { nearest } from '../options.js';
import type { TrainConfig } from '../train/config.js';
import { configError } from '../train/config-file.js';
import type { StudyFile } from './schema.js';
import type { RunData } from './series.js';

/** Every metric that a study names, with where. */
export function namedMetrics({ select, method, claim, table, figure }: StudyFile): [where: string, metric: string][] {
  const list: [string, string | undefined][] = [
    ...[select?.metric, ...Object.keys(select?.score ?? {})].map((name): [string, typeof name] => ['[select]', name]),
    ...method.flatMap(({ name, score = {} }) =>
      Object.keys(score).map((metric): [string, string] => [`[[method]] ${JSON.stringify(name)}`, metric]),
    ),
    ...claim.flatMap(({ metric, metrics = [], equal }, i) =>
      [metric, ...metrics, equal].map((name): [string, typeof name] => [`[[claim]] ${i + 1}`, name]),
    ),
    ...table.flatMap(({ title, metrics }) => metrics.map((name): [string, string] => [`[[table]] ${title}`, name])),
    ...figure.flatMap(({ name, metric, metrics = [], x, y }) =>
      [metric, ...metrics, x, y].map((one): [string, typeof one] => [`[[figure]] ${name}`, one]),
    ),
  ];
  return list.filter((entry): entry is [string, string] => entry[1] !== undefined);
}

/**
 * pass@k is measured for the k of eval.passK alone. What else a metric may be called depends on tasks, rewards and
 * objectives, and is seen when runs are read.
 *
 * @throws ConfigError naming each place that asks for another k
 */
export function checkMetrics(path: string, spec: StudyFile, configs: readonly TrainConfig[]): void {
  const measured = new Set(configs.flatMap(({ eval: { passK } }) => passK));
  const problems = namedMetrics(spec).flatMap(([where, metric]) => {
    const k = /^eval\/.+\/pass@(\d+)$/.exec(metric)?.[1];
    if (k === undefined || measured.has(Number(k))) return [];
    return [`${where}: ${metric} is measured in no run: eval.passK has ${[...measured].join(', ')}`];
  });
  if (problems.length > 0) throw configError(path, problems);
}

/** Metrics that are asked for, and measured in none of the finished runs: most likely misspelt. */
export function unmeasured(spec: StudyFile, finished: Iterable<RunData>): string[] {
  const measured = new Set<string>();
  for (const { rows } of finished) for (const { metrics } of rows) for (const name in metrics) measured.add(name);
  if (measured.size === 0) return [];
  const places = new Map<string, string[]>();
  for (const [where, metric] of namedMetrics(spec)) {
    if (!measured.has(metric)) places.set(metric, [...(places.get(metric) ?? []), where]);
  }
  return [...places].map(([metric, where]) => {
    const near = nearest(metric, [...measured]);
    return `${metric} (${where.join(', ')}) is in no finished run${near === null ? '' : `; did you mean ${near}?`}`;
  });
}
