/** The loop of a run: iterations become lines, and every now and then a checkpoint. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AbortedError, CheckpointError, ConfigError, UnsupportedError } from '../errors.js';
import { weightsFingerprint } from '../eval/settings.js';
import { packageRoot } from '../native.js';
import { BestMetric } from './best-metric.js';
import type { CheckpointContent, CheckpointState } from './checkpoint-state.js';
import { CheckpointStore, PARTS } from './checkpoint-store.js';
import type { TrainConfig } from './config.js';
import { finiteOnly, type Metrics } from './metrics.js';
import type { OpenCheckpoint } from './resume.js';
import type { RunSummary, TrainRunOptions } from './run.js';
import type { RunDirectory } from './run-directory.js';
import { checkLines, cutLines } from './run-lines.js';
import { removeEventFiles, TensorBoardLog } from './tensorboard.js';
import type { Iteration, Trainer, TrainSample } from './trainer.js';

/** How a run ended before its last iteration. */
export interface StoppedRun {
  run: string;
  /** Iterations done that a checkpoint or a line tells of. */
  iteration: number;
  /** The checkpoint to go on from; null: there is none. */
  checkpoint: string | null;
  /** Why the state at the end could not be saved; null: it was, or was there already. */
  failure: Error | null;
}

const LINES = ['metrics.jsonl', 'completions.jsonl'] as const;
const TENSORBOARD = 'tensorboard';
/** Of float32 weights and two moments. */
const BYTES_PER_PARAMETER = 12;

/** Whether something of theta' is kept from one iteration to the next. */
const remembers = ({ unlearn }: TrainConfig): boolean => unlearn.enabled && unlearn.memory > 0;

/** One line of completions.jsonl. */
export function completionRow(iteration: number, sample: TrainSample): object {
  return {
    iteration,
    problem: sample.problem.id,
    prompt: sample.problem.prompt,
    response: sample.response,
    stage: sample.stage,
    reward: sample.reward,
    ...(sample.rewards === undefined ? {} : { rewards: sample.rewards }),
    advantage: sample.advantage,
    finishReason: sample.finishReason,
  };
}

export class RunLoop {
  readonly #run: RunDirectory;
  readonly #trainer: Trainer;
  readonly #options: TrainRunOptions;
  readonly #config: TrainConfig;
  readonly #store: CheckpointStore;
  readonly #best: BestMetric;
  readonly #history: RunSummary['history'] = [];
  readonly #initial: CheckpointState['initial'];
  #tensorboard: TensorBoardLog | null = null;
  /** Seconds of the processes before this one. */
  #before = 0;
  #start = performance.now();
  /** The newest checkpoint that is known to be whole, and what it holds. */
  #saved: { path: string; state: string } | null = null;
  #failed = 0;
  #saving = 0;
  /** An iteration whose lines could not be written: no checkpoint may claim them. */
  #unwritten = false;

  constructor(run: RunDirectory, trainer: Trainer, options: TrainRunOptions) {
    const { policy, config } = options;
    this.#run = run;
    this.#trainer = trainer;
    this.#options = options;
    this.#config = config;
    this.#best = new BestMetric(config.checkpoint);
    this.#store = new CheckpointStore(run.path, {
      keepLast: config.checkpoint.keepLast,
      memory: remembers(config),
      estimate:
        (BYTES_PER_PARAMETER + (remembers(config) ? 4 : 0)) *
        ((policy as { numTrainable?: number }).numTrainable ?? policy.numParameters),
      onEvent: options.onEvent,
    });
    const folder = policy.folder ?? null;
    this.#initial = { folder, fingerprint: folder === null ? null : weightsFingerprint(folder) };
  }

  /** A run from its first iteration: what an attempt without checkpoints left is removed. */
  begin(): void {
    for (const name of ['summary.json', ...LINES]) this.#run.cut(name, 0);
  }

  /**
   * Weights, optimizer, position and files as they were when the checkpoint was saved.
   *
   * @throws ConfigError where the model or the prompts are others; InvalidFileError for files that are not readable
   */
  async restore({ path, iteration: done, state }: OpenCheckpoint, acceptChanges: boolean): Promise<void> {
    const { policy } = this.#options;
    if (!policy.restoreWeights || !policy.loadOptimizer) {
      throw new UnsupportedError(
        'this policy cannot go on from a checkpoint: it has no restoreWeights and loadOptimizer',
      );
    }
    if (!acceptChanges) {
      this.#checkInitial(state);
      checkLines(this.#run, state.offsets);
    }
    this.#trainer.restore(state.trainer, acceptChanges);
    await policy.restoreWeights(join(path, policy.adapter ? PARTS.adapter : PARTS.model));
    await policy.loadOptimizer(join(path, PARTS.optimizer));
    // not there where the configuration has changed since
    if (remembers(this.#config) && PARTS.memory in state.files) await policy.loadMemory?.(join(path, PARTS.memory));
    this.#best.restore(state.best);
    this.#store.goOnFrom({ path, iteration: done }, this.#best.iteration);
    this.#run.remove('summary.json');
    for (const text of cutLines(this.#run, state.offsets)) this.#note(text);
    for (const { iteration, ...metrics } of this.#run.readLines('metrics.jsonl')) {
      this.#history.push({ iteration: Number(iteration), metrics: metrics as Metrics });
    }
    this.#before = state.seconds;
    this.#saved = { path, state: JSON.stringify(this.#trainer.state()) };
  }

  /** The reference and an adapter's base come from model.path, not from the checkpoint. */
  #checkInitial({ initial }: CheckpointState): void {
    const { objective, lora, model } = this.#config;
    if (objective.klCoef === 0 && lora.rank === 0) return;
    if (initial.fingerprint === this.#initial.fingerprint) return;
    throw new ConfigError(
      `model.path = ${JSON.stringify(model.path)}: these are not the files that the run began with (${initial.folder}), ` +
        'and the KL penalty or the adapter needs those; a commit as model.revision never changes',
    );
  }

  #note(text: string): void {
    this.#options.onNote?.(text);
  }

  /** Iterates, and writes the end of the run. @param promptsLeftOut - for the summary */
  async train(promptsLeftOut: number): Promise<RunSummary> {
    this.#start = performance.now();
    this.#openTensorBoard();
    this.#warnOfShortage();
    try {
      for await (const iteration of this.#trainer) {
        this.#write(iteration);
        this.#options.onIteration?.(iteration);
        if (this.#isDue(iteration)) await this.#checkpoint();
      }
      return await this.#end(promptsLeftOut);
    } catch (error) {
      await this.#stop(error);
      throw error;
    }
  }

  #openTensorBoard(): void {
    const folder = this.#run.file(TENSORBOARD);
    if (this.#config.run.tensorboard) this.#tensorboard = new TensorBoardLog(folder, this.#history);
    else removeEventFiles(folder);
  }

  #write({ iteration, metrics: own, samples }: Iteration): void {
    const metrics = {
      ...own,
      ...finiteOnly({
        'timing_s/checkpoint': this.#saving || null,
        'checkpoint/failed': this.#failed || null,
      }),
    };
    this.#saving = 0;
    const every = this.#config.run.completionsEvery;
    const sizes = LINES.map((name) => this.#run.size(name));
    try {
      this.#run.mustBeThere();
      if (every > 0 && iteration % every === 0) this.#writeSamples(iteration, samples);
      this.#run.appendLines('metrics.jsonl', [{ iteration, ...metrics }]);
    } catch (cause) {
      this.#unwritten = true;
      for (const [i, name] of LINES.entries()) if (this.#run.has(name)) this.#run.cut(name, sizes[i] as number);
      throw new CheckpointError(
        `the lines of iteration ${iteration} could not be written to ${this.#run.path} (${(cause as Error).message}); ` +
          (this.#saved === null ? 'there is no checkpoint' : `the last good checkpoint is ${this.#saved.path}`),
        { cause },
      );
    }
    this.#history.push({ iteration, metrics });
    this.#tensorboard?.append({ iteration, metrics });
    if (iteration > 0) this.#best.see(iteration, metrics);
  }

  #writeSamples(iteration: number, samples: readonly TrainSample[]): void {
    this.#run.appendLines(
      'completions.jsonl',
      samples.map((sample) => completionRow(iteration, sample)),
    );
  }

  #isDue({ iteration }: Iteration): boolean {
    const { every } = this.#config.checkpoint;
    if (iteration === 0) return false;
    const last = iteration === this.#config.run.iterations;
    return (every > 0 && (iteration % every === 0 || last)) || this.#best.iteration === iteration;
  }

  /** Saves; what goes wrong is told, and training goes on. */
  async #checkpoint(): Promise<void> {
    const start = performance.now();
    try {
      await this.#save();
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
      this.#failed += 1;
      process.emitWarning(`${error.message}. Training goes on`, 'EepoCheckpointWarning');
    }
    this.#saving = (performance.now() - start) / 1000;
    this.#warnOfShortage();
  }

  async #save(): Promise<void> {
    const { policy, tokenizer } = this.#options;
    const state = this.#trainer.state();
    const text = JSON.stringify(state);
    if (this.#saved?.state === text) return;
    this.#run.mustBeThere();
    if (!policy.saveOptimizer) throw new CheckpointError('this policy cannot be saved: it has no saveOptimizer');
    const path = await this.#store.save(
      state.iteration,
      policy,
      tokenizer,
      () => this.#content(),
      this.#best.current?.iteration ?? null,
    );
    this.#saved = { path, state: text };
  }

  /** What state.json says; the lines it counts are on the disk by then. */
  #content(): CheckpointContent {
    this.#run.sync([...LINES, 'evals']);
    const [metrics, completions] = LINES.map((name) => this.#run.size(name)) as [number, number];
    return {
      trainer: this.#trainer.state(),
      offsets: { 'metrics.jsonl': metrics, 'completions.jsonl': completions },
      seconds: this.#seconds(),
      best: this.#best.current,
      config: this.#config,
      initial: this.#initial,
      eepo: eepoVersion(),
      node: process.version,
      device: this.#options.policy.device,
    };
  }

  #seconds(): number {
    return this.#before + (performance.now() - this.#start) / 1000;
  }

  #warnOfShortage(): void {
    const { every } = this.#config.checkpoint;
    const short = every > 0 ? this.#store.shortage() : null;
    if (short !== null) {
      process.emitWarning(`the next checkpoint will not fit: ${short}; free some, or lower checkpoint.keepLast`, {
        type: 'EepoCheckpointWarning',
      });
    }
  }

  /** The final weights and the summary, which makes the run complete. */
  async #end(promptsLeftOut: number): Promise<RunSummary> {
    const { policy, tokenizer } = this.#options;
    await this.#run.saveModel('model', policy, tokenizer);
    if (policy.adapter) await this.#run.saveFolder('adapter', async (folder) => policy.saveAdapter?.(folder));
    this.#run.sync([...LINES, 'evals', TENSORBOARD]);
    const history = this.#history;
    const summary: RunSummary = {
      path: this.#run.path,
      iterations: this.#trainer.iteration,
      seconds: this.#seconds(),
      first: history[0]?.iteration === 0 ? history[0].metrics : {},
      last: history.at(-1)?.metrics ?? {},
      weights: await policy.hash(),
      history,
    };
    const { history: _, path: __, ...rest } = summary;
    this.#run.write('summary.json', `${JSON.stringify({ ...rest, promptsLeftOut, node: process.version }, null, 2)}\n`);
    return summary;
  }

  /** Saves the last whole iteration of a run that was aborted or failed, and says where. */
  async #stop(error: unknown): Promise<void> {
    let failure: Error | null = null;
    try {
      await this.#saveStopped();
    } catch (problem) {
      failure = problem as Error;
    }
    this.#options.onStop?.({
      run: this.#run.path,
      iteration: this.#trainer.iteration,
      checkpoint: this.#saved?.path ?? null,
      failure: failure === error ? null : failure,
    });
  }

  async #saveStopped(): Promise<void> {
    if (this.#unwritten) return;
    this.#run.mustBeThere();
    if (!this.#trainer.atBoundary) {
      throw new CheckpointError(
        'the error came between two optimizer steps of an iteration, whose weights are no state to go on from',
      );
    }
    const { unfinished } = this.#trainer;
    const every = this.#config.run.completionsEvery;
    // its metrics wait in state.json for the evaluation; the responses do not
    if (unfinished !== null && every > 0 && unfinished.iteration % every === 0) {
      this.#writeSamples(unfinished.iteration, unfinished.samples);
    }
    await this.#save();
  }
}

/** Whether an error is the end that was asked for. */
export const isAbort = (error: unknown): boolean => error instanceof AbortedError;

let version: string | undefined;
function eepoVersion(): string {
  version ??= (JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }).version;
  return version;
}
