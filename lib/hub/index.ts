/**
 * Models and data from the Hugging Face hub.
 *
 * A name is told apart so: a folder that exists is that folder; else `owner/name` is a repository of the hub; anything
 * else is a path that does not exist. `./owner/name` is never the hub.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { readConfig } from '../config-json.js';
import { type EepoError, HubError, InvalidArgumentError, InvalidFileError } from '../errors.js';
import { readWeightIndex, weightFiles } from '../model-folder.js';
import { checkOptions, type OptionKeys } from '../options.js';
import { checkRepoPath } from './cache.js';
import { matching, smallFiles, weightIndex, weightsOf } from './select.js';
import { HUB_KEYS, type HubOptions, type HubSettings, hubSettings } from './settings.js';
import { type Snapshot, withSnapshot } from './snapshot.js';

export { type HubOptions, type HubProgress, hubSettings } from './settings.js';

export interface DownloadOptions extends HubOptions {
  /** Default 'model'. */
  type?: 'model' | 'dataset';
  /**
   * Names of files, with `*` and `?`. Default: of a model what this package reads (configuration, tokenizer,
   * safetensors); of a data set everything.
   */
  include?: readonly string[];
}

const FILE_KEYS: OptionKeys<Omit<DownloadOptions, 'include'>> = { ...HUB_KEYS, type: true };
const DOWNLOAD_KEYS: OptionKeys<DownloadOptions> = { ...FILE_KEYS, include: true };
const FOLDER_KEYS: OptionKeys<HubOptions & { weights?: boolean }> = { ...HUB_KEYS, weights: true };

/** Whether `name` has the form of a repository, `owner/name`, by the hub's own rules. */
export function isRepoName(name: string): boolean {
  if (name.length > 96 || name.includes('--') || name.includes('..') || name.endsWith('.git')) return false;
  return /^[A-Za-z0-9_]([\w.-]*[A-Za-z0-9_])?\/[A-Za-z0-9_]([\w.-]*[A-Za-z0-9_])?$/.test(name);
}

/**
 * Downloads a repository, or part of it, into the cache.
 *
 * @param repo - `owner/name`.
 * @returns the folder of the snapshot. It holds at least the files asked for.
 * @throws HubError for everything between here and the hub; UnsupportedError for a model that cannot be used, before
 *   its weights are downloaded.
 */
export async function download(repo: string, options: DownloadOptions = {}): Promise<string> {
  checkOptions(options, DOWNLOAD_KEYS, 'download');
  const { type = 'model', include } = options;
  checkRepo(repo);
  const settings = hubSettings(options);
  if (type === 'model' && include === undefined) return downloadModel(repo, settings, true);
  return withSnapshot({ type, name: repo }, settings, async (snapshot) => {
    if (snapshot.files) await snapshot.fetch(include ? matching(repo, snapshot.files, include) : snapshot.files);
    else await requireFolder(snapshot, repo, settings);
    return snapshot.folder;
  });
}

async function requireFolder({ folder }: Snapshot, repo: string, { cacheDir }: HubSettings): Promise<void> {
  if (!(await isFolder(folder)))
    throw new HubError(`${repo} is not in ${cacheDir}, and the hub may not be asked (offline)`);
}

/**
 * The folder of a model: `name` itself if it is one, else its snapshot in the cache, downloaded where needed.
 *
 * @param options.weights - false: the configuration and tokenizer are enough. Default true.
 * @throws InvalidFileError for a path that is not there; as {@link download} for the hub.
 */
export async function modelFolder(name: string, options: HubOptions & { weights?: boolean } = {}): Promise<string> {
  checkOptions(options, FOLDER_KEYS, 'modelFolder');
  if (typeof name !== 'string' || name === '') {
    throw new InvalidArgumentError('a model is the path of a folder, or "owner/name" on the Hugging Face hub');
  }
  const info = await stat(name).catch(() => null);
  if (info?.isDirectory()) {
    if (options.revision) {
      throw new InvalidArgumentError(
        `revision "${options.revision}" is of the hub, but ${name} is a local folder; remove one of them`,
      );
    }
    return name;
  }
  if (info) throw new InvalidFileError(`${name} is a file; expected a model folder or "owner/name"`);
  if (!isRepoName(name)) {
    throw new InvalidFileError(
      `${name}: no such model folder. A model is the path of a folder in Hugging Face layout (config.json, weights), or ` +
        '"owner/name" on the Hugging Face hub',
    );
  }
  return downloadModel(name, hubSettings(options), options.weights ?? true);
}

/** Downloads what a model needs: the small files first, so that what cannot be used is known before its weights come. */
async function downloadModel(repo: string, settings: HubSettings, weights: boolean): Promise<string> {
  return withSnapshot({ type: 'model', name: repo }, settings, async (snapshot) => {
    const { files, folder } = snapshot;
    if (files === null) {
      await requireWhole(repo, folder, weights, settings);
      return folder;
    }
    const small = smallFiles(repo, files);
    const index = weights ? weightIndex(files) : null;
    await snapshot.fetch(index ? [...small, index] : small);
    if (!weights) return folder;
    await readConfig(folder);
    const shards = index ? [...new Set((await readWeightIndex(join(folder, index.path))).values())] : null;
    await snapshot.fetch(weightsOf(repo, files, shards));
    return folder;
  });
}

/** @throws HubError when a cached model lacks files and nobody may be asked for them. */
async function requireWhole(repo: string, folder: string, weights: boolean, settings: HubSettings): Promise<void> {
  try {
    if (!(await isFolder(folder))) throw new HubError('nothing of this revision is there');
    await readConfig(folder);
    if (weights) await weightFiles(folder);
  } catch (cause) {
    if (!(cause instanceof InvalidFileError || cause instanceof HubError)) throw cause;
    throw new HubError(
      `${repo} (revision ${settings.revision}) is not complete in ${settings.cacheDir}, and the hub was not asked: ` +
        `${(cause as EepoError).message}. Once, with a connection: npx eepo download ${repo}`,
      { cause },
    );
  }
}

const isFolder = async (path: string): Promise<boolean> => (await stat(path).catch(() => null))?.isDirectory() === true;

/**
 * Downloads one file into the cache.
 *
 * @param repo - `owner/name`; `path` is the file's path in it.
 * @returns the path of the file on this machine.
 * @throws HubError when there is no such file, or it cannot be had.
 */
export async function downloadFile(
  repo: string,
  path: string,
  options: Omit<DownloadOptions, 'include'> = {},
): Promise<string> {
  checkOptions(options, FILE_KEYS, 'downloadFile');
  const { type = 'model' } = options;
  checkRepo(repo);
  const settings = hubSettings(options);
  return withSnapshot({ type, name: repo }, settings, async (snapshot) => {
    const file = snapshot.files?.find((entry) => entry.path === path);
    const target = join(snapshot.folder, checkRepoPath(path, repo));
    if (file) await snapshot.fetch([file]);
    else if (snapshot.files || !(await stat(target).catch(() => null))) {
      const where = snapshot.files
        ? `${repo} at revision ${settings.revision}`
        : `${settings.cacheDir} (offline): ${repo}`;
      throw new HubError(`${where} has no file ${path}`);
    }
    return target;
  });
}

function checkRepo(repo: unknown): void {
  if (typeof repo !== 'string' || !isRepoName(repo)) {
    throw new InvalidArgumentError(`${JSON.stringify(repo)} is not the name of a repository, "owner/name"`);
  }
}
