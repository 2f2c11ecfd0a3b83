/** Writes a policy as a folder that transformers loads. */
import { copyFile, mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { InvalidArgumentError } from './errors.js';
import { companionFiles } from './model-folder.js';
import { callNative } from './native.js';
import type { NativeModel } from './native-model.js';

/** What a checkpoint is made of. */
export interface Checkpoint {
  model: Pick<NativeModel, 'save'>;
  /** config.json as it was read. */
  config: Record<string, unknown>;
  /** Folder of the tokenizer and generation files; null if there is none. */
  companions: string | null;
}

/**
 * Writes config.json, model.safetensors (float32) and the companion files. Each file is written beside its name and
 * renamed, the weights before the config, so no reader sees half a model.
 */
export async function writeCheckpoint(dir: string, checkpoint: Checkpoint): Promise<void> {
  const { model, config, companions } = checkpoint;
  await mkdir(dir, { recursive: true }).catch((cause: NodeJS.ErrnoException) => {
    throw new InvalidArgumentError(`dir: ${dir} cannot be made a folder (${cause.code})`, { cause });
  });
  await callNative(() => model.save(join(dir, 'model.safetensors')));
  // an index of another model's shards would be read before our one file
  await rm(join(dir, 'model.safetensors.index.json'), { force: true });
  const { torch_dtype: _old, dtype: _new, ...raw } = config;
  const dtypeKey = 'torch_dtype' in config ? 'torch_dtype' : 'dtype';
  const json = `${JSON.stringify({ ...raw, [dtypeKey]: 'float32' }, null, 2)}\n`;
  await writeFile(join(dir, 'config.json.tmp'), json);
  await rename(join(dir, 'config.json.tmp'), join(dir, 'config.json'));
  if (companions === null) return;
  const present = new Set(await readdir(companions));
  for (const file of companionFiles.filter((name) => present.has(name))) {
    const target = join(dir, file);
    await copyFile(join(companions, file), `${target}.tmp`);
    await rename(`${target}.tmp`, target);
  }
}
