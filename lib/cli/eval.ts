/** `eepo eval DIR_OR_RUN` */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { readConfig } from '../config-json.js';
import { InvalidArgumentError } from '../errors.js';
import { type Evaluation, evaluatePolicy } from '../eval/evaluate.js';
import { loadTrainConfig, readConfigText, type TrainConfig, trainSchema } from '../train/config.js';
import { checkConfig, parseTomlText } from '../train/config-file.js';
import { evaluationSplits } from '../train/evaluation.js';
import { checkModelFolder, loadRun } from '../train/load.js';
import { formatTable, show, wholeNumber, withInterrupt } from './common.js';

interface Options {
  task?: string;
  data?: string;
  split: string[];
  samples: number;
  maxProblems: number;
  sampleProblems: number;
  maxNew?: number;
  temperature: string;
  seed: number;
  json?: boolean;
}

export function register(program: Command): void {
  program
    .command('eval')
    .description('evaluate a model: greedy accuracy, pass@k, distinct correct solutions')
    .argument('<folder>', 'a run, or a model folder')
    .option('--task <name>', "countdown or jsonl (default: the run's own, else countdown)")
    .option('--data <file>', 'prompts and answers, for --task jsonl')
    .option('--split <name...>', 'splits of the task (default: all but train)', [])
    .option('--samples <n>', 'samples per problem; 0 = greedy only', wholeNumber('samples', 0), 64)
    .option('--max-problems <n>', 'problems per split', wholeNumber('max-problems', 1), 300)
    .option('--sample-problems <n>', 'of these, problems that are sampled', wholeNumber('sample-problems', 1), 100)
    .option(
      '--max-new <n>',
      "most tokens of a response (default: the run's, else 16 for countdown, 512 for jsonl)",
      wholeNumber('max-new', 1),
    )
    .option('--temperature <t>', 'of the samples', '1')
    .option('--seed <n>', 'of the samples', wholeNumber('seed', 0), 0)
    .option('--json', 'print JSON')
    .action(evaluate);
}

/** The configuration that says which model and task: the run's own, or defaults around a model folder. */
function configOf(folder: string, options: Options): { config: TrainConfig; trained: boolean } {
  const isRun = existsSync(join(folder, 'model', 'config.json'));
  const model = isRun ? join(folder, 'model') : folder;
  const saved = join(folder, 'config.toml');
  const overrides = [`model.path=${JSON.stringify(model)}`];
  if (options.task !== undefined) overrides.push(`task.name=${JSON.stringify(options.task)}`);
  if (options.data !== undefined) {
    overrides.push(`task.path=${JSON.stringify(options.data)}`, `task.evalPath=${JSON.stringify(options.data)}`);
    if (options.task === undefined) overrides.push('task.name="jsonl"');
  }
  // A run of `eepo sft` has a configuration too, but no task.
  if (isRun && existsSync(saved) && 'task' in parseTomlText(readConfigText(saved), saved)) {
    return { config: loadTrainConfig(saved, overrides), trained: true };
  }
  const config = checkConfig<TrainConfig>({}, overrides, {
    schema: trainSchema,
    source: 'eval',
    crossChecks: ({ task }) => (task.name === 'jsonl' && task.path === '' ? ['--task jsonl needs --data FILE'] : []),
  });
  return { config, trained: false };
}

/** How many new tokens, and for a bare model folder how long a prompt, so that both fit into the context. */
async function fitted(
  { config, trained }: { config: TrainConfig; trained: boolean },
  { maxNew }: Options,
): Promise<{ config: TrainConfig; maxNewTokens: number }> {
  if (trained) return { config, maxNewTokens: maxNew ?? config.rollout.maxNewTokens };
  checkModelFolder(config.model.path);
  const context = (await readConfig(config.model.path)).config.maxPositionEmbeddings;
  const usual = config.task.name === 'countdown' ? 16 : Math.min(512, Math.floor(context / 2));
  const maxNewTokens = maxNew ?? usual;
  const maxPromptTokens = Math.max(1, Math.min(config.task.maxPromptTokens, context - maxNewTokens));
  return { config: { ...config, task: { ...config.task, maxPromptTokens } }, maxNewTokens };
}

async function evaluate(folder: string, options: Options): Promise<void> {
  const temperature = Number(options.temperature);
  if (!(temperature > 0))
    throw new InvalidArgumentError(`--temperature ${options.temperature}: expected a number above 0`);
  const { config, maxNewTokens } = await fitted(configOf(folder, options), options);
  await withInterrupt(async (signal) => {
    const { policy, tokenizer, task } = await loadRun(config, signal);
    try {
      for (const note of new Set(task.notes)) console.error(`note: ${note}`);
      const splits =
        options.split.length > 0
          ? options.split
          : evaluationSplits(task, { ...config, eval: { ...config.eval, splits: [] } });
      const results: Record<string, Evaluation> = {};
      for (const split of splits) {
        console.error(`evaluating ${split}`);
        results[split] = await evaluatePolicy(policy, tokenizer, task, split, {
          samples: options.samples,
          maxProblems: options.maxProblems,
          sampleProblems: options.sampleProblems,
          maxNewTokens,
          temperature,
          seed: options.seed,
          signal,
        });
      }
      if (options.json) console.log(JSON.stringify(results, null, 2));
      else console.log(evaluationTable(results));
    } finally {
      policy.dispose();
    }
  });
}

/** One row per split. */
export function evaluationTable(results: Record<string, Evaluation>): string {
  const ks = [...new Set(Object.values(results).flatMap(({ passAtK }) => Object.keys(passAtK)))];
  return formatTable(
    ['split', 'problems', 'greedy', ...ks.map((k) => `pass@${k}`), 'distinct', 'algebraic', 'entropy', 'length'],
    Object.entries(results).map(([split, result]) => [
      split,
      String(result.problems),
      show(result.greedy),
      ...ks.map((k) => show(result.passAtK[Number(k)])),
      show(result.distinctPerSolved, 2),
      show(result.distinctAlgebraicPerSolved, 2),
      show(result.meanEntropy),
      show(result.meanLength, 1),
    ]),
  );
}
