/** A training run on disk: what it reads, the folder it writes, and the loop between the two. */
import { ConfigError } from '../errors.js';
import type { MemoryPlan } from '../memory/fit.js';
import { checkOptions, type OptionKeys, SIGNAL } from '../options.js';
import type { PolicyLike } from '../policy.js';
import type { Task } from '../tasks/types.js';
import type { Tokenizer } from '../tokenizer.js';
import type { CheckpointEvent } from './checkpoint-store.js';
import type { TrainConfig } from './config.js';
import { acceptChanges } from './config-changes.js';
import { configToToml } from './config-file.js';
import { configNotes } from './config-notes.js';
import { makeEvaluator } from './evaluation.js';
import type { Metrics } from './metrics.js';
import { type OpenCheckpoint, openCheckpoint, type ResumePoint, resumePoint, runConfig } from './resume.js';
import { RunDirectory } from './run-directory.js';
import { RunLoop, type StoppedRun } from './run-loop.js';
import { type Iteration, Trainer, type TrainerEvent } from './trainer.js';

/** What happens inside a run, for a display. */
export type RunEvent = TrainerEvent | CheckpointEvent;

/** What a run needs, loaded. */
export interface LoadedRun {
  policy: PolicyLike;
  tokenizer: Tokenizer;
  task: Task;
  /** Its bound of the key-value cache is used where rollout.cacheTokens is 0. */
  memory?: MemoryPlan;
}

export interface TrainRunOptions extends LoadedRun {
  config: TrainConfig;
  /** The folder of the run; must be new or empty, unless `resume` is given. */
  out?: string;
  /**
   * Go on with a run: 'latest', with the newest checkpoint of `out`, which may be new; or the folder of a run or of one
   * of its checkpoints. `policy` is loaded as for a new run, from `model.path`: it is the reference of the KL penalty
   * and the base of an adapter, and then takes up the weights of the checkpoint.
   */
  resume?: string;
  /** Go on even if the configuration or the training prompts have changed in a way that makes another run of it. */
  acceptChanges?: boolean;
  signal?: AbortSignal;
  onEvent?: (event: RunEvent) => void;
  /** Called after every iteration, once its line is on disk. */
  onIteration?: (iteration: Iteration) => void;
  /** What the user should know: a value hardly meant, where the run goes on, what has changed, what is damaged. */
  onNote?: (text: string) => void;
  /** Called when the run ends before its last iteration, aborted or failed, before the error is thrown. */
  onStop?: (stopped: StoppedRun) => void;
}

const KEYS: OptionKeys<TrainRunOptions> = {
  policy: true,
  tokenizer: true,
  task: true,
  memory: true,
  config: true,
  out: true,
  resume: true,
  acceptChanges: true,
  onEvent: true,
  onIteration: true,
  onNote: true,
  onStop: true,
  ...SIGNAL,
};

export interface RunSummary {
  path: string;
  iterations: number;
  /** Wall clock of the loop, over all processes that had a part in the run. */
  seconds: number;
  /** Metrics of the evaluation before the first iteration; empty without one. */
  first: Metrics;
  /** Metrics of the last iteration. */
  last: Metrics;
  /** SHA-256 of the final weights. */
  weights: string;
  /** Every iteration, without samples. */
  history: { iteration: number; metrics: Metrics }[];
}

/** A cache that holds every response at its longest may not fit: then it has the bound that was planned. */
function withinMemory(config: TrainConfig, memory: MemoryPlan | undefined): TrainConfig {
  const { rollout } = config;
  if (rollout.cacheTokens > 0 || memory === undefined) return config;
  return { ...config, rollout: { ...rollout, cacheTokens: memory.options.cacheTokens } };
}

/**
 * Trains and writes a run folder. What can be found wrong is found before the folder is made. A run that ends early, by
 * `signal` or an error, saves a checkpoint of its last whole iteration first; `onStop` says where it is. A run that goes
 * on from a checkpoint writes the same bytes as one that was never stopped (on a CPU; times excepted).
 *
 * @throws BusyError where another process works in the folder; ConfigError for a configuration that has changed, key by
 *   key; InvalidFileError where no checkpoint is whole
 */
export async function trainRun(options: TrainRunOptions): Promise<RunSummary> {
  checkOptions(options, KEYS, 'trainRun');
  const { policy, tokenizer, task, signal } = options;
  for (const text of configNotes(options.config)) options.onNote?.(text);
  const point = whereOf(options);
  const config = withinMemory(options.config, options.memory);
  const { evaluate, check } = makeEvaluator(policy, tokenizer, task, config, signal, point.run);
  const reference = point.resume && config.objective.klCoef > 0 ? await policy.clone() : null;
  let run: RunDirectory | null = null;
  try {
    const trainer = new Trainer({
      policy,
      tokenizer,
      task,
      config,
      evaluate: async (iteration) => {
        run?.mustBeThere();
        return evaluate(iteration);
      },
      ...(reference === null ? {} : { reference }),
      ...(signal === undefined ? {} : { signal }),
      ...(options.onEvent === undefined ? {} : { onEvent: options.onEvent }),
    });
    const { tooLong } = await trainer.prepare();
    await check();
    run = point.resume ? RunDirectory.open(point.run) : RunDirectory.create(point.run);
    // first, as it puts back what a killed process has moved aside
    const loop = new RunLoop(run, trainer, options);
    const checkpoint = point.resume ? await found(point, options) : null;
    if (checkpoint !== null) await loop.restore(checkpoint, options.acceptChanges ?? false);
    else loop.begin();
    run.write('config.toml', configToToml(config));
    return await loop.train(tooLong);
  } finally {
    run?.release();
    reference?.dispose();
  }
}

/** The folder of the run, and whether there is one already. */
function whereOf({ out, resume, onNote }: TrainRunOptions): ResumePoint & { resume: boolean } {
  if (resume === undefined) {
    if (out === undefined) throw new ConfigError('trainRun({ out, ... }): the folder of the run is missing');
    return { run: out, checkpoint: null, resume: false };
  }
  const point = resumePoint(resume, out);
  const exists = RunDirectory.isRun(point.run);
  if (!exists) onNote?.(`${point.run} has no run to go on with: a new one begins there`);
  return { ...point, resume: exists };
}

/** The checkpoint to go on from, or null where the run has none yet and begins again. */
async function found(point: ResumePoint, options: TrainRunOptions): Promise<OpenCheckpoint | null> {
  const note = options.onNote ?? (() => {});
  const checkpoint = await openCheckpoint(point, note);
  const old = checkpoint?.state.config ?? runConfig(point.run);
  const what = checkpoint?.path ?? point.run;
  for (const text of acceptChanges(old, options.config, what, options.acceptChanges ?? false)) note(text);
  if (checkpoint === null) note(`${point.run} has no checkpoint yet: the run begins again, from iteration 1`);
  else note(goingOn(checkpoint, options.config.run.iterations));
  return checkpoint;
}

function goingOn({ iteration, path }: OpenCheckpoint, asked: number): string {
  return iteration > asked
    ? `${path} is of iteration ${iteration}, beyond run.iterations = ${asked}: nothing is trained, its model is written`
    : `going on after iteration ${iteration} of ${asked}, from ${path}`;
}

export { defaultRunPath, RunDirectory, timestamp } from './run-directory.js';
export type { StoppedRun } from './run-loop.js';
