/** TensorBoard's view of a run: `tensorboard/` in its folder, with the metrics of metrics.jsonl as scalars. */
import {
  appendFileSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { syncPath } from './durable.js';
import { scalarsRecord, startRecords, wallTimes } from './event-file.js';
import type { Metrics } from './metrics.js';

/** Metrics of an iteration (or a step of `eepo sft`). */
export interface MetricsRow {
  iteration: number;
  metrics: Metrics;
}

const PREFIX = 'events.out.tfevents.';
/** Without "tfevents": readers take every file with that in its name. */
const TEMPORARY = '.next.tmp';

/**
 * Writes one event file that holds what metrics.jsonl holds. At the beginning of a process the file is made anew from
 * the lines that are there, with the times at which they were first written, and the one before is emptied: a run that
 * goes on from a checkpoint has each step once, whatever a killed process left.
 *
 * It is a copy for other tools and no part of the run: where it cannot be written, that is a warning, and training goes
 * on.
 */
export class TensorBoardLog {
  readonly #folder: string;
  #path: string | null = null;

  /** @param folder `tensorboard/` of the run; made where it is not there */
  constructor(folder: string, rows: readonly MetricsRow[]) {
    this.#folder = folder;
    this.#guard(() => {
      this.#path = rewrite(folder, rows);
    });
  }

  /** Appends an iteration: all of it or nothing. */
  append({ iteration, metrics }: MetricsRow): void {
    const path = this.#path;
    if (path === null) return;
    this.#guard(() => {
      // throws where the file was removed: one without its first records would be of no use
      const { size } = statSync(path);
      try {
        appendFileSync(path, scalarsRecord(Date.now() / 1000, iteration, metrics));
      } catch (error) {
        truncateSync(path, size);
        throw error;
      }
    });
  }

  #guard(work: () => void): void {
    try {
      work();
    } catch (cause) {
      this.#path = null;
      process.emitWarning(
        `${this.#folder}: no more event files for TensorBoard are written (${(cause as Error).message}). Training goes ` +
          'on, metrics.jsonl has everything; --resume makes them again',
        'EepoTensorBoardWarning',
      );
    }
  }
}

/** Removes the event files of a run that writes none any more: they would show what a resumed run has taken back. */
export function removeEventFiles(folder: string): void {
  for (const path of eventFiles(folder)) rmSync(path, { force: true });
}

/** Oldest first. */
function eventFiles(folder: string): string[] {
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) return [];
  return readdirSync(folder)
    .filter((name) => name.startsWith(PREFIX))
    .sort()
    .map((name) => join(folder, name));
}

/** One file in the place of those that are there; the last of them stays, empty. Returns the new one's path. */
function rewrite(folder: string, rows: readonly MetricsRow[]): string {
  // not recursive: a run that has vanished is not to appear again
  if (!existsSync(folder)) mkdirSync(folder);
  const old = eventFiles(folder);
  const times = new Map(old.flatMap((path) => [...wallTimes(readFileSync(path))]));
  const now = Date.now() / 1000;
  const temporary = join(folder, TEMPORARY);
  const first = rows[0]?.iteration ?? 0;
  writeSynced(temporary, [
    startRecords(times.get(first) ?? now, first),
    ...rows.map(({ iteration, metrics }) => scalarsRecord(times.get(iteration) ?? now, iteration, metrics)),
  ]);
  const path = join(folder, `${PREFIX}${nextSecond(old)}.eepo`);
  renameSync(temporary, path);
  // A TensorBoard that is running reads the last one to its end before it looks for the next; it never gets over one
  // that has gone.
  for (const each of old.slice(0, -1)) rmSync(each);
  for (const each of old.slice(-1)) truncateSync(each);
  syncPath(folder);
  return path;
}

/** Readers take files in the order of their names: this one must come after those it replaces. */
function nextSecond(old: readonly string[]): string {
  const seconds = old.map((path) => Number.parseInt(basename(path).slice(PREFIX.length), 10)).filter(Number.isFinite);
  return String(Math.max(Math.floor(Date.now() / 1000), ...seconds.map((second) => second + 1))).padStart(10, '0');
}

function writeSynced(path: string, parts: readonly Buffer[]): void {
  const fd = openSync(path, 'w');
  try {
    for (const part of parts) for (let at = 0; at < part.length; at += writeSync(fd, part, at));
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
