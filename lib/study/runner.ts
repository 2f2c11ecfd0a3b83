/** Runs a study: as many processes at a time as are allowed, each run once, selection first. */
import { setMaxListeners } from 'node:events';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { BusyError } from '../errors.js';
import { RunLock } from '../train/run-lock.js';
import { type ChildEnd, prune, trainInChild } from './child.js';
import { type Choice, choose, type Needed, neededRuns, openRuns } from './choose.js';
import type { Run, Study } from './load.js';
import { type RunData, readRunData } from './series.js';
import type { Method } from './settings.js';

/** Where a study stands. */
export interface StudyState {
  finished: Map<string, RunData>;
  /** Why, by hash. */
  failed: Map<string, string>;
  running: Map<string, Needed>;
  choices: Map<Method, Choice>;
}

export interface RunStudyOptions {
  /** Processes at a time. */
  jobs: number;
  /** Stops all runs at a checkpoint, and begins no other. */
  signal: AbortSignal;
  /** A run has begun or ended. */
  onChange?: (state: StudyState) => void;
  onEnd?: (needed: Needed, end: ChildEnd, state: StudyState) => void;
}

/** After so many failures and not one success something is wrong with all of them. */
const HOPELESS = 4;
const BUSY_MS = 2_000;

/** What is on disk of a study. Runs that failed before are tried again. */
export function openState(study: Study): StudyState {
  const state: StudyState = { finished: new Map(), failed: new Map(), running: new Map(), choices: new Map() };
  takeUp(study, state);
  return state;
}

/** Reads finished runs, which may settle choices, which name further runs. */
function takeUp(study: Study, state: StudyState): void {
  for (;;) {
    state.choices = choose(study, state);
    const before = state.finished.size;
    for (const { run } of neededRuns(study, state.choices)) readFinished(run, state);
    if (state.finished.size === before) return;
  }
}

function readFinished(run: Run, state: StudyState): boolean {
  if (state.finished.has(run.hash)) return true;
  const { rollout, run: general } = run.config;
  const data = readRunData(run.folder, general.iterations, rollout.promptsPerIteration * rollout.groupSize);
  if (data === null) return false;
  state.finished.set(run.hash, data);
  return true;
}

/** Runs everything that is needed and not there. A run that fails does not keep the others from theirs. */
export async function runStudy(study: Study, state: StudyState, options: RunStudyOptions): Promise<void> {
  const { jobs, signal, onChange, onEnd } = options;
  const { threads, keepModels } = study.spec.study;
  const work = new Set<Promise<void>>();
  let succeeded = 0;
  // One listener for each run at work; Node takes the eleventh for a leak.
  setMaxListeners(0, signal);
  const train = async (needed: Needed): Promise<void> => {
    const { run } = needed;
    let end = await trainInChild(run, threads, signal);
    if (end.status === 'finished' && !readFinished(run, state))
      end = { status: 'failed', reason: `${run.folder} has fewer iterations than it should` };
    if (end.status === 'finished') {
      succeeded += 1;
      if (!keepModels) prune(run);
    } else if (end.status === 'failed') state.failed.set(run.hash, end.reason);
    state.running.delete(run.hash);
    takeUp(study, state);
    onEnd?.(needed, end, state);
    onChange?.(state);
  };
  for (;;) {
    const hopeless = succeeded === 0 && state.failed.size >= HOPELESS;
    const waiting = signal.aborted || hopeless ? [] : waitingRuns(study, state);
    const ready = waiting.filter(({ run }) => !isBusy(run));
    for (const needed of ready.slice(0, jobs - work.size)) {
      state.running.set(needed.run.hash, needed);
      const done = train(needed).finally(() => work.delete(done));
      work.add(done);
      onChange?.(state);
    }
    if (work.size > 0) await Promise.race([...work, ...(ready.length < waiting.length ? [sleep(BUSY_MS)] : [])]);
    else if (waiting.length > 0) await sleep(BUSY_MS);
    else return;
  }
}

/** What is to be done and not being done. */
export const waitingRuns = (study: Study, { finished, failed, running, choices }: StudyState): Needed[] =>
  neededRuns(study, choices).filter(
    ({ run: { hash } }) => !finished.has(hash) && !failed.has(hash) && !running.has(hash),
  );

/** A process that a killed study left behind may still work there; it is waited for. */
function isBusy({ folder }: Run): boolean {
  if (!existsSync(folder)) return false;
  try {
    RunLock.take(folder).release();
    return false;
  } catch (error) {
    // Whatever else is wrong with the folder, the run itself will say.
    return error instanceof BusyError;
  }
}

/** Numbers of runs: done, failed, and all there will be, as far as is known. */
export function counts(study: Study, state: StudyState): { done: number; failed: number; total: number } {
  const named = neededRuns(study, state.choices).map(({ run }) => run.hash);
  const done = named.filter((hash) => state.finished.has(hash)).length;
  const failed = named.filter((hash) => state.failed.has(hash)).length;
  const open = new Set(openRuns(study, state.choices).map(({ hash }) => hash));
  for (const hash of named) open.delete(hash);
  return { done, failed, total: named.length + open.size };
}
