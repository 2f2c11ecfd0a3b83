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

/** What a reward function is called with beside its inputs. */
export interface RewardContext {
  /** Fires when the run is stopped or the time is over: a request under way should end. */
  readonly signal: AbortSignal;
  /**
   * Counts something for the metrics: `report({ undecided: 2 })` adds to `reward/<name>/undecided` of this iteration.
   */
  report(counts: Readonly<Record<string, number>>): void;
}

/** A finite number, or null to leave the response out. */
export type Reward = number | null;

/**
 * Judges a batch; entry i belongs to input i. `null` leaves the response out (no advantage, not in the group's mean).
 * The paper's reward is 1 for a right final answer and 0 otherwise (Eq. 1).
 *
 * Entries may be promises: each then has the reward's time limit for itself. The context is always passed by the
 * trainer and the evaluation; it is optional so that a script can call a reward by itself.
 */
export type RewardFunction = (
  inputs: readonly RewardInput[],
  context?: RewardContext,
) => readonly Reward[] | Promise<readonly Reward[]>;

/** A {@link RewardFunction} whose entries may be promises: `(inputs) => inputs.map(async (input) => ...)`. */
export type PerSampleRewardFunction = (
  inputs: readonly RewardInput[],
  context?: RewardContext,
) => readonly (Reward | PromiseLike<Reward>)[] | PromiseLike<readonly (Reward | PromiseLike<Reward>)[]>;

/** What becomes of a response whose reward takes too long: left out, 0, or the end of the run with a RewardError. */
export type TimeoutPolicy = 'null' | 'zero' | 'throw';

/** One of the rewards that are added up. */
export interface NamedReward {
  /** Of its metrics: `reward/<name>/mean`. Letters, digits, `_`, `-` and `.`. */
  name: string;
  fn: PerSampleRewardFunction;
  /** Default 1. */
  weight?: number;
  /**
   * Most time for a response, in milliseconds from the call: for each entry that is a promise, and for a promise of the
   * whole batch. Default in training: `reward.timeoutMs` of the configuration; elsewhere no limit. A function that
   * computes without pause cannot be stopped by it, but one of a module can.
   */
  timeoutMs?: number;
  /** Default 'null'. */
  onTimeout?: TimeoutPolicy;
  /** Whether a null of this reward leaves the response out altogether. Default false: the term is left out. */
  required?: boolean;
}

/** A prompt with a response worth imitating, the final stop token's text included. */
export interface Demonstration {
  prompt: string;
  response: string;
}

/** Problems by split and their reward. `splits.train` is what the trainer samples from; the others are evaluated. */
export interface Task {
  readonly name: string;
  readonly splits: Readonly<Record<string, readonly Problem[]>>;
  /** Positive for a correct response. What evaluation counts, and what training maximizes unless `rewards` says more. */
  readonly reward: RewardFunction;
  /** What training maximizes: the weighted sum of these. Default: `reward` alone. */
  readonly rewards?: readonly NamedReward[];
  /**
   * Canonical form of a CORRECT solution, so that distinct correct solutions can be counted; null when the response has
   * none. Only called with responses whose reward is positive.
   */
  distinctKey?(problem: Problem, response: string): string | null;
  /** A coarser form: equal for solutions that are the same formula up to algebra. */
  algebraicKey?(problem: Problem, response: string): string | null;
  /**
   * What a response is like, as numbers by name, e.g. whether it uses some strategy (0 or 1): pure, for right and wrong
   * responses alike. Training and evaluations report their means (`task/<feature>/...` in docs/metrics.md). Names:
   * letters, digits, `_`, `-` and `.`; a value that is no finite number is left out of its mean.
   */
  features?(problem: Problem, response: string): Readonly<Record<string, number>>;
  /** Endless supervised demonstrations for `sft`, disjoint from every split's problems. Deterministic by seed. */
  demonstrations?(seed: number): Generator<Demonstration, never>;
  /** One line per thing worth telling about loading (filtered rows, ...). */
  readonly notes?: readonly string[];
}
