/** Reads the folder of a run from outside, with nothing of the library: what it says must hold for anybody. */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** Keys that say how long something took or how much memory there was; nothing else may differ between two runs. */
const VOLATILE = /^(timing_s|perf)\/|^seconds$/;

/** Without what says how long it took. */
export function steady(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(steady);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !VOLATILE.test(key))
      .map(([key, inner]) => [key, steady(inner)]),
  );
}

export const sha256 = (data: Buffer | string): string => createHash('sha256').update(data).digest('hex');

/** Every file below a folder, by path relative to it, sorted; [] where there is no such folder. */
export function filesBelow(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => statSync(join(folder, name)).isFile())
    .sort();
}

/** Whole lines of a file, and how many bytes after the last of them are a torn one. */
export function wholeLines(path: string): { lines: string[]; torn: number } {
  if (!existsSync(path)) return { lines: [], torn: 0 };
  const text = readFileSync(path);
  const end = text.lastIndexOf(0x0a) + 1;
  const lines = text.subarray(0, end).toString('utf8').split('\n').slice(0, -1);
  return { lines, torn: text.length - end };
}

export interface CheckpointState {
  iteration: number;
  /** Bytes of the files that grow. */
  offsets: Record<string, number>;
  /** SHA-256 by path. */
  files: Record<string, string>;
  /** What must be the same in every run of this configuration. */
  same: unknown;
}

export const checkpointName = (iteration: number): string => `iteration-${String(iteration).padStart(6, '0')}`;

/** What state.json says; an error text where it is none. */
export function readState(folder: string): CheckpointState | string {
  const path = join(folder, 'state.json');
  if (!existsSync(path)) return `${path} is missing`;
  try {
    const { trainer, offsets, files, best, config, initial } = JSON.parse(readFileSync(path, 'utf8')) as {
      trainer: { iteration: number };
      offsets: Record<string, number>;
      files: Record<string, { sha256: string }>;
      [other: string]: unknown;
    };
    const hashes = Object.entries(files).map(([name, file]) => [name, file.sha256]);
    const same = steady({ trainer, best, config, initial, completions: offsets['completions.jsonl'] });
    return { iteration: trainer.iteration, offsets, files: Object.fromEntries(hashes), same };
  } catch (error) {
    return `${path}: ${(error as Error).message}`;
  }
}

/** What is wrong with a checkpoint; [] if it is whole. */
export function checkpointProblems(folder: string): string[] {
  const state = readState(folder);
  if (typeof state === 'string') return [state];
  const problems: string[] = [];
  const there = filesBelow(folder).filter((name) => name !== 'state.json');
  const listed = Object.keys(state.files).sort();
  if (JSON.stringify(there) !== JSON.stringify(listed)) {
    problems.push(`${folder} holds ${there.join(', ')}; its state lists ${listed.join(', ')}`);
  }
  for (const [name, hash] of Object.entries(state.files)) {
    const path = join(folder, name);
    if (existsSync(path) && sha256(readFileSync(path)) !== hash) problems.push(`${path} is not what its state says`);
  }
  return problems;
}

/** Finished checkpoints by their final names. */
export function checkpointsOf(root: string): string[] {
  const folder = join(root, 'checkpoints');
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.startsWith('iteration-'))
    .sort();
}

/** The name in checkpoints/latest; null where there is none. */
export function latestOf(root: string): string | null {
  const path = join(root, 'checkpoints', 'latest');
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : null;
}
