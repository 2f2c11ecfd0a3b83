/**
 * Preloaded into the real command line (`node --import`): tells on descriptor 3 what happens, and ends the process by
 * SIGKILL at the moment it was given. Nothing of the program is replaced, only listened to: the events that a run gives
 * to its display, and the calls of node:fs.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { relative, resolve, sep } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { Progress } from '../../../lib/train/progress.js';
import type { TrainerEvent } from '../../../lib/train/trainer.js';
import { PLAN_VARIABLE, TRACE_FD, type Trace, type TracerPlan } from './moments.js';

type Call = (...args: unknown[]) => unknown;

const { root, moment } = JSON.parse(process.env[PLAN_VARIABLE] as string) as TracerPlan;
const writeSync = fs.writeSync;
let seen = 0;

function tell(trace: Trace): void {
  writeSync(TRACE_FD, `${JSON.stringify(trace)}\n`);
}

function die(): void {
  process.kill(process.pid, 'SIGKILL');
}

/** Whether this is the moment. */
function due(matches: boolean): boolean {
  if (!matches) return false;
  seen += 1;
  return seen === moment?.nth;
}

function listenToEvents(): void {
  const original = Progress.prototype.event;
  Progress.prototype.event = function listened(this: Progress, event: TrainerEvent): void {
    const told = event as { type: string; iteration: number; phase?: string; step?: string };
    if (told.type === 'phase' && told.phase !== undefined) {
      tell({ on: 'phase', iteration: told.iteration, phase: told.phase });
      if (due(moment?.at === 'phase' && moment.name === told.phase)) die();
    } else if (told.type === 'checkpoint' && told.step !== undefined) {
      tell({ on: 'checkpoint', iteration: told.iteration, step: told.step });
      if (due(moment?.at === 'step' && moment.name === told.step)) die();
    }
    original.call(this, event);
  };
}

/** The path relative to the run's folder; null outside of it. */
function inside(path: unknown): string | null {
  if (typeof path !== 'string') return null;
  const full = resolve(path);
  if (full === root) return '.';
  return full.startsWith(root + sep) ? relative(root, full) : null;
}

/** Arguments of a call that writes half of its data: `(file, data, ...)`, or `(fd, buffer, offset, length, ...)`. */
function torn([file, data, ...rest]: unknown[]): unknown[] {
  const [offset, length] = rest;
  if (data instanceof Uint8Array && typeof length === 'number') {
    return [file, data, offset, Math.floor(length / 2), ...rest.slice(2)];
  }
  if (typeof data !== 'string' && !(data instanceof Uint8Array)) return [file, data, ...rest];
  return [file, data.slice(0, Math.floor(data.length / 2)), ...rest];
}

const isPromise = (value: unknown): value is Promise<unknown> => value instanceof Promise;

/** A call that is told of and at which the process may end. `path` is what it is about, null for none of ours. */
function traced(op: string, call: Call, path: (args: unknown[]) => string | null): Call {
  return function (this: unknown, ...args: unknown[]): unknown {
    const about = path(args);
    if (about === null) return call.apply(this, args);
    tell({ on: 'fs', op, path: about });
    const now = due(moment?.at === 'fs' && moment.op === op && new RegExp(moment.path).test(about));
    if (!now || moment?.at !== 'fs') return call.apply(this, args);
    if (moment.when === 'before') die();
    const done = call.apply(this, moment.when === 'torn' ? torn(args) : args);
    if (isPromise(done)) return done.finally(die);
    die();
    return done;
  };
}

const BY_PATH = ['mkdir', 'rm', 'rmdir', 'unlink', 'writeFile', 'appendFile', 'truncate', 'readFile', 'readdir'];
/** The second argument is what comes to be. */
const BY_TARGET = ['rename', 'copyFile', 'cp', 'link', 'symlink'];
const BY_DESCRIPTOR = ['write', 'fsync', 'fdatasync', 'ftruncate'];
const BY_HANDLE = {
  write: 'write',
  writeFile: 'writeFile',
  appendFile: 'appendFile',
  sync: 'fsync',
  datasync: 'fdatasync',
};

function listenToSync(): void {
  const target = fs as unknown as Record<string, Call>;
  const paths = new Map<number, string>();
  const wrap = (op: string, path: (args: unknown[]) => string | null): void => {
    target[`${op}Sync`] = traced(op, target[`${op}Sync`] as Call, path);
  };
  for (const op of BY_PATH) wrap(op, ([path]) => inside(path));
  for (const op of BY_TARGET) wrap(op, ([, path]) => inside(path));
  for (const op of BY_DESCRIPTOR) wrap(op, ([fd]) => paths.get(fd as number) ?? null);
  const open = traced('open', target.openSync as Call, ([path]) => inside(path));
  target.openSync = (...args) => {
    const fd = open(...args) as number;
    const path = inside(args[0]);
    if (path === null) paths.delete(fd);
    else paths.set(fd, path);
    return fd;
  };
}

function listenToPromises(): void {
  const target = fs.promises as unknown as Record<string, Call>;
  for (const op of BY_PATH) target[op] = traced(op, target[op] as Call, ([path]) => inside(path));
  for (const op of BY_TARGET) target[op] = traced(op, target[op] as Call, ([, path]) => inside(path));
  const open = traced('open', target.open as Call, ([path]) => inside(path));
  target.open = async (...args) => {
    const handle = (await open(...args)) as Record<string, Call>;
    const path = inside(args[0]);
    if (path === null) return handle;
    for (const [method, op] of Object.entries(BY_HANDLE)) {
      // 'torn' halves the second argument, which is the data of a call by descriptor
      const call = (handle[method] as Call).bind(handle);
      const byDescriptor = traced(
        op,
        (_, ...rest) => call(...rest),
        () => path,
      );
      handle[method] = (...rest) => byDescriptor(null, ...rest);
    }
    return handle;
  };
}

if (isMainThread) {
  listenToEvents();
  listenToSync();
  listenToPromises();
  syncBuiltinESMExports();
}
