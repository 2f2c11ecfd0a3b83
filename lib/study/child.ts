/** One training run in a process of its own. */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { endWithThisProcess } from '../own-children.js';
import { configToToml } from '../train/config-file.js';
import { writeWhole } from '../train/durable.js';
import type { Run } from './load.js';

/** How a run's process ended. */
export type ChildEnd =
  | { status: 'finished' }
  /** Stopped by the signal, at a checkpoint. */
  | { status: 'stopped' }
  /** `reason`: the last lines of its log. */
  | { status: 'failed'; reason: string };

const EEPO = fileURLToPath(new URL('../../../bin/eepo.mjs', import.meta.url));
const LAST_LINES = 8;

export const configFileOf = ({ folder }: Run): string => `${folder}.toml`;
export const logFileOf = ({ folder }: Run): string => `${folder}.log`;

/**
 * Trains a run, or goes on with it where it was stopped. What it says is added to its log.
 *
 * @param threads - of its process
 * @param signal - stops it at a checkpoint
 */
export async function trainInChild(run: Run, threads: number, signal: AbortSignal): Promise<ChildEnd> {
  mkdirSync(dirname(run.folder), { recursive: true });
  writeWhole(configFileOf(run), configToToml(run.config));
  const log = openSync(logFileOf(run), 'a');
  const begin = statSync(logFileOf(run)).size;
  const args = [EEPO, 'train', configFileOf(run), '--out', run.folder, '--resume', 'latest'];
  const env = { ...process.env, OMP_NUM_THREADS: String(threads), MKL_NUM_THREADS: String(threads) };
  // A group of its own: Ctrl-C on a terminal reaches a whole group, and the second signal would end it at once.
  const child = spawn(process.execPath, args, { stdio: ['ignore', log, log], env, detached: true });
  closeSync(log);
  const stop = (): void => {
    child.kill('SIGINT');
  };
  signal.addEventListener('abort', stop, { once: true });
  endWithThisProcess(child);
  if (signal.aborted) stop();
  try {
    const [code, by] = await new Promise<[number | null, string | null]>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (exitCode, exitSignal) => resolve([exitCode, exitSignal]));
    });
    if (code === 0 && isComplete(run)) return { status: 'finished' };
    if (code === 0 || (signal.aborted && code === null)) return { status: 'stopped' };
    const how = code === null ? `ended by ${by}` : `exit code ${code}`;
    return { status: 'failed', reason: [how, ...lastLines(logFileOf(run), begin)].join('\n') };
  } catch (error) {
    return { status: 'failed', reason: `cannot be started: ${(error as Error).message}` };
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** A run writes its summary last. */
export const isComplete = ({ folder }: Run): boolean => existsSync(join(folder, 'summary.json'));

function lastLines(path: string, from: number): string[] {
  const lines = readFileSync(path)
    .subarray(from)
    .toString('utf8')
    .split('\n')
    .filter((line) => line.trim() !== '');
  return lines.slice(-LAST_LINES);
}

/** Removes what a finished run is not asked about any more: its weights and checkpoints. */
export function prune({ folder }: Run): void {
  for (const name of ['model', 'checkpoints']) rmSync(join(folder, name), { recursive: true, force: true });
}
