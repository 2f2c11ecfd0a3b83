/** Where a run goes on: its folder, the checkpoint, and whether both fit the configuration. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { ConfigError, InvalidFileError } from '../errors.js';
import { type CheckpointState, isCheckpoint, readState, verifyFiles } from './checkpoint-state.js';
import { type Checkpoint, latestCheckpoint, listCheckpoints } from './checkpoint-store.js';
import { loadTrainConfig, type TrainConfig } from './config.js';
import { acceptChanges } from './config-changes.js';
import { isRunFolder } from './run-directory.js';

/** A run, and the checkpoint it is to go on from. */
export interface ResumePoint {
  run: string;
  /** null: the newest that is whole. */
  checkpoint: string | null;
}

/** A checkpoint that was read. */
export interface OpenCheckpoint extends Checkpoint {
  state: CheckpointState;
}

/**
 * What `resume` names: 'latest' is the newest checkpoint of `out`; a path is the folder of a run, or one checkpoint of
 * a run.
 *
 * @throws ConfigError where it names neither
 */
export function resumePoint(resume: string, out: string | undefined): ResumePoint {
  if (resume === 'latest') {
    if (out === undefined) throw new ConfigError('resume: "latest" needs `out`, the folder of the run');
    return { run: out, checkpoint: null };
  }
  const point = pointAt(resume);
  if (out !== undefined && resolve(out) !== resolve(point.run)) {
    throw new ConfigError(`a run goes on in its own folder, ${point.run}; leave out ${out}`);
  }
  return point;
}

function pointAt(path: string): ResumePoint {
  if (!existsSync(path)) throw new ConfigError(`${path}: no such run or checkpoint to go on from`);
  if (isRunFolder(path)) return { run: path, checkpoint: null };
  const inside = resolve(path);
  const run = dirname(dirname(inside));
  if (basename(dirname(inside)) === 'checkpoints' && isRunFolder(run)) {
    if (basename(inside) === 'latest') return { run, checkpoint: null };
    if (statSync(inside).isDirectory()) return { run, checkpoint: inside };
  }
  if (basename(inside) === 'checkpoints' && isRunFolder(dirname(inside)))
    return { run: dirname(inside), checkpoint: null };
  const copy = isCheckpoint(path) ? ' (a checkpoint goes on in the run folder it was made in)' : '';
  throw new ConfigError(
    `${path} is neither the folder of a run, which has a config.toml, nor one of its checkpoints${copy}`,
  );
}

/**
 * The checkpoint to go on from, every file of it checked; null: there is none yet. Where the newest is damaged, the one
 * before it is taken, and `note` says so; one that was named is taken or refused.
 *
 * @throws InvalidFileError naming the file that is damaged, where no whole checkpoint is left
 */
export async function openCheckpoint(
  { run, checkpoint }: ResumePoint,
  note: (text: string) => void,
): Promise<OpenCheckpoint | null> {
  if (checkpoint !== null) return open(checkpoint);
  const damaged: InvalidFileError[] = [];
  for (const path of candidates(run)) {
    try {
      const found = await open(path);
      for (const { message } of damaged) note(message);
      if (damaged.length > 0) note(`going on from the checkpoint before it, ${path}`);
      return found;
    } catch (error) {
      if (!(error instanceof InvalidFileError)) throw error;
      damaged.push(error);
    }
  }
  if (damaged.length === 0) return null;
  const reasons = damaged.map(({ message }) => `  ${message}`).join('\n');
  throw new InvalidFileError(
    `no checkpoint of ${run} is whole; train again with another --out, or put back the files:\n${reasons}`,
    { cause: damaged[0] },
  );
}

/** What `latest` names, then the others, newest first. */
function candidates(run: string): string[] {
  const all = listCheckpoints(run).map(({ path }) => path);
  const latest = latestCheckpoint(run);
  return latest === null ? all : [latest, ...all.filter((path) => path !== latest)];
}

async function open(path: string): Promise<OpenCheckpoint> {
  const state = readState(path);
  await verifyFiles(path, state);
  return { path, iteration: state.trainer.iteration, state };
}

/** What can be said before weights are loaded: how far the run is, and what of its configuration has changed. */
export interface ResumePreview {
  /** Iterations done, as the newest readable checkpoint says. */
  iteration: number;
  /** Whether the run has its summary, and all the iterations that are asked for. */
  complete: boolean;
}

/**
 * Checks the configuration against that of the newest checkpoint that can be read, or of the run where there is none.
 *
 * @throws ConfigError naming every key that has changed
 */
export function previewResume(point: ResumePoint, config: TrainConfig, accept: boolean): ResumePreview {
  const state = readableState(point);
  acceptChanges(state?.config ?? runConfig(point.run), config, point.checkpoint ?? point.run, accept);
  const iteration = state?.trainer.iteration ?? 0;
  const done = point.checkpoint === null ? summaryIterations(point.run) : null;
  return { iteration: Math.max(iteration, done ?? 0), complete: done !== null && done >= config.run.iterations };
}

function readableState(point: ResumePoint): CheckpointState | null {
  if (point.checkpoint !== null) return readState(point.checkpoint);
  for (const path of candidates(point.run)) {
    try {
      return readState(path);
    } catch (error) {
      if (!(error instanceof InvalidFileError)) throw error;
    }
  }
  return null;
}

/** The configuration that a run was begun with. */
export function runConfig(run: string): TrainConfig {
  return loadTrainConfig(join(run, 'config.toml'));
}

function summaryIterations(run: string): number | null {
  const path = join(run, 'summary.json');
  if (!existsSync(path)) return null;
  try {
    const { iterations } = JSON.parse(readFileSync(path, 'utf8')) as { iterations?: unknown };
    return typeof iterations === 'number' ? iterations : null;
  } catch (cause) {
    throw new InvalidFileError(`${path}: not valid JSON; remove it to go on with the run`, { cause });
  }
}
