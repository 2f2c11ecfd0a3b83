/** `eepo sft CONFIG.toml` */
import type { Command } from 'commander';
import { configToToml } from '../train/config-file.js';
import { configNotes } from '../train/config-notes.js';
import { formatSeconds } from '../train/progress.js';
import { defaultRunPath } from '../train/run.js';
import { checkNewRun } from '../train/run-directory.js';
import { loadSftConfig } from '../train/sft-config.js';
import { loadSft, sftRun } from '../train/sft-run.js';
import { collect, keptInRun, show, withInterrupt } from './common.js';
import { hubProgress } from './hub-progress.js';

interface Options {
  set: string[];
  out?: string;
  dryRun?: boolean;
}

export function register(program: Command): void {
  program
    .command('sft')
    .description('supervised fine-tuning on prompts and responses; can make a model from nothing')
    .argument('<config>', 'configuration file (TOML); see docs/config.md')
    .option('--set <section.key=value>', 'override an option; may be repeated', collect, [])
    .option('--out <folder>', 'folder of the run (default: runs/<config>-<time>)')
    .option('--dry-run', 'check everything, print the configuration, train nothing')
    .action(sft);
}

async function sft(file: string, options: Options): Promise<void> {
  const config = loadSftConfig(file, options.set);
  const out = options.out ?? defaultRunPath(file);
  for (const text of configNotes(config)) console.error(`note: ${text}`);
  if (!options.dryRun) checkNewRun(out);
  const work = async (signal: AbortSignal): Promise<void> => {
    const loaded = await loadSft(config, signal, hubProgress());
    try {
      if (options.dryRun) {
        console.log(configToToml(config));
        console.log(`# ${loaded.policy.numParameters.toLocaleString('en-US')} parameters; nothing was trained`);
        return;
      }
      const every = Math.max(1, Math.ceil(config.run.steps / 40));
      const start = performance.now();
      const summary = await sftRun({
        ...loaded,
        config,
        out,
        signal,
        onStep: ({ step, metrics }) => {
          if (step !== 1 && step % every !== 0 && step !== config.run.steps) return;
          const left = ((config.run.steps - step) * (performance.now() - start)) / 1000 / step;
          console.error(
            `${step}/${config.run.steps}  loss ${show(metrics['sft/loss'], 4)}  ` +
              `${Math.round(metrics['perf/tokens_per_s'] ?? 0)} tok/s  ${formatSeconds(left)} left`,
          );
        },
      });
      console.log(
        `${config.run.steps} steps in ${formatSeconds(summary.seconds)}, loss ${show(summary.last['sft/loss'], 4)}; ` +
          `model: ${summary.path}/model`,
      );
    } finally {
      loaded.policy.dispose();
    }
  };
  await withInterrupt(work, () => keptInRun(out, options.out !== undefined));
}
