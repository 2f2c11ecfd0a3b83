/** Responses of a run, for reading: a bounded part of completions.jsonl. */
import { stat } from 'node:fs/promises';
import { InvalidFileError } from '../errors.js';
import { eachLine } from './lines.js';

/** A line of completions.jsonl: one response. Texts are cut at {@link MAX_TEXT} characters. */
export interface Completion {
  iteration: number;
  /** Id of the problem. */
  problem: string;
  /** A chat is written out, one message a paragraph. */
  prompt: string;
  response: string;
  stage: 1 | 2;
  /** null: left out. */
  reward: number | null;
  finishReason: 'stop' | 'length';
}

/** Characters of a prompt or a response that are kept. */
export const MAX_TEXT = 4000;

/**
 * The responses in the last `bytes` of completions.jsonl, in their order; the first iteration among them may lack some.
 * Empty where the run writes none.
 *
 * @throws InvalidFileError naming the file, for a line that is not what a run writes
 */
export async function readCompletions(path: string, bytes: number): Promise<Completion[]> {
  const size = (await stat(path).catch(() => null))?.size ?? 0;
  if (bytes <= 0 || size === 0) return [];
  const completions: Completion[] = [];
  await eachLine(path, (row) => completions.push(completionOf(row, path)), { from: Math.max(0, size - bytes) });
  return completions;
}

function completionOf(row: Record<string, unknown>, path: string): Completion {
  const { iteration, problem, prompt, response, stage, reward, finishReason } = row;
  if (typeof iteration !== 'number' || typeof response !== 'string' || (stage !== 1 && stage !== 2)) {
    throw new InvalidFileError(
      `${path}: a line without "iteration", "response" and "stage" as \`eepo train\` writes them; remove it`,
    );
  }
  return {
    iteration,
    problem: cut(String(problem)),
    prompt: cut(promptText(prompt)),
    response: cut(response),
    stage,
    reward: typeof reward === 'number' && Number.isFinite(reward) ? reward : null,
    finishReason: finishReason === 'length' ? 'length' : 'stop',
  };
}

function promptText(prompt: unknown): string {
  if (typeof prompt === 'string') return prompt;
  if (!Array.isArray(prompt)) return '';
  return prompt
    .map((message: { role?: unknown; content?: unknown } | null) => `${message?.role}: ${message?.content}`)
    .join('\n\n');
}

function cut(text: string): string {
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text;
}
