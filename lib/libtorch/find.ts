import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { withoutTokens } from '../environment.js';
import { LoadError } from '../errors.js';

/** The libtorch release this version of the package is built and tested with. */
export const LIBTORCH_VERSION = '2.13.0';

/** The minor versions that the package can also be built against; a binary still belongs to the one it was built with. */
export const LIBTORCH_MINORS: readonly string[] = ['2.11', '2.12', '2.13', '2.14'];

/** Where a libtorch was found: an option, the LIBTORCH variable, the package's cache, or a Python that has torch. */
export type LibtorchSource = 'option' | 'LIBTORCH' | 'cache' | 'python';

export interface Libtorch {
  /** The folder that holds `lib/`, `include/` and `share/cmake/`. */
  path: string;
  /** `major.minor.patch`. */
  version: string;
  source: LibtorchSource;
}

/** One place that was looked at, and why it did not serve. */
export interface Miss {
  where: string;
  reason: string;
}

/** `EEPO_CACHE`, else `$XDG_CACHE_HOME/eepo`, else `~/.cache/eepo`. */
export function cacheDirectory(env: NodeJS.ProcessEnv = process.env): string {
  if (env.EEPO_CACHE) return resolve(env.EEPO_CACHE);
  return join(env.XDG_CACHE_HOME ? resolve(env.XDG_CACHE_HOME) : join(homedir(), '.cache'), 'eepo');
}

/** The folder in the cache that holds the CPU build of a libtorch version. */
export function cachedLibtorch(version: string, env: NodeJS.ProcessEnv = process.env): string {
  return join(cacheDirectory(env), 'libtorch', `${version}-cpu`);
}

/** The folders of libtorch builds with CUDA in the cache, as scripts/setup-cuda.mjs makes them; the newest first. */
export function cachedCudaLibtorchs(env: NodeJS.ProcessEnv = process.env): string[] {
  const parent = join(cacheDirectory(env), 'cuda');
  try {
    const versions = readdirSync(parent).filter((name) => /^\d+\.\d+\.\d+$/.test(name));
    versions.sort((a, b) => b.localeCompare(a, 'en', { numeric: true }));
    return versions.map((name) => join(parent, name, 'torch'));
  } catch {
    return []; // No cache yet.
  }
}

/** Whether a libtorch was built with CUDA. */
export function hasCuda(libtorch: Libtorch): boolean {
  return existsSync(join(libtorch.path, 'lib', 'libtorch_cuda.so'));
}

/** `2.13.0` -> `2.13`: libtorch's C++ interface changes between minor versions, so a binary belongs to one. */
export function minorOf(version: string): string {
  return version.split('.').slice(0, 2).join('.');
}

/**
 * Looks at one folder.
 *
 * @returns what it holds.
 * @throws LoadError if it is no libtorch, naming what is missing.
 */
export function inspectLibtorch(folder: string, source: LibtorchSource): Libtorch {
  const path = resolve(folder);
  if (!existsSync(path)) throw new LoadError(`${path} does not exist`);
  if (!statSync(path).isDirectory()) throw new LoadError(`${path} is not a folder`);
  for (const library of ['libtorch_cpu.so', 'libc10.so']) {
    if (!existsSync(join(path, 'lib', library))) throw new LoadError(`${join(path, 'lib', library)} does not exist`);
  }
  const version = versionOf(path);
  if (version === undefined) throw new LoadError(`${path} does not tell its version (share/cmake/Torch is missing)`);
  return { path, version, source };
}

/** The version that a libtorch folder says it is: from its CMake package, its headers or its build-version file. */
function versionOf(path: string): string | undefined {
  const sources: [string, RegExp][] = [
    ['share/cmake/Torch/TorchConfigVersion.cmake', /PACKAGE_VERSION\s+"?(\d+\.\d+\.\d+)/],
    ['include/torch/headeronly/version.h', /TORCH_VERSION\s+"(\d+\.\d+\.\d+)/],
    ['build-version', /^(\d+\.\d+\.\d+)/],
    ['version.py', /__version__\s*=\s*['"](\d+\.\d+\.\d+)/],
  ];
  for (const [file, pattern] of sources) {
    try {
      const match = pattern.exec(readFileSync(join(path, file), 'utf8'));
      if (match?.[1]) return match[1];
    } catch {
      // Not every distribution has every file.
    }
  }
  return undefined;
}

/** Options of {@link findLibtorch}; all default to the machine as it is. */
export interface FindOptions {
  env?: NodeJS.ProcessEnv;
  /**
   * Only a libtorch of this minor version serves; `any`: one of {@link LIBTORCH_MINORS}. Default: that of
   * {@link LIBTORCH_VERSION}.
   */
  version?: string;
  /** `required`: only one built with CUDA serves; `preferred`: one without serves if there is no other. */
  cuda?: 'required' | 'preferred';
}

/** What {@link attempt} asks of a libtorch. */
interface Wanted {
  minors: readonly string[];
  cuda: boolean;
}

/**
 * The libtorch to use, in this order: the folder in `LIBTORCH`, the package's own cache, a Python that has torch
 * (`EEPO_PYTHON`, else `python3`, else `python` on the PATH).
 *
 * A folder named by `LIBTORCH` is what the user asked for: if it does not serve, that is an error and nothing else
 * is looked at.
 *
 * @throws LoadError that lists every place looked at, with the reason each was refused.
 */
export function findLibtorch(options: FindOptions = {}): Libtorch {
  const { env = process.env, version = LIBTORCH_VERSION, cuda } = options;
  if (cuda === 'preferred' && !env.LIBTORCH) {
    try {
      return findLibtorch({ env, version, cuda: 'required' });
    } catch {
      return findLibtorch({ env, version });
    }
  }
  const wanted = {
    minors: version === 'any' ? LIBTORCH_MINORS : [minorOf(version)],
    cuda: cuda === 'required',
  };
  const misses: Miss[] = [];

  if (env.LIBTORCH) {
    const found = attempt(`LIBTORCH=${env.LIBTORCH}`, env.LIBTORCH, 'LIBTORCH', wanted, misses);
    if (found) return found;
    throw notFound(wanted, misses);
  }
  const plain = cacheCandidates(version === 'any' ? LIBTORCH_VERSION : version, env);
  const withCuda = cachedCudaLibtorchs(env);
  for (const folder of wanted.cuda ? withCuda : [...plain, ...withCuda]) {
    const found = attempt(`cache ${folder}`, folder, 'cache', wanted, misses);
    if (found) return found;
  }
  for (const python of env.EEPO_PYTHON ? [env.EEPO_PYTHON] : ['python3', 'python']) {
    const folder = torchOfPython(python, env);
    if (folder.path === undefined) {
      misses.push({ where: python, reason: folder.reason });
      continue;
    }
    const found = attempt(`${python} (${folder.path})`, folder.path, 'python', wanted, misses);
    if (found) return found;
  }
  throw notFound(wanted, misses);
}

/** The exact version first, then any other patch release of the same minor version that the cache holds. */
function cacheCandidates(version: string, env: NodeJS.ProcessEnv): string[] {
  const exact = cachedLibtorch(version, env);
  const parent = join(cacheDirectory(env), 'libtorch');
  let others: string[] = [];
  try {
    others = readdirSync(parent)
      .filter((name) => /^\d+\.\d+\.\d+-cpu$/.test(name) && minorOf(name) === minorOf(version))
      .map((name) => join(parent, name))
      .filter((folder) => folder !== exact)
      .sort();
  } catch {
    // No cache yet.
  }
  return [exact, ...others];
}

function attempt(
  where: string,
  folder: string,
  source: LibtorchSource,
  wanted: Wanted,
  misses: Miss[],
): Libtorch | undefined {
  try {
    const found = inspectLibtorch(folder, source);
    if (!wanted.minors.includes(minorOf(found.version))) {
      misses.push({ where, reason: `it is libtorch ${found.version}; ${wanted.minors.join(' or ')} is needed` });
    } else if (wanted.cuda && !hasCuda(found)) {
      misses.push({ where, reason: `it is libtorch ${found.version} without CUDA (no lib/libtorch_cuda.so)` });
    } else {
      return found;
    }
  } catch (error) {
    misses.push({ where, reason: (error as Error).message });
  }
  return undefined;
}

/** Asks a Python where its torch is without importing it (importing takes seconds). */
function torchOfPython(python: string, env: NodeJS.ProcessEnv): { path: string } | { path: undefined; reason: string } {
  const code =
    'import importlib.util as u; s = u.find_spec("torch"); print(s.submodule_search_locations[0] if s else "")';
  try {
    const output = execFileSync(python, ['-c', code], {
      env: withoutTokens(env),
      encoding: 'utf8',
      timeout: 20_000,
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
    return output ? { path: output } : { path: undefined, reason: 'it has no torch' };
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    return { path: undefined, reason: missing ? 'not on the PATH' : 'it could not be run' };
  }
}

function notFound(wanted: Wanted, misses: Miss[]): LoadError {
  const lines = misses.map(({ where, reason }) => `  - ${where}: ${reason}`);
  const what = `libtorch ${wanted.minors.join(' or ')}${wanted.cuda ? ' with CUDA' : ''}`;
  const install = wanted.cuda
    ? ['  - install PyTorch with CUDA for the python3 on the PATH (or set EEPO_PYTHON): pip install torch']
    : ['  - npx eepo libtorch install'];
  return new LoadError(
    [
      `${what} was not found. Looked at:`,
      ...lines,
      'Possible solutions:',
      ...install,
      `  - set LIBTORCH to a folder that holds ${what} (lib/, include/, share/cmake/)`,
    ].join('\n'),
  );
}
