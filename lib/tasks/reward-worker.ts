/** The program of a reward's thread: loads the module of the configuration and calls one of its rewards. */
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parentPort, workerData } from 'node:worker_threads';
import type { NamedReward, RewardInput } from './types.js';

/** What the thread is started with. */
export interface RewardThreadData {
  path: string;
  /** Which of the module's rewards it serves. */
  index: number;
}

/** A reward without its function, which stays in the thread. */
export type RewardOutline = Omit<NamedReward, 'fn'> & { fn: boolean };

/** What the module exports: a function, a list of rewards, or something else. */
export type ModuleOutline = { kind: 'function' } | { kind: 'list'; rewards: RewardOutline[] } | { kind: 'other' };

export type RewardRequest = { call: number; inputs: readonly RewardInput[] } | { ping: number } | { abort: number };

export type RewardReply =
  | { outline: ModuleOutline }
  | { failed: string }
  | { pong: number }
  /** The function returned so many entries; null: something that is no list, of which `what` is a stand-in. */
  | { call: number; entries: number | null; what?: unknown }
  | { call: number; entry: number; value: unknown }
  | { call: number; counts: Readonly<Record<string, number>> }
  | { call: number; error: string };

const { path, index } = workerData as RewardThreadData;
const port = parentPort;
const reply = (message: RewardReply): void => port?.postMessage(message);
const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** `FILE:LINE` of what was thrown while a module was loaded: its own file, or one that it imports. */
function placeOf(error: unknown): string | null {
  const lines = error instanceof Error ? (error.stack ?? '').split('\n') : [];
  for (const line of lines) {
    // a frame, `at name (FILE:LINE:COLUMN)`; what cannot be parsed is at the head of the stack, `FILE:LINE`
    const match = /^(?:\s+at (?:.*\()?)?(?:async )?((?:file:\/\/)?\/.+?):(\d+)(?::\d+\)?)?$/.exec(line);
    if (match === null) continue;
    const [, file = '', number] = match;
    if (file === import.meta.url) return null;
    return `${file.startsWith('file:') ? fileURLToPath(file) : file}:${number}`;
  }
  return null;
}

/** Why a module cannot be loaded, and where. */
function loadFailure(error: unknown): string {
  const place = placeOf(error);
  if (place !== null) return `${messageOf(error)} (${place})`;
  // Node does not hand on where a module cannot be parsed, but tells it when it runs the file.
  return error instanceof SyntaxError ? `${messageOf(error)}; to see where: node ${path}` : messageOf(error);
}

/** What can be sent and is described alike. */
function standIn(value: unknown): unknown {
  const plain = value === null || ['number', 'string', 'boolean', 'undefined'].includes(typeof value);
  return plain ? value : {};
}

function outlineOf(exported: unknown): ModuleOutline {
  if (typeof exported === 'function') return { kind: 'function' };
  if (!Array.isArray(exported)) return { kind: 'other' };
  const rewards = exported.map((entry): RewardOutline => {
    // Keys that a reward does not have too: who reads the outline refuses them by name.
    const { fn, ...fields } = (entry ?? {}) as NamedReward;
    const given = Object.entries(fields).filter(([, value]) => value !== undefined);
    return {
      ...(Object.fromEntries(given.map(([key, value]) => [key, standIn(value)])) as Omit<NamedReward, 'fn'>),
      fn: typeof fn === 'function',
    };
  });
  return { kind: 'list', rewards };
}

/** Calls that may still be told that their time is over. */
const running = new Map<number, AbortController>();

async function serve(fn: NamedReward['fn'], call: number, inputs: readonly RewardInput[]): Promise<void> {
  const controller = new AbortController();
  running.set(call, controller);
  try {
    const returned: unknown = await fn(inputs, {
      signal: controller.signal,
      report: (counts) => reply({ call, counts }),
    });
    if (!Array.isArray(returned) && !ArrayBuffer.isView(returned)) {
      reply({ call, entries: null, what: standIn(returned) });
      return;
    }
    const entries = Array.from(returned as ArrayLike<unknown>);
    reply({ call, entries: entries.length });
    await Promise.all(
      entries.map(async (value, entry) => {
        reply({ call, entry, value: standIn(await value) });
      }),
    );
  } catch (error) {
    reply({ call, error: messageOf(error) });
  } finally {
    running.delete(call);
  }
}

try {
  const module = (await import(pathToFileURL(path).href)) as Record<string, unknown>;
  const exported = module.rewards ?? module.default;
  const own = (Array.isArray(exported) ? exported[index]?.fn : exported) as NamedReward['fn'];
  port?.on('message', (request: RewardRequest) => {
    if ('ping' in request) reply({ pong: request.ping });
    else if ('abort' in request) running.get(request.abort)?.abort(new Error('the time for this reward is over'));
    else void serve(own, request.call, request.inputs);
  });
  reply({ outline: outlineOf(exported) });
} catch (error) {
  reply({ failed: loadFailure(error) });
}
