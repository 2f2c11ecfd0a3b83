/** Prompts to ids, for whatever tokenizer a caller brings. */
import type { ChatMessage } from '../tasks/types.js';

/** What encodes prompts. `Tokenizer` does; one of your own may answer at once instead of with a promise. */
export interface PromptEncoder {
  /** A prompt's ids, special tokens and chat template included. */
  encodePrompt(prompt: string | readonly ChatMessage[]): number[] | Promise<number[]>;
  /** The same of many, where that is faster. */
  encodePrompts?(prompts: readonly (string | readonly ChatMessage[])[]): Promise<number[][]>;
}

/** Ids of many prompts. */
export async function encodeAll(
  tokenizer: PromptEncoder,
  prompts: readonly (string | readonly ChatMessage[])[],
): Promise<number[][]> {
  if (tokenizer.encodePrompts !== undefined) return tokenizer.encodePrompts(prompts);
  return Promise.all(prompts.map((prompt) => tokenizer.encodePrompt(prompt)));
}
