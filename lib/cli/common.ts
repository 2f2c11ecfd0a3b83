/** What several commands share. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AbortedError, InvalidArgumentError } from '../errors.js';

/**
 * Text that may hold words of a model, a data set or a hub, for a terminal: of its control characters only line breaks
 * and tabs are left as they are.
 */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is made visible
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

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
 * Runs `work` with a signal that Ctrl-C (SIGINT) or SIGTERM aborts. The second one, of either kind, ends the process as
 * if nobody listened.
 */
export async function withSignals<T>(work: (signal: AbortSignal) => Promise<T>, message: string): Promise<T> {
  const abort = new AbortController();
  const stop = (): void => {
    for (const signal of SIGNALS) process.off(signal, stop);
    console.error(`${process.stderr.isTTY ? '\n' : ''}${message}`);
    abort.abort(new AbortedError('interrupted'));
  };
  for (const signal of SIGNALS) process.on(signal, stop);
  try {
    return await work(abort.signal);
  } finally {
    for (const signal of SIGNALS) process.off(signal, stop);
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/**
 * Runs `work` with a signal that Ctrl-C aborts: the work stops at the next step and leaves whole files. A second Ctrl-C
 * ends the process as usual.
 *
 * @param kept - what is left of work that was stopped, and how to go on: the end of the sentence that says so.
 */
export async function withInterrupt<T>(
  work: (signal: AbortSignal) => Promise<T>,
  kept: () => string = () => 'nothing was written',
): Promise<T> {
  let interrupted = false;
  const watched = (signal: AbortSignal): Promise<T> => {
    signal.addEventListener('abort', () => {
      interrupted = true;
    });
    return work(signal);
  };
  try {
    return await withSignals(watched, 'stopping; once more ends at once');
  } catch (error) {
    if (!interrupted || !(error instanceof AbortedError)) throw error;
    throw new AbortedError(`interrupted: ${kept()}`, { cause: error });
  }
}

/**
 * What is in the folder of a run that was stopped.
 *
 * @param chosen - whether the user named the folder; else the same command makes a new one.
 */
export function keptInRun(out: string, chosen: boolean): string {
  if (!existsSync(out)) return 'nothing was written';
  const files = readdirSync(out).filter((name) => !name.startsWith('.'));
  const metrics = join(out, 'metrics.jsonl');
  const lines = existsSync(metrics) ? readFileSync(metrics, 'utf8').trim().split('\n') : [];
  const done = lines.filter((line) => !/^\{"iteration":0,/.test(line) && line !== '').length;
  const unit = lines[0]?.startsWith('{"step":') ? 'steps' : 'iterations';
  const weights = files.includes('model') ? '' : ', but no weights: a run cannot be continued yet';
  const again = chosen ? 'To begin again, remove that folder or give another --out' : 'The same command begins again';
  return `${out} keeps ${files.join(', ')} (${done} ${unit})${weights}. ${again}`;
}
