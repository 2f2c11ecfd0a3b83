/** The tables of a run, for a terminal and as Markdown. */
import { formatTable } from '../cli/common.js';
import type { Machine } from './machine.js';
import type { KernelResult, WorkloadResult } from './measure.js';
import type { Check } from './targets.js';

/** Everything that one run found. */
export interface KernelsReport {
  machine: Machine;
  options: Record<string, unknown>;
  workloads: WorkloadResult[];
  /** Shapes left out, and why. */
  skipped: string[];
  checks: Check[];
}

const ms = (value: number): string => value.toPrecision(value >= 1000 ? 4 : 3);
const times = (value: number | undefined): string =>
  value === undefined ? '-' : value >= 100 ? value.toFixed(0) : value.toFixed(2);
const mebibytes = (bytes: number | null): string => (bytes === null ? '-' : (bytes / 2 ** 20).toFixed(1));

function rate({ rate, unit }: { rate: number; unit: string }): string {
  return unit === 'FLOP' ? `${(rate / 1e9).toFixed(0)} GFLOP/s` : `${(rate / 1e9).toFixed(1)} GB/s`;
}

const errorText = (errors: KernelResult['errors']): string =>
  Object.entries(errors)
    .map(([what, error]) => `${what} ${error.toExponential(0)}`)
    .join(', ') || '-';

/** Peers of any kernel of a workload, in the order they ran. */
const peersOf = ({ kernels }: WorkloadResult): string[] => [
  ...new Set(kernels.flatMap((kernel) => Object.keys(kernel.peers))),
];

function tableOf(result: WorkloadResult): { header: string[]; rows: string[][] } {
  const peers = peersOf(result);
  const header = [
    '',
    'median ms',
    'min ms',
    'rate',
    'x floor',
    ...peers.map((peer) => `x ${peer}`),
    'extra MiB',
    'max error',
  ];
  const floors = result.floors.map((floor) => {
    const found = rate({ rate: floor.amount / (floor.ms.min / 1000), unit: floor.unit });
    return [`floor: ${floor.name}`, ms(floor.ms.median), ms(floor.ms.min), found, '', ...peers.map(() => ''), '', ''];
  });
  const kernels = result.kernels.map((kernel) => [
    kernel.name,
    ms(kernel.ms.median),
    ms(kernel.ms.min),
    rate(kernel),
    times(kernel.floor.ratio),
    ...peers.map((peer) => times(kernel.peers[peer]?.ratio)),
    mebibytes(kernel.extraBytes),
    errorText(kernel.errors),
  ]);
  return { header, rows: [...floors, ...kernels] };
}

/** What the peers needed and how far they were off. */
function peerTableOf(result: WorkloadResult): { header: string[]; rows: string[][] } {
  const rows = result.kernels.flatMap((kernel) =>
    Object.entries(kernel.peers).map(([peer, found]) => [
      `${kernel.name}: ${peer}`,
      ms(found.ms.median),
      ms(found.ms.min),
      times(found.ratio),
      mebibytes(found.extraBytes),
      errorText(found.errors),
    ]),
  );
  return { header: ['peer', 'median ms', 'min ms', 'x ours', 'extra MiB', 'max error'], rows };
}

/** One workload, as it is printed while the others still run. */
export function workloadText(result: WorkloadResult): string {
  const { header, rows } = tableOf(result);
  const peers = peerTableOf(result);
  const parts = [result.title, formatTable(header, rows)];
  if (peers.rows.length > 0) parts.push(formatTable(peers.header, peers.rows));
  return [...parts, ...result.notes].join('\n\n');
}

export function checksText(checks: readonly Check[]): string {
  return checks.map(({ what, measured, passed }) => `${passed ? 'pass' : 'FAIL'}  ${what}: ${measured}`).join('\n');
}

function machineLines({ machine }: KernelsReport): string[] {
  const { device, cores, isa, threads, eepo, libtorch, date, peers } = machine;
  const lines = [
    `${device}, ${cores} CPU cores, ${threads} threads, ${isa}; eepo ${eepo}, libtorch ${libtorch}; ${date}`,
  ];
  lines.push(peers ? `peers: torch ${peers.torch}, ${peers.threads} threads, Python ${peers.python}` : 'no peers');
  for (const [peer, reason] of Object.entries(peers?.missing ?? {})) lines.push(`${peer}: not here: ${reason}`);
  return lines;
}

export const machineText = (report: KernelsReport): string => machineLines(report).join('\n');

function markdownTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(header), line(header.map((_, i) => (i === 0 ? '---' : '---:'))), ...rows.map(line)].join('\n');
}

/** The whole run as a Markdown page. */
export function markdown(report: KernelsReport): string {
  const parts = [`# Kernels on ${report.machine.device}`, machineLines(report).join('  \n')];
  for (const result of report.workloads) {
    const own = tableOf(result);
    const peers = peerTableOf(result);
    parts.push(`## ${result.title}`, markdownTable(own.header, own.rows));
    if (peers.rows.length > 0) parts.push(markdownTable(peers.header, peers.rows));
    parts.push(...result.notes);
  }
  parts.push(...report.skipped);
  if (report.checks.length > 0) {
    const rows = report.checks.map(({ what, measured, passed }) => [what, measured, passed ? 'pass' : '**fail**']);
    parts.push('## Targets', markdownTable(['', 'measured', ''], rows));
  }
  return `${parts.join('\n\n')}\n`;
}
