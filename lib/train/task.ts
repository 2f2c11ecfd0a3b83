/** From a configuration to its task and the rewards of its responses. */
import type { HubOptions } from '../hub/index.js';
import {
  createTask,
  type DatasetOptions,
  isEmbedded,
  type NamedReward,
  type PromptTokenizer,
  type Task,
  verifierReward,
} from '../tasks/index.js';
import { HUB_FILES } from '../tasks/presets.js';
import { loadRewardModule } from '../tasks/reward-module.js';
import { combinedReward } from '../tasks/rewards.js';
import { verifierName } from '../tasks/verifiers.js';
import type { TrainConfig } from './config.js';

/**
 * The task of a configuration, rewarded as [reward] says.
 *
 * @param hub how the hub is asked for data; its signal also ends the reading of files
 */
export async function loadTask(config: TrainConfig, tokenizer: PromptTokenizer, hub: HubOptions = {}): Promise<Task> {
  return withRewards(await plainTask(config, tokenizer, hub), config);
}

function plainTask({ task }: TrainConfig, tokenizer: PromptTokenizer, hub: HubOptions): Promise<Task> {
  const { name, levels } = task;
  if (isEmbedded(name)) return createTask(name);
  const options: DatasetOptions = {
    files: filesOf(task),
    ...given({
      promptColumn: task.promptColumn,
      answerColumn: task.answerColumn,
      template: task.template,
      system: task.system,
    }),
    ...(task.promptStyle === 'auto' ? {} : { promptStyle: task.promptStyle }),
    ...(task.metaColumns.includes('*') ? {} : { metaColumns: task.metaColumns }),
    ...(task.maxProblems > 0 ? { maxProblems: { train: task.maxProblems } } : {}),
    ...(task.dropEvalPrompts ? { dropEvalPrompts: true } : {}),
    maxPromptTokens: task.maxPromptTokens,
    tokenizer,
    shuffleSeed: task.shuffleSeed < 0 ? null : task.shuffleSeed,
    hub,
    ...(hub.signal === undefined ? {} : { signal: hub.signal }),
  };
  return name === 'math' ? createTask('math', { ...options, levels }) : createTask(name, options);
}

/** Data of the hub where no training files are named, with its own test split unless another is. */
function filesOf({ name, path, evalPath }: TrainConfig['task']): DatasetOptions['files'] {
  const hub = path.length === 0 && (name === 'math' || name === 'gsm8k') ? HUB_FILES[name] : null;
  const files: Record<string, string | readonly string[]> = { ...hub };
  if (path.length > 0) files.train = path;
  if (evalPath.length > 0) files.test = evalPath;
  return files;
}

/** Options that were given: an empty text in a configuration means the default. */
function given(options: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== ''));
}

/** The verifier judges in training and evaluation; the module's rewards are added in training. */
async function withRewards(task: Task, { reward: options }: TrainConfig): Promise<Task> {
  const { verifier, weight, module } = options;
  const own = verifier === 'auto' || verifier === 'none' ? task.reward : verifierReward(verifier);
  const main: NamedReward = { name: verifierName(own) ?? task.name, fn: own, weight, required: true };
  const added =
    module === ''
      ? []
      : await loadRewardModule(module, {
          weight: options.moduleWeight,
          onTimeout: options.onTimeout,
          ...(options.timeoutMs > 0 ? { timeoutMs: options.timeoutMs } : {}),
        });
  if (verifier === 'none') return { ...task, reward: combinedReward(added, task.name), rewards: added };
  if (added.length === 0 && weight === 1) return { ...task, reward: own };
  return { ...task, reward: own, rewards: [main, ...added] };
}
