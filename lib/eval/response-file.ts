/** responses.jsonl: every response of a set, one a line; what an evaluation that was stopped goes on from. */
import { appendFileSync, closeSync, existsSync, openSync, readSync, statSync, truncateSync } from 'node:fs';
import { dirname } from 'node:path';
import { InvalidFileError } from '../errors.js';
import { makeFolders } from '../make-folder.js';
import type { ResponseStore } from './measure.js';
import type { ResponseLine, ResponseRecord } from './types.js';

const CHUNK = 1 << 20;
const NEWLINE = 0x0a;
/** A response has a few hundred thousand characters at most. */
const MAX_LINE_BYTES = 64 * 2 ** 20;
const VERDICTS: readonly unknown[] = ['correct', 'wrong', 'no-answer', 'undecided', 'missing'];

/**
 * Opens a file of responses, which need not exist. A last line that a killed process left unfinished is cut off; of a
 * response that is there twice the first counts. Texts stay on disk.
 *
 * @throws InvalidFileError naming the line that is no response
 */
export function openResponses(path: string): ResponseStore {
  const records: ResponseRecord[] = [];
  if (existsSync(path)) {
    const seen = new Set<string>();
    const { complete, size } = readLines(path, (line, number) => {
      const record = recordOf(line, `${path}:${number}`);
      const key = `${record.phase} ${record.sample} ${record.problem}`;
      if (!seen.has(key)) records.push(record);
      seen.add(key);
    });
    if (complete < size) truncateSync(path, complete);
  }
  return {
    records,
    append: (lines) => {
      if (lines.length === 0) return;
      makeFolders(dirname(path));
      appendFileSync(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
      for (const line of lines) records.push(withoutText(line));
    },
  };
}

function withoutText({ text: _text, ...record }: ResponseLine): ResponseRecord {
  return record;
}

/**
 * Calls `use` with every line that ends in a newline: a file of all samples may be larger than a string can be.
 *
 * @returns where the last complete line ends, and the size of the file
 */
function readLines(path: string, use: (line: string, number: number) => void): { complete: number; size: number } {
  if (!statSync(path).isFile()) throw new InvalidFileError(`${path}: not a file; give another folder`);
  const file = openSync(path, 'r');
  const chunk = Buffer.alloc(CHUNK);
  let rest: Buffer[] = [];
  let [complete, size, number] = [0, 0, 0];
  try {
    for (let read = readSync(file, chunk); read > 0; read = readSync(file, chunk)) {
      let begin = 0;
      for (let end = chunk.indexOf(NEWLINE); end >= 0 && end < read; end = chunk.indexOf(NEWLINE, begin)) {
        use(Buffer.concat([...rest, chunk.subarray(begin, end)]).toString('utf8'), ++number);
        rest = [];
        begin = end + 1;
        complete = size + begin;
      }
      rest.push(Buffer.from(chunk.subarray(begin, read)));
      size += read;
      if (size - complete > MAX_LINE_BYTES) {
        throw new InvalidFileError(
          `${path}:${number + 1}: the line is longer than ${MAX_LINE_BYTES / 2 ** 20} MiB; not responses of an evaluation`,
        );
      }
    }
  } finally {
    closeSync(file);
  }
  return { complete, size };
}

function recordOf(line: string, where: string): ResponseRecord {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new InvalidFileError(`${where}: not valid JSON; remove this line, and its response is generated again`, {
      cause,
    });
  }
  const r = value as Partial<ResponseLine> | null;
  const valid =
    typeof r === 'object' &&
    r !== null &&
    typeof r.problem === 'string' &&
    (r.phase === 'greedy' || r.phase === 'sample') &&
    Number.isInteger(r.sample) &&
    VERDICTS.includes(r.verdict) &&
    (r.answer === null || typeof r.answer === 'string') &&
    Number.isInteger(r.tokens) &&
    (r.finishReason === 'stop' || r.finishReason === 'length') &&
    typeof r.logprob === 'number' &&
    typeof r.entropy === 'number' &&
    (r.features === undefined || isFeatures(r.features));
  if (!valid) {
    throw new InvalidFileError(`${where}: not a response of an evaluation; remove this line, or give another folder`);
  }
  return withoutText(r as ResponseLine);
}

function isFeatures(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  return Object.values(value).every((number) => typeof number === 'number');
}
