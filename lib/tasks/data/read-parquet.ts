/**
 * Parquet files, decoded in a thread of their own. A file of a few bytes can claim billions of values, and the library
 * believes it: the thread has a bound of memory and of time, and where it reaches one, it ends and the process lives.
 */
import { statSync } from 'node:fs';
import { freemem } from 'node:os';
import { Worker } from 'node:worker_threads';
import { InvalidFileError } from '../../errors.js';
import type { ParquetAnswer, ParquetRequest } from './parquet-worker.js';
import type { PlacedRow } from './rows.js';
import type { DataFile } from './source.js';

/** What one file may take. */
export interface ParquetLimits {
  /** Time for one batch of rows, the decoding of its row group included. Default 30 s and 1 s per MiB of the file. */
  milliseconds?: number;
  /** JavaScript's memory of the thread, MiB. Default 3072. */
  heapMiB?: number;
  /** Growth of the process's memory in all, bytes. Default 6 GiB, or most of what is free where that is less. */
  bytes?: number;
}

const MAX_HEAP_MIB = 3072;
const MAX_BYTES = 6 * 2 ** 30;
const WATCH_MS = 100;

/**
 * The rows of a Parquet file in plain values: structs are objects, lists are arrays, 64-bit integers are numbers where
 * these are exact and decimal strings beyond, times are ISO 8601 text. Memory holds one row group.
 *
 * @param wanted columns to read; default all
 * @throws InvalidFileError naming the file, and the row group that cannot be read, or the bound that it goes beyond
 */
export async function* readParquet(
  file: DataFile,
  wanted?: readonly string[],
  limits: ParquetLimits = {},
): AsyncGenerator<PlacedRow> {
  const reader = new ParquetThread(file, wanted, limits);
  try {
    for (let batch = await reader.next(); batch.length > 0; batch = await reader.next()) yield* batch;
  } finally {
    await reader.end();
  }
}

/** A thread that has come to its end well waits for the next file: starting one takes longer than most files. */
let idle: Worker | null = null;

function startThread(heapMiB: number): Worker {
  const resourceLimits = { maxOldGenerationSizeMb: heapMiB };
  return new Worker(new URL('./parquet-worker.js', import.meta.url), { resourceLimits });
}

class ParquetThread {
  readonly #name: string;
  readonly #worker: Worker;
  readonly #reusable: boolean;
  readonly #milliseconds: number;
  readonly #bytes: number;
  readonly #before = process.memoryUsage.rss();
  #settle: { resolve(rows: PlacedRow[]): void; reject(error: Error): void } | null = null;
  /** What ended the thread. */
  #failure: Error | null = null;

  constructor(file: DataFile, wanted: readonly string[] | undefined, limits: ParquetLimits) {
    this.#name = file.name;
    this.#milliseconds = limits.milliseconds ?? 30_000 + 1000 * (sizeOf(file.path) / 2 ** 20);
    this.#bytes = limits.bytes ?? Math.max(2 ** 30, Math.min(MAX_BYTES, 0.8 * freemem()));
    this.#reusable = limits.heapMiB === undefined;
    this.#worker = (this.#reusable ? idle : null) ?? startThread(limits.heapMiB ?? MAX_HEAP_MIB);
    if (this.#worker === idle) idle = null;
    this.#worker.ref();
    this.#worker.removeAllListeners();
    this.#worker.on('message', (answer: ParquetAnswer) => {
      if ('rows' in answer) this.#settle?.resolve(answer.rows);
      else this.#settle?.reject(new InvalidFileError(answer.error));
    });
    this.#worker.on('error', (cause: NodeJS.ErrnoException) => {
      const memory = cause.code === 'ERR_WORKER_OUT_OF_MEMORY';
      this.#fail(this.#damaged(memory ? 'more memory than a row group may' : `no end: ${cause.message}`, cause));
    });
    this.#worker.on('exit', () => this.#fail(this.#damaged('no end')));
    const request: ParquetRequest = { kind: 'open', file, wanted };
    this.#worker.postMessage(request);
  }

  /** The next rows; none at the end. */
  async next(): Promise<PlacedRow[]> {
    const began = performance.now();
    const watch = setInterval(() => {
      if (performance.now() - began > this.#milliseconds) {
        this.#fail(this.#damaged(`longer than ${Math.round(this.#milliseconds / 1000)} s`));
      } else if (process.memoryUsage.rss() - this.#before > this.#bytes) {
        this.#fail(this.#damaged('more memory than a row group may'));
      }
    }, WATCH_MS);
    try {
      return await new Promise<PlacedRow[]>((resolve, reject) => {
        if (this.#failure !== null) return reject(this.#failure);
        this.#settle = { resolve, reject };
        const request: ParquetRequest = { kind: 'next' };
        this.#worker.postMessage(request);
      });
    } finally {
      clearInterval(watch);
      this.#settle = null;
    }
  }

  async end(): Promise<void> {
    if (this.#failure !== null || !this.#reusable || idle !== null) {
      this.#failure ??= new Error('ended');
      await this.#worker.terminate();
      return;
    }
    const request: ParquetRequest = { kind: 'close' };
    this.#worker.postMessage(request);
    this.#worker.removeAllListeners();
    // Nobody waits for it: what happens to it now is of no consequence, but must not end the process.
    const worker = this.#worker;
    worker.on('error', () => {});
    worker.on('exit', () => {
      if (idle === worker) idle = null;
    });
    worker.unref();
    idle = worker;
  }

  #fail(error: Error): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    this.#settle?.reject(error);
    void this.#worker.terminate();
  }

  #damaged(what: string, cause?: Error): InvalidFileError {
    return new InvalidFileError(
      `${this.#name}: cannot be read as Parquet: decoding it takes ${what}; it is damaged, or its row groups are too ` +
        'large: write smaller ones',
      cause === undefined ? undefined : { cause },
    );
  }
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}
