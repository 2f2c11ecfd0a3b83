/** The memory of a training run: its estimate before anything is loaded, fitted into what the device has. */
import type { PolicyConfig } from '../config-json.js';
import { deviceInfo } from '../device.js';
import { InvalidArgumentError } from '../errors.js';
import type { MemoryOptions } from '../memory/estimate.js';
import { type MemoryPlan, machineMemory, planMemory } from '../memory/fit.js';
import type { TensorDevice } from '../tensor.js';
import type { TrainConfig } from './config.js';

/** What of a configuration decides its memory. */
export function memoryOptions(config: TrainConfig, device: TensorDevice, longestPrompt: number): MemoryOptions {
  const { model, lora, rollout, unlearn, objective, optimizer } = config;
  return {
    dtype: model.dtype,
    lora: lora.rank > 0 ? { rank: lora.rank, targets: lora.targets } : null,
    unlearning: unlearn.enabled,
    rolloutDtype: unlearn.rolloutDtype,
    displacements: unlearn.memory > 0 ? 2 : unlearn.steps > 1 ? 1 : 0,
    // with an adapter the reference is the same weights without it
    reference: objective.klCoef > 0 && lora.rank === 0,
    gradientCheckpointing: optimizer.gradientCheckpointing,
    microBatchTokens: optimizer.microBatchTokens,
    longestPrompt,
    maxNewTokens: rollout.maxNewTokens,
    prompts: rollout.promptsPerIteration,
    // a stage of EEPO draws half of each group
    samplesPerPrompt: unlearn.enabled ? rollout.groupSize / 2 : rollout.groupSize,
    maxRows: rollout.maxRows,
    cacheTokens: rollout.cacheTokens,
    device,
  };
}

/**
 * The plan of a run. `longestPrompt`: default task.maxPromptTokens; `available`: bytes to plan for, default what the
 * device has now.
 */
export async function planRun(
  config: TrainConfig,
  model: PolicyConfig,
  device: TensorDevice,
  { longestPrompt = config.task.maxPromptTokens, available }: { longestPrompt?: number; available?: number } = {},
): Promise<MemoryPlan> {
  const context = Math.max(1, model.maxPositionEmbeddings - config.rollout.maxNewTokens);
  const options = memoryOptions(config, device, Math.min(longestPrompt, context));
  return planMemory(model, options, available ?? (await deviceMemory(device)));
}

async function deviceMemory(device: TensorDevice): Promise<number> {
  return device === 'cpu' ? machineMemory() : (await deviceInfo('cuda')).freeBytes;
}

/** Binary, as the label of a GPU means them: one of "80 GB" has 80 GiB, or a little less. */
const units: Record<string, number> = {
  '': 2 ** 30,
  G: 2 ** 30,
  GB: 2 ** 30,
  GIB: 2 ** 30,
  M: 2 ** 20,
  MB: 2 ** 20,
  MIB: 2 ** 20,
};

/**
 * `80GB`, `79.6GiB`, `512 MiB`; a bare number is in GiB.
 *
 * @throws InvalidArgumentError naming the option
 */
export function parseMemory(text: string, option: string): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(text);
  const unit = units[(match?.[2] ?? '?').toUpperCase()];
  const bytes = Number(match?.[1]) * (unit ?? Number.NaN);
  if (!(bytes > 0 && bytes <= Number.MAX_SAFE_INTEGER)) {
    throw new InvalidArgumentError(`${option} ${text}: expected an amount of memory such as 80GB or 512MB`);
  }
  return bytes;
}
