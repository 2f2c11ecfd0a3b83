/** Files that survive a power cut: written beside their place, synced, renamed, and the folder synced after them. */
import { createHash } from 'node:crypto';
import {
  closeSync,
  createReadStream,
  existsSync,
  fsyncSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';

/** Syncs a file, or a folder's list of names. */
export function syncPath(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Syncs every file and folder below `path`, and `path` itself. */
export function syncTree(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const child = join(path, entry.name);
    if (entry.isDirectory()) syncTree(child);
    else if (entry.isFile()) syncPath(child);
  }
  syncPath(path);
}

/** A name beside `path` that this process writes first. Leftovers are told by the process in it. */
export const temporaryBeside = (path: string): string => join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);

/** Writes a whole file, or leaves what was there. */
export function writeWhole(path: string, content: string | Uint8Array): void {
  const temporary = temporaryBeside(path);
  try {
    writeFileSync(temporary, content, { flush: true });
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
  syncPath(dirname(path));
}

/** Moves a complete, synced folder to its place; what was there goes once the new one is in place. */
export function moveFolder(from: string, to: string): void {
  const old = join(dirname(to), `.${basename(to)}.${process.pid}.old.tmp`);
  rmSync(old, { recursive: true, force: true });
  try {
    renameSync(to, old);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  renameSync(from, to);
  syncPath(dirname(to));
  rmSync(old, { recursive: true, force: true });
}

/** What is known of a file: its size and SHA-256. */
export interface FileDigest {
  bytes: number;
  sha256: string;
}

/** Reads a file once. */
export async function digest(path: string): Promise<FileDigest> {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
    hash.update(chunk as Buffer);
    bytes += (chunk as Buffer).length;
  }
  return { bytes, sha256: hash.digest('hex') };
}

/** Paths of all files below a folder, relative to it, in a fixed order. */
export function filesBelow(folder: string, root = folder): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      return entry.isDirectory() ? filesBelow(path, root) : [relative(root, path)];
    });
}

/**
 * Removes what processes that are gone left under their temporary names in `folder`. A folder that was moved aside for a
 * new one that never came ({@link moveFolder}) goes back to its place.
 */
export function sweepTemporaries(folder: string, isRunning: (pid: number) => boolean): void {
  for (const name of readdirSync(folder)) {
    const [, place, id, old] = /^\.(.+?)\.(\d+)(\.old)?\.tmp$/.exec(name) ?? [];
    const pid = Number(id);
    if (place === undefined || (pid !== process.pid && isRunning(pid))) continue;
    if (old !== undefined && !existsSync(join(folder, place))) {
      renameSync(join(folder, name), join(folder, place));
      syncPath(folder);
    } else {
      rmSync(join(folder, name), { recursive: true, force: true });
    }
  }
}
