import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { arch, platform } from 'node:process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readdirSync } from 'node:fs';
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

/** Where the addon is, by node-gyp-build's rules (build/Release, then prebuilds/). */
export function locateAddon(root: string = packageRoot): string {
  const nodeGypBuild = require('node-gyp-build') as { resolve(dir: string): string };
  try {
    return nodeGypBuild.resolve(root);
  } catch (error) {
    throw loadFailure([`no addon for ${platform}-${arch} in ${root} (build/Release, prebuilds)`], ['build'], error);
  }
}

/** The libtorch version that an addon file says it was built against, read without loading it. */
export function builtAgainst(addonPath: string): string | undefined {
  const marker = Buffer.from('eepo built against libtorch ');
  const bytes = readFileSync(addonPath);
  // The marker is also in this comparison's own string table if the compiler keeps it apart; only a version counts.
  for (let at = bytes.indexOf(marker); at >= 0; at = bytes.indexOf(marker, at + 1)) {
    const text = bytes.toString('latin1', at + marker.length, at + marker.length + 32);
    const version = /^(\d+\.\d+\.\d+)/.exec(text)?.[1];
    if (version) return version;
  }
  return undefined;
}

function load(): LoadedNative {
  const addonPath = locateAddon();
  const version = builtAgainst(addonPath);
  if (version === undefined) {
    throw loadFailure([`${addonPath} does not say which libtorch it was built against`], ['build']);
  }
  const libtorch = findLibtorch({ version });
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
  const preloader = join(packageRoot, 'build', 'preload', 'preload.node');
  const prebuilt = join(packageRoot, 'prebuilds', `${platform}-${arch}`, 'preload', 'preload.node');
  let load: ((path: string) => void) | undefined;
  const reasons: string[] = [];
  for (const path of [preloader, prebuilt]) {
    try {
      load = (require(path) as { load(path: string): void }).load;
      break;
    } catch (error) {
      reasons.push(`${path}: ${messageOf(error)}`);
    }
  }
  if (load === undefined) throw loadFailure(reasons, ['build']);

  const folder = join(libtorch.path, 'lib');
  const openmp = readdirSync(folder).filter((name) => /^libgomp.*\.so(\.\d+)*$/.test(name));
  for (const name of [...openmp, 'libc10.so', 'libtorch_cpu.so']) {
    try {
      load(join(folder, name));
    } catch (error) {
      throw loadFailure([`${join(folder, name)}: ${messageOf(error)}`], fixesFor(error), error);
    }
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
