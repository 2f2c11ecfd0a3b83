/** `eepo watch`: who may ask, what is answered, and that it says what a run does whatever happens to its folder. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { appendFileSync, cpSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { type IncomingHttpHeaders, request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { RunLock } from '../lib/train/run-lock.js';
import { RunFollower } from '../lib/watch/follow-run.js';
import { cookie, isLoopback, refusal, sameToken } from '../lib/watch/guard.js';
import { type WatchOptions, type WatchServer, watchRuns } from '../lib/watch/server.js';
import type { LiveData } from '../lib/watch/view.js';
import { ROOT } from './support/data.js';
import { temporaryFolder } from './support/files.js';
import { HOSTILE, line, makeRun, metricsOf } from './support/run-folder.js';

const main = join(ROOT, 'dist', 'lib', 'cli', 'main.js');

interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

/** A request as it is given: fetch would put in a Host and an Origin of its own. */
function ask(port: number, path = '/', headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, path, method, headers, agent: false }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(parts) }),
      );
      response.on('error', reject);
    });
    asked.on('error', reject);
    asked.end();
  });
}

/** A server on a free port that looks at the files whenever it is asked. */
async function serve(t: TestContext, options: Partial<WatchOptions> & { runs: string[] }): Promise<WatchServer> {
  const server = await watchRuns({ port: 0, everyMs: 0, ...options });
  t.after(() => server.close());
  return server;
}

const dataOf = async (port: number): Promise<LiveData> => JSON.parse((await ask(port, '/data')).body.toString());

describe('who may ask', () => {
  const own = { host: '127.0.0.1' };
  const asks: [name: string, method: string, headers: IncomingHttpHeaders, status: number | null][] = [
    ['a browser', 'GET', { host: '127.0.0.1:6007' }, null],
    ['behind a tunnel', 'GET', { host: 'localhost:1234', origin: 'http://localhost:1234' }, null],
    ['by IPv6', 'HEAD', { host: '[::1]:6007' }, null],
    ['its own page', 'GET', { host: 'localhost:6007', 'sec-fetch-site': 'same-origin' }, null],
    [
      'a link on another page',
      'GET',
      { host: 'localhost', 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' },
      null,
    ],
    ['without a name', 'GET', {}, 400],
    ['a malformed name', 'GET', { host: 'localhost:6007/x' }, 400],
    ['a rebound name', 'GET', { host: 'evil.example:6007' }, 421],
    ['a name that begins like ours', 'GET', { host: '127.0.0.1.evil.example' }, 421],
    ['another address', 'GET', { host: '10.0.0.1' }, 421],
    ['another page', 'GET', { host: 'localhost:6007', origin: 'http://evil.example' }, 403],
    ['a page of another port', 'GET', { host: 'localhost:6007', origin: 'http://localhost:3000' }, 403],
    ['a sandboxed page', 'GET', { host: 'localhost:6007', origin: 'null' }, 403],
    ['another scheme', 'GET', { host: 'localhost:6007', origin: 'https://localhost:6007' }, 403],
    ['an image of another page', 'GET', { host: 'localhost', 'sec-fetch-site': 'cross-site' }, 403],
    [
      'a frame',
      'GET',
      { host: 'localhost', 'sec-fetch-site': 'same-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'iframe' },
      403,
    ],
    ['who would change something', 'POST', { host: 'localhost' }, 405],
  ];
  for (const [name, method, headers, status] of asks) {
    it(`${name}: ${status ?? 'may'}`, () => assert.equal(refusal(method, headers, own)?.status ?? null, status));
  }

  it('of a server that others reach: addresses and the names of the machine, not those of strangers', () => {
    const open = { host: '0.0.0.0', names: ['box', 'box.lan'] };
    for (const host of ['192.168.1.5:6007', 'box:6007', 'BOX.lan.', 'localhost', '[fe80::1]'])
      assert.equal(refusal('GET', { host }, open), null, host);
    assert.equal(refusal('GET', { host: 'evil.example' }, open)?.status, 421);
  });

  it('tells addresses, cookies and tokens', () => {
    for (const host of ['localhost', '127.0.0.1', '127.9.9.9', '[::1]', '::1']) assert.ok(isLoopback(host), host);
    for (const host of ['0.0.0.0', '::', '127.0.0.1.evil.example', '127.1', 'box']) assert.ok(!isLoopback(host), host);
    assert.equal(cookie('a=1; eepo-watch-1=tok; b', 'eepo-watch-1'), 'tok');
    assert.equal(cookie('xeepo-watch-1=tok', 'eepo-watch-1'), null);
    assert.ok(sameToken('abc', 'abc'));
    for (const given of ['abd', 'ab', '', null, undefined]) assert.ok(!sameToken(given, 'abc'));
  });
});

describe('the server', () => {
  it('answers with the page and with data that are new', async (t) => {
    const { port, url } = await serve(t, { runs: [makeRun(join(temporaryFolder(t), 'run'))] });
    assert.equal(url, `http://127.0.0.1:${port}/`);
    const page = await ask(port);
    assert.equal(page.status, 200);
    assert.match(page.body.toString(), /EEPO on countdown[\s\S]*If-None-Match/);
    assert.match(String(page.headers['content-security-policy']), /connect-src 'self'.*frame-ancestors 'none'/);
    assert.match(
      page.body.toString(),
      /http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'sha256-/,
    );
    for (const [name, value] of Object.entries({
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      'cross-origin-resource-policy': 'same-origin',
    }))
      assert.equal(page.headers[name], value);
    assert.equal(page.headers['access-control-allow-origin'], undefined);

    const data = await ask(port, '/data', { 'Accept-Encoding': 'gzip' });
    assert.equal(data.headers['content-encoding'], 'gzip');
    const { live, report } = JSON.parse(gunzipSync(data.body).toString()) as LiveData;
    assert.deepEqual(live.runs, [
      { name: 'run', state: 'complete', message: '', iteration: 12, iterations: 12, updated: live.runs[0]?.updated },
    ]);
    assert.ok(report.figures.length > 15);
    const again = await ask(port, '/data', { 'If-None-Match': String(data.headers.etag) });
    assert.deepEqual([again.status, again.body.length], [304, 0]);
    const head = await ask(port, '/', {}, 'HEAD');
    assert.deepEqual([head.status, head.body.length], [200, 0]);
  });

  it('refuses strangers, and knows two addresses', async (t) => {
    const { port } = await serve(t, { runs: [makeRun(join(temporaryFolder(t), 'run'))] });
    const refused: [path: string, headers: Record<string, string>, method: string, status: number][] = [
      ['/data', { Host: 'evil.example' }, 'GET', 421],
      ['/data', { Origin: 'http://evil.example' }, 'GET', 403],
      ['/', { 'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'no-cors' }, 'GET', 403],
      ['/', {}, 'POST', 405],
      ['/data', {}, 'DELETE', 405],
      ['/../../../../etc/passwd', {}, 'GET', 404],
      ['/%2e%2e/%2e%2e/etc/passwd', {}, 'GET', 404],
      ['//etc/passwd', {}, 'GET', 404],
      ['/metrics.jsonl', {}, 'GET', 404],
      ['/data/../config.toml', {}, 'GET', 404],
      ['/favicon.ico', {}, 'GET', 404],
    ];
    for (const [path, headers, method, status] of refused) {
      const answer = await ask(port, path, headers, method);
      assert.equal(answer.status, status, `${method} ${path}`);
      assert.ok(answer.body.length < 200 && !/root:|countdown/.test(answer.body.toString()));
      assert.match(String(answer.headers['content-security-policy']), /default-src 'none'/);
    }
  });

  it('asks others than this machine for the token that it drew, once in the address', async (t) => {
    const runs = [makeRun(join(temporaryFolder(t), 'run'))];
    const own = await serve(t, { runs, token: true });
    assert.ok(!own.open);
    const open = await serve(t, { runs, host: '0.0.0.0' });
    assert.ok(open.open);
    for (const { port, url } of [own, open]) {
      const path = new URL(url).search;
      assert.match(path, /^\?token=[\w-]{32}$/);
      for (const wrong of ['/', '/data', '/?token=x', `/data${path}`])
        assert.equal((await ask(port, wrong)).status, 403);
      const entered = await ask(port, `/${path}`);
      assert.deepEqual([entered.status, entered.headers.location], [303, '/']);
      const [given] = entered.headers['set-cookie'] ?? [];
      assert.match(given ?? '', /; HttpOnly; SameSite=Strict; Path=\/$/);
      const Cookie = (given ?? '').split(';')[0] as string;
      assert.equal((await ask(port, '/data', { Cookie })).status, 200);
      assert.equal((await ask(port, '/data', { Cookie: `${Cookie}x` })).status, 403);
    }
  });

  it('holds a bounded number of connections, and ends all of them at once', { timeout: 30_000 }, async (t) => {
    const server = await serve(t, { runs: [makeRun(join(temporaryFolder(t), 'run'))] });
    let [opened, ended] = [0, 0];
    const sockets = Array.from({ length: 80 }, () =>
      connect(server.port, '127.0.0.1')
        .on('connect', () => (opened += 1))
        .on('close', () => (ended += 1))
        .on('error', () => {})
        .resume(),
    );
    while (opened < 80 || ended < 16) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(ended, 16);
    await server.close();
    while (ended < sockets.length) await new Promise((resolve) => setTimeout(resolve, 5));
    await assert.rejects(ask(server.port), /ECONNREFUSED/);
  });

  it('says what is wrong with what it is asked to be', async (t) => {
    const { port } = await serve(t, { runs: ['run'] });
    await assert.rejects(watchRuns({ runs: [] }), /expected the folder of a run, got none/);
    const file = fileURLToPath(import.meta.url);
    await assert.rejects(watchRuns({ runs: [file] }), /watch\.test\.js is a file; name the folder of a run/);
    await assert.rejects(watchRuns({ runs: ['run'], port: 70_000 }), /port 70000: expected a whole number, 0 to 65535/);
    await assert.rejects(watchRuns({ runs: ['run'], port }), /cannot listen on 127\.0\.0\.1:\d+ .*give another --port/);
    await assert.rejects(watchRuns({ runs: ['run'], port: 0, host: '192.0.2.1' }), /give another --host, or none/);
    await assert.rejects(watchRuns({ runs: ['run'], everyMs: Number.NaN }), /everyMs = NaN/);
  });
});

describe('a run that is watched', () => {
  it('begins, grows, goes on from a checkpoint, ends, and vanishes', async (t) => {
    const folder = temporaryFolder(t);
    const [run, made] = [join(folder, 'run'), makeRun(join(folder, 'made'), { complete: false })];
    const { port } = await serve(t, { runs: [run] });
    const metrics = join(run, 'metrics.jsonl');
    const look = async () => {
      const { live, report } = await dataOf(port);
      const { state, message, iteration } = live.runs[0] as LiveData['live']['runs'][number];
      const reward = report.figures.find(({ id }) => id === 'reward')?.series[0]?.points.length ?? 0;
      return { state, message, iteration, reward, title: report.title, version: live.version };
    };

    const waiting = await look();
    assert.deepEqual([waiting.state, waiting.title], ['waiting', 'Waiting for run']);
    assert.equal((await look()).version, waiting.version);

    cpSync(made, run, { recursive: true });
    rmSync(metrics);
    const begun = await look();
    assert.deepEqual([begun.state, begun.title, begun.iteration], ['stopped', 'EEPO on countdown', null]);
    assert.notEqual(begun.version, waiting.version);
    const lock = RunLock.take(run);
    t.after(() => lock.release());
    assert.equal((await look()).state, 'training');

    for (const iteration of [1, 2, 3]) appendFileSync(metrics, line({ iteration, ...metricsOf(iteration) }));
    const three = await look();
    assert.deepEqual([three.iteration, three.reward], [3, 3]);
    // half a line is none; nothing new, no new version
    appendFileSync(metrics, '{"iteration":4,"rollout/stage1/re');
    assert.equal((await look()).version, three.version);
    appendFileSync(metrics, 'ward":0.5}\n');
    assert.deepEqual([(await look()).iteration, (await look()).reward], [4, 4]);

    // resumed from a checkpoint: cut back, other lines of the same length
    writeFileSync(metrics, [1, 2, 3, 4].map((i) => line({ iteration: i, ...metricsOf(i + 50) })).join(''));
    writeFileSync(metrics, [1, 2].map((i) => line({ iteration: i, ...metricsOf(i + 50) })).join(''));
    assert.deepEqual([(await look()).iteration, (await look()).reward], [2, 2]);
    assert.equal(
      (await dataOf(port)).report.figures.find(({ id }) => id === 'kl')?.series[0]?.points[0]?.[1],
      metricsOf(51)['actor/kl'],
    );

    // what is broken is told, what was known stays, and it goes on when it is mended
    const whole = readFileSync(metrics);
    appendFileSync(metrics, '{"iteration":NaN}\n');
    const broken = await look();
    assert.deepEqual([broken.state, broken.reward], ['broken', 2]);
    assert.match(broken.message, /metrics\.jsonl:3: not valid JSON/);
    writeFileSync(metrics, whole);
    assert.equal((await look()).state, 'training');

    writeFileSync(join(run, 'summary.json'), JSON.stringify({ iterations: 12, seconds: 1 }));
    assert.equal((await look()).state, 'complete');
    renameSync(run, `${run}-moved`);
    const gone = await look();
    assert.deepEqual([gone.state, gone.reward], ['gone', 2]);
  });

  it('keeps its colour when another begins later', async (t) => {
    const folder = temporaryFolder(t);
    const [late, early] = [join(folder, 'late'), makeRun(join(folder, 'early'))];
    const { port } = await serve(t, { runs: [late, early] });
    const colours = async () =>
      (await dataOf(port)).report.figures.find(({ id }) => id === 'kl')?.series.map(({ name, color }) => [name, color]);
    assert.deepEqual(await colours(), [['early', 0]]);
    makeRun(late);
    assert.deepEqual(await colours(), [
      ['early', 0],
      ['late', 1],
    ]);
    assert.deepEqual(
      (await dataOf(port)).live.runs.map(({ name }) => name),
      ['late', 'early'],
    );
  });

  it('is read from where the last look ended', async (t) => {
    const run = makeRun(join(temporaryFolder(t), 'run'), { complete: false });
    const follower = new RunFollower(run);
    assert.ok(await follower.refresh());
    assert.equal(await follower.refresh(), false);
    const [first] = follower.data?.metrics ?? [];
    appendFileSync(join(run, 'metrics.jsonl'), line({ iteration: 13, ...metricsOf(13) }));
    assert.ok(await follower.refresh());
    // the very row: it was not read again
    assert.equal(follower.data?.metrics[0], first);
    assert.equal(follower.data?.metrics.length, 14);
  });

  it('is shown as words, whatever it says', async (t) => {
    const run = makeRun(join(temporaryFolder(t), '<img src=x onerror=1>'));
    appendFileSync(
      join(run, 'metrics.jsonl'),
      `{"iteration":"${HOSTILE.replaceAll('"', '\\"').replaceAll('\\`', '`')}"}\n`,
    );
    const { port } = await serve(t, { runs: [run] });
    const page = (await ask(port)).body.toString();
    const outside = page.replace(/(<script(?: [^>]*)?>)[\s\S]*?(<\/script>)/g, '$1$2');
    assert.equal(page.match(/<script/g)?.length, page.match(/<\/script>/g)?.length);
    assert.equal(outside.match(/<script/g)?.length, 4);
    assert.doesNotMatch(outside, /<img|onerror=/);
    assert.equal((await dataOf(port)).live.runs[0]?.state, 'broken');
  });
});

describe('eepo watch', () => {
  /** The address that it printed. */
  async function started(
    t: TestContext,
    ...args: string[]
  ): Promise<{ child: ChildProcess; url: string; said: () => string }> {
    const child = spawn(process.execPath, [main, 'watch', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    t.after(() => child.kill('SIGKILL'));
    let [out, err] = ['', ''];
    child.stderr?.on('data', (part) => (err += part));
    const url = await new Promise<string>((resolve, reject) => {
      child.stdout?.on('data', (part) => {
        out += part;
        if (out.includes('\n')) resolve(out.trim());
      });
      child.on('exit', () => reject(new Error(err)));
    });
    return { child, url, said: () => err };
  }

  it('prints its address, waits for runs, and ends with Ctrl-C while a browser holds a connection', async (t) => {
    const { child, url, said } = await started(t, join(temporaryFolder(t), 'none'), '--port', '0');
    assert.match(url, /^http:\/\/127\.0\.0\.1:\d+\/$/);
    assert.match(await (await fetch(url)).text(), /Waiting for none/);
    const ended = new Promise((resolve) => child.on('exit', (code, signal) => resolve([code, signal])));
    child.kill('SIGINT');
    assert.deepEqual(await ended, [0, null]);
    assert.match(
      said(),
      /^note: .*none is not there yet; it is shown when it begins\nCtrl-C ends it; the runs go on\n/,
    );
  });

  it('warns where others can reach it', async (t) => {
    const { url, said } = await started(
      t,
      makeRun(join(temporaryFolder(t), 'run')),
      '--port',
      '0',
      '--host',
      '0.0.0.0',
    );
    assert.match(url, /\?token=/);
    assert.match(said(), /^warning: listening on 0\.0\.0\.0: whoever reaches this machine/);
  });

  it('says in one line what is wrong', () => {
    const { status, stderr } = spawnSync(process.execPath, [main, 'watch', 'x', '--port', 'many'], {
      encoding: 'utf8',
    });
    assert.equal(status, 1);
    assert.match(stderr, /^error: --port many: expected a whole number, at least 0 \[/);
  });
});
