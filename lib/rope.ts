/**
 * Rotary embeddings and attention windows of a config.json, normalised: old style (`rope_theta`, `rope_scaling`) and new
 * (`rope_parameters`), with the defaults transformers gives. What the decoder would compute differently is refused by
 * name.
 */
import { z } from 'zod';
import { InvalidFileError, UnsupportedError } from './errors.js';

/** The kinds of rotary embedding the decoder has. */
export const ropeTypes = ['default', 'linear', 'dynamic', 'yarn', 'llama3'] as const;

/** All frequencies divided by `factor`. */
export interface LinearRopeScaling {
  type: 'linear';
  factor: number;
}

/**
 * NTK: a sequence longer than the original context stretches the base by its own length, so that every frequency but
 * the highest falls. Up to the original context it changes nothing.
 *
 * Beyond it, a token's rotation depends on how long the whole sequence is, and a forward pass differs from generation
 * on a cache: `score`, `logits` and `forward` rotate all tokens by the length of the whole sequence, as transformers
 * does; `generate` rotates each new token by the length so far, once, and the cached keys keep their rotation, as
 * transformers' `generate` does. So the log-probs recorded when drawing agree with a later forward only up to the
 * original context; train within it.
 */
export interface DynamicRopeScaling {
  type: 'dynamic';
  factor: number;
  /** The length up to which nothing is scaled: max_position_embeddings of config.json. */
  originalMaxPositionEmbeddings: number;
}

/** YaRN: high frequencies kept, low ones divided by `factor`, a linear ramp between; cosine and sine scaled. */
export interface YarnRopeScaling {
  type: 'yarn';
  factor: number;
  originalMaxPositionEmbeddings: number;
  /** What cosine and sine are multiplied by: `attention_factor`, or what factor and mscale make of it. */
  attentionFactor: number;
  /** Turns within the original context above which a frequency is kept, and below which it is divided. */
  betaFast: number;
  betaSlow: number;
  /** Whether the ends of the ramp are rounded to whole frequencies. */
  truncate: boolean;
}

/** Llama 3's rescaling of the rotary frequencies. */
export interface Llama3RopeScaling {
  type: 'llama3';
  factor: number;
  lowFreqFactor: number;
  highFreqFactor: number;
  originalMaxPositionEmbeddings: number;
}

export type RopeScaling = LinearRopeScaling | DynamicRopeScaling | YarnRopeScaling | Llama3RopeScaling;

const positive = z.number().positive();
const count = z
  .number()
  .int()
  .positive()
  .max(2 ** 31 - 1);

const ropeObject = z
  .looseObject({
    rope_type: z.string().nullish(),
    type: z.string().nullish(),
    rope_theta: positive.nullish(),
    factor: z.number().min(1).nullish(),
    original_max_position_embeddings: count.nullish(),
    low_freq_factor: positive.nullish(),
    high_freq_factor: positive.nullish(),
    attention_factor: positive.nullish(),
    beta_fast: z.number().nonnegative().nullish(),
    beta_slow: z.number().nonnegative().nullish(),
    mscale: z.number().nonnegative().nullish(),
    mscale_all_dim: z.number().nonnegative().nullish(),
    truncate: z.boolean().nullish(),
    partial_rotary_factor: z.number().nullish(),
  })
  .nullish();

/** The keys of config.json that this file reads. */
export const ropeKeys = {
  rope_theta: positive.nullish(),
  rope_scaling: ropeObject,
  rope_parameters: ropeObject,
  original_max_position_embeddings: count.nullish(),
  partial_rotary_factor: z.number().nullish(),
};

type RopeObject = NonNullable<z.infer<typeof ropeObject>>;

/** Those keys as they were read. */
export interface RawRope {
  max_position_embeddings: number;
  rope_theta?: number | null | undefined;
  rope_scaling?: RopeObject | null | undefined;
  rope_parameters?: RopeObject | null | undefined;
  original_max_position_embeddings?: number | null | undefined;
  partial_rotary_factor?: number | null | undefined;
}

/** What {@link normalizeRope} makes of them. */
export interface Rope {
  ropeTheta: number;
  ropeScaling: RopeScaling | null;
  /**
   * Most tokens of a sequence: max_position_embeddings, or the original context times the factor where that is more
   * (linear, dynamic and yarn, whose configs often leave max_position_embeddings as it was).
   */
  context: number;
}

/**
 * The rotary embedding of a config.json.
 *
 * @param raw its keys, checked against {@link ropeKeys}; `headDim` of the attention; `source` names the file in errors.
 * @throws UnsupportedError for a type the decoder does not have, naming those it has; InvalidFileError for a key that
 *   the type needs and that is missing or meaningless.
 */
export function normalizeRope(raw: RawRope, headDim: number, source: string): Rope {
  // an empty rope_scaling counts as none, and a full one goes before rope_parameters, as in transformers
  const old = raw.rope_scaling && Object.keys(raw.rope_scaling).length > 0 ? raw.rope_scaling : null;
  const rope = old ?? raw.rope_parameters ?? {};
  const type = rope.rope_type ?? rope.type ?? 'default';
  if (!(ropeTypes as readonly string[]).includes(type)) {
    throw new UnsupportedError(
      `${source}: rope type "${type}" is not supported; supported are ${ropeTypes.join(', ')}`,
    );
  }
  const nested = ['full_attention', 'sliding_attention'].find((key) => key in rope);
  if (nested)
    throw new UnsupportedError(`${source}: rope parameters for each type of layer (${nested}) are not supported`);
  const partial = rope.partial_rotary_factor ?? raw.partial_rotary_factor ?? 1;
  if (partial !== 1) {
    throw new UnsupportedError(
      `${source}: partial_rotary_factor ${partial} is not supported; only whole heads are rotated`,
    );
  }
  const ropeTheta = rope.rope_theta ?? raw.rope_theta ?? 10000;
  const context = raw.max_position_embeddings;
  if (type === 'default') return { ropeTheta, ropeScaling: null, context };
  const ropeScaling = scalingOf(type as RopeScaling['type'], rope, raw, headDim, source);
  const original = originalContext(rope, raw);
  const stretched = type === 'llama3' ? 0 : Math.floor(original * ropeScaling.factor);
  if (stretched >= 2 ** 31) {
    throw new InvalidFileError(
      `${source}: factor ${ropeScaling.factor} stretches a context of ${original} tokens beyond what can be counted`,
    );
  }
  return { ropeTheta, ropeScaling, context: Math.max(context, stretched) };
}

function originalContext(rope: RopeObject, raw: RawRope): number {
  return raw.original_max_position_embeddings ?? rope.original_max_position_embeddings ?? raw.max_position_embeddings;
}

function scalingOf(
  type: RopeScaling['type'],
  rope: RopeObject,
  raw: RawRope,
  headDim: number,
  source: string,
): RopeScaling {
  const need = <K extends keyof RopeObject>(key: K) => {
    const value = rope[key];
    if (value === null || value === undefined) throw new InvalidFileError(`${source}: rope type ${type} needs ${key}`);
    return value;
  };
  const originalMaxPositionEmbeddings = originalContext(rope, raw);
  switch (type) {
    case 'linear':
      return { type, factor: need('factor') };
    case 'dynamic':
      if (headDim <= 2)
        throw new InvalidFileError(`${source}: rope type dynamic needs a head_dim above 2, got ${headDim}`);
      // transformers measures length against max_position_embeddings, whatever the original context is said to be
      return { type, factor: need('factor'), originalMaxPositionEmbeddings: raw.max_position_embeddings };
    case 'yarn': {
      if ((rope.rope_theta ?? raw.rope_theta ?? 10000) <= 1) {
        throw new InvalidFileError(`${source}: rope type yarn needs a rope_theta above 1`);
      }
      // null, unlike a missing key, is the ratio of the two contexts
      const factor =
        rope.factor === null ? raw.max_position_embeddings / originalMaxPositionEmbeddings : need('factor');
      const betaFast = rope.beta_fast || 32;
      const betaSlow = rope.beta_slow || 1;
      return {
        type,
        factor,
        originalMaxPositionEmbeddings,
        attentionFactor: rope.attention_factor ?? inferredAttentionFactor(factor, rope),
        betaFast,
        betaSlow,
        truncate: rope.truncate ?? true,
      };
    }
    case 'llama3': {
      const lowFreqFactor = need('low_freq_factor');
      const highFreqFactor = need('high_freq_factor');
      if (highFreqFactor <= lowFreqFactor) {
        throw new InvalidFileError(
          `${source}: high_freq_factor (${highFreqFactor}) must be above low_freq_factor (${lowFreqFactor})`,
        );
      }
      return { type, factor: need('factor'), lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings };
    }
  }
}

/** YaRN's scale of cosine and sine (Peng et al. 2023, section 3.4), with the two scales DeepSeek's configs divide. */
function inferredAttentionFactor(factor: number, rope: RopeObject): number {
  const scale = (mscale: number) => (factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1);
  return rope.mscale && rope.mscale_all_dim ? scale(rope.mscale) / scale(rope.mscale_all_dim) : scale(1);
}

/** The keys about attention windows. */
export const windowKeys = {
  use_sliding_window: z.boolean().nullish(),
  sliding_window: z.number().nullish(),
  max_window_layers: z.number().int().nonnegative().nullish(),
  layer_types: z.array(z.string()).nullish(),
};

/** Those keys as they were read. */
export interface RawWindow {
  num_hidden_layers: number;
  use_sliding_window?: boolean | null | undefined;
  sliding_window?: number | null | undefined;
  max_window_layers?: number | null | undefined;
  layer_types?: string[] | null | undefined;
}

/** What Qwen 2 and 3 mean where config.json leaves these out. */
const qwenWindow = { size: 4096, firstLayer: 28 };

/**
 * Refuses a sliding window that would change attention within `context` tokens. One that is switched off, that no
 * layer uses or that is at least as long as the context is full attention and passes.
 *
 * @throws UnsupportedError naming the key.
 */
export function refuseSlidingWindow(raw: RawWindow, modelType: string, context: number, source: string): void {
  const other = raw.layer_types?.find((name) => name !== 'full_attention' && name !== 'sliding_attention');
  if (other !== undefined) throw new UnsupportedError(`${source}: a layer of type "${other}" is not supported`);
  const layers = raw.num_hidden_layers;
  if (raw.layer_types && raw.layer_types.length !== layers) {
    throw new InvalidFileError(`${source}: layer_types has ${raw.layer_types.length} entries for ${layers} layers`);
  }
  const size = raw.sliding_window === undefined ? qwenWindow.size : raw.sliding_window;
  const named = raw.layer_types?.indexOf('sliding_attention') ?? -1;
  if (named >= 0) {
    if (raw.use_sliding_window && size !== null && size >= context) return;
    throw new UnsupportedError(
      `${source}: layer_types[${named}] is "sliding_attention" with a window of ${size} tokens in a context of ` +
        `${context}; sliding windows are not supported: every layer must be "full_attention"`,
    );
  }
  if (!raw.use_sliding_window || raw.layer_types || size === null || size >= context) return;
  // the first layers, as many as max_window_layers says, have full attention
  const full = modelType === 'llama' ? 0 : (raw.max_window_layers ?? qwenWindow.firstLayer);
  if (full >= layers) return;
  throw new UnsupportedError(
    `${source}: use_sliding_window with a window of ${size} tokens in a context of ${context} is not supported ` +
      `for ${modelType}: from layer ${full} on attention would see less than it should`,
  );
}
