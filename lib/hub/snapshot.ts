/** A repository at one commit: what it lists, and as much of it in the cache as somebody asks for. */
import { statfs } from 'node:fs/promises';
import { HubError } from '../errors.js';
import { checkRepoPath, explainDisk, isCommit, RepoCache, type RepoFile } from './cache.js';
import { HubClient, type Repo, Unreachable } from './client.js';
import type { HubSettings } from './settings.js';
import { sizeOf, transfer } from './transfer.js';

/** More than any model has; a server that lists without end, were it pages without a file, is stopped. */
const maxFiles = 100_000;
const maxPages = 1_000;
/** Connections at once: one seldom fills the line. */
const parallel = 4;

/** A repository at one commit. */
export interface Snapshot {
  commit: string;
  /** The folder of the files that are here. */
  folder: string;
  /** All files of the commit; null when the hub was not asked (offline) or cannot be reached. */
  files: RepoFile[] | null;
  /** Brings files into the folder. */
  fetch(files: readonly RepoFile[]): Promise<void>;
}

/**
 * Opens `repo` at the settings' revision and hands it to `work`. Offline, or where the hub does not answer and the
 * cache knows the revision, the snapshot is what is in the cache.
 *
 * @throws HubError saying what to do; nothing that it throws or logs contains the token.
 */
export async function withSnapshot<T>(
  repo: Repo,
  settings: HubSettings,
  work: (snapshot: Snapshot) => Promise<T>,
): Promise<T> {
  const cache = new RepoCache(repo, settings);
  if (settings.offline) return work(await cached(repo, cache, null));
  const client = new HubClient(repo, settings);
  try {
    return await work(await online(client, cache));
  } catch (error) {
    throw redacted(explainDisk(error, settings.cacheDir), settings.token);
  } finally {
    await client.close();
  }
}

/** Whatever the cause: what leaves here is shown and logged. */
function redacted(error: unknown, token: string | null): unknown {
  if (token === null || !(error instanceof Error)) return error;
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    at.message = at.message.replaceAll(token, '<token>');
    if (at.stack) at.stack = at.stack.replaceAll(token, '<token>');
    if (at instanceof AggregateError) for (const part of at.errors) redacted(part, token);
  }
  return error;
}

/** The snapshot as the cache has it. `reason` is why the hub was not asked; null: on purpose. */
async function cached(repo: Repo, cache: RepoCache, reason: Unreachable | null): Promise<Snapshot> {
  const { revision, cacheDir, onProgress } = cache.settings;
  const commit = await cache.commitOf(revision);
  if (commit === null) {
    if (reason) throw reason;
    const [what, command] =
      repo.type === 'model'
        ? [`${repo.name} (revision ${revision}) is neither a local folder nor`, `npx eepo download ${repo.name}`]
        : [
            `the data set ${repo.name} (revision ${revision}) is not`,
            `npx eepo download ${repo.name} --dataset --include '*.json*' --include '*.parquet'`,
          ];
    throw new HubError(
      `${what} in ${cacheDir}, and the hub may not be asked (option offline, or HF_HUB_OFFLINE). Once, with a ` +
        `connection: ${command}`,
    );
  }
  if (reason) onProgress({ phase: 'note', text: `${reason.message}. Using what was downloaded before` });
  const unavailable = async () => {
    throw (
      reason ?? new HubError(`${repo.name}: files are missing in ${cacheDir}, and the hub may not be asked (offline)`)
    );
  };
  return { commit, folder: cache.snapshot(commit), files: null, fetch: unavailable };
}

async function online(client: HubClient, cache: RepoCache): Promise<Snapshot> {
  const { repo, settings } = client;
  let commit: string;
  let files: RepoFile[];
  try {
    commit = await commitOf(client);
    files = await list(client, commit);
  } catch (error) {
    if (error instanceof Unreachable) return cached(repo, cache, error);
    // a page of a proxy, or lists in another shape: not an error of ours, whatever it broke in the client
    if (error instanceof SyntaxError || error instanceof TypeError) {
      throw new HubError(
        `${settings.endpoint} does not answer as a Hugging Face hub does (${error.message}); check HF_ENDPOINT, and ` +
          'whether a proxy or a sign-in page answers in its place',
        { cause: error },
      );
    }
    throw error;
  }
  await cache.remember(settings.revision, commit);
  return { commit, folder: cache.snapshot(commit), files, fetch: (wanted) => download(client, cache, commit, wanted) };
}

/** The commit of a branch or tag. A commit is one already; whether it exists is told by its list of files. */
async function commitOf({ repo, settings, api }: HubClient): Promise<string> {
  if (isCommit(settings.revision)) return settings.revision;
  const { modelInfo, datasetInfo } = await import('@huggingface/hub');
  const request = { name: repo.name, revision: settings.revision, hubUrl: settings.endpoint, fetch: api };
  const { sha } =
    repo.type === 'model'
      ? await modelInfo({ ...request, additionalFields: ['sha'] })
      : await datasetInfo({ ...request, additionalFields: ['sha'] });
  if (typeof sha !== 'string' || !isCommit(sha)) {
    throw new HubError(
      `${settings.endpoint} does not say which commit ${repo.name} stands at; is it a Hugging Face hub?`,
    );
  }
  return sha;
}

/** Every file of a commit, checked: names and hashes become paths. */
async function list({ repo, settings, api }: HubClient, commit: string): Promise<RepoFile[]> {
  const { listFiles } = await import('@huggingface/hub');
  const files: RepoFile[] = [];
  const names = new Set<string>();
  let [pages, entries] = [0, 0];
  const page: typeof api = (input, init) => {
    pages += 1;
    if (pages > maxPages) throw new HubError(`${repo.name} lists its files on more than ${maxPages} pages`);
    return api(input, init);
  };
  const request = { repo, revision: commit, recursive: true, hubUrl: settings.endpoint, fetch: page };
  for await (const entry of listFiles(request)) {
    entries += 1;
    if (entries > maxFiles) throw new HubError(`${repo.name} lists more than ${maxFiles} files`);
    if (entry.type !== 'file') continue;
    const path = checkRepoPath(entry.path, repo.name);
    if (names.has(path)) throw new HubError(`${repo.name} lists ${path} twice; which is meant?`);
    names.add(path);
    const hash: unknown = entry.lfs?.oid ?? entry.oid;
    const size = entry.lfs?.size ?? entry.size;
    if (
      typeof hash !== 'string' ||
      !/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(hash) ||
      !Number.isSafeInteger(size) ||
      size < 0
    ) {
      throw new HubError(`${repo.name}: the hub gives no usable hash and size of ${path}; it cannot be checked`);
    }
    files.push({ path, size, hash });
  }
  return files;
}

/** Brings the files that are not here yet. */
async function download(
  client: HubClient,
  cache: RepoCache,
  commit: string,
  files: readonly RepoFile[],
): Promise<void> {
  if (await allHere(cache, commit, files)) return;
  await cache.locked(async (signal) => {
    const stop = new AbortController();
    const progress = progressOf(client, files);
    // by content: what is listed under two names is fetched once
    const missing = new Map<string, RepoFile[]>();
    for (const file of files) {
      if (await cache.hasFile(commit, file)) progress.count(file, file.size);
      else missing.set(file.hash, [...(missing.get(file.hash) ?? []), file]);
    }
    for (const [file] of missing.values()) if (file) progress.count(file, await sizeOf(cache.partial(file.hash)));
    const queue = [...missing.values()];
    await requireSpace(
      cache,
      queue.flatMap((same) => same.slice(0, 1)),
    );
    // the first failure ends the other transfers; what they have stays for the next time
    const any = AbortSignal.any([signal, stop.signal]);
    const worker = async () => {
      for (let same = queue.shift(); same !== undefined; same = queue.shift()) {
        await bring(client, cache, commit, same, any, progress);
      }
    };
    const results = await Promise.allSettled(
      Array.from({ length: parallel }, () =>
        worker().catch((error) => {
          stop.abort(error);
          throw error;
        }),
      ),
    );
    if (results.some(({ status }) => status === 'rejected')) throw stop.signal.reason;
  });
}

/** Fetches one content and links it under each of its names. */
async function bring(
  client: HubClient,
  cache: RepoCache,
  commit: string,
  files: readonly RepoFile[],
  signal: AbortSignal,
  progress: Sum,
): Promise<void> {
  const first = files[0] as RepoFile;
  if (!(await cache.hasBlob(first))) {
    await transfer({
      client,
      url: client.fileUrl(commit, first.path),
      file: first,
      partial: cache.partial(first.hash),
      target: cache.blob(first.hash),
      onBytes: (done) => progress.report(first, done),
      signal,
    });
  }
  for (const file of files) {
    progress.report(file, file.size);
    await cache.link(commit, file);
  }
}

async function allHere(cache: RepoCache, commit: string, files: readonly RepoFile[]): Promise<boolean> {
  for (const file of files) if (!(await cache.hasFile(commit, file))) return false;
  return true;
}

interface Sum {
  /** Counts bytes that are here before anything is fetched. */
  count(file: RepoFile, done: number): void;
  /** Counts bytes and reports. */
  report(file: RepoFile, done: number): void;
}

/** Sums the bytes of all files. */
function progressOf({ repo, settings }: HubClient, files: readonly RepoFile[]): Sum {
  const total = files.reduce((sum, { size }) => sum + size, 0);
  const here = new Map<string, number>();
  let sum = 0;
  const count = (file: RepoFile, done: number): void => {
    const counted = Math.min(done, file.size);
    sum += counted - (here.get(file.path) ?? 0);
    here.set(file.path, counted);
  };
  return {
    count,
    report(file, done) {
      count(file, done);
      settings.onProgress({ phase: 'download', repo: repo.name, file: file.path, done: sum, total });
    },
  };
}

/** @throws HubError when the disk cannot hold what is still to come: better now than after an hour. */
async function requireSpace(cache: RepoCache, files: readonly RepoFile[]): Promise<void> {
  let needed = 0;
  for (const file of files) {
    if (!(await cache.hasBlob(file))) needed += Math.max(0, file.size - (await sizeOf(cache.partial(file.hash))));
  }
  const { bavail, bsize } = await statfs(cache.folder);
  if (needed > bavail * bsize) {
    throw new HubError(
      `${cache.settings.cacheDir} has ${gigabytes(bavail * bsize)} free, and ${gigabytes(needed)} are still to be downloaded; ` +
        'free some space, or set HF_HOME (or the option cacheDir) to a folder on another disk',
    );
  }
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;
