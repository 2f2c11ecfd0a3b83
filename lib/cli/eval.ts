/** `eepo eval MODEL...`: benchmarks, problems of one's own, or the task a run was trained on. */
import { existsSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { InvalidArgumentError } from '../errors.js';
import { BENCHMARK_NAMES, benchmarkOf } from '../eval/benchmarks.js';
import { estimateOf, resultTable } from '../eval/table.js';
import { EMBEDDED_TASKS, isEmbedded } from '../tasks/index.js';
import { collect, wholeNumber, withInterrupt } from './common.js';
import { type EvalOptions, evaluateModel, type ModelTarget } from './eval-model.js';
import { printResults, register as registerTable } from './eval-table.js';

export function register(program: Command): void {
  const command = program
    .command('eval')
    .description(
      'evaluate models: greedy pass@1, avg@k, maj@k, pass@k on benchmarks, problems of your own, or the task of a run',
    )
    .argument('<models...>', 'folders of models or runs, or owner/name on the Hugging Face hub')
    .option('--benchmarks <names>', `comma-separated, of ${BENCHMARK_NAMES.join(', ')}`, names, [])
    .option(
      '--benchmark-data <path>',
      'file, NAME=FILE or folder of the benchmarks (may be repeated; default: the hub)',
      collect,
      [],
    )
    .option(
      '--data <file>',
      'problems of your own: .jsonl, .json (also .gz), .parquet or hf://datasets/OWNER/NAME/FILE; NAME=FILE names them (may be repeated)',
      collect,
      [],
    )
    .option(
      '--task <name>',
      `evaluate on the splits of a task: ${EMBEDDED_TASKS.join(' or ')} (default: that of the run, where no problems are named)`,
    )
    .option('--split <names>', 'splits of a task (default: all but train)', names, [])
    .option('--name <name>', 'of each model in turn, for the table (default: its folder)', collect, [])
    .option('--no-greedy', 'samples only')
    .option(
      '--samples <n>',
      'samples per problem (default: the largest --k, else 0; 64 on a task)',
      wholeNumber('samples', 0),
    )
    .option('--k <list>', 'k of maj@k and pass@k, comma-separated (default: 1,8,64 up to --samples)', counts)
    .option('--temperature <t>', 'of the samples', positive('temperature'), 1)
    .option('--top-p <p>', 'of the samples', positive('top-p'), 1)
    .option(
      '--max-new-tokens <n>',
      "most tokens of a response (default: a run's own on its task, else 4096 or what fits)",
      wholeNumber('max-new-tokens', 1),
    )
    .option('--limit <n>', 'first problems of each benchmark (default: all; 300 on a task)', wholeNumber('limit', 1))
    .option(
      '--sample-limit <n>',
      'of these, problems that are sampled (default: all; 100 on a task)',
      wholeNumber('sample-limit', 1),
    )
    .option('--seed <n>', 'of the samples', wholeNumber('seed', 0), 0)
    .option(
      '--prompt-style <style>',
      "plain, chat, qwen-boxed, qwen-math or simplerl (default: the run's own, else qwen-boxed; simplerl without a chat template)",
    )
    .option('--prompt-template <text>', 'text or user message; {prompt} stands for the problem')
    .option('--system-prompt <text>', 'system message of a chat')
    .option('--chat', 'short for --prompt-style chat')
    .option(
      '--stop-token <token>',
      "id or text of a token that ends a response (may be repeated; default: the model's)",
      collect,
      [],
    )
    .option(
      '--tolerance <r>',
      "relative tolerance of numeric answers (default: the benchmark's, else none)",
      positive('tolerance'),
    )
    .option('--device <device>', 'auto, cpu or cuda', 'auto')
    .option('--dtype <dtype>', 'type of the weight matrices, float32 or bfloat16', 'float32')
    .option('--batch-size <n>', 'responses generated and written together (default: 256)', wholeNumber('batch-size', 1))
    .option('--revision <revision>', 'branch, tag or commit of a model on the hub')
    .option('--out <dir>', 'results go to DIR/<name>; an evaluation that was stopped goes on there', 'evals')
    .option('--baseline <name>', "show every average's gain over this model")
    .option('--metric <metric>', 'of the table: greedy, avg, maj@K or pass@K (default: greedy)')
    .option('--json', 'print JSON')
    .option('--markdown', 'print Markdown')
    .addHelpText(
      'after',
      '\nWhat the metrics are, where benchmarks come from and what is written: docs/evaluation.md. Ctrl-C loses nothing:\nthe same command goes on.',
    )
    .action(evaluate);
  registerTable(command);
}

const names = (value: string): string[] =>
  value
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');

function counts(value: string): number[] {
  return names(value).map(wholeNumber('k', 1));
}

function positive(option: string): (value: string) => number {
  return (value) => {
    const parsed = Number(value);
    if (value.trim() !== '' && Number.isFinite(parsed) && parsed > 0) return parsed;
    throw new InvalidArgumentError(`--${option} ${value}: expected a number above 0`);
  };
}

async function evaluate(models: string[], options: EvalOptions): Promise<void> {
  const targets = targetsOf(models, options);
  check(targets, options);
  const results = await withInterrupt(
    async (signal) => {
      const all = [];
      for (const target of targets) all.push(await evaluateModel(target, options, signal));
      return all;
    },
    () => {
      const begun = targets.map(({ out }) => out).filter((out) => existsSync(out));
      if (begun.length === 0) return 'nothing was evaluated yet; the same command begins again';
      return `every response so far is kept in ${begun.join(', ')}; the same command goes on there`;
    },
  );
  printResults(
    targets.map(({ out }) => out),
    options,
    results,
  );
}

/** Names and folders of the models, before anything is loaded. */
function targetsOf(models: readonly string[], { name: given, out }: EvalOptions): ModelTarget[] {
  if (given.length > models.length) {
    throw new InvalidArgumentError(`--name is given ${given.length} times for ${models.length} models`);
  }
  return models.map((model, i) => {
    const isRun = existsSync(join(model, 'model', 'config.json'));
    const name = given[i] ?? basename(existsSync(model) ? resolve(model) : model);
    const folder = name.replace(/[^A-Za-z0-9._-]/g, '_').replace(/^\.+/, '_');
    return { model, name, run: isRun ? model : null, out: join(out, folder) };
  });
}

/** What can be known to be wrong before hours are spent. */
function check(targets: readonly ModelTarget[], options: EvalOptions): void {
  options.benchmarks.forEach(benchmarkOf);
  resultTable(
    targets.map(({ name }) => ({ name, model: null, sets: {} })),
    { baseline: options.baseline ?? null },
  );
  const local = targets.find(({ run }) => run !== null);
  if (options.revision !== undefined && local !== undefined) {
    throw new InvalidArgumentError(`--revision is of models on the hub, but ${local.model} is the folder of a run`);
  }
  const folders = targets.map(({ out }) => out);
  const twice = folders.find((folder, i) => folders.indexOf(folder) < i);
  if (twice !== undefined) {
    throw new InvalidArgumentError(`two models would write to ${twice}; give them different names with --name`);
  }
  if (options.metric !== undefined) {
    const nothing = { title: '', greedy: null, avgAtK: null, majAtK: {}, passAtK: {} };
    estimateOf(nothing as unknown as Parameters<typeof estimateOf>[0], options.metric);
  }
  if (options.chat && options.promptStyle !== undefined && options.promptStyle !== 'chat') {
    throw new InvalidArgumentError(`--chat and --prompt-style ${options.promptStyle} exclude each other`);
  }
  const problems = options.benchmarks.length + options.data.length;
  if (problems > 0 && (options.task !== undefined || options.split.length > 0)) {
    throw new InvalidArgumentError(
      '--task and --split are for the splits of a task; leave out --benchmarks and --data',
    );
  }
  if (options.task !== undefined && !isEmbedded(options.task)) {
    throw new InvalidArgumentError(
      `--task ${options.task}: expected ${EMBEDDED_TASKS.join(' or ')}; problems of your own are given with --data, benchmarks with --benchmarks`,
    );
  }
  if (problems === 0 && options.task === undefined) {
    const bare = targets.find(({ run }) => run === null);
    if (bare !== undefined) {
      throw new InvalidArgumentError(
        `say what to evaluate ${bare.model} on: --benchmarks math500,aime24, --data FILE or --task countdown`,
      );
    }
  }
}
