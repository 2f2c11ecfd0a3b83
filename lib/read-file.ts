/** Files that strangers made, read with a bound: no pipe is waited for, no device read for ever, no memory exhausted. */
import { type Stats, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { InvalidFileError } from './errors.js';

/**
 * The bytes of a regular file; null where it does not exist.
 *
 * @param maxBytes a larger one is refused before it is read
 * @throws InvalidFileError naming the path, for a folder, pipe or device, one that is too large or cannot be read
 */
export async function readBytes(path: string, maxBytes: number): Promise<Buffer | null> {
  // opening a pipe waits for somebody to write
  const found = statIfThere(path);
  if (found === null) return null;
  try {
    const { size } = regular(path, found);
    if (size > maxBytes) throw new InvalidFileError(`${path}: has ${size} bytes; at most ${maxBytes} are read`);
    const file = await open(path);
    try {
      const bytes = Buffer.alloc(size);
      let at = 0;
      while (at < size) {
        const { bytesRead } = await file.read(bytes, at, size - at, at);
        if (bytesRead === 0) break;
        at += bytesRead;
      }
      return bytes.subarray(0, at);
    } finally {
      await file.close();
    }
  } catch (cause) {
    if (cause instanceof InvalidFileError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return null;
    throw new InvalidFileError(`${path}: cannot be read: ${message}`, { cause });
  }
}

/**
 * What is at a path; null for nothing. Synchronous on purpose: where a worker thread is terminated while a promise of
 * node:fs is being rejected, Node 20 ends the whole process with an assertion of its own (node_file.cc), and what may
 * be missing is what rejects.
 *
 * @throws InvalidFileError naming the path, where it cannot be told (a folder above that may not be read)
 */
export function statIfThere(path: string): Stats | null {
  try {
    return statSync(path, { throwIfNoEntry: false }) ?? null;
  } catch (cause) {
    throw new InvalidFileError(`${path}: cannot be read: ${(cause as Error).message}`, { cause });
  }
}

/** @throws InvalidFileError for what is no regular file, the errors of `stat` else */
export async function regularFile(path: string): Promise<{ size: number }> {
  return regular(path, statSync(path));
}

function regular(path: string, found: Stats): { size: number } {
  if (found.isFile()) return { size: found.size };
  throw new InvalidFileError(
    `${path}: cannot be read: it is ${found.isDirectory() ? 'a folder' : 'a pipe or device'}, not a regular file`,
  );
}

/**
 * The object that a JSON text holds.
 *
 * @throws InvalidFileError naming the path, for anything else
 */
export function parseJsonObject(text: string, path: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new InvalidFileError(`${path}: not valid JSON: ${(cause as Error).message}`, { cause });
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new InvalidFileError(`${path}: must hold a JSON object`);
}
