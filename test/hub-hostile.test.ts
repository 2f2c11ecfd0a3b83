/** A hub, a mirror or somebody between that lies: what it may not achieve. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';
import { download, type HubOptions, type HubProgress, modelFolder } from '../lib/hub/index.js';
import { proxyAgent } from '../lib/proxy.js';
import { embeddedModel, ROOT } from './support/data.js';
import { FakeHub, type FakeRepo, type Fault, gitHash, type Request, sha256, tree } from './support/fake-hub.js';
import { temporaryFolder } from './support/files.js';

const secret = 'hf_TheSecretOfTheHostileTests';

const model = (): FakeRepo => ({
  files: Object.fromEntries(readdirSync(embeddedModel).map((name) => [name, readFileSync(join(embeddedModel, name))])),
});

async function setting(t: TestContext, repo: FakeRepo, more: HubOptions = {}) {
  const hub = await FakeHub.start(t, { 'owner/name': repo, 'datasets/owner/name': repo });
  const notes: HubProgress[] = [];
  const options: HubOptions = {
    endpoint: hub.endpoint,
    cacheDir: temporaryFolder(t),
    env: {},
    retries: 1,
    retryDelay: 5,
    token: secret,
    onProgress: (progress) => notes.push(progress),
    ...more,
  };
  return { hub, options, notes };
}

/** Every file below a folder, with its path. */
const filesBelow = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));

describe('names in a repository', () => {
  it('are refused before anything is fetched, and never reach the terminal as they are', async (t) => {
    const repo = model();
    const { hub, options } = await setting(t, repo);
    const names = [
      '../evil',
      'a/../../evil',
      '/etc/evil',
      './evil',
      'a/./evil',
      'a//evil',
      'evil/',
      '..',
      '',
      'a\\..\\evil',
      '\\\\server\\evil',
      'C:/evil',
      'c:evil',
      'evil\0.json',
      'evil\nname',
      'evil\x1b]0;title\x07',
      'evil\x9b2J',
      `${'n'.repeat(300)}`,
      Array.from({ length: 400 }, () => 'deep').join('/'),
      null,
      7,
      ['a'],
      { path: 'a' },
    ];
    for (const path of names) {
      repo.tree = [...tree(repo), { type: 'file', path, size: 4, oid: gitHash('evil') }];
      await assert.rejects(
        download('owner/name', { ...options, type: 'dataset' }),
        (error: Error & { code: string }) => {
          assert.equal(error.code, 'EEPO_INVALID_FILE', String(error));
          assert.match(error.message, /nothing was downloaded/);
          // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
          assert.doesNotMatch(error.message, /[\x00-\x1f\x7f-\x9f]/);
          assert.ok(error.message.length < 400);
          return true;
        },
      );
    }
    repo.tree = [...tree(repo), { type: 'file', path: 'config.json', size: 4, oid: gitHash('evil') }];
    await assert.rejects(modelFolder('owner/name', options), { code: 'EEPO_HUB', message: /lists config\.json twice/ });
    assert.equal(hub.of('resolve').length, 0);
  });

  it('that a disk cannot hold beside each other are an error of ours', async (t) => {
    const { options } = await setting(t, { files: { a: 'a file', 'a/b': 'below it' } });
    await assert.rejects(download('owner/name', { ...options, type: 'dataset' }), { code: 'EEPO_HUB' });
  });
});

describe('what has no end', () => {
  it('pages without files, and folders without end, are given up', async (t) => {
    for (const page of ['[]', JSON.stringify(Array(900).fill({ type: 'directory', path: 'd', size: 0, oid: 'd' }))]) {
      const { hub, options } = await setting(t, model());
      hub.fault = ({ kind, path }) =>
        kind === 'tree'
          ? {
              content: Buffer.from(page),
              headers: { link: `<${hub.endpoint}/api/models/${path}/tree/main?x>; rel="next"` },
            }
          : undefined;
      await assert.rejects(modelFolder('owner/name', options), {
        code: 'EEPO_HUB',
        message: /more than 1000 pages|more than 100000 files/,
      });
    }
  });

  it('an answer that grows, drips or unpacks without end is cut off', async (t) => {
    const bomb = gzipSync(Buffer.alloc(100e6), { level: 1 });
    const { hub, options } = await setting(t, model());
    const faults: [string, (request: Request) => Fault | undefined, RegExp][] = [
      ['endless', ({ kind }) => (kind === 'info' ? { endless: 'fast' } : undefined), /longer than 64 MB/],
      [
        'a bomb',
        ({ kind }) => (kind === 'tree' ? { content: bomb, headers: { 'content-encoding': 'gzip' } } : undefined),
        /longer than 64 MB/,
      ],
    ];
    for (const [what, fault, message] of faults) {
      hub.fault = fault;
      const before = process.memoryUsage().rss;
      await assert.rejects(modelFolder('owner/name', options), { code: 'EEPO_HUB', message }, what);
      const grown = (process.memoryUsage().rss - before) / 2 ** 20;
      assert.ok(grown < 400, `${what}: ${grown.toFixed(0)} MiB`);
    }
    hub.fault = ({ kind }) => (kind === 'info' ? { endless: 20 } : undefined);
    const start = performance.now();
    await assert.rejects(modelFolder('owner/name', { ...options, timeout: 60 }), /does not come to its end/);
    assert.ok(performance.now() - start < 10_000);
  });

  it('a file that is longer than it was announced, packed or not, never gets its name', async (t) => {
    const weights = readFileSync(join(embeddedModel, 'model.safetensors'));
    const cases: [string, Fault][] = [
      ['endless', { endless: 'fast' }],
      ['packed', { content: gzipSync(Buffer.alloc(100e6), { level: 1 }), headers: { 'content-encoding': 'gzip' } }],
    ];
    for (const [what, fault] of cases) {
      const { hub, options } = await setting(t, model());
      hub.fault = ({ path, kind }) => (kind === 'cdn' && path === 'model.safetensors' ? fault : undefined);
      await assert.rejects(
        modelFolder('owner/name', options),
        { code: 'EEPO_HUB', message: /model\.safetensors is longer than the 1414288 bytes/ },
        what,
      );
      for (const path of filesBelow(options.cacheDir as string)) {
        assert.ok(!path.endsWith(sha256(weights)) && readFileSync(path).length <= weights.length, path);
      }
      assert.ok(hub.surplus < 50e6, `${hub.surplus} bytes were taken`);
      // What is left of it does not spoil the next attempt.
      hub.fault = () => undefined;
      const folder = await modelFolder('owner/name', options);
      assert.deepEqual(readFileSync(join(folder, 'model.safetensors')), weights);
    }
  });

  it('redirects in a circle are given up', async (t) => {
    const { hub, options } = await setting(t, model());
    const location = () => `${hub.endpoint}/owner/name/resolve/main/config.json`;
    hub.fault = ({ kind }) => (kind === 'resolve' ? { status: 302, headers: { location: location() } } : undefined);
    await assert.rejects(modelFolder('owner/name', options), { code: 'EEPO_HUB', message: /redirect count exceeded/ });
    assert.ok(hub.of('resolve').length < 300);
  });
});

describe('the token', () => {
  it('follows no redirect and no next page to another host or port', async (t) => {
    const { hub, options } = await setting(t, model());
    const other = await FakeHub.start(t, { 'owner/name': model() });
    for (const target of [hub.cdn, other.endpoint]) {
      const faults: ((request: Request) => Fault | undefined)[] = [
        ({ kind, path }) =>
          kind === 'tree'
            ? { headers: { link: `<${target}/api/models/${path}/tree/main?cursor=3>; rel="next"` } }
            : undefined,
        ({ kind, path }) =>
          kind === 'resolve'
            ? { status: 307, headers: { location: `${target}/owner/name/resolve/main/${path}` } }
            : undefined,
        ({ kind, path }) =>
          kind === 'info'
            ? { status: 301, headers: { location: `${target}/api/models/${path}/revision/main` } }
            : undefined,
      ];
      for (const fault of faults) {
        hub.fault = fault;
        hub.requests.length = 0;
        other.requests.length = 0;
        await modelFolder('owner/name', { ...options, cacheDir: temporaryFolder(t) }).catch(() => {});
        const elsewhere = [...hub.of('cdn'), ...other.requests];
        assert.ok(elsewhere.length > 0, 'the other host was asked');
        for (const { authorization, path } of elsewhere) assert.equal(authorization, undefined, path);
        assert.ok(hub.requests.some(({ authorization }) => authorization === `Bearer ${secret}`));
      }
    }
  });

  it('is not sent by plain http to another machine, and that is said', async (t) => {
    const { hub, options, notes } = await setting(t, model());
    // The same server, by an address that is not known to be this machine's.
    const endpoint = hub.endpoint.replace('127.0.0.1', '[::ffff:7f00:1]');
    await modelFolder('owner/name', { ...options, endpoint, weights: false });
    assert.ok(hub.requests.length > 0);
    for (const { authorization } of hub.requests) assert.equal(authorization, undefined);
    assert.ok(notes.some((note) => note.phase === 'note' && /not https: .*token is not sent/.test(note.text)));
    assert.ok(!JSON.stringify(notes).includes(secret));
  });

  it('is in nothing that failing commands print or write', async (t) => {
    const { hub } = await setting(t, model());
    hub.repos['owner/gated'] = { ...model(), gated: true, token: 'hf_another' };
    const home = temporaryFolder(t);
    const out = join(home, 'runs');
    mkdirSync(join(home, 'hub'), { recursive: true });
    writeFileSync(join(home, 'token'), `${secret}-of-the-file\n`);
    const wrong = Buffer.alloc(5000, 7);
    const echo = (kind: string): Fault => ({ content: Buffer.from(`{"error": "${kind} Bearer ${secret}"}`) });
    const faults: [string, (request: Request) => Fault | undefined][] = [
      ['no fault', () => undefined],
      ['an answer that repeats the token', ({ kind }) => (kind === 'info' ? echo(kind) : undefined)],
      ['a list that repeats it', ({ kind }) => (kind === 'tree' ? echo(kind) : undefined)],
      ['refused', () => ({ status: 401, headers: { 'www-authenticate': `Bearer ${secret}` } })],
      ['forbidden', ({ kind }) => (kind === 'cdn' ? { status: 403 } : undefined)],
      ['busy', () => ({ status: 503, headers: { 'retry-after': '1000' } })],
      ['broken', ({ kind }) => (kind === 'cdn' ? { cutAfter: 10 } : undefined)],
      ['other bytes', ({ kind }) => (kind === 'cdn' ? { content: wrong } : undefined)],
      [
        'a redirect into nothing',
        ({ kind }) => (kind === 'resolve' ? { status: 302, headers: { location: `http://${secret}@[/` } } : undefined),
      ],
    ];
    const eepo = async (args: string[], env: NodeJS.ProcessEnv): Promise<string> => {
      const child = spawn(process.execPath, [join(ROOT, 'dist/lib/cli/main.js'), ...args], { cwd: home, env });
      let said = '';
      for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (said += text));
      await once(child, 'close');
      return said;
    };
    const base = { PATH: process.env.PATH, HF_HOME: home, HF_ENDPOINT: hub.endpoint, HF_HUB_DOWNLOAD_TIMEOUT: '1' };
    const dryRun = ['train', join(ROOT, 'configs/eepo.toml'), '--set', 'model.path=owner/name', '--out', out];
    const commands: [string[], NodeJS.ProcessEnv][] = [
      [['download', 'owner/name'], { HF_TOKEN: secret }],
      [['download', 'owner/gated'], {}],
      [[...dryRun, '--dry-run'], { HUGGING_FACE_HUB_TOKEN: secret }],
      [['doctor', '--json'], { HF_TOKEN: secret }],
    ];
    let printed = 0;
    for (const [what, fault] of faults) {
      hub.fault = fault;
      const runs = what === 'no fault' ? commands : commands.slice(0, 1);
      for (const [args, env] of runs) {
        const said = await eepo(args, { ...base, ...env });
        printed += said.length;
        assert.ok(!said.includes(secret), `${what}: ${args.join(' ')}: ${said}`);
      }
    }
    assert.ok(printed > 2000, 'they did say something');
    const written = filesBelow(home).filter((path) => path !== join(home, 'token'));
    assert.ok(written.length > 3);
    for (const path of written) assert.ok(!readFileSync(path).includes(secret), path);
  });

  it('nor the password of a proxy is shown where the address is wrong', () => {
    for (const HTTPS_PROXY of ['user:hunter2@proxy:3128', 'http://user:hunter2@[/', 'socks://user:hunter2@proxy']) {
      assert.throws(
        () => proxyAgent({ HTTPS_PROXY }),
        (error: Error & { code: string; input?: unknown }) => {
          assert.equal(error.code, 'EEPO_INVALID_ARGUMENT');
          assert.match(error.message, /HTTPS_PROXY must be a URL/);
          return error.cause === undefined && !`${error.stack}${error.input}`.includes('hunter2');
        },
      );
    }
  });
});
