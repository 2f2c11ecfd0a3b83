import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { AbortedError, InvalidArgumentError, NativeError, OutOfMemoryError } from '../lib/errors.js';
import { LIBTORCH_VERSION, minorOf } from '../lib/libtorch/find.js';
import { builtAgainst, callNative, loadNative, locateAddon, packageRoot, wrapNativeError } from '../lib/native.js';
import { fakeLibtorch, temporaryFolder } from './support/files.js';

const nativeUrl = pathToFileURL(join(packageRoot, 'dist', 'lib', 'native.js')).href;

/** Loads the addon in a fresh process and prints its info, or the error's code and message. */
function loadInChild(env: NodeJS.ProcessEnv): { status: number | null; stdout: string } {
  const code = `import(${JSON.stringify(nativeUrl)}).then((native) => {
    try { console.log(JSON.stringify(native.loadNative().info())); }
    catch (error) { console.log(error.code + ' ' + error.message); process.exitCode = 3; }
  })`;
  const { status, stdout } = spawnSync(process.execPath, ['-e', code], { env, encoding: 'utf8' });
  return { status, stdout };
}

describe('loadNative', () => {
  it('loads the addon; what it says of itself is consistent', () => {
    const addon = loadNative();
    assert.equal(loadNative(), addon);
    assert.equal(builtAgainst(locateAddon()), addon.libtorchVersion);
    assert.equal(minorOf(addon.libtorchVersion), minorOf(LIBTORCH_VERSION));
    const { isa, threads, openmp } = addon.info();
    assert.ok(['base', 'avx2', 'avx512'].includes(isa));
    assert.ok(threads >= 1);
    assert.equal(openmp, true, 'a parallel region got one thread only');
  });

  it('loads in worker threads', async () => {
    const code = `import(${JSON.stringify(nativeUrl)}).then((native) =>
      require('node:worker_threads').parentPort.postMessage(native.loadNative().info().isa))`;
    const seen = await Promise.all(
      [1, 2].map(
        () =>
          new Promise((resolve, reject) => {
            new Worker(code, { eval: true }).once('message', resolve).once('error', reject);
          }),
      ),
    );
    assert.deepEqual(seen, [loadNative().info().isa, loadNative().info().isa]);
  });

  it('EEPO_ISA asks for a lower instruction set; nonsense is ignored', () => {
    const info = (value: string) => JSON.parse(loadInChild({ ...process.env, EEPO_ISA: value }).stdout);
    assert.equal(info('base').isa, 'base');
    assert.equal(info('sse9').isa, loadNative().info().isa);
  });

  it('OMP_NUM_THREADS and setThreads decide the number of threads', () => {
    assert.equal(JSON.parse(loadInChild({ ...process.env, OMP_NUM_THREADS: '3' }).stdout).threads, 3);
    const addon = loadNative();
    const before = addon.info().threads;
    addon.setThreads(1);
    assert.equal(addon.info().threads, 1);
    addon.setThreads(before);
    for (const bad of [0, -1, 1.5, Number.NaN, '2']) {
      assert.throws(() => callNative(() => addon.setThreads(bad as number)), InvalidArgumentError);
    }
  });
});

describe('a failure to load', () => {
  const bare = (cache: string, more: NodeJS.ProcessEnv = {}) => ({
    PATH: process.env.PATH,
    EEPO_CACHE: cache,
    EEPO_PYTHON: '/nonexistent/python',
    ...more,
  });

  it('without libtorch: what was searched and the command that installs it', (t) => {
    const cache = temporaryFolder(t);
    const { status, stdout } = loadInChild(bare(cache));
    assert.equal(status, 3);
    assert.match(stdout, /^EEPO_LOAD libtorch 2\.\d+ was not found/);
    assert.ok(stdout.includes(join(cache, 'libtorch')), stdout);
    assert.match(stdout, /\/nonexistent\/python: not on the PATH/);
    assert.match(stdout, /npx eepo libtorch install/);
  });

  it('another minor version is refused before anything is loaded', (t) => {
    const folder = temporaryFolder(t);
    const { status, stdout } = loadInChild(bare(folder, { LIBTORCH: fakeLibtorch(join(folder, 'old'), '1.13.0') }));
    assert.equal(status, 3);
    assert.match(stdout, /it is libtorch 1\.13\.0; 2\.\d+ is needed/);
    assert.doesNotMatch(stdout, /ELF|too short/);
  });

  it('broken libraries: what the loader said, and the fixes', (t) => {
    const folder = temporaryFolder(t);
    const libtorch = fakeLibtorch(join(folder, 'broken'), LIBTORCH_VERSION);
    const { status, stdout } = loadInChild(bare(folder, { LIBTORCH: libtorch }));
    assert.equal(status, 3);
    assert.match(stdout, /libc10\.so: .*(file too short|invalid ELF header)/);
    assert.match(stdout, /npx eepo libtorch install --force/);
    assert.match(stdout, /npx eepo doctor/);
  });
});

describe('errors from the addon', () => {
  it('become the class of their code', () => {
    const thrown = Object.assign(new Error('too much'), { code: 'EEPO_OUT_OF_MEMORY', nativeBacktrace: 'frame 0' });
    const wrapped = wrapNativeError(thrown);
    assert.ok(wrapped instanceof OutOfMemoryError);
    assert.equal(wrapped.message, 'too much');
    assert.equal(wrapped.nativeBacktrace, 'frame 0');
    assert.equal(wrapped.cause, thrown);
    assert.equal(wrapNativeError(wrapped), wrapped);
    assert.ok(wrapNativeError(new Error('odd')) instanceof NativeError);
    assert.ok(wrapNativeError('odd') instanceof NativeError);
    const aborted = wrapNativeError(Object.assign(new Error('stop'), { code: 'EEPO_ABORTED' }));
    assert.ok(aborted instanceof AbortedError && aborted.name === 'AbortError');
  });

  it('carry the stack of the caller, also when a promise is rejected later', async () => {
    const fail = () => Object.assign(new Error('bad'), { code: 'EEPO_INVALID_ARGUMENT' });
    function outerCaller() {
      return callNative(() => new Promise<void>((_resolve, reject) => setImmediate(() => reject(fail()))));
    }
    await assert.rejects(outerCaller(), (error: Error) => {
      assert.ok(error instanceof InvalidArgumentError);
      assert.match(error.stack ?? '', /^InvalidArgumentError: bad\n.*outerCaller/);
      return true;
    });
    assert.equal(await callNative(async () => 7), 7);
    assert.equal(
      callNative(() => 7),
      7,
    );
  });
});
