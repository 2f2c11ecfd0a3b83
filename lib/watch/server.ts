/**
 * The server of `eepo watch`: one page, and the data it draws. It answers GET and HEAD at two paths, reads no file by a
 * name that a request gives, changes nothing, and does nothing while nobody asks.
 */
import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import { InvalidArgumentError } from '../errors.js';
import { checkOptions, type OptionKeys } from '../options.js';
import { statIfThere } from '../read-file.js';
import { bare, cookie, type GuardOptions, inUrl, isLoopback, refusal, sameToken } from './guard.js';
import { livePage } from './view.js';
import { WatchedRuns } from './watched.js';

export interface WatchOptions {
  /** Folders of runs of `eepo train`; they may begin later. */
  runs: readonly string[];
  /** Address to listen on. Default 127.0.0.1. For one that others can reach a token is asked for. */
  host?: string;
  /** Port to listen on; 0: any that is free. Default 6007, or any that is free where it is taken. */
  port?: number;
  /** Ask for a token also where only this machine can reach the server. Default false. */
  token?: boolean;
  /** The files are looked at no more often, in milliseconds. Default 1000. */
  everyMs?: number;
}

const KEYS: OptionKeys<WatchOptions> = { runs: true, host: true, port: true, token: true, everyMs: true };

const DEFAULT_PORT = 6007;
/** Who does not read an answer in this time is gone: what was made for him is not kept. */
const IDLE_MS = 30_000;
const MAX_CONNECTIONS = 64;

export interface WatchServer {
  /** The page's address, with the token where one is asked for. */
  url: string;
  port: number;
  host: string;
  /** Whether others than this machine can reach it. */
  open: boolean;
  /** Ends all connections. */
  close(): Promise<void>;
}

/**
 * Serves the report of runs, kept up to date while they train.
 *
 * @throws InvalidArgumentError for no run, a file, or an address or port where it cannot listen
 */
export async function watchRuns(options: WatchOptions): Promise<WatchServer> {
  checkOptions(options, KEYS, 'watchRuns');
  const { runs, host = '127.0.0.1', port, everyMs = 1000 } = options;
  if (runs.length === 0) throw new InvalidArgumentError('watchRuns({ runs }): expected the folder of a run, got none');
  for (const run of runs) {
    if (statIfThere(run)?.isDirectory() === false) {
      throw new InvalidArgumentError(
        `${run} is a file; name the folder of a run, which has config.toml and metrics.jsonl`,
      );
    }
  }
  if (port !== undefined && !(Number.isInteger(port) && port >= 0 && port <= 65_535)) {
    throw new InvalidArgumentError(`port ${port}: expected a whole number, 0 to 65535`);
  }
  if (!(everyMs >= 0)) throw new InvalidArgumentError(`everyMs = ${everyMs}: expected milliseconds, at least 0`);
  const open = !isLoopback(host);
  const token = open || options.token ? randomBytes(24).toString('base64url') : null;
  const handler = new Handler(new WatchedRuns(runs, everyMs), token, {
    host,
    names: open ? ownNames() : [],
  });
  const server = createServer(
    { requestTimeout: IDLE_MS, headersTimeout: 10_000, keepAliveTimeout: 10_000, maxHeaderSize: 16_384 },
    (request, response) => void handler.answer(request, response),
  );
  server.maxConnections = MAX_CONNECTIONS;
  server.setTimeout(IDLE_MS, (socket) => socket.destroy());
  const listening = await listen(server, bare(host), port);
  const name = open && isAnyAddress(bare(host)) ? hostname() : host;
  const address = `http://${inUrl(name)}:${listening}/`;
  return {
    url: token === null ? address : `${address}?token=${token}`,
    port: listening,
    host,
    open,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

const isAnyAddress = (host: string): boolean => host === '0.0.0.0' || host === '::' || /^[0:]+$/.test(host);

/** The name of this machine, with and without its domain. */
const ownNames = (): string[] => [...new Set([hostname(), hostname().split('.')[0] as string])];

/** Listens on the port, or on a free one where it is the default and taken. */
async function listen(server: Server, host: string, port: number | undefined): Promise<number> {
  const attempt = (on: number): Promise<number> =>
    new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port: on }, () => {
        server.off('error', reject);
        resolve((server.address() as AddressInfo).port);
      });
    });
  try {
    return await attempt(port ?? DEFAULT_PORT);
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'EADDRINUSE' && port === undefined) return attempt(0);
    const hint =
      code === 'EADDRINUSE' || code === 'EACCES'
        ? `; give another --port, or none`
        : code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND' || code === 'EAI_AGAIN'
          ? '; give another --host, or none'
          : '';
    throw new InvalidArgumentError(`cannot listen on ${inUrl(host)}:${port ?? DEFAULT_PORT} (${message})${hint}`, {
      cause,
    });
  }
}

class Handler {
  readonly #runs: WatchedRuns;
  readonly #token: string | null;
  readonly #guard: GuardOptions;

  constructor(runs: WatchedRuns, token: string | null, guard: GuardOptions) {
    this.#runs = runs;
    this.#token = token;
    this.#guard = guard;
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await this.#answer(request, response);
    } catch (error) {
      // of ours alone: what is wrong with a run is told by the page
      process.emitWarning(`eepo watch: ${(error as Error)?.stack ?? error}`, 'EepoWatchWarning');
      if (!response.headersSent) text(response, 500, 'This is a bug of eepo watch; its terminal says more.');
      else response.destroy();
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    const refused = refusal(request.method, request.headers, this.#guard);
    if (refused !== null) {
      if (refused.status === 405) response.setHeader('Allow', 'GET, HEAD');
      // a body that nobody wants is not waited for
      response.setHeader('Connection', 'close');
      return text(response, refused.status, refused.text);
    }
    const [pathname, query] = (request.url ?? '').split('?', 2) as [string, string?];
    const given = new URLSearchParams(query).get('token');
    if (!this.#mayEnter(request, response, pathname, given)) return undefined;
    if (pathname === '/') return this.#page(response);
    if (pathname === '/data') return this.#data(request, response);
    return text(response, 404, 'There is nothing here; the page is at /.');
  }

  /** The token comes once in the address that was printed, then as a cookie, so that it stays in no history. */
  #mayEnter(request: IncomingMessage, response: ServerResponse, pathname: string, given: string | null): boolean {
    const token = this.#token;
    if (token === null) return true;
    // ports do not keep cookies apart
    const name = `eepo-watch-${request.socket.localPort}`;
    if (pathname === '/' && sameToken(given, token)) {
      response.setHeader('Set-Cookie', `${name}=${token}; HttpOnly; SameSite=Strict; Path=/`);
      response.writeHead(303, { Location: '/', 'Content-Length': 0 }).end();
      return false;
    }
    if (sameToken(cookie(request.headers.cookie, name), token)) return true;
    text(response, 403, 'A token is needed: open the whole address that eepo watch printed.');
    return false;
  }

  async #page(response: ServerResponse): Promise<void> {
    const { data } = await this.#runs.snapshot();
    response.setHeader('Content-Security-Policy', PAGE_POLICY);
    send(response, 200, 'text/html; charset=utf-8', Buffer.from(livePage(data)));
  }

  async #data(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { version, json, gzipped } = await this.#runs.snapshot();
    response.setHeader('ETag', `"${version}"`);
    response.setHeader('Vary', 'Accept-Encoding');
    if (request.headers['if-none-match'] === `"${version}"`) {
      response.writeHead(304).end();
      return;
    }
    const zipped = /\bgzip\b/.test(String(request.headers['accept-encoding'] ?? ''));
    if (zipped) response.setHeader('Content-Encoding', 'gzip');
    send(response, 200, 'application/json; charset=utf-8', zipped ? gzipped : json);
  }
}

/**
 * The page carries all it needs; it may ask this server, nobody else, and nobody may show it in a frame. Which scripts
 * may run, by their hashes, is said in the page itself; both must allow it.
 */
const PAGE_POLICY = [
  "default-src 'none'",
  "script-src 'unsafe-inline'",
  "style-src 'unsafe-inline'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const HEADERS = {
  'Cache-Control': 'no-store',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
};

function text(response: ServerResponse, status: number, message: string): void {
  send(response, status, 'text/plain; charset=utf-8', Buffer.from(`${message}\n`));
}

function send(response: ServerResponse, status: number, type: string, body: Buffer): void {
  // of HEAD node sends the headers alone
  response.writeHead(status, { 'Content-Type': type, 'Content-Length': body.length }).end(body);
}
