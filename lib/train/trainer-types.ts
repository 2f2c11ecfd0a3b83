/** What goes into the trainer and what comes out of it. */
import type { Objective } from '../algorithm/types.js';
import type { PolicyLike } from '../policy.js';
import type { RolloutPhase } from '../rollout.js';
import type { NamedReward, PerSampleRewardFunction, Problem, Reward, Task } from '../tasks/types.js';
import type { PromptEncoder } from '../tokenizer/prompts.js';
import type { StoppingTokenizer } from '../tokenizer/stop-tokens.js';
import type { TrainConfigInput } from './config.js';
import type { Metrics, ScoredSample } from './metrics.js';
import type { Incident } from './non-finite.js';
import type { ReferencePolicy } from './update.js';

/** What the trainer needs of a policy. */
export type TrainablePolicy = Pick<
  PolicyLike,
  | 'config'
  | 'generate'
  | 'forget'
  | 'syncRollout'
  | 'forward'
  | 'backward'
  | 'step'
  | 'zeroGrad'
  | 'findNonFinite'
  | 'clone'
  | 'adapter'
  | 'setGradientCheckpointing'
> & {
  /** Where the tokenizer is, if the trainer is not given one. */
  readonly folder?: string | null;
};

/** What the trainer needs of a tokenizer. */
export interface TrainerTokenizer extends PromptEncoder, StoppingTokenizer {
  /** Text without special tokens. */
  decode(ids: readonly number[]): string;
  /** Ids that end a response. Default: those of the policy's config. */
  readonly eosTokenIds?: readonly number[];
  /** Throws where the model has fewer ids than the tokenizer. */
  checkVocabulary?(modelVocabSize: number): void;
}

export type TrainerPhase = RolloutPhase | 'reward' | 'reference' | 'update' | 'eval';

/** What happens inside an iteration, for a display. */
export type TrainerEvent =
  | { type: 'phase'; iteration: number; phase: TrainerPhase }
  /** Tokens drawn so far in this phase, samples still running. */
  | { type: 'progress'; iteration: number; tokens: number; running: number };

/** Evaluates the policy; called by `eval.every`, `eval.atStart` and `eval.atEnd`. Its metrics are prefixed with `eval/`. */
export type Evaluator = (iteration: number) => Promise<Metrics>;

export interface TrainerOptions {
  policy: TrainablePolicy;
  /** Default: the tokenizer of the folder the policy was loaded from. */
  tokenizer?: TrainerTokenizer;
  /** What is asked. Its reward may be left out where `reward` is given. */
  task: Omit<Task, 'reward'> & Partial<Pick<Task, 'reward'>>;
  /** Default: the task's own. */
  reward?: PerSampleRewardFunction;
  /** Several, whose weighted sum is the reward, each with metrics of its own. Instead of `reward`. */
  rewards?: readonly NamedReward[];
  /** Of the KL penalty. Default: a copy of the policy as it is when the trainer starts; none where klCoef is 0. */
  reference?: ReferencePolicy;
  /** Checked, and completed by the defaults, as by {@link defineConfig}. Default: all defaults. */
  config?: Partial<TrainConfigInput>;
  /** Another loss than GRPO's: anything on the (a, b) interface. */
  objective?: Objective;
  evaluate?: Evaluator;
  /** Ids that end a response; [] = none. Default: rollout.stopTokens, else the tokenizer's, else the policy's. */
  stopTokens?: readonly number[];
  signal?: AbortSignal;
  onEvent?: (event: TrainerEvent) => void;
}

/** A response as the trainer saw it. */
export interface TrainSample extends ScoredSample {
  problem: Problem;
  response: string;
  /** What each of several rewards gave, by name. */
  rewards?: Record<string, Reward>;
}

export interface Iteration {
  /** 1, 2, ...; 0 is the evaluation before the first. */
  iteration: number;
  metrics: Metrics;
  /** Prompt-major; G of each prompt, those of stage 1 first. */
  samples: TrainSample[];
  /** What went wrong without ending the run; each was given out as a warning of the process too. */
  incidents: Incident[];
}

/** How often in a row something went wrong; part of what a run that goes on must know. */
export interface Streaks {
  /** Optimizer steps skipped because something was not finite. */
  skippedSteps: number;
  /** Iterations in which more than `reward.maxFailedShare` of the responses had a reward that failed. */
  failedRewards: number;
}

/** What `prepare` found. */
export interface Preparation {
  /** Prompts to train on. */
  prompts: number;
  /** Left out because they are longer than task.maxPromptTokens. */
  tooLong: number;
  /** Of the longest prompt that is trained on. */
  longestPrompt: number;
}

/**
 * Where a run stands at the end of an iteration, for JSON: with the policy's weights and optimizer of that moment, all
 * that it takes to go on as if it had never stopped. The random numbers are keyed by (seed, iteration, prompt, sample,
 * position) and the learning rate is constant, so neither has a state of its own.
 */
export interface TrainerState {
  /** Iterations done. */
  iteration: number;
  /** Prompts drawn: the position in the shuffled epochs. */
  promptsDrawn: number;
  /** SHA-256 of the training prompts, their order, ids and answers. */
  prompts: string;
  /** Mean stage-1 entropies of the last iterations, for the gate. */
  gateHistory: number[];
  streaks: Streaks;
  /** Whether the evaluation before the first iteration was done. */
  startEvaluated: boolean;
  /** Metrics of an iteration whose update was done, but not its evaluation; null: all is done. */
  pending: Metrics | null;
}
