/** The lines of a run that goes on: back to where they were at its checkpoint, or an error where some are lost. */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { InvalidFileError } from '../errors.js';
import type { RunDirectory } from './run-directory.js';

/** Sizes of files of lines in bytes, as a checkpoint knows them. */
export type LineOffsets = Readonly<Record<string, number>>;

const NEWLINE = 0x0a;

/**
 * What is wrong with the lines that a checkpoint tells of; nothing is changed. What comes after them is no matter: it is
 * cut away and written again.
 *
 * @throws InvalidFileError naming the file, and the line
 */
export function checkLines(run: RunDirectory, offsets: LineOffsets): void {
  for (const [name, bytes] of Object.entries(offsets)) {
    const path = run.file(name);
    const lost = bytes - run.size(name);
    if (lost > 0) {
      throw new InvalidFileError(
        `${path} lacks ${lost} of the ${bytes} bytes that the checkpoint tells of: it was cut off or edited, and lines ` +
          `of iterations that are done are lost. ${WHAT_TO_DO}`,
      );
    }
    if (bytes > 0 && lineEnd(path, bytes) !== bytes) {
      throw new InvalidFileError(
        `${path}: byte ${bytes}, where the checkpoint was, ends no line: it was edited. ${WHAT_TO_DO}`,
      );
    }
    if (name !== METRICS || bytes === 0) continue;
    const broken = linesOf(path, bytes).findIndex((line) => !isWhole(line));
    if (broken < 0) continue;
    throw new InvalidFileError(`${path}:${broken + 1}: not a line of metrics: it was edited. ${WHAT_TO_DO}`);
  }
}

/** Small and read as a whole; what else there is may be larger than a text can be. */
const METRICS = 'metrics.jsonl';

const WHAT_TO_DO =
  'Put the file back as it was, go on from an older checkpoint (--resume RUN/checkpoints/iteration-<n>), or go on ' +
  'without these lines with --accept-changes: the training is the same';

/**
 * Cuts the files back to the lines that a checkpoint tells of; of what is less, to the lines that are whole.
 *
 * @returns what was lost, in words
 */
export function cutLines(run: RunDirectory, offsets: LineOffsets): string[] {
  const notes: string[] = [];
  for (const [name, bytes] of Object.entries(offsets)) {
    run.cut(name, bytes);
    if (run.size(name) > 0) run.cut(name, lineEnd(run.file(name), run.size(name)));
    if (name === METRICS && run.size(name) > 0) {
      const lines = linesOf(run.file(name), run.size(name));
      const whole = lines.filter(isWhole);
      if (whole.length < lines.length) run.write(name, whole.map((line) => `${line}\n`).join(''));
    }
    const lost = bytes - run.size(name);
    if (lost > 0) notes.push(`${run.file(name)} lacks ${lost} bytes that the checkpoint tells of; lines are lost`);
  }
  return notes;
}

/** Where the last line in the first bytes of a file ends. */
function lineEnd(path: string, bytes: number): number {
  const file = openSync(path, 'r');
  const chunk = Buffer.alloc(1 << 16);
  try {
    for (let end = bytes; end > 0; end -= Math.min(end, chunk.length)) {
      const begin = Math.max(0, end - chunk.length);
      const read = readSync(file, chunk, 0, end - begin, begin);
      const at = chunk.subarray(0, read).lastIndexOf(NEWLINE);
      if (at >= 0) return begin + at + 1;
    }
    return 0;
  } finally {
    closeSync(file);
  }
}

/** The lines in the first bytes of a file, of which the last ends there. */
function linesOf(path: string, bytes: number): string[] {
  return readFileSync(path).toString('utf8', 0, bytes).split('\n').slice(0, -1);
}

function isWhole(line: string): boolean {
  try {
    const value: unknown = JSON.parse(line);
    return (
      typeof value === 'object' && value !== null && Number.isInteger((value as { iteration?: unknown }).iteration)
    );
  } catch {
    return false;
  }
}
