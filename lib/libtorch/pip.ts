import { spawn } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { withoutTokens } from '../environment.js';
import { LoadError } from '../errors.js';
import type { Progress } from './progress.js';

/** PyTorch's own index of CPU wheels. */
const cpuIndex = 'https://download.pytorch.org/whl/cpu';

/**
 * Fetches the CPU wheel of torch into `folder` with the user's pip, as the user configured it (indexes, proxies,
 * certificates), then with PyTorch's index of CPU wheels added. The wheel for CPython 3.11 is asked for whatever Python
 * runs pip: only its libraries are used, and one file name means one checksum.
 *
 * @returns the path of the wheel.
 * @throws LoadError with pip's own last words for each attempt.
 */
export async function pipDownload(
  version: string,
  folder: string,
  progress: Progress,
  env: NodeJS.ProcessEnv = process.env,
): Promise<string> {
  const python = env.EEPO_PYTHON || 'python3';
  // On x86-64 a plain version would give the CUDA build, which does not load without NVIDIA's libraries.
  const requirement = process.arch === 'x64' ? `torch==${version}+cpu` : `torch==${version}`;
  const common = ['-m', 'pip', 'download', '--no-deps', '--only-binary=:all:', '--python-version', '3.11'];
  const patience = ['--retries', '1', '--timeout', '30', '--disable-pip-version-check', '--no-input'];
  const failures: string[] = [];
  for (const extra of [[], ['--extra-index-url', cpuIndex]]) {
    const args = [...common, ...patience, ...extra, '--dest', folder, requirement];
    progress.note(`pip download ${[...extra, requirement].join(' ')}`);
    const failure = await run(python, args, env);
    if (failure === undefined) {
      const wheel = (await readdir(folder)).find((name) => name.startsWith('torch-') && name.endsWith('.whl'));
      if (wheel !== undefined) return join(folder, wheel);
      failures.push('pip saved no wheel');
    } else {
      failures.push(failure);
    }
  }
  throw new LoadError([...new Set(failures)].join("; then with PyTorch's index: "));
}

/** Runs a program; what it printed last on failure, undefined on success. */
function run(program: string, args: string[], env: NodeJS.ProcessEnv): Promise<string | undefined> {
  return new Promise((resolve) => {
    const showBar = process.stderr.isTTY;
    const child = spawn(program, args, {
      env: withoutTokens(env),
      stdio: ['ignore', showBar ? process.stderr : 'ignore', 'pipe'],
    });
    let tail = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      tail = (tail + text).slice(-4000);
    });
    child.on('error', (error) => resolve(`${program} could not be run: ${error.message}`));
    child.on('close', (status) => {
      if (status === 0) return resolve(undefined);
      const errors = tail.split('\n').filter((line) => /error/i.test(line));
      resolve((errors.at(-1) ?? tail.trim().split('\n').at(-1) ?? '').trim() || `${program} exited with ${status}`);
    });
  });
}
