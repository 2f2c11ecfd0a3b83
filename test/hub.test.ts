import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import {
  download,
  downloadFile,
  type HubOptions,
  type HubProgress,
  isRepoName,
  modelFolder,
} from '../lib/hub/index.js';
import { hubSettings } from '../lib/hub/settings.js';
import { Policy } from '../lib/policy.js';
import { embeddedModel, ROOT } from './support/data.js';
import { commitOf, FakeHub, type FakeRepo, gitHash, sha256, tree } from './support/fake-hub.js';
import { temporaryFolder } from './support/files.js';

const secret = 'hf_TheSecretOfTheTests';

/** The embedded model as a repository, with files that a model does not need. */
function model(more: Partial<FakeRepo> = {}): FakeRepo {
  const files = Object.fromEntries(
    readdirSync(embeddedModel).map((name) => [name, readFileSync(join(embeddedModel, name))]),
  );
  return {
    ...more,
    files: {
      ...files,
      'README.md': '# a model',
      'pytorch_model.bin': Buffer.alloc(5000),
      'original/consolidated.00.pth': Buffer.alloc(5000),
      'model.Q4.gguf': Buffer.alloc(5000),
      'chat_template.jinja': '{{ messages }}',
      ...more.files,
    },
  };
}

const weights = () => readFileSync(join(embeddedModel, 'model.safetensors'));

interface Setting {
  hub: FakeHub;
  cache: string;
  options: HubOptions;
  notes: HubProgress[];
}

async function setting(t: TestContext, repos: Record<string, FakeRepo>, more: HubOptions = {}): Promise<Setting> {
  const hub = await FakeHub.start(t, repos);
  const cache = temporaryFolder(t);
  const notes: HubProgress[] = [];
  const options = {
    endpoint: hub.endpoint,
    cacheDir: cache,
    env: {},
    retries: 2,
    retryDelay: 10,
    onProgress: (progress: HubProgress) => notes.push(progress),
    ...more,
  };
  return { hub, cache, options, notes };
}

/** All files below a folder, links not followed. */
const listing = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();

describe('names', () => {
  it('has the form owner/name or not', () => {
    for (const name of ['Qwen/Qwen2.5-3B', 'a/b', 'meta-llama/Llama-3.2-3B-Instruct', 'A1/b_c.d'])
      assert.ok(isRepoName(name), name);
    const not = [
      'gpt2',
      './a/b',
      '/a/b',
      'a/b/c',
      'a/',
      '/b',
      '../b',
      'a/..',
      'a/b--c',
      'a/b.git',
      '-a/b',
      'a/b.',
      '~/b',
      '',
    ];
    for (const name of not) assert.ok(!isRepoName(name), name);
  });

  it('takes a folder that exists before the hub, and says how a folder is written', async (t) => {
    const { options } = await setting(t, {});
    const folder = temporaryFolder(t);
    assert.equal(await modelFolder(folder, options), folder);
    assert.equal(await modelFolder('lib/hub', options), 'lib/hub');
    await assert.rejects(modelFolder(folder, { ...options, revision: 'v1' }), /local folder; remove one/);
    await assert.rejects(modelFolder('./no/where', options), {
      code: 'EEPO_INVALID_FILE',
      message: /no such model folder/,
    });
    await assert.rejects(modelFolder('nowhere', options), { code: 'EEPO_INVALID_FILE', message: /owner\/name/ });
    await assert.rejects(modelFolder('package.json', options), /is a file; expected/);
    await assert.rejects(modelFolder('no/where', options), { code: 'EEPO_HUB', message: /"\.\/no\/where"/ });
  });
});

describe('settings', () => {
  it('reads the variables of the Python library', (t) => {
    const home = temporaryFolder(t);
    writeFileSync(join(home, 'token'), `${secret}\n`);
    const { cacheDir, token, offline, endpoint, revision } = hubSettings({
      env: { HF_HOME: home, HF_HUB_OFFLINE: 'yes' },
    });
    assert.deepEqual(
      { cacheDir, token, offline, endpoint, revision },
      {
        cacheDir: join(home, 'hub'),
        token: secret,
        offline: true,
        endpoint: 'https://huggingface.co',
        revision: 'main',
      },
    );
    const env = { HF_HOME: home, HF_HUB_CACHE: '/c', HF_TOKEN: 'hf_other', HF_ENDPOINT: 'https://mirror.example/' };
    const other = hubSettings({ env });
    assert.deepEqual([other.cacheDir, other.token, other.endpoint], ['/c', 'hf_other', 'https://mirror.example']);
    assert.equal(hubSettings({ env, token: false }).token, null);
    assert.equal(hubSettings({ env: { XDG_CACHE_HOME: '/x' } }).cacheDir, '/x/huggingface/hub');
  });

  it('refuses what would become part of a path, a URL or a header', () => {
    for (const revision of ['../x', 'a/../b', '/a', 'a b', 'a?b', 'a#b', '.'])
      assert.throws(() => hubSettings({ revision, env: {} }), /is not a branch/);
    for (const endpoint of ['hub', 'ftp://hub', 'https://user@hub', 'https://hub/?a=b'])
      assert.throws(() => hubSettings({ endpoint, env: {} }), { code: 'EEPO_INVALID_ARGUMENT' });
    assert.throws(
      () => hubSettings({ token: 'hf_a\nb', env: {} }),
      (error: Error) => !error.message.includes('hf_a'),
    );
  });
});

describe('download', () => {
  it("fetches what a model needs, into Hugging Face's layout, and loads it", async (t) => {
    const { hub, cache, options, notes } = await setting(t, { 'owner/name': model() });
    using policy = await Policy.load('owner/name', options);
    using local = await Policy.load(embeddedModel);
    assert.equal(await policy.hash(), await local.hash());

    const root = join(cache, 'models--owner--name');
    const commit = commitOf('main');
    assert.equal(policy.folder, join(root, 'snapshots', commit));
    assert.equal(readFileSync(join(root, 'refs', 'main'), 'utf8'), commit);
    const names = [...readdirSync(embeddedModel), 'chat_template.jinja'].sort();
    assert.deepEqual(
      listing(join(root, 'snapshots')),
      names.map((name) => `${commit}/${name}`),
    );
    const hashes = names.map((name) => {
      const content = hub.repos['owner/name']?.files[name] as Buffer;
      return content.length < 1000 ? gitHash(content) : sha256(content);
    });
    assert.deepEqual(listing(join(root, 'blobs')), [...hashes].sort());
    for (const [i, name] of names.entries()) {
      const path = join(root, 'snapshots', commit, name);
      assert.ok(lstatSync(path).isSymbolicLink());
      assert.equal(readlinkSync(path), join('..', '..', 'blobs', hashes[i] as string));
    }

    const last = notes.findLast((note) => note.phase === 'download');
    assert.ok(last?.phase === 'download' && last.done === last.total && last.total === weights().length);
    hub.requests.length = 0;
    await modelFolder('owner/name', options);
    assert.deepEqual(
      hub.requests.map(({ kind }) => kind).filter((kind) => kind === 'resolve' || kind === 'cdn'),
      [],
    );
  });

  it('takes a tag, a branch with a slash or a commit', async (t) => {
    const old = commitOf('old');
    const { options, cache } = await setting(t, {
      'owner/name': model({ refs: { main: commitOf('main'), 'v1.0': old, 'refs/pr/3': old } }),
    });
    for (const revision of ['v1.0', 'refs/pr/3', old])
      assert.equal(
        await modelFolder('owner/name', { ...options, revision, weights: false }),
        join(cache, 'models--owner--name', 'snapshots', old),
      );
    assert.equal(readFileSync(join(cache, 'models--owner--name', 'refs', 'refs', 'pr', '3'), 'utf8'), old);
    await assert.rejects(
      modelFolder('owner/name', { ...options, revision: commitOf('none') }),
      /has no revision "[0-9a-f]{40}"/,
    );
    await assert.rejects(modelFolder('owner/name', { ...options, revision: 'v2' }), {
      code: 'EEPO_HUB',
      status: 404,
      message: /no revision "v2"/,
    });
  });

  it('takes files by pattern, of data sets too', async (t) => {
    const data = {
      files: { 'main/train.parquet': Buffer.alloc(2000, 1), 'main/test.parquet': Buffer.alloc(10), 'a.md': 'a' },
    };
    const { options, hub } = await setting(t, { 'owner/name': model(), 'datasets/owner/data': data });
    const folder = await download('owner/name', { ...options, include: ['*.gguf', 'original/'] });
    assert.deepEqual(listing(folder), ['model.Q4.gguf', 'original/consolidated.00.pth']);
    const train = await downloadFile('owner/data', 'main/train.parquet', { ...options, type: 'dataset' });
    assert.deepEqual(readFileSync(train), data.files['main/train.parquet']);
    assert.match(train, /datasets--owner--data/);
    const all = await download('owner/data', { ...options, type: 'dataset' });
    assert.deepEqual(listing(all), ['a.md', 'main/test.parquet', 'main/train.parquet']);
    assert.equal(hub.of('cdn', 'main/train.parquet').length, 1);
    await assert.rejects(
      download('owner/name', { ...options, include: ['nothing*'] }),
      /no file that matches "nothing\*"/,
    );
    await assert.rejects(downloadFile('owner/name', 'nothing', options), /has no file nothing/);
    await assert.rejects(download('just-a-name', options), { code: 'EEPO_INVALID_ARGUMENT' });
  });

  it('refuses a model it cannot use before its weights are fetched', async (t) => {
    const bare = model();
    const { 'model.safetensors': _, ...noWeights } = bare.files;
    const { options, hub } = await setting(t, {
      'a/vision': model({
        files: { 'config.json': JSON.stringify({ architectures: ['Qwen2VLForConditionalGeneration'] }) },
      }),
      'a/bin': { files: noWeights },
      'a/data': { files: { 'README.md': 'no model' } },
      'a/index': {
        files: { ...noWeights, 'model.safetensors.index.json': JSON.stringify({ weight_map: { a: 'x.safetensors' } }) },
      },
      'a/hostile': {
        files: {
          ...noWeights,
          'model.safetensors.index.json': JSON.stringify({ weight_map: { a: '../../x.safetensors' } }),
        },
      },
    });
    await assert.rejects(modelFolder('a/vision', options), {
      code: 'EEPO_UNSUPPORTED',
      message: /Qwen2VL.*Qwen2ForCausalLM/,
    });
    await assert.rejects(modelFolder('a/bin', options), {
      code: 'EEPO_UNSUPPORTED',
      message: /pytorch_model\.bin.*Convert/,
    });
    await assert.rejects(modelFolder('a/data', options), /no config\.json/);
    await assert.rejects(modelFolder('a/index', options), /names x\.safetensors, which the repository does not have/);
    await assert.rejects(modelFolder('a/hostile', options), {
      code: 'EEPO_INVALID_FILE',
      message: /not the name of a file/,
    });
    assert.deepEqual(hub.of('cdn', 'model.safetensors'), []);
  });

  it('sends the token to the hub and not to its CDN', async (t) => {
    const { options, hub } = await setting(t, { 'owner/name': model({ token: secret }) }, { token: secret });
    await modelFolder('owner/name', options);
    for (const { kind, authorization } of hub.requests)
      assert.equal(authorization, kind === 'cdn' ? undefined : `Bearer ${secret}`);
    assert.ok(hub.of('cdn').length > 0);
  });
});

describe('what goes wrong', () => {
  it('says what to do about a gated, private or unknown repository, never showing the token', async (t) => {
    const { options, hub } = await setting(t, {
      'a/gated': model({ gated: true, token: 'hf_granted' }),
      'a/private': model({ token: 'hf_granted' }),
      'a/public': model(),
    });
    hub.fault = ({ path, authorization }) => (path === 'a/public' && authorization ? { status: 401 } : undefined);
    const cases = [
      ['a/gated', false, /gated \(401\): accept its licence at .*a\/gated, then set HF_TOKEN.*no token was sent/],
      ['a/gated', secret, /gated \(403\): accept its licence.*has not been granted access/],
      ['a/private', false, /no model a\/private.*or it is private \(401\).*"\.\/a\/private".*set HF_TOKEN/],
      ['a/private', secret, /no model a\/private.*\(404\).*the token that was sent may be wrong/],
      ['a/public', secret, /refuses the token \(401\): it is wrong or expired.*unset HF_TOKEN/],
      ['a/nothing', false, /no model a\/nothing on .*\(a local folder is written "\.\/a\/nothing"\)/],
    ] as const;
    for (const [name, token, message] of cases) {
      await assert.rejects(modelFolder(name, { ...options, token }), (error: Error & { code: string }) => {
        assert.equal(error.code, 'EEPO_HUB');
        assert.match(error.message, message);
        assert.ok(!JSON.stringify([error.message, error.stack, String(error.cause)]).includes(secret));
        return true;
      });
    }
    assert.ok(await modelFolder('a/gated', { ...options, token: 'hf_granted', weights: false }));
  });

  it('resumes a transfer that breaks, in the same call and in a later one', async (t) => {
    const { options, hub, cache } = await setting(t, { 'owner/name': model() });
    hub.fault = ({ kind, path, nth }) =>
      kind === 'cdn' && path === 'model.safetensors' && nth < 2 ? { cutAfter: 400_000 } : undefined;
    await modelFolder('owner/name', options);
    const ranges = hub.of('cdn', 'model.safetensors').map(({ range }) => range);
    assert.equal(ranges[0], undefined);
    assert.match(ranges[1] ?? '', /^bytes=[1-9]\d{4,}-$/);
    assert.equal(ranges.length, 3);

    // the same, but every attempt of the first call fails
    rmSync(join(cache, 'models--owner--name'), { recursive: true });
    hub.requests.length = 0;
    hub.fault = ({ kind, path, nth }) =>
      kind === 'cdn' && path === 'model.safetensors' ? { cutAfter: nth === 0 ? 600_000 : 0 } : undefined;
    await assert.rejects(modelFolder('owner/name', options), { code: 'EEPO_HUB', message: /cannot be reached/ });
    const blobs = join(cache, 'models--owner--name', 'blobs');
    const hash = sha256(weights());
    assert.ok(!existsSync(join(blobs, hash)), 'no final name');
    assert.ok(!existsSync(join(cache, 'models--owner--name', 'snapshots', commitOf('main'), 'model.safetensors')));
    const have = lstatSync(join(blobs, `${hash}.eepo-partial`)).size;
    assert.ok(have > 0 && have <= 600_000);
    hub.fault = () => undefined;
    hub.requests.length = 0;
    const folder = await modelFolder('owner/name', options);
    assert.deepEqual(
      hub.of('cdn', 'model.safetensors').map(({ range }) => range),
      [`bytes=${have}-`],
    );
    assert.deepEqual(readFileSync(join(folder, 'model.safetensors')), weights());
  });

  it('starts over where the server ignores the range, and where what was there is of something else', async (t) => {
    const { options, hub, cache } = await setting(t, { 'owner/name': model() });
    const blobs = join(cache, 'models--owner--name', 'blobs');
    const partial = join(blobs, `${sha256(weights())}.eepo-partial`);
    for (const [what, fault] of [
      ['ignored', { ignoreRange: true }],
      ['honoured', {}],
    ] as const) {
      rmSync(cache, { recursive: true });
      mkdirSync(blobs, { recursive: true });
      writeFileSync(partial, Buffer.alloc(70_000, 7));
      hub.requests.length = 0;
      hub.fault = ({ kind }) => (kind === 'cdn' ? fault : undefined);
      const folder = await modelFolder('owner/name', options);
      assert.deepEqual(readFileSync(join(folder, 'model.safetensors')), weights());
      const ranges = hub.of('cdn', 'model.safetensors').map(({ range }) => range);
      assert.deepEqual(ranges, what === 'ignored' ? ['bytes=70000-'] : ['bytes=70000-', undefined]);
    }
    writeFileSync(partial, Buffer.alloc(70_000, 7));
    rmSync(join(blobs, sha256(weights())));
    hub.fault = ({ kind }) => (kind === 'cdn' ? { wrongRange: true } : undefined);
    await assert.rejects(modelFolder('owner/name', options), /the server answered 206 with bytes 0-/);
  });

  it('refuses other bytes than are listed, and leaves no file under a final name', async (t) => {
    const { options, hub, cache } = await setting(t, { 'owner/name': model() });
    const wrong = Buffer.from(weights());
    wrong[1000] = (wrong[1000] as number) ^ 1;
    const cases = [
      ['model.safetensors', wrong, /model\.safetensors have the hash .*thrown away/],
      ['model.safetensors', Buffer.concat([wrong, Buffer.alloc(9)]), /longer than the 1414288 bytes/],
      ['tokenizer_config.json', Buffer.alloc(230, 'x'), /tokenizer_config\.json have the hash/],
    ] as const;
    for (const [name, content, message] of cases) {
      rmSync(cache, { recursive: true });
      hub.fault = ({ path }) => (path === name ? { content } : undefined);
      await assert.rejects(modelFolder('owner/name', options), { code: 'EEPO_HUB', message });
      const good = [weights(), readFileSync(join(embeddedModel, name))].flatMap((data) => [
        sha256(data),
        gitHash(data),
      ]);
      for (const path of listing(cache)) assert.ok(!good.some((hash) => path.endsWith(hash)), path);
      assert.ok(!listing(cache).some((path) => path.endsWith(`/${name}`)));
    }
  });

  it('waits for a busy hub as long as it asks, and gives up at last', async (t) => {
    const { options, hub } = await setting(t, { 'owner/name': model() });
    const retry = { headers: { 'retry-after': '0' } };
    hub.fault = ({ kind, nth }) =>
      kind !== 'cdn' && nth < 2 ? { status: nth === 0 ? 503 : 429, ...retry } : undefined;
    assert.ok(await modelFolder('owner/name', { ...options, weights: false }));
    hub.fault = ({ kind }) => (kind === 'info' ? { status: 429, ...retry } : undefined);
    hub.requests.length = 0;
    await assert.rejects(modelFolder('a/b', { ...options, cacheDir: temporaryFolder(t) }), { code: 'EEPO_HUB' });
    const fresh = { ...options, cacheDir: temporaryFolder(t) };
    await assert.rejects(modelFolder('owner/name', fresh), {
      code: 'EEPO_HUB',
      status: 429,
      message: /too many requests/,
    });
    assert.equal(hub.of('info', 'owner/name').length, 3);
    hub.fault = () => ({ status: 503, headers: { 'retry-after': '3600' } });
    await assert.rejects(modelFolder('owner/name', fresh), { status: 503, message: /asks to wait 3600 s/ });
  });

  it('does not wait for ever for a silent server', async (t) => {
    const { options, hub } = await setting(t, { 'owner/name': model() }, { timeout: 300, retries: 1 });
    hub.fault = ({ kind, path, nth }) =>
      kind === 'cdn' && path === 'model.safetensors' && nth === 0 ? { stallAfter: 300_000 } : undefined;
    const folder = await modelFolder('owner/name', options);
    assert.deepEqual(readFileSync(join(folder, 'model.safetensors')), weights());
    assert.equal(hub.of('cdn', 'model.safetensors').length, 2);
    hub.fault = () => ({ stallAfter: 0 });
    await assert.rejects(modelFolder('owner/name', { ...options, cacheDir: temporaryFolder(t) }), {
      code: 'EEPO_HUB',
      message: /cannot be reached: .*[Tt]imeout/,
    });
  });

  it('uses the cache offline and when the hub is gone, if it is whole', async (t) => {
    const { options, hub, cache, notes } = await setting(t, { 'owner/name': model() });
    const offline = { ...options, offline: true };
    await assert.rejects(modelFolder('owner/name', offline), {
      code: 'EEPO_HUB',
      message: /npx eepo download owner\/name/,
    });
    await modelFolder('owner/name', { ...options, weights: false });
    await assert.rejects(modelFolder('owner/name', offline), { code: 'EEPO_HUB', message: /not complete.*no weights/ });
    assert.ok(await modelFolder('owner/name', { ...offline, weights: false }));
    const folder = await modelFolder('owner/name', options);
    hub.requests.length = 0;
    assert.equal(await modelFolder('owner/name', offline), folder);
    assert.equal(await modelFolder('owner/name', { ...offline, revision: commitOf('main') }), folder);
    await assert.rejects(modelFolder('owner/name', { ...offline, revision: 'v9' }), /revision v9/);
    assert.equal(hub.requests.length, 0);
    hub.stop();
    notes.length = 0;
    assert.equal(await modelFolder('owner/name', { ...options, retries: 0 }), folder);
    assert.match(
      notes.map((note) => (note.phase === 'note' ? note.text : '')).join(),
      /Using what was downloaded before/,
    );
    rmSync(join(cache, 'models--owner--name'), { recursive: true });
    await assert.rejects(modelFolder('owner/name', { ...options, retries: 0 }), /cannot be reached/);
  });

  it('refuses a list of files that leaves the cache, or that nobody can check', async (t) => {
    const names = ['../../evil', '/etc/evil', 'a/../../evil', 'C:\\evil', 'a\\..\\evil', 'a//b', ''];
    const repo = model();
    const { options, cache } = await setting(t, { 'owner/name': repo });
    for (const path of names) {
      repo.tree = [...tree(repo), { type: 'file', path, size: 4, oid: gitHash('evil') }];
      await assert.rejects(modelFolder('owner/name', options), {
        code: 'EEPO_INVALID_FILE',
        message: /would leave the cache/,
      });
    }
    for (const oid of ['../../../evil', 'abc', undefined, 7, [gitHash('a')], {}]) {
      repo.tree = [{ type: 'file', path: 'config.json', size: 4, oid }];
      await assert.rejects(modelFolder('owner/name', options), { code: 'EEPO_HUB', message: /no usable hash/ });
    }
    repo.refs = { main: '../../evil' };
    await assert.rejects(modelFolder('owner/name', options), /which commit/);
    assert.deepEqual(
      listing(cache).filter((path) => !path.includes('/refs/')),
      [],
    );
  });

  it('takes a page of something else for what it is', async (t) => {
    const { options, hub } = await setting(t, { 'owner/name': model() });
    for (const [kind, text] of [
      ['info', '<html>Sign in</html>'],
      ['info', '{}'],
      ['info', 'null'],
      ['tree', '<html>'],
      ['tree', '{"error": 1}'],
      ['tree', '[null]'],
    ]) {
      hub.fault = (request) => (request.kind === kind ? { content: Buffer.from(text as string) } : undefined);
      await assert.rejects(modelFolder('owner/name', options), {
        code: 'EEPO_HUB',
        message: /as a Hugging Face hub does|is it a Hugging Face hub/,
      });
    }
  });

  it('does not read a configuration of gigabytes', async (t) => {
    const repo = model();
    const { options, hub } = await setting(t, { 'owner/name': repo });
    const entry = { path: 'tokenizer.json', type: 'file', size: 6e8, lfs: { oid: sha256('a'), size: 6e8 } };
    repo.tree = [...tree(repo).filter((file) => (file as { path: string }).path !== entry.path), entry];
    await assert.rejects(modelFolder('owner/name', options), {
      code: 'EEPO_HUB',
      message: /tokenizer\.json has 0\.6 GB/,
    });
    assert.equal(hub.of('resolve').length, 0);
  });

  it('says that the disk is too small before anything is fetched', async (t) => {
    const repo = model();
    const { options, hub } = await setting(t, { 'owner/name': repo });
    const entry = { path: 'model.safetensors', type: 'file', size: 1e15, lfs: { oid: sha256('a'), size: 1e15 } };
    repo.tree = [...tree(repo).filter((file) => (file as { path: string }).path !== entry.path), entry];
    await assert.rejects(modelFolder('owner/name', options), {
      code: 'EEPO_HUB',
      message: /1000000\.0 GB are still to be/,
    });
    assert.equal(hub.of('resolve', 'model.safetensors').length, 0);
  });

  it('says that the disk is full', async (t) => {
    const { options, cache } = await setting(t, { 'owner/name': model() });
    const blobs = join(cache, 'models--owner--name', 'blobs');
    const partial = join(blobs, `${sha256(weights())}.eepo-partial`);
    mkdirSync(blobs, { recursive: true });
    symlinkSync('/dev/full', partial);
    await assert.rejects(modelFolder('owner/name', options), {
      code: 'EEPO_HUB',
      message: /the disk of .* is full \(ENOSPC\).*HF_HOME to a folder on another disk/,
    });
    rmSync(partial);
    assert.ok(await modelFolder('owner/name', options));
  });

  it('stops when it is told to, and goes on from there', async (t) => {
    const { options, hub } = await setting(t, { 'owner/name': model() });
    const abort = new AbortController();
    hub.fault = ({ kind, path }) =>
      kind === 'cdn' && path === 'model.safetensors' ? { stallAfter: 500_000 } : undefined;
    const stopped = modelFolder('owner/name', {
      ...options,
      signal: abort.signal,
      onProgress: (progress) => {
        if (progress.phase === 'download' && progress.file === 'model.safetensors' && progress.done > 100_000)
          abort.abort();
      },
    });
    await assert.rejects(stopped, { code: 'EEPO_ABORTED' });
    hub.fault = () => undefined;
    hub.requests.length = 0;
    await modelFolder('owner/name', options);
    assert.match(hub.of('cdn', 'model.safetensors')[0]?.range ?? '', /^bytes=[1-9]\d+-$/);
  });
});

describe('several processes', () => {
  it('download one repository at once, each byte once', async (t) => {
    const { hub, cache } = await setting(t, { 'owner/name': model() });
    hub.fault = ({ kind }) => (kind === 'cdn' ? { delay: 300 } : undefined);
    const program = `
      const { modelFolder } = await import(${JSON.stringify(join(ROOT, 'dist/lib/hub/index.js'))});
      console.log(await modelFolder('owner/name', ${JSON.stringify({ endpoint: hub.endpoint, cacheDir: cache, token: false })}));`;
    const run = () =>
      new Promise<string>((resolve, reject) => {
        const child = spawn(process.execPath, ['--input-type=module', '-e', program]);
        let out = '';
        child.stdout.on('data', (data) => (out += data));
        child.stderr.on('data', (data) => (out += data));
        child.on('close', (code) => (code === 0 ? resolve(out.trim()) : reject(new Error(out))));
      });
    const folders = await Promise.all([run(), run(), run()]);
    assert.equal(new Set(folders).size, 1);
    assert.deepEqual(readFileSync(join(folders[0] as string, 'model.safetensors')), weights());
    assert.equal(hub.of('cdn', 'model.safetensors').length, 1);
    assert.deepEqual(
      listing(cache).filter((path) => /partial|tmp$/.test(path)),
      [],
    );
  });
});
