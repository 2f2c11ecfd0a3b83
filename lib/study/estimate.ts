/** How long the runs of a study will take. */
import type { TrainConfig } from '../train/config.js';
import { neededRuns, openRuns } from './choose.js';
import type { Run, Study } from './load.js';
import type { StudyState } from './runner.js';

/** The second stage, the unlearning and the cut generation cost about a third of an iteration. */
const UNLEARNING = 1.35;
/** A sample of an evaluation is generated and not trained on. */
const EVALUATION = 0.3;
/** Of a response: the first epoch with its generation, and each further one. */
const EPOCH = 0.6;
/** Where [eval] names no splits: most tasks have two. */
const SPLITS = 2;

/** Work of a run, in trained samples. It knows nothing of the length of responses: within a study these are alike. */
export function workOf({ run, rollout, unlearn, optimizer, eval: e }: TrainConfig): number {
  const samples = rollout.promptsPerIteration * rollout.groupSize;
  const iteration = samples * (1 + EPOCH * (optimizer.epochs - 1)) * (unlearn.enabled ? UNLEARNING : 1);
  const times = Number(e.atStart) + evaluationsAfter(run.iterations, e);
  const sets = (e.splits.length || SPLITS) + e.benchmarks.length;
  const evaluation = sets * (Number(e.greedy) * e.maxProblems + e.sampleProblems * e.samplesPerPrompt);
  return run.iterations * iteration + EVALUATION * times * evaluation;
}

function evaluationsAfter(iterations: number, { every, atEnd }: TrainConfig['eval']): number {
  const regular = every > 0 ? Math.floor(iterations / every) : 0;
  return regular + Number(atEnd && (every === 0 || iterations % every !== 0));
}

/** Seconds of one process. */
export interface Estimate {
  /** Of a run, by what the finished ones took, or by study.secondsPerIteration; null: nothing is known yet. */
  of: (run: Run) => number | null;
  /** Of all that is not finished, with `done` the share that each running one has behind it. */
  left: (done?: (run: Run) => number) => number | null;
}

/** What the finished runs say about the others. */
export function estimate(study: Study, state: StudyState): Estimate {
  const rate = secondsPerSample(study, state);
  const of = (run: Run): number | null => (rate === null ? null : rate * workOf(run.config));
  const left = (done: (run: Run) => number = () => 0): number | null => {
    if (rate === null) return null;
    const runs = new Map(
      [...neededRuns(study, state.choices).map(({ run }) => run), ...openRuns(study, state.choices)].map((run) => [
        run.hash,
        run,
      ]),
    );
    return [...runs.values()]
      .filter(({ hash }) => !state.finished.has(hash) && !state.failed.has(hash))
      .reduce((sum, run) => sum + rate * workOf(run.config) * (1 - done(run)), 0);
  };
  return { of, left };
}

function secondsPerSample(study: Study, state: StudyState): number | null {
  let [seconds, work] = [0, 0];
  for (const { run } of neededRuns(study, state.choices)) {
    const data = state.finished.get(run.hash);
    if (data === undefined) continue;
    seconds += data.seconds;
    work += workOf(run.config);
  }
  if (work > 0) return seconds / work;
  const { secondsPerIteration } = study.spec.study;
  const first = study.methods[0];
  const unit = first === undefined ? undefined : study.unitsOf(first)[0];
  if (secondsPerIteration === undefined || first === undefined || unit === undefined) return null;
  const { run, ...rest } = study.runOf(first, (first.settings[0] as (typeof first.settings)[0]).variant, unit).config;
  const one = {
    ...rest,
    run: { ...run, iterations: 1 },
    eval: { ...rest.eval, atStart: false, atEnd: false, every: 0 },
  };
  return secondsPerIteration / workOf(one);
}
