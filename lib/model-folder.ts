/** A model folder in Hugging Face layout: where its weights are, and what belongs to it besides. */
import { open, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { readJson } from './config-json.js';
import { InvalidFileError, UnsupportedError } from './errors.js';
import { describe } from './options.js';
import { regularFile, statIfThere } from './read-file.js';
import { tokenizerFiles } from './tokenizer/folder.js';

/** Files of a model folder that are copied, unchanged, into a saved one. */
export const companionFiles = ['generation_config.json', ...tokenizerFiles, 'chat_template.json'];

export const singleFile = 'model.safetensors';
export const indexFile = 'model.safetensors.index.json';

/** Longest header that a safetensors file may have. */
const maxHeaderBytes = 100e6;

/**
 * The weights of a folder: model.safetensors, or else the shards that model.safetensors.index.json names (where both
 * are, the single file counts, as in transformers).
 *
 * @throws InvalidFileError for an index that does not fit its files; UnsupportedError for weights in other formats.
 */
export async function weightFiles(dir: string): Promise<string[]> {
  const single = join(dir, singleFile);
  if (statIfThere(single)) {
    await regularFile(single);
    return [single];
  }
  const indexPath = join(dir, indexFile);
  if (!statIfThere(indexPath)) throw noWeights(dir, await readdir(dir));
  const index = await readWeightIndex(indexPath);
  const files = [...new Set(index.values())].sort();
  for (const file of files) {
    await regularFile(join(dir, file)).catch((cause) => {
      if (cause instanceof InvalidFileError) throw cause;
      throw new InvalidFileError(`${join(dir, file)} is missing, but ${indexPath} names it; download the model again`, {
        cause,
      });
    });
  }
  await checkIndex(dir, index, files);
  return files.map((file) => join(dir, file));
}

/**
 * Reads an index of shards: the file of every tensor.
 *
 * @throws InvalidFileError for anything but names of files beside the index.
 */
export async function readWeightIndex(path: string): Promise<Map<string, string>> {
  const { weight_map: map } = (await readJson(path, path)) as Record<string, unknown>;
  if (typeof map !== 'object' || map === null || Array.isArray(map) || Object.keys(map).length === 0) {
    throw new InvalidFileError(`${path}: weight_map is missing or empty`);
  }
  for (const [tensor, file] of Object.entries(map)) {
    if (typeof file !== 'string' || basename(file) !== file || ['', '.', '..'].includes(file) || /[\\\0]/.test(file)) {
      throw new InvalidFileError(
        `${path}: ${tensor} is said to be in ${describe(file)}, which is not the name of a file in the folder`,
      );
    }
    if (!file.endsWith('.safetensors')) {
      throw new InvalidFileError(`${path}: ${tensor} is said to be in ${file}, which is not a .safetensors file`);
    }
  }
  return new Map(Object.entries(map as Record<string, string>));
}

/** Index and shards must agree: a tensor in two files, or in another than the index says, may be an older one. */
async function checkIndex(dir: string, index: ReadonlyMap<string, string>, files: readonly string[]): Promise<void> {
  const found = new Map<string, string>();
  for (const file of files) {
    const names = await tensorNames(join(dir, file));
    // what is wrong with the file itself is told by who reads it
    if (names === null) return;
    for (const name of names) {
      const other = found.get(name);
      if (other !== undefined) throw new InvalidFileError(`${dir}: tensor ${name} is in both ${other} and ${file}`);
      found.set(name, file);
      const said = index.get(name);
      if (said !== undefined && said !== file) {
        throw new InvalidFileError(`${join(dir, indexFile)}: ${name} is said to be in ${said}, but it is in ${file}`);
      }
      if (said === undefined && !/\.rotary_emb\.inv_freq$|\.masked_bias$/.test(name)) {
        throw new InvalidFileError(`${join(dir, indexFile)} does not list tensor ${name}, which is in ${file}`);
      }
    }
  }
  for (const [name, file] of index) {
    if (!found.has(name)) {
      throw new InvalidFileError(`${join(dir, file)} lacks tensor ${name}, which ${indexFile} says it has`);
    }
  }
}

/** Names of the tensors in a safetensors file; null if it cannot be read as one. */
async function tensorNames(path: string): Promise<string[] | null> {
  const file = await open(path).catch(() => null);
  try {
    if (!(await file?.stat())?.isFile() || !file) return null;
    const length = Buffer.alloc(8);
    if ((await file.read(length, 0, 8, 0)).bytesRead < 8) return null;
    const bytes = Number(length.readBigUInt64LE());
    if (bytes > maxHeaderBytes || bytes > (await file.stat()).size) return null;
    const header = Buffer.alloc(bytes);
    if ((await file.read(header, 0, bytes, 8)).bytesRead < bytes) return null;
    return Object.keys(JSON.parse(header.toString('utf8')) as object).filter((name) => name !== '__metadata__');
  } catch {
    return null;
  } finally {
    await file?.close();
  }
}

/** The error for weights that are not there, or in a format that is not read: which, and how to convert them. */
export function noWeights(where: string, names: readonly string[]): InvalidFileError | UnsupportedError {
  const missing = `${where} has no weights in safetensors (neither ${singleFile} nor ${indexFile})`;
  if (names.includes('adapter_model.safetensors')) {
    return new UnsupportedError(`${missing}, only an adapter; merge it into its base model and save that`);
  }
  const other = names.find((name) => /\.(bin|pth|pt|ckpt|gguf|h5|msgpack)$/.test(name) && name !== 'training_args.bin');
  if (other === undefined) return new InvalidFileError(`${missing}; pass a folder or a repository that has them`);
  if (other.endsWith('.gguf')) {
    return new UnsupportedError(`${missing}, only ${other}; GGUF is for inference, use the model it was made from`);
  }
  return new UnsupportedError(
    `${missing}, only ${other}, which is not read (pickles can run code). Convert it once: python -c "from transformers ` +
      `import AutoModelForCausalLM as M, AutoTokenizer as T; s, d = '${where}', 'converted'; ` +
      `M.from_pretrained(s, dtype='auto').save_pretrained(d); T.from_pretrained(s).save_pretrained(d)"`,
  );
}
