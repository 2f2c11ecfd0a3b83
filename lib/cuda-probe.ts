// Run by lib/cuda.ts (and scripts/setup-cuda.mjs) in a process of its own: loads libtorch with CUDA, the addon and the
// CUDA half for real, and runs a kernel. One line of JSON per step, written before the step, so that a crash or a hang
// tells where it happened.
import { existsSync, writeSync } from 'node:fs';
import { type CudaDevice, loadCudaHalf } from './cuda.js';
import { cudaHalfCandidates, loadNativeDetails } from './native.js';

/** One line of the probe's output. */
export interface ProbeLine {
  /** The step that is about to be taken; `done` if all went well. */
  stage: 'load libtorch and the addon' | 'load the CUDA half' | 'ask the GPU' | 'run a kernel' | 'done';
  device?: CudaDevice;
  /** Why that step failed. */
  error?: string;
}

const report = (line: ProbeLine): void => {
  writeSync(1, `${JSON.stringify(line)}\n`);
};

async function run(): Promise<void> {
  let stage: ProbeLine['stage'] = 'load libtorch and the addon';
  const step = (next: ProbeLine['stage']): void => {
    stage = next;
    report({ stage });
  };
  try {
    step('load libtorch and the addon');
    const { addon } = loadNativeDetails();
    step('load the CUDA half');
    loadCudaHalf(cudaHalfCandidates().find((path) => existsSync(path)) ?? '');
    step('ask the GPU');
    const { name, totalBytes, freeBytes, capability, multiprocessors } = await addon.deviceInfo('cuda');
    step('run a kernel');
    await addon.cudaSelfTest();
    report({ stage: 'done', device: { name, totalBytes, freeBytes, capability, multiprocessors } });
  } catch (error) {
    report({ stage, error: (error as Error).message });
    process.exitCode = 1;
  }
}

await run();
