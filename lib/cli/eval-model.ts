/** Evaluating one model of `eepo eval`. */
import { join } from 'node:path';
import { readConfig } from '../config-json.js';
import { deviceInfo } from '../device.js';
import { EepoError, InvalidArgumentError } from '../errors.js';
import { type BenchmarkOptions, loadBenchmarks, loadDataSet } from '../eval/benchmark-data.js';
import { weightsFingerprint } from '../eval/settings.js';
import { evaluateBenchmarks, type ModelResult } from '../eval/suite.js';
import { taskSet } from '../eval/task-set.js';
import type { EvaluationSet } from '../eval/types.js';
import { modelFolder } from '../hub/index.js';
import { cacheBytesPerToken, cacheTokensFor } from '../memory/estimate.js';
import { Policy, type PolicyConfig } from '../policy.js';
import { PROMPT_STYLES, type PromptStyle } from '../tasks/data/prompts.js';
import { createTask, type EmbeddedTask, isEmbedded } from '../tasks/index.js';
import type { RewardFailure } from '../tasks/rewards.js';
import { Tokenizer } from '../tokenizer.js';
import { loadTrainConfig, type TrainConfig } from '../train/config.js';
import { benchmarkPrompt, evaluationSplits } from '../train/evaluation.js';
import { checkModelFolder, hubOptions } from '../train/load.js';
import { failureText, rewardPolicy } from '../train/reward-policy.js';
import { loadSftConfig } from '../train/sft-config.js';
import { loadTask } from '../train/task.js';
import { EvalProgress } from './eval-progress.js';
import { hubProgress } from './hub-progress.js';

/** Options of `eepo eval`. */
export interface EvalOptions {
  benchmarks: string[];
  benchmarkData: string[];
  data: string[];
  task?: string;
  split: string[];
  name: string[];
  greedy: boolean;
  samples?: number;
  k?: number[];
  temperature: number;
  topP: number;
  maxNewTokens?: number;
  limit?: number;
  sampleLimit?: number;
  seed: number;
  promptStyle?: string;
  promptTemplate?: string;
  systemPrompt?: string;
  chat?: boolean;
  stopToken: string[];
  tolerance?: number;
  device: string;
  dtype: string;
  batchSize?: number;
  revision?: string;
  out: string;
  baseline?: string;
  metric?: string;
  json?: boolean;
  markdown?: boolean;
}

export interface ModelTarget {
  /** As the user named it. */
  model: string;
  name: string;
  /** The run's folder, if it is one. */
  run: string | null;
  out: string;
}

/** What the longest answers to the embedded tasks need, and a little more. */
const RESPONSE_TOKENS: Readonly<Record<EmbeddedTask, number>> = { countdown: 16, calculator: 20 };

const note = (text: string): void => console.error(`note: ${text}`);

/** Loads a model, evaluates it, and leaves its results in `target.out`. */
export async function evaluateModel(
  target: ModelTarget,
  options: EvalOptions,
  signal: AbortSignal,
): Promise<ModelResult> {
  const { run, model } = target;
  const revision = run === null && options.revision !== undefined ? { revision: options.revision } : {};
  const hub = { ...revision, signal, onProgress: hubProgress() };
  const folder = run === null ? await modelFolder(model, hub) : join(run, 'model');
  checkModelFolder(folder);
  const tokenizer = await Tokenizer.load(folder);
  const config = run === null ? null : runConfig(run);
  const onTask = options.benchmarks.length + options.data.length === 0;
  const sets = onTask
    ? await taskSets(run, config, tokenizer, options, signal)
    : await problemSets(config, tokenizer, options, signal);
  const { maxPositionEmbeddings, vocabSize } = (await readConfig(folder)).config;
  tokenizer.checkVocabulary(vocabSize, folder);
  const maxNewTokens = await newTokens(
    sets,
    tokenizer,
    maxPositionEmbeddings,
    options,
    onTask ? (config?.rollout.maxNewTokens ?? RESPONSE_TOKENS[embeddedTask(run, options.task)]) : null,
  );
  const stopTokens = stopTokensOf(options.stopToken, tokenizer);
  const policy = await loadPolicy(folder, options, signal);
  const progress = new EvalProgress({ label: `${target.name}: ` });
  try {
    return await evaluateBenchmarks(policy, tokenizer, sets, {
      name: target.name,
      model: run ?? model,
      out: target.out,
      weights: weightsFingerprint(folder),
      dtype: options.dtype,
      greedy: options.greedy,
      samples: options.samples ?? (options.k === undefined ? (onTask ? 64 : 0) : Math.max(...options.k)),
      temperature: options.temperature,
      topP: options.topP,
      seed: options.seed,
      maxNewTokens,
      batchSize: options.batchSize ?? DEFAULT_BATCH,
      cacheTokens: await cacheTokens(policy),
      signal,
      onProgress: (event) => progress.update(event),
      ...(options.k === undefined ? {} : { ks: options.k }),
      ...limits(options, onTask),
      ...(stopTokens.length > 0 ? { stopTokens } : {}),
    });
  } finally {
    progress.stop();
    policy.dispose();
  }
}

/** A task's splits are large and meant for watching a run; a benchmark's number needs all its problems. */
function limits(
  { limit, sampleLimit }: EvalOptions,
  onTask: boolean,
): { maxProblems?: number; sampleProblems?: number } {
  const maxProblems = limit ?? (onTask ? 300 : undefined);
  const sampleProblems = sampleLimit ?? (onTask ? 100 : undefined);
  return {
    ...(maxProblems === undefined ? {} : { maxProblems }),
    ...(sampleProblems === undefined ? {} : { sampleProblems }),
  };
}

/** A run of `eepo sft` has a configuration without a task, which is no training configuration. */
function runConfig(run: string): TrainConfig | null {
  try {
    return loadTrainConfig(join(run, 'config.toml'));
  } catch (error) {
    if (error instanceof EepoError) return null;
    throw error;
  }
}

/** The one that is named, or that a run of `eepo sft` learned. */
function embeddedTask(run: string | null, given: string | undefined): EmbeddedTask {
  const name = given ?? (run === null ? '' : loadSftConfig(join(run, 'config.toml')).data.name);
  if (isEmbedded(name)) return name;
  throw new InvalidArgumentError(
    `${run ?? 'the model'} has no task of its own; say what: --benchmarks math500, --data FILE or --task NAME`,
  );
}

async function taskSets(
  run: string | null,
  config: TrainConfig | null,
  tokenizer: Tokenizer,
  options: EvalOptions,
  signal: AbortSignal,
): Promise<EvaluationSet[]> {
  if (config === null || options.task !== undefined) {
    const task = await createTask(embeddedTask(run, options.task));
    const splits =
      options.split.length > 0 ? options.split : Object.keys(task.splits).filter((name) => name !== 'train');
    return splits.map((split) => taskSet(task, split));
  }
  const task = await loadTask(config, tokenizer, { ...hubOptions(config.model, { signal }), revision: undefined });
  for (const text of new Set(task.notes)) note(text);
  const eval_ = { ...config.eval, splits: options.split };
  const splits = evaluationSplits(task, { ...config, eval: eval_ });
  if (splits.length === 0) {
    throw new InvalidArgumentError(
      `task ${task.name} of this run has no split to evaluate on (no task.evalPath); say what: --benchmarks math500, ` +
        '--data FILE, or --split train',
    );
  }
  const onFailures = (failures: readonly RewardFailure[]): void => {
    for (const failure of failures) note(failureText(failure));
  };
  return splits.map((split) => taskSet(task, split, { ...rewardPolicy(config), signal, onFailures }));
}

async function problemSets(
  config: TrainConfig | null,
  tokenizer: Tokenizer,
  options: EvalOptions,
  signal: AbortSignal,
): Promise<EvaluationSet[]> {
  const settings: BenchmarkOptions = {
    ...(await promptOptions(config, tokenizer, options)),
    data: options.benchmarkData,
    signal,
    hub: { signal, onProgress: hubProgress() },
    ...(options.tolerance === undefined ? {} : { tolerance: options.tolerance }),
  };
  const sets = await loadBenchmarks(options.benchmarks, settings);
  for (const path of options.data) sets.push(await loadDataSet(path, settings));
  for (const text of sets.flatMap(({ notes }) => notes)) note(text);
  return sets;
}

/** The user's words first, then what the run was trained with, then the paper's recipe. */
async function promptOptions(
  config: TrainConfig | null,
  tokenizer: Tokenizer,
  options: EvalOptions,
): Promise<BenchmarkOptions> {
  const { promptTemplate, systemPrompt, chat } = options;
  const given = options.promptStyle ?? (chat ? 'chat' : undefined);
  if (given !== undefined && !(PROMPT_STYLES as readonly string[]).includes(given)) {
    throw new InvalidArgumentError(`--prompt-style ${given}: expected ${PROMPT_STYLES.join(', ')}`);
  }
  const base =
    given !== undefined
      ? { promptStyle: given as PromptStyle }
      : config === null
        ? { promptStyle: await defaultStyle(tokenizer) }
        : benchmarkPrompt(config);
  return {
    ...base,
    ...(promptTemplate === undefined ? {} : { template: promptTemplate }),
    ...(systemPrompt === undefined ? {} : { system: systemPrompt }),
  };
}

/** The paper's recipe asks in a chat; a model without a chat template is asked in plain text. */
async function defaultStyle(tokenizer: Tokenizer): Promise<PromptStyle> {
  try {
    await tokenizer.encodePrompt([
      { role: 'system', content: 'a' },
      { role: 'user', content: 'b' },
    ]);
    return 'qwen-boxed';
  } catch (error) {
    if (!(error instanceof EepoError)) throw error;
    note(`prompts are plain text (--prompt-style simplerl): ${error.message}`);
    return 'simplerl';
  }
}

async function newTokens(
  sets: readonly EvaluationSet[],
  tokenizer: Tokenizer,
  context: number,
  { maxNewTokens, limit }: EvalOptions,
  onTask: number | null,
): Promise<number> {
  if (maxNewTokens !== undefined) return maxNewTokens;
  if (onTask !== null) return onTask;
  let longest = 0;
  for (const { problems } of sets) {
    const prompts = await tokenizer.encodePrompts(problems.slice(0, limit).map(({ prompt }) => prompt));
    for (const { length } of prompts) longest = Math.max(longest, length);
  }
  const fitting = Math.min(4096, Math.max(1, context - longest));
  if (fitting < 4096) note(`at most ${fitting} new tokens: the context is ${context}, the longest prompt ${longest}`);
  return fitting;
}

/** Given as ids or texts. */
function stopTokensOf(tokens: readonly string[], tokenizer: Tokenizer): number[] {
  return tokenizer.stopTokenIds(tokens.map((token) => (/^[0-9]+$/.test(token) ? Number(token) : token)));
}

async function loadPolicy(folder: string, { device, dtype }: EvalOptions, signal: AbortSignal): Promise<Policy> {
  if (device !== 'auto' && device !== 'cpu' && device !== 'cuda') {
    throw new InvalidArgumentError(`--device ${device}: expected auto, cpu or cuda`);
  }
  if (dtype !== 'float32' && dtype !== 'bfloat16') {
    throw new InvalidArgumentError(`--dtype ${dtype}: expected float32 or bfloat16`);
  }
  return Policy.load(folder, { device, dtype, trainable: false, signal });
}

/** What is lost at most when an evaluation is killed; enough rows to keep a GPU busy. */
const DEFAULT_BATCH = 256;

/** As many tokens as half of what memory is free can keep the keys and values of; where it is full, samples wait. */
async function cacheTokens(policy: { device: 'cpu' | 'cuda'; config: PolicyConfig }): Promise<number> {
  const { freeBytes } = await deviceInfo(policy.device);
  // never too few for a prompt and a response that fill the context
  const least = cacheTokensFor(policy.config.maxPositionEmbeddings, 1);
  return Math.max(least, Math.floor(freeBytes / 2 / cacheBytesPerToken(policy.config)));
}
