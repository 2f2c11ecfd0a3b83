/** Tasks by name. */
import { distance } from 'fastest-levenshtein';
import { InvalidArgumentError } from '../errors.js';
import { checkOptions } from '../options.js';
import { type CalculatorOptions, calculator } from './calculator.js';
import { type CountdownOptions, countdown } from './countdown.js';
import { DATASET_KEYS, type DatasetOptions, datasetTask } from './dataset.js';
import { gsm8kTask, type MathOptions, mathTask, type PresetOptions, verlTask } from './presets.js';
import type { Task } from './types.js';

export { type CalculatorAnswer, type CalculatorOptions, calculator } from './calculator.js';
export type { ErrorPolicy } from './call-reward.js';
export type { CountdownAnswer, CountdownOptions } from './countdown.js';
export { countdown } from './countdown.js';
export { PROMPT_STYLES, type PromptOptions, type PromptStyle } from './data/prompts.js';
export type { Row } from './data/rows.js';
export type { DataFormat } from './data/source.js';
export { type DatasetOptions, type DatasetRules, datasetTask, type PromptTokenizer } from './dataset.js';
export { defineTask, type TaskDefinition } from './define.js';
export { gsm8kTask, type MathOptions, mathTask, type PresetOptions, verlTask } from './presets.js';
export type { OverlongPolicy } from './rewards.js';
export type {
  ChatMessage,
  Demonstration,
  NamedReward,
  PerSampleRewardFunction,
  Problem,
  Reward,
  RewardContext,
  RewardFunction,
  RewardInput,
  Task,
  TimeoutPolicy,
} from './types.js';
export { type VerifierName, verifierReward } from './verifiers.js';

/** A task from JSON lines: {@link datasetTask} as `createTask('jsonl', ...)` calls it. */
export async function jsonlTask(options: DatasetOptions): Promise<Task> {
  checkOptions(options, DATASET_KEYS, 'jsonlTask');
  return datasetTask({ name: 'jsonl', ...options });
}

/** A task from Parquet files: {@link datasetTask} as `createTask('parquet', ...)` calls it. */
export async function parquetTask(options: DatasetOptions): Promise<Task> {
  checkOptions(options, DATASET_KEYS, 'parquetTask');
  return datasetTask({ name: 'parquet', format: 'parquet', ...options });
}

/** Options of every built-in task. */
export interface TaskOptions {
  countdown: CountdownOptions;
  calculator: CalculatorOptions;
  math: MathOptions;
  gsm8k: PresetOptions;
  verl: DatasetOptions;
  jsonl: DatasetOptions;
  parquet: DatasetOptions;
}

const LOADERS: { [Name in keyof TaskOptions]: (options: TaskOptions[Name]) => Task | Promise<Task> } = {
  countdown,
  calculator,
  math: mathTask,
  gsm8k: gsm8kTask,
  verl: verlTask,
  jsonl: jsonlTask,
  parquet: parquetTask,
};

export const TASK_NAMES = [
  'countdown',
  'calculator',
  'math',
  'gsm8k',
  'verl',
  'jsonl',
  'parquet',
] as const satisfies readonly (keyof TaskOptions)[];

/** Those that are embedded: no files, a verifier and demonstrations of their own, a policy in the folder models. */
export const EMBEDDED_TASKS = ['countdown', 'calculator'] as const satisfies readonly (keyof TaskOptions)[];

export type EmbeddedTask = (typeof EMBEDDED_TASKS)[number];

export function isEmbedded(name: string): name is EmbeddedTask {
  return (EMBEDDED_TASKS as readonly string[]).includes(name);
}

/**
 * Loads a built-in task: `createTask('gsm8k')`, `createTask('math', { files: { train: 'math.jsonl.gz' } })`,
 * `createTask('verl', { files: { train: 'train.parquet' } })`.
 *
 * @throws InvalidArgumentError for an unknown name or a wrong option, InvalidFileError naming file and line
 */
export async function createTask<Name extends keyof TaskOptions>(
  name: Name,
  options: TaskOptions[Name] = {} as TaskOptions[Name],
): Promise<Task> {
  if (Object.hasOwn(LOADERS, name)) return LOADERS[name](options);
  const known = [...TASK_NAMES].sort((x, y) => distance(x, String(name)) - distance(y, String(name)));
  throw new InvalidArgumentError(
    `there is no task '${String(name)}'; did you mean '${known[0]}'? Known: ${TASK_NAMES.join(', ')}`,
  );
}
