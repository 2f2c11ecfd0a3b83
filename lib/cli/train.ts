/** `eepo train CONFIG.toml` */
import type { Command } from 'commander';
import { loadTrainConfig, type TrainConfig } from '../train/config.js';
import { configToToml } from '../train/config-file.js';
import { makeEvaluator } from '../train/evaluation.js';
import { loadRun } from '../train/load.js';
import { formatSeconds, Progress } from '../train/progress.js';
import { defaultRunPath, type LoadedRun, type RunSummary, trainRun } from '../train/run.js';
import { Trainer } from '../train/trainer.js';
import { collect, formatTable, show, withInterrupt } from './common.js';
import { hubProgress } from './hub-progress.js';

interface Options {
  set: string[];
  out?: string;
  dryRun?: boolean;
}

export function register(program: Command): void {
  program
    .command('train')
    .description('train a policy by EEPO or GRPO')
    .argument('<config>', 'configuration file (TOML); see docs/config.md and configs/')
    .option('--set <section.key=value>', 'override an option; may be repeated', collect, [])
    .option('--out <folder>', 'folder of the run (default: runs/<config>-<time>)')
    .option('--dry-run', 'check everything, print the configuration and the sizes, train nothing')
    .action(train);
}

async function train(file: string, options: Options): Promise<void> {
  const config = loadTrainConfig(file, options.set);
  await withInterrupt(async (signal) => {
    const loaded = await loadRun(config, signal, hubProgress());
    try {
      for (const note of loaded.task.notes ?? []) console.error(`note: ${note}`);
      if (options.dryRun) return await dryRun(config, loaded);
      const out = options.out ?? defaultRunPath(file);
      console.error(`${config.unlearn.enabled ? 'EEPO' : 'GRPO'}: ${sizes(config, loaded).join(', ')}`);
      const summary = await trainWithProgress(config, loaded, out, signal);
      console.log(resultText(summary));
    } finally {
      loaded.policy.dispose();
    }
  });
}

/** Trains with a display. */
export async function trainWithProgress(
  config: TrainConfig,
  loaded: LoadedRun,
  out: string,
  signal: AbortSignal,
  label = '',
): Promise<RunSummary> {
  const progress = new Progress({ iterations: config.run.iterations, label });
  try {
    return await trainRun({
      ...loaded,
      config,
      out,
      signal,
      onEvent: (event) => progress.event(event),
      onIteration: (iteration) => progress.iteration(iteration),
    });
  } finally {
    progress.stop();
  }
}

function sizes(config: TrainConfig, { policy, task }: LoadedRun): string[] {
  const { rollout, optimizer } = config;
  const samples = rollout.promptsPerIteration * rollout.groupSize;
  return [
    `${policy.numParameters.toLocaleString('en-US')} parameters on ${policy.device}`,
    `task ${task.name} (${Object.entries(task.splits)
      .map(([split, problems]) => `${split} ${problems.length}`)
      .join(', ')})`,
    `${rollout.promptsPerIteration} prompts x ${rollout.groupSize} = ${samples} samples of at most ${rollout.maxNewTokens} tokens`,
    `${Math.ceil(rollout.promptsPerIteration / optimizer.miniBatchPrompts) * optimizer.epochs} updates an iteration`,
    `${config.run.iterations} iterations`,
  ];
}

async function dryRun(config: TrainConfig, loaded: LoadedRun): Promise<void> {
  const { policy, tokenizer, task } = loaded;
  const prepared = await new Trainer({ policy, tokenizer, task, config }).prepare();
  await makeEvaluator(policy, tokenizer, task, config).check();
  console.log(configToToml(config));
  const lines = [
    ...sizes(config, loaded),
    `prompts: ${prepared.prompts}, the longest has ${prepared.longestPrompt} tokens` +
      (prepared.tooLong > 0 ? `; ${prepared.tooLong} longer than ${config.task.maxPromptTokens} left out` : ''),
    `context: ${policy.config.maxPositionEmbeddings} tokens`,
  ];
  console.log(lines.map((line) => `# ${line}`).join('\n'));
  console.log('# everything checked; nothing was trained');
}

/** The end of a run in a few lines: the evaluations, if any, and where the files are. */
export function resultText(summary: RunSummary): string {
  const names = [...new Set([...Object.keys(summary.first), ...Object.keys(summary.last)])].filter((name) =>
    name.startsWith('eval/'),
  );
  const table =
    names.length === 0
      ? []
      : [
          formatTable(
            ['', 'before', 'after'],
            names.map((name) => [name.slice('eval/'.length), show(summary.first[name]), show(summary.last[name])]),
          ),
          '',
        ];
  const { last } = summary;
  const h2 = last['rollout/stage2/entropy'];
  return [
    '',
    ...table,
    `${summary.iterations} iterations in ${formatSeconds(summary.seconds)}; last: reward ${show(last['reward/mean'])}, ` +
      `entropy of stage 1 ${show(last['rollout/stage1/entropy'])}${h2 === undefined ? '' : `, of stage 2 ${show(h2)}`}`,
    `run: ${summary.path} (config.toml, metrics.jsonl, completions.jsonl, model/)`,
  ].join('\n');
}
