/** Results of a study as Markdown and CSV. */
import type { ClaimResult, Comparison } from './claims.js';
import type { MethodResult, StudyResults, TableResult } from './results.js';
import type { MeanInterval } from './statistics.js';

/** `0.466 ± 0.013`: two digits of the half width. */
export function plusMinus(interval: MeanInterval | null, sign = false): string {
  if (interval === null) return '-';
  const { mean, half } = interval;
  const scale = half === null || half === 0 ? Math.abs(mean) / 100 : half;
  const digits = scale > 0 ? Math.min(6, Math.max(0, 1 - Math.floor(Math.log10(scale)))) : 3;
  const value = `${sign && mean > 0 ? '+' : ''}${mean.toFixed(digits)}`;
  return half === null ? value : `${value} ± ${half.toFixed(digits)}`;
}

const cell = (text: string): string => text.replace(/[\r\n]+/g, ' ').replaceAll('|', '\\|');

function markdownTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.map(cell).join(' | ')} |`;
  return [line(header), `|${header.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n');
}

/** The page of a study: claims, chosen settings, tables. */
export function resultsMarkdown(results: StudyResults): string {
  const { name, about, counts, seeds, selectSeeds } = results;
  const parts = [
    `# ${name}`,
    about.trim(),
    [
      `${counts.finished} runs finished, ${counts.failed} failed, ${counts.open} open.`,
      `Reported on seeds ${seeds.join(', ')}${selectSeeds.length > 0 ? `; settings chosen on seeds ${selectSeeds.join(', ')}` : ''}.`,
      '± is half of a 95 % confidence interval over seeds (Student), of means and of differences paired by seed; intervals are not corrected for the number of claims. Times are of runs that may have worked beside each other (`--jobs`), which disturbs them.',
    ].join(' '),
    ...(results.unmeasured.length === 0
      ? []
      : ['Not measured:', results.unmeasured.map((one) => `- ${one}`).join('\n')]),
    ...(results.claims.length === 0 ? [] : ['## Claims', claimsMarkdown(results.claims)]),
    ...chosenMarkdown(results.methods),
    ...results.tables.flatMap(tableMarkdown),
    ...failuresMarkdown(results),
  ];
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`;
}

function claimsMarkdown(claims: readonly ClaimResult[]): string {
  const rows = claims.flatMap(({ spec, comparisons, verdict, reason }, i) =>
    comparisons.map((one, k) => [
      k === 0 ? String(i + 1) : '',
      k === 0 ? `${spec.text}${spec.paper === undefined ? '' : ` (paper: ${spec.paper})`}` : '',
      k === 0 ? `**${verdict}**: ${reason}` : '',
      `${one.a} - ${one.b}`,
      `${plusMinus(one.meanA)} / ${plusMinus(one.meanB)}`,
      `${plusMinus(one.difference, true)}${one.relative === null || spec.metrics !== undefined ? '' : ` (${percent(one.relative)})`}`,
      String(one.pairs.length),
      one.signTest === null ? '-' : one.signTest.toPrecision(2),
      notes(one),
    ]),
  );
  return markdownTable(
    ['', 'claim', 'verdict', 'compared', 'means', 'paired difference', 'n', 'sign test p', 'notes'],
    rows,
  );
}

const percent = (share: number): string => `${share > 0 ? '+' : ''}${(100 * share).toFixed(0)} %`;

function notes({ censored, missing, beyond, pairs }: Comparison): string {
  const never = (count: number, which: string): string[] =>
    count === 0 ? [] : [`${which}: not reached in ${count} of ${pairs.length}, counted as the last iteration`];
  return [
    ...never(censored.a, 'first'),
    ...never(censored.b, 'second'),
    ...(beyond > 0 ? [`second never gets there in ${beyond}: its nearest point`] : []),
    ...(missing.length > 0 ? [`missing: ${missing.join(', ')}`] : []),
  ].join('; ');
}

function chosenMarkdown(methods: readonly MethodResult[]): string[] {
  const tuned = methods.filter(({ scores }) => scores.length > 0);
  if (tuned.length === 0) return [];
  const rows = tuned.map(({ label, setting, scores }) => {
    const best = scores.find((score) => score.setting === setting);
    const others = scores.filter((score) => score !== best);
    return [
      label,
      setting ?? 'none: no setting has a score in every run',
      plusMinus(best?.score ?? null),
      String(scores.length),
      others.map((score) => `${score.setting}: ${plusMinus(score.score)}`).join('; '),
    ];
  });
  return ['## Chosen settings', markdownTable(['method', 'setting', 'score', 'of', 'the others'], rows)];
}

function tableMarkdown({ title, metrics, reference, rows }: TableResult): string[] {
  const header = ['method', 'n', ...metrics.map((metric) => metric.replace(/^eval\//, ''))];
  const count = (cells: readonly (MeanInterval | null)[]): string => {
    const sizes = [...new Set(cells.flatMap((value) => (value === null ? [] : [value.n])))];
    return sizes.length === 0 ? '0' : sizes.join('/');
  };
  const parts = [
    `## ${title}`,
    markdownTable(
      header,
      rows.map(({ label, cells }) => [label, count(cells), ...cells.map((value) => plusMinus(value))]),
    ),
  ];
  const compared = rows.filter(({ differences }) => differences.some((value) => value !== null));
  if (compared.length > 0) {
    parts.push(
      `Paired differences to ${reference}; * where the interval leaves 0 out:`,
      markdownTable(
        header,
        compared.map(({ label, differences }) => [
          label,
          count(differences),
          ...differences.map((value) => `${plusMinus(value, true)}${leavesOutZero(value) ? ' *' : ''}`),
        ]),
      ),
    );
  }
  return parts;
}

const leavesOutZero = (interval: MeanInterval | null): boolean =>
  interval !== null && interval.half !== null && Math.abs(interval.mean) > interval.half;

function failuresMarkdown({ runs }: StudyResults): string[] {
  const failed = runs.filter(({ status }) => status === 'failed');
  if (failed.length === 0) return [];
  return ['## Failed runs', ...failed.map(({ name, failure = '' }) => `- ${name}: ${cell(failure)}`)];
}

/** Every cell of every table, one a line. */
export function resultsCsv(results: StudyResults): string {
  const quoted = (text: string | number | null): string =>
    typeof text === 'string' && /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : String(text ?? '');
  const lines = results.tables.flatMap(({ title, metrics, reference, rows }) =>
    rows.flatMap(({ method, cells, differences }) =>
      metrics.map((metric, i) => {
        const [value, difference] = [cells[i] ?? null, differences[i] ?? null];
        return [
          ...[title, method, metric, value?.n ?? 0, value?.mean ?? null, value?.half ?? null],
          ...[reference, difference?.n ?? null, difference?.mean ?? null, difference?.half ?? null],
        ];
      }),
    ),
  );
  const header = 'table,method,metric,n,mean,half95,reference,pairs,difference,difference_half95';
  return `${[header, ...lines.map((line) => line.map(quoted).join(','))].join('\n')}\n`;
}
