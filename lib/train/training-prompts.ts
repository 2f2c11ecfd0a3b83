/** The prompts that a run trains on, as tokens. */
import { createHash } from 'node:crypto';
import { ConfigError } from '../errors.js';
import type { Problem, Task } from '../tasks/types.js';
import { encodeAll, type PromptEncoder } from '../tokenizer/prompts.js';

export interface TrainPrompt {
  problem: Problem;
  tokens: number[];
}

/**
 * Encodes the problems of the split "train"; those of more than `maxPromptTokens` are left out.
 *
 * @throws ConfigError where there is none, one has no tokens, or all are too long
 */
export async function trainingPrompts(
  task: Pick<Task, 'name' | 'splits'>,
  tokenizer: PromptEncoder,
  maxPromptTokens: number,
): Promise<{ prompts: TrainPrompt[]; tooLong: number }> {
  const problems = task.splits.train ?? [];
  if (problems.length === 0) {
    throw new ConfigError(`task "${task.name}" has no training prompts; its split "train" is empty`);
  }
  const ids = await encodeAll(
    tokenizer,
    problems.map(({ prompt }) => prompt),
  );
  const all = problems.map((problem, i) => ({ problem, tokens: ids[i] as number[] }));
  const empty = all.find(({ tokens }) => tokens.length === 0);
  if (empty) throw new ConfigError(`task "${task.name}": problem ${empty.problem.id} has a prompt without tokens`);
  const prompts = all.filter(({ tokens }) => tokens.length <= maxPromptTokens);
  if (prompts.length === 0) {
    throw new ConfigError(
      `task "${task.name}": all ${all.length} prompts are longer than task.maxPromptTokens = ${maxPromptTokens}`,
    );
  }
  return { prompts, tooLong: all.length - prompts.length };
}

/** SHA-256 of ids, tokens and answers in their order: the same for the same training data. */
export function promptsFingerprint(prompts: readonly TrainPrompt[]): string {
  const hash = createHash('sha256').update(`${prompts.length}\n`);
  for (const { problem, tokens } of prompts) {
    hash.update(`${JSON.stringify([problem.id, problem.answer ?? null])}\n`);
    const ids = Int32Array.from(tokens);
    hash.update(new Uint8Array(ids.buffer));
  }
  return hash.digest('hex');
}
