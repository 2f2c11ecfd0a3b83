/** `eepo study STUDY.toml` */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { relative } from 'node:path';
import type { Command } from 'commander';
import { BusyError } from '../errors.js';
import { neededRuns, openRuns } from '../study/choose.js';
import type { Comparison } from '../study/claims.js';
import { estimate } from '../study/estimate.js';
import { studyFigures } from '../study/figures.js';
import { loadStudy, type Study } from '../study/load.js';
import { collectResults, type StudyResults } from '../study/results.js';
import { counts, openState, runStudy, type StudyState } from '../study/runner.js';
import { plusMinus } from '../study/tables.js';
import { writeResults } from '../study/write.js';
import { formatSeconds } from '../train/progress.js';
import { RunLock } from '../train/run-lock.js';
import { formatTable, printable, wholeNumber, withSignals } from './common.js';
import { StudyProgress } from './study-progress.js';

interface Options {
  dryRun?: boolean;
  collect?: boolean;
  jobs?: number;
}

export function register(program: Command): void {
  program
    .command('study')
    .description('train a grid of methods, settings and seeds, and judge claims about them')
    .argument('<study>', 'the study (TOML); see docs/studies.md and configs/study/')
    .option('--jobs <n>', 'runs at a time (default: as the study says, or the cores allow)', wholeNumber('jobs', 1))
    .option('--dry-run', 'check everything, list the runs and how long they may take, train nothing')
    .option('--collect', 'train nothing: write tables and figures of the runs that are finished')
    .action(run);
}

async function run(file: string, options: Options): Promise<void> {
  const study = loadStudy(file);
  const state = openState(study);
  const jobs = options.jobs ?? jobsOf(study, state);
  if (options.dryRun) {
    console.log(dryRunText(study, state, jobs));
    return;
  }
  if (!options.collect) await train(study, state, jobs);
  const results = collectResults(study, state, version());
  const files = await writeResults(study.out, results, studyFigures(study, state));
  console.log(summaryText(study, results, files));
  for (const one of results.unmeasured) console.error(`warning: ${one}`);
  if (results.unmeasured.length > 0) process.exitCode = 1;
}

/** One process a core, unless the study says otherwise; a GPU is one device whatever the cores. */
function jobsOf(study: Study, state: StudyState): number {
  const { jobs, threads } = study.spec.study;
  if (jobs > 0) return jobs;
  const onGpu = neededAndOpen(study, state).some(({ config }) => config.model.device === 'cuda');
  return onGpu ? 1 : Math.max(1, Math.floor(availableParallelism() / threads));
}

const neededAndOpen = (study: Study, { choices }: StudyState) => [
  ...neededRuns(study, choices).map(({ run: one }) => one),
  ...openRuns(study, choices),
];

async function train(study: Study, state: StudyState, jobs: number): Promise<void> {
  mkdirSync(study.out, { recursive: true });
  const lock = takeLock(study.out);
  const progress = new StudyProgress(study, state, jobs);
  let interrupted = false;
  try {
    await withSignals(async (signal) => {
      signal.addEventListener('abort', () => {
        interrupted = true;
        // The second signal ends this process, and with it its children.
        for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => process.exit(130));
      });
      await runStudy(study, state, {
        jobs,
        signal,
        onChange: (now) => progress.change(now),
        onEnd: (needed, end, now) => progress.end(needed, end, now),
      });
    }, 'stopping: the runs save checkpoints; once more ends them at once');
  } finally {
    progress.stop();
    lock.release();
  }
  const { done, failed, total } = counts(study, state);
  if (interrupted) console.error(`stopped: ${done} of ${total} runs are done. To go on: npx eepo study ${study.path}`);
  else if (failed > 0)
    console.error(`${failed} of ${total} runs failed; the same command tries them again: npx eepo study ${study.path}`);
  const unchosen = [...state.choices].filter(([, { setting, scores }]) => setting === null && scores.length > 0);
  if (unchosen.length > 0) {
    const names = unchosen.map(([{ name }]) => name).join(', ');
    console.error(
      `no setting could be chosen for ${names}, which is not reported: every run needs the metric of [select], or the method's score`,
    );
  }
  if (interrupted || failed > 0 || done < total || unchosen.length > 0) process.exitCode = 1;
}

function takeLock(out: string): RunLock {
  try {
    return RunLock.take(out);
  } catch (cause) {
    if (!(cause instanceof BusyError)) throw cause;
    throw new BusyError(`another eepo study works in ${out}; wait for it, or use --collect for what is finished`, {
      cause,
    });
  }
}

function version(): string {
  const manifest = new URL('../../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(manifest, 'utf8')) as { version: string }).version;
}

/** Every run that can be named, how many others there will be, and how long all may take. */
export function dryRunText(study: Study, state: StudyState, jobs: number): string {
  const needed = neededRuns(study, state.choices);
  const open = openRuns(study, state.choices);
  const times = estimate(study, state);
  const rows = needed.map(({ run: one, phase }) => [
    one.name,
    phase,
    state.finished.has(one.hash) ? 'done' : existsSync(one.folder) ? 'begun' : '',
    String(one.config.run.iterations),
    show(times.of(one)),
  ]);
  const { done, total } = counts(study, state);
  const left = times.left();
  const selected = needed.filter(({ phase }) => phase === 'select').length;
  return [
    formatTable(['run', 'for', '', 'iterations', 'estimate'], rows),
    '',
    `${needed.length} runs are known (${selected} to choose settings); ${open.length > 0 ? `up to ${total - needed.length} follow from what is chosen; ` : ''}${done} are done`,
    left === null
      ? 'no estimate: give study.secondsPerIteration, or let a first run finish'
      : `about ${show(left)} of one core, ${show(left / jobs)} with ${jobs} runs at a time`,
    ...study.methods
      .filter(({ tuned }) => tuned)
      .map(
        (method) =>
          `${method.name}: ${new Set(method.settings.map(({ id }) => id)).size} settings, chosen on ${study.selectUnits.length} ${study.selectUnits.length === 1 ? 'seed' : 'seeds'}`,
      ),
    `results: ${study.out}`,
  ].join('\n');
}

const show = (seconds: number | null): string => (seconds === null ? '-' : formatSeconds(seconds));

/** Verdicts, and where the files are. */
export function summaryText(study: Study, results: StudyResults, files: readonly string[]): string {
  const rows = results.claims.flatMap(({ spec, comparisons, verdict }) => {
    const cells = ({ difference, pairs }: Comparison): string[] => [plusMinus(difference, true), String(pairs.length)];
    const [only] = comparisons;
    if (only !== undefined && comparisons.length === 1) return [[spec.text, verdict, ...cells(only)]];
    return [
      [spec.text, verdict, '', ''],
      ...comparisons.map((one) => [`  against ${one.b}`, one.verdict, ...cells(one)]),
    ];
  });
  const out = relative('.', study.out) || '.';
  return [
    ...(results.counts.finished === 0 || rows.length === 0
      ? []
      : [printable(formatTable(['claim', 'verdict', 'paired difference', 'n'], rows)), '']),
    `${results.counts.finished} runs finished, ${results.counts.failed} failed, ${results.counts.open} open`,
    `results: ${out} (${files.join(', ')})`,
  ].join('\n');
}
