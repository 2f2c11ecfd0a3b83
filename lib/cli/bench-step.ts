/** `eepo bench step`: how long an iteration takes, and where the time goes. */
import type { Command } from 'commander';
import { InvalidArgumentError } from '../errors.js';
import { modelFolder } from '../hub/index.js';
import { loadNative } from '../native.js';
import { Policy } from '../policy.js';
import type { Problem, Task } from '../tasks/types.js';
import { Tokenizer } from '../tokenizer.js';
import { defineConfig } from '../train/config.js';
import { checkModelFolder } from '../train/load.js';
import { type Metrics, peakMemoryMiB } from '../train/metrics.js';
import { uniformStream } from '../train/prompt-stream.js';
import { type Iteration, type TrainablePolicy, Trainer, type TrainerTokenizer } from '../train/trainer.js';
import { formatTable, wholeNumber, withInterrupt } from './common.js';
import { hubProgress } from './hub-progress.js';

export type Algorithm = 'grpo' | 'eepo';

/** What is measured. */
export interface StepBenchOptions {
  prompts: number;
  group: number;
  /** Every response has exactly so many tokens. */
  maxNew: number;
  promptLength: number;
  /** Optimizer steps per iteration. */
  updates: number;
  /** Coefficient of the KL penalty; above 0 adds a reference model. */
  kl: number;
  /** Timed iterations of each algorithm. */
  iterations: number;
  warmup: number;
  microBatchTokens: number;
  seed: number;
}

/** Milliseconds of one phase, mean over the timed iterations, and its share of the iteration. */
export interface PhaseTime {
  ms: number;
  share: number;
}

export interface StepBenchResult {
  algorithm: Algorithm;
  ms: { min: number; median: number; mean: number };
  /** Response tokens per second of a whole iteration, at the median. */
  tokensPerSecond: number;
  phases: Record<string, PhaseTime>;
}

const PHASES = ['stage1', 'unlearn', 'stage2', 'reward', 'reference', 'update'] as const;

/** Problems whose prompts are random ids, and a reward that is 0 or 1 at random, so that advantages are not 0. */
function syntheticTask(vocabSize: number, options: StepBenchOptions): { task: Task; prompts: Map<string, number[]> } {
  const uniform = uniformStream(options.seed + 1);
  const prompts = new Map(
    Array.from({ length: options.prompts }, (_, i) => [
      `synthetic ${i}`,
      Array.from({ length: options.promptLength }, () => Math.floor(uniform() * vocabSize)),
    ]),
  );
  const train = [...prompts.keys()].map((prompt, i): Problem => ({ id: `${i}`, prompt, answer: null }));
  const reward: Task['reward'] = (inputs) => inputs.map(() => (uniform() < 0.5 ? 0 : 1));
  return { task: { name: 'synthetic', splits: { train }, reward }, prompts };
}

/** A trainer whose every iteration does the same amount of work. */
function benchTrainer(
  algorithm: Algorithm,
  policy: TrainablePolicy,
  tokenizer: Pick<TrainerTokenizer, 'decode'>,
  options: StepBenchOptions,
): Trainer {
  const { task, prompts } = syntheticTask(policy.config.vocabSize, options);
  const config = defineConfig({
    run: { iterations: options.warmup + options.iterations, seed: options.seed },
    rollout: { promptsPerIteration: options.prompts, groupSize: options.group, maxNewTokens: options.maxNew },
    // Every token takes part, whatever the entropies of this model are: the dearest case.
    unlearn: { enabled: algorithm === 'eepo', gate: 'always' },
    objective: { klCoef: options.kl },
    optimizer: {
      lr: 1e-6,
      miniBatchPrompts: options.prompts / options.updates,
      microBatchTokens: options.microBatchTokens,
    },
  });
  return new Trainer({
    policy,
    tokenizer: {
      encodePrompt: (prompt) => prompts.get(String(prompt)) ?? [],
      decode: (ids) => tokenizer.decode(ids),
    },
    task,
    config,
    stopTokens: [],
  });
}

const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((x, y) => x - y);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] as number)) / 2;
};

const mean = (values: readonly number[]): number => values.reduce((sum, v) => sum + v, 0) / values.length;

function summarize(algorithm: Algorithm, timed: readonly Metrics[], options: StepBenchOptions): StepBenchResult {
  const ms = timed.map((metrics) => (metrics['timing_s/iteration'] as number) * 1000);
  const phases = Object.fromEntries(
    PHASES.flatMap((phase) => {
      const times = timed.flatMap((metrics) => metrics[`timing_s/${phase}`] ?? []);
      return times.length === 0 ? [] : [[phase, { ms: mean(times) * 1000, share: (mean(times) * 1000) / mean(ms) }]];
    }),
  );
  return {
    algorithm,
    ms: { min: Math.min(...ms), median: median(ms), mean: mean(ms) },
    tokensPerSecond: (options.prompts * options.group * options.maxNew) / (median(ms) / 1000),
    phases,
  };
}

/**
 * Times iterations of one or both algorithms. Several take turns, iteration by iteration, so that a machine that
 * becomes slower or faster meanwhile does so for both.
 */
export async function benchSteps(
  policy: TrainablePolicy,
  tokenizer: Pick<TrainerTokenizer, 'decode'>,
  algorithms: readonly Algorithm[],
  options: StepBenchOptions,
): Promise<StepBenchResult[]> {
  if (options.prompts % options.updates !== 0) {
    throw new InvalidArgumentError(`--updates ${options.updates} does not divide --prompts ${options.prompts}`);
  }
  const runs = algorithms.map((algorithm) => ({
    algorithm,
    iterator: benchTrainer(algorithm, policy, tokenizer, options)[Symbol.asyncIterator](),
    timed: [] as Metrics[],
  }));
  try {
    for (let i = 0; i < options.warmup + options.iterations; i++) {
      for (const { iterator, timed } of runs) {
        const { value } = (await iterator.next()) as IteratorResult<Iteration, undefined>;
        if (i >= options.warmup && value) timed.push(value.metrics);
      }
    }
  } finally {
    for (const { iterator } of runs) await iterator.return?.(undefined);
  }
  return runs.map(({ algorithm, timed }) => summarize(algorithm, timed, options));
}

interface CliOptions {
  model: string;
  prompts: number;
  group: number;
  maxNew: number;
  promptLength: number;
  algorithm: string;
  compare?: boolean;
  updates: number;
  kl: string;
  iterations: number;
  warmup: number;
  threads?: number;
  microBatchTokens: number;
  seed: number;
  device: 'auto' | 'cpu' | 'cuda';
  json?: boolean;
}

export function register(bench: Command): void {
  const whole = wholeNumber;
  bench
    .command('step')
    .description('time iterations on random prompts with random rewards; every response has exactly --max-new tokens')
    .requiredOption('--model <folder>', 'model folder in Hugging Face layout')
    .option('--prompts <n>', 'prompts per iteration', whole('prompts', 1), 16)
    .option('--group <n>', 'samples per prompt', whole('group', 2), 8)
    .option('--max-new <n>', 'tokens per response', whole('max-new', 1), 64)
    .option('--prompt-length <n>', 'tokens per prompt', whole('prompt-length', 1), 16)
    .option('--algorithm <name>', 'grpo or eepo', 'eepo')
    .option('--compare', 'both algorithms, in turns, and the ratio of their times')
    .option('--updates <n>', 'optimizer steps per iteration', whole('updates', 1), 1)
    .option('--kl <x>', 'coefficient of the KL penalty; 0 = no reference model', '0')
    .option('--iterations <n>', 'timed iterations', whole('iterations', 1), 10)
    .option('--warmup <n>', 'iterations before the timed ones', whole('warmup', 0), 2)
    .option('--threads <n>', 'CPU threads (default: all)', whole('threads', 1))
    .option('--micro-batch-tokens <n>', 'most tokens in one forward pass', whole('micro-batch-tokens', 1), 2048)
    .option('--seed <n>', 'of prompts, samples and rewards', whole('seed', 0), 0)
    .option('--device <name>', 'auto, cpu or cuda', 'auto')
    .option('--json', 'print JSON')
    .action(benchStep);
}

async function benchStep(cli: CliOptions): Promise<void> {
  const kl = Number(cli.kl);
  if (!(kl >= 0)) throw new InvalidArgumentError(`--kl ${cli.kl}: expected a number of at least 0`);
  if (cli.algorithm !== 'grpo' && cli.algorithm !== 'eepo') {
    throw new InvalidArgumentError(`--algorithm ${cli.algorithm}: expected grpo or eepo`);
  }
  const { prompts, group, maxNew, promptLength, updates, iterations, warmup, microBatchTokens, seed } = cli;
  const options = { prompts, group, maxNew, promptLength, updates, kl, iterations, warmup, microBatchTokens, seed };
  const algorithms: Algorithm[] = cli.compare ? ['grpo', 'eepo'] : [cli.algorithm];
  const native = loadNative();
  if (cli.threads !== undefined) native.setThreads(cli.threads);
  await withInterrupt(async (signal) => {
    const folder = await modelFolder(cli.model, { signal, onProgress: hubProgress() });
    checkModelFolder(folder);
    const tokenizer = await Tokenizer.load(folder);
    const policy = await Policy.load(folder, { device: cli.device, signal });
    try {
      const results = await benchSteps(policy, tokenizer, algorithms, options);
      const [first, second] = results;
      const ratio = first && second ? second.ms.median / first.ms.median : null;
      const { threads, isa } = native.info();
      const machine = { device: policy.device, threads, isa, peakMemoryMiB: peakMemoryMiB() };
      if (cli.json) {
        const model = { path: cli.model, parameters: policy.numParameters };
        console.log(JSON.stringify({ model, machine, options, results, eepoOverGrpo: ratio }, null, 2));
        return;
      }
      console.log(
        `${policy.numParameters.toLocaleString('en-US')} parameters, ${policy.device}, ${threads} threads, ${isa}`,
      );
      console.log(`${prompts} prompts x ${group} samples x ${maxNew} tokens\n`);
      console.log(benchTable(results));
      if (ratio !== null)
        console.log(`\nan EEPO iteration takes ${ratio.toFixed(2)} times as long as a GRPO iteration (median)`);
    } finally {
      policy.dispose();
    }
  });
}

/** One row per algorithm and phase. */
export function benchTable(results: readonly StepBenchResult[]): string {
  const rows = results.flatMap(({ algorithm, ms, tokensPerSecond, phases }) => [
    [algorithm, ms.min.toFixed(1), ms.median.toFixed(1), '100 %', Math.round(tokensPerSecond).toString()],
    ...Object.entries(phases).map(([phase, time]) => [
      `  ${phase}`,
      '',
      time.ms.toFixed(1),
      `${(time.share * 100).toFixed(1)} %`,
      '',
    ]),
  ]);
  return formatTable(['', 'min ms', 'median ms', 'share', 'tokens/s'], rows);
}
