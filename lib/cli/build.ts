import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Command } from 'commander';
import { LoadError } from '../errors.js';
import { packageRoot } from '../native.js';

interface BuildArguments {
  libtorch?: string;
  clean?: boolean;
  jobs?: string;
  cuda?: boolean;
  cudaArchs?: string;
}

/** `eepo build`: compiles the addon on this machine. */
export function register(program: Command): void {
  program
    .command('build')
    .description('compile the addon on this machine (needs g++ and cmake)')
    .option('--libtorch <folder>', 'build against this libtorch instead of the one that is found')
    .option('--jobs <n>', 'parallel compilations (default: the number of cores)')
    .option('--clean', 'from scratch')
    .option('--cuda', 'also the CUDA half; needs a libtorch built with CUDA, and nvcc of the same CUDA version')
    .option('--cuda-archs <list>', 'compute capabilities such as 80,90, or native (default: all supported)')
    .action(async ({ libtorch, clean, jobs, cuda, cudaArchs }: BuildArguments) => {
      const args = [join(packageRoot, 'scripts', 'build-native.cjs')];
      if (libtorch !== undefined) args.push('--libtorch', libtorch);
      if (jobs !== undefined) args.push('--jobs', jobs);
      if (cuda) args.push('--cuda');
      if (cudaArchs !== undefined) args.push('--cuda-archs', cudaArchs);
      if (clean) args.push('--clean');
      const status = await new Promise<number | null>((resolve, reject) => {
        spawn(process.execPath, args, { stdio: 'inherit' }).on('error', reject).on('close', resolve);
      });
      if (status !== 0) throw new LoadError('the addon was not built; the reason is above');
    });
}
