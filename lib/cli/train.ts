/** `eepo train CONFIG.toml` */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import type { PolicyConfig } from '../config-json.js';
import { ConfigError, InvalidArgumentError } from '../errors.js';
import { memoryTable, requireFit } from '../memory/fit.js';
import { countParameters } from '../memory/parameters.js';
import type { PolicyLike } from '../policy-types.js';
import type { Task } from '../tasks/types.js';
import { loadTrainConfig, type TrainConfig } from '../train/config.js';
import { configToToml } from '../train/config-file.js';
import { configNotes } from '../train/config-notes.js';
import { makeEvaluator } from '../train/evaluation.js';
import { loadRun, prepareRun } from '../train/load.js';
import { parseMemory, planRun } from '../train/memory.js';
import { methodName } from '../train/method-name.js';
import { formatSeconds, Progress } from '../train/progress.js';
import { previewResume, type ResumePoint, resumePoint } from '../train/resume.js';
import { type LoadedRun, type RunSummary, type StoppedRun, type TrainRunOptions, trainRun } from '../train/run.js';
import { checkNewRun, defaultRunPath, isRunFolder, newestRun } from '../train/run-directory.js';
import { type TrainablePolicy, Trainer } from '../train/trainer.js';
import { collect, formatTable, show, withInterrupt } from './common.js';
import { hubProgress } from './hub-progress.js';
import { type TrainCommand, withStop } from './train-stop.js';

interface Options {
  preset: string[];
  set: string[];
  out?: string;
  resume?: string;
  acceptChanges?: boolean;
  dryRun?: boolean;
  memory?: string;
}

export function register(program: Command): void {
  program
    .command('train')
    .description('train a policy by EEPO or GRPO')
    .argument(
      '[config]',
      "configuration file (TOML); see docs/config.md and configs/. With --resume <folder>: that run's own",
    )
    .option(
      '--preset <name>',
      'an algorithm laid over the configuration, such as eepo, grpo, dr-grpo, dapo, gspo or cispo (docs/objectives.md); may be repeated',
      collect,
      [],
    )
    .option('--set <section.key=value>', 'override an option; may be repeated', collect, [])
    .option('--out <folder>', 'folder of the run (default: runs/<config>-<time>)')
    .option(
      '--resume <latest|folder>',
      'go on with a run: the newest of this configuration or of --out, or the folder of a run or checkpoint',
    )
    .option('--accept-changes', 'with --resume: go on although the configuration has changed')
    .option('--dry-run', 'check everything, print the configuration, the sizes and the memory, train nothing')
    .option('--memory <size>', 'with --dry-run: plan for a GPU with so much memory, such as 80GB (default: the device)')
    .action(train);
}

async function train(given: string | undefined, options: Options): Promise<void> {
  const file = given ?? ownConfig(options);
  const config = loadTrainConfig(file, options.set, options.preset);
  checkCombination(options);
  if (options.dryRun) {
    return withInterrupt((signal) => dryRun(file, config, options.memory, signal));
  }
  const resume = options.resume === undefined ? null : resumeOf(options.resume, file, options);
  const out = resume?.run ?? options.out ?? defaultRunPath(file, options.preset);
  if (resume !== null && isRunFolder(out)) {
    const { complete, iteration } = previewResume(resume, config, options.acceptChanges ?? false);
    if (complete) {
      console.log(completeText(out, iteration, config.run.iterations));
      return;
    }
  } else checkNewRun(out);
  const run: TrainCommand = { file, config, out, options };
  await withStop(run, (signal, onStop) => trainLoaded(run, resume, signal, onStop));
}

/** The configuration that a run was started with, for `--resume` alone. */
function ownConfig({ resume, out }: Options): string {
  if (resume === undefined || (resume === 'latest' && out === undefined)) {
    throw new InvalidArgumentError(
      'which configuration? npx eepo train configs/grpo.toml begins a run, npx eepo train --resume runs/NAME goes on with one',
    );
  }
  return join(resumePoint(resume, out).run, 'config.toml');
}

/** Of a run that has all the iterations that are asked for, or more. */
export function completeText(out: string, done: number, asked: number): string {
  if (done <= asked) {
    return `${out}: already complete (iteration ${done} of ${asked}); nothing to train. Set run.iterations higher to go on`;
  }
  return (
    `${out} has ${done} iterations, more than run.iterations = ${asked}; nothing to train. To go on, set run.iterations ` +
    `above ${done}; to go back, name one of its checkpoints with --resume, or begin a new run with another --out`
  );
}

function checkCombination({ resume, acceptChanges, dryRun, memory }: Options): void {
  if (memory !== undefined && !dryRun) throw new InvalidArgumentError('--memory needs --dry-run');
  if (acceptChanges && resume === undefined) throw new InvalidArgumentError('--accept-changes needs --resume');
  if (resume !== undefined && dryRun) throw new InvalidArgumentError('--dry-run trains nothing; leave out --resume');
}

/** What `--resume` names. @throws ConfigError where there is no such run */
function resumeOf(resume: string, file: string, { out, preset }: Options): ResumePoint {
  if (resume !== 'latest' || out !== undefined) return resumePoint(resume, out);
  const run = newestRun(file, preset);
  if (run === null) {
    throw new ConfigError(
      `--resume latest: there is no run of ${file} in runs/; give the folder of a run, or leave out --resume for a new one`,
    );
  }
  return { run, checkpoint: null };
}

async function trainLoaded(
  { config, out, options }: TrainCommand,
  resume: ResumePoint | null,
  signal: AbortSignal,
  onStop: (stopped: StoppedRun) => void,
): Promise<void> {
  const loaded = await loadRun(config, signal, hubProgress());
  try {
    for (const text of loaded.task.notes ?? []) note(text);
    const { policy, task } = loaded;
    console.error(`${methodName(config)}: ${sizes(config, policy.numParameters, policy.device, task).join(', ')}`);
    const cacheTokens = loaded.memory?.options.cacheTokens ?? 0;
    if (cacheTokens > 0)
      console.error(`key-value cache: ${cacheTokens.toLocaleString('en-US')} tokens; samples wait for room`);
    const summary = await trainWithProgress(config, loaded, out, signal, '', {
      ...(resume === null ? {} : { resume: resume.checkpoint ?? 'latest' }),
      ...(options.acceptChanges ? { acceptChanges: true } : {}),
      onNote: note,
      onStop,
    });
    console.log(resultText(summary));
  } finally {
    loaded.policy.dispose();
  }
}

const note = (text: string): void => console.error(`note: ${text}`);

/** Trains with a display. */
export async function trainWithProgress(
  config: TrainConfig,
  loaded: LoadedRun,
  out: string,
  signal: AbortSignal,
  label = '',
  more: Pick<TrainRunOptions, 'resume' | 'acceptChanges' | 'onNote' | 'onStop'> = {},
): Promise<RunSummary> {
  const progress = new Progress({ iterations: config.run.iterations, label });
  try {
    return await trainRun({
      ...loaded,
      ...more,
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

function sizes(config: TrainConfig, parameters: number, device: string, task: Task): string[] {
  const { rollout, optimizer } = config;
  const samples = rollout.promptsPerIteration * rollout.groupSize;
  const updates = Math.ceil(rollout.promptsPerIteration / optimizer.miniBatchPrompts) * optimizer.epochs;
  return [
    `${parameters.toLocaleString('en-US')} parameters on ${device}`,
    `task ${task.name} (${Object.entries(task.splits)
      .map(([split, problems]) => `${split} ${problems.length}`)
      .join(', ')})`,
    `${rollout.promptsPerIteration} prompts x ${rollout.groupSize} = ${samples} samples of at most ${rollout.maxNewTokens} tokens`,
    `${updates} ${updates === 1 ? 'update' : 'updates'} an iteration`,
    `${config.run.iterations} iterations`,
  ];
}

/** Checks all that can be known without the weights, and prints it. */
async function dryRun(
  file: string,
  config: TrainConfig,
  memory: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const available = memory === undefined ? undefined : parseMemory(memory, '--memory');
  const { modelConfig, device, tokenizer, task, weightsChecked } = await prepareRun(config, {
    signal,
    onProgress: hubProgress(),
    ...(available === undefined ? {} : { available }),
  });
  for (const text of [...configNotes(config), ...(task.notes ?? [])]) note(text);
  const policy = modelWithoutWeights(modelConfig);
  const prepared = await new Trainer({ policy, tokenizer, task, config }).prepare();
  await makeEvaluator(policy as unknown as PolicyLike, tokenizer, task, config).check();
  const { longestPrompt } = prepared;
  const plan = await planRun(config, modelConfig, device, {
    longestPrompt,
    ...(available === undefined ? {} : { available }),
  });
  requireFit(plan, file);
  console.log(configToToml(config));
  const { matrices, vectors } = countParameters(modelConfig);
  const lines = [
    ...sizes(config, matrices + vectors, device, task),
    `prompts: ${prepared.prompts}, the longest has ${longestPrompt} tokens` +
      (prepared.tooLong > 0 ? `; ${prepared.tooLong} longer than ${config.task.maxPromptTokens} left out` : ''),
    `context: ${modelConfig.maxPositionEmbeddings} tokens`,
    'memory on the device:',
    ...memoryTable(plan).map((row) => `  ${row}`),
    ...(plan.options.cacheTokens > 0
      ? [
          `key-value cache: bounded to ${plan.options.cacheTokens.toLocaleString('en-US')} tokens; samples wait for room`,
        ]
      : []),
  ];
  console.log(lines.map((line) => `# ${line}`).join('\n'));
  const checked = weightsChecked ? 'everything checked' : 'everything checked but the weights, which are not here yet';
  console.log(`# ${checked}; nothing was trained`);
}

/** What the checks before a run ask of a policy. */
function modelWithoutWeights(config: PolicyConfig): TrainablePolicy {
  const policy: Partial<TrainablePolicy> & { adapter: object } = {
    config,
    adapter: {},
    setGradientCheckpointing: async () => {},
  };
  return policy as TrainablePolicy;
}

/** Files and folders of a run, folders with a slash. */
function contents(path: string): string[] {
  return readdirSync(path, { withFileTypes: true })
    .map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name))
    .sort();
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
    `run: ${summary.path} (${contents(summary.path).join(', ')})`,
  ].join('\n');
}
