/** Files of JSON lines that may be large, broken at the end, or not what they seem. */
import { open } from 'node:fs/promises';
import { InvalidFileError } from '../errors.js';
import { parseJsonObject, regularFile } from '../read-file.js';

const CHUNK = 1 << 20;
/** A longer line is no line of a run: it is refused before it fills the memory. */
const MAX_LINE_BYTES = 16 << 20;

export interface LineOptions {
  /** First byte to read; what stands before the next line break is passed over. Default 0: the whole file. */
  from?: number;
  /** Lines before `from`, for the numbers of those after it. Default 0. */
  linesBefore?: number;
  /** Read so many bytes at most; a line that goes on after them is passed over. Default: all of the file. */
  bytes?: number;
}

/**
 * The JSON objects of a file, one a line. A last line without a line break is one that is being written, and is passed
 * over. Holds one line at a time.
 *
 * @param visit called with each object, the number of its line, from 1, and where the next line begins, in bytes
 * @returns whether the file is there
 * @throws InvalidFileError naming file and line, for a line that is no JSON object; for what is no regular file
 */
export async function eachLine(
  path: string,
  visit: (row: Record<string, unknown>, line: number, end: number) => void,
  { from = 0, linesBefore = 0, bytes = Number.POSITIVE_INFINITY }: LineOptions = {},
): Promise<boolean> {
  let size: number;
  try {
    ({ size } = await regularFile(path));
  } catch (cause) {
    if (cause instanceof InvalidFileError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return false;
    throw new InvalidFileError(`${path}: cannot be read: ${message}`, { cause });
  }
  const file = await open(path);
  try {
    const end = Math.min(size, from + bytes);
    const chunk = Buffer.alloc(Math.min(CHUNK, Math.max(1, end - from)));
    let rest: Buffer[] = [];
    let held = 0;
    // The byte before `from` decides whether it is the beginning of a line.
    let skipping = from > 0;
    let line = skipping ? linesBefore - 1 : 0;
    for (let at = skipping ? from - 1 : from; at < end; ) {
      const { bytesRead } = await file.read(chunk, 0, Math.min(chunk.length, end - at), at);
      if (bytesRead === 0) break;
      at += bytesRead;
      let begin = 0;
      for (;;) {
        const stop = chunk.subarray(0, bytesRead).indexOf(10, begin);
        if (stop < 0) break;
        rest.push(chunk.subarray(begin, stop));
        begin = stop + 1;
        line += 1;
        const text = Buffer.concat(rest).toString('utf8');
        rest = [];
        held = 0;
        if (!skipping && text.trim() !== '') {
          visit(parseJsonObject(text, `${path}:${line}`), line, at - bytesRead + begin);
        }
        skipping = false;
      }
      // The chunk is read into again.
      rest.push(Buffer.from(chunk.subarray(begin, bytesRead)));
      held += bytesRead - begin;
      if (held > MAX_LINE_BYTES) throw new InvalidFileError(`${path}:${line + 1}: longer than ${MAX_LINE_BYTES} bytes`);
    }
  } finally {
    await file.close();
  }
  return true;
}
