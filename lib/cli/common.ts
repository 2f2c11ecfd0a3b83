/** What several commands share. */
import { AbortedError, InvalidArgumentError } from '../errors.js';

/** For options that may be given several times. */
export const collect = (value: string, previous: string[]): string[] => [...previous, value];

/** Reads a whole number of an option; `min` is the smallest allowed. */
export function wholeNumber(name: string, min: number): (value: string) => number {
  return (value) => {
    const parsed = Number(value);
    if (value.trim() === '' || !Number.isInteger(parsed) || parsed < min) {
      throw new InvalidArgumentError(`--${name} ${value}: expected a whole number, at least ${min}`);
    }
    return parsed;
  };
}

/** A table for people: columns as wide as they need to be; numbers (all columns but the first) to the right. */
export function formatTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((title, i) => Math.max(title.length, ...rows.map((row) => (row[i] ?? '').length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] as number) : cell.padStart(widths[i] as number)))
      .join('  ')
      .trimEnd();
  return [line(header), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n');
}

/** A number with a few digits, or `-` where there is none. */
export const show = (value: number | null | undefined, digits = 3): string =>
  value === null || value === undefined || !Number.isFinite(value) ? '-' : value.toFixed(digits);

/**
 * Runs `work` with a signal that Ctrl-C aborts: the work stops at the next step and leaves whole files. A second Ctrl-C
 * ends the process as usual.
 */
export async function withInterrupt<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController();
  const stop = (): void => abort.abort(new AbortedError('interrupted'));
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  try {
    return await work(abort.signal);
  } finally {
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
}
