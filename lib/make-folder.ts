/** Folders that a command writes into. */
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { ConfigError, InvalidArgumentError } from './errors.js';

/**
 * Makes a folder of a command's output and those above it, where they are not there.
 *
 * @param what - is to be written there: 'a run'
 * @throws ConfigError naming the path where it is a file or cannot be made
 */
export function makeFolder(path: string, what: string): void {
  try {
    makeFolders(path);
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

/**
 * The same for a folder that a function was given as `dir`.
 *
 * @throws InvalidArgumentError where it is a file or cannot be made
 */
export function makeGivenFolder(dir: string): void {
  try {
    makeFolders(dir);
    if (!statSync(dir).isDirectory()) throw Object.assign(new Error('it is a file'), { code: 'EEXIST' });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new InvalidArgumentError(`dir: ${dir} cannot be made a folder (${code})`, { cause });
  }
}

/**
 * Makes a folder and those above it, level by level: the error of a recursive mkdir on a read-only disk does not tell
 * why, and where a file system says ENOENT for a folder whose parent is there (/proc does), it tries for ever.
 *
 * @throws the error of Node's mkdir
 */
export function makeFolders(path: string): void {
  try {
    mkdirSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return;
    const parent = dirname(resolve(path));
    if (code !== 'ENOENT' || existsSync(parent)) throw error;
    makeFolders(parent);
    makeFolders(path);
  }
}
