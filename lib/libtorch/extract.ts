import { createWriteStream } from 'node:fs';
import { cp, mkdir, stat } from 'node:fs/promises';
import { dirname, join, resolve, sep } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { crc32 } from 'node:zlib';
import { type Entry, openPromise, validateFileName } from 'yauzl';
import { InvalidFileError } from '../errors.js';
import { type Progress, silent } from './progress.js';

/** Of a distribution only these parts are kept; Python's own parts and the test programs are not. */
const wanted = /^(lib\/|include\/|share\/cmake\/|build-version$|version\.py$)/;
const unwanted = /^lib\/(libtorch_python|libshm|.*_test|libaoti_custom|libbackend_with|libjitbackend|libtorchbind)/;

/** Whether a path relative to the libtorch folder is needed. */
export function isNeeded(path: string): boolean {
  return wanted.test(path) && !unwanted.test(path);
}

/**
 * Extracts the needed parts of a libtorch archive (top folder `libtorch/`) or a wheel (`torch/`) into `folder`.
 * Entries that would land outside of it and symbolic links are refused.
 *
 * @throws InvalidFileError if the archive is damaged, hostile, or holds no libtorch.
 */
export async function extract(archive: string, folder: string, progress: Progress = silent): Promise<void> {
  let entries: Entry[];
  const zip = await openPromise(archive, { autoClose: false }).catch((error: Error) => {
    throw new InvalidFileError(`${archive} is not a readable zip archive: ${error.message}`, { cause: error });
  });
  try {
    entries = [];
    for await (const entry of zip.eachEntry()) entries.push(checked(archive, entry));
    const kept = entries
      .map((entry) => ({ entry, path: entry.fileName.replace(/^(libtorch|torch)\//, '') }))
      .filter(({ entry, path }) => path !== entry.fileName && !path.endsWith('/') && isNeeded(path));
    if (!kept.some(({ path }) => path === 'lib/libtorch_cpu.so')) {
      throw new InvalidFileError(`${archive} holds no libtorch (libtorch/lib/libtorch_cpu.so or torch/lib/...)`);
    }
    const total = kept.reduce((sum, { entry }) => sum + entry.uncompressedSize, 0);
    let done = 0;
    progress.start('extract', total);
    for (const { entry, path } of kept) {
      const target = inside(archive, folder, path);
      await mkdir(dirname(target), { recursive: true });
      let crc = 0;
      const counter = new Transform({
        transform(chunk: Buffer, _encoding, next) {
          crc = crc32(chunk, crc);
          done += chunk.length;
          progress.update(done);
          next(null, chunk);
        },
      });
      await pipeline(await zip.openReadStreamPromise(entry), counter, createWriteStream(target));
      if (crc !== entry.crc32) throw new Error(`the checksum of ${entry.fileName} is wrong`);
    }
    progress.stop();
  } catch (error) {
    if (error instanceof InvalidFileError || (error as NodeJS.ErrnoException).syscall !== undefined) throw error;
    throw new InvalidFileError(`${archive} is damaged or unsafe: ${(error as Error).message}`, { cause: error });
  } finally {
    zip.close();
  }
}

/** Copies the needed parts of a libtorch folder (or of an installed `torch` package). */
export async function copyFolder(source: string, folder: string): Promise<void> {
  const root = resolve(source);
  await stat(root);
  for (const part of ['lib', 'include', join('share', 'cmake'), 'build-version', 'version.py']) {
    const from = join(root, part);
    const exists = await stat(from).then(
      () => true,
      () => false,
    );
    if (!exists) continue;
    await cp(from, join(folder, part), {
      recursive: true,
      dereference: true,
      filter: (path) => !unwanted.test(path.slice(root.length + 1)),
    });
  }
}

function checked(archive: string, entry: Entry): Entry {
  const problem = validateFileName(entry.fileName);
  if (problem) throw new InvalidFileError(`${archive}: refused, ${problem}`);
  const type = (entry.externalFileAttributes >>> 16) & 0o170000;
  if (type === 0o120000) throw new InvalidFileError(`${archive}: refused, ${entry.fileName} is a symbolic link`);
  return entry;
}

function inside(archive: string, folder: string, path: string): string {
  const target = resolve(folder, path);
  if (!target.startsWith(resolve(folder) + sep)) {
    throw new InvalidFileError(`${archive}: refused, ${path} would be written outside of the target folder`);
  }
  return target;
}
