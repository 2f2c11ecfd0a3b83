/** What an evaluation works on and what it writes down. */
import type { Problem, RewardInput } from '../tasks/types.js';
import type { PromptEncoder } from '../tokenizer/prompts.js';
import type { StoppingTokenizer } from '../tokenizer/stop-tokens.js';

/** What evaluation needs of a tokenizer; `Tokenizer` has it. */
export interface EvaluationTokenizer extends PromptEncoder, StoppingTokenizer {
  decode(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string;
  readonly eosTokenIds: readonly number[];
}

/**
 * What became of a response: its answer is right; it is wrong; no answer was found in it; or whether it is right could
 * not be decided within the verifier's bounds, which counts as wrong and is counted; or a reward of one's own gave none
 * (`missing`: null, cut off, or it failed), which is left out of every accuracy and counted.
 */
export type ResponseVerdict = 'correct' | 'wrong' | 'no-answer' | 'undecided' | 'missing';

/** What a judge says of one response. */
export interface Judgement {
  verdict: ResponseVerdict;
  /** The final answer found in the response: what votes in maj@k. null: none. */
  answer: string | null;
  /** Why it could not be decided. */
  reason?: string;
}

/** Problems with their judge: a benchmark, or a split of a task. */
export interface EvaluationSet {
  /** Names the folder of its responses and its metrics: letters, digits, `.`, `_` and `-`. */
  readonly name: string;
  /** Heading of its column in a table. Default: the name. */
  readonly title?: string;
  readonly problems: readonly Problem[];
  /** One judgement per input, in their order. Must not throw for anything a model can write. */
  judge(inputs: readonly RewardInput[]): Promise<readonly Judgement[]>;
  /** Whether two answers to one problem are the same vote, for every pair; a set without it has no maj@k. */
  sameAnswer?(pairs: readonly (readonly [string, string])[]): Promise<readonly boolean[]>;
  /** As of {@link Task}: what makes two correct responses the same solution. */
  distinctKey?(problem: Problem, response: string): string | null;
  algebraicKey?(problem: Problem, response: string): string | null;
  /** What a response is like, as numbers by name: their means are reported. */
  features?(problem: Problem, response: string): Readonly<Record<string, number>>;
}

export type Phase = 'greedy' | 'sample';

/** What is kept of a response beside its text: enough for every metric. */
export interface ResponseRecord {
  /** Id of the problem. */
  problem: string;
  phase: Phase;
  /** Index of the sample; 0 for the greedy response. */
  sample: number;
  verdict: ResponseVerdict;
  answer: string | null;
  /** Of a verdict that is undecided or missing. */
  reason?: string;
  /** Length in tokens, the stop token included. */
  tokens: number;
  finishReason: 'stop' | 'length';
  /** Sum over the tokens of the log-probability each was drawn with. */
  logprob: number;
  /** Sum over the tokens of the entropies (nats) of the distributions they were drawn from. */
  entropy: number;
  /** Canonical forms of a correct solution, where the set has them. */
  distinct?: string | null;
  algebraic?: string | null;
  /** Of the response, where the set has features. */
  features?: Readonly<Record<string, number>>;
}

/** A line of responses.jsonl. */
export interface ResponseLine extends ResponseRecord {
  /** The decoded response without special tokens. */
  text: string;
}

/** What an evaluation reports while it works. */
export interface EvaluationProgress {
  /** Name of the set. */
  set: string;
  phase: Phase;
  /** Problems of this phase with all their responses, and all problems of the phase. */
  done: number;
  total: number;
  /** Responses of this phase so far, and how many of them are correct; those of an earlier run count. */
  responses: number;
  correct: number;
  undecided: number;
  /** Tokens that this process has generated in this phase. */
  tokens: number;
}
