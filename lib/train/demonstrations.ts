/** Prompts with responses worth imitating, tokenized, as an endless stream. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { InvalidFileError } from '../errors.js';
import type { Demonstration } from '../tasks/types.js';
import { PromptStream } from './prompt-stream.js';

/** A demonstration as ids. */
export interface TokenizedDemonstration {
  prompt: number[];
  response: number[];
}

/** What tokenizing a demonstration needs. */
export interface DemonstrationTokenizer {
  encodePrompt(prompt: string): number[] | Promise<number[]>;
  encode(text: string): number[] | Promise<number[]>;
  readonly eosTokenIds: readonly number[];
}

/** Ids of a demonstration; with `appendEos` the response ends with an end-of-sequence token. */
export async function tokenizeDemonstration(
  { prompt, response }: Demonstration,
  tokenizer: DemonstrationTokenizer,
  appendEos: boolean,
): Promise<TokenizedDemonstration> {
  const ids = await tokenizer.encode(response);
  const [eos] = tokenizer.eosTokenIds;
  const ends = ids.length > 0 && tokenizer.eosTokenIds.includes(ids[ids.length - 1] as number);
  return {
    prompt: await tokenizer.encodePrompt(prompt),
    response: appendEos && eos !== undefined && !ends ? [...ids, eos] : ids,
  };
}

/** An endless stream over a finite list, epoch after epoch, each in an order that only (seed, epoch) decides. */
export function* cycle<T>(items: readonly T[], seed: number): Generator<T, never> {
  const stream = new PromptStream(items.length, seed);
  for (;;) {
    for (const { index } of stream.next(1)) yield items[index] as T;
  }
}

/**
 * Reads demonstrations from JSONL (`.gz` is unpacked).
 *
 * @throws InvalidFileError that names the line
 */
export function readDemonstrations(path: string, promptColumn: string, responseColumn: string): Demonstration[] {
  let content: Buffer;
  try {
    content = readFileSync(path);
    if (path.endsWith('.gz')) content = gunzipSync(content);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new InvalidFileError(`${path}: ${missing ? 'no such file' : (error as Error).message}`, { cause: error });
  }
  const rows: Demonstration[] = [];
  content
    .toString('utf8')
    .split('\n')
    .forEach((line, index) => {
      if (line.trim() !== '') rows.push(readRow(line, `${path}:${index + 1}`, promptColumn, responseColumn));
    });
  if (rows.length === 0) throw new InvalidFileError(`${path}: no demonstrations; expected one JSON object a line`);
  return rows;
}

function readRow(line: string, place: string, promptColumn: string, responseColumn: string): Demonstration {
  let row: Record<string, unknown>;
  try {
    row = JSON.parse(line) as Record<string, unknown>;
  } catch (error) {
    throw new InvalidFileError(`${place}: not valid JSON: ${(error as Error).message}`, { cause: error });
  }
  const read = (column: string): string => {
    const value = row?.[column];
    if (typeof value === 'string' && value !== '') return value;
    const keys = row !== null && typeof row === 'object' ? Object.keys(row).join(', ') : 'none';
    throw new InvalidFileError(
      `${place}: column ${JSON.stringify(column)} is ${value === undefined ? 'missing' : JSON.stringify(value)}; ` +
        `expected a non-empty text (columns here: ${keys})`,
    );
  };
  return { prompt: read(promptColumn), response: read(responseColumn) };
}
