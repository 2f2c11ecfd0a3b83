import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { render } from '../lib/cli/doctor.js';
import { type Diagnosis, problemsOf } from '../lib/libtorch/diagnose.js';
import { packageRoot } from '../lib/native.js';
import { fakeLibtorch, temporaryFolder } from './support/files.js';

const main = join(packageRoot, 'dist', 'lib', 'cli', 'main.js');

function doctor(env: NodeJS.ProcessEnv): { status: number | null; found: Diagnosis } {
  const { status, stdout } = spawnSync(process.execPath, [main, 'doctor', '--json'], { env, encoding: 'utf8' });
  return { status, found: JSON.parse(stdout) as Diagnosis };
}

describe('eepo doctor', () => {
  it('finds everything on a machine that is set up', () => {
    const { status, found } = doctor(process.env);
    assert.equal(status, 0, JSON.stringify(found.problems));
    assert.equal(found.ok, true);
    assert.deepEqual(Object.keys(found), [
      'ok',
      'eepo',
      'platform',
      'node',
      'libtorch',
      'addon',
      'cpu',
      'cuda',
      'tools',
      'cache',
      'problems',
    ]);
    assert.ok(found.libtorch.found && found.addon.found && found.addon.loaded);
    assert.equal(found.cpu.openmpRuntimes.length, 1, found.cpu.openmpRuntimes.join());
    assert.equal(found.cpu.openmp, true);
    assert.equal(found.node.version, process.versions.node);
    assert.equal(typeof found.cuda.driver, 'boolean');
    assert.match(render(found), /All that training needs is here\.$/);
  });

  it('without libtorch: exit code 1 and the command that mends it', (t) => {
    const cache = temporaryFolder(t);
    const { status, found } = doctor({ PATH: process.env.PATH, EEPO_CACHE: cache, EEPO_PYTHON: '/nonexistent/python' });
    assert.equal(status, 1);
    assert.equal(found.ok, false);
    assert.equal(found.libtorch.found, false);
    assert.ok(found.problems.some(({ fix, fatal }) => fatal && fix === 'npx eepo libtorch install'));
    assert.equal(found.cache.path, cache);
    assert.match(render(found), /Training cannot run yet\.$/);
  });

  it('reports a libtorch that does not load', (t) => {
    const folder = temporaryFolder(t);
    const libtorch = fakeLibtorch(join(folder, 'broken'), '2.13.0');
    const { status, found } = doctor({ PATH: process.env.PATH, EEPO_CACHE: folder, LIBTORCH: libtorch });
    assert.equal(status, 1);
    assert.equal(found.addon.loaded, false);
    assert.match(found.addon.error ?? '', /libc10\.so/);
  });

  it('names the tool that is missing before the step that needs it', () => {
    const { found } = doctor(process.env);
    const bare: Diagnosis = {
      ...found,
      libtorch: { found: false, wanted: '2.13.0' },
      addon: { found: false, loaded: false },
      tools: { cxx: null, cmake: null, ninja: null, python: null },
      cpu: { ...found.cpu, openmpRuntimes: ['/a/libgomp.so.1', '/b/libiomp5.so'] },
    };
    assert.deepEqual(
      problemsOf(bare).map(({ fix }) => fix),
      [
        'apt-get install python3-pip',
        'npx eepo libtorch install',
        'apt-get install g++',
        'apt-get install cmake',
        'npx eepo build',
        'npx eepo build --clean',
      ],
    );
  });

  it('tells the GPU, or why there is none; only where a driver is, that is a problem', () => {
    const { found } = doctor(process.env);
    const half = { path: '/a/eepo_cuda.so', eepo: '0.1.0', libtorch: '2.14.1', architectures: '80 90' };
    const device = { name: 'H100', totalBytes: 85e9, freeBytes: 80e9, capability: '9.0', multiprocessors: 132 };
    const usable: Diagnosis = {
      ...found,
      cuda: { driver: true, libtorch: true, half, status: { available: true, device } },
    };
    assert.match(render(usable), /CUDA half {2}.*\/a\/eepo_cuda\.so, built against libtorch 2\.14\.1 for 80 90\n/);
    assert.match(render(usable), /H100, compute capability 9\.0, 132 multiprocessors, 80\.0 of 85\.0 GB free/);
    assert.deepEqual(problemsOf(usable), problemsOf({ ...found, cuda: { ...found.cuda, driver: false } }));

    const status = { available: false, reason: 'the process was killed by SIGSEGV', fix: 'nvidia-smi' };
    const broken: Diagnosis = { ...usable, cuda: { ...usable.cuda, status } };
    assert.match(render(broken), /GPU +cannot be used: the process was killed by SIGSEGV/);
    assert.deepEqual(problemsOf(broken).at(-1), {
      problem: `device 'cuda' is not available: ${status.reason}`,
      fix: 'nvidia-smi',
      fatal: false,
    });
  });
});
