/**
 * Rows of Parquet files, one row group at a time. The reader believes the counts that a file gives: whoever does not trust
 * the file runs this in a process of its own (read-parquet.ts).
 */
import { type FileHandle, open } from 'node:fs/promises';
import {
  type AsyncBuffer,
  type Compressors,
  type FileMetaData,
  parquetMetadataAsync,
  parquetRead,
  parquetSchema,
  type SchemaTree,
} from 'hyparquet';
import { compressors as libraryCompressors } from 'hyparquet-compressors';
import { InvalidFileError } from '../../errors.js';
import { regularFile } from '../../read-file.js';
import type { PlacedRow, Row } from './rows.js';
import type { DataFile } from './source.js';

/** Of all pages of a row group together: what is more does not fit into memory beside its values. */
const MAX_GROUP_BYTES = 2 ** 31;

/** The library's, which make room for as much as a page says it holds: within a bound for all pages of a group. */
function boundedCompressors(): Compressors {
  let total = 0;
  return Object.fromEntries(
    Object.entries(libraryCompressors).map(([codec, unpack]) => [
      codec,
      (input: Uint8Array, length: number): Uint8Array => {
        total += length;
        if (!(length >= 0 && total <= MAX_GROUP_BYTES)) {
          throw new Error(`a row group of more than ${MAX_GROUP_BYTES / 2 ** 30} GiB; write smaller row groups`);
        }
        return unpack(input, length);
      },
    ]),
  );
}

/** More rows in one group than any writer makes: such a count is damage. */
const MAX_GROUP_ROWS = 2 ** 24;

/**
 * The rows of a Parquet file in plain values: structs are objects, lists are arrays, 64-bit integers are numbers where
 * these are exact and decimal strings beyond, times are ISO 8601 text. Memory holds one row group.
 *
 * @param wanted columns to read; default all
 * @throws InvalidFileError naming the file, and the row group that cannot be read
 */
export async function* parquetRows(file: DataFile, wanted?: readonly string[]): AsyncGenerator<PlacedRow> {
  const handle = await openFile(file);
  try {
    const bytes = await bytesOf(handle);
    const metadata = await guarded(file, 'its footer', bytes, (buffer) =>
      parquetMetadataAsync(buffer, { geoparquet: false }).then(checked),
    );
    const columns = wanted === undefined ? undefined : presentColumns(metadata, wanted);
    let begin = 0;
    for (const [index, group] of metadata.row_groups.entries()) {
      const count = Number(group.num_rows);
      const place = `row group ${index + 1} (rows ${begin + 1} to ${begin + count})`;
      if (!(Number.isSafeInteger(count) && count >= 0 && count <= MAX_GROUP_ROWS)) {
        throw new InvalidFileError(
          `${file.name}: row group ${index + 1} says it has ${count} rows; the file is damaged`,
        );
      }
      const table = await guarded(file, place, bytes, (buffer) =>
        readGroup(buffer, metadata, begin, begin + count, columns),
      );
      for (let i = 0; i < count; i += 1) {
        const number = begin + i + 1;
        const row: Row = {};
        for (const [name, values] of table) define(row, name, plain(values[i]));
        yield { row, number, where: `${file.name}: row ${number}` };
      }
      begin += count;
    }
  } finally {
    await handle.close();
  }
}

async function openFile({ path, name }: DataFile): Promise<FileHandle> {
  try {
    // opening a pipe waits for somebody to write
    await regularFile(path);
    return await open(path);
  } catch (cause) {
    if (cause instanceof InvalidFileError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new InvalidFileError(`${name}: cannot be read: ${code === 'ENOENT' ? 'no such file' : message}`, { cause });
  }
}

/** Byte ranges of an open file, and the first that could not be read. */
interface FileBytes {
  buffer: AsyncBuffer;
  /** @throws what went wrong with a range so far */
  check(): void;
}

/**
 * What hyparquet reads from. It asks for ranges ahead of their use, and where it fails in between nobody waits for them
 * any more: one that cannot be read is therefore no rejection, which would end the process, but empty and remembered.
 */
async function bytesOf(handle: FileHandle): Promise<FileBytes> {
  const { size } = await handle.stat();
  let failure: Error | null = null;
  const slice = async (start: number, end = size): Promise<ArrayBuffer> => {
    try {
      return await readRange(handle, start, end, size);
    } catch (error) {
      failure ??= error as Error;
      return new ArrayBuffer(0);
    }
  };
  const check = (): void => {
    if (failure !== null) throw failure;
  };
  return { buffer: { byteLength: size, slice }, check };
}

async function readRange(handle: FileHandle, start: number, end: number, size: number): Promise<ArrayBuffer> {
  const length = end - start;
  if (!(start >= 0 && length >= 0 && end <= size)) {
    throw new Error(`bytes ${start} to ${end} are outside the file of ${size}`);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  while (at < length) {
    const { bytesRead } = await handle.read(bytes, at, length - at, start + at);
    if (bytesRead === 0) throw new Error('the file ended early');
    at += bytesRead;
  }
  return bytes.buffer;
}

/** A damaged file makes the reader fail in many ways; each is an error that names file and place. */
async function guarded<T>(
  { name }: DataFile,
  place: string,
  { buffer, check }: FileBytes,
  read: (buffer: AsyncBuffer) => Promise<T>,
): Promise<T> {
  try {
    // A range that could not be read is the cause of whatever followed from it.
    const result = await read(buffer).catch((error) => {
      check();
      throw error;
    });
    check();
    return result;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new InvalidFileError(`${name}: ${place} cannot be read as Parquet: ${reason}`, { cause });
  }
}

/**
 * The columns of every row group must be those of the schema, in its order, as the format has it. hyparquet starts
 * reading all of a group's columns and waits for those it knows from the schema: one that it does not know would fail
 * without anybody waiting, which ends the process.
 */
function checked(metadata: FileMetaData): FileMetaData {
  const leaves = leafPaths(parquetSchema(metadata));
  if (new Set(leaves).size !== leaves.length) throw new Error('two columns have the same name');
  for (const [index, { columns }] of metadata.row_groups.entries()) {
    const own = columns.map(({ meta_data }) => JSON.stringify(meta_data?.path_in_schema));
    if (own.length === leaves.length && own.every((path, i) => path === leaves[i])) continue;
    throw new Error(`the columns of row group ${index + 1} are not those of the schema`);
  }
  return metadata;
}

function leafPaths({ children, path }: SchemaTree): string[] {
  return children.length === 0 ? [JSON.stringify(path)] : children.flatMap(leafPaths);
}

function presentColumns(metadata: FileMetaData, wanted: readonly string[]): string[] {
  const present = new Set(
    metadata.row_groups.flatMap(({ columns }) => columns.map(({ meta_data }) => meta_data?.path_in_schema[0])),
  );
  return [...new Set(wanted)].filter((name) => present.has(name));
}

/** Columns of the rows begin .. end - 1, which are one row group. */
async function readGroup(
  file: AsyncBuffer,
  metadata: FileMetaData,
  begin: number,
  end: number,
  columns: string[] | undefined,
): Promise<Map<string, ArrayLike<unknown>>> {
  const parts = new Map<string, { data: ArrayLike<unknown>; at: number }[]>();
  await parquetRead({
    file,
    metadata,
    compressors: boundedCompressors(),
    rowStart: begin,
    rowEnd: end,
    geoparquet: false,
    ...(columns === undefined ? {} : { columns }),
    onChunk: ({ columnName, columnData, rowStart }) => {
      const list = parts.get(columnName) ?? [];
      parts.set(columnName, list);
      list.push({ data: columnData, at: rowStart - begin });
    },
  });
  const table = new Map<string, ArrayLike<unknown>>();
  for (const [name, list] of parts) {
    const total = list.reduce((sum, { data }) => sum + data.length, 0);
    if (total !== end - begin) throw new Error(`column "${name}" has ${total} values for ${end - begin} rows`);
    table.set(name, list.length === 1 ? (list[0]?.data as ArrayLike<unknown>) : joined(list, total));
  }
  return table;
}

function joined(parts: { data: ArrayLike<unknown>; at: number }[], length: number): unknown[] {
  const values = new Array<unknown>(length);
  for (const { data, at } of parts) for (let i = 0; i < data.length; i += 1) values[at + i] = data[i];
  return values;
}

/** What JSON can hold: null for undefined, numbers or text for 64-bit integers, ISO text for times, base64 for bytes. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') {
    return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER)
      ? Number(value)
      : value.toString();
  }
  if (value === null || value === undefined) return null;
  if (typeof value !== 'object') return value;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
  if (Array.isArray(value)) return value.map(plain);
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<unknown>, plain);
  const object: Row = {};
  for (const [key, entry] of Object.entries(value)) define(object, key, plain(entry));
  return object;
}

/** A column may have any name, `__proto__` too. */
function define(object: Row, key: string, value: unknown): void {
  if (key === '__proto__') Object.defineProperty(object, key, { value, enumerable: true, configurable: true });
  else object[key] = value;
}
