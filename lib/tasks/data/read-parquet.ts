/**
 * Parquet files, decoded in a process of their own. A file of a few bytes can claim billions of values, and the library
 * believes it: the process has a bound of memory and of time, and where it reaches one, it ends and the run lives. (A
 * thread with a bound does not do: an allocation far beyond it ends the whole process.)
 */
import { type ChildProcess, fork } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { freemem } from 'node:os';
import { fileURLToPath } from 'node:url';
import { InvalidFileError } from '../../errors.js';
import { endWithThisProcess } from '../../own-children.js';
import type { ParquetAnswer, ParquetRequest } from './parquet-worker.js';
import type { PlacedRow } from './rows.js';
import type { DataFile } from './source.js';

/** What one file may take. */
export interface ParquetLimits {
  /** Time for one batch of rows, the decoding of its row group included. Default 30 s and 1 s per MiB of the file. */
  milliseconds?: number;
  /** JavaScript's memory of the process, MiB. Default 3072. */
  heapMiB?: number;
  /** Memory of the process in all, bytes. Default 6 GiB, or most of what is free where that is less. */
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
  const reader = new ParquetReader(file, wanted, limits);
  try {
    for (let batch = await reader.next(); batch.length > 0; batch = await reader.next()) yield* batch;
  } finally {
    await reader.end();
  }
}

/** A process that has come to its end well waits for the next file: starting one takes longer than most files. */
let idle: ChildProcess | null = null;

const PROGRAM = fileURLToPath(new URL('./parquet-worker.js', import.meta.url));

function startProcess(heapMiB: number): ChildProcess {
  const child = fork(PROGRAM, [String(process.pid)], {
    serialization: 'advanced',
    execArgv: [`--max-old-space-size=${heapMiB}`],
    // it needs nothing of ours, and Ctrl-C is not for it
    env: {},
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  });
  endWithThisProcess(child);
  return child;
}

/** Resident memory in bytes; 0 where it is not known. */
function memoryOf(pid: number | undefined): number {
  try {
    return 1024 * Number(/^VmRSS:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

class ParquetReader {
  readonly #name: string;
  readonly #worker: ChildProcess;
  readonly #reusable: boolean;
  readonly #milliseconds: number;
  readonly #bytes: number;
  #settle: { resolve(rows: PlacedRow[]): void; reject(error: Error): void } | null = null;
  /** What ended the process. */
  #failure: Error | null = null;

  constructor(file: DataFile, wanted: readonly string[] | undefined, limits: ParquetLimits) {
    this.#name = file.name;
    this.#milliseconds = limits.milliseconds ?? 30_000 + 1000 * (sizeOf(file.path) / 2 ** 20);
    this.#bytes = limits.bytes ?? Math.max(2 ** 30, Math.min(MAX_BYTES, 0.8 * freemem()));
    this.#reusable = limits.heapMiB === undefined;
    this.#worker = (this.#reusable ? idle : null) ?? startProcess(limits.heapMiB ?? MAX_HEAP_MIB);
    if (this.#worker === idle) idle = null;
    this.#worker.ref();
    this.#worker.channel?.ref();
    for (const event of ['message', 'error', 'exit']) this.#worker.removeAllListeners(event);
    this.#worker.on('message', (answer: ParquetAnswer) => {
      if ('rows' in answer) this.#settle?.resolve(answer.rows);
      else this.#settle?.reject(new InvalidFileError(answer.error));
    });
    this.#worker.on('error', (cause) =>
      this.#fail(this.#damaged(`a process that cannot start: ${cause.message}`, cause)),
    );
    this.#worker.on('exit', () => this.#fail(this.#damaged('more memory than a row group may')));
    this.#send({ kind: 'open', file, wanted });
  }

  /** The next rows; none at the end. */
  async next(): Promise<PlacedRow[]> {
    const began = performance.now();
    const watch = setInterval(() => {
      if (performance.now() - began > this.#milliseconds) {
        this.#fail(this.#damaged(`longer than ${Math.round(this.#milliseconds / 1000)} s`));
      } else if (memoryOf(this.#worker.pid) > this.#bytes) {
        this.#fail(this.#damaged('more memory than a row group may'));
      }
    }, WATCH_MS);
    try {
      return await new Promise<PlacedRow[]>((resolve, reject) => {
        if (this.#failure !== null) return reject(this.#failure);
        this.#settle = { resolve, reject };
        this.#send({ kind: 'next' });
      });
    } finally {
      clearInterval(watch);
      this.#settle = null;
    }
  }

  async end(): Promise<void> {
    if (this.#failure !== null || !this.#reusable || idle !== null) {
      this.#failure ??= new Error('ended');
      this.#worker.kill('SIGKILL');
      return;
    }
    this.#send({ kind: 'close' });
    for (const event of ['message', 'error', 'exit']) this.#worker.removeAllListeners(event);
    // Nobody waits for it: what happens to it now is of no consequence, but must not end the process.
    const worker = this.#worker;
    worker.on('error', () => {});
    worker.on('exit', () => {
      if (idle === worker) idle = null;
    });
    worker.unref();
    worker.channel?.unref();
    idle = worker;
  }

  #fail(error: Error): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    this.#settle?.reject(error);
    this.#worker.kill('SIGKILL');
  }

  #send(request: ParquetRequest): void {
    // one that has ended says so by its event
    this.#worker.send(request, () => {});
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
