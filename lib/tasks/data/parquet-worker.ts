/**
 * The process that decodes Parquet: one file at a time, batches of rows, each when it is asked for. A thread of it looks
 * whether the process that wants the rows is still there: in the middle of a row group no message is read.
 */
import { isMainThread, Worker } from 'node:worker_threads';
import { parquetRows } from './parquet-rows.js';
import type { PlacedRow } from './rows.js';
import type { DataFile } from './source.js';

/** Only `next` is answered. */
export type ParquetRequest =
  | { kind: 'open'; file: DataFile; wanted: readonly string[] | undefined }
  | { kind: 'next' }
  | { kind: 'close' };

/** An empty batch is the end. */
export type ParquetAnswer = { rows: PlacedRow[] } | { error: string };

/** Rows of one message: enough that the messages cost little, few enough that the next is soon there. */
const BATCH = 512;

let rows: AsyncGenerator<PlacedRow> | null = null;

async function nextBatch(): Promise<ParquetAnswer> {
  const batch: PlacedRow[] = [];
  try {
    while (batch.length < BATCH) {
      const next = await rows?.next();
      if (next === undefined || next.done) break;
      batch.push(next.value);
    }
    return { rows: batch };
  } catch (error) {
    return { error: (error as Error).message };
  }
}

const WATCH_MS = 500;

/** Ends the process when its parent is gone, whatever it is doing. */
function watchParent(): void {
  const parent = Number(process.argv[2]);
  setInterval(() => {
    if (process.ppid !== parent) process.kill(process.pid, 'SIGKILL');
  }, WATCH_MS);
}

function serve(): void {
  new Worker(new URL(import.meta.url), { argv: process.argv.slice(2) }).unref();
  process.on('disconnect', () => process.exit());
  process.on('message', async (request: ParquetRequest) => {
    if (request.kind === 'open') rows = parquetRows(request.file, request.wanted);
    else if (request.kind === 'next') process.send?.(await nextBatch());
    else await rows?.return(undefined);
  });
}

if (isMainThread) serve();
else watchParent();
