/** What decides every response of an evaluation, so that a stopped one is only continued with the same. */
import { createHash } from 'node:crypto';
import { closeSync, existsSync, fstatSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigError } from '../errors.js';
import { readChecked, settingsSchema } from './files.js';
import type { EvaluationSet } from './types.js';

/** settings.json. What changes no response (batch size, number of samples or problems, k) is not among them. */
export interface EvaluationSettings {
  /** Where the model came from; only told, not compared: a model may be moved. */
  model: string | null;
  /** Identity of the weights and of the tokenizer with its chat template. */
  weights: string;
  device: string;
  dtype: string;
  temperature: number;
  topP: number;
  seed: number;
  maxNewTokens: number;
  stopTokens: readonly number[] | null;
  /** SHA-256 of problems, rendered prompts and gold answers, by set. */
  sets: Record<string, string>;
}

const COMPARED = [
  'weights',
  'device',
  'dtype',
  'temperature',
  'topP',
  'seed',
  'maxNewTokens',
  'stopTokens',
] as const satisfies readonly (keyof EvaluationSettings)[];

/** SHA-256 of everything about a set that a response or its judgement depends on. */
export function setFingerprint(set: EvaluationSet): string {
  const hash = createHash('sha256');
  for (const { id, prompt, answer, meta } of set.problems) {
    hash.update(`${JSON.stringify([id, prompt, answer, meta?.tolerance ?? null])}\n`);
  }
  return hash.digest('hex');
}

/**
 * Checks that what is there was made with the same settings.
 *
 * @returns the settings to write: the same, with the sets of both
 * @throws ConfigError naming every setting that differs, with both values
 */
export function mergeSettings(old: EvaluationSettings, now: EvaluationSettings, folder: string): EvaluationSettings {
  const shown = (value: unknown): string => JSON.stringify(value) ?? 'nothing';
  const differences = COMPARED.filter((key) => shown(old[key]) !== shown(now[key])).map(
    (key) => `  ${key}: ${shown(old[key])} there, ${shown(now[key])} now`,
  );
  for (const [name, fingerprint] of Object.entries(now.sets)) {
    const there = old.sets?.[name];
    if (there === undefined || there === fingerprint) continue;
    differences.push(`  ${name}: other problems, prompts or gold answers than there`);
  }
  if (differences.length > 0) {
    throw new ConfigError(
      `${folder} holds responses of an evaluation with other settings:\n${differences.join('\n')}\n` +
        'Give another folder with --out, or remove this one',
    );
  }
  return { ...now, sets: { ...old.sets, ...now.sets } };
}

/** What must be the same for two models' numbers to be comparable; stop tokens are each model's own. */
const COMPARABLE = [
  'dtype',
  'temperature',
  'topP',
  'maxNewTokens',
] as const satisfies readonly (typeof COMPARED)[number][];

/**
 * Where the rows of a table were not measured alike: one line for each setting and each set in which the models differ.
 */
export function incomparable(models: readonly { name: string; settings: EvaluationSettings }[]): string[] {
  const valuesOf = (value: (settings: EvaluationSettings) => string | undefined): Map<string, string[]> => {
    const groups = new Map<string, string[]>();
    for (const { name, settings } of models) {
      const key = value(settings);
      if (key !== undefined) groups.set(key, [...(groups.get(key) ?? []), name]);
    }
    return groups;
  };
  const notes: string[] = [];
  for (const key of COMPARABLE) {
    const values = valuesOf((settings) => JSON.stringify(settings[key]));
    const each = [...values].map(([value, names]) => `${value} (${names.join(', ')})`);
    if (values.size > 1) notes.push(`${key} differs: ${each.join(', ')}`);
  }
  for (const set of new Set(models.flatMap(({ settings }) => Object.keys(settings.sets)))) {
    const values = valuesOf((settings) => settings.sets[set]);
    if (values.size < 2) continue;
    const alike = [...values.values()].map((names) => names.join(', '));
    notes.push(`${set}: not asked with the same problems, prompts and gold answers: ${alike.join(' | ')}`);
  }
  return notes;
}

/** @throws InvalidFileError when the file is not what an evaluation writes */
export function readSettings(path: string): EvaluationSettings {
  return readChecked(path, settingsSchema, 'the settings of an evaluation');
}

const BLOCKS = 64;
const BLOCK_BYTES = 1 << 16;

/**
 * Identity of a model folder in a fraction of a second: SHA-256 over config.json, what makes tokens of a prompt, and of
 * every safetensors file its name, its size and 64 blocks of 64 KiB that are evenly spread over it.
 */
export function weightsFingerprint(folder: string): string {
  const hash = createHash('sha256');
  for (const name of ['config.json', 'tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja']) {
    if (existsSync(join(folder, name))) hash.update(`${name}\n`).update(readFileSync(join(folder, name)));
  }
  const block = Buffer.alloc(BLOCK_BYTES);
  for (const name of readdirSync(folder).sort()) {
    if (!name.endsWith('.safetensors')) continue;
    const file = openSync(join(folder, name), 'r');
    try {
      const { size } = fstatSync(file);
      hash.update(`${name} ${size}\n`);
      for (let i = 0; i < BLOCKS; i += 1) {
        const at = Math.floor((Math.max(0, size - BLOCK_BYTES) * i) / (BLOCKS - 1));
        hash.update(block.subarray(0, readSync(file, block, 0, BLOCK_BYTES, at)));
      }
    } finally {
      closeSync(file);
    }
  }
  return hash.digest('hex');
}
