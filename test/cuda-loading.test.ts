import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { pathToFileURL } from 'node:url';
import type { CudaStatus } from '../lib/cuda.js';
import { cudaDriver, findCudaToolkit } from '../lib/libtorch/cuda.js';
import { findLibtorch, hasCuda, inspectLibtorch } from '../lib/libtorch/find.js';
import { interfaceOf, loadNativeDetails, locateAddon, packageRoot } from '../lib/native.js';
import { fakeLibtorch, temporaryFolder, writeFiles, writeScript } from './support/files.js';

const urlOf = (name: string) => JSON.stringify(pathToFileURL(join(packageRoot, 'dist', 'lib', name)).href);
const { addon, libtorch } = loadNativeDetails();

/** Runs a module's code in a fresh process, with nothing of CUDA set but what a test sets; what it prints. */
function inChild(code: string, env: NodeJS.ProcessEnv): string {
  const { EEPO_BUILD, EEPO_CUDA_LIBRARY, EEPO_CUDA_PROBED, ...rest } = process.env;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    env: { ...rest, LIBTORCH: libtorch.path, ...env },
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.equal(child.status, 0, `${child.signal ?? ''} ${child.stderr}`);
  return child.stdout.trim();
}

function statusWith(env: NodeJS.ProcessEnv, timeout = 30_000): CudaStatus {
  const code = `import { lookForCuda } from ${urlOf('cuda.js')};
    console.log(JSON.stringify(lookForCuda(${timeout})));`;
  return JSON.parse(inChild(code, env)) as CudaStatus;
}

/** A build folder with this build's addon and preloader, and `half` as its CUDA half. */
function buildWith(t: TestContext, half?: string): string {
  const folder = temporaryFolder(t);
  for (const [name, target] of [
    ['Release', dirname(locateAddon())],
    ['preload', join(packageRoot, 'build', 'preload')],
  ] as const) {
    symlinkSync(target, join(folder, name));
  }
  if (half !== undefined) writeFiles(folder, { 'cuda/eepo_cuda.so': half });
  return folder;
}

const markers = (eepo: string, version: string, headers: string) =>
  `\0eepo cuda half built against libtorch ${version}, eepo ${eepo}, architectures 80 90;\0` +
  `\0eepo device interface ${headers};\0`;

/** A shared library that does this when it is loaded. */
function libraryThat(t: TestContext, body: string): string {
  const folder = temporaryFolder(t);
  const source = join(folder, 'half.cc');
  writeFileSync(
    source,
    `#include <cstdlib>\n#include <unistd.h>\n__attribute__((constructor)) void start() { ${body} }\n`,
  );
  const library = join(folder, 'half.so');
  execFileSync(process.env.CXX || 'g++', ['-shared', '-fPIC', source, '-o', library]);
  return library;
}

describe('cudaStatus', () => {
  it('says that the CUDA half is not built, and how to build it', (t) => {
    const build = buildWith(t);
    const status = statusWith({ EEPO_BUILD: build });
    assert.equal(status.available, false);
    assert.ok(
      status.reason?.includes(`is not built (looked at ${join(build, 'cuda', 'eepo_cuda.so')})`),
      status.reason,
    );
    assert.match(status.fix ?? '', /npx eepo build --cuda/);
  });

  it('refuses a half of another version, libtorch or source before it is loaded', (t) => {
    const headers = interfaceOf(locateAddon()) as string;
    assert.match(headers, /^[0-9a-f]{16}$/);
    const reasonOf = (half: string) => statusWith({ EEPO_BUILD: buildWith(t, half) }).reason ?? '';
    assert.match(reasonOf('nothing'), /eepo_cuda\.so does not say what it was built against/);
    const older = markers('0.0.1', addon.libtorchVersion, headers);
    assert.match(reasonOf(older), new RegExp(`belongs to eepo 0\\.0\\.1, this is eepo ${addon.version}`));
    const other = markers(addon.version, '1.13.0', headers);
    assert.match(reasonOf(other), /built against libtorch 1\.13\.0, the addon against/);
    const path = writeFiles(temporaryFolder(t), { 'half.so': markers(addon.version, addon.libtorchVersion, '0000') });
    const mixed = statusWith({ EEPO_CUDA_LIBRARY: join(path, 'half.so') });
    assert.match(mixed.reason ?? '', /were built from different sources/);
  });

  it('asks for a driver, then for a libtorch with CUDA', (t) => {
    const half = markers(addon.version, addon.libtorchVersion, interfaceOf(locateAddon()) as string);
    const build = buildWith(t, half);
    if (!cudaDriver().driver) {
      const status = statusWith({ EEPO_BUILD: build });
      assert.match(status.reason ?? '', /no NVIDIA driver/);
      assert.match(status.fix ?? '', /install the NVIDIA driver/);
    }
    if (!hasCuda(libtorch)) {
      const drivers = writeFiles(temporaryFolder(t), { 'libcuda.so.1': '' });
      const status = statusWith({ EEPO_BUILD: build, LD_LIBRARY_PATH: drivers });
      assert.match(status.reason ?? '', /libtorch .* was built without CUDA/);
    }
  });

  it('survives a half that crashes, hangs or is none, and says what happened', (t) => {
    const tried = (library: string, timeout?: number) => statusWith({ EEPO_CUDA_LIBRARY: library }, timeout);
    const crash = tried(libraryThat(t, 'abort();'));
    assert.equal(crash.available, false);
    assert.match(crash.reason ?? '', /was killed by SIGABRT \(step: load the CUDA half\)/);
    const hang = tried(libraryThat(t, 'sleep(60);'), 4000);
    assert.match(hang.reason ?? '', /did not end within 4 s \(step: load the CUDA half\)/);
    const leave = tried(libraryThat(t, 'write(2, "no luck", 7); _exit(7);'));
    assert.match(leave.reason ?? '', /ended with exit code 7 \(step: load the CUDA half\): no luck/);
    assert.match(tried(libraryThat(t, '')).reason ?? '', /is not the CUDA half of eepo/);
    const text = writeFiles(temporaryFolder(t), { 'half.so': 'text' });
    assert.match(tried(join(text, 'half.so')).reason ?? '', /file too short|invalid ELF header/);
    assert.match(tried('/nonexistent/half.so').reason ?? '', /\/nonexistent\/half\.so does not exist/);
  });
});

describe('resolveDevice', () => {
  it("'auto' falls back to the CPU; 'cuda' says why it cannot and what to do", (t) => {
    const code = `import { resolveDevice } from ${urlOf('cuda.js')};
      const of = (device) => { try { return resolveDevice(device); } catch (error) { return error.code + ' ' + error.message; } };
      console.log(JSON.stringify(['cpu', 'auto', 'cuda', 'tpu'].map(of)));`;
    const [cpu, auto, cuda, tpu] = JSON.parse(inChild(code, { EEPO_BUILD: buildWith(t) }));
    assert.deepEqual([cpu, auto], ['cpu', 'cpu']);
    assert.match(
      cuda,
      /^EEPO_UNSUPPORTED device 'cuda' is not available: .* is not built .*What to do: .*eepo build --cuda/,
    );
    assert.match(tpu, /^EEPO_INVALID_ARGUMENT device must be 'cpu', 'cuda' or 'auto', got "tpu"/);
  });
});

describe('loadLibrary', () => {
  it('finds what a library needs in the folders it is given', (t) => {
    const folder = temporaryFolder(t);
    const compile = (name: string, source: string, ...more: string[]) => {
      writeFileSync(join(folder, `${name}.cc`), source);
      const output = join(folder, `lib${name}.so.1`);
      const soname = `-Wl,-soname,lib${name}.so.1`;
      execFileSync(process.env.CXX || 'g++', [
        '-shared',
        '-fPIC',
        soname,
        join(folder, `${name}.cc`),
        '-o',
        output,
        ...more,
      ]);
      return output;
    };
    const inner = compile('inner', 'int inner() { return 1; }');
    const middle = compile('middle', 'int inner(); int middle() { return inner(); }', inner);
    const outer = compile('outer', 'int middle(); int outer() { return middle(); }', middle);
    const load = (folders: string[]) => `import { loadLibrary } from ${urlOf('native.js')};
      try { loadLibrary(${JSON.stringify(outer)}, ${JSON.stringify(folders)}); console.log('loaded'); }
      catch (error) { console.log(error.code + ' ' + error.message); }`;
    assert.equal(inChild(load([folder]), {}), 'loaded');
    assert.match(
      inChild(load(['/nonexistent']), {}),
      /^EEPO_LOAD [\s\S]*libmiddle\.so\.1: cannot open shared object file/,
    );
  });
});

describe('libtorch with CUDA', () => {
  /** A libtorch with a CUDA that no machine has, as PyTorch's wheels lay it out. */
  function wheels(folder: string, version: string): string {
    writeFiles(folder, {
      'torch/lib/libtorch_cuda.so': '',
      'nvidia/cu13/lib/libcudart.so.99': '',
      'nvidia/cu13/lib/libcublas.so.99': '',
    });
    return fakeLibtorch(join(folder, 'torch'), version);
  }

  it('goes before the one without where it is asked for', (t) => {
    const cache = temporaryFolder(t);
    const plain = fakeLibtorch(join(cache, 'libtorch', '2.13.0-cpu'), '2.13.0');
    const env = { EEPO_CACHE: cache, EEPO_PYTHON: '/nonexistent/python' };
    assert.equal(findLibtorch({ env }).path, plain);
    assert.equal(findLibtorch({ env, cuda: 'preferred' }).path, plain);
    assert.throws(() => findLibtorch({ env, cuda: 'required' }), /libtorch 2\.13 with CUDA was not found/);
    const same = wheels(join(cache, 'cuda', '2.13.1'), '2.13.1');
    const newer = wheels(join(cache, 'cuda', '2.14.1'), '2.14.1');
    assert.equal(findLibtorch({ env }).path, plain);
    assert.equal(findLibtorch({ env, cuda: 'preferred' }).path, same);
    assert.equal(findLibtorch({ env, cuda: 'required', version: 'any' }).path, newer);
    assert.throws(() => findLibtorch({ env: { ...env, LIBTORCH: plain }, cuda: 'required' }), /2\.13\.0 without CUDA/);
  });

  it('is built with an nvcc of its CUDA version; everything that is missing is named at once', (t) => {
    const folder = temporaryFolder(t);
    const found = inspectLibtorch(wheels(join(folder, 'site'), '2.14.1'), 'option');
    const nvcc = join(folder, 'bin', 'nvcc');
    mkdirSync(dirname(nvcc));
    const env = { PATH: process.env.PATH, EEPO_NVCC: nvcc };
    const compilerOf = (release: string) =>
      writeScript(nvcc, `echo "release ${release}, V${release}.1"; echo '#$ INCLUDES="-I${folder}/bin/../include"  '`);
    compilerOf('12.4');
    assert.throws(() => findCudaToolkit(found, env), /nvcc of CUDA 99; [\s\S]*nvcc is CUDA 12\.4/);
    compilerOf('99.0');
    assert.throws(
      () => findCudaToolkit(found, env),
      /the header cuda_runtime_api\.h[\s\S]*crt\/host_defines\.h[\s\S]*cublas_v2\.h/,
    );
    writeFiles(folder, {
      'include/cuda_runtime_api.h': '',
      'include/crt/host_defines.h': '',
      'site/nvidia/cu13/include/cublas_v2.h': '',
    });
    const lib = join(folder, 'site', 'nvidia', 'cu13', 'lib');
    assert.deepEqual(findCudaToolkit(found, env), {
      nvcc,
      version: '99.0',
      includes: [join(folder, 'include'), join(folder, 'site', 'nvidia', 'cu13', 'include')],
      libraries: [join(lib, 'libcudart.so.99'), join(lib, 'libcublas.so.99')],
    });
    const without = inspectLibtorch(fakeLibtorch(join(folder, 'plain'), '2.14.1'), 'option');
    assert.throws(() => findCudaToolkit(without, env), /was built without CUDA/);
  });
});
