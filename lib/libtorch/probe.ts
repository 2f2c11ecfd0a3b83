// Run by `eepo doctor` in a process of its own: loads the addon for real and reports what it saw, so that a crash
// while loading is reported and not suffered.
import { readFileSync } from 'node:fs';
import { type CudaStatus, cudaStatus } from '../cuda.js';
import { loadNativeDetails } from '../native.js';

/** What the probe prints, as one line of JSON. */
export interface ProbeReport {
  error?: string;
  addon?: { path: string; version: string; libtorchVersion: string };
  cuda?: CudaStatus;
  cpu?: { isa: string; threads: number; openmp: boolean };
  /** The OpenMP runtimes mapped into the process; two would compete for the cores. */
  openmpRuntimes: string[];
}

function openmpRuntimes(): string[] {
  const maps = readFileSync('/proc/self/maps', 'utf8');
  const libraries = maps.match(/\/\S*\/(libgomp|libiomp|libomp)[^/\s]*\.so[^/\s]*/g) ?? [];
  return [...new Set(libraries)];
}

function probe(): ProbeReport {
  try {
    const { addon, addonPath } = loadNativeDetails();
    const cpu = addon.info();
    const { version, libtorchVersion } = addon;
    return {
      addon: { path: addonPath, version, libtorchVersion },
      cpu,
      cuda: cudaStatus(),
      openmpRuntimes: openmpRuntimes(),
    };
  } catch (error) {
    return { error: (error as Error).message, openmpRuntimes: [] };
  }
}

process.stdout.write(`${JSON.stringify(probe())}\n`);
