/**
 * What a run will hold in the device's memory, item by item, from the sizes alone: nothing is loaded. Every formula
 * names what the native side allocates; test/memory.test.ts compares them with what it really does.
 */
import type { PolicyConfig } from '../config-json.js';
import type { LoraTarget } from '../lora-targets.js';
import { countAdapter, countParameters } from './parameters.js';

/** What decides the memory of a run. */
export interface MemoryOptions {
  dtype: 'float32' | 'bfloat16';
  /** null: every weight is trained. */
  lora: { rank: number; targets?: readonly LoraTarget[] } | null;
  /** false: only generation and evaluation, no gradients and no optimizer. Default true. */
  training?: boolean;
  /** EEPO: the copy theta'. */
  unlearning: boolean;
  /** Of theta'. */
  rolloutDtype: 'same' | 'float32';
  /** Copies of theta' - theta: 1 for several steps of unlearning, 2 where it is remembered. Default 0. */
  displacements?: number;
  /** A reference model for the KL penalty. */
  reference: boolean;
  gradientCheckpointing: boolean;
  microBatchTokens: number;
  /** Tokens of the longest prompt. */
  longestPrompt: number;
  maxNewTokens: number;
  /** Prompts of one call of generate, and the samples it draws of each. */
  prompts: number;
  samplesPerPrompt: number;
  /** 0: all at once. */
  maxRows: number;
  /** 0: as many as there are. */
  cacheTokens: number;
  device: 'cpu' | 'cuda';
}

/** When memory is held: all the time, while responses are drawn, or while gradients are formed. */
export type MemoryPhase = 'always' | 'generation' | 'training';

export interface MemoryItem {
  name: string;
  bytes: number;
  phase: MemoryPhase;
  /** How the bytes come about. */
  how: string;
}

export interface MemoryEstimate {
  items: MemoryItem[];
  /** Bytes of each phase, what is always held included. */
  generation: number;
  training: number;
  /** The larger of the two; on a CPU, where buffers are kept from phase to phase, the sum of all items. */
  total: number;
  /** Of one token in the key-value cache, what it takes to grow included. */
  cacheBytesPerToken: number;
  /** Tokens the cache needs for every response at its longest. */
  cacheTokensMost: number;
  /** Tokens without which not even one response fits. */
  cacheTokensLeast: number;
}

const FLOAT = 4;

/** The whole estimate. */
export function estimateMemory(config: PolicyConfig, options: MemoryOptions): MemoryEstimate {
  const cache = cacheTokens(options);
  const perToken = cacheBytesPerToken(config);
  const held = options.cacheTokens > 0 ? Math.min(options.cacheTokens, cache.most) : cache.most;
  const growth = cacheGrowth(options);
  const items: MemoryItem[] = [
    ...weightItems(config, options),
    ...(options.training === false ? [] : [activations(config, options)]),
    {
      name: 'key-value cache',
      bytes: held * perToken * growth,
      phase: 'generation' as const,
      how:
        `${count(held)} tokens of ${count(perToken)} bytes${options.cacheTokens > 0 ? '' : ', every response at its longest'}` +
        (growth > 1 ? ', half as much again while it grows' : ''),
    },
    prefill(config, options),
    ...heads(config, options),
    ...(options.device === 'cuda'
      ? [{ name: 'CUDA and cuBLAS', bytes: 1.2 * 2 ** 30, phase: 'always' as const, how: 'typical' }]
      : []),
  ].filter(({ bytes }) => bytes > 0);
  const sum = (...phases: MemoryPhase[]): number =>
    items.filter(({ phase }) => phases.includes(phase)).reduce((total, { bytes }) => total + bytes, 0);
  const generation = sum('always', 'generation');
  const training = sum('always', 'training');
  return {
    items,
    generation,
    training,
    total: options.device === 'cpu' ? sum('always', 'generation', 'training') : Math.max(generation, training),
    cacheBytesPerToken: perToken * growth,
    cacheTokensMost: cache.most,
    cacheTokensLeast: cache.least,
  };
}

/** Keys and values of all layers, float32. */
export function cacheBytesPerToken({ numLayers, numKeyValueHeads, headDim }: PolicyConfig): number {
  return numLayers * 2 * numKeyValueHeads * headDim * FLOAT;
}

/** The old cache beside the new one, twice as large; on a GPU a bounded one is taken at once. */
function cacheGrowth({ device, cacheTokens }: MemoryOptions): number {
  return device === 'cuda' && cacheTokens > 0 ? 1 : 1.5;
}

/** Regions of the cache end at multiples of 16 (native/model/cache_pool.h). */
const blocks = (tokens: number): number => Math.ceil(tokens / 16) * 16;

/** The last token's keys and values are never read. */
const ownTokens = (maxNewTokens: number): number => blocks(Math.max(maxNewTokens - 1, 1));

/** Tokens that the key-value cache must hold for one prompt and one response. */
export function cacheTokensFor(promptTokens: number, maxNewTokens: number): number {
  return blocks(promptTokens) + ownTokens(maxNewTokens);
}

/** As native/model/cache_pool.h: regions are multiples of 16; one that grows holds its old region too. */
function cacheTokens(options: MemoryOptions) {
  const { prompts, longestPrompt, maxNewTokens } = options;
  const own = ownTokens(maxNewTokens);
  const rows = rowsAtATime(options);
  return {
    most: prompts * blocks(longestPrompt) + rows * (own * 1.5 + 16),
    least: cacheTokensFor(longestPrompt, maxNewTokens),
  };
}

function weightItems(config: PolicyConfig, options: MemoryOptions): MemoryItem[] {
  const { matrices, vectors } = countParameters(config);
  const all = matrices + vectors;
  const half = options.dtype === 'bfloat16';
  // what forward reads: bfloat16 matrices and float32 vectors, or everything in float32
  const working = half ? 2 * matrices + FLOAT * vectors : FLOAT * all;
  const copies = half ? `${count(matrices)} x 2 bytes + ${count(vectors)} x 4` : `${count(all)} x 4 bytes`;
  const training = options.training !== false;
  const always = (name: string, bytes: number, how: string): MemoryItem => ({ name, bytes, phase: 'always', how });
  const floats = (n: number): [number, string] => [FLOAT * n, `${count(n)} x 4 bytes`];
  const copiesOf = options.displacements ?? 0;
  const displacements = (n: number): MemoryItem[] =>
    copiesOf === 0 ? [] : [always("theta' - theta", copiesOf * FLOAT * n, `${copiesOf} x ${count(n)} x 4 bytes`)];
  const trained = (n: number, theta: MemoryItem[]): MemoryItem[] => [
    // freed while responses are drawn (native/train/model.h)
    { name: 'gradients', bytes: FLOAT * n, phase: 'training', how: `${count(n)} x 4 bytes` },
    always('optimizer (AdamW)', 2 * FLOAT * n, `2 x ${count(n)} x 4 bytes`),
    ...(options.unlearning ? [...theta, ...displacements(n)] : []),
  ];
  if (options.lora !== null || !training) {
    const adapter = options.lora === null ? 0 : countAdapter(config, options.lora.rank, options.lora.targets);
    return [
      always('weights', working, `${copies}, frozen`),
      always('adapter', ...floats(adapter)),
      ...(training ? trained(adapter, [always("rollout copy theta'", ...floats(adapter))]) : []),
    ];
  }
  const theta = options.rolloutDtype === 'float32' ? floats(all) : ([working, copies] as [number, string]);
  return [
    half ? always('weights', 2 * matrices, `${count(matrices)} x 2 bytes`) : always('weights', ...floats(all)),
    ...(half ? [always('master copy', ...floats(all))] : []),
    ...trained(all, [always("rollout copy theta'", ...theta)]),
    ...(options.reference ? [always('reference model', working, copies)] : []),
  ];
}

/** What forward keeps for backward (native/model/decoder.h), and what both work in. */
function activations(config: PolicyConfig, options: MemoryOptions): MemoryItem {
  const { hiddenSize: dim, intermediateSize: ffn, numHeads, numKeyValueHeads, headDim, numLayers } = config;
  const query = numHeads * headDim;
  const key = numKeyValueHeads * headDim;
  const width = query + 2 * key;
  const layer =
    dim +
    1 +
    width +
    (config.qkNorm ? query + key + numHeads + numKeyValueHeads : 0) +
    query +
    numHeads +
    dim +
    1 +
    2 * ffn;
  const kept = options.gradientCheckpointing ? numLayers * dim + layer : numLayers * layer;
  const scratch = 2 * dim + 2 * Math.max(dim, query) + ffn + 2 * ffn + Math.max(width, ffn, query);
  // hidden states and their gradients, of the policy and of a pass without gradients
  const ends = 5 * dim;
  const tokens = trainingTokens(options);
  return {
    name: 'activations',
    phase: 'training',
    bytes: tokens * (kept + scratch + ends) * FLOAT,
    how: `${count(tokens)} tokens x ${count(kept + scratch + ends)} x 4 bytes${options.gradientCheckpointing ? ', checkpointed' : ''}`,
  };
}

/** The prompts' pass keeps one layer at a time (native/model/generate.cc: 8,192 tokens, or one prompt). */
function prefill(config: PolicyConfig, options: MemoryOptions): MemoryItem {
  const { hiddenSize: dim, intermediateSize: ffn, numHeads, numKeyValueHeads, headDim } = config;
  const query = numHeads * headDim;
  const width = query + 2 * numKeyValueHeads * headDim;
  const all = options.prompts * options.longestPrompt;
  const tokens = Math.min(all, Math.max(8192, options.longestPrompt));
  const floats = width + query + 3 * ffn + 2 * dim + Math.max(dim, query);
  return {
    name: 'prompts being read',
    bytes: tokens * floats * FLOAT,
    phase: 'generation',
    how: `${count(tokens)} tokens x ${count(floats)} x 4 bytes`,
  };
}

/** Logits exist for one chunk of rows (native/kernels/linear_head.h, native/cuda/head_chunks.h, native/model/generate.cc). */
function heads(config: PolicyConfig, options: MemoryOptions): MemoryItem[] {
  const row = config.vocabSize * FLOAT;
  const chunk = options.device === 'cuda' ? 2 ** 30 : Math.max(8 * 2 ** 20, 32 * row);
  const half = options.dtype === 'bfloat16';
  const training: MemoryItem = {
    name: 'logits of a chunk',
    bytes: Math.min(chunk, trainingTokens(options) * row) * (half ? 1.5 : 1),
    phase: 'training',
    how: half ? 'float32, their gradient bfloat16' : 'float32',
  };
  const drawing: MemoryItem = {
    name: 'logits of a step',
    bytes: Math.min(64 * 2 ** 20, rowsAtATime(options) * row),
    phase: 'generation',
    how: 'float32',
  };
  return options.training === false ? [drawing] : [training, drawing];
}

/** Samples that are drawn side by side, if memory allows. */
function rowsAtATime({ prompts, samplesPerPrompt, maxRows }: MemoryOptions): number {
  const samples = prompts * samplesPerPrompt;
  return maxRows > 0 ? Math.min(maxRows, samples) : samples;
}

/** Tokens of the largest micro-batch: the budget, or one sequence that is longer. */
function trainingTokens({ microBatchTokens, longestPrompt, maxNewTokens }: MemoryOptions): number {
  return Math.max(microBatchTokens, longestPrompt + maxNewTokens);
}

const count = (n: number): string => Math.round(n).toLocaleString('en-US');
