/** How much memory the problems of a data set may take: beyond it the process would end without a word. */
import { getHeapStatistics } from 'node:v8';
import { InvalidFileError } from '../../errors.js';

/** Of the heap, for all problems of a split; the rest is for their tokens, responses and rewards. */
const SHARE = 1 / 3;
/** Of an object or list. */
const OBJECT_BYTES = 64;
/** Of every value. */
const ENTRY_BYTES = 16;

/** About so many bytes of JavaScript's memory; never much less than what they are. */
export function memoryOf(value: unknown): number {
  let sum = 0;
  // no recursion: a row may be nested deeper than the stack
  const open = [value];
  while (open.length > 0) {
    const next = open.pop();
    sum += ENTRY_BYTES;
    if (typeof next === 'string') sum += next.length * (isWide(next) ? 2 : 1);
    if (typeof next !== 'object' || next === null) continue;
    sum += OBJECT_BYTES;
    for (const entry of Array.isArray(next) ? next : Object.values(next)) open.push(entry);
  }
  return sum;
}

/** A text with one character beyond Latin-1 takes two bytes for each. */
const isWide = (text: string): boolean => /[^\0-\xff]/.test(text);

export class RowMemory {
  readonly #label: string;
  readonly #limit: number;
  #rows = 0;
  #bytes = 0;

  /** @param label - the files, for the message */
  constructor(label: string, limit = getHeapStatistics().heap_size_limit * SHARE) {
    this.#label = label;
    this.#limit = limit;
  }

  /** @throws InvalidFileError where it is one problem too many */
  add(problem: unknown): void {
    this.#rows += 1;
    this.#bytes += memoryOf(problem);
    if (this.#bytes <= this.#limit) return;
    throw new InvalidFileError(
      `${this.#label}: ${this.#rows} rows take more than the ${Math.floor(this.#limit / 2 ** 20)} MiB of memory that there ` +
        'are for them. Keep fewer columns (metaColumns = []) or fewer rows (maxProblems, which without a shuffleSeed ' +
        'reads no more than it keeps), or give Node more: NODE_OPTIONS=--max-old-space-size=16384',
    );
  }
}
