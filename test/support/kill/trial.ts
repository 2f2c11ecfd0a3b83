/** One run that is ended again and again, and resumed until it ends by itself. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { embeddedModel } from '../data.js';
import { Announced, invariantProblems, type Kept } from './invariants.js';
import { type Life, live, whereItEnded } from './life.js';
import { describeMoment, type Moment } from './moments.js';
import { followCalls, losePower, readSystemCalls, sizesOf } from './power-loss.js';
import { differences, type Reference, readReference } from './reference.js';
import { filesBelow } from './run-files.js';

/** A configuration that is killed. */
export interface Variant {
  name: string;
  /** `section.key=value` */
  set: readonly string[];
}

/** A resume depends on how weights are held and on what is saved; these are the ways. */
export const VARIANTS: readonly Variant[] = [
  { name: 'float32', set: [] },
  { name: 'bfloat16', set: ['model.dtype=bfloat16', 'checkpoint.every=1'] },
  { name: 'lora', set: ['lora.rank=4', 'optimizer.lr=2e-3', 'checkpoint.every=3'] },
];

export const KEPT: Kept = { last: 2, best: 'eval/test/avg@4' };
export const ITERATIONS = 8;

/**
 * Everything that a resume could forget has an effect: a window of the gate's history, a KL term against the model before
 * the run, two updates an iteration, an evaluation before the run and in every second iteration.
 */
const CONFIG = `[run]
iterations = ${ITERATIONS}
seed = 3
[model]
path = ${JSON.stringify(embeddedModel)}
[task]
name = "countdown"
[rollout]
promptsPerIteration = 4
groupSize = 4
maxNewTokens = 16
[unlearn]
enabled = true
gate = "token+step"
alpha = 10.0
[objective]
klCoef = 0.01
[optimizer]
lr = 1e-4
miniBatchPrompts = 2
[eval]
every = 2
atStart = true
atEnd = true
splits = ["test"]
maxProblems = 8
sampleProblems = 8
samplesPerPrompt = 4
passK = [1, 4]
[checkpoint]
every = 2
keepLast = ${KEPT.last}
keepBest = "${KEPT.best}"
`;

/** A folder with the configuration; runs are made beside it. */
export function workplace(folder: string): string {
  const config = join(folder, 'kill.toml');
  writeFileSync(config, CONFIG);
  return config;
}

export function trainArguments(config: string, variant: Variant, root: string, resume: boolean): string[] {
  const set = variant.set.flatMap((value) => ['--set', value]);
  return ['train', config, ...set, '--out', root, ...(resume ? ['--resume', 'latest'] : [])];
}

/** The run without interruption, and what it told. */
export interface ReferenceRun {
  reference: Reference;
  life: Life;
}

export async function runReference(folder: string, config: string, variant: Variant): Promise<ReferenceRun> {
  const root = join(folder, `reference-${variant.name}`);
  const life = await live({ args: trainArguments(config, variant, root, false), root });
  if (life.code !== 0) throw new Error(`the run without interruption failed:\n${life.stderr}`);
  return { reference: readReference(root), life };
}

/** One interruption. */
export interface Blow {
  moment: Moment;
  /** What was not synced is damaged after it. */
  power?: boolean;
}

export interface TrialPlan {
  name: string;
  variant: Variant;
  blows: readonly Blow[];
}

/** An interruption that came, and what it showed. */
export interface Landed {
  where: string;
  /** The row of the table that counts how it was done. */
  how: string;
  moment: Moment;
  problems: string[];
  answeredMs: number | null;
}

export interface TrialResult {
  plan: TrialPlan;
  landed: Landed[];
  /** Moments that did not come before the run was over. */
  missed: Blow[];
  /** Of the run as a whole. */
  problems: string[];
  /** Kept where something is wrong. */
  root: string;
}

/** A graceful stop is done in this time: one iteration is a fraction of a second. Generous, for machines with other work. */
const STOPS_WITHIN_MS = 10_000;

const tail = (text: string): string => text.trimEnd().split('\n').slice(-6).join('\n');

const HOW: Record<Moment['at'], string> = {
  phase: 'SIGKILL at a phase',
  step: 'SIGKILL at a checkpoint step',
  fs: 'SIGKILL at a file operation, torn writes',
  time: 'SIGKILL at a random time',
  syscall: 'SIGKILL inside a system call',
  signal: 'SIGINT, SIGTERM',
};

/** What an interruption may not do, whatever is on disk. */
function lifeProblems(life: Life, { moment }: Blow, complete: boolean): string[] {
  if (life.hung) return [`did not end\n${tail(life.stderr)}`];
  if (moment.at !== 'signal') {
    return life.killed || life.code === 0
      ? []
      : [`exit code ${life.code}, signal ${life.signal}:\n${tail(life.stderr)}`];
  }
  const problems: string[] = [];
  const trains = life.traces.some(({ on }) => on !== 'fs');
  const twice = moment.again !== undefined;
  const byHand = life.signal === moment.name || life.code === (moment.name === 'SIGINT' ? 130 : 143);
  if (life.code !== 0 && !(byHand && (twice || !trains))) {
    problems.push(`${describeMoment(moment)}: exit code ${life.code}, signal ${life.signal}:\n${tail(life.stderr)}`);
  }
  if (life.code === 0 && trains && !complete && !life.stderr.includes('--resume')) {
    problems.push(`${describeMoment(moment)}: it does not say how to go on:\n${tail(life.stderr)}`);
  }
  if ((life.answeredMs ?? 0) > STOPS_WITHIN_MS) problems.push(`took ${Math.round(life.answeredMs ?? 0)} ms to stop`);
  return problems;
}

export interface TrialOptions {
  folder: string;
  config: string;
  reference: Reference;
  random: () => number;
}

export async function runTrial(
  plan: TrialPlan,
  { folder, config, reference, random }: TrialOptions,
): Promise<TrialResult> {
  const place = mkdtempSync(join(folder, 'trial-'));
  const root = join(place, 'run');
  const announced = new Announced();
  const result: TrialResult = { plan, landed: [], missed: [], problems: [], root };
  const summary = join(root, 'summary.json');
  for (const [i, blow] of plan.blows.entries()) {
    const resumed = existsSync(root);
    const log = blow.power ? join(place, `calls-${i}`) : undefined;
    const before = sizesOf(root, filesBelow(root));
    const args = trainArguments(config, plan.variant, root, resumed);
    const life = await live({ args, root, moment: blow.moment, ...(log === undefined ? {} : { syscallLog: log }) });
    announced.add(life.traces);
    const came = life.killed || life.answeredMs !== null;
    const where = whereItEnded(life, resumed);
    if (log !== undefined && came) losePower(followCalls(readSystemCalls(log), root, before), random);
    const problems = [
      ...lifeProblems(life, blow, existsSync(summary)),
      ...invariantProblems({ root, reference, announced, kept: KEPT, lostPower: blow.power ?? false }),
    ];
    const how = blow.power ? 'power loss: what was not synced is damaged' : HOW[blow.moment.at];
    if (came || problems.length > 0) {
      result.landed.push({ where, how, moment: blow.moment, problems, answeredMs: life.answeredMs });
    } else {
      result.missed.push(blow, ...plan.blows.slice(i + 1));
    }
    if (problems.length > 0) return result;
    if (life.code === 0 && existsSync(summary)) break;
  }
  const args = trainArguments(config, plan.variant, root, existsSync(root));
  const last = await live({ args, root });
  announced.add(last.traces);
  if (last.code !== 0) {
    result.problems.push(`the last resume failed: exit code ${last.code}, signal ${last.signal}\n${tail(last.stderr)}`);
  } else {
    const stopped = plan.blows.some(({ moment }) => moment.at === 'signal');
    result.problems.push(
      ...differences(root, reference, { sameCheckpoints: !stopped, lockMayStay: /already complete/.test(last.stdout) }),
    );
  }
  if (result.problems.length === 0) rmSync(place, { recursive: true, force: true });
  return result;
}

/** A run that is complete is left as it is. */
export async function resumeComplete(config: string, variant: Variant, root: string): Promise<string[]> {
  const before = filesBelow(root).map((name) => [name, readFileSync(join(root, name), 'base64')]);
  const { code, stdout, stderr } = await live({ args: trainArguments(config, variant, root, true), root });
  const after = filesBelow(root).map((name) => [name, readFileSync(join(root, name), 'base64')]);
  return [
    ...(code === 0 ? [] : [`a complete run, resumed: exit code ${code}\n${tail(stderr)}`]),
    ...(/complete/.test(stdout + stderr)
      ? []
      : [`a complete run, resumed, does not say so:\n${tail(stdout + stderr)}`]),
    ...(JSON.stringify(before) === JSON.stringify(after) ? [] : ['a complete run, resumed, changed']),
  ];
}
