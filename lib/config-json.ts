/**
 * Reads a model folder's config.json, in the old style (`rope_theta`, `rope_scaling`) and the new one
 * (`rope_parameters`), and normalises it. Everything the decoder cannot do exactly is refused by name.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { InvalidFileError, UnsupportedError } from './errors.js';
import { parseJsonObject, readBytes } from './read-file.js';
import { normalizeRope, type RopeScaling, refuseSlidingWindow, ropeKeys, windowKeys } from './rope.js';

export type { RopeScaling } from './rope.js';

/** The architectures the decoder knows. */
export const architectures = ['qwen2', 'qwen3', 'llama'] as const;

/** transformers' class of each, as config.json lists it under `architectures`. */
export const classOf = {
  qwen2: 'Qwen2ForCausalLM',
  qwen3: 'Qwen3ForCausalLM',
  llama: 'LlamaForCausalLM',
} as const satisfies Record<(typeof architectures)[number], string>;

/** The normalised content of config.json. */
export interface PolicyConfig {
  modelType: (typeof architectures)[number];
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  numLayers: number;
  numHeads: number;
  numKeyValueHeads: number;
  headDim: number;
  /** Most tokens of a sequence: max_position_embeddings, or what the rope scaling stretches it to (rope.ts). */
  maxPositionEmbeddings: number;
  rmsNormEps: number;
  ropeTheta: number;
  ropeScaling: RopeScaling | null;
  tieWordEmbeddings: boolean;
  /** Bias on the q, k and v projections: qwen2 always, llama and qwen3 with `attention_bias`. */
  attentionBias: boolean;
  /** Bias on the o projection: llama and qwen3 with `attention_bias`. */
  attentionOutputBias: boolean;
  /** RMSNorm of every query and key head (qwen3). */
  qkNorm: boolean;
  /** End-of-sequence ids: generation_config.json first, config.json else; may be empty. */
  eosTokenIds: number[];
  bosTokenId: number | null;
  padTokenId: number | null;
}

/** Sizes and ids are 32-bit in the decoder. */
const largest = 2 ** 31 - 1;
const id = z.number().int().nonnegative().max(largest);
const tokenId = z.union([id, z.array(id)]).nullish();
const count = z.number().int().positive().max(largest);

const schema = z.looseObject({
  model_type: z.string(),
  vocab_size: count,
  hidden_size: count,
  intermediate_size: count,
  // several times as deep as any model is: each layer is memory before a weight is read
  num_hidden_layers: count.max(10_000),
  num_attention_heads: count,
  num_key_value_heads: count.nullish(),
  head_dim: count.nullish(),
  max_position_embeddings: count,
  rms_norm_eps: z.number().positive().max(1),
  ...ropeKeys,
  ...windowKeys,
  tie_word_embeddings: z.boolean().nullish(),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  hidden_act: z.string().nullish(),
  eos_token_id: tokenId,
  bos_token_id: tokenId,
  pad_token_id: tokenId,
});

type RawConfig = z.infer<typeof schema>;

/** transformers' default where config.json leaves `tie_word_embeddings` out. */
const tiedByDefault = { qwen2: false, qwen3: false, llama: false } as const;

/**
 * Checks and normalises the parsed JSON of a config.json.
 *
 * @param json the parsed file; `source` names it in errors.
 * @throws UnsupportedError for an architecture or option the decoder does not have; InvalidFileError for anything
 *   malformed, naming each key.
 */
export function normalizeConfig(json: unknown, source = 'config.json'): PolicyConfig {
  if (typeof json === 'object' && json !== null) refuseKind(json as Record<string, unknown>, source);
  const parsed = schema.safeParse(json);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `  ${issue.path.join('.') || '(root)'}: ${issue.message}`);
    throw new InvalidFileError(`${source} is not a valid model config:\n${problems.join('\n')}`);
  }
  const raw = parsed.data;
  const modelType = raw.model_type as PolicyConfig['modelType'];
  refuse(raw, modelType, source);
  // Qwen 3's heads are 128 wide whatever the hidden size, where config.json leaves it out
  const headDim = raw.head_dim ?? (modelType === 'qwen3' ? 128 : raw.hidden_size / raw.num_attention_heads);
  if (!Number.isInteger(headDim) || headDim % 2 !== 0) {
    throw new InvalidFileError(
      `${source}: head_dim must be an even integer; hidden_size ${raw.hidden_size} over num_attention_heads ` +
        `${raw.num_attention_heads} gives ${headDim}`,
    );
  }
  const numKeyValueHeads = raw.num_key_value_heads ?? raw.num_attention_heads;
  if (raw.num_attention_heads % numKeyValueHeads !== 0) {
    throw new InvalidFileError(
      `${source}: num_attention_heads (${raw.num_attention_heads}) must be a multiple of num_key_value_heads ` +
        `(${numKeyValueHeads})`,
    );
  }
  const { ropeTheta, ropeScaling, context } = normalizeRope(raw, headDim, source);
  refuseSlidingWindow(raw, modelType, context, source);
  return {
    modelType,
    vocabSize: raw.vocab_size,
    hiddenSize: raw.hidden_size,
    intermediateSize: raw.intermediate_size,
    numLayers: raw.num_hidden_layers,
    numHeads: raw.num_attention_heads,
    numKeyValueHeads,
    headDim,
    maxPositionEmbeddings: context,
    rmsNormEps: raw.rms_norm_eps,
    ropeTheta,
    ropeScaling,
    tieWordEmbeddings: raw.tie_word_embeddings ?? tiedByDefault[modelType],
    attentionBias: modelType === 'qwen2' || raw.attention_bias === true,
    // Qwen 2 knows no attention_bias: always one on q, k and v, never on o
    attentionOutputBias: modelType !== 'qwen2' && raw.attention_bias === true,
    qkNorm: modelType === 'qwen3',
    eosTokenIds: idList(raw.eos_token_id),
    bosTokenId: idList(raw.bos_token_id)[0] ?? null,
    padTokenId: idList(raw.pad_token_id)[0] ?? null,
  };
}

/** Models of another kind, by whatever of their config.json tells: before anything is said about single keys. */
function refuseKind(json: Record<string, unknown>, source: string): void {
  const { model_type: type, architectures: given, quantization_config: quantization } = json;
  // a list of something else than names says nothing
  const listed = Array.isArray(given) ? given.filter((name) => typeof name === 'string') : [];
  const supported = `${architectures.join(', ')} (${Object.values(classOf).join(', ')})`;
  if (typeof type === 'string' && !(architectures as readonly string[]).includes(type)) {
    throw new UnsupportedError(`${source}: model_type "${type}" is not supported; supported are ${supported}`);
  }
  if (listed.length > 0) {
    const wanted: string[] =
      typeof type === 'string' ? [classOf[type as keyof typeof classOf]] : Object.values(classOf);
    // the first Llamas were written LLaMAForCausalLM
    const same = (name: string) => wanted.some((known) => known.toLowerCase() === name.toLowerCase());
    if (!listed.some(same)) {
      throw new UnsupportedError(
        `${source}: architecture ${listed.join(', ')} is not supported, only causal language models: ${supported}`,
      );
    }
  }
  if (typeof quantization === 'object' && quantization !== null) {
    const { quant_method: named } = quantization as { quant_method?: unknown };
    const method = typeof named === 'string' ? named : 'unknown method';
    throw new UnsupportedError(
      `${source}: quantized weights (quantization_config: ${method}) are not supported; use the model this one was made ` +
        'from, in float32, bfloat16 or float16',
    );
  }
}

/** Options that change the computation and that the decoder does not have. */
function refuse(raw: RawConfig, modelType: string, source: string): void {
  const no = (what: string) => {
    throw new UnsupportedError(`${source}: ${what} is not supported for ${modelType}`);
  };
  if ((raw.hidden_act ?? 'silu') !== 'silu') no(`hidden_act "${raw.hidden_act}" (only "silu")`);
  if (raw.mlp_bias) no('mlp_bias = true');
}

function idList(value: number | number[] | null | undefined): number[] {
  return value === null || value === undefined ? [] : typeof value === 'number' ? [value] : value;
}

/** A model folder's configuration, with the JSON it came from (for saving it again unchanged). */
export interface LoadedConfig {
  config: PolicyConfig;
  raw: Record<string, unknown>;
}

/**
 * Reads config.json (and the end-of-sequence ids of generation_config.json) of a model folder.
 *
 * @throws InvalidFileError when the folder or file is missing or broken; UnsupportedError as {@link normalizeConfig}.
 */
export async function readConfig(dir: string): Promise<LoadedConfig> {
  const raw = await readJson(join(dir, 'config.json'), dir);
  const config = normalizeConfig(raw, join(dir, 'config.json'));
  const generation = await readJson(join(dir, 'generation_config.json'), null);
  if (generation) {
    const parsed = z.looseObject({ eos_token_id: tokenId }).safeParse(generation);
    if (!parsed.success)
      throw new InvalidFileError(`${join(dir, 'generation_config.json')}: eos_token_id is not an id`);
    const ids = idList(parsed.data.eos_token_id);
    if (ids.length > 0) config.eosTokenIds = ids;
  }
  return { config, raw: raw as Record<string, unknown> };
}

/** The largest index of shards known has 10 MB, the largest config.json 100 kB. */
const MAX_JSON_BYTES = 256 * 2 ** 20;

/** The parsed object of a JSON file; a missing one is an error if `requiredIn` names its folder, else null. */
export async function readJson(path: string, requiredIn: string | null): Promise<Record<string, unknown> | null> {
  const bytes = await readBytes(path, MAX_JSON_BYTES);
  if (bytes !== null) return parseJsonObject(bytes.toString('utf8'), path);
  if (requiredIn === null) return null;
  throw new InvalidFileError(
    `${path} does not exist: ${requiredIn} must be a Hugging Face model folder with config.json and model.safetensors`,
  );
}
