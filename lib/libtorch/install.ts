import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import lockfile from 'proper-lockfile';
import { EepoError, InvalidArgumentError, InvalidFileError, LoadError, UnsupportedError } from '../errors.js';
import { checksums, verify } from './checksums.js';
import { download } from './download.js';
import { copyFolder, extract } from './extract.js';
import { cacheDirectory, cachedLibtorch, inspectLibtorch, LIBTORCH_VERSION, type Libtorch } from './find.js';
import { pipDownload } from './pip.js';
import { type Progress, silent } from './progress.js';

export interface InstallOptions {
  /** Default {@link LIBTORCH_VERSION}. */
  version?: string;
  /** A local archive, wheel or folder instead of a download. */
  from?: string;
  /** Replaces what is already there. Default false. */
  force?: boolean;
  progress?: Progress;
  env?: NodeJS.ProcessEnv;
  /** Known sums by file name; for tests. */
  checksums?: Readonly<Record<string, string>>;
}

export interface Installed extends Libtorch {
  /** True if it was there before this call. */
  already: boolean;
}

/** What is written beside an installed libtorch. */
export interface Manifest {
  version: string;
  /** Where it came from: a URL, `pip`, or a local path. */
  origin: string;
  file: string;
  /** Null for a folder. */
  sha256: string | null;
  /** Whether the sum was compared with a known one. */
  verified: boolean;
  installed: string;
}

/** Unpacked, the CPU build needs 0.6 GB; beside the archive that is about this much. */
const neededBytes = 1.2e9;

/**
 * Puts libtorch into the cache: from `from`, else from PyTorch's archive, else from the wheel through pip. Of two
 * installs at once the second waits and finds it done. The folder appears complete or not at all.
 *
 * @throws LoadError that tells why each source failed; InvalidFileError for a damaged, hostile or wrong file.
 */
export async function installLibtorch(options: InstallOptions = {}): Promise<Installed> {
  const { version = LIBTORCH_VERSION, force = false, progress = silent, env = process.env } = options;
  if (!/^\d+\.\d+\.\d+$/.test(version)) {
    throw new InvalidArgumentError(`--version must look like ${LIBTORCH_VERSION}, got ${version}`);
  }
  const target = cachedLibtorch(version, env);
  const parent = dirname(target);
  try {
    await mkdir(parent, { recursive: true });
    const release = await acquire(parent, progress);
    try {
      const present = presentAt(target);
      if (present && !force) return { ...present, already: true };
      await removeLeftovers(parent);
      await requireSpace(parent);
      const temporary = await mkdtemp(join(parent, '.tmp-'));
      try {
        const manifest = await fill(temporary, version, options, env, progress);
        const staged = join(temporary, 'libtorch');
        await writeFile(join(staged, 'eepo-manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
        await release.check();
        if (existsSync(target)) await rename(target, join(temporary, 'old'));
        await rename(staged, target);
      } finally {
        await rm(temporary, { recursive: true, force: true });
      }
      return { ...inspectLibtorch(target, 'cache'), already: false };
    } finally {
      await release.done();
    }
  } catch (error) {
    throw explain(error, parent);
  }
}

function presentAt(target: string): Libtorch | undefined {
  try {
    return inspectLibtorch(target, 'cache');
  } catch {
    return undefined;
  }
}

/** Fills `temporary`/libtorch from the first source that serves. */
async function fill(
  temporary: string,
  version: string,
  options: InstallOptions,
  env: NodeJS.ProcessEnv,
  progress: Progress,
): Promise<Manifest> {
  const known = options.checksums ?? checksums;
  if (options.from !== undefined) return fromLocal(temporary, options.from, version, known, progress);

  const failures: string[] = [];
  const sources: [string, () => Promise<Manifest>][] = [
    ["PyTorch's archive", () => fromArchive(temporary, version, known, env, progress)],
    ['the wheel through pip', () => fromPip(temporary, version, known, env, progress)],
  ];
  for (const [name, source] of sources) {
    try {
      return await source();
    } catch (error) {
      // A wrong checksum is an alarm and a full disk fills for every source: neither is a reason to go on.
      if (error instanceof InvalidFileError || !(error instanceof EepoError)) throw error;
      failures.push(`${name}: ${error.message}`);
      progress.note(`${name}: ${error.message}`);
      await rm(join(temporary, 'libtorch'), { recursive: true, force: true });
    }
  }
  throw new LoadError(
    [
      `libtorch ${version} could not be installed:`,
      ...failures.map((failure) => `  - ${failure}`),
      'Possible solutions:',
      '  - behind a proxy: set HTTPS_PROXY (and NO_PROXY), then run the command again',
      '  - fetch the archive or the CPU wheel elsewhere: npx eepo libtorch install --from FILE_OR_FOLDER',
      '  - use a Python that has torch: set EEPO_PYTHON, or LIBTORCH to its torch folder',
    ].join('\n'),
  );
}

async function fromArchive(
  temporary: string,
  version: string,
  known: Readonly<Record<string, string>>,
  env: NodeJS.ProcessEnv,
  progress: Progress,
): Promise<Manifest> {
  if (process.arch !== 'x64') throw new UnsupportedError(`there is no archive for ${process.platform}-${process.arch}`);
  const name = `libtorch-shared-with-deps-${version}+cpu.zip`;
  const base = (env.EEPO_LIBTORCH_MIRROR || 'https://download.pytorch.org/libtorch/cpu').replace(/\/$/, '');
  const url = `${base}/${encodeURIComponent(name)}`;
  const file = join(cacheDirectory(env), 'downloads', name);
  progress.note(`download ${url}`);
  await download(url, file, { progress, label: 'libtorch', env });
  const manifest = await unpack(temporary, file, url, version, known, progress).finally(() =>
    rm(file, { force: true }),
  );
  return manifest;
}

async function fromPip(
  temporary: string,
  version: string,
  known: Readonly<Record<string, string>>,
  env: NodeJS.ProcessEnv,
  progress: Progress,
): Promise<Manifest> {
  const folder = join(temporary, 'wheel');
  await mkdir(folder, { recursive: true });
  const wheel = await pipDownload(version, folder, progress, env);
  return unpack(temporary, wheel, 'pip', version, known, progress);
}

async function fromLocal(
  temporary: string,
  from: string,
  version: string,
  known: Readonly<Record<string, string>>,
  progress: Progress,
): Promise<Manifest> {
  const path = resolve(from);
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) throw new InvalidFileError(`--from: ${path} does not exist`);
  if (!found.isDirectory()) return unpack(temporary, path, path, version, known, progress);
  const source = inspectLibtorch(path, 'option');
  requireVersion(path, source.version, version);
  progress.note(`copy ${path}`);
  await copyFolder(path, join(temporary, 'libtorch'));
  return {
    version,
    origin: path,
    file: basename(path),
    sha256: null,
    verified: false,
    installed: new Date().toISOString(),
  };
}

async function unpack(
  temporary: string,
  file: string,
  origin: string,
  version: string,
  known: Readonly<Record<string, string>>,
  progress: Progress,
): Promise<Manifest> {
  const name = basename(file);
  const { sha256, verified } = await verify(file, name, known);
  progress.note(verified ? `SHA-256 of ${name} is right` : `SHA-256 of ${name} is not known; recorded: ${sha256}`);
  const staged = join(temporary, 'libtorch');
  await extract(file, staged, progress);
  requireVersion(name, inspectLibtorch(staged, 'cache').version, version);
  return { version, origin, file: name, sha256, verified, installed: new Date().toISOString() };
}

function requireVersion(what: string, found: string, wanted: string): void {
  if (found !== wanted) {
    throw new InvalidFileError(`${what} holds libtorch ${found}, not ${wanted}; to install it: --version ${found}`);
  }
}

/** Takes the lock of the cache, waiting for another install to end. */
async function acquire(parent: string, progress: Progress) {
  let compromised: Error | undefined;
  const attempt = (retries: number) =>
    lockfile.lock(parent, {
      lockfilePath: join(parent, '.install.lock'),
      stale: 30_000,
      retries: { retries, factor: 1, minTimeout: 500, maxTimeout: 500 },
      onCompromised: (error) => {
        compromised = error;
      },
    });
  const unlock = await attempt(0).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ELOCKED') throw error;
    progress.note('another install is running; waiting for it');
    return attempt(7200);
  });
  return {
    async check() {
      if (compromised) throw new LoadError(`the lock of ${parent} was lost: ${compromised.message}; run it again`);
    },
    async done() {
      if (!compromised) await unlock();
    },
  };
}

/** Temporary folders of installs that were killed; the lock says nobody is using them. */
async function removeLeftovers(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    if (name.startsWith('.tmp-')) await rm(join(parent, name), { recursive: true, force: true });
  }
}

async function requireSpace(folder: string): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  if (free < neededBytes) {
    throw new LoadError(
      `${folder} has ${(free / 1e9).toFixed(1)} GB free; installing libtorch needs about ${(neededBytes / 1e9).toFixed(1)} GB. ` +
        'Free some, or set EEPO_CACHE to a folder on another disk',
    );
  }
}

function explain(error: unknown, parent: string): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof EepoError) return error;
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new LoadError(`the disk of ${parent} is full (${message}); set EEPO_CACHE to a folder on another disk`, {
      cause: error,
    });
  }
  if (code === 'EACCES' || code === 'EROFS' || code === 'EPERM') {
    return new LoadError(`${parent} cannot be written (${message}); set EEPO_CACHE to a folder that can`, {
      cause: error,
    });
  }
  return error;
}
