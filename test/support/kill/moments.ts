/** When a process is ended. Plain data: it travels to the child in an environment variable. */

/** What the child tells while it runs, one JSON object a line on descriptor 3. */
export type Trace =
  | { on: 'phase'; iteration: number; phase: string }
  /** Told right before the step is taken. */
  | { on: 'checkpoint'; iteration: number; step: string }
  /** A call of node:fs on something of the run's folder; `path` is relative to it. Native writes are not seen. */
  | { on: 'fs'; op: string; path: string };

/** Ends the child from inside, by SIGKILL. `nth` counts from 1, in this process alone. */
export type InnerMoment =
  | { at: 'phase'; name: string; nth: number }
  | { at: 'step'; name: string; nth: number }
  /** `path` is a regular expression. 'torn': half of what should be written is. */
  | { at: 'fs'; op: string; path: string; nth: number; when: 'before' | 'after' | 'torn' };

/** Milliseconds after the process started, or after it first told that it trains. */
export interface Delay {
  since: 'start' | 'training';
  ms: number;
}

export type Moment =
  | InnerMoment
  | ({ at: 'time' } & Delay)
  /** In the `nth` such system call of any one thread; needs strace. */
  | { at: 'syscall'; name: string; nth: number }
  /** SIGINT or SIGTERM, and once more after `again` milliseconds. */
  | ({ at: 'signal'; name: 'SIGINT' | 'SIGTERM'; again?: number } & Delay);

export const isInner = (moment: Moment): moment is InnerMoment =>
  moment.at === 'phase' || moment.at === 'step' || moment.at === 'fs';

export function describeMoment(moment: Moment): string {
  switch (moment.at) {
    case 'phase':
    case 'step':
      return `${moment.at} ${moment.name} #${moment.nth}`;
    case 'fs':
      return `${moment.when} ${moment.op} ${moment.path} #${moment.nth}`;
    case 'time':
      return `${Math.round(moment.ms)} ms after ${moment.since}`;
    case 'syscall':
      return `system call ${moment.name} #${moment.nth}`;
    case 'signal':
      return `${moment.name}${moment.again === undefined ? '' : ' twice'} ${Math.round(moment.ms)} ms after ${moment.since}`;
  }
}

/** What the tracer is told. */
export interface TracerPlan {
  /** The folder of the run. */
  root: string;
  moment: InnerMoment | null;
}

export const PLAN_VARIABLE = 'EEPO_TEST_KILL';
/** Where the child tells. */
export const TRACE_FD = 3;
