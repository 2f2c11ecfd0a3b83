/** A Hugging Face hub for tests: the endpoints that a download uses, a second server as its CDN, and faults on demand. */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';

export interface FakeRepo {
  /** Content by path. */
  files: Record<string, Buffer | string>;
  /** Branches and tags; default `main` alone. */
  refs?: Record<string, string>;
  /** Only this token may read. */
  token?: string;
  gated?: boolean;
  /** Replaces what the tree lists. */
  tree?: unknown[];
}

export interface Request {
  kind: 'info' | 'tree' | 'resolve' | 'cdn';
  path: string;
  range: string | undefined;
  authorization: string | undefined;
  /** How many requests of this kind and path came before. */
  nth: number;
}

/** What goes wrong with a request. */
export interface Fault {
  /** Answers with this status. */
  status?: number;
  headers?: Record<string, string>;
  /** Sends this many bytes of the answer and closes the connection. */
  cutAfter?: number;
  /** Never answers (0), or stops after so many bytes. */
  stallAfter?: number;
  /** Sends this instead of the content. */
  content?: Buffer;
  /** Answers 200 with the whole content to a range request. */
  ignoreRange?: boolean;
  /** Sends a range that was not asked for. */
  wrongRange?: boolean;
  /** Milliseconds to wait before answering. */
  delay?: number;
  /** Goes on sending after the content until the client hangs up: bytes as fast as they go, or one in so many ms. */
  endless?: 'fast' | number;
}

/** Files of at least this many bytes are stored as large files are: by SHA-256, on the CDN. */
const lfsBytes = 1000;
export const commitOf = (name: string): string => createHash('sha1').update(name).digest('hex');
export const sha256 = (data: Buffer | string): string => createHash('sha256').update(data).digest('hex');
export const gitHash = (data: Buffer | string): string =>
  createHash('sha1')
    .update(`blob ${Buffer.byteLength(data)}\0`)
    .update(data)
    .digest('hex');

export class FakeHub {
  readonly requests: Request[] = [];
  fault: (request: Request) => Fault | undefined = () => undefined;
  /** Entries of a page of the tree. */
  pageSize = 3;
  readonly #servers: Server[] = [];
  endpoint = '';
  #cdn = '';
  /** Bytes sent beyond what was asked for. */
  surplus = 0;

  private constructor(readonly repos: Record<string, FakeRepo>) {}

  /** Serves `repos` by name (`datasets/owner/name` for data sets) until the test ends. */
  static async start(t: TestContext, repos: Record<string, FakeRepo>): Promise<FakeHub> {
    const hub = new FakeHub(repos);
    hub.endpoint = await hub.#listen((request, answer) => hub.#serve(request, answer));
    // another host as well as another port: some clients tell by the host alone
    hub.#cdn = await hub.#listen((request, answer) => hub.#serveCdn(request, answer), '127.0.0.2');
    t.after(() => hub.stop());
    return hub;
  }

  /** The address of the CDN: another host and port. */
  get cdn(): string {
    return this.#cdn;
  }

  stop(): void {
    for (const server of this.#servers) {
      server.close();
      server.closeAllConnections();
    }
  }

  of(kind: Request['kind'], path?: string): Request[] {
    return this.requests.filter((request) => request.kind === kind && (path === undefined || request.path === path));
  }

  async #listen(
    handler: (request: IncomingMessage, answer: ServerResponse) => Promise<void>,
    host = '127.0.0.1',
  ): Promise<string> {
    const server = createServer((request, answer) => {
      handler(request, answer).catch((error) => answer.destroy(error));
    });
    this.#servers.push(server);
    await new Promise<void>((ready) => server.listen(0, host, ready));
    return `http://${host}:${(server.address() as AddressInfo).port}`;
  }

  async #note(kind: Request['kind'], path: string, request: IncomingMessage): Promise<Fault> {
    const { range, authorization } = request.headers;
    const entry: Request = { kind, path, range, authorization, nth: this.of(kind, path).length };
    this.requests.push(entry);
    const fault = this.fault(entry) ?? {};
    if (fault.delay) await new Promise((resolve) => setTimeout(resolve, fault.delay));
    return fault;
  }

  async #serve(request: IncomingMessage, answer: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.endpoint);
    const path = decodeURIComponent(url.pathname);
    const api = /^\/api\/(models|datasets)\/([^/]+\/[^/]+)\/(revision|tree)\/(.+)$/.exec(path);
    const file = /^\/(datasets\/)?([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(path);
    const name = api ? `${api[1] === 'datasets' ? 'datasets/' : ''}${api[2]}` : `${file?.[1] ?? ''}${file?.[2]}`;
    const repo = this.repos[name];
    const refuse = (status: number, code: string) => {
      answer.writeHead(status, { 'x-error-code': code, 'content-type': 'application/json' });
      answer.end(JSON.stringify({ error: `${code} ${request.headers.authorization ?? ''}` }));
    };
    if (!repo) return refuse(request.headers.authorization ? 404 : 401, 'RepoNotFound');
    const admitted = repo.token === undefined || request.headers.authorization === `Bearer ${repo.token}`;
    const commits = new Map(Object.entries(repo.refs ?? { main: commitOf('main') }));
    const commitFor = (revision: string) =>
      commits.get(revision) ?? [...commits.values()].find((commit) => commit === revision);
    if (api) {
      const kind = api[3] === 'revision' ? 'info' : 'tree';
      const fault = await this.#note(kind, api[2] as string, request);
      if (!admitted && !repo.gated) return refuse(request.headers.authorization ? 404 : 401, 'RepoNotFound');
      const commit = commitFor(api[4] as string);
      if (!commit) return refuse(404, 'RevisionNotFound');
      if (kind === 'info') {
        const info = { _id: '1', id: name, private: false, downloads: 0, gated: false, likes: 0, sha: commit };
        return this.#send(answer, fault, Buffer.from(JSON.stringify({ ...info, lastModified: '2026-01-01' })));
      }
      const all = repo.tree ?? tree(repo);
      const from = Number(url.searchParams.get('cursor') ?? 0);
      const next = from + this.pageSize;
      const link = `<${this.endpoint}${url.pathname}?recursive=true&cursor=${next}>; rel="next"`;
      const headers: Record<string, string> = next < all.length ? { link } : {};
      return this.#send(answer, fault, Buffer.from(JSON.stringify(all.slice(from, next))), headers);
    }
    const content = file?.[4] === undefined ? undefined : repo.files[file[4]];
    const fault = await this.#note('resolve', file?.[4] ?? path, request);
    if (!admitted) return refuse(request.headers.authorization ? 403 : 401, repo.gated ? 'GatedRepo' : 'RepoNotFound');
    if (!file || content === undefined || !commitFor(file[3] as string)) return refuse(404, 'EntryNotFound');
    const commit = { 'x-repo-commit': commitFor(file[3] as string) as string };
    if (Buffer.byteLength(content) < lfsBytes || fault.status !== undefined) {
      const headers = { etag: `"${gitHash(content)}"`, ...commit };
      return this.#send(answer, fault, Buffer.from(content), headers, request.headers.range);
    }
    answer.writeHead(302, {
      ...commit,
      location: `${this.#cdn}/${encodeURIComponent(name)}/${file[4]}?signature=secret-of-the-cdn`,
      'x-linked-size': String(Buffer.byteLength(content)),
      'x-linked-etag': `"${sha256(content)}"`,
    });
    answer.end();
  }

  async #serveCdn(request: IncomingMessage, answer: ServerResponse): Promise<void> {
    const [, name = '', ...rest] = new URL(request.url ?? '/', this.#cdn).pathname.split('/');
    const path = rest.join('/');
    const fault = await this.#note('cdn', path, request);
    const content = Buffer.from(this.repos[decodeURIComponent(name)]?.files[path] ?? '');
    this.#send(answer, fault, content, { etag: `"${sha256(content)}"` }, request.headers.range);
  }

  #endless(answer: ServerResponse, how: 'fast' | number): void {
    const piece = Buffer.alloc(how === 'fast' ? 65_536 : 1, ' ');
    const more = (): void => {
      if (answer.destroyed) return;
      this.surplus += piece.length;
      answer.write(piece, () => (how === 'fast' ? setImmediate(more) : setTimeout(more, how)));
    };
    more();
  }

  #send(
    answer: ServerResponse,
    fault: Fault,
    content: Buffer,
    headers: Record<string, string> = {},
    range?: string,
  ): void {
    if (fault.stallAfter === 0) return;
    if (fault.status !== undefined) {
      answer.writeHead(fault.status, fault.headers).end('no');
      return;
    }
    const whole = fault.content ?? content;
    let from = 0;
    let status = 200;
    const asked = /^bytes=(\d+)-$/.exec(range ?? '');
    if (asked && !fault.ignoreRange) {
      from = Number(asked[1]);
      if (from >= whole.length) {
        answer.writeHead(416, { 'content-range': `bytes */${whole.length}` }).end();
        return;
      }
      status = 206;
      headers['content-range'] = `bytes ${fault.wrongRange ? 0 : from}-${whole.length - 1}/${whole.length}`;
    }
    const body = whole.subarray(from);
    if (fault.endless !== undefined) {
      answer.writeHead(status, { ...headers, ...fault.headers });
      answer.write(body);
      this.#endless(answer, fault.endless);
      return;
    }
    answer.writeHead(status, { 'content-length': String(body.length), ...headers, ...fault.headers });
    if (fault.cutAfter !== undefined) answer.write(body.subarray(0, fault.cutAfter), () => answer.destroy());
    else if (fault.stallAfter !== undefined) answer.write(body.subarray(0, fault.stallAfter));
    else answer.end(body);
  }
}

/** What the hub lists for a repository: directories too, and the hashes of both kinds of files. */
export function tree({ files }: FakeRepo): object[] {
  const folders = new Set(Object.keys(files).flatMap((path) => (path.includes('/') ? [path.split('/')[0]] : [])));
  return [
    ...[...folders].map((path) => ({ type: 'directory', path, size: 0, oid: commitOf(String(path)) })),
    ...Object.entries(files).map(([path, content]) => {
      const size = Buffer.byteLength(content);
      const plain = { type: 'file', path, size, oid: gitHash(content) };
      return size < lfsBytes
        ? plain
        : { ...plain, oid: commitOf(path), lfs: { oid: sha256(content), size, pointerSize: 130 } };
    }),
  ];
}
