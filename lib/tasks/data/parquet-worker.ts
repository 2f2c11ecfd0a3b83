/** The process that decodes Parquet: one file at a time, batches of rows, each when it is asked for. */
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

process.on('disconnect', () => process.exit());
process.on('message', async (request: ParquetRequest) => {
  if (request.kind === 'open') rows = parquetRows(request.file, request.wanted);
  else if (request.kind === 'next') process.send?.(await nextBatch());
  else await rows?.return(undefined);
});
