/** One process of a run, from its start to its end, by itself or by us. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { ROOT } from '../data.js';
import { isInner, type Moment, PLAN_VARIABLE, TRACE_FD, type Trace, type TracerPlan } from './moments.js';

const TRACER = new URL('./tracer.js', import.meta.url).href;
const CLI = join(ROOT, 'bin', 'eepo.mjs');
/** A run of a few seconds that is still there after so long hangs. */
const HANGS_AFTER_MS = 120_000;

/** System calls that change what a folder holds. */
export const SYSCALLS = [
  ...['openat', 'write', 'writev', 'pwrite64', 'fsync', 'fdatasync', 'ftruncate', 'rename', 'renameat', 'renameat2'],
  ...['unlink', 'unlinkat', 'rmdir', 'mkdir', 'copy_file_range', 'sendfile'],
];

let strace: boolean | undefined;

/** Whether strace is here and may trace (containers forbid it often). */
export function haveStrace(): boolean {
  strace ??= spawnSync('strace', ['-f', '-e', 'trace=fsync', '-o', '/dev/null', 'true']).status === 0;
  return strace;
}

export interface LifeOptions {
  /** Arguments of the command line. */
  args: readonly string[];
  /** The folder of the run. */
  root: string;
  moment?: Moment | null;
  /** Where strace writes every system call of {@link SYSCALLS}; default none unless the moment is one. */
  syscallLog?: string;
}

export interface Life {
  traces: Trace[];
  /** Null when it ended by a signal. */
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  /** Of the whole life. */
  ms: number;
  /** From the first phase on; 0 if it never trained. */
  trainingMs: number;
  /** From our signal to the end; null if none was sent. */
  answeredMs: number | null;
  /** Whether it ended by SIGKILL. */
  killed: boolean;
  hung: boolean;
}

function command({ args, root, moment, syscallLog }: LifeOptions): {
  file: string;
  argv: string[];
  env: NodeJS.ProcessEnv;
} {
  const plan: TracerPlan = { root, moment: moment && isInner(moment) ? moment : null };
  const env = { ...process.env, OMP_NUM_THREADS: '1', [PLAN_VARIABLE]: JSON.stringify(plan) };
  const node = [process.execPath, '--import', TRACER, CLI, ...args];
  const inject = moment?.at === 'syscall' ? [`-einject=${moment.name}:signal=KILL:when=${moment.nth}`] : [];
  if (inject.length === 0 && syscallLog === undefined) return { file: node[0] as string, argv: node.slice(1), env };
  const flags = ['-f', '--seccomp-bpf', '-qq', '-y', '-s0', `-etrace=${SYSCALLS.join(',')}`];
  return { file: 'strace', argv: [...flags, ...inject, '-o', syscallLog ?? '/dev/null', ...node], env };
}

/** Runs the command line, ends it at the moment if there is one, and returns when it has ended. */
export async function live(options: LifeOptions): Promise<Life> {
  const { file, argv, env } = command(options);
  const began = performance.now();
  const child = spawn(file, argv, { cwd: join(options.root, '..'), env, stdio: ['ignore', 'pipe', 'pipe', 'pipe'] });
  const life: Life = {
    ...{ traces: [], code: null, signal: null, stdout: '', stderr: '', ms: 0, trainingMs: 0 },
    ...{ answeredMs: null, killed: false, hung: false },
  };
  child.stdout?.on('data', (chunk: Buffer) => {
    life.stdout += chunk;
  });
  child.stderr?.on('data', (chunk: Buffer) => {
    life.stderr += chunk;
  });
  const timers: NodeJS.Timeout[] = [];
  let training = 0;
  let sent: number | null = null;
  const arm = (since: 'start' | 'training'): void => {
    const { moment } = options;
    if ((moment?.at !== 'time' && moment?.at !== 'signal') || moment.since !== since) return;
    const signal = moment.at === 'time' ? 'SIGKILL' : moment.name;
    const again = moment.at === 'signal' ? moment.again : undefined;
    timers.push(
      setTimeout(() => {
        sent = performance.now();
        child.kill(signal);
        if (again === undefined) return;
        timers.push(setTimeout(() => child.kill(signal), again));
      }, moment.ms),
    );
  };
  onLines(child, (line) => {
    const trace = JSON.parse(line) as Trace;
    life.traces.push(trace);
    if (training > 0 || trace.on === 'fs') return;
    training = performance.now();
    arm('training');
  });
  arm('start');
  timers.push(
    setTimeout(() => {
      life.hung = true;
      child.kill('SIGKILL');
    }, HANGS_AFTER_MS),
  );
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  for (const timer of timers) clearTimeout(timer);
  const now = performance.now();
  return {
    ...life,
    code,
    signal,
    ms: now - began,
    trainingMs: training === 0 ? 0 : now - training,
    answeredMs: sent === null ? null : now - sent,
    killed: signal === 'SIGKILL' || code === 137,
  };
}

/** Whole lines of the trace: a line that the end of the process cut off is dropped. */
function onLines(child: ChildProcess, use: (line: string) => void): void {
  let rest = '';
  (child.stdio[TRACE_FD] as Readable).on('data', (chunk: Buffer) => {
    const lines = (rest + chunk.toString('utf8')).split('\n');
    rest = lines.pop() as string;
    for (const line of lines) use(line);
  });
}

/** Where a life was when it ended: the rows of the table. */
export function whereItEnded({ traces }: Life, resumed: boolean): string {
  const last = traces.at(-1);
  const told = traces.findLast((trace) => trace.on !== 'fs');
  if (last === undefined) return resumed ? 'resume: start of the process' : 'start of the process';
  if (told === undefined) return resumed ? 'resume: checking and loading' : 'making the folder';
  const saving = last.on === 'fs' && /^(\.?model\b|\.?summary\.json|adapter)/.test(last.path);
  if (saving) return 'final save of model/ and summary.json';
  if (told.on === 'phase')
    return last.on === 'fs' && !last.path.startsWith('evals') ? `writing lines (${told.phase})` : `phase ${told.phase}`;
  return told.step === 'end' && last !== told ? 'between checkpoint and next phase' : `checkpoint: ${told.step}`;
}
