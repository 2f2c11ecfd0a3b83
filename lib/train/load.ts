/** From a configuration to what it names: tokenizer, task, policy. Cheap and likely to fail first. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type PolicyConfig, readConfig } from '../config-json.js';
import { resolveDevice } from '../cuda.js';
import { InvalidFileError } from '../errors.js';
import { type HubOptions, modelFolder } from '../hub/index.js';
import { type MemoryPlan, requireFit } from '../memory/fit.js';
import { indexFile, noWeights, readWeightIndex, singleFile, weightFiles } from '../model-folder.js';
import { Policy } from '../policy.js';
import type { LoadOptions } from '../policy-types.js';
import type { Task } from '../tasks/types.js';
import type { TensorDevice } from '../tensor.js';
import { resolveStopTokens } from '../tokenizer/stop-tokens.js';
import { Tokenizer } from '../tokenizer.js';
import { checkWeights } from '../weights-header.js';
import type { TrainConfig } from './config.js';
import { evaluationSplits } from './evaluation.js';
import { planRun } from './memory.js';
import type { LoadedRun } from './run.js';
import { loadTask } from './task.js';

/**
 * Checks that a folder looks like a model before anything is loaded.
 *
 * @throws InvalidFileError that names what is missing; UnsupportedError for weights in other formats
 */
export function checkModelFolder(path: string, weights = true): void {
  if (!existsSync(path)) throw new InvalidFileError(`${path}: no such model folder`);
  if (!statSync(path).isDirectory()) throw new InvalidFileError(`${path} is a file; expected a model folder`);
  for (const name of ['config.json', 'tokenizer.json']) {
    if (!existsSync(join(path, name))) {
      throw new InvalidFileError(`${path} has no ${name}; expected a model folder in Hugging Face layout`);
    }
  }
  if (!weights) return;
  const names = readdirSync(path);
  if (!names.includes(singleFile) && !names.includes(indexFile)) throw noWeights(path, names);
}

/** The part of a configuration that says which model. */
interface ModelChoice {
  path: string;
  revision: string;
  cacheDir?: string;
  offline?: boolean;
}

/** How a configuration's model is looked for on the hub. */
export function hubOptions(
  { revision, cacheDir, offline }: ModelChoice,
  { signal, onProgress }: Pick<HubOptions, 'signal' | 'onProgress'>,
): HubOptions {
  return {
    ...(revision === '' ? {} : { revision }),
    ...(cacheDir ? { cacheDir } : {}),
    ...(offline ? { offline } : {}),
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  };
}

/** Weights of the commit that the small files came from, even if the branch has moved since. */
export function sameCommit(path: string, folder: string): { revision?: string } {
  return folder === path ? {} : { revision: basename(folder) };
}

/** What of a configuration decides how a policy is trained. */
export function trainingOptions({
  lora,
  optimizer,
  run,
}: TrainConfig): Pick<LoadOptions, 'lora' | 'gradientCheckpointing'> {
  const { gradientCheckpointing } = optimizer;
  return lora.rank === 0 ? { gradientCheckpointing } : { gradientCheckpointing, lora: { ...lora, seed: run.seed } };
}

/** What is known of a run before its weights are there. */
export interface PreparedRun {
  /** Holds the model's configuration and tokenizer; its weights only if `model.path` is a folder. */
  folder: string;
  modelConfig: PolicyConfig;
  device: TensorDevice;
  tokenizer: Tokenizer;
  task: Task;
  /** Whether the headers of the weights were read and fit the model; false where they are still to be downloaded. */
  weightsChecked: boolean;
  /** For prompts of task.maxPromptTokens. */
  memory: MemoryPlan;
}

/**
 * Configuration, tokenizer, task and the memory that the run will take: no weights are downloaded or loaded.
 *
 * @param available - bytes to plan for, on a GPU unless model.device says otherwise; default what the device has
 */
export async function prepareRun(
  config: TrainConfig,
  { signal, onProgress, available }: Pick<HubOptions, 'signal' | 'onProgress'> & { available?: number } = {},
): Promise<PreparedRun> {
  const { path, chatTemplate } = config.model;
  const hub = hubOptions(config.model, { signal, onProgress });
  const folder = await modelFolder(path, { ...hub, weights: false });
  // a plan for another machine needs no weights on this one
  checkModelFolder(folder, folder === path && available === undefined);
  // the small files first: data sets take minutes to read
  const { config: modelConfig } = await readConfig(folder);
  const device = deviceOf(config, available);
  const tokenizer = await Tokenizer.load(folder, chatTemplate === '' ? {} : { chatTemplate });
  tokenizer.checkVocabulary(modelConfig.vocabSize, path);
  resolveStopTokens(tokenizer, config.rollout.stopTokens);
  const checked = await weightsChecked(folder, modelConfig, folder === path && available === undefined);
  const task = await loadTask(config, tokenizer, { ...hub, revision: undefined });
  if (evaluates(config)) evaluationSplits(task, config);
  const memory = await planRun(config, modelConfig, device, available === undefined ? {} : { available });
  return { folder, modelConfig, device, tokenizer, task, memory, weightsChecked: checked };
}

async function weightsThere(folder: string): Promise<boolean> {
  const names = readdirSync(folder);
  if (names.includes(singleFile) || !names.includes(indexFile)) return names.includes(singleFile);
  const shards = await readWeightIndex(join(folder, indexFile));
  return [...shards.values()].every((name) => names.includes(name));
}

/** Headers of the weights, where these must be there or are: a model of the hub may be in the cache already. */
async function weightsChecked(folder: string, modelConfig: PolicyConfig, needed: boolean): Promise<boolean> {
  if (!needed && !(await weightsThere(folder))) return false;
  await checkWeights(modelConfig, await weightFiles(folder));
  return true;
}

const evaluates = ({ eval: e }: TrainConfig): boolean => e.every > 0 || e.atStart || e.atEnd;

/** A run is planned for a GPU elsewhere where the amount of memory is given. */
function deviceOf({ model }: TrainConfig, available: number | undefined): TensorDevice {
  if (available === undefined) return resolveDevice(model.device);
  return model.device === 'cpu' ? 'cpu' : 'cuda';
}

/**
 * Everything a run needs, the cheap and fragile parts first: the weights are downloaded when the task is known good and
 * the memory enough.
 *
 * @throws ConfigError where the run does not fit into the memory of the device, with the options that would make it fit
 */
export async function loadRun(
  config: TrainConfig,
  signal?: AbortSignal,
  onProgress?: HubOptions['onProgress'],
): Promise<LoadedRun> {
  const { folder, tokenizer, task, memory } = await prepareRun(config, {
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  });
  requireFit(memory, config.model.path);
  const { path, device, dtype } = config.model;
  const policy = await Policy.load(path, {
    ...hubOptions(config.model, { signal, onProgress }),
    ...sameCommit(path, folder),
    device,
    dtype,
    ...trainingOptions(config),
  });
  return { policy, tokenizer, task, memory };
}
