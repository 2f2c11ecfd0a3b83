/**
 * The cache on disk, in Hugging Face's own layout, which Python programs read and write too:
 *
 *     models--org--name/refs/main                     the commit a branch or tag stood at
 *     models--org--name/blobs/<hash>                  contents: SHA-256 of large files, git's hash of small ones
 *     models--org--name/snapshots/<commit>/<path>     links to blobs
 *     .locks/models--org--name/eepo.lock              one of our processes downloads at a time
 *
 * Ours alone is `blobs/<hash>.eepo-partial`, a download that is not complete yet. What has a final name is complete.
 */
import { copyFile, mkdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import lockfile from 'proper-lockfile';
import { HubError, InvalidFileError } from '../errors.js';
import { type Repo, throwIfAborted } from './client.js';
import type { HubSettings } from './settings.js';

/** Bytes and hash of a file in a repository. */
export interface RepoFile {
  path: string;
  size: number;
  /** Hexadecimal: SHA-256 of the content (64 digits), or git's SHA-1 of the blob (40). */
  hash: string;
}

const commitPattern = /^[0-9a-f]{40}$/;

export const isCommit = (revision: string): boolean => commitPattern.test(revision);

export class RepoCache {
  readonly folder: string;
  readonly #lock: string;

  constructor(
    repo: Repo,
    readonly settings: HubSettings,
  ) {
    const name = [`${repo.type}s`, ...repo.name.split('/')].join('--');
    this.folder = join(settings.cacheDir, name);
    this.#lock = join(settings.cacheDir, '.locks', name, 'eepo.lock');
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit);
  }

  blob(hash: string): string {
    return join(this.folder, 'blobs', hash);
  }

  partial(hash: string): string {
    return `${this.blob(hash)}.eepo-partial`;
  }

  /** The commit that `revision` stood at when it was last downloaded; null if it never was. */
  async commitOf(revision: string): Promise<string | null> {
    if (isCommit(revision)) return revision;
    const text = await readFile(join(this.folder, 'refs', revision), 'utf8').catch(() => '');
    return isCommit(text.trim()) ? text.trim() : null;
  }

  /** Remembers which commit a branch or tag stands at. */
  async remember(revision: string, commit: string): Promise<void> {
    if (revision === commit || (await this.commitOf(revision)) === commit) return;
    const path = join(this.folder, 'refs', revision);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(`${path}.${process.pid}.tmp`, commit);
    await rename(`${path}.${process.pid}.tmp`, path);
  }

  /** Whether the content of a file is here, whole. */
  async hasBlob({ hash, size }: RepoFile): Promise<boolean> {
    const found = await stat(this.blob(hash)).catch(() => null);
    return found?.isFile() === true && found.size === size;
  }

  /** Whether a file of a snapshot is here, whole. */
  async hasFile(commit: string, file: RepoFile): Promise<boolean> {
    const found = await stat(join(this.snapshot(commit), file.path)).catch(() => null);
    return found?.isFile() === true && found.size === file.size;
  }

  /** Puts a blob under its name into a snapshot: a link, or a copy where the disk has no links. */
  async link(commit: string, file: RepoFile): Promise<void> {
    const target = join(this.snapshot(commit), file.path);
    const temporary = `${target}.${process.pid}.tmp`;
    await mkdir(dirname(target), { recursive: true });
    await rm(temporary, { force: true });
    try {
      await symlink(relative(dirname(target), this.blob(file.hash)), temporary);
    } catch (error) {
      if (!['EPERM', 'ENOTSUP', 'ENOSYS', 'EOPNOTSUPP'].includes((error as NodeJS.ErrnoException).code ?? ''))
        throw error;
      await copyFile(this.blob(file.hash), temporary);
    }
    await rename(temporary, target);
  }

  /** Runs `work` while no other process of ours downloads into this repository. */
  async locked<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    await mkdir(join(this.folder, 'blobs'), { recursive: true });
    await mkdir(dirname(this.#lock), { recursive: true });
    const { signal } = this.settings;
    const lost = new AbortController();
    const release = await this.#acquire((error) => {
      lost.abort(new HubError(`the lock ${this.#lock} was lost (${error.message}); run the command again`));
    });
    try {
      return await work(signal === undefined ? lost.signal : AbortSignal.any([signal, lost.signal]));
    } finally {
      // a lost lock is not ours to release
      if (!lost.signal.aborted) await release().catch(() => {});
    }
  }

  async #acquire(onCompromised: (error: Error) => void): Promise<() => Promise<void>> {
    const { signal, onProgress } = this.settings;
    for (let attempt = 0; ; attempt++) {
      throwIfAborted(signal);
      try {
        return await lockfile.lock(this.folder, { lockfilePath: this.#lock, stale: 15_000, onCompromised });
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ELOCKED') throw error;
      }
      if (attempt === 0)
        onProgress({ phase: 'note', text: 'another process downloads this repository; waiting for it' });
      await sleep(Math.min(100 * 2 ** attempt, 1000));
    }
  }
}

/** Longest name of a file on the usual disks, in bytes; and a path that leaves room for the cache's own folders. */
const maxNameBytes = 240;
const maxPathBytes = 1_000;
/** Separators of other systems, drives, and characters that would write on the terminal that shows the name. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
const badCharacters = /[\\\0-\x1f\x7f-\x9f]|^[a-zA-Z]:/;

/**
 * A path that a repository lists, if it stays inside a folder on every system.
 *
 * @throws InvalidFileError for one that leaves it, or that no disk can hold.
 */
export function checkRepoPath(path: unknown, repo: string): string {
  const parts = typeof path === 'string' ? path.split('/') : [''];
  const bad = (part: string) => part === '' || part === '.' || part === '..' || badCharacters.test(part);
  if (parts.some(bad)) {
    throw new InvalidFileError(
      `${repo} lists a file named ${shownName(path)}, which would leave the cache; nothing was downloaded`,
    );
  }
  const bytes = (text: string) => Buffer.byteLength(text);
  if (bytes(path as string) > maxPathBytes || parts.some((part) => bytes(part) > maxNameBytes)) {
    throw new InvalidFileError(
      `${repo} lists a file named ${shownName(path)}, a name too long for a disk; nothing was downloaded`,
    );
  }
  return path as string;
}

/** JSON escapes the control characters below 0x20 only. */
function shownName(path: unknown): string {
  const text = (JSON.stringify(path) ?? String(path)).replace(/[\x7f-\x9f]/g, '?');
  return text.length <= 200 ? text : `${text.slice(0, 200)}...`;
}

/** What a full or closed disk means; other errors as they are. */
export function explainDisk(error: unknown, folder: string): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG') {
    return new HubError(
      `the disk of ${folder} is full (${code}). What is there is kept: free some space and run it again, or set ` +
        'HF_HOME to a folder on another disk',
      { cause: error },
    );
  }
  if (code === 'EACCES' || code === 'EROFS' || code === 'EPERM') {
    return new HubError(`${folder} cannot be written (${message}); set HF_HOME to a folder that can`, { cause: error });
  }
  // any other complaint of the system about a file
  if (typeof code === 'string' && (error as NodeJS.ErrnoException).path?.startsWith(folder)) {
    return new HubError(`${folder}: ${message}`, { cause: error });
  }
  return error;
}
