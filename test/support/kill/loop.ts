/** The loop: references, trials, a table. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  beforeTraining,
  eventMoments,
  fileMoments,
  finalSave,
  type Random,
  randomOf,
  randomTime,
  sample,
  syscallMoments,
  trialsOf,
  whileTraining,
} from './campaign.js';
import { haveStrace, type Life, live } from './life.js';
import { describeMoment } from './moments.js';
import { readSystemCalls } from './power-loss.js';
import {
  type Blow,
  type ReferenceRun,
  resumeComplete,
  runReference,
  runTrial,
  type TrialPlan,
  type TrialResult,
  trainArguments,
  VARIANTS,
  type Variant,
  workplace,
} from './trial.js';

export interface LoopOptions {
  /** SIGKILLs at random times. */
  kills: number;
  seed: number;
  /** Kills at events and file operations; Infinity = every one there is. */
  directed: number;
  /** Kills inside system calls, and power losses; need strace. */
  syscalls: number;
  power: number;
  /** SIGINT and SIGTERM. */
  signals: number;
  /** Names of {@link VARIANTS}. */
  variants: readonly string[];
  /** Only the trials of this name, such as "resume 3": to repeat one. */
  only?: string;
  /** Trials at a time. */
  jobs: number;
  say?: (line: string) => void;
}

export interface Row {
  what: string;
  tried: number;
  survived: number;
}

export interface LoopReport {
  /** By where the run was, and by how it was ended. */
  where: Row[];
  how: Row[];
  /** Runs that were ended at least once and compared with the reference. */
  runs: number;
  identical: number;
  /** Moments that never came. */
  missed: string[];
  problems: string[];
  /** Longest time from a first SIGINT or SIGTERM to the end, in ms. */
  slowestStop: number;
}

interface Prepared extends ReferenceRun {
  variant: Variant;
  /** A life that began at a checkpoint beside the leftovers of a killed one. */
  resumed: Life;
}

/** Reference and what a resume does, of one variant. */
async function prepare(folder: string, config: string, variant: Variant): Promise<Prepared> {
  const run = await runReference(folder, config, variant);
  const root = join(folder, `probe-${variant.name}`);
  const args = (resume: boolean) => trainArguments(config, variant, root, resume);
  await live({ args: args(false), root, moment: { at: 'step', name: 'rename', nth: 2 } });
  const resumed = await live({ args: args(true), root });
  if (resumed.code !== 0) throw new Error(`a first resume of ${variant.name} failed:\n${resumed.stderr}`);
  rmSync(root, { recursive: true });
  return { ...run, variant, resumed };
}

const blows = (moments: readonly Blow['moment'][]): Blow[] => moments.map((moment) => ({ moment }));

function directedTrials({ variant, life, resumed }: Prepared, count: number, random: Random): TrialPlan[] {
  const events = eventMoments(life.traces, random);
  const saving = fileMoments(finalSave(life.traces));
  const files = fileMoments(whileTraining(life.traces));
  const resuming = fileMoments(beforeTraining(resumed.traces));
  const [most, few] = [Math.min(count, 400), Math.ceil(count / 4)];
  const chosen = (moments: Blow['moment'][], limit: number): Blow[] => blows(sample(moments, limit, random));
  return [
    ...trialsOf('events', variant, chosen(events, most), 3, random),
    ...trialsOf('final save', variant, chosen(saving, Math.min(few, 40)), 2, random),
    ...trialsOf('file operations', variant, chosen(files, Math.min(few, 40)), 3, random),
    // a first life that leaves something to resume from and to sweep
    ...chosen(resuming, Math.min(few, 40)).map((blow, i): TrialPlan => {
      const before: Blow = { moment: { at: 'step', name: 'rename', nth: 2 } };
      return { name: `resume ${i + 1}`, variant, blows: [before, blow, blow] };
    }),
    ...stuck(variant),
  ];
}

/** Several kills in a row without progress. */
function stuck(variant: Variant): TrialPlan[] {
  const moments: Blow['moment'][][] = [
    Array.from({ length: 4 }, () => ({ at: 'step', name: 'sync', nth: 1 })),
    Array.from({ length: 4 }, () => ({ at: 'phase', name: 'stage1', nth: 1 })),
    [
      { at: 'step', name: 'prune', nth: 2 },
      ...Array.from({ length: 3 }, () => ({ at: 'step', name: 'rename', nth: 1 }) as const),
    ],
  ];
  return moments.map((each, i) => ({ name: `without progress ${i + 1}`, variant, blows: blows(each) }));
}

function randomTrials({ variant, life }: Prepared, count: number, random: Random): TrialPlan[] {
  const all = Array.from({ length: count }, (): Blow => ({ moment: { at: 'time', ...randomTime(life, random) } }));
  return trialsOf('random', variant, all, 4, random);
}

function signalTrials({ variant, life }: Prepared, count: number, random: Random): TrialPlan[] {
  const all = Array.from({ length: count }, (_, i): Blow => {
    const name = i % 2 === 0 ? 'SIGINT' : 'SIGTERM';
    const again = i % 4 < 2 ? {} : { again: random() * 40 };
    const late = random() < 0.1;
    const time = late ? randomTime(life, random) : { since: 'training' as const, ms: random() * life.trainingMs * 0.6 };
    return { moment: { at: 'signal', name, ...again, ...time } };
  });
  return trialsOf('signal', variant, all, 3, random);
}

/** System calls of a whole run, and of a power loss in them. */
async function syscallTrials(
  prepared: Prepared,
  folder: string,
  config: string,
  options: Pick<LoopOptions, 'syscalls' | 'power'>,
  random: Random,
): Promise<TrialPlan[]> {
  const { variant } = prepared;
  if (options.syscalls + options.power === 0) return [];
  const root = join(folder, `calls-${variant.name}`);
  const syscallLog = `${root}.log`;
  const life = await live({ args: trainArguments(config, variant, root, false), root, syscallLog });
  if (life.code !== 0) throw new Error(`a run under strace failed:\n${life.stderr}`);
  const moments = syscallMoments(readSystemCalls(syscallLog), root);
  rmSync(root, { recursive: true });
  const steps = eventMoments(life.traces, random).filter(({ at }) => at === 'step');
  const losses = Array.from({ length: options.power }, (_, i): Blow => {
    const from: Blow['moment'][] = i % 2 === 0 ? steps : moments;
    return { moment: from[Math.floor(random() * from.length)] as Blow['moment'], power: true };
  });
  return [
    ...trialsOf('system calls', variant, blows(sample(moments, options.syscalls, random)), 2, random),
    ...trialsOf('power loss', variant, losses, 2, random),
  ];
}

class Tally {
  readonly #rows = new Map<string, Row>();

  add(what: string, survived: boolean): void {
    const row = this.#rows.get(what) ?? { what, tried: 0, survived: 0 };
    row.tried += 1;
    if (survived) row.survived += 1;
    this.#rows.set(what, row);
  }

  get rows(): Row[] {
    return [...this.#rows.values()].sort((a, b) => (a.what < b.what ? -1 : 1));
  }
}

/** With what was done before each. */
function problemsOf({ plan, landed, problems, root }: TrialResult): string[] {
  const history = (count: number): string =>
    landed
      .slice(0, count)
      .map(({ moment }) => describeMoment(moment))
      .join(', then ');
  const run = `${plan.name} (${plan.variant.name}), ${root}`;
  return [
    ...landed.flatMap((blow, i) => blow.problems.map((problem) => `${run}: ${history(i + 1)}: ${problem}`)),
    ...problems.map((problem) => `${run}: ${history(landed.length)}: ${problem}`),
  ];
}

function report(results: readonly TrialResult[]): LoopReport {
  const [where, how] = [new Tally(), new Tally()];
  const problems: string[] = [];
  const missed: string[] = [];
  let slowestStop = 0;
  for (const result of results) {
    const { landed } = result;
    problems.push(...problemsOf(result));
    for (const blow of landed) {
      // A difference at the end is charged to every interruption of that run.
      const survived = result.problems.length === 0 && blow.problems.length === 0;
      where.add(blow.where, survived);
      how.add(blow.how, survived);
      const once = blow.moment.at === 'signal' && blow.moment.again === undefined;
      if (once) slowestStop = Math.max(slowestStop, blow.answeredMs ?? 0);
    }
    missed.push(...result.missed.map(({ moment }) => describeMoment(moment)));
  }
  const compared = results.filter(({ landed }) => landed.length > 0);
  const identical = compared.filter(
    (r) => r.problems.length === 0 && r.landed.every((blow) => blow.problems.length === 0),
  );
  return {
    where: where.rows,
    how: how.rows,
    runs: compared.length,
    identical: identical.length,
    missed,
    problems,
    slowestStop,
  };
}

/** Threads share the work differently from run to run, so the n-th call of one thread may not come: an earlier one will. */
function earlier(blow: Blow): Blow[] {
  const { moment } = blow;
  if (moment.at !== 'syscall' || moment.nth === 1) return [];
  return [{ ...blow, moment: { ...moment, nth: Math.floor(moment.nth * 0.6) } }];
}

/** Trials, several at a time; what a trial was over too early for is tried once more by itself. */
async function runAll(
  plans: readonly TrialPlan[],
  jobs: number,
  run: (plan: TrialPlan, index: number) => Promise<TrialResult>,
): Promise<TrialResult[]> {
  const queue = [...plans];
  const results: TrialResult[] = [];
  const worker = async (): Promise<void> => {
    for (let plan = queue.shift(); plan !== undefined; plan = queue.shift()) {
      const result = await run(plan, results.length);
      const { missed } = result;
      results.push(result);
      const alone = plan.blows.length === 1;
      const later = missed.flatMap((blow) => (alone ? earlier(blow) : [blow]));
      if (alone && later.length === 0) continue;
      const { name, variant } = plan;
      const again = name.endsWith(' again') ? name : `${name} again`;
      queue.push(...later.map((blow) => ({ name: again, variant, blows: [blow] })));
      result.missed = [];
    }
  };
  await Promise.all(Array.from({ length: jobs }, worker));
  return results;
}

/** Kills and resumes until the plan is done. */
export async function killLoop(options: LoopOptions): Promise<LoopReport> {
  const say = options.say ?? (() => {});
  const folder = mkdtempSync(join(tmpdir(), 'eepo-kill-'));
  const config = workplace(folder);
  const variants = VARIANTS.filter(({ name }) => options.variants.includes(name));
  const share = (n: number, i: number): number =>
    Math.floor(((i + 1) * n) / variants.length) - Math.floor((i * n) / variants.length);
  const references = new Map<string, Prepared>();
  const plans: TrialPlan[] = [];
  for (const [i, variant] of variants.entries()) {
    const prepared = await prepare(folder, config, variant);
    references.set(variant.name, prepared);
    const random = randomOf(options.seed, variant.name);
    plans.push(
      ...(options.directed > 0 ? directedTrials(prepared, options.directed, random) : []),
      ...randomTrials(prepared, share(options.kills, i), random),
      ...signalTrials(prepared, share(options.signals, i), random),
    );
    if (haveStrace()) {
      const counts = { syscalls: share(options.syscalls, i), power: share(options.power, i) };
      plans.push(...(await syscallTrials(prepared, folder, config, counts, random)));
    }
  }
  const chosen = options.only === undefined ? plans : plans.filter(({ name }) => name === options.only);
  if (!haveStrace() && options.syscalls + options.power > 0)
    say('no strace: no kills inside system calls, no power losses');
  say(
    `${chosen.length} runs to be killed, ${chosen.reduce((sum, plan) => sum + plan.blows.length, 0)} blows; in ${folder}`,
  );
  const results = await runAll(chosen, options.jobs, async (plan, index) => {
    const { reference } = references.get(plan.variant.name) as Prepared;
    const random = randomOf(options.seed, `${plan.name} ${plan.variant.name}`);
    const result = await runTrial(plan, { folder, config, reference, random });
    const places = result.landed.map(({ where }) => where).join(' | ');
    say(`${index + 1} ${plan.name} (${plan.variant.name}): ${places}`);
    for (const problem of problemsOf(result)) say(`  WRONG: ${problem}`);
    return result;
  });
  const all = report(results);
  for (const { variant, reference } of references.values()) {
    all.problems.push(...(await resumeComplete(config, variant, reference.root)));
  }
  if (all.problems.length === 0) rmSync(folder, { recursive: true, force: true });
  return all;
}

/** The report as a table for people. */
export function formatReport({ where, how, runs, identical, missed, slowestStop }: LoopReport): string {
  const table = (title: string, rows: readonly Row[]): string[] => {
    const width = Math.max(title.length, ...rows.map(({ what }) => what.length));
    const line = (what: string, tried: number | string, survived: number | string): string =>
      `${what.padEnd(width)}  ${String(tried).padStart(6)}  ${String(survived).padStart(8)}`;
    const total = (key: 'tried' | 'survived'): number => rows.reduce((sum, row) => sum + row[key], 0);
    return [
      line(title, 'tried', 'survived'),
      line('-'.repeat(width), '------', '--------'),
      ...rows.map((row) => line(row.what, row.tried, row.survived)),
      line('all', total('tried'), total('survived')),
      '',
    ];
  };
  return [
    ...table('where the run was', where),
    ...table('how it was ended', how),
    `${runs} runs ended at least once; ${identical} ended as the run that was never stopped, bit for bit`,
    ...(slowestStop > 0
      ? [`longest time from one SIGINT or SIGTERM to the end: ${(slowestStop / 1000).toFixed(1)} s`]
      : []),
    ...(missed.length > 0 ? [`moments that never came: ${missed.join('; ')}`] : []),
  ].join('\n');
}
