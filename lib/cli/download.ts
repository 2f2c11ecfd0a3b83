/** `eepo download REPO` */
import type { Command } from 'commander';
import { download } from '../hub/index.js';
import { collect, withInterrupt } from './common.js';
import { hubProgress } from './hub-progress.js';

interface Options {
  revision?: string;
  include: string[];
  dataset?: boolean;
  cacheDir?: string;
  offline?: boolean;
}

export function register(program: Command): void {
  program
    .command('download')
    .description('download a model from the Hugging Face hub into the cache, and print the folder it is in')
    .argument('<repo>', 'owner/name')
    .option('--revision <revision>', 'branch, tag or commit (default: main)')
    .option(
      '--include <pattern>',
      'files to take, with * and ?; may be repeated (default: what eepo reads)',
      collect,
      [],
    )
    .option('--dataset', 'the repository is a data set')
    .option('--cache-dir <folder>', 'the cache (default: as HF_HOME and HF_HUB_CACHE say, shared with Python)')
    .option('--offline', 'only look whether it is in the cache')
    .addHelpText(
      'after',
      '\nPrivate and gated repositories: set HF_TOKEN. A mirror: set HF_ENDPOINT. See docs/models.md.',
    )
    .action(run);
}

async function run(repo: string, { revision, include, dataset, cacheDir, offline }: Options): Promise<void> {
  const folder = await withInterrupt(
    (signal) =>
      download(repo, {
        signal,
        onProgress: hubProgress(),
        ...(revision === undefined ? {} : { revision }),
        ...(include.length === 0 ? {} : { include }),
        ...(dataset ? { type: 'dataset' as const } : {}),
        ...(cacheDir === undefined ? {} : { cacheDir }),
        ...(offline ? { offline } : {}),
      }),
    () => 'what has come is kept in the cache; the same command goes on there',
  );
  console.log(folder);
}
