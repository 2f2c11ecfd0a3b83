/** Writes a policy as a folder that transformers loads. */
import { copyFile, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { type CheckpointPlan, isWeightFile, planCheckpoint, type TensorShape } from './checkpoint-plan.js';
import { classOf, type PolicyConfig } from './config-json.js';
import { EepoError, InvalidArgumentError, InvalidFileError } from './errors.js';
import { makeFolders, makeGivenFolder } from './make-folder.js';
import { companionFiles, indexFile } from './model-folder.js';
import { describe } from './options.js';

export interface SaveOptions {
  /** Type of the weights in the files: 'float32' (default) is the master copy, 'bfloat16' is rounded from it, norms too. */
  dtype?: 'float32' | 'bfloat16';
  /** Files of the weights are at most so large; default 5e9, as in transformers. */
  maxShardBytes?: number;
  signal?: AbortSignal;
}

/** What a checkpoint is made of. */
export interface Checkpoint {
  /** Every tensor that is saved, in order. */
  layout: readonly TensorShape[];
  /** Writes the files of the weights. */
  write(files: { path: string; names: string[] }[], dtype: 'float32' | 'bfloat16', signal?: AbortSignal): Promise<void>;
  config: Pick<PolicyConfig, 'modelType' | 'tieWordEmbeddings'>;
  /** config.json as it was read. */
  raw: Record<string, unknown>;
  /** Folder of the tokenizer and generation files; null if there is none. */
  companions: string | null;
}

/**
 * Writes config.json, the weights in one file or several, and the companion files. Everything is written into a folder
 * beside the old files first and then takes their places, so a full disk costs nothing that was there; what is left of
 * an older save's weights is removed.
 *
 * @throws InvalidArgumentError for a folder that cannot be made; InvalidFileError when the disk is full.
 */
export async function writeCheckpoint(dir: string, checkpoint: Checkpoint, options: SaveOptions = {}): Promise<void> {
  const { dtype = 'float32', maxShardBytes = 5e9, signal } = options;
  if (dtype !== 'float32' && dtype !== 'bfloat16') {
    throw new InvalidArgumentError(`dtype must be "float32" or "bfloat16", got ${describe(dtype)}`);
  }
  const plan = planCheckpoint(checkpoint.layout, dtype === 'float32' ? 4 : 2, maxShardBytes);
  makeGivenFolder(dir);
  await removeLeftovers(dir);
  const staged = join(dir, `.saving-${hostname()}-${process.pid}-${Math.random().toString(36).slice(2, 8)}`);
  try {
    await mkdir(staged);
    await checkpoint.write(
      plan.files.map(({ name, tensors }) => ({ path: join(staged, name), names: tensors })),
      dtype,
      signal,
    );
    await writeRest(staged, checkpoint, plan, dtype);
  } catch (error) {
    await rm(staged, { recursive: true, force: true });
    throw explain(error, dir);
  }
  await replace(dir, staged, plan).finally(() => rm(staged, { recursive: true, force: true }));
}

/** Staged files of saves whose process was killed: they may be as large as the model. */
async function removeLeftovers(dir: string): Promise<void> {
  for (const name of await readdir(dir)) {
    const [, host, pid] = /^\.saving-(.+)-(\d+)-\w+$/.exec(name) ?? [];
    // of other machines that share the disk nothing is known
    if (host === hostname() && !isRunning(Number(pid))) await rm(join(dir, name), { recursive: true, force: true });
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Everything but the weights. */
async function writeRest(staged: string, checkpoint: Checkpoint, plan: CheckpointPlan, dtype: string): Promise<void> {
  if (plan.index) await writeJson(join(staged, indexFile), plan.index);
  await writeJson(join(staged, 'config.json'), configOf(checkpoint, dtype));
  if (checkpoint.companions === null) return;
  for (const name of await companionsIn(checkpoint.companions)) {
    makeFolders(join(staged, name, '..'));
    await copyFile(join(checkpoint.companions, name), join(staged, name));
  }
}

/** The files beside weights and config.json, chat templates of other purposes among them. */
async function companionsIn(folder: string): Promise<string[]> {
  const present = new Set(await readdir(folder));
  const templates = 'additional_chat_templates';
  const more = present.has(templates) ? await readdir(join(folder, templates)) : [];
  return [
    ...companionFiles.filter((name) => present.has(name)),
    ...more.filter((name) => name.endsWith('.jinja')).map((name) => join(templates, name)),
  ];
}

/** config.json as it was read, but for what is known better now. */
function configOf({ config, raw }: Checkpoint, dtype: string): Record<string, unknown> {
  const { torch_dtype: _old, dtype: _new, ...rest } = raw;
  return {
    ...rest,
    architectures: [classOf[config.modelType]],
    tie_word_embeddings: config.tieWordEmbeddings,
    ['torch_dtype' in raw ? 'torch_dtype' : 'dtype']: dtype,
  };
}

async function writeJson(path: string, value: unknown): Promise<void> {
  const file = await open(path, 'w');
  try {
    await file.writeFile(`${JSON.stringify(value, null, 2)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Moves the staged files to their places: the weights, then what names them, then the rest; old weights go last. */
async function replace(dir: string, staged: string, plan: CheckpointPlan): Promise<void> {
  const weights = plan.files.map(({ name }) => name);
  const small = (await readdir(staged)).filter((name) => !weights.includes(name));
  const rank = (name: string) => (name === indexFile ? 0 : name === 'config.json' ? 1 : 2);
  for (const name of [...weights, ...small.sort((a, b) => rank(a) - rank(b))]) {
    // a folder takes the place of an empty one only
    if ((await stat(join(staged, name))).isDirectory()) await rm(join(dir, name), { recursive: true, force: true });
    await rename(join(staged, name), join(dir, name));
  }
  for (const name of await readdir(dir)) {
    const current = weights.includes(name) || (name === indexFile && plan.index !== null);
    if (isWeightFile(name) && !current) await rm(join(dir, name), { force: true });
  }
}

function explain(error: unknown, dir: string): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof EepoError || code === undefined) return error;
  const full = ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(code) ? '; free some disk space and save again' : '';
  return new InvalidFileError(`${dir}: the model could not be saved (${message})${full}. What was there is unchanged`, {
    cause: error,
  });
}
