import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statfsSync } from 'node:fs';
import { availableParallelism, cpus, release } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CudaStatus } from '../cuda.js';
import { withoutTokens } from '../environment.js';
import { builtAgainst, type CudaHalf, locateAddon, locateCudaHalf } from '../native.js';
import { cudaDriver, type Driver } from './cuda.js';
import { cacheDirectory, findLibtorch, hasCuda, LIBTORCH_VERSION, type Libtorch } from './find.js';
import type { ProbeReport } from './probe.js';

/** Something missing or wrong, and the command that mends it. */
export interface Problem {
  problem: string;
  fix: string;
  /** Whether training can run all the same. */
  fatal: boolean;
}

/** What `eepo doctor --json` prints. */
export interface Diagnosis {
  /** True if training can run. */
  ok: boolean;
  eepo: string;
  platform: { os: string; arch: string; kernel: string; libc: string };
  node: { version: string; supported: boolean };
  libtorch: {
    found: boolean;
    wanted: string;
    path?: string;
    version?: string;
    source?: string;
    error?: string;
    /** Not found where LIBTORCH says. */
    override?: boolean;
  };
  addon: { found: boolean; loaded: boolean; path?: string; builtAgainst?: string; error?: string };
  cpu: {
    model: string;
    cores: number;
    isa?: string;
    threads?: number;
    openmp?: boolean;
    openmpRuntimes: string[];
  };
  cuda: Driver & {
    /** Whether the libtorch that was found was built with CUDA. */
    libtorch: boolean;
    /** The CUDA half of eepo, or null where it is not built. */
    half: CudaHalf | null;
    /** What trying it in a child process gave; undefined if the addon did not load. */
    status?: CudaStatus;
  };
  /** First line of `--version`, or null where the tool is missing. */
  tools: { cxx: string | null; cmake: string | null; ninja: string | null; python: string | null };
  cache: { path: string; exists: boolean; freeBytes: number };
  problems: Problem[];
}

/** Looks at everything training needs. Loads the addon in a child process. */
export function diagnose(env: NodeJS.ProcessEnv = process.env): Diagnosis {
  const { version, engines } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
    version: string;
    engines: { node: string };
  };
  const addon = lookForAddon();
  const driver = cudaDriver(env);
  const half = locateCudaHalf() ?? null;
  const libtorch = lookForLibtorch(env, addon.builtAgainst, half !== null && driver.driver);
  const probe = addon.path && libtorch.found ? runProbe(env) : undefined;
  const loadError = addon.error ?? probe?.error;
  const diagnosis: Diagnosis = {
    ok: false,
    eepo: version,
    platform: { os: process.platform, arch: process.arch, kernel: release(), libc: libc() },
    node: { version: process.versions.node, supported: supports(process.versions.node, engines.node) },
    libtorch,
    addon: {
      found: addon.path !== undefined,
      loaded: probe?.addon !== undefined,
      path: addon.path,
      builtAgainst: addon.builtAgainst,
      ...(loadError === undefined ? {} : { error: loadError }),
    },
    cpu: {
      model: cpus()[0]?.model.trim() ?? 'unknown',
      cores: availableParallelism(),
      isa: probe?.cpu?.isa,
      threads: probe?.cpu?.threads,
      openmp: probe?.cpu?.openmp,
      openmpRuntimes: probe?.openmpRuntimes ?? [],
    },
    cuda: {
      ...driver,
      libtorch: libtorch.path !== undefined && hasCuda(libtorch as Libtorch),
      half,
      ...(probe?.cuda === undefined ? {} : { status: probe.cuda }),
    },
    tools: {
      cxx: versionLine(env.CXX || 'g++'),
      cmake: versionLine('cmake'),
      ninja: versionLine('ninja'),
      python: versionLine(env.EEPO_PYTHON || 'python3'),
    },
    cache: cache(env),
    problems: [],
  };
  diagnosis.problems = problemsOf(diagnosis);
  diagnosis.ok = !diagnosis.problems.some(({ fatal }) => fatal);
  return diagnosis;
}

/** What is missing or wrong in a diagnosis, in the order in which it should be mended. */
export function problemsOf(found: Omit<Diagnosis, 'problems' | 'ok'>): Problem[] {
  const problems: Problem[] = [];
  const add = (fatal: boolean, problem: string, fix: string) => problems.push({ problem, fix, fatal });
  if (found.platform.os !== 'linux') add(true, `eepo runs on Linux, not on ${found.platform.os}`, 'use Linux or WSL 2');
  if (!found.node.supported) add(true, `Node ${found.node.version} is too old`, 'install Node 20.17 or newer');
  if (!found.libtorch.found) {
    if (found.tools.python === null) {
      add(false, 'there is no Python to fetch the wheel with if the archive fails', 'apt-get install python3-pip');
    }
    if (found.cache.freeBytes < 1.2e9) add(true, 'the disk of the cache is nearly full', 'set EEPO_CACHE elsewhere');
    // A LIBTORCH that is set is the only place looked at: installing another would change nothing.
    const fix = found.libtorch.override
      ? `unset LIBTORCH, or set it to a folder that holds libtorch ${found.libtorch.wanted}`
      : 'npx eepo libtorch install';
    add(true, `libtorch ${found.libtorch.wanted} was not found`, fix);
  }
  if (!found.addon.found) {
    if (found.tools.cxx === null) add(true, 'there is no C++ compiler to build the addon with', 'apt-get install g++');
    if (found.tools.cmake === null) add(true, 'there is no cmake to build the addon with', 'apt-get install cmake');
    add(true, 'the addon is not built', 'npx eepo build');
  } else if (found.libtorch.found && !found.addon.loaded) {
    add(true, 'the addon does not load', 'npx eepo build --clean');
  }
  if (found.cpu.openmp === false) add(false, 'parallel loops get one thread only', 'unset OMP_THREAD_LIMIT');
  if (found.cpu.openmpRuntimes.length > 1) {
    add(false, `two OpenMP runtimes are loaded: ${found.cpu.openmpRuntimes.join(', ')}`, 'npx eepo build --clean');
  }
  const { status } = found.cuda;
  // Without a driver this is a machine without a GPU, and nothing is missing.
  if (status?.available === false && found.cuda.driver) {
    add(false, `device 'cuda' is not available: ${status.reason}`, status.fix ?? 'see docs/cuda.md');
  }
  return problems;
}

/** The libtorch that the addon would load: of its version, and where a GPU can be used one with CUDA. */
function lookForLibtorch(
  env: NodeJS.ProcessEnv,
  version: string = LIBTORCH_VERSION,
  gpu = false,
): Diagnosis['libtorch'] {
  try {
    const found = findLibtorch({ env, version, cuda: gpu ? 'preferred' : undefined });
    return { found: true, wanted: version, ...found };
  } catch (error) {
    return { found: false, wanted: version, error: (error as Error).message, override: Boolean(env.LIBTORCH) };
  }
}

function lookForAddon(): { path?: string; builtAgainst?: string; error?: string } {
  try {
    const path = locateAddon();
    return { path, builtAgainst: builtAgainst(path) };
  } catch (error) {
    return { error: (error as Error).message };
  }
}

function runProbe(env: NodeJS.ProcessEnv): ProbeReport {
  const script = join(dirname(fileURLToPath(import.meta.url)), 'probe.js');
  const child = spawnSync(process.execPath, [script], { env: withoutTokens(env), encoding: 'utf8', timeout: 120_000 });
  const line = child.stdout?.trim().split('\n').at(-1) ?? '';
  try {
    return JSON.parse(line) as ProbeReport;
  } catch {
    const how = child.signal ? `was killed by ${child.signal}` : `ended with exit code ${child.status}`;
    const error = `the process that loaded the addon ${how}\n${child.stderr?.trim() ?? ''}`.trim();
    return { error, openmpRuntimes: [] };
  }
}

/** `>=20.17` against `20.20.2`. */
function supports(version: string, range: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [wantedMajor = 0, wantedMinor = 0] = range.replace('>=', '').split('.').map(Number);
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}

function libc(): string {
  const header = (process.report?.getReport() as unknown as { header?: { glibcVersionRuntime?: string } })?.header;
  return header?.glibcVersionRuntime ? `glibc ${header.glibcVersionRuntime}` : 'not glibc';
}

function versionLine(tool: string): string | null {
  try {
    const output = execFileSync(tool, ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    return output.split('\n')[0]?.trim() ?? '';
  } catch {
    return null;
  }
}

function cache(env: NodeJS.ProcessEnv): Diagnosis['cache'] {
  const path = cacheDirectory(env);
  let existing = path;
  while (!existsSync(existing) && dirname(existing) !== existing) existing = dirname(existing);
  const { bavail, bsize } = statfsSync(existing);
  return { path, exists: existing === path, freeBytes: bavail * bsize };
}
