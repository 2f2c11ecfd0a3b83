// What CUDA needs beside libtorch itself: the driver, NVIDIA's libraries and, to build, a compiler.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { delimiter, dirname, join, normalize, resolve } from 'node:path';
import { LoadError } from '../errors.js';
import { hasCuda, type Libtorch } from './find.js';

/** The NVIDIA driver's user-space library, as far as it can be seen without loading it. */
export interface Driver {
  driver: boolean;
  library?: string;
  driverVersion?: string;
}

/** The NVIDIA driver is there if its library is; nothing is loaded. */
export function cudaDriver(env: NodeJS.ProcessEnv = process.env): Driver {
  const folders = [
    ...(env.LD_LIBRARY_PATH ?? '').split(':').filter(Boolean),
    '/usr/lib/x86_64-linux-gnu',
    '/usr/lib/aarch64-linux-gnu',
    '/usr/lib64',
    '/usr/lib',
    '/usr/lib/wsl/lib',
    '/usr/local/nvidia/lib64',
    '/usr/local/nvidia/lib',
    '/run/opengl-driver/lib',
  ];
  const library =
    folders.map((folder) => join(folder, 'libcuda.so.1')).find((path) => existsSync(path)) ?? ofLoaderCache();
  if (library === undefined) return { driver: false };
  let driverVersion: string | undefined;
  try {
    driverVersion = /Kernel Module\D*([\d.]+)/.exec(readFileSync('/proc/driver/nvidia/version', 'utf8'))?.[1];
  } catch {
    // The library can be there without the kernel module (containers).
  }
  return { driver: true, library, driverVersion };
}

/** Where the loader's own cache has the driver (distributions and container runtimes put it in many places). */
function ofLoaderCache(): string | undefined {
  try {
    const cache = readFileSync('/etc/ld.so.cache', 'latin1');
    return cache.match(/\/[^\0]*\/libcuda\.so\.1(?=\0)/g)?.find((path) => existsSync(path));
  } catch {
    return undefined;
  }
}

/**
 * The folders where a libtorch's CUDA libraries are: its own `lib`, and, if it came as a Python wheel, those of NVIDIA's
 * wheels beside it (`nvidia/cu13/lib`, `nvidia/cudnn/lib`, ...).
 */
export function cudaLibraryFolders(libtorch: Libtorch): string[] {
  const folders = [join(libtorch.path, 'lib')];
  const wheels = join(dirname(libtorch.path), 'nvidia');
  if (existsSync(wheels)) {
    for (const name of readdirSync(wheels).sort()) {
      const folder = join(wheels, name, 'lib');
      if (existsSync(folder)) folders.push(folder);
    }
  }
  return folders;
}

/** The first file called `lib<name>.so.<numbers>` (or, in PyTorch's archives, `lib<name>-<sum>.so.<numbers>`). */
export function findLibrary(name: string, folders: readonly string[]): string | undefined {
  const pattern = new RegExp(`^lib${name}(-[0-9a-f]{6,})?\\.so(\\.\\d+)+$`);
  for (const folder of folders) {
    if (!existsSync(folder)) continue;
    const file = readdirSync(folder).find((entry) => pattern.test(entry));
    if (file !== undefined) return join(folder, file);
  }
  return undefined;
}

/** What the CUDA half is compiled and linked with. */
export interface CudaToolkit {
  nvcc: string;
  /** `major.minor` of nvcc. */
  version: string;
  /** For `-isystem`, of C++ sources: the compiler's own headers, then those of libtorch's libraries. */
  includes: string[];
  /** libcudart and libcublas, those that libtorch itself uses. */
  libraries: string[];
}

/**
 * Finds nvcc (`EEPO_NVCC`, the wheel `nvidia-cuda-nvcc` beside libtorch, `CUDA_HOME`, the PATH, `/usr/local/cuda`), the
 * headers and the libraries to link.
 *
 * @throws LoadError that lists all that is missing at once, with what was looked at.
 */
export function findCudaToolkit(libtorch: Libtorch, env: NodeJS.ProcessEnv = process.env): CudaToolkit {
  if (!hasCuda(libtorch)) {
    throw new LoadError(
      `libtorch ${libtorch.version} at ${libtorch.path} was built without CUDA (no lib/libtorch_cuda.so); ` +
        'install PyTorch with CUDA, or set LIBTORCH to a libtorch that has it',
    );
  }
  const folders = cudaLibraryFolders(libtorch);
  const runtime = findLibrary('cudart', folders);
  const major = runtime === undefined ? undefined : /\.so\.(\d+)/.exec(runtime)?.[1];
  const missing: string[] = [];
  const compiler = findNvcc(libtorch, major, env, missing);

  const wheels = join(dirname(libtorch.path), 'nvidia');
  const includes = [
    ...(compiler?.includes ?? []),
    ...(existsSync(wheels) ? readdirSync(wheels).map((name) => join(wheels, name, 'include')) : []),
  ].filter((folder) => existsSync(folder));
  const beside = (compiler?.includes ?? []).flatMap((folder) => [
    join(folder, '..', 'lib64'),
    join(folder, '..', 'lib'),
  ]);
  const libraries: string[] = [];
  for (const name of ['cudart', 'cublas']) {
    const library = findLibrary(name, [...folders, ...beside]);
    if (library === undefined) missing.push(`lib${name}.so.*, in ${[...folders, ...beside].join(', ')}`);
    else libraries.push(library);
  }
  if (compiler !== undefined) {
    for (const header of ['cuda_runtime_api.h', 'crt/host_defines.h', 'cublas_v2.h']) {
      if (includes.some((folder) => existsSync(join(folder, header)))) continue;
      missing.push(`the header ${header}, in ${includes.join(', ') || 'no include folder'}`);
    }
  }
  if (compiler === undefined || missing.length > 0) {
    throw new LoadError(
      [
        `The CUDA half cannot be built for libtorch ${libtorch.version} at ${libtorch.path}. Missing:`,
        ...missing.map((line) => `  - ${line}`),
        'Possible solutions:',
        `  - install the CUDA toolkit ${major ?? ''} (with cuBLAS), and set CUDA_HOME if it is not in /usr/local/cuda`,
        '  - without a GPU or a toolkit, for development: node scripts/setup-cuda.mjs',
      ].join('\n'),
    );
  }
  return { nvcc: compiler.nvcc, version: compiler.version, includes, libraries };
}

interface Compiler {
  nvcc: string;
  version: string;
  includes: string[];
}

/** The first nvcc of the CUDA version's major number; what is wrong goes to `missing`. */
function findNvcc(
  libtorch: Libtorch,
  major: string | undefined,
  env: NodeJS.ProcessEnv,
  missing: string[],
): Compiler | undefined {
  const wheels = join(dirname(libtorch.path), 'nvidia');
  const candidates = [
    env.EEPO_NVCC,
    ...(existsSync(wheels) ? readdirSync(wheels).map((name) => join(wheels, name, 'bin', 'nvcc')) : []),
    env.CUDA_HOME && join(env.CUDA_HOME, 'bin', 'nvcc'),
    env.CUDA_PATH && join(env.CUDA_PATH, 'bin', 'nvcc'),
    ...(env.PATH ?? '')
      .split(delimiter)
      .filter(Boolean)
      .map((folder) => join(folder, 'nvcc')),
    '/usr/local/cuda/bin/nvcc',
  ].filter((path): path is string => Boolean(path));
  const others: string[] = [];
  for (const nvcc of new Set(candidates.map((path) => resolve(path)))) {
    if (!existsSync(nvcc)) continue;
    const version = nvccVersion(nvcc);
    if (version !== undefined && (major === undefined || version.split('.')[0] === major)) {
      return { nvcc, version, includes: nvccIncludes(nvcc) };
    }
    others.push(`${nvcc} is ${version === undefined ? 'not runnable' : `CUDA ${version}`}`);
  }
  missing.push(
    others.length > 0
      ? `nvcc of CUDA ${major}; ${others.join(', ')}`
      : `nvcc${major === undefined ? '' : ` of CUDA ${major}`} (looked at EEPO_NVCC, CUDA_HOME, the PATH, /usr/local/cuda and ${wheels})`,
  );
  return undefined;
}

function nvccVersion(nvcc: string): string | undefined {
  try {
    const output = execFileSync(nvcc, ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    return /release (\d+\.\d+)/.exec(output)?.[1];
  } catch {
    return undefined;
  }
}

/** nvcc knows best where its headers are; a dry run prints it. */
function nvccIncludes(nvcc: string): string[] {
  let output = '';
  try {
    const args = ['--dryrun', '-c', '-x', 'cu', '/dev/null', '-o', '/dev/null'];
    output = execFileSync('sh', ['-c', 'exec "$0" "$@" 2>&1', nvcc, ...args], { encoding: 'utf8' });
  } catch (error) {
    output = String((error as { stdout?: string }).stdout ?? '');
  }
  const line = /^#\$ INCLUDES=(.*)$/m.exec(output)?.[1] ?? '';
  const folders = [...line.matchAll(/"-I([^"]+)"/g)].map((match) => normalize(match[1] as string));
  return folders.length > 0 ? folders : [join(dirname(nvcc), '..', 'include')].map((folder) => normalize(folder));
}
