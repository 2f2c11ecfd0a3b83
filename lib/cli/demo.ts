/** `eepo demo`: EEPO (and GRPO) train the embedded countdown policy before one's eyes. */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { ConfigError } from '../errors.js';
import { packageRoot } from '../native.js';
import { loadTrainConfig, type TrainConfig } from '../train/config.js';
import { loadRun } from '../train/load.js';
import type { Metrics } from '../train/metrics.js';
import { formatSeconds } from '../train/progress.js';
import { type RunSummary, timestamp } from '../train/run.js';
import { formatTable, show, wholeNumber, withInterrupt } from './common.js';
import { trainWithProgress } from './train.js';

interface Options {
  compare?: boolean;
  seed: number;
  iterations?: number;
  out?: string;
  quick?: boolean;
}

export function register(program: Command): void {
  program
    .command('demo')
    .description('train the embedded policy with EEPO and show what happened')
    .option('--compare', 'run GRPO beside it, on the same seed')
    .option('--seed <n>', 'seed of the run', wholeNumber('seed', 0), 0)
    .option('--iterations <n>', 'iterations (default: those of configs/eepo.toml)', wholeNumber('iterations', 1))
    .option('--out <folder>', 'folder of the runs (default: runs/demo-<time>)')
    .option('--quick', 'a handful of iterations and problems: does everything work?')
    .action(demo);
}

function demoConfig(algorithm: 'eepo' | 'grpo', options: Options): TrainConfig {
  return loadTrainConfig(join(packageRoot, 'configs', `${algorithm}.toml`), [
    `run.seed=${options.seed}`,
    ...(options.quick ? ['run.iterations=6', 'eval.maxProblems=20', 'eval.sampleProblems=10'] : []),
    ...(options.iterations === undefined ? [] : [`run.iterations=${options.iterations}`]),
  ]);
}

async function demo(options: Options): Promise<void> {
  const out = options.out ?? join('runs', `demo-${timestamp()}`);
  if (existsSync(out)) throw new ConfigError(`${out} exists; give another folder with --out`);
  const start = performance.now();
  const work = async (signal: AbortSignal): Promise<void> => {
    const run = async (algorithm: 'eepo' | 'grpo'): Promise<RunSummary> => {
      const config = demoConfig(algorithm, options);
      const loaded = await loadRun(config, signal);
      try {
        const name = algorithm.toUpperCase();
        console.error(
          `${name}: ${config.run.iterations} iterations of ${config.rollout.promptsPerIteration} prompts x ` +
            `${config.rollout.groupSize} samples, ${loaded.policy.numParameters.toLocaleString('en-US')} parameters`,
        );
        return await trainWithProgress(config, loaded, join(out, algorithm), signal, `${name} `);
      } finally {
        loaded.policy.dispose();
      }
    };
    console.error(
      'countdown: reach a target from given numbers, each used once, e.g. "2 3 7 9 _ > 41"; reward 1 if right, else 0',
    );
    const eepo = await run('eepo');
    const grpo = options.compare ? await run('grpo') : null;
    console.log(`\n${demoReport(eepo, grpo)}\n`);
    const seconds = (performance.now() - start) / 1000;
    console.log(`${formatSeconds(seconds)} in all; runs: ${resolve(out)}`);
  };
  await withInterrupt(work, () => (existsSync(out) ? `${out} keeps the metrics so far` : 'nothing was written'));
}

const ROWS: [string, string, number][] = [
  ['test: greedy', 'eval/test/greedy', 3],
  ['test: pass@1', 'eval/test/pass@1', 3],
  ['test: pass@8', 'eval/test/pass@8', 3],
  ['test: pass@64', 'eval/test/pass@64', 3],
  ['test: distinct correct solutions', 'eval/test/distinct', 2],
  ['test: entropy (nats)', 'eval/test/entropy', 3],
  ['five numbers: greedy', 'eval/ood/greedy', 3],
  ['five numbers: pass@1', 'eval/ood/pass@1', 3],
  ['five numbers: pass@8', 'eval/ood/pass@8', 3],
  ['five numbers: pass@64', 'eval/ood/pass@64', 3],
  ['five numbers: distinct correct solutions', 'eval/ood/distinct', 2],
];

/** The report that a demo ends with. */
export function demoReport(eepo: RunSummary, grpo: RunSummary | null): string {
  const results = formatTable(
    ['', 'before', 'EEPO', ...(grpo ? ['GRPO'] : [])],
    ROWS.map(([title, name, digits]) => [
      title,
      show(eepo.first[name], digits),
      show(eepo.last[name], digits),
      ...(grpo ? [show(grpo.last[name], digits)] : []),
    ]),
  );
  return [
    results,
    '',
    entropyTable(eepo, grpo),
    '',
    'What to look at',
    ...lookAt(eepo, grpo).map((l) => `- ${l}`),
  ].join('\n');
}

type History = RunSummary['history'];

const trained = ({ history }: RunSummary): History => history.filter(({ iteration }) => iteration > 0);

/** The mean of a metric over some iterations; undefined where none has it. */
export function meanOf(history: History, name: string): number | undefined {
  const values = history.map(({ metrics }) => metrics[name]).filter((value) => value !== undefined);
  return values.length === 0 ? undefined : values.reduce((sum, v) => sum + v, 0) / values.length;
}

const H1 = 'rollout/stage1/entropy';
const H2 = 'rollout/stage2/entropy';

/** Entropies of the stages and rewards, six blocks of iterations. */
export function entropyTable(eepo: RunSummary, grpo: RunSummary | null): string {
  const mine = trained(eepo);
  const size = Math.max(1, Math.ceil(mine.length / 6));
  const rows: string[][] = [];
  for (let from = 0; from < mine.length; from += size) {
    const block = mine.slice(from, from + size);
    const other = grpo ? trained(grpo).slice(from, from + size) : [];
    rows.push([
      `${from + 1}-${from + block.length}`,
      show(meanOf(block, H1)),
      show(meanOf(block, H2)),
      show(meanOf(block, 'rollout/stage1/reward')),
      show(meanOf(block, 'rollout/stage2/reward')),
      ...(grpo ? [show(meanOf(other, H1)), show(meanOf(other, 'rollout/stage1/reward'))] : []),
    ]);
  }
  return formatTable(
    [
      'iterations',
      'EEPO entropy 1',
      'entropy 2',
      'reward 1',
      'reward 2',
      ...(grpo ? ['GRPO entropy', 'GRPO reward'] : []),
    ],
    rows,
  );
}

const change = (before: Metrics, after: Metrics, name: string, digits = 2): string =>
  `${show(before[name], digits)} -> ${show(after[name], digits)}`;

/** What this run shows, measured; and what it does not show. */
export function lookAt(eepo: RunSummary, grpo: RunSummary | null): string[] {
  const history = trained(eepo);
  const both = history.filter(({ metrics }) => metrics[H1] !== undefined && metrics[H2] !== undefined);
  const above = both.filter(({ metrics }) => (metrics[H2] as number) > (metrics[H1] as number)).length;
  const means = (name: string): string => show(meanOf(both, name));
  const lines = [
    `Learning: pass@1 on held-out problems ${change(eepo.first, eepo.last, 'eval/test/pass@1')}, ` +
      `on five numbers (none in training) ${change(eepo.first, eepo.last, 'eval/ood/pass@1')}.`,
    `Sample, then forget: stage 2 has the higher entropy in ${above} of ${both.length} iterations (mean ${means(H2)} against ` +
      `${means(H1)} of stage 1). It avoids what stage 1 just said, which costs reward: ${means('rollout/stage2/reward')} ` +
      `against ${means('rollout/stage1/reward')}.`,
    `The price of sharpening: pass@64 ${change(eepo.first, eepo.last, 'eval/test/pass@64')}, distinct correct solutions ` +
      `${change(eepo.first, eepo.last, 'eval/test/distinct')}. The policy gets surer of what it could do; it finds no new skill.`,
  ];
  if (grpo) {
    const late = (run: RunSummary): number | undefined => meanOf(trained(run).slice(-20), H1);
    lines.push(
      `EEPO against GRPO, same seed: entropy of stage 1 at the end ${show(late(eepo))} against ${show(late(grpo))}, pass@64 ` +
        `${show(eepo.last['eval/test/pass@64'], 2)} against ${show(grpo.last['eval/test/pass@64'], 2)}, pass@1 ` +
        `${show(eepo.last['eval/test/pass@1'], 2)} against ${show(grpo.last['eval/test/pass@1'], 2)}.`,
      'One seed is one draw. Over several, EEPO slows the collapse of entropy and keeps more distinct solutions and a higher ' +
        'pass@64, at a cost in pass@1; a tuned entropy bonus (configs/grpo-entropy.toml) does as well here.',
    );
  } else {
    lines.push('Beside plain GRPO: npm run demo -- --compare. One seed is one draw; --seed 1 gives another.');
  }
  return lines;
}
