/** Requests to the hub: the token for the hub alone, patience with a busy or silent server, errors that say what to do. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Dispatcher, Headers, type RequestInfo, type RequestInit, Response, fetch as undiciFetch } from 'undici';
import { AbortedError, EepoError, HubError } from '../errors.js';
import { proxyAgent } from '../proxy.js';
import type { HubSettings } from './settings.js';

/** A repository of the hub. */
export interface Repo {
  type: 'model' | 'dataset';
  /** `owner/name`. */
  name: string;
}

/** What the API may answer at most; the largest repositories list a few megabytes a page. */
const maxAnswerBytes = 64e6;
/** An answer of the API that takes longer than so many times the allowed silence drips on purpose. */
const maxAnswerSilences = 10;
/** Longest wait that a server may ask for. */
const maxWaitSeconds = 120;

export class HubClient {
  readonly #dispatcher: Dispatcher;
  readonly #origin: string;
  /** False for plain http to another machine, where anybody on the way reads along. */
  readonly #tokenMayTravel: boolean;

  constructor(
    readonly repo: Repo,
    readonly settings: HubSettings,
  ) {
    const { env, timeout, token } = settings;
    const { origin, protocol, hostname } = new URL(settings.endpoint);
    this.#origin = origin;
    this.#tokenMayTravel = protocol === 'https:' || /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(hostname);
    if (token !== null && !this.#tokenMayTravel) {
      const text = `${settings.endpoint} is not https: the Hugging Face token is not sent to it`;
      settings.onProgress({ phase: 'note', text });
    }
    this.#dispatcher = proxyAgent(env, { connect: Math.min(timeout, 15_000), silence: timeout });
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    await this.#dispatcher.destroy();
  }

  /** The repository's page, for messages. */
  get page(): string {
    return `${this.settings.endpoint}/${this.repo.type === 'dataset' ? 'datasets/' : ''}${this.repo.name}`;
  }

  /** The address of a file at a commit. */
  fileUrl(commit: string, path: string): string {
    return `${this.page}/resolve/${commit}/${path.split('/').map(encodeURIComponent).join('/')}`;
  }

  /**
   * fetch() for small answers: read whole within the retries, so that nobody sees half of one. Given to
   * `@huggingface/hub` in place of its own.
   */
  readonly api: typeof globalThis.fetch = (async (input: RequestInfo, init?: RequestInit) =>
    this.#retried(async () => {
      const answer = await this.request(String(input), init);
      const chunks: Uint8Array[] = [];
      let size = 0;
      const end = performance.now() + maxAnswerSilences * this.settings.timeout;
      for await (const chunk of answer.body ?? []) {
        size += chunk.length;
        if (performance.now() > end) throw new BrokenTransfer('an answer of the hub does not come to its end');
        if (size > maxAnswerBytes) throw new HubError(`${this.page}: the hub's answer is longer than 64 MB`);
        chunks.push(chunk);
      }
      return new Response(Buffer.concat(chunks), { status: answer.status, headers: [...answer.headers] });
    })) as unknown as typeof globalThis.fetch;

  /**
   * One request. The token goes to the endpoint's own origin and nowhere else (fetch drops it at a redirect elsewhere).
   *
   * @throws HubError for every answer that is not 2xx; {@link Transient} for what may pass.
   */
  async request(url: string, init: RequestInit = {}): Promise<Response> {
    const { token } = this.settings;
    const signal = init.signal ?? this.settings.signal;
    throwIfAborted(signal);
    const headers = new Headers(init.headers);
    headers.set('user-agent', 'eepo');
    headers.delete('authorization');
    if (token !== null && this.#tokenMayTravel && new URL(url).origin === this.#origin)
      headers.set('authorization', `Bearer ${token}`);
    const answer = await undiciFetch(url, {
      ...init,
      headers: [...headers],
      dispatcher: this.#dispatcher,
      ...(signal ? { signal } : {}),
    });
    if (answer.ok || answer.status === 416) return answer;
    await answer.body?.cancel().catch(() => {});
    if ([408, 429, 500, 502, 503, 504].includes(answer.status)) throw new Transient(answer, this.page);
    throw this.#refused(answer);
  }

  /** Runs `work` until it succeeds, fails for good, or has failed `retries` times in a row. */
  async #retried<T>(work: () => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        // offline is seldom over a second later, and the cache may serve
        await this.pause(error, attempt, { retries: cannotConnect(error) ? 1 : Number.POSITIVE_INFINITY });
      }
    }
  }

  /**
   * Waits before the next attempt: as long as the server asks for, else longer and longer.
   *
   * @param attempt - how many failed before, without getting further.
   * @param limits.retries - fewer than the settings allow; `signal`: another than theirs.
   * @throws what `error` means where no attempt is left or another would not help.
   */
  async pause(error: unknown, attempt: number, limits: { retries?: number; signal?: AbortSignal } = {}): Promise<void> {
    const signal = limits.signal ?? this.settings.signal;
    const retries = Math.min(this.settings.retries, limits.retries ?? this.settings.retries);
    throwIfAborted(signal);
    if (!mayPass(error)) throw error;
    const asked = error instanceof Transient ? error.waitSeconds : null;
    if (attempt >= retries || (asked ?? 0) > maxWaitSeconds) throw this.#failed(error);
    const growing = Math.min(this.settings.retryDelay * 2 ** attempt, 20_000) * (0.5 + Math.random() / 2);
    try {
      await sleep(asked === null ? growing : asked * 1000, undefined, signal === undefined ? {} : { signal });
    } catch {
      throw abortion(signal);
    }
  }

  /** What is told when no attempt is left. */
  #failed(error: unknown): HubError {
    if (error instanceof Transient) return error.final();
    const { type, name } = this.repo;
    const what =
      type === 'model'
        ? `${name} was looked for on ${this.settings.endpoint} (a local folder of this name does not exist)`
        : `the data set ${name} was looked for on ${this.settings.endpoint}`;
    return new Unreachable(
      `${what}, which cannot be reached: ${reasonOf(error)}. Behind a proxy set HTTPS_PROXY; for a mirror set HF_ENDPOINT`,
      { cause: error },
    );
  }

  /** An answer that another attempt would not change. */
  #refused(answer: Response): HubError {
    const { repo, settings, page } = this;
    const { status } = answer;
    const code = answer.headers.get('x-error-code') ?? '';
    const account = `${settings.endpoint}/settings/tokens`;
    const sent = settings.token !== null;
    const error = (message: string) => new HubError(message, { status });
    if (code === 'GatedRepo') {
      return error(
        `${repo.name} is gated (${status}): accept its licence at ${page}, then set HF_TOKEN to a token of that ` +
          `account (${account})${sent ? '; the token that was sent has not been granted access' : '; no token was sent'}`,
      );
    }
    if (code === 'RevisionNotFound') {
      return error(`${repo.name} has no revision "${settings.revision}" (${status}): give a branch, a tag or a commit`);
    }
    if (code === 'EntryNotFound')
      return error(`${repo.name} at ${settings.revision} lacks a file it lists (${status})`);
    if (status === 401 && sent && code !== 'RepoNotFound') {
      return error(
        `${settings.endpoint} refuses the token (401): it is wrong or expired; make another at ${account}, or unset ` +
          'HF_TOKEN for public models',
      );
    }
    if (status === 403) return error(`${page} refuses access (403); ${tokenHint(sent, account)}`);
    if (status === 404 || status === 401) {
      return error(
        `there is no ${repo.type} ${repo.name} on ${settings.endpoint}, or it is private (${status}). Check the name ` +
          `(a local folder is written "./${repo.name}"); ${tokenHint(sent, account)}`,
      );
    }
    return error(`${page}: the hub answered ${status}`);
  }
}

const tokenHint = (sent: boolean, account: string): string =>
  sent
    ? `the token that was sent may be wrong, expired or without access (${account})`
    : `for a private one set HF_TOKEN to a token with read access (${account})`;

/** The hub is busy or broken for the moment. */
class Transient extends Error {
  readonly status: number;
  /** Seconds the server asks to wait; null if it does not say. */
  readonly waitSeconds: number | null;

  constructor(
    answer: Response,
    readonly page: string,
  ) {
    super(`the hub answered ${answer.status}`);
    this.status = answer.status;
    this.waitSeconds = retryAfter(answer.headers.get('retry-after'));
  }

  final(): HubError {
    const wait = this.waitSeconds === null ? '' : ` (it asks to wait ${this.waitSeconds} s)`;
    const what =
      this.status === 429
        ? `too many requests${wait}; wait, or set HF_TOKEN: signed-in users may ask more often`
        : `the hub is not available${wait}; try again later`;
    return new Unreachable(`${this.page}: ${this.status}, ${what}`, { status: this.status });
  }
}

/** No answer, or none that says anything about the repository: a copy in the cache may serve instead. */
export class Unreachable extends HubError {
  override readonly name = 'HubError';
}

function retryAfter(header: string | null): number | null {
  if (header === null) return null;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return Math.max(0, seconds);
  const date = Date.parse(header);
  return Number.isNaN(date) ? null : Math.max(0, (date - Date.now()) / 1000);
}

/** Connections that break, time out or cannot be made now; never our own errors, nor those of the disk. */
function mayPass(error: unknown): boolean {
  if (error instanceof Transient) return true;
  if (error instanceof EepoError || !(error instanceof Error) || error.name === 'AbortError') return false;
  const name = codeOf(error);
  if (error instanceof BrokenTransfer || name.startsWith('UND_ERR')) return true;
  if (cannotConnect(error) || ['ECONNRESET', 'ETIMEDOUT', 'EPIPE'].includes(name)) return true;
  return error instanceof TypeError && /fetch failed|terminated/.test(error.message);
}

/** Nobody answers at the other end, or there is no way to it. */
function cannotConnect(error: unknown): boolean {
  const names = ['ECONNREFUSED', 'EAI_AGAIN', 'ENOTFOUND', 'ENETUNREACH', 'EHOSTUNREACH', 'UND_ERR_CONNECT_TIMEOUT'];
  return names.includes(codeOf(error));
}

function codeOf(error: unknown): string {
  const { code, cause } = error as NodeJS.ErrnoException & { cause?: { code?: string } };
  return code ?? cause?.code ?? '';
}

/** A transfer that ended early or with other bytes than were asked for. */
export class BrokenTransfer extends Error {}

function reasonOf(error: unknown): string {
  const reasons: string[] = [];
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const text = at.message || (at as NodeJS.ErrnoException).code;
    if (text && text !== 'fetch failed') reasons.push(text);
  }
  return reasons.join(': ') || 'the connection failed';
}

/** @throws our own error where `signal` has fired: its reason, if that is one, else AbortedError. */
export function throwIfAborted(signal: AbortSignal | null | undefined): void {
  if (signal?.aborted) throw abortion(signal);
}

function abortion(signal: AbortSignal | null | undefined): Error {
  const reason: unknown = signal?.reason;
  return reason instanceof EepoError ? reason : new AbortedError('the download was aborted', { cause: reason });
}
