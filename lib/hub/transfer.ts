/** One file from the hub to the cache: resumed where it stopped, checked by size and hash before it gets its name. */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Response } from 'undici';
import { HubError } from '../errors.js';
import type { RepoFile } from './cache.js';
import { BrokenTransfer, type HubClient, throwIfAborted } from './client.js';

export interface Transfer {
  client: HubClient;
  url: string;
  file: RepoFile;
  /** Where the bytes go until they are complete; one that is there is continued. */
  partial: string;
  /** The final name. */
  target: string;
  /** Called with the bytes that are here. */
  onBytes: (done: number) => void;
  signal: AbortSignal;
}

/**
 * Downloads a file. A transfer that breaks is taken up again at the byte it reached, in this call or in a later one.
 *
 * @throws HubError when the server gives up, or its bytes are not those that the repository lists.
 */
export async function transfer(job: Transfer): Promise<void> {
  const { client, file, partial, target } = job;
  await mkdir(dirname(target), { recursive: true });
  let whole = false;
  for (let attempt = 0; ; attempt++) {
    const before = await sizeOf(partial);
    try {
      const hash = await complete(job);
      if (hash === file.hash) break;
      await rm(partial, { force: true });
      // What an earlier transfer left may have been of something else; a mismatch from first to last byte is an answer.
      if (whole || before === 0) throw mismatch(job, hash);
      whole = true;
    } catch (error) {
      // what got further may fail again as often
      if ((await sizeOf(partial)) > before) attempt = 0;
      await client.pause(error, attempt, { signal: job.signal });
    }
  }
  await rename(partial, target);
}

function mismatch({ client, file }: Transfer, hash: string): HubError {
  return new HubError(
    `${client.repo.name}: the bytes received for ${file.path} have the hash ${hash}, but the repository lists ` +
      `${file.hash}. They were thrown away; try again, and if it stays so do not trust this server (${client.settings.endpoint})`,
  );
}

/** Fetches what is missing of the partial file and returns the hash of the whole. */
async function complete(job: Transfer): Promise<string> {
  const { file, partial, onBytes } = job;
  let have = await sizeOf(partial);
  if (have > file.size) {
    await rm(partial);
    have = 0;
  }
  let hasher = hasherOf(file);
  if (have > 0) await addFile(hasher, partial, job.signal);
  onBytes(have);
  // opened before anything is asked for: a disk that cannot be written is no reason to bother the server
  const out = await open(partial, have > 0 ? 'r+' : 'w');
  try {
    if (have < file.size) {
      const { answer, from } = await ask(job, have);
      if (from < have) {
        hasher = hasherOf(file);
        await out.truncate(from);
      }
      await receive(job, answer, from, out, hasher);
    }
    await out.sync();
  } finally {
    await out.close();
  }
  return hasher.digest('hex');
}

/** Asks for the bytes from `have` on; the answer may begin at 0 instead. */
async function ask({ client, url, file, signal }: Transfer, have: number): Promise<{ answer: Response; from: number }> {
  const headers: Record<string, string> = { 'accept-encoding': 'identity' };
  if (have > 0) headers.range = `bytes=${have}-`;
  const answer = await client.request(url, { headers, signal });
  if (answer.status === 200) return { answer, from: 0 };
  const [, start, total] = /^bytes (\d+)-\d+\/(\d+)$/.exec(answer.headers.get('content-range') ?? '') ?? [];
  if (answer.status === 206 && Number(start) === have && Number(total) === file.size) return { answer, from: have };
  await answer.body?.cancel();
  throw new HubError(
    `${client.repo.name}: asked for the bytes of ${file.path} from ${have} of ${file.size}, the server answered ` +
      `${answer.status} with ${answer.headers.get('content-range') ?? 'no range'}; delete the partial download or try again`,
  );
}

async function receive(job: Transfer, answer: Response, from: number, out: FileHandle, hasher: Hash): Promise<void> {
  const { file, onBytes, signal } = job;
  let at = from;
  for await (const chunk of (answer.body ?? []) as AsyncIterable<Uint8Array>) {
    throwIfAborted(signal);
    if (at + chunk.length > file.size) {
      throw new HubError(`${job.client.repo.name}: ${file.path} is longer than the ${file.size} bytes that are listed`);
    }
    hasher.update(chunk);
    for (let sent = 0; sent < chunk.length; ) {
      const { bytesWritten } = await out.write(chunk, sent, chunk.length - sent, at + sent);
      sent += bytesWritten;
    }
    at += chunk.length;
    onBytes(at);
  }
  if (at < file.size) throw new BrokenTransfer(`the connection ended after ${at} of ${file.size} bytes`);
}

/** SHA-256, or what git calls the hash of a blob. */
function hasherOf(file: RepoFile): Hash {
  return file.hash.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${file.size}\0`);
}

async function addFile(hasher: Hash, path: string, signal: AbortSignal): Promise<void> {
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20, signal })) hasher.update(chunk);
}

/** Bytes of a file, 0 if there is none. */
export async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}
