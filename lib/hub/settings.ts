/** What a caller and the environment say about the hub: the same variables as the Python library reads. */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { InvalidArgumentError } from '../errors.js';
import { type OptionKeys, SIGNAL } from '../options.js';

/** Where a download or a load is. */
export type HubProgress =
  | {
      phase: 'download';
      repo: string;
      /** The file whose bytes came last. */
      file: string;
      /** Bytes here, over all files of this step; those that were here before count. */
      done: number;
      total: number;
    }
  /** Bytes of the weights that have been read, of all. */
  | { phase: 'load'; model: string; done: number; total: number }
  | { phase: 'note'; text: string };

/** How the hub is used. Every option may be left out. */
export interface HubOptions {
  /** Branch, tag or commit. Default "main". */
  revision?: string;
  /** Access token; false sends none. Default: HF_TOKEN, else the file that `hf auth login` writes. */
  token?: string | false;
  /** Default: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub. */
  cacheDir?: string;
  /** Use only what the cache holds. Default: HF_HUB_OFFLINE. */
  offline?: boolean;
  /** Default: HF_ENDPOINT, else https://huggingface.co. */
  endpoint?: string;
  /** Milliseconds the server may be silent before a request is tried again. Default: HF_HUB_DOWNLOAD_TIMEOUT (s), else 30 000. */
  timeout?: number;
  /** How often a request is tried again without getting further. Default 5. */
  retries?: number;
  /** Milliseconds before the first new attempt, doubled before each further one. Default 500. */
  retryDelay?: number;
  onProgress?: (progress: HubProgress) => void;
  signal?: AbortSignal;
  /** Environment to read; default process.env. */
  env?: NodeJS.ProcessEnv;
}

export const HUB_KEYS: OptionKeys<HubOptions> = {
  revision: true,
  token: true,
  cacheDir: true,
  offline: true,
  endpoint: true,
  timeout: true,
  retries: true,
  retryDelay: true,
  onProgress: true,
  env: true,
  ...SIGNAL,
};

/** {@link HubOptions} with everything decided. */
export interface HubSettings {
  revision: string;
  token: string | null;
  cacheDir: string;
  offline: boolean;
  endpoint: string;
  timeout: number;
  retries: number;
  retryDelay: number;
  onProgress: (progress: HubProgress) => void;
  signal: AbortSignal | undefined;
  env: NodeJS.ProcessEnv;
}

/** @throws InvalidArgumentError naming the option or variable that is wrong; never showing a token. */
export function hubSettings(options: HubOptions = {}): HubSettings {
  const env = options.env ?? process.env;
  return {
    revision: checkRevision(options.revision || 'main'),
    token: options.token === false ? null : checkToken(options.token || storedToken(env)),
    cacheDir: resolve(home(options.cacheDir || cacheDirectory(env))),
    offline: options.offline ?? (isTrue(env.HF_HUB_OFFLINE) || isTrue(env.TRANSFORMERS_OFFLINE)),
    endpoint: checkEndpoint(options.endpoint || env.HF_ENDPOINT || 'https://huggingface.co'),
    timeout: options.timeout ?? (Number(env.HF_HUB_DOWNLOAD_TIMEOUT) * 1000 || 30_000),
    retries: options.retries ?? 5,
    retryDelay: options.retryDelay ?? 500,
    onProgress: options.onProgress ?? (() => {}),
    signal: options.signal,
    env,
  };
}

const isTrue = (value: string | undefined): boolean => ['1', 'ON', 'YES', 'TRUE'].includes((value ?? '').toUpperCase());

const home = (path: string): string => path.replace(/^~(?=$|\/)/, homedir());

const huggingFaceHome = (env: NodeJS.ProcessEnv): string =>
  home(env.HF_HOME || join(env.XDG_CACHE_HOME || '~/.cache', 'huggingface'));

function cacheDirectory(env: NodeJS.ProcessEnv): string {
  return env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(huggingFaceHome(env), 'hub');
}

function storedToken(env: NodeJS.ProcessEnv): string | null {
  const given = env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN;
  if (given) return given;
  if (isTrue(env.HF_HUB_DISABLE_IMPLICIT_TOKEN)) return null;
  try {
    return readFileSync(home(env.HF_TOKEN_PATH || join(huggingFaceHome(env), 'token')), 'utf8');
  } catch {
    return null;
  }
}

/** A token goes into a header: anything else in it would be an error that prints it. */
function checkToken(token: string | null): string | null {
  const trimmed = token?.trim();
  if (!trimmed) return null;
  if (!/^[\x21-\x7e]+$/.test(trimmed)) {
    throw new InvalidArgumentError(
      'the Hugging Face token (option token, HF_TOKEN or the token file) holds characters that no token has',
    );
  }
  return trimmed;
}

function checkEndpoint(endpoint: string): string {
  let url: URL;
  try {
    url = new URL(endpoint);
  } catch {
    throw new InvalidArgumentError(`endpoint (or HF_ENDPOINT) must be a URL such as https://huggingface.co`);
  }
  if (!/^https?:$/.test(url.protocol) || url.username !== '' || url.search !== '') {
    throw new InvalidArgumentError(
      'endpoint (or HF_ENDPOINT) must be a plain http or https URL, without user and query',
    );
  }
  return endpoint.replace(/\/+$/, '');
}

/** A revision becomes part of URLs and of a path in the cache. */
function checkRevision(revision: string): string {
  const parts = revision.split('/');
  if (!/^[\w.+@/-]{1,255}$/.test(revision) || parts.some((part) => part === '' || part === '.' || part === '..')) {
    throw new InvalidArgumentError(`revision ${JSON.stringify(revision)} is not a branch, a tag or a commit`);
  }
  return revision;
}
