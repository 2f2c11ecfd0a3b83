/** JSON in text files: one object a line, or a whole file of one object or a list. `.gz` is unpacked on the way. */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { getHeapStatistics } from 'node:v8';
import { createGunzip } from 'node:zlib';
import { InvalidFileError } from '../../errors.js';
import { isRow, type PlacedRow } from './rows.js';
import type { DataFile } from './source.js';

/** JSON takes up to 22 times its size in memory (`[{},{},...]`), and without memory the process ends. */
function heapShare(): number {
  return Math.floor(getHeapStatistics().heap_size_limit / 28 / 2 ** 20) * 2 ** 20;
}

/** No line is longer: what is, is not a file of prompts and answers. */
const MAX_LINE_BYTES = Math.min(64 * 2 ** 20, heapShare());
/** Of a whole JSON document, which is parsed at once. */
const MAX_DOCUMENT_BYTES = Math.min(256 * 2 ** 20, heapShare());
const NEWLINE = 0x0a;

/**
 * The rows of a JSONL file as they are read: memory holds one line at a time. Blank lines are passed over.
 *
 * @throws InvalidFileError naming file and line
 */
export async function* readJsonLines(file: DataFile): AsyncGenerator<PlacedRow> {
  for await (const { text, number } of lines(file)) {
    if (text.trim() === '') continue;
    const where = `${file.name}:${number}`;
    const row = parse(text, where);
    if (!isRow(row)) {
      throw new InvalidFileError(`${where}: every line must be a JSON object with a prompt and an answer`);
    }
    yield { row, number, where };
  }
}

/**
 * The rows of a `.json` file: a list of objects, one object, or, as many data sets name it, one object a line.
 *
 * @throws InvalidFileError naming file and line, or file and row
 */
export async function* readJsonDocument(file: DataFile): AsyncGenerator<PlacedRow> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of bytes(file)) {
    chunks.push(chunk);
    size += chunk.length;
    if (size <= MAX_DOCUMENT_BYTES) continue;
    throw new InvalidFileError(
      `${file.name}: larger than ${MAX_DOCUMENT_BYTES / 2 ** 20} MiB; write one object a line and name it .jsonl`,
    );
  }
  const text = decode(Buffer.concat(chunks), file.name).replace(/^\uFEFF/, '');
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    // More than one document: one a line, and if not that, an error that names the line.
    yield* readJsonLines(file);
    return;
  }
  const rows = Array.isArray(document) ? document : [document];
  for (const [index, row] of rows.entries()) {
    const where = rows.length > 1 ? `${file.name}: row ${index + 1}` : file.name;
    if (!isRow(row)) throw new InvalidFileError(`${where}: expected a JSON object with a prompt and an answer`);
    yield { row, number: index + 1, where };
  }
}

function parse(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new InvalidFileError(`${where}: not valid JSON: ${(cause as Error).message}`, { cause });
  }
}

/** Lines without their end. Only \n ends one: JSON strings may hold U+2028 unescaped. */
async function* lines(file: DataFile): AsyncGenerator<{ text: string; number: number }> {
  let number = 0;
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  const take = (): { text: string; number: number } => {
    number += 1;
    const where = `${file.name}:${number}`;
    const text = decode(pending.length === 1 ? (pending[0] as Buffer) : Buffer.concat(pending), where);
    pending = [];
    pendingBytes = 0;
    return { text: number === 1 ? text.replace(/^\uFEFF/, '') : text, number };
  };
  const hold = (part: Buffer): void => {
    pending.push(part);
    pendingBytes += part.length;
    if (pendingBytes <= MAX_LINE_BYTES) return;
    throw new InvalidFileError(
      `${file.name}:${number + 1}: the line is longer than ${MAX_LINE_BYTES / 2 ** 20} MiB; expected one JSON object a line`,
    );
  };
  for await (const chunk of bytes(file)) {
    let begin = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, begin)) {
      hold(chunk.subarray(begin, end));
      yield take();
      begin = end + 1;
    }
    if (begin < chunk.length) hold(chunk.subarray(begin));
  }
  if (pendingBytes > 0) yield take();
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function decode(content: Buffer, where: string): string {
  try {
    return utf8.decode(content);
  } catch (cause) {
    throw new InvalidFileError(`${where}: not valid UTF-8`, { cause });
  }
}

/** The file's content, unpacked, in pieces. */
async function* bytes({ path, name }: DataFile): AsyncGenerator<Buffer> {
  // opening a pipe waits for somebody to write
  const found = await stat(path).catch(() => null);
  if (found !== null && !found.isFile()) {
    const what = found.isDirectory() ? 'a folder' : 'a pipe or device';
    throw new InvalidFileError(`${name}: cannot be read: not a file but ${what}`);
  }
  const raw = createReadStream(path, { highWaterMark: 2 ** 20 });
  const unpacked = name.endsWith('.gz') ? createGunzip({ chunkSize: 2 ** 20 }) : null;
  // pipe() passes no errors on: one of the file ends the unpacking.
  if (unpacked !== null) raw.on('error', (error) => unpacked.destroy(error)).pipe(unpacked);
  try {
    for await (const chunk of unpacked ?? raw) yield chunk as Buffer;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const what = code === 'ENOENT' ? 'no such file' : code === 'ENOTDIR' || code === 'EISDIR' ? 'not a file' : message;
    throw new InvalidFileError(`${name}: cannot be read: ${what}`, { cause });
  } finally {
    raw.destroy();
    unpacked?.destroy();
  }
}
