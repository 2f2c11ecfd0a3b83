/** What must hold in the folder of a run at any moment, whatever ended the process that wrote it. */
import { existsSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Trace } from './moments.js';
import { eventProblems, metricsProblems, type Reference, steadyLines } from './reference.js';
import {
  checkpointName,
  checkpointProblems,
  checkpointsOf,
  filesBelow,
  latestOf,
  readState,
  sha256,
  wholeLines,
} from './run-files.js';

/** Checkpoints that a run said to have finished, over all its lives. */
export class Announced {
  readonly #iterations = new Set<number>();

  /** The step after 'latest' begins when the checkpoint is whole and named. */
  add(traces: readonly Trace[]): void {
    for (const trace of traces) {
      if (trace.on === 'checkpoint' && (trace.step === 'prune' || trace.step === 'end'))
        this.#iterations.add(trace.iteration);
    }
  }

  get latest(): number | null {
    return this.#iterations.size === 0 ? null : Math.max(...this.#iterations);
  }

  get all(): number[] {
    return [...this.#iterations].sort((a, b) => a - b);
  }
}

export interface Kept {
  /** checkpoint.keepLast */
  last: number;
  /** checkpoint.keepBest, of mode "max" */
  best: string;
}

/** Checkpoints that pruning must have left, by name; of several best ones any may be the one. */
function required(announced: Announced, kept: Kept, reference: Reference): string[][] {
  const all = announced.all;
  const last = all.slice(-kept.last).map((iteration) => [checkpointName(iteration)]);
  if (kept.best === '' || all.length === 0) return last;
  const values = new Map<number, number>();
  for (const line of reference.metrics) {
    const row = JSON.parse(line) as Record<string, number>;
    const value = row[kept.best];
    if (value !== undefined && all.includes(row.iteration as number)) values.set(row.iteration as number, value);
  }
  if (values.size === 0) return last;
  const most = Math.max(...values.values());
  return [...last, [...values].filter(([, value]) => value === most).map(([iteration]) => checkpointName(iteration))];
}

export interface InvariantOptions {
  root: string;
  reference: Reference;
  announced: Announced;
  kept: Kept;
  /** After a power loss `latest` may be an older one, as long as what it names is whole. */
  lostPower?: boolean;
}

/** What does not hold; [] if all does. */
export function invariantProblems(options: InvariantOptions): string[] {
  if (!existsSync(options.root)) return [];
  return [
    ...checkpoints(options),
    ...lines(options),
    ...eventProblems(options.root, options.reference, false),
    ...finals(options),
  ];
}

function checkpoints({ root, reference, announced, kept, lostPower }: InvariantOptions): string[] {
  const folder = join(root, 'checkpoints');
  const there = checkpointsOf(root);
  // What has its final name is whole, the newest like all others.
  const problems = there.flatMap((name) => checkpointProblems(join(folder, name)));
  for (const names of required(announced, kept, reference)) {
    if (!names.some((name) => there.includes(name))) problems.push(`${names.join(' or ')} was announced and is lost`);
  }
  const latest = latestOf(root);
  const promised = announced.latest;
  if (promised === null) return problems;
  if (latest === null || !there.includes(latest)) {
    if (!lostPower) problems.push(`latest names ${latest}, which is not there`);
  } else if (latest < checkpointName(promised) && !lostPower) {
    problems.push(`latest names ${latest}; ${checkpointName(promised)} was announced`);
  }
  return problems;
}

/** Lines up to the newest checkpoint's offsets are whole and the reference's; after them only the last may be torn. */
function lines({ root, reference }: InvariantOptions): string[] {
  const problems: string[] = metricsProblems(steadyLines(join(root, 'metrics.jsonl')), reference);
  const completions = join(root, 'completions.jsonl');
  const written = existsSync(completions) ? readFileSync(completions) : Buffer.alloc(0);
  const { torn } = wholeLines(completions);
  const whole = written.subarray(0, written.length - torn);
  if (!whole.equals(reference.completions.subarray(0, whole.length))) problems.push('completions.jsonl differs');
  for (const name of checkpointsOf(root)) {
    const state = readState(join(root, 'checkpoints', name));
    if (typeof state === 'string') continue;
    for (const [file, bytes] of Object.entries(state.offsets)) {
      const text = existsSync(join(root, file)) ? readFileSync(join(root, file)) : Buffer.alloc(0);
      if (text.length < bytes) problems.push(`${file} has ${text.length} bytes; ${name} counts on ${bytes}`);
      else if (bytes > 0 && text[bytes - 1] !== 0x0a)
        problems.push(`${name}: ${bytes} is in the middle of a line of ${file}`);
    }
  }
  return problems;
}

/** Files that only ever appear whole. */
function finals({ root, reference }: InvariantOptions): string[] {
  const whole = ['config.toml', ...filesBelow(join(root, 'model')).map((name) => join('model', name))];
  const evaluations = filesBelow(join(root, 'evals')).map((name) => join('evals', name));
  const summaries = evaluations.filter((name) => basename(name) === 'summary.json');
  const problems = [...whole, ...summaries]
    .filter((name) => existsSync(join(root, name)))
    .filter((name) => sha256(readFileSync(join(root, name))) !== reference.hashes.get(name))
    .map((name) => `${name} is not the reference's`);
  if (existsSync(join(root, 'model'))) {
    const missing = [...reference.hashes.keys()].filter((name) => name.startsWith('model/') && !whole.includes(name));
    if (missing.length > 0) problems.push(`model/ lacks ${missing.join(', ')}`);
  }
  if (existsSync(join(root, 'summary.json')) && !existsSync(join(root, 'model')))
    problems.push('summary.json without model/');
  return problems;
}
