/** A task from JSONL files of prompts and answers. */
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { InvalidArgumentError, InvalidFileError } from '../errors.js';
import { equivalent, extractAnswer, lastBoxed } from '../verify/index.js';
import { Random } from './random.js';
import type { ChatMessage, Problem, RewardFunction, Task } from './types.js';

/** 'math': the extracted final answer is equivalent. 'exact': the trimmed response is the answer. Or one's own. */
export type JsonlReward = 'math' | 'exact' | RewardFunction;

export interface JsonlOptions {
  /** Path by split, e.g. `{ train: 'train.jsonl.gz', test: 'test.jsonl' }`; `.gz` is unpacked. */
  files: Readonly<Record<string, string>>;
  /** Default 'jsonl'. */
  name?: string;
  /** Column of the prompt: text, or a list of chat messages. Default: the first of `prompt`, `problem`, `question`. */
  promptColumn?: string;
  /** Column of the gold answer. Default: the first of `answer`, `answers`. */
  answerColumn?: string;
  /** What the policy is given; `{prompt}` stands for the row's text. Default '{prompt}'. */
  template?: string;
  /** Longer prompts are left out, counted in `notes`. Needs `tokenizer`. */
  maxPromptTokens?: number;
  tokenizer?: { encodePrompt(prompt: string | readonly ChatMessage[]): number[] };
  /** Default 'math'. */
  reward?: JsonlReward;
  /** Order of every split: a seed, or null for the order of the file. Default null. */
  shuffleSeed?: number | null;
  /** Keep at most so many problems of each split, after shuffling and filtering. Default all. */
  maxProblems?: number;
}

const PROMPT_COLUMNS = ['prompt', 'problem', 'question'];
const ANSWER_COLUMNS = ['answer', 'answers'];
const MAX_BYTES = 2 ** 30;
const unzip = promisify(gunzip);

/**
 * Loads every file. A row's answer is a string, a number, or a list of accepted ones; of a worked solution that ends in
 * `#### x` or `\boxed{x}`, x is the answer. Rows whose answer is empty text are left out, counted in `notes`.
 *
 * @throws InvalidFileError naming file and line; InvalidArgumentError naming the option
 */
export async function jsonlTask(options: JsonlOptions): Promise<Task> {
  checkOptions(options);
  const { name = 'jsonl', reward = 'math' } = options;
  const splits: Record<string, readonly Problem[]> = {};
  const notes: string[] = [];
  for (const [split, path] of Object.entries(options.files)) {
    const rows = parseRows(await readText(path), path);
    const all = rows.map(({ row, line }) => problemOf(row, split, `${path}:${line}`, line, options));
    const problems = all.filter(({ answer }) => !isBlank(answer));
    if (problems.length < all.length) {
      notes.push(
        `${path}: ${all.length - problems.length} of ${all.length} rows have an empty answer and are left out`,
      );
    }
    if (options.shuffleSeed !== undefined && options.shuffleSeed !== null) {
      new Random(options.shuffleSeed).shuffle(problems);
    }
    const kept = withoutLong(problems, options);
    const dropped = problems.length - kept.length;
    if (dropped > 0) {
      notes.push(`${path}: ${dropped} of ${problems.length} prompts are longer than ${options.maxPromptTokens} tokens`);
    }
    if (kept.length === 0) {
      const why =
        problems.length === 0
          ? 'it has no rows with an answer'
          : `every prompt is longer than ${options.maxPromptTokens} tokens`;
      throw new InvalidFileError(`${path}: no problems left for split '${split}': ${why}`);
    }
    splits[split] = kept.slice(0, options.maxProblems);
  }
  return { name, splits, notes, reward: rewardOf(reward) };
}

function checkOptions({ files, template, maxPromptTokens, tokenizer, maxProblems, reward }: JsonlOptions): void {
  if (files === undefined || Object.keys(files).length === 0) {
    throw new InvalidArgumentError("files must name at least one JSONL file by split, e.g. { train: 'train.jsonl' }");
  }
  if (template !== undefined && !template.includes('{prompt}')) {
    throw new InvalidArgumentError(`template must contain {prompt}, got ${JSON.stringify(template)}`);
  }
  if (maxPromptTokens !== undefined) {
    if (!(Number.isInteger(maxPromptTokens) && maxPromptTokens >= 1)) {
      throw new InvalidArgumentError(`maxPromptTokens must be a positive integer, got ${maxPromptTokens}`);
    }
    if (tokenizer === undefined) throw new InvalidArgumentError('maxPromptTokens needs a tokenizer to count with');
  }
  if (maxProblems !== undefined && !(Number.isInteger(maxProblems) && maxProblems >= 1)) {
    throw new InvalidArgumentError(`maxProblems must be a positive integer, got ${maxProblems}`);
  }
  if (reward !== undefined && reward !== 'math' && reward !== 'exact' && typeof reward !== 'function') {
    throw new InvalidArgumentError(`reward must be 'math', 'exact' or a function, got ${JSON.stringify(reward)}`);
  }
}

async function readText(path: string): Promise<string> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
    if (path.endsWith('.gz')) bytes = await unzip(bytes, { maxOutputLength: MAX_BYTES });
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const what = code === 'ENOENT' ? 'no such file' : code === 'ENOTDIR' ? 'not a file' : message;
    throw new InvalidFileError(`${path}: cannot be read: ${what}`, { cause });
  }
  if (bytes.length > MAX_BYTES) throw new InvalidFileError(`${path}: larger than 1 GiB; split it`);
  return bytes.toString('utf8').replace(/^\uFEFF/, '');
}

type Row = Record<string, unknown>;

function parseRows(text: string, path: string): { row: Row; line: number }[] {
  const rows: { row: Row; line: number }[] = [];
  // Only \n ends a line: JSON strings may hold U+2028 unescaped.
  text.split('\n').forEach((content, index) => {
    if (content.trim() === '') return;
    const line = index + 1;
    let row: unknown;
    try {
      row = JSON.parse(content);
    } catch (cause) {
      throw new InvalidFileError(`${path}:${line}: not valid JSON: ${(cause as Error).message}`, { cause });
    }
    if (typeof row !== 'object' || row === null || Array.isArray(row)) {
      throw new InvalidFileError(`${path}:${line}: every line must be a JSON object with a prompt and an answer`);
    }
    rows.push({ row: row as Row, line });
  });
  return rows;
}

function problemOf(row: Row, split: string, where: string, line: number, options: JsonlOptions): Problem {
  const promptColumn = columnOf(row, options.promptColumn, PROMPT_COLUMNS, 'promptColumn', where);
  const answerColumn = columnOf(row, options.answerColumn, ANSWER_COLUMNS, 'answerColumn', where);
  const answer = row[answerColumn];
  if (!isAnswer(answer)) {
    throw new InvalidFileError(
      `${where}: "${answerColumn}" must be a string, a number or a list of these, got ${JSON.stringify(answer)}`,
    );
  }
  const { [promptColumn]: prompt, [answerColumn]: _answer, ...meta } = row;
  return {
    id: `${split}:${line}`,
    prompt: promptOf(prompt, options.template ?? '{prompt}', `${where}: "${promptColumn}"`),
    answer,
    meta,
  };
}

function columnOf(row: Row, wanted: string | undefined, usual: string[], option: string, where: string): string {
  const names = wanted === undefined ? usual : [wanted];
  const name = names.find((candidate) => Object.hasOwn(row, candidate));
  if (name !== undefined) return name;
  throw new InvalidFileError(
    `${where}: no column ${names.map((n) => `"${n}"`).join(' or ')}; the row has ${Object.keys(row).join(', ') || 'none'}. ` +
      `Name the column with ${option}`,
  );
}

function promptOf(prompt: unknown, template: string, where: string): string | ChatMessage[] {
  if (typeof prompt === 'string' && prompt.trim() !== '') return template.replaceAll('{prompt}', () => prompt);
  const isChat =
    Array.isArray(prompt) &&
    prompt.length > 0 &&
    prompt.every((m) => ['system', 'user', 'assistant'].includes(m?.role) && typeof m?.content === 'string');
  if (isChat) return prompt as ChatMessage[];
  throw new InvalidFileError(`${where} must be a non-empty string or a list of { role, content } messages`);
}

type Answer = string | number | (string | number)[];

function isAnswer(answer: unknown): answer is Answer {
  if (Array.isArray(answer)) return answer.length > 0 && answer.every((a) => !Array.isArray(a) && isAnswer(a));
  return typeof answer === 'number' ? Number.isFinite(answer) : typeof answer === 'string';
}

/** An empty text cannot be matched: published sets have a few such rows. */
function isBlank(answer: unknown): boolean {
  return Array.isArray(answer) ? answer.every(isBlank) : typeof answer === 'string' && answer.trim() === '';
}

function withoutLong(problems: Problem[], { maxPromptTokens, tokenizer }: JsonlOptions): Problem[] {
  if (maxPromptTokens === undefined || tokenizer === undefined) return problems;
  return problems.filter(({ prompt }) => tokenizer.encodePrompt(prompt).length <= maxPromptTokens);
}

function rewardOf(reward: JsonlReward): RewardFunction {
  if (typeof reward === 'function') return reward;
  const isRight = reward === 'math' ? mathMatches : (response: string, gold: string) => response.trim() === gold.trim();
  return (inputs) =>
    inputs.map(({ problem, response }) =>
      acceptedAnswers(problem.answer as Answer).some((gold) => isRight(response, gold)) ? 1 : 0,
    );
}

function acceptedAnswers(answer: Answer): string[] {
  return (Array.isArray(answer) ? answer : [answer]).map(String);
}

function mathMatches(response: string, gold: string): boolean {
  const prediction = extractAnswer(response);
  return prediction !== null && equivalent(prediction, goldAnswer(gold));
}

function goldAnswer(gold: string): string {
  const hashes = gold.lastIndexOf('####');
  return hashes >= 0 ? gold.slice(hashes + 4).trim() : (lastBoxed(gold) ?? gold);
}
