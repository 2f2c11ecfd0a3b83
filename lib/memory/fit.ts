/** Whether a run fits, and what to change where it does not. */
import { existsSync, readFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import type { PolicyConfig } from '../config-json.js';
import { ConfigError } from '../errors.js';
import { estimateMemory, type MemoryEstimate, type MemoryOptions } from './estimate.js';

/** Part of the memory that is left alone: fragments, other programs, what no formula knows. */
const RESERVE = 0.05;

/** Rows that ought to be drawn side by side: with fewer, generation crawls. */
const USEFUL_ROWS = 8;

export interface MemoryPlan extends MemoryEstimate {
  options: MemoryOptions;
  /** Bytes the device has, as far as a run may use them. */
  available: number;
  fits: boolean;
  /** What to change, the cheapest first; empty where it fits, and where no option makes it fit. */
  advice: string[];
}

/**
 * Estimates a run and fits it into `available` bytes. Where only the key-value cache is too large it is bounded
 * (`options.cacheTokens`), because that costs time and changes no result; everything else is the user's choice.
 */
export function planMemory(config: PolicyConfig, options: MemoryOptions, available: number): MemoryPlan {
  const usable = available * (1 - RESERVE);
  const bounded = boundCache(config, options, usable);
  const estimate = estimateMemory(config, bounded);
  if (estimate.total <= usable) return { ...estimate, options: bounded, available, fits: true, advice: [] };
  // what it would take at least: a cache of any size would do, so the smallest useful one is shown
  const least = options.cacheTokens > 0 ? options : { ...options, cacheTokens: usefulCache(options, estimate) };
  const advice = adviceFor(config, options, usable);
  return { ...estimateMemory(config, least), options: least, available, fits: false, advice };
}

/** Tokens of the smallest cache that is of use. */
function usefulCache(options: MemoryOptions, { cacheTokensLeast, cacheTokensMost }: MemoryEstimate): number {
  const rows = Math.min(USEFUL_ROWS, options.prompts * options.samplesPerPrompt);
  return Math.min(rows * cacheTokensLeast, cacheTokensMost);
}

/** `options` with a cache that fills what the rest leaves, if that is enough to be of use. */
function boundCache(config: PolicyConfig, options: MemoryOptions, usable: number): MemoryOptions {
  if (options.cacheTokens > 0) return options;
  const estimate = estimateMemory(config, options);
  if (estimate.total <= usable) return options;
  const rest =
    (options.device === 'cpu' ? estimate.total : estimate.generation) -
    estimate.cacheTokensMost * estimate.cacheBytesPerToken;
  // a bounded cache may need less for growing
  const { cacheBytesPerToken } = estimateMemory(config, { ...options, cacheTokens: estimate.cacheTokensLeast });
  const tokens = Math.floor((usable - rest) / cacheBytesPerToken / 16) * 16;
  return tokens >= usefulCache(options, estimate) ? { ...options, cacheTokens: tokens } : options;
}

interface Change {
  text: string;
  apply: (options: MemoryOptions) => MemoryOptions;
  possible: (options: MemoryOptions) => boolean;
}

/** What saves memory, from what costs least to what changes most. */
const changes: Change[] = [
  {
    text: 'optimizer.gradientCheckpointing = true (layers are computed twice; same results)',
    possible: ({ gradientCheckpointing }) => !gradientCheckpointing,
    apply: (options) => ({ ...options, gradientCheckpointing: true }),
  },
  {
    text: 'optimizer.microBatchTokens = 1 (no more than one sequence at a time; same results)',
    possible: ({ microBatchTokens, longestPrompt, maxNewTokens }) => microBatchTokens > longestPrompt + maxNewTokens,
    apply: (options) => ({ ...options, microBatchTokens: 1 }),
  },
  {
    text: 'model.dtype = "bfloat16" (weights in half the memory, a float32 master copy for the optimizer)',
    possible: ({ dtype }) => dtype === 'float32',
    apply: (options) => ({ ...options, dtype: 'bfloat16' }),
  },
  {
    text: 'unlearn.rolloutDtype = "same" (theta\' in the type of the weights)',
    possible: ({ unlearning, rolloutDtype }) => unlearning && rolloutDtype === 'float32',
    apply: (options) => ({ ...options, rolloutDtype: 'same' }),
  },
  {
    text: 'objective.klCoef = 0 (no reference model)',
    possible: ({ reference, lora }) => reference && lora === null,
    apply: (options) => ({ ...options, reference: false }),
  },
  {
    text: 'lora.rank = 64 (only an adapter is trained; eta and lr need other values)',
    possible: ({ lora }) => lora === null,
    apply: (options) => ({ ...options, lora: { rank: 64 } }),
  },
  {
    text: 'lora.rank = 16 (a smaller adapter)',
    possible: ({ lora }) => lora !== null && lora.rank > 16,
    apply: (options) => (options.lora === null ? options : { ...options, lora: { ...options.lora, rank: 16 } }),
  },
  {
    text: 'a smaller rollout.maxNewTokens (512 is enough)',
    possible: ({ maxNewTokens }) => maxNewTokens > 512,
    apply: (options) => ({ ...options, maxNewTokens: 512 }),
  },
];

/** The shortest list of changes, in order, after which it fits; one alone where one is enough. */
function adviceFor(config: PolicyConfig, options: MemoryOptions, usable: number): string[] {
  const fits = (candidate: MemoryOptions): boolean =>
    estimateMemory(config, boundCache(config, candidate, usable)).total <= usable;
  const possible = changes.filter((change) => change.possible(options));
  const alone = possible.find((change) => fits(change.apply(options)));
  if (alone) return [alone.text];
  let current = options;
  const taken: Change[] = [];
  for (const change of possible) {
    current = change.apply(current);
    taken.push(change);
    if (!fits(current)) continue;
    // leave out again what was not needed after all, the last taken excepted
    const needed = taken.filter(
      (candidate) =>
        candidate === change ||
        !fits(taken.filter((other) => other !== candidate).reduce((o, other) => other.apply(o), options)),
    );
    return (fits(needed.reduce((o, other) => other.apply(o), options)) ? needed : taken).map(({ text }) => text);
  }
  return [];
}

/** Bytes this process may use of the machine's memory: a container's limit, or all there is. */
export function machineMemory(): number {
  const total = totalmem();
  for (const path of ['/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes']) {
    if (!existsSync(path)) continue;
    const limit = Number(readFileSync(path, 'utf8').trim());
    if (Number.isFinite(limit) && limit > 0) return Math.min(total, limit);
  }
  return total;
}

/** The plan as a table: what is held when, the sums, and what there is. */
export function memoryTable(plan: MemoryPlan): string[] {
  const rows = [...plan.items].sort((a, b) => b.bytes - a.bytes);
  const header = ['', 'always', 'generation', 'training'];
  const cells = (phase: string, bytes: number): string[] =>
    ['always', 'generation', 'training'].map((name) => (name === phase ? gibibytes(bytes) : ''));
  const table = [
    header,
    ...rows.map(({ name, bytes, phase, how }) => [name, ...cells(phase, bytes), how]),
    ['most at a time', '', gibibytes(plan.generation), gibibytes(plan.training)],
    ['the device has', gibibytes(plan.available), '', '', `${RESERVE * 100} % are left free`],
  ];
  const widths = [0, 1, 2, 3].map((c) => Math.max(...table.map((row) => (row[c] ?? '').length)));
  return table.map((row) =>
    row
      .map((cell, c) =>
        c === 0 ? cell.padEnd(widths[0] as number) : c < 4 ? cell.padStart(widths[c] as number) : cell,
      )
      .join('  ')
      .trimEnd(),
  );
}

export const gibibytes = (bytes: number): string =>
  bytes >= 2 ** 30 / 10 ? `${(bytes / 2 ** 30).toFixed(2)} GiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** @throws ConfigError with the table and the options that would make it fit */
export function requireFit(plan: MemoryPlan, source: string): void {
  if (plan.fits) return;
  const lines = (rows: readonly string[]): string => rows.map((row) => `\n  ${row}`).join('');
  const way =
    plan.advice.length === 0
      ? 'No option makes it fit: it takes a smaller model or a device with more memory'
      : `It would fit with${plan.advice.length > 1 ? ' all of' : ''}:${lines(plan.advice)}`;
  throw new ConfigError(
    `${source}: this run does not fit into the memory of the device${lines(memoryTable(plan))}\n${way}`,
  );
}
