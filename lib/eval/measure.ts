/** Evaluating one set: greedily, by samples, or both. */
import { InvalidArgumentError } from '../errors.js';
import { type OptionKeys, SIGNAL } from '../options.js';
import type { PolicyLike } from '../policy.js';
import { encodeAll } from '../tokenizer/prompts.js';
import { defaultStopTokens } from '../tokenizer/stop-tokens.js';
import { respond } from './respond.js';
import { type SetSummary, type SummaryPlan, summarize } from './summary.js';
import type { EvaluationProgress, EvaluationSet, EvaluationTokenizer, ResponseLine, ResponseRecord } from './types.js';

/** How an evaluation is done. */
export interface MeasureOptions {
  /** Also decode every problem greedily (the paper's pass@1). Default true. */
  greedy?: boolean;
  /** Samples per problem for avg@k, maj@k, pass@k and the distinct solutions; 0 = none. Default 64. */
  samples?: number;
  /** Default [1, 8, 64], without those above `samples`. */
  ks?: readonly number[];
  /** The first so many problems are decoded greedily. Default all. */
  maxProblems?: number;
  /** The first so many of these are sampled. Default all of them. */
  sampleProblems?: number;
  /** Of the samples. Default 1 (the paper's). */
  temperature?: number;
  /** Of the samples. Default 1: all tokens. */
  topP?: number;
  /** Default 0. */
  seed?: number;
  maxNewTokens: number;
  /** Responses that are generated, judged and written together. Changes memory and speed, not results. Default 1024. */
  batchSize?: number;
  /** Of these, responses drawn at a time; one that has ended makes room for the next. Default 0: all. */
  maxRows?: number;
  /** Tokens that the key-value cache may hold. Default 0: as many as there are. */
  cacheTokens?: number;
  /** Default: the tokenizer's end-of-sequence ids; the policy's where it has none. */
  stopTokens?: readonly number[];
  signal?: AbortSignal;
  onProgress?: (progress: EvaluationProgress) => void;
}

export const MEASURE_KEYS: OptionKeys<MeasureOptions> = {
  greedy: true,
  samples: true,
  ks: true,
  maxProblems: true,
  sampleProblems: true,
  temperature: true,
  topP: true,
  seed: true,
  maxNewTokens: true,
  batchSize: true,
  maxRows: true,
  cacheTokens: true,
  stopTokens: true,
  onProgress: true,
  ...SIGNAL,
};

/** Options with their defaults, checked. */
export interface MeasurePlan extends SummaryPlan {
  greedy: boolean;
  temperature: number;
  topP: number;
  seed: number;
  maxNewTokens: number;
  batchSize: number;
  maxRows: number;
  cacheTokens: number;
  stopTokens?: readonly number[];
}

/** Where responses are kept. */
export interface ResponseStore {
  /** What there is already. */
  readonly records: readonly ResponseRecord[];
  append(lines: readonly ResponseLine[]): void;
}

const DEFAULT_KS = [1, 8, 64];

/**
 * Checks the options for a set of `count` problems and fills in the defaults.
 *
 * @throws InvalidArgumentError naming the option
 */
export function measurePlan(count: number, options: MeasureOptions): MeasurePlan {
  const { greedy = true, samples = 64, temperature = 1, topP = 1, seed = 0, batchSize = 1024 } = options;
  if (!greedy && samples === 0) {
    throw new InvalidArgumentError('nothing to evaluate: greedy is false and samples is 0');
  }
  checkInteger('samples', samples, 0);
  checkInteger('maxNewTokens', options.maxNewTokens, 1);
  checkInteger('batchSize', batchSize, 1);
  const { maxRows = 0, cacheTokens = 0 } = options;
  checkInteger('maxRows', maxRows, 0);
  checkInteger('cacheTokens', cacheTokens, 0);
  checkInteger('seed', seed, 0);
  checkInteger('maxProblems', options.maxProblems ?? count, 1);
  const problems = Math.min(options.maxProblems ?? count, count);
  checkInteger('sampleProblems', options.sampleProblems ?? problems, 0);
  if (!(temperature > 0 && Number.isFinite(temperature))) {
    throw new InvalidArgumentError(
      `temperature must be a number above 0, got ${temperature}; greedy decoding is the option greedy`,
    );
  }
  if (!(topP > 0 && topP <= 1)) throw new InvalidArgumentError(`topP must be in (0, 1], got ${topP}`);
  const ks = [...new Set(options.ks ?? DEFAULT_KS.filter((k) => k <= samples))].sort((x, y) => x - y);
  for (const k of ks) {
    if (samples > 0 && !(Number.isInteger(k) && k >= 1 && k <= samples)) {
      throw new InvalidArgumentError(
        `ks (--k): pass@${k} needs at least ${k} samples per problem, and samples (--samples) is ${samples}`,
      );
    }
  }
  return {
    greedy,
    samples,
    ks: samples > 0 ? ks : [],
    greedyProblems: greedy ? problems : 0,
    sampledProblems: samples > 0 ? Math.min(options.sampleProblems ?? problems, problems) : 0,
    temperature,
    topP,
    seed,
    maxNewTokens: options.maxNewTokens,
    batchSize,
    maxRows,
    cacheTokens,
    ...(options.stopTokens === undefined ? {} : { stopTokens: options.stopTokens }),
  };
}

function checkInteger(name: string, value: number, min: number): void {
  if (!Number.isInteger(value) || value < min) {
    throw new InvalidArgumentError(`${name} must be an integer of at least ${min}, got ${value}`);
  }
}

/** A store for as long as the process lives; texts are not kept. */
export function memoryStore(): ResponseStore {
  const records: ResponseRecord[] = [];
  return {
    records,
    append: (lines) => {
      for (const { text: _text, ...record } of lines) records.push(record);
    },
  };
}

export interface MeasureInput {
  policy: PolicyLike;
  tokenizer: EvaluationTokenizer;
  set: EvaluationSet;
  plan: MeasurePlan;
  store: ResponseStore;
  signal?: AbortSignal;
  onProgress?: (progress: EvaluationProgress) => void;
}

/**
 * Generates and judges what the store lacks, then summarizes.
 *
 * @throws InvalidArgumentError when a prompt does not fit into the policy's context; AbortedError
 */
export async function measure({ plan, store, ...input }: MeasureInput): Promise<SetSummary> {
  const { policy, tokenizer, set } = input;
  const count = Math.max(plan.greedyProblems, plan.sampledProblems);
  const prompts = await encodeAll(
    tokenizer,
    set.problems.slice(0, count).map(({ prompt }) => prompt),
  );
  checkContext(policy, set, prompts, plan.maxNewTokens);
  const stopTokens =
    plan.stopTokens ??
    defaultStopTokens(
      tokenizer,
      set.problems.map(({ prompt }) => prompt),
    );
  const stop = stopTokens === undefined ? {} : { stopTokens };
  for (const phase of ['greedy', 'sample'] as const) {
    const problems = phase === 'greedy' ? plan.greedyProblems : plan.sampledProblems;
    if (problems === 0) continue;
    const samples = phase === 'greedy' ? 1 : plan.samples;
    const lines = respond({ ...input, ...plan, ...stop, prompts, phase, problems, samples, records: store.records });
    for await (const batch of lines) store.append(batch);
  }
  return summarize(set, store.records, plan);
}

/** Every prompt must fit, before hours are spent on the first ones. */
function checkContext(
  policy: PolicyLike,
  set: EvaluationSet,
  prompts: readonly (readonly number[])[],
  maxNewTokens: number,
): void {
  const context = policy.config?.maxPositionEmbeddings;
  if (context === undefined) return;
  const at = prompts.findIndex(({ length }) => length + maxNewTokens > context);
  if (at < 0) return;
  const longest = prompts.reduce((most, { length }) => Math.max(most, length), 0);
  throw new InvalidArgumentError(
    `"${set.name}": the prompt of problem ${set.problems[at]?.id} has ${prompts[at]?.length} tokens; with maxNewTokens = ` +
      `${maxNewTokens} it does not fit into the model's context of ${context}. ` +
      (longest < context
        ? `The longest prompt has ${longest}: use at most ${context - longest} new tokens`
        : `The longest prompt has ${longest}: this model cannot be evaluated on it`),
  );
}
