/** How a checkpoint is divided into files: Hugging Face's names and index. */
import { InvalidArgumentError } from './errors.js';
import { indexFile, singleFile } from './model-folder.js';
import { describe } from './options.js';

/** A tensor of a checkpoint, in the order of the model's layers. */
export interface TensorShape {
  name: string;
  shape: readonly number[];
}

export interface CheckpointPlan {
  /** The files of the weights, each with its tensors. */
  files: { name: string; tensors: string[] }[];
  /** Content of model.safetensors.index.json; null where one file holds everything. */
  index: { metadata: { total_parameters: number; total_size: number }; weight_map: Record<string, string> } | null;
}

/** Files that a save may leave from an older one: every name that {@link planCheckpoint} gives. */
export const isWeightFile = (name: string): boolean =>
  name === singleFile || name === indexFile || /^model-\d{5,}-of-\d{5,}\.safetensors$/.test(name);

/**
 * Divides tensors, in their order, into files of at most `maxShardBytes` (a larger tensor has a file of its own).
 *
 * @param bytesPerElement - 4 for float32, 2 for bfloat16.
 */
export function planCheckpoint(
  layout: readonly TensorShape[],
  bytesPerElement: number,
  maxShardBytes: number,
): CheckpointPlan {
  if (!(typeof maxShardBytes === 'number' && maxShardBytes > 0)) {
    throw new InvalidArgumentError(`maxShardBytes must be a number above 0, got ${describe(maxShardBytes)}`);
  }
  const shards: { tensors: string[]; bytes: number }[] = [];
  let parameters = 0;
  for (const { name, shape } of layout) {
    const elements = shape.reduce((product, size) => product * size, 1);
    const bytes = elements * bytesPerElement;
    parameters += elements;
    const last = shards.at(-1);
    if (last === undefined || last.bytes + bytes > maxShardBytes) shards.push({ tensors: [name], bytes });
    else {
      last.tensors.push(name);
      last.bytes += bytes;
    }
  }
  const number = (value: number) => String(value).padStart(5, '0');
  const files = shards.map(({ tensors }, i) => ({
    name: shards.length === 1 ? singleFile : `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`,
    tensors,
  }));
  if (files.length <= 1) return { files, index: null };
  const places = files.flatMap(({ name, tensors }) => tensors.map((tensor): [string, string] => [tensor, name]));
  return {
    files,
    index: {
      metadata: { total_parameters: parameters, total_size: parameters * bytesPerElement },
      weight_map: Object.fromEntries(places.sort(([a], [b]) => (a < b ? -1 : 1))),
    },
  };
}
