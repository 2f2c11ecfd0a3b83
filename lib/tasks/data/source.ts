/** Which files a task reads: paths and patterns of this machine, files of data sets on the Hugging Face hub. */
import { existsSync, statSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { InvalidArgumentError, InvalidFileError } from '../../errors.js';

export type DataFormat = 'jsonl' | 'json' | 'parquet';

/** A file that is there. */
export interface DataFile {
  path: string;
  /** As the user knows it, for messages and for what its ending says: the path, or `hf://datasets/...`. */
  name: string;
}

/** `hf://datasets/owner/name[@revision]/path/in/the/repository`. */
export interface HubDataFile {
  repo: string;
  /** Branch, tag or commit. */
  revision: string | null;
  path: string;
}

const HUB = 'hf://';

/** Whether a path means a file on the hub. */
export function isHubUri(path: string): boolean {
  return path.startsWith(HUB);
}

/** @throws InvalidArgumentError saying how such an address is written */
export function parseHubUri(uri: string): HubDataFile {
  const match = /^hf:\/\/datasets\/([^/@\s]+\/[^/@\s]+)(?:@([^/\s]+))?\/(.+)$/.exec(uri);
  const [, repo, revision, path] = match ?? [];
  if (repo === undefined || path === undefined || path.split('/').some((part) => ['', '.', '..'].includes(part))) {
    throw new InvalidArgumentError(
      `${uri}: expected hf://datasets/OWNER/NAME/FILE or hf://datasets/OWNER/NAME@REVISION/FILE`,
    );
  }
  return { repo, revision: revision ?? null, path };
}

/** How a file is read: by its ending, else `fallback`. */
export function formatOf(name: string, fallback: DataFormat): DataFormat {
  const plain = name.replace(/\.gz$/, '');
  if (/\.parquet$/i.test(plain)) return 'parquet';
  if (/\.(jsonl|ndjson)$/i.test(plain)) return 'jsonl';
  return /\.json$/i.test(plain) ? 'json' : fallback;
}

/** Fetches files of the hub, or takes them from the cache; returns the folder below which they lie. */
export type HubFetch = (file: HubDataFile, signal?: AbortSignal) => Promise<string>;

/**
 * The files that `paths` name, in their order, those of a pattern in the order of their names. `*` and `?` stand for
 * any text within a name; a file that is called just so is taken first.
 *
 * @throws InvalidFileError for what is not there, InvalidArgumentError for a wrong address
 */
export async function findDataFiles(
  paths: readonly string[],
  fetch: HubFetch,
  signal?: AbortSignal,
): Promise<DataFile[]> {
  const files: DataFile[] = [];
  for (const name of paths) {
    if (isHubUri(name)) files.push(...(await hubFiles(name, fetch, signal)));
    else files.push(...(await localFiles(name)));
  }
  return files;
}

async function hubFiles(uri: string, fetch: HubFetch, signal?: AbortSignal): Promise<DataFile[]> {
  const file = parseHubUri(uri);
  const folder = await fetch(file, signal);
  const prefix = uri.slice(0, uri.length - file.path.length);
  const found = await localFiles(join(folder, file.path)).catch((cause) => {
    // The hub says itself what it does not have: this is a cache that holds only other files of the data set.
    throw new InvalidFileError(`${uri} is not in the cache (${folder}), and the hub was not asked (offline)`, {
      cause,
    });
  });
  return found.map(({ path }) => ({ path, name: `${prefix}${relative(folder, path)}` }));
}

async function localFiles(path: string): Promise<DataFile[]> {
  if (existsSync(path)) {
    if (!statSync(path).isDirectory()) return [{ path, name: path }];
    throw new InvalidFileError(`${path} is a folder; name its files, for example ${join(path, '*.jsonl')}`);
  }
  if (!/[*?]/.test(path)) throw new InvalidFileError(`${path}: cannot be read: no such file`);
  const found = await expand(path);
  if (found.length === 0) throw new InvalidFileError(`${path}: no file matches this pattern`);
  return found.map((file) => ({ path: file, name: file }));
}

/** Existing files below a pattern, sorted. */
async function expand(pattern: string): Promise<string[]> {
  const [first, ...parts] = pattern.split('/').filter((part, i) => part !== '' || i === 0) as [string, ...string[]];
  let folders = [first === '' ? '/' : '.'];
  const steps = first === '' ? parts : [first, ...parts];
  for (const [depth, step] of steps.entries()) {
    const last = depth === steps.length - 1;
    const next = await Promise.all(folders.map((folder) => matching(folder, step, last)));
    folders = next.flat();
  }
  return folders;
}

async function matching(folder: string, step: string, wantFiles: boolean): Promise<string[]> {
  if (!/[*?]/.test(step)) {
    const path = join(folder, step);
    return existsSync(path) && statSync(path).isDirectory() !== wantFiles ? [path] : [];
  }
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  return entries
    .filter(({ name }) => matchesPattern(name, step))
    .map(({ name }) => join(folder, name))
    .filter((path) => existsSync(path) && statSync(path).isDirectory() !== wantFiles)
    .sort();
}

/** `*` any text, `?` one character; a leading dot only where the pattern has it. Linear but for a factor of the stars. */
function matchesPattern(name: string, pattern: string): boolean {
  if (name.startsWith('.') && !pattern.startsWith('.')) return false;
  let [n, p, star, mark] = [0, 0, -1, 0];
  while (n < name.length) {
    if (pattern[p] === '*') [star, mark, p] = [p, n, p + 1];
    else if (p < pattern.length && (pattern[p] === '?' || pattern[p] === name[n])) [n, p] = [n + 1, p + 1];
    else if (star >= 0) [mark, n, p] = [mark + 1, mark + 1, star + 1];
    else return false;
  }
  return /^\**$/.test(pattern.slice(p));
}
