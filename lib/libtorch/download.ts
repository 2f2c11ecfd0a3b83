import { createWriteStream } from 'node:fs';
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Dispatcher, fetch, type Response } from 'undici';
import { LoadError } from '../errors.js';
import { proxyAgent } from '../proxy.js';
import { type Progress, silent } from './progress.js';

export interface DownloadOptions {
  progress?: Progress;
  label?: string;
  env?: NodeJS.ProcessEnv;
  /** How often a broken transfer is taken up again. Default 5. */
  retries?: number;
}

/** What the server said about the file that a `.part` belongs to. */
interface PartRecord {
  url: string;
  validator?: string;
}

/**
 * Downloads `url` to `target`. Bytes go to `target.part`; a later call goes on where the last one stopped if the server
 * still has the same file (Range with If-Range). `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` are respected.
 *
 * @throws LoadError with the server's answer or the connection's error.
 */
export async function download(url: string, target: string, options: DownloadOptions = {}): Promise<void> {
  const { retries = 5, env = process.env } = options;
  await mkdir(dirname(target), { recursive: true });
  const dispatcher = proxyAgent(env);
  try {
    for (let attempt = 0; ; attempt++) {
      let received = 0;
      try {
        await transfer(url, target, dispatcher, options, (bytes) => {
          received += bytes;
        });
        return;
      } catch (error) {
        // Only a transfer that got somewhere is worth another try: a refused connection stays refused. What came may not
        // have reached the disk when the connection broke.
        const moved = received > 0;
        if (error instanceof LoadError || isLocal(error) || !moved || attempt >= retries) throw describe(url, error);
        await sleep(200 * 2 ** attempt);
      }
    }
  } finally {
    await dispatcher.close();
  }
}

async function transfer(
  url: string,
  target: string,
  dispatcher: Dispatcher,
  options: DownloadOptions,
  onBytes: (count: number) => void,
): Promise<void> {
  const progress = options.progress ?? silent;
  const part = `${target}.part`;
  const recordFile = `${part}.json`;
  const record = await readRecord(recordFile);
  const resumable = record?.url === url && record.validator !== undefined;
  const have = resumable ? await sizeOf(part) : 0;

  const headers: Record<string, string> = { 'accept-encoding': 'identity' };
  if (have > 0 && record?.validator) {
    headers.range = `bytes=${have}-`;
    headers['if-range'] = record.validator;
  }
  let response = await fetch(url, { headers, dispatcher });
  if (response.status === 416) {
    // The file is not what the part began with (or the part is already longer): start over.
    await response.body?.cancel();
    response = await fetch(url, { headers: { 'accept-encoding': 'identity' }, dispatcher });
  }
  if (!response.ok || response.body === null) {
    await response.body?.cancel();
    throw new LoadError(`${url}: the server answered ${response.status} ${response.statusText}`.trim());
  }
  const offset = response.status === 206 ? rangeStart(response, have) : 0;
  const length = Number(response.headers.get('content-length') ?? Number.NaN);
  const total = Number.isFinite(length) ? offset + length : 0;
  await writeFile(recordFile, JSON.stringify({ url, validator: validatorOf(response) } satisfies PartRecord));

  let done = offset;
  progress.start(options.label ?? 'download', total);
  const counter = new Transform({
    transform(chunk: Buffer, _encoding, next) {
      done += chunk.length;
      onBytes(chunk.length);
      progress.update(done);
      next(null, chunk);
    },
  });
  try {
    await pipeline(
      Readable.fromWeb(response.body),
      counter,
      createWriteStream(part, offset > 0 ? { flags: 'r+', start: offset } : { flags: 'w' }),
    );
  } finally {
    progress.stop();
  }
  if (total > 0 && done !== total) throw new Error(`the connection ended after ${done} of ${total} bytes`);
  await rename(part, target);
  await rm(recordFile, { force: true });
}

/** A 206 must begin where we asked: anything else would leave a hole or a repeat. */
function rangeStart(response: Response, have: number): number {
  const start = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1];
  if (Number(start) !== have) throw new LoadError(`the server sent another range than bytes ${have}-`);
  return have;
}

/** A strong ETag, else Last-Modified; If-Range must not carry a weak one. */
function validatorOf(response: Response): string | undefined {
  const etag = response.headers.get('etag');
  if (etag && !etag.startsWith('W/')) return etag;
  return response.headers.get('last-modified') ?? undefined;
}

async function readRecord(file: string): Promise<PartRecord | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as PartRecord;
  } catch {
    return undefined;
  }
}

async function sizeOf(file: string): Promise<number> {
  return stat(file).then(
    (found) => found.size,
    () => 0,
  );
}

function isLocal(error: unknown): boolean {
  return ['ENOSPC', 'EACCES', 'EROFS', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '');
}

function describe(url: string, error: unknown): Error {
  if (error instanceof LoadError || isLocal(error)) return error as Error;
  const reasons: string[] = [];
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if (at.message && at.message !== 'fetch failed') reasons.push(at.message);
  }
  return new LoadError(`${url}: ${reasons.join(': ') || 'the transfer failed'}`, { cause: error });
}
