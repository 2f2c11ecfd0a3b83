/** Tables of results: models as rows and benchmarks as columns, as the paper's Tables 1-3, and one with every metric. */
import { InvalidArgumentError } from '../errors.js';
import { checkOptions, type OptionKeys } from '../options.js';
import type { Estimate } from './statistics.js';
import type { ModelResult, SetResult } from './suite.js';
import { missingOf } from './summary.js';

/** `greedy` (the paper's tables), `avg` (avg@k over all samples), `maj@K` or `pass@K`. */
export type TableMetric = string;

export interface ResultTable {
  metric: TableMetric;
  baseline: string | null;
  /** Names and headings of the columns. */
  sets: { name: string; title: string }[];
  rows: ResultRow[];
}

export interface ResultRow {
  name: string;
  /** Between 0 and 1, one per column; null: not measured. */
  values: (number | null)[];
  /** Mean of the columns, each with the same weight; null unless all are there. */
  average: number | null;
  /** (average - baseline) / baseline; null without a baseline, or where it is 0. */
  relativeGain: number | null;
  /** The same from the averages as they are printed, in percent with one decimal: what the paper's tables show. */
  printedGain: number | null;
}

export interface TableOptions {
  /** Default 'greedy'. */
  metric?: TableMetric;
  /** Name of the row whose average the others' gain is over. Default null: none. */
  baseline?: string | null;
}

const KEYS: OptionKeys<TableOptions> = { metric: true, baseline: true };

/**
 * Lays the results out as the paper's tables. Columns come in the order of the first model that has them.
 *
 * @throws InvalidArgumentError when two models have one name, or none has the baseline's
 */
export function resultTable(results: readonly ModelResult[], options: TableOptions = {}): ResultTable {
  checkOptions(options, KEYS, 'resultTable');
  const { metric = 'greedy', baseline = null } = options;
  checkRows(results, baseline);
  const titles = new Map<string, string>();
  for (const { sets } of results) {
    for (const [name, { title }] of Object.entries(sets)) if (!titles.has(name)) titles.set(name, title);
  }
  const sets = [...titles].map(([name, title]) => ({ name, title }));
  const rows = results.map((result): ResultRow => {
    const values = sets.map(({ name }) => {
      const set = result.sets[name];
      return set === undefined ? null : (estimateOf(set, metric)?.value ?? null);
    });
    const present = values.filter((value) => value !== null);
    const average =
      present.length === sets.length ? present.reduce((sum, value) => sum + value, 0) / present.length : null;
    return { name: result.name, values, average, relativeGain: null, printedGain: null };
  });
  const base = rows.find(({ name }) => name === baseline)?.average ?? null;
  for (const row of rows) {
    if (row.name === baseline || row.average === null || base === null) continue;
    row.relativeGain = gain(row.average, base);
    row.printedGain = gain(percent(row.average), percent(base));
  }
  return { metric, baseline, sets, rows };
}

function checkRows(results: readonly ModelResult[], baseline: string | null): void {
  const names = results.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) throw new InvalidArgumentError(`two models are named "${twice}"; give each its own --name`);
  if (baseline !== null && !names.includes(baseline)) {
    throw new InvalidArgumentError(`--baseline ${baseline}: no model has this name; there are ${names.join(', ')}`);
  }
}

function gain(value: number, base: number): number | null {
  return base === 0 ? null : (value - base) / base;
}

/** In percent, rounded to one decimal, as it is printed. */
function percent(share: number): number {
  return Math.round(share * 1000) / 10;
}

/**
 * The estimate that a metric names; null where it was not measured.
 *
 * @throws InvalidArgumentError for an unknown metric
 */
export function estimateOf(set: SetResult, metric: TableMetric): Estimate | null {
  if (metric === 'greedy') return set.greedy;
  if (metric === 'avg') return set.avgAtK;
  const [, kind, k] = /^(maj|pass)@([1-9][0-9]*)$/.exec(metric) ?? [];
  if (kind === undefined) {
    throw new InvalidArgumentError(`there is no metric '${metric}'; expected greedy, avg, maj@K or pass@K`);
  }
  return (kind === 'maj' ? set.majAtK : set.passAtK)[Number(k)] ?? null;
}

export type TableFormat = 'text' | 'markdown';

/** The paper's layout: percent, the average, and behind it the relative gain over the baseline. */
export function formatResultTable(table: ResultTable, format: TableFormat = 'text'): string {
  const withAverage = table.sets.length > 1;
  // A missing gain takes the same room, so that the averages stand in line.
  const gains = table.rows.map(({ printedGain }) => (printedGain === null ? '' : ` (${signed(printedGain * 100)})`));
  const room = format === 'text' ? Math.max(0, ...gains.map(({ length }) => length)) : 0;
  const rows = table.rows.map(({ name, values, average }, i) => [
    name,
    ...values.map((value) => points(value)),
    ...(withAverage ? [`${points(average)}${(gains[i] as string).padEnd(room)}`] : []),
  ]);
  const header = [
    'Method',
    ...table.sets.map(({ title }) => title),
    ...(withAverage ? [`Average${' '.repeat(room)}`] : []),
  ];
  return render(header, rows, format);
}

/** Every metric of every model on every benchmark, with standard errors; columns that nobody has are left out. */
export function formatDetails(results: readonly ModelResult[], format: TableFormat = 'text'): string {
  const entries = results.flatMap(({ name, sets }) => Object.values(sets).map((set) => ({ name, set })));
  const ks = (of: (set: SetResult) => Record<number, Estimate>): number[] =>
    [...new Set(entries.flatMap(({ set }) => Object.keys(of(set)).map(Number)))].sort((x, y) => x - y);
  const passKs = ks(({ passAtK }) => passAtK).filter((k) => k > 1);
  type Column = [string, (set: SetResult) => string];
  const columns: Column[] = [
    ['problems', ({ problems }) => String(problems)],
    ['greedy', ({ greedy }) => withError(greedy)],
    ['samples', ({ samples }) => (samples === 0 ? '-' : String(samples))],
    ['avg@k', ({ avgAtK }) => withError(avgAtK)],
    ...ks(({ majAtK }) => majAtK).map((k): Column => [`maj@${k}`, ({ majAtK }) => withError(majAtK[k])]),
    // pass@1 is avg@k.
    ...passKs.map((k): Column => [`pass@${k}`, ({ passAtK }) => withError(passAtK[k])]),
    ['distinct', ({ distinctPerSolved }) => decimals(distinctPerSolved, 2)],
    ['algebraic', ({ distinctAlgebraicPerSolved }) => decimals(distinctAlgebraicPerSolved, 2)],
    ['entropy', ({ sampledResponses }) => decimals(sampledResponses?.meanEntropy, 3)],
    ['length', (set) => decimals(main(set)?.meanLength, 1)],
    ['cut off', (set) => points(main(set)?.truncated)],
    ['no answer', (set) => points(main(set)?.noAnswer)],
    ['undecided', (set) => String((set.greedyResponses?.undecided ?? 0) + (set.sampledResponses?.undecided ?? 0))],
    ['missing', (set) => String(missingOf(set) || '-')],
  ];
  const shown = columns.filter(([, cell]) => entries.some(({ set }) => cell(set) !== '-'));
  return render(
    ['Method', 'Benchmark', ...shown.map(([title]) => title)],
    entries.map(({ name, set }) => [name, set.title, ...shown.map(([, cell]) => cell(set))]),
    format,
  );
}

/** Lengths are told of the greedy responses, where there are any, as in the paper's setting. */
function main({ greedyResponses, sampledResponses }: SetResult): SetResult['greedyResponses'] {
  return greedyResponses ?? sampledResponses;
}

function withError(estimate: Estimate | null | undefined): string {
  if (estimate === null || estimate === undefined) return '-';
  const { value, standardError } = estimate;
  return standardError === null ? points(value) : `${points(value)} ± ${points(standardError)}`;
}

const points = (share: number | null | undefined): string =>
  share === null || share === undefined ? '-' : percent(share).toFixed(1);

const decimals = (value: number | null | undefined, digits: number): string =>
  value === null || value === undefined ? '-' : value.toFixed(digits);

const signed = (value: number): string => `${value < 0 ? '' : '+'}${value.toFixed(1)}`;

/** Text columns to the left, numbers to the right. */
function render(header: readonly string[], rows: readonly (readonly string[])[], format: TableFormat): string {
  const left = (i: number): boolean => i === 0 || header[i] === 'Benchmark';
  if (format === 'markdown') {
    const line = (cells: readonly string[]): string =>
      `| ${cells.map((cell) => cell.trim().replaceAll('|', '\\|')).join(' | ')} |`;
    return [line(header), line(header.map((_, i) => (left(i) ? '---' : '---:'))), ...rows.map(line)].join('\n');
  }
  const widths = header.map((title, i) => Math.max(title.length, ...rows.map((row) => (row[i] as string).length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => (left(i) ? cell.padEnd(widths[i] as number) : cell.padStart(widths[i] as number)))
      .join('  ')
      .trimEnd();
  return [line(header), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n');
}

/** Both tables as a Markdown document. */
export function resultDocument(results: readonly ModelResult[], table: ResultTable): string {
  const what = table.metric === 'greedy' ? 'greedy pass@1' : table.metric === 'avg' ? 'avg@k' : table.metric;
  const over =
    table.baseline === null ? '' : `; in brackets the gain of the average over ${table.baseline}, in percent of it`;
  return [
    `Accuracy in percent, ${what}${over}.`,
    formatResultTable(table, 'markdown'),
    'Shares in percent with their standard error over the problems, entropy in nats, length in tokens:',
    formatDetails(results, 'markdown'),
    '',
  ].join('\n\n');
}
