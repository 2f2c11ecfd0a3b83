/** Which moments are tried: every kind of event and file operation that a run has, and times at random. */
import { uniformStream } from '../../../lib/train/prompt-stream.js';
import type { Life } from './life.js';
import type { InnerMoment, Moment, Trace } from './moments.js';
import { pathsOf, type SystemCall } from './power-loss.js';
import type { Blow, TrialPlan, Variant } from './trial.js';

export type Random = () => number;

/** Uniform in [0, 1), the same for the same seed and purpose. */
export function randomOf(seed: number, purpose: string): Random {
  const mixed = [...purpose].reduce((hash, letter) => Math.imul(hash ^ letter.charCodeAt(0), 0x01000193), 0x811c9dc5);
  return uniformStream((Math.imul(seed + 1, 0x9e3779b1) ^ mixed) >>> 0);
}

const below = (n: number, random: Random): number => Math.floor(random() * n);

function shuffled<T>(items: readonly T[], random: Random): T[] {
  const all = [...items];
  for (let i = all.length - 1; i > 0; i--) {
    const j = below(i + 1, random);
    [all[i], all[j]] = [all[j] as T, all[i] as T];
  }
  return all;
}

/** A path as a pattern: process ids and random endings differ from life to life. */
function pattern(path: string): string {
  const escaped = path.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return `^${escaped.replace(/\.\d{2,}(?=\\\.|$)/g, '.\\d+').replace(/-\d+-\w{6}(?=\/|$)/g, '-\\d+-\\w+')}$`;
}

/** Every kind of phase and of checkpoint step, its first time and another one. */
export function eventMoments(traces: readonly Trace[], random: Random): InnerMoment[] {
  const counts = new Map<string, { at: 'phase' | 'step'; name: string; times: number }>();
  for (const trace of traces) {
    if (trace.on === 'fs') continue;
    const [at, name] = trace.on === 'phase' ? (['phase', trace.phase] as const) : (['step', trace.step] as const);
    const known = counts.get(`${at} ${name}`) ?? { at, name, times: 0 };
    counts.set(`${at} ${name}`, { ...known, times: known.times + 1 });
  }
  return [...counts.values()].flatMap(({ at, name, times }) => {
    const nths = times > 1 ? [1, 2 + below(times - 1, random)] : [1];
    return nths.map((nth): InnerMoment => ({ at, name, nth }));
  });
}

const WRITES: readonly string[] = ['write', 'writeFile', 'appendFile'];

/** Before every file operation of these traces; in the middle of one that writes, after one that renames or removes. */
export function fileMoments(traces: readonly Trace[]): InnerMoment[] {
  const counts = new Map<string, number>();
  return traces.flatMap((trace): InnerMoment[] => {
    if (trace.on !== 'fs') return [];
    const { op, path } = trace;
    const key = `${op} ${pattern(path)}`;
    const nth = (counts.get(key) ?? 0) + 1;
    counts.set(key, nth);
    const moment = (when: 'before' | 'after' | 'torn'): InnerMoment => ({
      at: 'fs',
      op,
      path: pattern(path),
      nth,
      when,
    });
    if (WRITES.includes(op)) return [moment('before'), moment('torn')];
    return /^(rename|rm|unlink)$/.test(op) ? [moment('before'), moment('after')] : [moment('before')];
  });
}

/** After the last phase or checkpoint step: the final save. */
export function finalSave(traces: readonly Trace[]): Trace[] {
  const last = traces.findLastIndex(({ on }) => on !== 'fs');
  return traces.slice(last + 1);
}

/** Before the first phase: what a resume reads, cuts and sweeps. */
export function beforeTraining(traces: readonly Trace[]): Trace[] {
  const first = traces.findIndex(({ on }) => on !== 'fs');
  return first < 0 ? [...traces] : traces.slice(0, first);
}

/** Between the first event and the last: lines, evaluations, checkpoints. */
export function whileTraining(traces: readonly Trace[]): Trace[] {
  return traces.slice(beforeTraining(traces).length, traces.length - finalSave(traces).length);
}

/** `count` of them, evenly over the whole list. */
export function sample<T>(items: readonly T[], count: number, random: Random): T[] {
  if (items.length <= count) return [...items];
  const offset = random();
  return Array.from({ length: count }, (_, i) => items[Math.floor(((i + offset) * items.length) / count)] as T);
}

/** A time, mostly while it trains, sometimes from the first instruction on. */
export function randomTime(life: Life, random: Random): { since: 'start' | 'training'; ms: number } {
  if (random() < 0.2) return { since: 'start', ms: random() * (life.ms - life.trainingMs) };
  return { since: 'training', ms: random() * life.trainingMs * 0.7 };
}

/** Every system call on a file of the run, as `inject` counts them: per thread, so several threads share a number. */
export function syscallMoments(calls: readonly SystemCall[], root: string): Moment[] {
  const seen = new Map<string, Moment>();
  for (const call of calls) {
    if (!pathsOf(call).some((path) => path.startsWith(root))) continue;
    if (call.name === 'openat' && !/O_CREAT|O_WRONLY|O_RDWR/.test(call.args)) continue;
    seen.set(`${call.name} ${call.nth}`, { at: 'syscall', name: call.name, nth: call.nth });
  }
  return [...seen.values()];
}

/**
 * Trials of several blows each: the first anywhere, those after it early, because every one of them begins at the last
 * checkpoint.
 */
export function trialsOf(
  name: string,
  variant: Variant,
  blows: readonly Blow[],
  each: number,
  random: Random,
): TrialPlan[] {
  const order = shuffled(blows, random);
  const trials: TrialPlan[] = [];
  for (let i = 0; i < order.length; i += each) {
    trials.push({ name: `${name} ${trials.length + 1}`, variant, blows: order.slice(i, i + each) });
  }
  return trials;
}
