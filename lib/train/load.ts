/** From a configuration to what it names: tokenizer, task, policy. Cheap and likely to fail first. */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { InvalidFileError } from '../errors.js';
import { Policy } from '../policy.js';
import { Tokenizer } from '../tokenizer.js';
import type { TrainConfig } from './config.js';
import type { LoadedRun } from './run.js';
import { loadTask } from './task.js';

/**
 * Checks that a folder looks like a model before anything is loaded.
 *
 * @throws InvalidFileError that names what is missing
 */
export function checkModelFolder(path: string, weights = true): void {
  if (!existsSync(path)) throw new InvalidFileError(`${path}: no such model folder`);
  if (!statSync(path).isDirectory()) throw new InvalidFileError(`${path} is a file; expected a model folder`);
  for (const name of ['config.json', 'tokenizer.json']) {
    if (!existsSync(join(path, name))) {
      throw new InvalidFileError(`${path} has no ${name}; expected a model folder in Hugging Face layout`);
    }
  }
  const names = ['model.safetensors', 'model.safetensors.index.json'];
  if (weights && !names.some((name) => existsSync(join(path, name)))) {
    throw new InvalidFileError(`${path} has no weights (${names.join(' or ')}); other formats are not read`);
  }
}

/** Everything a run needs, the cheap and fragile parts first. */
export async function loadRun(config: TrainConfig, signal?: AbortSignal): Promise<LoadedRun> {
  checkModelFolder(config.model.path);
  const tokenizer = await Tokenizer.load(config.model.path);
  const task = await loadTask(config, tokenizer, signal);
  const { device, dtype } = config.model;
  const policy = await Policy.load(config.model.path, { device, dtype, ...(signal === undefined ? {} : { signal }) });
  return { policy, tokenizer, task };
}
