/** A run of supervised fine-tuning on disk. */
import { readConfig } from '../config-json.js';
import { type HubOptions, modelFolder } from '../hub/index.js';
import { weightFiles } from '../model-folder.js';
import { Policy } from '../policy.js';
import { createTask } from '../tasks/index.js';
import type { Demonstration } from '../tasks/types.js';
import { Tokenizer } from '../tokenizer.js';
import { configToToml } from './config-file.js';
import { cycle, readDemonstrations } from './demonstrations.js';
import { checkModelFolder, hubOptions, sameCommit } from './load.js';
import type { Metrics } from './metrics.js';
import { RunDirectory } from './run-directory.js';
import { type SftStep, SftTrainer } from './sft.js';
import type { SftConfig } from './sft-config.js';

export interface LoadedSft {
  policy: Policy;
  tokenizer: Tokenizer;
  demonstrations: Iterator<Demonstration, unknown>;
}

async function demonstrationsOf(config: SftConfig): Promise<Iterator<Demonstration, unknown>> {
  const { name, path, promptColumn, responseColumn } = config.data;
  if (name === 'jsonl') return cycle(await readDemonstrations(path, promptColumn, responseColumn), config.run.seed);
  const { demonstrations } = await createTask(name);
  if (demonstrations === undefined) throw new Error(`the ${name} task has no demonstrations`);
  return demonstrations(config.run.seed);
}

/** Loads or makes the model, its tokenizer and the data, the cheap and fragile parts first. */
export async function loadSft(
  config: SftConfig,
  signal?: AbortSignal,
  onProgress?: HubOptions['onProgress'],
): Promise<LoadedSft> {
  const { path, create, device } = config.model;
  const hub = hubOptions(config.model, { signal, onProgress });
  const folder = path === '' ? create : await modelFolder(path, { ...hub, weights: false });
  checkModelFolder(folder, folder === path);
  const { config: modelConfig, raw } = await readConfig(folder);
  const tokenizer = await Tokenizer.load(folder);
  tokenizer.checkVocabulary(modelConfig.vocabSize, folder);
  if (folder === path) await weightFiles(folder);
  const demonstrations = await demonstrationsOf(config);
  const policy =
    path === ''
      ? await Policy.create(raw, {
          device,
          seed: config.run.seed,
        })
      : await Policy.load(path, { ...hub, ...sameCommit(path, folder), device });
  return { policy, tokenizer, demonstrations };
}

export interface SftRunOptions extends LoadedSft {
  config: SftConfig;
  /** The folder of the run; must be new or empty. */
  out: string;
  signal?: AbortSignal;
  onStep?: (step: SftStep) => void;
}

/** Trains and writes config.toml, metrics.jsonl, model/ and summary.json. */
export async function sftRun(options: SftRunOptions): Promise<{ path: string; seconds: number; last: Metrics }> {
  const run = RunDirectory.create(options.out);
  try {
    return await sftIn(run, options);
  } finally {
    run.release();
  }
}

async function sftIn(run: RunDirectory, options: SftRunOptions): ReturnType<typeof sftRun> {
  const { config, policy, tokenizer, demonstrations, signal } = options;
  run.write('config.toml', configToToml(config));
  const start = performance.now();
  let last: Metrics = {};
  const trainer = new SftTrainer({
    policy,
    tokenizer,
    demonstrations,
    config,
    ...(signal === undefined ? {} : { signal }),
  });
  for await (const step of trainer) {
    last = step.metrics;
    run.appendLines('metrics.jsonl', [{ step: step.step, ...step.metrics }]);
    options.onStep?.(step);
  }
  await run.saveModel('model', policy, tokenizer);
  const seconds = (performance.now() - start) / 1000;
  const summary = { steps: config.run.steps, seconds, last, weights: await policy.hash(), node: process.version };
  run.write('summary.json', `${JSON.stringify(summary, null, 2)}\n`);
  return { path: run.path, seconds, last };
}
