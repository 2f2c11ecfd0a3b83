/** The checkpoints of a run: `checkpoints/iteration-<n>/` and `checkpoints/latest`, the name of the newest. */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { CheckpointError } from '../errors.js';
import type { PolicyLike } from '../policy.js';
import type { Tokenizer } from '../tokenizer.js';
import { type CheckpointContent, STATE_FILE, stateText } from './checkpoint-state.js';
import {
  filesBelow,
  moveFolder,
  sweepTemporaries,
  syncPath,
  syncTree,
  temporaryBeside,
  writeWhole,
} from './durable.js';
import { isRunning } from './run-lock.js';

/** The steps of saving a checkpoint, in their order. */
export type CheckpointStep =
  | 'begin'
  | 'weights'
  | 'optimizer'
  | 'state'
  | 'sync'
  | 'rename'
  | 'latest'
  | 'prune'
  | 'end';

/** Sent right before each step; 'end' after the last. */
export interface CheckpointEvent {
  type: 'checkpoint';
  iteration: number;
  step: CheckpointStep;
}

/** A checkpoint that is there, whole or not. */
export interface Checkpoint {
  path: string;
  iteration: number;
}

/** Weights and moments: what a policy must be able to do to be saved. */
export type CheckpointPolicy = Pick<PolicyLike, 'save' | 'saveAdapter' | 'saveOptimizer' | 'saveMemory' | 'adapter'>;

/** Names of the parts in the folder of a checkpoint. */
export const PARTS = {
  model: 'model',
  adapter: 'adapter',
  optimizer: 'optimizer.safetensors',
  memory: 'unlearn.safetensors',
} as const;

const NAME = /^iteration-(\d{6,})$/;
const nameOf = (iteration: number): string => `iteration-${String(iteration).padStart(6, '0')}`;

export interface StoreOptions {
  keepLast: number;
  /** Whether what is kept of theta' (unlearn.memory) is a part of the state. Default false. */
  memory?: boolean;
  /** Bytes that the first checkpoint will take, about. */
  estimate: number;
  onEvent?: ((event: CheckpointEvent) => void) | undefined;
}

export class CheckpointStore {
  readonly folder: string;
  readonly #run: string;
  readonly #options: StoreOptions;
  #bytes: number;

  constructor(run: string, options: StoreOptions) {
    this.#run = run;
    this.folder = join(run, 'checkpoints');
    this.#options = options;
    this.#bytes = options.estimate;
    if (statSync(this.folder, { throwIfNoEntry: false })?.isDirectory()) sweepTemporaries(this.folder, isRunning);
  }

  /** Newest first. */
  list(): Checkpoint[] {
    return listCheckpoints(this.#run);
  }

  /** Bytes that the next checkpoint will take: those of the last, or the estimate before the first. */
  get nextBytes(): number {
    return this.#bytes;
  }

  /** Bytes that are free for it; null where the file system does not say. */
  free(): number | null {
    try {
      const { bavail, bsize, blocks } = statfsSync(this.#run);
      return blocks === 0 ? null : bavail * bsize;
    } catch {
      return null;
    }
  }

  /** How the next checkpoint does not fit on the disk; null where it does. */
  shortage(): string | null {
    const free = this.free();
    if (free === null || free >= this.#bytes) return null;
    return `a checkpoint takes ${gigabytes(this.#bytes)}, ${this.folder} has ${gigabytes(free)} left`;
  }

  /**
   * Saves a checkpoint: everything into a hidden folder, synced, renamed, then `latest`. Whatever fails or ends the
   * process, the older checkpoints are whole.
   *
   * @param before is called when the weights are written, and says what state.json holds
   * @param best iteration of the checkpoint to keep beside the newest ones
   * @throws CheckpointError that says which checkpoint is the last whole one
   */
  async save(
    iteration: number,
    policy: CheckpointPolicy,
    tokenizer: Pick<Tokenizer, 'save'>,
    before: () => CheckpointContent,
    best: number | null,
  ): Promise<string> {
    const target = join(this.folder, nameOf(iteration));
    const temporary = temporaryBeside(target);
    try {
      this.#step(iteration, 'begin');
      this.#makeFolder();
      if (this.shortage() !== null) this.#prune(iteration, 1, best, false);
      const short = this.shortage();
      if (short !== null) throw new CheckpointError(short);
      rmSync(temporary, { recursive: true, force: true });
      mkdirSync(temporary);
      await this.#writeParts(iteration, temporary, policy, tokenizer);
      this.#step(iteration, 'state');
      writeWhole(join(temporary, STATE_FILE), await stateText(temporary, before()));
      this.#step(iteration, 'sync');
      syncTree(temporary);
      this.#step(iteration, 'rename');
      moveFolder(temporary, target);
    } catch (error) {
      removeQuietly(temporary);
      throw this.#explain(iteration, error);
    }
    this.#bytes = bytesOf(target);
    try {
      this.#step(iteration, 'latest');
      this.point(target);
      this.#step(iteration, 'prune');
      this.#prune(iteration, this.#options.keepLast, best, true);
    } catch (cause) {
      throw new CheckpointError(`${target} is saved, but older ones are in its way (${(cause as Error).message})`, {
        cause,
      });
    }
    this.#step(iteration, 'end');
    return target;
  }

  /**
   * Makes a checkpoint the newest one. What lies ahead of it is of a part of the run that is taken back, and counts on
   * lines that are cut off next; what a process that was killed had not pruned goes too.
   *
   * @param best iteration of the checkpoint to keep beside the newest ones
   */
  goOnFrom({ path, iteration }: Checkpoint, best: number | null): void {
    this.point(path);
    this.#prune(iteration, this.#options.keepLast, best, true);
  }

  /** Makes `latest` name a checkpoint. */
  point(checkpoint: string): void {
    writeWhole(join(this.folder, 'latest'), `${checkpoint.slice(this.folder.length + 1)}\n`);
  }

  async #writeParts(
    iteration: number,
    folder: string,
    policy: CheckpointPolicy,
    tokenizer: Pick<Tokenizer, 'save'>,
  ): Promise<void> {
    this.#step(iteration, 'weights');
    if (policy.adapter) await policy.saveAdapter?.(join(folder, PARTS.adapter));
    else {
      await policy.save(join(folder, PARTS.model));
      await tokenizer.save(join(folder, PARTS.model));
    }
    this.#step(iteration, 'optimizer');
    await policy.saveOptimizer?.(join(folder, PARTS.optimizer));
    if (this.#options.memory) await policy.saveMemory?.(join(folder, PARTS.memory), iteration);
  }

  /** The run's own folder is not made again: where it has vanished, nothing is to appear in its place. */
  #makeFolder(): void {
    if (existsSync(this.folder)) return;
    mkdirSync(this.folder);
    syncPath(this.#run);
  }

  /** Removes all but the newest `keep` up to `iteration` and the best one; never the only one. */
  #prune(iteration: number, keep: number, best: number | null, later: boolean): void {
    const all = this.list();
    const past = all.filter((checkpoint) => checkpoint.iteration <= iteration);
    const kept = new Set(past.slice(0, keep).map(({ path }) => path));
    // what lies ahead is of a part of the run that was taken back
    for (const { path, iteration: own } of all) {
      if (kept.has(path) || own === best || (own > iteration && !later)) continue;
      const old = temporaryBeside(path);
      renameSync(path, old);
      rmSync(old, { recursive: true, force: true });
    }
    syncPath(this.folder);
  }

  #step(iteration: number, step: CheckpointStep): void {
    this.#options.onEvent?.({ type: 'checkpoint', iteration, step });
  }

  #explain(iteration: number, cause: unknown): CheckpointError {
    const last = newest(this.#run);
    const kept = last === null ? 'there is no older one' : `the last good one is ${last}`;
    const message = (cause as Error).message;
    return new CheckpointError(`the checkpoint of iteration ${iteration} was not saved (${message}); ${kept}`, {
      cause,
    });
  }
}

function removeQuietly(path: string): void {
  try {
    rmSync(path, { recursive: true, force: true });
  } catch {
    // the next start sweeps it
  }
}

/** The checkpoints of a run, newest first. */
export function listCheckpoints(run: string): Checkpoint[] {
  const folder = join(run, 'checkpoints');
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) return [];
  return readdirSync(folder)
    .flatMap((name) => {
      const iteration = NAME.exec(name)?.[1];
      return iteration === undefined ? [] : [{ path: join(folder, name), iteration: Number(iteration) }];
    })
    .sort((a, b) => b.iteration - a.iteration);
}

/** What `latest` names; null where it is not there or names nothing that is there. */
export function latestCheckpoint(run: string): string | null {
  const folder = join(run, 'checkpoints');
  const file = join(folder, 'latest');
  if (!existsSync(file)) return null;
  const name = readFileSync(file, 'utf8').trim();
  return NAME.test(name) && existsSync(join(folder, name)) ? join(folder, name) : null;
}

/** What `latest` names, else the newest folder. */
function newest(run: string): string | null {
  return latestCheckpoint(run) ?? listCheckpoints(run)[0]?.path ?? null;
}

function bytesOf(folder: string): number {
  return filesBelow(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
}

const gigabytes = (bytes: number): string =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${(bytes / 1e6).toFixed(1)} MB`;
