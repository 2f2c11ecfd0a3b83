/** Low-rank adapters (LoRA) and their files, in the format of Hugging Face's PEFT. */
import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { readJson } from './config-json.js';

import { InvalidArgumentError, InvalidFileError, UnsupportedError } from './errors.js';
import { type LoraTarget, loraTargets } from './lora-targets.js';
import { makeGivenFolder } from './make-folder.js';
import { checkOptions, describe, type OptionKeys } from './options.js';
import { regularFile } from './read-file.js';

export { type LoraTarget, loraTargets };

/** An adapter: y = W x + scale B A x on every target, W frozen, A and B trained. PEFT's names are in brackets. */
export interface LoraOptions {
  /** Rows of A, columns of B [`r`]. */
  rank: number;
  /** scale = alpha / rank [`lora_alpha`]. Default: twice the rank. */
  alpha?: number;
  /** Which layers [`target_modules`]. Default 'all-linear'. */
  targets?: 'all-linear' | readonly LoraTarget[];
  /** scale = alpha / sqrt(rank) [`use_rslora`]. Default false. */
  rslora?: boolean;
  /** [`lora_dropout`] Only 0: log-probs of a training pass must be those of sampling. */
  dropout?: 0;
  /** Of A, drawn uniformly from +-1/sqrt(in) as PEFT does; B is 0, so the model begins as its base. Default 0. */
  seed?: number;
}

/** An adapter with everything decided. */
export interface Lora {
  rank: number;
  alpha: number;
  /** In the order of {@link loraTargets}. */
  targets: LoraTarget[];
  rslora: boolean;
}

const LORA: OptionKeys<LoraOptions> = {
  rank: true,
  alpha: true,
  targets: true,
  rslora: true,
  dropout: true,
  seed: true,
};

const names = loraTargets as readonly string[];
const known = `all-linear, ${loraTargets.join(', ')}`;

/** alpha / rank, or alpha / sqrt(rank). */
export const loraScale = ({ rank, alpha, rslora }: Lora): number => alpha / (rslora ? Math.sqrt(rank) : rank);

/**
 * Checks options and fills in their defaults.
 *
 * @throws InvalidArgumentError naming the option.
 */
export function normalizeLora(options: LoraOptions): Lora {
  checkOptions(options, LORA, 'lora');
  const { rank, targets = 'all-linear', rslora = false, dropout = 0 } = options;
  if (!(Number.isSafeInteger(rank) && rank >= 1 && rank <= 65536)) {
    throw new InvalidArgumentError(`lora.rank must be an integer from 1 to 65536, got ${describe(rank)}`);
  }
  const { alpha = 2 * rank } = options;
  if (!(typeof alpha === 'number' && Number.isFinite(Math.fround(alpha)) && alpha > 0)) {
    throw new InvalidArgumentError(`lora.alpha must be a finite number > 0, got ${describe(alpha)}`);
  }
  if (typeof rslora !== 'boolean')
    throw new InvalidArgumentError(`lora.rslora must be a boolean, got ${describe(rslora)}`);
  if (dropout !== 0) {
    throw new InvalidArgumentError(
      `lora.dropout must be 0, got ${describe(dropout)}: with dropout the log-probs of training would not be those of sampling`,
    );
  }
  if (targets === 'all-linear') return { rank, alpha, targets: [...loraTargets], rslora };
  if (!Array.isArray(targets) || targets.length === 0) {
    throw new InvalidArgumentError(
      `lora.targets must be 'all-linear' or an array of ${known}, got ${describe(targets)}`,
    );
  }
  const other = targets.find((target) => !names.includes(target));
  if (other !== undefined) throw new InvalidArgumentError(`lora.targets: ${describe(other)} is none of ${known}`);
  return { rank, alpha, targets: loraTargets.filter((target) => targets.includes(target)), rslora };
}

const count = z.number().int().positive();
const none = (value: unknown) =>
  value === null || value === undefined || (typeof value === 'object' && Object.keys(value).length === 0);

const schema = z.looseObject({
  peft_type: z.string(),
  r: count.max(65536),
  lora_alpha: z.number().positive().max(3e38),
  target_modules: z.union([z.string(), z.array(z.string()).min(1)]),
  use_rslora: z.boolean().nullish(),
  lora_dropout: z.number().nullish(),
});

/** Keys of adapter_config.json that make another computation, and the values with which they do not. */
const plain: Record<string, (value: unknown) => boolean> = {
  bias: (value) => value === undefined || value === 'none',
  use_dora: (value) => !value,
  fan_in_fan_out: (value) => !value,
  modules_to_save: none,
  rank_pattern: none,
  alpha_pattern: none,
  layers_to_transform: none,
  layer_replication: none,
  lora_bias: (value) => !value,
  use_qalora: (value) => !value,
  alora_invocation_tokens: none,
  target_parameters: none,
  trainable_token_indices: none,
  exclude_modules: none,
  megatron_config: none,
  kasa_config: none,
  arrow_config: none,
  velora_config: none,
  monteclora_config: none,
  use_bdlora: (value) => !value,
  // others (PiSSA, OLoRA, ...) change the base as well
  init_lora_weights: (value) =>
    value === undefined || [null, true, false, 'gaussian', 'orthogonal'].includes(value as null),
};

/** An adapter in a folder: what it is, and the file of its numbers. */
export interface AdapterFiles extends Lora {
  weights: string;
}

/**
 * Reads the adapter_config.json of a folder. `lora_dropout` is ignored (it acts in training alone, and here never).
 *
 * @throws InvalidFileError for a missing or malformed file; UnsupportedError naming what this build cannot compute.
 */
export async function readAdapterConfig(dir: string): Promise<AdapterFiles> {
  const path = join(dir, 'adapter_config.json');
  const raw = await readJson(path, null);
  if (raw === null) {
    throw new InvalidFileError(`${path} does not exist: an adapter is a folder with it and adapter_model.safetensors`);
  }
  const parsed = schema.safeParse(raw);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `  ${issue.path.join('.') || '(root)'}: ${issue.message}`);
    throw new InvalidFileError(`${path} is not a LoRA config:\n${problems.join('\n')}`);
  }
  const { peft_type, r, lora_alpha, target_modules, use_rslora } = parsed.data;
  const no = (what: string) => new UnsupportedError(`${path}: ${what} is not supported`);
  if (peft_type !== 'LORA') throw no(`peft_type "${peft_type}" (only "LORA")`);
  for (const [key, same] of Object.entries(plain)) {
    if (!same(raw[key]))
      throw no(`${key} = ${typeof raw[key] === 'object' ? describe(raw[key]) : JSON.stringify(raw[key])}`);
  }
  const targets = targetsOf(target_modules, no);
  const weights = join(dir, 'adapter_model.safetensors');
  await regularFile(weights).catch((cause) => {
    if (cause instanceof InvalidFileError) throw cause;
    throw new InvalidFileError(`${weights} does not exist; other formats of adapters are not read`, { cause });
  });
  return { rank: r, alpha: lora_alpha, targets, rslora: use_rslora ?? false, weights };
}

function targetsOf(modules: string | string[], no: (what: string) => UnsupportedError): LoraTarget[] {
  if (modules === 'all-linear') return [...loraTargets];
  const list = typeof modules === 'string' ? [modules] : modules;
  const other = list.find((name) => !names.includes(name));
  if (other !== undefined) throw no(`target_modules ${JSON.stringify(other)} (only ${known})`);
  return loraTargets.filter((target) => list.includes(target));
}

/**
 * Writes an adapter's folder: the numbers by `write`, then adapter_config.json. Each file is written beside its name
 * and renamed.
 *
 * @param base the model it belongs to, as PEFT is to find it: a folder or a name on the hub; null if there is none.
 * @throws InvalidArgumentError for a folder that cannot be made.
 */
export async function writeAdapter(
  dir: string,
  lora: Lora,
  base: string | null,
  write: (path: string) => Promise<void>,
): Promise<void> {
  makeGivenFolder(dir);
  const [weights, config] = [join(dir, 'adapter_model.safetensors'), join(dir, 'adapter_config.json')];
  try {
    await write(`${weights}.tmp`);
    await writeFile(`${config}.tmp`, `${JSON.stringify(adapterConfig(lora, base), null, 2)}\n`);
    await rename(`${weights}.tmp`, weights);
    await rename(`${config}.tmp`, config);
  } finally {
    await Promise.all([weights, config].map((path) => rm(`${path}.tmp`, { force: true })));
  }
}

function adapterConfig({ rank, alpha, targets, rslora }: Lora, base: string | null): Record<string, unknown> {
  return {
    base_model_name_or_path: base,
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    lora_alpha: alpha,
    lora_dropout: 0,
    modules_to_save: null,
    peft_type: 'LORA',
    r: rank,
    target_modules: targets,
    task_type: 'CAUSAL_LM',
    use_dora: false,
    use_rslora: rslora,
  };
}
