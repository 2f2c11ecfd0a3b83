/** How many numbers a model has: by what they are, because each kind is kept differently. */
import type { PolicyConfig } from '../config-json.js';
import { type LoraTarget, loraTargets } from '../lora-targets.js';

export interface ParameterCount {
  /** Of all weight matrices, the embedding and an untied head included. */
  matrices: number;
  /** Norms and biases. */
  vectors: number;
}

/** Inputs and outputs of a projection. */
function shapeOf(config: PolicyConfig, target: LoraTarget): [number, number] {
  const { hiddenSize: dim, intermediateSize: ffn, numHeads, numKeyValueHeads, headDim } = config;
  const query = numHeads * headDim;
  const key = numKeyValueHeads * headDim;
  switch (target) {
    case 'q_proj':
      return [dim, query];
    case 'k_proj':
    case 'v_proj':
      return [dim, key];
    case 'o_proj':
      return [query, dim];
    case 'gate_proj':
    case 'up_proj':
      return [dim, ffn];
    case 'down_proj':
      return [ffn, dim];
  }
}

/** Parameters of the whole model. */
export function countParameters(config: PolicyConfig): ParameterCount {
  const { hiddenSize: dim, vocabSize, numLayers, numHeads, numKeyValueHeads, headDim } = config;
  const layer = loraTargets.reduce((sum, target) => {
    const [inputs, outputs] = shapeOf(config, target);
    return sum + inputs * outputs;
  }, 0);
  const projections = (numHeads + 2 * numKeyValueHeads) * headDim;
  const vectors = 2 * dim + (config.attentionBias ? projections : 0) + (config.qkNorm ? 2 * headDim : 0);
  return {
    matrices: vocabSize * dim * (config.tieWordEmbeddings ? 1 : 2) + numLayers * layer,
    vectors: numLayers * vectors + dim,
  };
}

/** Parameters of a LoRA adapter: rank (inputs + outputs) for every projection it sits on. */
export function countAdapter(config: PolicyConfig, rank: number, targets: readonly LoraTarget[] = loraTargets): number {
  const layer = targets.reduce((sum, target) => {
    const [inputs, outputs] = shapeOf(config, target);
    return sum + rank * (inputs + outputs);
  }, 0);
  return config.numLayers * layer;
}
