/** Prompts with responses worth imitating, tokenized, as an endless stream. */
import { InvalidFileError } from '../errors.js';
import { readJsonLines } from '../tasks/data/read-text.js';
import { columnValue, type PlacedRow, shown } from '../tasks/data/rows.js';
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
export async function readDemonstrations(
  path: string,
  promptColumn: string,
  responseColumn: string,
): Promise<Demonstration[]> {
  const rows: Demonstration[] = [];
  for await (const placed of readJsonLines({ path, name: path })) {
    rows.push({ prompt: textOf(placed, promptColumn), response: textOf(placed, responseColumn) });
  }
  if (rows.length === 0) throw new InvalidFileError(`${path}: no demonstrations; expected one JSON object a line`);
  return rows;
}

function textOf({ row, where }: PlacedRow, column: string): string {
  const value = columnValue(row, column);
  if (typeof value === 'string' && value !== '') return value;
  throw new InvalidFileError(
    `${where}: column ${JSON.stringify(column)} is ${value === undefined ? 'missing' : shown(value)}; ` +
      `expected a non-empty text (columns here: ${Object.keys(row).join(', ') || 'none'})`,
  );
}
