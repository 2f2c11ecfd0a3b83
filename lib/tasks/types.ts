/** What is asked and how it is rewarded. */

export interface ChatMessage {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

/** One question. */
export interface Problem {
  /** Unique within the task. */
  id: string;
  /** Text, or a chat that the tokenizer's template renders. */
  prompt: string | ChatMessage[];
  /** The gold answer, in whatever form the task's reward understands. */
  answer: unknown;
  /** Anything else worth keeping beside the completions. */
  meta?: Record<string, unknown>;
}

/** One response to be judged. */
export interface RewardInput {
  problem: Problem;
  /** The decoded response without special tokens. */
  response: string;
  /** The response's ids, the stop token included. */
  tokens: readonly number[];
  /** 'length': cut off at maxNewTokens. */
  finishReason: 'stop' | 'length';
}

/**
 * Judges a batch; entry i belongs to input i. `null` leaves the response out (no advantage, not in the group's mean).
 * The paper's reward is 1 for a right final answer and 0 otherwise (Eq. 1).
 */
export type RewardFunction = (
  inputs: readonly RewardInput[],
) => readonly (number | null)[] | Promise<readonly (number | null)[]>;

/** A prompt with a response worth imitating, the final stop token's text included. */
export interface Demonstration {
  prompt: string;
  response: string;
}

/** Problems by split and their reward. `splits.train` is what the trainer samples from; the others are evaluated. */
export interface Task {
  readonly name: string;
  readonly splits: Readonly<Record<string, readonly Problem[]>>;
  readonly reward: RewardFunction;
  /**
   * Canonical form of a CORRECT solution, so that distinct correct solutions can be counted; null when the response has
   * none. Only called with responses whose reward is positive.
   */
  distinctKey?(problem: Problem, response: string): string | null;
  /** A coarser form: equal for solutions that are the same formula up to algebra. */
  algebraicKey?(problem: Problem, response: string): string | null;
  /** Endless supervised demonstrations for `sft`, disjoint from every split's problems. Deterministic by seed. */
  demonstrations?(seed: number): Generator<Demonstration, never>;
  /** One line per thing worth telling about loading (filtered rows, ...). */
  readonly notes?: readonly string[];
}
