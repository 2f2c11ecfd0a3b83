/** Training runs of a second, for tests of what a run leaves on the disk. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AbortedError } from '../../lib/errors.js';
import { Policy } from '../../lib/policy.js';
import { countdown } from '../../lib/tasks/countdown.js';
import type { Task } from '../../lib/tasks/types.js';
import { Tokenizer } from '../../lib/tokenizer.js';
import { defineConfig, type TrainConfig, type TrainConfigInput } from '../../lib/train/config.js';
import { trainingOptions } from '../../lib/train/load.js';
import {
  type RunEvent,
  type RunSummary,
  type StoppedRun,
  type TrainRunOptions,
  trainRun,
} from '../../lib/train/run.js';
import { embeddedModel } from './data.js';

export type Sections = Partial<TrainConfigInput>;

/** Three iterations of two updates, with an evaluation in the second. */
export function smallConfig(sections: Sections = {}): TrainConfig {
  return defineConfig({
    ...sections,
    run: { iterations: 3, seed: 5, ...sections.run },
    model: { path: embeddedModel, device: 'cpu', ...sections.model },
    rollout: { promptsPerIteration: 4, groupSize: 4, maxNewTokens: 12, ...sections.rollout },
    optimizer: { lr: 1e-4, miniBatchPrompts: 2, ...sections.optimizer },
    objective: { klCoef: 0, ...sections.objective },
    eval: {
      every: 2,
      splits: ['test'],
      maxProblems: 4,
      sampleProblems: 4,
      samplesPerPrompt: 2,
      passK: [1],
      ...sections.eval,
    },
    checkpoint: { every: 1, keepLast: 10, ...sections.checkpoint },
  });
}

/** The embedded task with so few problems that a run goes through them more than once. */
export function smallTask(problems = 10): Task {
  const task = countdown();
  return { ...task, splits: { train: (task.splits.train ?? []).slice(0, problems), test: task.splits.test ?? [] } };
}

/** Trains with a policy that is loaded for it. */
export async function smallRun(
  config: TrainConfig,
  out: string,
  more: Partial<TrainRunOptions> = {},
): Promise<RunSummary> {
  const policy = await Policy.load(embeddedModel, {
    device: 'cpu',
    dtype: config.model.dtype,
    ...trainingOptions(config),
  });
  try {
    const tokenizer = await Tokenizer.load(embeddedModel);
    return await trainRun({ policy, tokenizer, task: smallTask(), config, out, ...more });
  } finally {
    policy.dispose();
  }
}

/** When to stop a run. */
export type Moment = (event: RunEvent) => boolean;

export const atPhase =
  (iteration: number, phase: string): Moment =>
  (event) =>
    event.type === 'phase' && event.iteration === iteration && event.phase === phase;

/** Trains until the moment, as SIGINT would stop it; what `onStop` told. null: it came to its end. */
export async function stoppedRun(
  config: TrainConfig,
  out: string,
  moment: Moment,
  more: Partial<TrainRunOptions> = {},
): Promise<StoppedRun | null> {
  const abort = new AbortController();
  let stopped: StoppedRun | null = null;
  try {
    await smallRun(config, out, {
      ...more,
      signal: abort.signal,
      onEvent: (event) => {
        if (moment(event)) abort.abort(new AbortedError('stopped by the test'));
      },
      onStop: (what) => {
        stopped = what;
      },
    });
  } catch (error) {
    if (!(error instanceof AbortedError)) throw error;
  }
  return stopped;
}

const timed = /^(timing_s|perf)\//;

/** The metrics without what tells times and memory. */
export function steadyMetrics(run: string): Record<string, unknown>[] {
  return readFileSync(join(run, 'metrics.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => {
      const row = JSON.parse(line) as Record<string, unknown>;
      return Object.fromEntries(Object.entries(row).filter(([name]) => !timed.test(name)));
    });
}

/** Everything that must be the same in two runs of one configuration, by name. */
export function outcome(run: string): Record<string, unknown> {
  const summary = JSON.parse(readFileSync(join(run, 'summary.json'), 'utf8')) as RunSummary;
  const { weights, iterations } = summary;
  return {
    weights,
    iterations,
    metrics: steadyMetrics(run),
    completions: readFileSync(join(run, 'completions.jsonl'), 'utf8'),
    ...textsBelow(join(run, 'evals')),
    ...textsBelow(join(run, 'model')),
    ...textsBelow(join(run, 'adapter')),
  };
}

function textsBelow(folder: string): Record<string, string> {
  if (!existsSync(folder)) return {};
  return Object.fromEntries(
    readdirSync(folder, { recursive: true, encoding: 'utf8', withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .map((path) => [path.slice(folder.length - 'evals'.length), readFileSync(path, 'latin1')]),
  );
}
