/** Whether CUDA can be used, and the way there. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ProbeLine } from './cuda-probe.js';
import { withoutTokens } from './environment.js';
import { InvalidArgumentError, UnsupportedError } from './errors.js';
import { cudaDriver, cudaLibraryFolders } from './libtorch/cuda.js';
import { hasCuda, type Libtorch, minorOf } from './libtorch/find.js';
import {
  callNative,
  cudaHalfCandidates,
  interfaceOf,
  loadLibrary,
  loadNativeDetails,
  locateCudaHalf,
  packageRoot,
} from './native.js';

/** The GPU that `device: 'cuda'` means: the first visible one (`CUDA_VISIBLE_DEVICES` chooses). */
export interface CudaDevice {
  name: string;
  totalBytes: number;
  freeBytes: number;
  /** Compute capability, such as `9.0`. */
  capability: string;
  multiprocessors: number;
}

declare module './native.js' {
  interface NativeAddon {
    /** Loads the CUDA half, once per process; a second call does nothing. Throws EEPO_UNSUPPORTED. */
    loadCuda(path: string): void;
    deviceInfo(
      device: 'cpu' | 'cuda',
    ): Promise<CudaDevice & { allocatedBytes: number; peakBytes: number; synchronizations: number }>;
    /** Runs a small kernel on the GPU and compares its result; rejects if it is wrong. */
    cudaSelfTest(): Promise<void>;
  }
}

/** What {@link cudaStatus} found. */
export interface CudaStatus {
  available: boolean;
  /** Why not, in one sentence or a few; undefined where it is available. */
  reason?: string;
  /** What to do about it. */
  fix?: string;
  /** The CUDA half's file, where there is one. */
  half?: string;
  device?: CudaDevice;
}

const fixes = {
  build: 'build it on this machine: npx eepo build --cuda',
  libtorch: 'install PyTorch with CUDA (or set LIBTORCH to a libtorch with CUDA), then: npx eepo build --cuda',
  driver: 'install the NVIDIA driver; in a container, start it with the GPUs (docker run --gpus all)',
  device: 'see what the driver says: nvidia-smi',
};

let known: CudaStatus | undefined;

/** Set in the environment when a probe went well, so that worker threads started later do not repeat it. */
const probedVariable = 'EEPO_CUDA_PROBED';

/**
 * Whether the GPU can be used, and if not, why. Looked up once per process: the CUDA half, its version, libtorch's CUDA
 * libraries and the driver are looked at first; if they are there, everything is loaded and one small kernel run in a
 * child process (some seconds), so that what crashes or hangs there is a reason and not the end of this process.
 *
 * With `EEPO_CUDA_LIBRARY` set, that file is the CUDA half and is taken to need neither libtorch's CUDA libraries nor a
 * driver; the tests use it with a half that runs on the CPU.
 */
export function cudaStatus(): CudaStatus {
  known ??= lookForCuda();
  return known;
}

/** {@link cudaStatus} without what it remembers, for another time limit in milliseconds. */
export function lookForCuda(timeout = 120_000): CudaStatus {
  const emulated = Boolean(process.env.EEPO_CUDA_LIBRARY);
  const missing = emulated ? withoutFile() : withoutParts();
  if (missing !== undefined) return missing;
  const half = cudaHalfCandidates().find((path) => existsSync(path)) as string;
  const { addonPath, libtorch } = loadNativeDetails();
  const [ours, theirs] = [interfaceOf(addonPath), interfaceOf(half)];
  if (theirs !== undefined && ours !== theirs) {
    const reason = `the addon and its CUDA half (${half}) were built from different sources`;
    return { available: false, reason, fix: fixes.build, half };
  }
  const identity = `${process.pid} ${half}`;
  if (process.env[probedVariable] === identity) return { available: true, half };
  const status = probe(half, libtorch, timeout);
  if (status.available) process.env[probedVariable] = identity;
  return status;
}

function withoutFile(): CudaStatus | undefined {
  const [path = ''] = cudaHalfCandidates();
  if (existsSync(path)) return undefined;
  return {
    available: false,
    reason: `EEPO_CUDA_LIBRARY: ${path} does not exist`,
    fix: 'unset it, or correct the path',
  };
}

/** Undefined if all that can be seen without loading anything is there. */
function withoutParts(): CudaStatus | undefined {
  const half = locateCudaHalf();
  if (half === undefined) {
    const file = cudaHalfCandidates().find((path) => existsSync(path));
    if (file !== undefined) {
      return { available: false, reason: `${file} does not say what it was built against`, fix: fixes.build };
    }
    const places = cudaHalfCandidates().join(', ');
    const unbuilt = `the CUDA half of eepo is not built (looked at ${places})`;
    if (cudaDriver().driver) return { available: false, reason: unbuilt, fix: fixes.build };
    // The driver first, lest somebody builds for a GPU that is not there.
    const reason = `there is no NVIDIA driver (libcuda.so.1), and ${unbuilt}`;
    return { available: false, reason, fix: `${fixes.driver}; then ${fixes.build}` };
  }
  const no = (reason: string, fix: string): CudaStatus => ({ available: false, reason, fix, half: half.path });
  const { version } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string };
  if (half.eepo !== version) {
    return no(`${half.path} belongs to eepo ${half.eepo}, this is eepo ${version}`, fixes.build);
  }
  const { libtorch, addon } = loadNativeDetails();
  if (minorOf(half.libtorch) !== minorOf(addon.libtorchVersion)) {
    const both = `built against libtorch ${half.libtorch}, the addon against ${addon.libtorchVersion}`;
    return no(`${half.path} was ${both}`, fixes.build);
  }
  if (!cudaDriver().driver) return no('there is no NVIDIA driver (libcuda.so.1)', fixes.driver);
  if (!hasCuda(libtorch)) {
    return no(`libtorch ${libtorch.version} at ${libtorch.path} was built without CUDA`, fixes.libtorch);
  }
  return undefined;
}

/** Loads and tries everything in a child process. */
function probe(half: string, libtorch: Libtorch, timeout: number): CudaStatus {
  const script = join(dirname(fileURLToPath(import.meta.url)), 'cuda-probe.js');
  const child = spawnSync(process.execPath, [script], {
    // What this process found is what the child must try.
    env: { ...withoutTokens(process.env), LIBTORCH: libtorch.path },
    encoding: 'utf8',
    timeout,
    killSignal: 'SIGKILL',
  });
  const lines = (child.stdout ?? '').split('\n').flatMap((line): ProbeLine[] => {
    try {
      return [JSON.parse(line) as ProbeLine];
    } catch {
      return []; // Something else that a library printed.
    }
  });
  const last = lines.at(-1);
  if (child.status === 0 && last?.stage === 'done') return { available: true, half, device: last.device };
  const no = (reason: string): CudaStatus => ({ available: false, reason, fix: fixes.device, half });
  if (last?.error !== undefined) return no(last.error);
  const doing = last === undefined ? 'start' : `${last.stage}`;
  const timedOut = (child.error as NodeJS.ErrnoException | undefined)?.code === 'ETIMEDOUT';
  const how = timedOut
    ? `did not end within ${timeout / 1000} s`
    : child.signal
      ? `was killed by ${child.signal}`
      : `ended with exit code ${child.status}`;
  const said = (child.stderr ?? '').trim().split('\n').slice(-5).join('\n').trim();
  return no(`the process that tried the GPU ${how} (step: ${doing})${said ? `: ${said}` : ''}`);
}

let loaded = false;

/**
 * Loads libtorch's CUDA libraries and the CUDA half into this process, once.
 *
 * @throws UnsupportedError if CUDA cannot be used, with the reason and what to do.
 */
export function ensureCuda(): void {
  if (loaded) return;
  const { available, reason, fix, half } = cudaStatus();
  if (!available || half === undefined) {
    throw new UnsupportedError(`device 'cuda' is not available: ${reason}. What to do: ${fix}`);
  }
  loadCudaHalf(half);
  loaded = true;
}

/** Loads the CUDA half without asking first whether that goes well; for {@link ensureCuda} and the probe. */
export function loadCudaHalf(half: string): void {
  const { addon, libtorch } = loadNativeDetails();
  if (!process.env.EEPO_CUDA_LIBRARY) {
    const folders = cudaLibraryFolders(libtorch);
    for (const name of ['libc10_cuda.so', 'libtorch_cuda.so']) {
      loadLibrary(join(libtorch.path, 'lib', name), folders);
    }
  }
  callNative(() => addon.loadCuda(half));
}

/**
 * The device that is meant: `auto` is the GPU where there is one that works, else the CPU. The CUDA half is loaded when
 * this returns 'cuda'.
 *
 * @throws UnsupportedError for 'cuda' where it cannot be used, with the reason and what to do; InvalidArgumentError for
 *   anything else.
 */
export function resolveDevice(device: 'auto' | 'cpu' | 'cuda'): 'cpu' | 'cuda' {
  if (device === 'cpu') return 'cpu';
  if (device !== 'auto' && device !== 'cuda') {
    throw new InvalidArgumentError(`device must be 'cpu', 'cuda' or 'auto', got ${JSON.stringify(device)}`);
  }
  if (device === 'auto' && !cudaStatus().available) return 'cpu';
  ensureCuda();
  return 'cuda';
}
