/** Folders of runs as `eepo train` leaves them, with made-up numbers; and what a stranger could put there. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { SetSummary } from '../../lib/eval/summary.js';

export interface MadeRun {
  /** Default 12. */
  iterations?: number;
  /** Whether it has a second stage. Default true. */
  unlearn?: boolean;
  /** Whether it came to its end. Default true. */
  complete?: boolean;
  seed?: number;
  /** Names of the sets of its evaluations; those of one word have intervals. Default test and ood. */
  sets?: string[];
}

const config = ({ iterations = 12, unlearn = true, seed = 0 }: MadeRun): string => `[run]
iterations = ${iterations}
seed = ${seed}

[model]
path = "models/countdown"

[task]
name = "countdown"

[rollout]
promptsPerIteration = 2
groupSize = 4

[optimizer]
lr = 5e-5

[unlearn]
enabled = ${unlearn}
alpha = 0.3
`;

/** What an iteration measures. */
export function metricsOf(iteration: number, unlearn = true): Record<string, number> {
  const wave = Math.sin(iteration) / 20;
  const second = {
    'rollout/stage2/entropy': 0.35 + wave,
    'rollout/stage2/reward': 0.38 - wave,
    'rollout/stage2/response_length': 12 + wave,
    'unlearn/open_frac': 0.5 + wave,
    'unlearn/clamped_frac': 0.1,
    'unlearn/relative_step': 4e-4,
    'unlearn/stage1_logp_delta': -0.02 + wave / 10,
    'actor/clip_frac/stage2': 0.02,
    'actor/ratio/stage2/mean': 1 + wave / 10,
    'actor/ratio/stage2/max': 3 + wave,
    'timing_s/unlearn': 0.05,
    'timing_s/stage2': 0.02,
  };
  return {
    'reward/mean': 0.4 + wave,
    'reward/frac_zero_std': 0.25,
    'rollout/stage1/entropy': 0.3 - iteration / 200,
    'rollout/stage1/reward': 0.4 + wave,
    'rollout/stage1/response_length': 11 + wave,
    ...(unlearn ? second : {}),
    'actor/clip_frac/stage1': 0.001,
    'actor/ratio/stage1/mean': 1,
    'actor/ratio/stage1/max': 1.2,
    'actor/kl': iteration / 1000,
    'actor/grad_norm': 1 + wave,
    'timing_s/stage1': 0.02,
    'timing_s/update': 0.1,
    'timing_s/iteration': unlearn ? 0.2 : 0.13,
  };
}

export const line = (row: object): string => `${JSON.stringify(row)}\n`;

function evaluated(set: string, iteration: number): Record<string, number> {
  const up = iteration / 100;
  return {
    [`eval/${set}/greedy`]: 0.5 + up,
    [`eval/${set}/pass@1`]: 0.3 + up,
    [`eval/${set}/pass@8`]: 0.8 - up,
    [`eval/${set}/entropy`]: 0.3 - up,
    [`eval/${set}/distinct`]: 4 - up,
  };
}

function summaryOf(iteration: number): SetSummary {
  const estimate = (value: number) => ({
    value,
    standardError: 0.04,
    interval: [value - 0.08, Math.min(1, value + 0.08)] as [number, number],
  });
  return {
    problems: 100,
    greedy: estimate(0.5 + iteration / 100),
    samples: 8,
    avgAtK: estimate(0.3 + iteration / 100),
    majAtK: {},
    passAtK: { 1: estimate(0.3 + iteration / 100), 8: estimate(0.8 - iteration / 100) },
    distinctPerSolved: 4,
    distinctAlgebraicPerSolved: null,
    greedyResponses: null,
    sampledResponses: null,
    sampledProblems: 100,
    solved: 50,
    rows: [],
  };
}

/** Two prompts; stage 2 finds a second solution of the first and the only one of the second. */
export function completionsOf(iteration: number, unlearn = true): object[] {
  const said = (problem: string, stage: 1 | 2, response: string, reward: number | null) => ({
    iteration,
    problem,
    prompt: `${problem.replace(/,/g, ' ').replace('>', ' _ > ')}`,
    response,
    stage: unlearn ? stage : 1,
    reward,
    advantage: 0,
    finishReason: response.endsWith('.') ? 'stop' : 'length',
  });
  return [
    said('4,5,5,8>12', 1, '8 + 5 13 + 4 17 - 5 12 .', 1),
    said('4,5,5,8>12', 1, '8 + 5 13 + 4 17 - 5 12 .', 1),
    said('4,5,5,8>12', 2, '8 - 5 3 + 5 8 + 4 12 .', 1),
    said('4,5,5,8>12', 2, '8 - 5 3 * 5 15 - 4 9 + 2 11 .', 0),
    said('1,2,7,8>59', 1, '8 + 1 9 * 7 63 - 2 59 .', 0),
    said('1,2,7,8>59', 1, '8 + 2 10 * 7 70 - 1', 0),
    said('1,2,7,8>59', 2, '8 * 7 56 + 2 58 + 1 59 .', 1),
    said('1,2,7,8>59', 2, '8 * 7 56 + 2 58 - 1 59 .', null),
  ];
}

/** Makes the folder of a run; returns its path. */
export function makeRun(folder: string, made: MadeRun = {}): string {
  const { iterations = 12, unlearn = true, complete = true, sets = ['test', 'ood'] } = made;
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'config.toml'), config(made));
  const evaluations = [0, iterations];
  const rows = Array.from({ length: iterations + 1 }, (_, iteration) => ({
    iteration,
    ...(iteration === 0 ? {} : metricsOf(iteration, unlearn)),
    ...(evaluations.includes(iteration) ? Object.assign({}, ...sets.map((set) => evaluated(set, iteration))) : {}),
  }));
  writeFileSync(join(folder, 'metrics.jsonl'), rows.map(line).join(''));
  writeFileSync(join(folder, 'completions.jsonl'), completionsOf(iterations, unlearn).map(line).join(''));
  for (const iteration of evaluations) {
    for (const set of sets.filter((name) => /^\w+$/.test(name))) {
      const path = join(folder, 'evals', `iteration-${String(iteration).padStart(6, '0')}`, set);
      mkdirSync(path, { recursive: true });
      writeFileSync(join(path, 'summary.json'), JSON.stringify(summaryOf(iteration)));
    }
  }
  if (complete) writeFileSync(join(folder, 'summary.json'), JSON.stringify({ iterations, seconds: 3.5 }));
  return folder;
}

/** Markup that would run if a page took it for its own, and what hides text. */
export const HOSTILE = `</script><script>window.stolen=1</script><img src=x onerror="stolen=1">{b|x}"'\`&amp;\u202e`;
