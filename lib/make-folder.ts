/** Folders that a command writes into. */
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { ConfigError } from './errors.js';

/**
 * Makes a folder and those above it, where they are not there. Level by level: the error of a recursive mkdir on a
 * read-only disk does not tell why, and where a file system says ENOENT for a folder whose parent is there (/proc does),
 * it tries for ever.
 *
 * @param what - is to be written there: 'a run'
 * @throws ConfigError naming the path where it is a file or cannot be made
 */
export function makeFolder(path: string, what: string): void {
  try {
    make(path);
  } catch (cause) {
    throw new ConfigError(
      `${path === '' ? '""' : path}: ${what} cannot be written there (${(cause as Error).message}); give another --out`,
      { cause },
    );
  }
  if (!statSync(path).isDirectory()) {
    throw new ConfigError(`${path} is a file; ${what} is written to a folder, give another --out`);
  }
}

function make(path: string): void {
  try {
    mkdirSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return;
    const parent = dirname(resolve(path));
    if (code !== 'ENOENT' || existsSync(parent)) throw error;
    make(parent);
    make(path);
  }
}
