/** A model folder in Hugging Face layout: where its weights are, and what belongs to it besides. */
import { stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { readJson } from './config-json.js';
import { InvalidFileError } from './errors.js';

/** Files of a model folder that are copied, unchanged, into a saved one. */
export const companionFiles = [
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'tokenizer.model',
  'chat_template.jinja',
];

/** @throws InvalidFileError when `dir` is no folder. */
export async function checkFolder(dir: string): Promise<void> {
  const info = await stat(dir).catch(() => null);
  if (!info) {
    throw new InvalidFileError(
      `${dir} does not exist; pass the path of a Hugging Face model folder (config.json, weights)`,
    );
  }
  if (!info.isDirectory()) throw new InvalidFileError(`${dir} is a file, not a model folder`);
}

/** The weights of a folder: model.safetensors, or the shards its index names. */
export async function weightFiles(dir: string): Promise<string[]> {
  const indexPath = join(dir, 'model.safetensors.index.json');
  const single = join(dir, 'model.safetensors');
  const index = await readJson(indexPath, null);
  if (!index || (await stat(single).catch(() => null))) {
    await stat(single).catch((cause) => {
      throw new InvalidFileError(
        `${dir} has neither model.safetensors nor model.safetensors.index.json; convert other formats to safetensors first`,
        { cause },
      );
    });
    return [single];
  }
  const map = index.weight_map;
  if (typeof map !== 'object' || map === null) throw new InvalidFileError(`${indexPath}: weight_map is missing`);
  const files = [...new Set(Object.values(map as Record<string, unknown>))].map((file) => {
    if (typeof file !== 'string' || basename(file) !== file || file === '..') {
      throw new InvalidFileError(`${indexPath}: ${JSON.stringify(file)} is not the name of a file in the folder`);
    }
    return join(dir, file);
  });
  for (const file of files) {
    await stat(file).catch((cause) => {
      throw new InvalidFileError(`${file} is missing, but ${indexPath} names it; download the model again`, { cause });
    });
  }
  return files.sort();
}
