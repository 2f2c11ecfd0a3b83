/** The run that was never stopped, and whether another one is the same. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { readEvents } from '../event-files.js';
import { checkpointsOf, filesBelow, latestOf, readState, sha256, steady, wholeLines } from './run-files.js';

/** What must come out, in memory. */
export interface Reference {
  root: string;
  /** Lines of metrics.jsonl without what says how long something took. */
  metrics: string[];
  completions: Buffer;
  /** Hashes of all other files, by path. */
  hashes: Map<string, string>;
  summary: string;
}

const steadyLine = (line: string): string => {
  try {
    return JSON.stringify(steady(JSON.parse(line)));
  } catch {
    return `no JSON: ${line.slice(0, 80)}`;
  }
};

export const steadyLines = (path: string): string[] => wholeLines(path).lines.map(steadyLine);

/** Files that are compared in another way, or hold what differs by nature (state.json: hashes of lines with timings). */
const OTHERWISE = /^(metrics\.jsonl|completions\.jsonl|summary\.json)$|^tensorboard\/|(^|\/)state\.json$/;

export function readReference(root: string): Reference {
  const hashes = new Map<string, string>();
  for (const name of filesBelow(root)) {
    if (!OTHERWISE.test(name)) hashes.set(name, sha256(readFileSync(join(root, name))));
  }
  return {
    root,
    metrics: steadyLines(join(root, 'metrics.jsonl')),
    completions: readFileSync(join(root, 'completions.jsonl')),
    hashes,
    summary: JSON.stringify(steady(JSON.parse(readFileSync(join(root, 'summary.json'), 'utf8')))),
  };
}

const firstDifference = (a: string, b: string): string => {
  let at = 0;
  while (at < a.length && a[at] === b[at]) at += 1;
  return `at ${at}: ...${a.slice(Math.max(0, at - 60), at + 60)}... instead of ...${b.slice(Math.max(0, at - 60), at + 60)}...`;
};

/** Lines of metrics that are not the reference's. */
export function metricsProblems(lines: readonly string[], reference: Reference): string[] {
  const wrong = lines.findIndex((line, i) => line !== reference.metrics[i]);
  if (wrong < 0) return [];
  const expected = reference.metrics[wrong] ?? '(no such line)';
  return [`metrics.jsonl, line ${wrong + 1}: ${firstDifference(lines[wrong] as string, expected)}`];
}

/** A line of metrics as an event holds it. */
const asEvent = (line: string): string =>
  JSON.stringify(JSON.parse(line), (name, value) =>
    typeof value === 'number' && name !== 'iteration' ? Math.fround(value) : value,
  );

/**
 * What is wrong with the event files of TensorBoard: each record must be the reference's of its iteration.
 *
 * @param finished - the one file must have every line, whole
 */
export function eventProblems(root: string, reference: Reference, finished: boolean): string[] {
  const folder = join(root, 'tensorboard');
  const expected = new Map(
    reference.metrics.map((line) => [(JSON.parse(line) as { iteration: number }).iteration, asEvent(line)]),
  );
  // a run that went on has emptied the file before
  const names = filesBelow(folder).filter((name) => statSync(join(folder, name)).size > 0);
  const problems = names.flatMap((name) => {
    if (!name.includes('tfevents')) return finished ? [`left over: tensorboard/${name}`] : [];
    const { events, torn } = readEvents(readFileSync(join(folder, name)));
    const rows = events.flatMap(({ step, scalars }) =>
      scalars === null ? [] : [JSON.stringify(steady({ iteration: step, ...scalars }))],
    );
    const wrong = rows.filter((row) => expected.get((JSON.parse(row) as { iteration: number }).iteration) !== row);
    const lacks = finished && (torn > 0 || String(rows) !== String([...expected.values()]));
    return [
      ...wrong.map((row) => `tensorboard/${name}: ${row.slice(0, 200)} is not the reference's`),
      ...(lacks ? [`tensorboard/${name} has ${rows.length} iterations and ${torn} torn bytes`] : []),
    ];
  });
  if (finished && names.filter((name) => name.includes('tfevents')).length !== 1)
    problems.push(`tensorboard/ holds ${names.join(', ')}`);
  return problems;
}

function sameState(folder: string): string {
  const state = readState(folder);
  return typeof state === 'string' ? state : JSON.stringify(state.same);
}

/**
 * Everything in which a finished run differs from the reference; [] where nothing does.
 *
 * @param options.sameCheckpoints - false for a run that was stopped by a signal: it saved at iterations of its own
 * @param options.lockMayStay - true for a run that was killed after its last write: whoever comes then only looks
 */
export function differences(
  root: string,
  reference: Reference,
  { sameCheckpoints = true, lockMayStay = false }: { sameCheckpoints?: boolean; lockMayStay?: boolean } = {},
): string[] {
  const problems: string[] = [];
  const metrics = wholeLines(join(root, 'metrics.jsonl'));
  problems.push(...metricsProblems(metrics.lines.map(steadyLine), reference));
  if (metrics.lines.length !== reference.metrics.length || metrics.torn > 0) {
    problems.push(
      `metrics.jsonl has ${metrics.lines.length} lines and ${metrics.torn} torn bytes; expected ${reference.metrics.length} and 0`,
    );
  }
  const completions = join(root, 'completions.jsonl');
  if (!existsSync(completions) || !readFileSync(completions).equals(reference.completions)) {
    problems.push('completions.jsonl differs');
  }
  problems.push(...eventProblems(root, reference, true));
  if (!existsSync(join(root, 'summary.json'))) return [...problems, 'summary.json is missing'];
  const summary = JSON.stringify(steady(JSON.parse(readFileSync(join(root, 'summary.json'), 'utf8'))));
  if (summary !== reference.summary) problems.push(`summary.json: ${firstDifference(summary, reference.summary)}`);

  const names = filesBelow(root).filter((name) => !OTHERWISE.test(name) && !(lockMayStay && name === '.lock'));
  for (const name of names) {
    const expected = reference.hashes.get(name);
    if (expected === undefined) {
      if (sameCheckpoints || !name.startsWith('checkpoints/')) problems.push(`${name} is there, not in the reference`);
    } else if (sha256(readFileSync(join(root, name))) !== expected) problems.push(`${name} differs`);
  }
  for (const name of reference.hashes.keys()) {
    if (!names.includes(name) && (sameCheckpoints || !name.startsWith('checkpoints/')))
      problems.push(`${name} is missing`);
  }
  if (sameCheckpoints && String(checkpointsOf(root)) !== String(checkpointsOf(reference.root))) {
    problems.push(`checkpoints: ${checkpointsOf(root)} instead of ${checkpointsOf(reference.root)}`);
  }
  for (const name of checkpointsOf(root).filter((each) => checkpointsOf(reference.root).includes(each))) {
    const [own, expected] = [root, reference.root].map((each) => sameState(join(each, 'checkpoints', name))) as [
      string,
      string,
    ];
    if (own !== expected) problems.push(`${name}/state.json: ${firstDifference(own, expected)}`);
  }
  if (latestOf(root) !== latestOf(reference.root)) problems.push(`latest names ${latestOf(root)}`);
  const folders = [root, join(root, 'checkpoints')].filter((folder) => existsSync(folder));
  const left = folders
    .flatMap((folder) => readdirSync(folder))
    .filter((name) => name.startsWith('.') && !(lockMayStay && name === '.lock'));
  if (left.length > 0) problems.push(`left over: ${left.join(', ')}`);
  return problems;
}
