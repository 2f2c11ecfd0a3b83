/** From a configuration to what it names: tokenizer, task, policy. Cheap and likely to fail first. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { InvalidFileError } from '../errors.js';
import { type HubOptions, modelFolder } from '../hub/index.js';
import { indexFile, noWeights, singleFile } from '../model-folder.js';
import { Policy } from '../policy.js';
import type { LoadOptions } from '../policy-types.js';
import { Tokenizer } from '../tokenizer.js';
import type { TrainConfig } from './config.js';
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

/** Everything a run needs, the cheap and fragile parts first: the weights are downloaded when the task is known good. */
export async function loadRun(
  config: TrainConfig,
  signal?: AbortSignal,
  onProgress?: HubOptions['onProgress'],
): Promise<LoadedRun> {
  const { path, chatTemplate, device, dtype } = config.model;
  const hub = hubOptions(config.model, { signal, onProgress });
  const small = await modelFolder(path, { ...hub, weights: false });
  checkModelFolder(small, small === path);
  const tokenizer = await Tokenizer.load(small, chatTemplate === '' ? {} : { chatTemplate });
  const task = await loadTask(config, tokenizer, { ...hub, revision: undefined });
  const policy = await Policy.load(path, {
    ...hub,
    ...sameCommit(path, small),
    device,
    dtype,
    ...trainingOptions(config),
  });
  return { policy, tokenizer, task };
}
