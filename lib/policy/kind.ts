/** What kind of policy is made: its dtype, whether it is trained, its adapter. */
import {
  type AdapterFiles,
  type Lora,
  type LoraOptions,
  loraScale,
  normalizeLora,
  readAdapterConfig,
} from '../adapter.js';
import { InvalidArgumentError, UnsupportedError } from '../errors.js';
import type { NativeModelOptions } from '../native-model.js';
import { describe } from '../options.js';
import type { ModelChoices, WeightDType } from '../policy-types.js';
import { wholeNumber } from './arguments.js';

/** What kind of model a policy is. */
export interface PolicyKind {
  dtype: WeightDType;
  trainable: boolean;
  lora: Readonly<Lora> | null;
}

/** What the native side is told of a new model, and what the policy says of itself. */
export async function modelOptions(options: ModelChoices): Promise<{ kind: PolicyKind; native: NativeModelOptions }> {
  const { dtype = 'float32', trainable = true } = options;
  if (dtype !== 'float32' && dtype !== 'bfloat16') {
    throw new UnsupportedError(`dtype ${describe(dtype)} is not supported; use "float32" or "bfloat16"`);
  }
  if (options.lora && options.adapter !== undefined) {
    throw new InvalidArgumentError('pass lora (a new adapter) or adapter (one from a folder), not both');
  }
  if (!options.lora && options.adapter === undefined) {
    return { kind: { dtype, trainable, lora: null }, native: { dtype, trainable, adapter: null } };
  }
  if (!trainable) {
    throw new InvalidArgumentError(
      'leave trainable out with an adapter: its base is frozen, and gradients and moments of A and B are made only when it is trained',
    );
  }
  if (options.adapter !== undefined && typeof options.adapter !== 'string') {
    throw new InvalidArgumentError(`adapter must be the path of a folder, got ${describe(options.adapter)}`);
  }
  const read = options.adapter === undefined ? null : await readAdapterConfig(options.adapter);
  const { path, ...lora } = read ? withPath(read) : { ...normalizeLora(options.lora as LoraOptions), path: null };
  const seed = wholeNumber(options.lora?.seed ?? 0, 'lora.seed', 0);
  const { rank, targets } = lora;
  const adapter = { rank, scale: loraScale(lora), targets, seed, path };
  // the base is frozen: it needs no master copy
  return { kind: { dtype, trainable, lora }, native: { dtype, trainable: false, adapter } };
}

const withPath = ({ weights: path, ...lora }: AdapterFiles) => ({ ...lora, path });
