import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type RequestListener } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { InvalidArgumentError, InvalidFileError, LoadError } from '../lib/errors.js';
import { download } from '../lib/libtorch/download.js';
import { extract } from '../lib/libtorch/extract.js';
import { cacheDirectory, cachedLibtorch, findLibtorch } from '../lib/libtorch/find.js';
import { installLibtorch, type Manifest } from '../lib/libtorch/install.js';
import { packageRoot } from '../lib/native.js';
import { fakeLibtorch, temporaryFolder, writeScript } from './support/files.js';
import { libtorchEntries, zip } from './support/zip.js';

const run = promisify(execFile);
const main = join(packageRoot, 'dist', 'lib', 'cli', 'main.js');
const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex');

/** An environment in which nothing is found or configured but what a test sets. */
function bareEnv(cache: string, more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  return { PATH: process.env.PATH, EEPO_CACHE: cache, EEPO_PYTHON: '/nonexistent/python', ...more };
}

async function serve(t: TestContext, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A server of one file with ranges and an ETag; `cut(n)` says after how many bytes request n is broken off. */
function fileServer(data: () => Buffer, etag: () => string, cut: (request: number) => number | undefined) {
  const seen: IncomingMessage['headers'][] = [];
  const listener: RequestListener = (request, response) => {
    const number = seen.push(request.headers) - 1;
    const whole = data();
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const partial = from > 0 && request.headers['if-range'] === etag();
    const body = partial ? whole.subarray(from) : whole;
    response.writeHead(partial ? 206 : 200, {
      etag: etag(),
      'content-length': body.length,
      ...(partial ? { 'content-range': `bytes ${from}-${whole.length - 1}/${whole.length}` } : {}),
    });
    const end = cut(number);
    if (end === undefined) response.end(body);
    else response.write(body.subarray(0, end), () => setTimeout(() => response.socket?.destroy(), 300));
  };
  return { seen, listener };
}

describe('download', () => {
  const data = randomBytes(200_000);

  it('takes a broken transfer up again where it stopped', async (t) => {
    const target = join(temporaryFolder(t), 'file');
    const server = fileServer(
      () => data,
      () => '"v1"',
      (request) => (request === 0 ? 70_000 : undefined),
    );
    await download(await serve(t, server.listener), target, { env: {} });
    assert.deepEqual(readFileSync(target), data);
    assert.equal(server.seen.length, 2);
    const from = Number(/^bytes=(\d+)-$/.exec(server.seen[1]?.range ?? '')?.[1]);
    assert.ok(from > 0 && from <= 70_000, `resumed at ${from}`);
    assert.equal(server.seen[1]?.['if-range'], '"v1"');
    assert.ok(!existsSync(`${target}.part`) && !existsSync(`${target}.part.json`));
  });

  it('goes on in a later call from the part that was kept', async (t) => {
    const target = join(temporaryFolder(t), 'file');
    const server = fileServer(
      () => data,
      () => '"v1"',
      (request) => (request === 0 ? 50_000 : undefined),
    );
    const url = await serve(t, server.listener);
    await assert.rejects(download(url, target, { env: {}, retries: 0 }), LoadError);
    assert.ok(existsSync(`${target}.part`) && !existsSync(target));
    await download(url, target, { env: {} });
    assert.deepEqual(readFileSync(target), data);
    assert.match(server.seen[1]?.range ?? '', /^bytes=[1-9]/);
  });

  it('starts over when the file on the server is another one', async (t) => {
    const target = join(temporaryFolder(t), 'file');
    const other = randomBytes(150_000);
    let changed = false;
    const server = fileServer(
      () => (changed ? other : data),
      () => (changed ? '"v2"' : '"v1"'),
      () => (changed ? undefined : 50_000),
    );
    const url = await serve(t, server.listener);
    await assert.rejects(download(url, target, { env: {}, retries: 0 }), LoadError);
    changed = true;
    await download(url, target, { env: {} });
    assert.deepEqual(readFileSync(target), other);
  });

  it('reports the answer of the server and does not retry it', async (t) => {
    const target = join(temporaryFolder(t), 'file');
    let requests = 0;
    const url = await serve(t, (_request, response) => {
      requests++;
      response.writeHead(404).end();
    });
    await assert.rejects(download(url, target, { env: {} }), { code: 'EEPO_LOAD', message: /404/ });
    assert.equal(requests, 1);
  });

  it('goes through a proxy, and not for hosts in NO_PROXY', async (t) => {
    const folder = temporaryFolder(t);
    const origin = await serve(t, (_request, response) => response.end(data));
    const tunnels: string[] = [];
    const sockets: Socket[] = [];
    const proxy = createServer((_request, response) => response.writeHead(500).end());
    proxy.on('connect', (request, client: Socket, head: Buffer) => {
      tunnels.push(request.url ?? '');
      const [host = '', port] = (request.url ?? '').split(':');
      const upstream = connect(Number(port), host, () => {
        client.write('HTTP/1.1 200 Connection established\r\n\r\n');
        upstream.write(head);
        upstream.pipe(client).pipe(upstream);
      });
      sockets.push(client, upstream);
    });
    proxy.listen(0, '127.0.0.1');
    await new Promise((resolve) => proxy.once('listening', resolve));
    t.after(() => {
      for (const socket of sockets) socket.destroy();
      proxy.close();
    });
    const address = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;

    await download(origin, join(folder, 'proxied'), { env: { HTTP_PROXY: address } });
    assert.deepEqual(readFileSync(join(folder, 'proxied')), data);
    assert.deepEqual(tunnels, [new URL(origin).host]);

    await download(origin, join(folder, 'direct'), { env: { HTTP_PROXY: address, NO_PROXY: '127.0.0.1' } });
    assert.deepEqual(readFileSync(join(folder, 'direct')), data);
    assert.equal(tunnels.length, 1);
  });
});

describe('extract', () => {
  const cases: [string, Parameters<typeof zip>[0], RegExp][] = [
    ['a path that climbs out', [{ name: '../evil.so', data: 'x' }], /unsafe: invalid relative path: \.\.\/evil\.so/],
    ['an absolute path', [{ name: '/tmp/evil.so', data: 'x' }], /unsafe: absolute path/],
    ['a symbolic link', [{ name: 'torch/lib/a.so', data: '/etc/passwd', mode: 0o120777 }], /a\.so is a symbolic link/],
    ['a wrong CRC', [{ name: 'torch/lib/libc10.so', data: 'x', crc: 1 }], /checksum of torch\/lib\/libc10\.so/],
  ];
  for (const [what, bad, message] of cases) {
    it(`refuses ${what}`, async (t) => {
      const folder = temporaryFolder(t);
      const archive = join(folder, 'bad.zip');
      const good = libtorchEntries('torch').filter(({ name }) => !bad.some((entry) => entry.name === name));
      writeFileSync(archive, zip([...good, ...bad]));
      await assert.rejects(extract(archive, join(folder, 'deep', 'out')), { code: 'EEPO_INVALID_FILE', message });
      assert.ok(!existsSync(join(folder, 'deep', 'evil.so')) && !existsSync(join(folder, 'evil.so')));
    });
  }

  it('refuses what is no zip and what holds no libtorch', async (t) => {
    const folder = temporaryFolder(t);
    const archive = join(folder, 'a.zip');
    writeFileSync(archive, 'hello');
    await assert.rejects(extract(archive, join(folder, 'out')), { message: /is not a readable zip archive/ });
    writeFileSync(archive, zip([{ name: 'torch/readme', data: 'x' }]));
    await assert.rejects(extract(archive, join(folder, 'out')), { message: /holds no libtorch/ });
  });

  it('keeps the needed parts only', async (t) => {
    const folder = temporaryFolder(t);
    const archive = join(folder, 'a.zip');
    writeFileSync(archive, zip(libtorchEntries('libtorch')));
    await extract(archive, join(folder, 'out'));
    assert.deepEqual(readdirSync(join(folder, 'out')).sort(), ['include', 'lib', 'share']);
    assert.deepEqual(readdirSync(join(folder, 'out', 'lib')).sort(), ['libc10.so', 'libtorch_cpu.so']);
  });
});

describe('install', () => {
  const wheelName = 'torch-2.13.0+cpu-cp311-cp311-test.whl';
  function setUp(t: TestContext, version = '2.13.0') {
    const folder = temporaryFolder(t);
    const wheel = join(folder, wheelName);
    const bytes = zip(libtorchEntries('torch', version));
    writeFileSync(wheel, bytes);
    const cache = join(folder, 'cache');
    const target = join(cache, 'libtorch', '2.13.0-cpu');
    const manifest = () => JSON.parse(readFileSync(join(target, 'eepo-manifest.json'), 'utf8')) as Manifest;
    return { folder, wheel, bytes, cache, target, manifest, env: bareEnv(cache) };
  }
  const leftOvers = (cache: string) => readdirSync(join(cache, 'libtorch'));

  it('accepts a local file; records an unknown checksum', async (t) => {
    const { wheel, bytes, target, env, manifest } = setUp(t);
    const installed = await installLibtorch({ from: wheel, env });
    assert.deepEqual(installed, { path: target, version: '2.13.0', source: 'cache', already: false });
    const { sha256: sum, verified, file } = manifest();
    assert.deepEqual({ sum, verified, file }, { sum: sha256(bytes), verified: false, file: wheelName });
    assert.deepEqual(findLibtorch({ env }), { path: target, version: '2.13.0', source: 'cache' });
    assert.equal((await installLibtorch({ from: wheel, env })).already, true);
    assert.equal((await installLibtorch({ from: wheel, env, force: true })).already, false);
  });

  it('verifies a known checksum', async (t) => {
    const { wheel, bytes, env, manifest } = setUp(t);
    await installLibtorch({ from: wheel, env, checksums: { [wheelName]: sha256(bytes) } });
    assert.equal(manifest().verified, true);
  });

  it('refuses a wrong checksum and leaves nothing behind', async (t) => {
    const { wheel, cache, env } = setUp(t);
    const checksums = { [wheelName]: '0'.repeat(64) };
    await assert.rejects(installLibtorch({ from: wheel, env, checksums }), {
      code: 'EEPO_INVALID_FILE',
      message: /the SHA-256 is [0-9a-f]{64}, expected 0{64}/,
    });
    assert.deepEqual(leftOvers(cache), []);
  });

  it('accepts a local folder', async (t) => {
    const { folder, target, env, manifest } = setUp(t);
    await installLibtorch({ from: fakeLibtorch(join(folder, 'torch'), '2.13.0'), env });
    assert.ok(existsSync(join(target, 'lib', 'libtorch_cpu.so')));
    assert.equal(manifest().sha256, null);
  });

  it('refuses another version, a missing path and a malformed version', async (t) => {
    const { wheel, cache, env } = setUp(t, '2.12.1');
    await assert.rejects(installLibtorch({ from: wheel, env }), { message: /holds libtorch 2\.12\.1, not 2\.13\.0/ });
    await assert.rejects(installLibtorch({ from: '/nonexistent/torch.whl', env }), InvalidFileError);
    await assert.rejects(installLibtorch({ version: '../../x', env }), InvalidArgumentError);
    assert.deepEqual(leftOvers(cache), []);
  });

  it('a broken archive leaves the installed one as it was', async (t) => {
    const { folder, wheel, target, env } = setUp(t);
    await installLibtorch({ from: wheel, env });
    const before = readFileSync(join(target, 'eepo-manifest.json'));
    const broken = join(folder, 'broken.zip');
    writeFileSync(broken, readFileSync(wheel).subarray(0, 200));
    await assert.rejects(installLibtorch({ from: broken, env, force: true }), InvalidFileError);
    assert.deepEqual(readFileSync(join(target, 'eepo-manifest.json')), before);
  });

  it('clears away what a killed install left', async (t) => {
    const { wheel, cache, env } = setUp(t);
    mkdirSync(join(cache, 'libtorch', '.tmp-killed', 'libtorch'), { recursive: true });
    await installLibtorch({ from: wheel, env });
    assert.deepEqual(leftOvers(cache), ['2.13.0-cpu']);
  });

  it('downloads the archive and then needs it no more', async (t) => {
    const { cache, manifest, env } = setUp(t);
    const archive = zip(libtorchEntries('libtorch'));
    const paths: string[] = [];
    const mirror = await serve(t, (request, response) => {
      paths.push(request.url ?? '');
      response.end(archive);
    });
    await installLibtorch({ env: { ...env, EEPO_LIBTORCH_MIRROR: mirror } });
    assert.deepEqual(paths, ['/libtorch-shared-with-deps-2.13.0%2Bcpu.zip']);
    assert.equal(manifest().origin, `${mirror}${paths[0]}`);
    assert.deepEqual(readdirSync(join(cache, 'downloads')), []);
  });

  it('goes on to pip when the archive cannot be had', async (t) => {
    const { folder, wheel, manifest, env } = setUp(t);
    const log = join(folder, 'pip.log');
    // The fake pip copies the wheel into the folder after --dest.
    const python = writeScript(
      join(folder, 'python'),
      `echo "$@" >> ${log}\nwhile [ "$1" != --dest ]; do shift; done\ncp ${wheel} "$2/"`,
    );
    const mirror = await serve(t, (_request, response) => response.writeHead(503).end());
    await installLibtorch({ env: { ...env, EEPO_LIBTORCH_MIRROR: mirror, EEPO_PYTHON: python } });
    assert.equal(manifest().origin, 'pip');
    assert.match(readFileSync(log, 'utf8'), /^-m pip download --no-deps .* torch==2\.13\.0(\+cpu)?\n$/);
  });

  it('names the reason of every source when none serves', async (t) => {
    const { folder, cache, env } = setUp(t);
    const python = writeScript(join(folder, 'python'), 'echo "ERROR: no matching thing" >&2; exit 1');
    const mirror = await serve(t, (_request, response) => response.writeHead(503).end());
    const failing = installLibtorch({ env: { ...env, EEPO_LIBTORCH_MIRROR: mirror, EEPO_PYTHON: python } });
    await assert.rejects(failing, (error: LoadError) => {
      assert.ok(error instanceof LoadError);
      assert.match(error.message, /archive: .*503/);
      assert.match(error.message, /pip: ERROR: no matching thing/);
      assert.match(error.message, /npx eepo libtorch install --from/);
      return true;
    });
    assert.deepEqual(leftOvers(cache), []);
  });

  it('two at once: one installs, the other waits and finds it done', async (t) => {
    const { wheel, env, cache } = setUp(t);
    const command = [main, 'libtorch', 'install', '--from', wheel];
    const outputs = await Promise.all([1, 2, 3].map(() => run(process.execPath, command, { env })));
    const texts = outputs.map(({ stdout }) => stdout);
    assert.equal(texts.filter((text) => text.includes('2.13.0 installed: ')).length, 1, texts.join());
    assert.equal(texts.filter((text) => text.includes(' is already installed: ')).length, 2, texts.join());
    assert.deepEqual(leftOvers(cache), ['2.13.0-cpu']);
  });
});

describe('findLibtorch', () => {
  it('looks at LIBTORCH, then the cache, then a Python', (t) => {
    const folder = temporaryFolder(t);
    const cache = join(folder, 'cache');
    const own = fakeLibtorch(join(folder, 'own'), '2.13.1');
    const installed = fakeLibtorch(cachedLibtorch('2.13.0', { EEPO_CACHE: cache }), '2.13.0');
    const ofPython = fakeLibtorch(join(folder, 'site-packages', 'torch'), '2.13.2');
    const python = writeScript(join(folder, 'python'), `echo ${ofPython}`);
    const empty = join(folder, 'empty');

    const all = { EEPO_CACHE: cache, EEPO_PYTHON: python };
    assert.equal(findLibtorch({ env: { ...all, LIBTORCH: own } }).path, own);
    assert.equal(findLibtorch({ env: all }).path, installed);
    const last = findLibtorch({ env: { ...all, EEPO_CACHE: empty } });
    assert.deepEqual(last, { path: ofPython, version: '2.13.2', source: 'python' });
  });

  it('refuses another minor version, saying which is needed', (t) => {
    const folder = temporaryFolder(t);
    const env = bareEnv(join(folder, 'cache'), { LIBTORCH: fakeLibtorch(join(folder, 'old'), '2.12.0') });
    assert.throws(() => findLibtorch({ env }), {
      code: 'EEPO_LOAD',
      message: /it is libtorch 2\.12\.0; 2\.13 is needed/,
    });
  });

  it('does not look past a LIBTORCH that does not serve', (t) => {
    const folder = temporaryFolder(t);
    const cache = join(folder, 'cache');
    fakeLibtorch(cachedLibtorch('2.13.0', { EEPO_CACHE: cache }), '2.13.0');
    const env = bareEnv(cache, { LIBTORCH: join(folder, 'nowhere') });
    assert.throws(() => findLibtorch({ env }), { message: /nowhere does not exist/ });
  });

  it('the cache folder follows EEPO_CACHE, then XDG_CACHE_HOME', () => {
    assert.equal(cacheDirectory({ EEPO_CACHE: '/a', XDG_CACHE_HOME: '/b' }), '/a');
    assert.equal(cacheDirectory({ XDG_CACHE_HOME: '/b' }), '/b/eepo');
    assert.match(cacheDirectory({}), /\.cache\/eepo$/);
  });
});
