import type { Command } from 'commander';
import { LIBTORCH_VERSION } from '../libtorch/find.js';
import { installLibtorch } from '../libtorch/install.js';
import { terminalProgress } from '../libtorch/progress.js';

interface InstallArguments {
  version: string;
  from?: string;
  force?: boolean;
}

/** `eepo libtorch install`. */
export function register(program: Command): void {
  const libtorch = program.command('libtorch').description('the C++ library everything is computed with');
  libtorch
    .command('install')
    .description('download libtorch into the cache (EEPO_CACHE, else the XDG cache folder)')
    .option('--version <version>', 'which release', LIBTORCH_VERSION)
    .option('--from <path>', 'a local archive, CPU wheel or folder instead of a download')
    .option('--force', 'replace what is already there')
    .action(async ({ version, from, force }: InstallArguments) => {
      const installed = await installLibtorch({ version, from, force, progress: terminalProgress() });
      const state = installed.already ? 'is already installed' : 'installed';
      console.log(`libtorch ${installed.version} ${state}: ${installed.path}`);
    });
}
