import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { arch, platform } from 'node:process';
import { fileURLToPath } from 'node:url';
import {
  AbortedError,
  BusyError,
  DisposedError,
  EepoError,
  InvalidArgumentError,
  InvalidFileError,
  LoadError,
  NativeError,
  NonFiniteError,
  OutOfMemoryError,
  UnsupportedError,
} from './errors.js';
import { cudaDriver, cudaLibraryFolders } from './libtorch/cuda.js';
import { findLibtorch, type Libtorch, minorOf } from './libtorch/find.js';

/** What `native/addon.cc` itself exports. */
export interface CoreAddon {
  /** The package version the addon was built from. */
  readonly version: string;
  /** The libtorch version (major.minor.patch) it was built against. */
  readonly libtorchVersion: string;
  /**
   * The instruction set of the inner loops, the number of threads they use, and whether a parallel region really got
   * more than one thread (true where there is only one).
   */
  info(): { isa: 'base' | 'avx2' | 'avx512'; threads: number; openmp: boolean };
  /** The number of threads that later jobs use; an integer from 1 to 4096. */
  setThreads(threads: number): void;
}

/** Everything the addon exports. Each room adds its part by `declare module './native.js' { interface NativeAddon }`. */
export interface NativeAddon extends CoreAddon {}

/** The folder of package.json, seen from dist/lib. */
export const packageRoot = fileURLToPath(new URL('../../', import.meta.url));

const require = createRequire(import.meta.url);

/** What was loaded, for `eepo doctor`. */
export interface LoadedNative {
  addon: NativeAddon;
  addonPath: string;
  libtorch: Libtorch;
}

let loaded: LoadedNative | undefined;

/**
 * The addon. The first call finds libtorch, checks that the addon was built against its minor version, loads libtorch
 * by absolute path and then the addon; later calls return the same object. Works in worker threads.
 *
 * @throws LoadError with every real loader error, what was searched and how to mend it.
 */
export function loadNative(): NativeAddon {
  return loadNativeDetails().addon;
}

/** {@link loadNative} with the places things were loaded from. */
export function loadNativeDetails(): LoadedNative {
  loaded ??= load();
  return loaded;
}

/** Where the addon is, by node-gyp-build's rules (build/Release, then prebuilds/), or in the folder `EEPO_BUILD`. */
export function locateAddon(root: string = packageRoot): string {
  if (process.env.EEPO_BUILD) {
    const path = resolve(process.env.EEPO_BUILD, 'Release', 'eepo.node');
    if (existsSync(path)) return path;
    throw loadFailure([`EEPO_BUILD=${process.env.EEPO_BUILD}: ${path} does not exist`], ['build']);
  }
  const nodeGypBuild = require('node-gyp-build') as { resolve(dir: string): string };
  try {
    return nodeGypBuild.resolve(root);
  } catch (error) {
    throw loadFailure([`no addon for ${platform}-${arch} in ${root} (build/Release, prebuilds)`], ['build'], error);
  }
}

/** Where the CUDA half may be; the first that exists is used. */
export function cudaHalfCandidates(): string[] {
  if (process.env.EEPO_CUDA_LIBRARY) return [resolve(process.env.EEPO_CUDA_LIBRARY)];
  if (process.env.EEPO_BUILD) return [resolve(process.env.EEPO_BUILD, 'cuda', 'eepo_cuda.so')];
  return [
    join(packageRoot, 'build', 'cuda', 'eepo_cuda.so'),
    join(packageRoot, 'prebuilds', `${platform}-${arch}`, 'cuda', 'eepo_cuda.so'),
  ];
}

/** What a CUDA half says of itself, read without loading it. */
export interface CudaHalf {
  path: string;
  eepo: string;
  libtorch: string;
  /** Compute capabilities with machine code of their own, such as `80 90`. */
  architectures: string;
}

/** The CUDA half, or undefined if there is none that says what it is. */
export function locateCudaHalf(): CudaHalf | undefined {
  const path = cudaHalfCandidates().find((candidate) => existsSync(candidate));
  if (path === undefined) return undefined;
  const text = markerIn(path, 'eepo cuda half built against libtorch ');
  const match = /^(\d+\.\d+\.\d+), eepo ([^,]+), architectures ([^;]*);/.exec(text ?? '');
  if (match === null) return undefined;
  const [, libtorch = '', eepo = '', architectures = ''] = match;
  return { path, eepo, libtorch, architectures };
}

/** From which headers a binary was built; both halves must agree. */
export function interfaceOf(path: string): string | undefined {
  return /^[0-9a-f]+/.exec(markerIn(path, 'eepo device interface ') ?? '')?.[0];
}

/** The libtorch version that an addon file says it was built against, read without loading it. */
export function builtAgainst(addonPath: string): string | undefined {
  return /^\d+\.\d+\.\d+/.exec(markerIn(addonPath, 'eepo built against libtorch ') ?? '')?.[0];
}

/** The text after a marker in a binary file, of those places where something follows that begins like a version. */
function markerIn(path: string, marker: string): string | undefined {
  const bytes = readFileSync(path);
  // The marker alone can also be in a table of strings.
  for (let at = bytes.indexOf(marker); at >= 0; at = bytes.indexOf(marker, at + 1)) {
    const text = bytes.toString('latin1', at + marker.length, at + marker.length + 160);
    if (/^[0-9a-f]/.test(text)) return text;
  }
  return undefined;
}

function load(): LoadedNative {
  const addonPath = locateAddon();
  const version = builtAgainst(addonPath);
  if (version === undefined) {
    throw loadFailure([`${addonPath} does not say which libtorch it was built against`], ['build']);
  }
  // Where a GPU can be used, a libtorch with CUDA goes before the one in the cache, which has none.
  const half = locateCudaHalf();
  const gpu = half !== undefined && minorOf(half.libtorch) === minorOf(version) && cudaDriver().driver;
  const libtorch = findLibtorch({ version, cuda: gpu ? 'preferred' : undefined });
  // findLibtorch only returns that minor version; kept as the last guard before dlopen.
  if (minorOf(libtorch.version) !== minorOf(version)) {
    throw loadFailure([`the addon was built against libtorch ${version}, found ${libtorch.version}`], ['build']);
  }
  preload(libtorch);
  try {
    return { addon: require(addonPath) as NativeAddon, addonPath, libtorch };
  } catch (error) {
    throw loadFailure([`${addonPath}: ${messageOf(error)}`], fixesFor(error), error);
  }
}

/** Loads libtorch and its OpenMP runtime by absolute path, so that the addon needs no library search path. */
function preload(libtorch: Libtorch): void {
  const folder = join(libtorch.path, 'lib');
  const openmp = readdirSync(folder).filter((name) => /^libgomp.*\.so(\.\d+)*$/.test(name));
  for (const name of [...openmp, 'libc10.so', 'libtorch_cpu.so']) {
    loadLibrary(join(folder, name), cudaLibraryFolders(libtorch));
  }
}

let dlopen: ((path: string) => void) | undefined;

/** The preloader's `load(path)`: dlopen with all symbols resolved and visible to what is loaded later. */
function preloader(): (path: string) => void {
  if (dlopen !== undefined) return dlopen;
  const build = process.env.EEPO_BUILD ? resolve(process.env.EEPO_BUILD) : join(packageRoot, 'build');
  const prebuilt = join(packageRoot, 'prebuilds', `${platform}-${arch}`);
  const reasons: string[] = [];
  for (const folder of [build, prebuilt]) {
    const path = join(folder, 'preload', 'preload.node');
    try {
      dlopen = (require(path) as { load(path: string): void }).load;
      return dlopen;
    } catch (error) {
      reasons.push(`${path}: ${messageOf(error)}`);
    }
  }
  throw loadFailure(reasons, ['build']);
}

/**
 * Loads a shared library by absolute path. What it needs in turn and the loader does not find is looked up in `folders`
 * and loaded first: PyTorch's wheels know where their neighbours are, other distributions of libtorch need not.
 *
 * @throws LoadError with what the loader said.
 */
export function loadLibrary(path: string, folders: readonly string[]): void {
  const load = preloader();
  const tried = new Set<string>();
  const attempt = (library: string): void => {
    for (;;) {
      try {
        load(library);
        return;
      } catch (error) {
        const missing = /^(\S+): cannot open shared object file/.exec(messageOf(error))?.[1];
        const found = missing && folders.map((folder) => join(folder, missing)).find((file) => existsSync(file));
        if (!found || found === library || tried.has(found)) throw error;
        tried.add(found);
        attempt(found);
      }
    }
  };
  try {
    attempt(path);
  } catch (error) {
    throw loadFailure([`${path}: ${messageOf(error)}`], fixesFor(error), error);
  }
}

type Fix = 'build' | 'install' | 'glibc' | 'noexec';

function fixesFor(error: unknown): Fix[] {
  const message = messageOf(error);
  if (/GLIBC(XX)?_[\d.]+'? not found|version `GLIBC/.test(message)) return ['glibc'];
  if (/undefined symbol|cannot open shared object file/.test(message)) return ['install', 'build'];
  if (/ERR_DLOPEN_DISABLED/.test(String((error as NodeJS.ErrnoException)?.code))) return ['noexec'];
  return ['install', 'build'];
}

const fixTexts: Record<Fix, string> = {
  build: 'build the addon on this machine (needs g++ and cmake): npx eepo build',
  install: 'get a fresh libtorch: npx eepo libtorch install --force',
  glibc: 'the C or C++ library of this system is too old for this libtorch; use a newer distribution or container',
  noexec: 'native addons are disabled here; run Node without --no-addons',
};

/** The error a user sees when loading failed: what the loader said, and what to do, as concrete commands. */
export function loadFailure(reasons: string[], fixes: Fix[], cause?: unknown): LoadError {
  const lines = [
    `Could not load the eepo addon on ${platform}-${arch} with Node ${process.versions.node}:`,
    ...reasons.map((reason) => `  - ${reason}`),
    'Possible solutions:',
    ...fixes.map((fix) => `  - ${fixTexts[fix]}`),
    '  - see everything that was found and what is missing: npx eepo doctor',
  ];
  return new LoadError(lines.join('\n'), { cause });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

const classes: Record<string, new (message: string, options?: ErrorOptions) => EepoError> = {
  EEPO_INVALID_ARGUMENT: InvalidArgumentError,
  EEPO_DISPOSED: DisposedError,
  EEPO_INVALID_FILE: InvalidFileError,
  EEPO_UNSUPPORTED: UnsupportedError,
  EEPO_OUT_OF_MEMORY: OutOfMemoryError,
  EEPO_ABORTED: AbortedError,
  EEPO_NON_FINITE: NonFiniteError,
  EEPO_BUSY: BusyError,
};

/**
 * The EepoError for what the addon threw: by its `code`, else a NativeError. The original is the `cause`; `nativeBacktrace`
 * is kept.
 */
export function wrapNativeError(error: unknown): EepoError {
  if (error instanceof EepoError) return error;
  const { code, nativeBacktrace } = (error ?? {}) as { code?: string; nativeBacktrace?: string };
  const Class = (code !== undefined && classes[code]) || NativeError;
  const wrapped = new Class(messageOf(error), { cause: error });
  return typeof nativeBacktrace === 'string' ? Object.assign(wrapped, { nativeBacktrace }) : wrapped;
}

/**
 * Calls into the addon. What it throws, or what its promise rejects with, comes out as an {@link EepoError} whose stack
 * is that of the caller of the public function, not of a native thread's callback.
 */
export function callNative<T>(call: () => T): T {
  const at: { stack?: string } = {};
  Error.captureStackTrace(at, callNative);
  const rethrow = (error: unknown): never => {
    const wrapped = wrapNativeError(error);
    if (wrapped !== error) {
      const frames = at.stack?.slice(at.stack.indexOf('\n')) ?? '';
      Object.defineProperty(wrapped, 'stack', {
        value: `${wrapped.name}: ${wrapped.message}${frames}`,
        configurable: true,
        writable: true,
      });
    }
    throw wrapped;
  };
  let result: T;
  try {
    result = call();
  } catch (error) {
    return rethrow(error);
  }
  return result instanceof Promise ? (result.catch(rethrow) as T) : result;
}
