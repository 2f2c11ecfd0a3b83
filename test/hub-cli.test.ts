import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { hubProgress } from '../lib/cli/hub-progress.js';
import { embeddedModel, ROOT } from './support/data.js';
import { commitOf, FakeHub } from './support/fake-hub.js';
import { temporaryFolder } from './support/files.js';

const run = promisify(execFile);

describe('eepo download', () => {
  it('prints the folder, plain lines of progress, and what went wrong', async (t) => {
    const files = Object.fromEntries(
      readdirSync(embeddedModel).map((name) => [name, readFileSync(join(embeddedModel, name))]),
    );
    const hub = await FakeHub.start(t, { 'owner/name': { files: { ...files, 'extra.txt': 'extra' } } });
    const home = temporaryFolder(t);
    const secret = 'hf_TheSecretOfTheTests';
    const env = { ...process.env, HF_HOME: home, HF_ENDPOINT: hub.endpoint, HF_TOKEN: secret };
    const eepo = (...args: string[]) =>
      run(process.execPath, [join(ROOT, 'dist', 'lib', 'cli', 'main.js'), 'download', ...args], { env });
    const { stdout, stderr } = await eepo('owner/name');
    const folder = join(home, 'hub', 'models--owner--name', 'snapshots', commitOf('main'));
    assert.equal(stdout, `${folder}\n`);
    assert.match(stderr, /owner\/name: 1\.4 MB to download\n(.*\n)*owner\/name: 1\.4 MB complete, .*\/s\n/);
    assert.deepEqual(readdirSync(folder).sort(), readdirSync(embeddedModel).sort());
    assert.equal((await eepo('owner/name', '--include', 'extra*')).stdout, `${folder}\n`);
    assert.equal(readFileSync(join(folder, 'extra.txt'), 'utf8'), 'extra');
    hub.requests.length = 0;
    assert.deepEqual(await eepo('owner/name', '--offline'), { stdout: `${folder}\n`, stderr: '' });
    assert.equal(hub.requests.length, 0);
    await assert.rejects(eepo('owner/other'), (error: Error & { stderr: string; code: number }) => {
      assert.equal(error.code, 1);
      assert.match(error.stderr, /^error: there is no model owner\/other on .* \[EEPO_HUB\]\n$/);
      assert.ok(!error.stderr.includes(secret));
      return true;
    });
  });
});

describe('eepo train', () => {
  it('takes a model by its name on the hub', async (t) => {
    const files = Object.fromEntries(
      readdirSync(embeddedModel).map((name) => [name, readFileSync(join(embeddedModel, name))]),
    );
    const hub = await FakeHub.start(t, { 'owner/name': { files, refs: { 'v1.0': commitOf('v1.0') } } });
    const env = { ...process.env, HF_HOME: temporaryFolder(t), HF_ENDPOINT: hub.endpoint };
    const main = join(ROOT, 'dist', 'lib', 'cli', 'main.js');
    const settings = ['model.path=owner/name', 'model.revision=v1.0', 'model.device=cpu'];
    const args = [main, 'train', join(ROOT, 'configs', 'eepo.toml'), ...settings.flatMap((text) => ['--set', text])];
    const { stdout } = await run(process.execPath, [...args, '--dry-run'], { env });
    assert.match(stdout, /path = "owner\/name"\nrevision = "v1\.0"/);
    assert.match(stdout, /352,800 parameters/);
    assert.equal(hub.of('cdn', 'model.safetensors').length, 0, 'a dry run needs no weights');
    const offline = await run(process.execPath, [...args, '--set', 'model.offline=true', '--dry-run'], { env });
    assert.match(offline.stdout, /offline = true/);
    assert.equal(hub.of('info').length, 1);
  });
});

describe('progress on a stream', () => {
  const played = (isTTY: boolean) => {
    let text = '';
    let now = 100;
    const stream = { isTTY, columns: 120, write: (data: string) => (text += data) } as unknown as NodeJS.WriteStream;
    const listener = hubProgress(stream, () => now);
    const at = (seconds: number, done: number) => {
      now = 100 + seconds;
      listener({ phase: 'download', repo: 'a/b', file: 'f', done, total: 4e9 });
    };
    return { at, listener, text: () => text };
  };

  it('has bytes, speed and time left, a line every ten seconds', () => {
    const { at, listener, text } = played(false);
    listener({ phase: 'note', text: 'waiting' });
    at(0, 1e9);
    at(1, 1.1e9);
    at(10, 2e9);
    at(11, 2.1e9);
    at(30, 4e9);
    assert.deepEqual(text().split('\n'), [
      'note: waiting',
      'a/b: 3.0 GB to download, 1.0 GB done',
      'a/b: 50%, 2.0 GB, 100.0 MB/s, 0:20 left',
      'a/b: 4.0 GB complete, 100.0 MB/s',
      '',
    ]);
  });

  it('tells of weights that take a while to read', () => {
    const { listener, text } = played(false);
    for (const total of [9e8, 4e9]) {
      for (const done of [total / 4, total / 2, total]) listener({ phase: 'load', model: './m', done, total });
    }
    assert.match(text(), /^weights of \.\/m: 3\.0 GB to read, 1\.0 GB done\nweights of \.\/m: 4\.0 GB complete, .*\n$/);
  });

  it('says nothing where all is here', () => {
    const { at, text } = played(false);
    at(0, 4e9);
    assert.equal(text(), '');
  });
});
