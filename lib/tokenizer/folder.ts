/** The files of a tokenizer in a model folder. */
import { readdir, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, sep } from 'node:path';
import { InvalidFileError } from '../errors.js';
import { parseJsonObject, readBytes } from '../read-file.js';

export type Json = Record<string, unknown>;

/** What belongs to a tokenizer in a model folder; only `tokenizer.json` is required. */
export const tokenizerFiles = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'tokenizer.model',
  'chat_template.jinja',
];
/** Templates beside the default one, `<name>.jinja` each. */
const TEMPLATE_FOLDER = 'additional_chat_templates';
/** The largest known tokenizer.json has 35 MB, the largest template 30 kB. */
const MAX_JSON_BYTES = 512 * 1024 * 1024;
const MAX_TEMPLATE_BYTES = 1024 * 1024;

/** A chat template and where it was found. */
export interface TemplateSource {
  text: string;
  file: string;
}

/** Everything read, nothing interpreted. */
export interface TokenizerFolder {
  path: string;
  /** Content of tokenizer.json, as text and parsed. */
  text: string;
  definition: Json & { model: Json };
  /** tokenizer_config.json over special_tokens_map.json; {} where there is neither. */
  config: Json;
  /** generation_config.json; {} where it is missing. */
  generation: Json;
  /** config.json; {} where it is missing. */
  model: Json;
  /** By name; the usual one is `default`. */
  templates: ReadonlyMap<string, TemplateSource>;
  /** Existing files of the tokenizer, to be copied into a saved model; relative to `dir`. */
  files: readonly string[];
}

/** @throws InvalidFileError naming the file that is missing or broken */
export async function readTokenizerFolder(dir: string): Promise<TokenizerFolder> {
  const path = join(dir, 'tokenizer.json');
  const text = await readText(path, MAX_JSON_BYTES);
  if (text === null) {
    throw new InvalidFileError(
      `${path}: no such file. A model folder needs the Hugging Face tokenizer.json beside its config.json`,
    );
  }
  const definition = parseJsonObject(text, path);
  if (typeof definition.model !== 'object' || definition.model === null || Array.isArray(definition.model)) {
    throw new InvalidFileError(`${path}: "model" is missing; this is not a Hugging Face tokenizer.json`);
  }
  const optional = async (name: string): Promise<Json> => (await readObject(join(dir, name))) ?? {};
  const config = { ...(await optional('special_tokens_map.json')), ...(await optional('tokenizer_config.json')) };
  const additional = await templateFiles(dir);
  const files = [...(await existing(dir)), ...additional];
  await checkLinks(dir, files);
  return {
    path,
    text,
    definition: definition as TokenizerFolder['definition'],
    config,
    generation: await optional('generation_config.json'),
    model: await optional('config.json'),
    templates: await readTemplates(dir, config, additional),
    files,
  };
}

/**
 * Files win over tokenizer_config.json, as in transformers: `chat_template.jinja` is the default template,
 * `additional_chat_templates/<name>.jinja` are named ones. tokenizer_config.json has a text or a list of
 * `{ name, template }`.
 */
async function readTemplates(
  dir: string,
  config: Json,
  additional: readonly string[],
): Promise<Map<string, TemplateSource>> {
  const templates = new Map<string, TemplateSource>();
  for (const name of ['chat_template.jinja', ...additional]) {
    const file = join(dir, name);
    const text = await readText(file, MAX_TEMPLATE_BYTES);
    const key = name === 'chat_template.jinja' ? 'default' : name.slice(TEMPLATE_FOLDER.length + 1, -'.jinja'.length);
    if (text !== null) templates.set(key, { text, file });
  }
  if (templates.size > 0) return templates;
  const file = join(dir, 'tokenizer_config.json');
  const { chat_template: given } = config;
  if (given === undefined || given === null) return templates;
  if (typeof given === 'string') return templates.set('default', { text: given, file });
  const entries = Array.isArray(given) ? given : [];
  for (const entry of entries) {
    if (typeof entry?.name === 'string' && typeof entry?.template === 'string') {
      templates.set(entry.name, { text: entry.template, file });
    }
  }
  if (templates.size === 0 || templates.size !== entries.length) {
    throw new InvalidFileError(`${file}: "chat_template" must be a text or a list of { name, template } with texts`);
  }
  return templates;
}

/** A template file that the user names. */
export async function readTemplateFile(file: string): Promise<TemplateSource | null> {
  const text = await readText(file, MAX_TEMPLATE_BYTES);
  return text === null ? null : { text, file };
}

async function templateFiles(dir: string): Promise<string[]> {
  const names = await readdir(join(dir, TEMPLATE_FOLDER)).catch(() => []);
  return names
    .filter((name) => name.endsWith('.jinja'))
    .sort()
    .map((name) => join(TEMPLATE_FOLDER, name));
}

async function existing(dir: string): Promise<string[]> {
  const there = await Promise.all(
    tokenizerFiles.map((name) =>
      stat(join(dir, name)).then(
        (found) => found.isFile(),
        () => false,
      ),
    ),
  );
  return tokenizerFiles.filter((_, i) => there[i]);
}

async function readText(path: string, maxBytes: number): Promise<string | null> {
  const bytes = await readBytes(path, maxBytes);
  return bytes === null ? null : bytes.toString('utf8');
}

async function readObject(path: string): Promise<Json | null> {
  const text = await readText(path, MAX_JSON_BYTES);
  return text === null ? null : parseJsonObject(text, path);
}

/**
 * The tokenizer's files are copied into saved models, which are given away: none may be a link to what lies elsewhere on
 * this machine. Links within the folder are fine, and within the repository of a hub cache, whose files all are links.
 *
 * @throws InvalidFileError naming a link that leaves the folder
 */
async function checkLinks(dir: string, files: readonly string[]): Promise<void> {
  const folder = await realpath(dir);
  const snapshots = dirname(folder);
  const roots = [folder];
  if (basename(snapshots) === 'snapshots') {
    roots.push(dirname(snapshots));
    // blobs may lie on another disk
    const blobs = await realpath(join(dirname(snapshots), 'blobs')).catch(() => null);
    if (blobs !== null) roots.push(blobs);
  }
  for (const name of files) {
    const target = await realpath(join(dir, name));
    if (roots.some((root) => target.startsWith(root + sep))) continue;
    throw new InvalidFileError(
      `${join(dir, name)}: is a link to ${target}, outside of the model folder, and would be copied into every model saved ` +
        'from it; put the file itself there',
    );
  }
}
