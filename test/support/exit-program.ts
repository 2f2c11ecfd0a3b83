/**
 * A program that is ended while a policy works. As a process: `exit-program.js WORK HOW DELAY` does WORK over and over
 * and, after DELAY milliseconds, ends HOW. As a worker thread: `workerData` is { work, how, delay }; `how` undefined
 * works until it is terminated. `exit-program.js workers ROUNDS [HOW]...` starts worker threads that are terminated, and
 * others that end HOW, and checks at the end that the process still computes what it did before.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { Policy } from '../../lib/policy.js';
import { embeddedModel } from './data.js';
import { forgetting } from './policy.js';

const rows = 24;
const batch = {
  prompts: Array.from({ length: rows }, (_, i) => [2, 3 + i, 7, 9]),
  responses: Array.from({ length: rows }, (_, i) => Array.from({ length: 40 }, (_, t) => (7 * i + 3 * t) % 100)),
};
const tokens = rows * 40;
const options = { ...forgetting([]), entropy: new Float32Array(tokens).fill(1) };

/** One piece of each kind of work; every call is made while nothing of the last one is left. */
export const works: Record<string, (policy: Policy) => Promise<unknown>> = {
  generate: (policy) => policy.generate(batch.prompts, { maxNewTokens: 40, samplesPerPrompt: 4, onProgress() {} }),
  score: (policy) => policy.score(batch.responses),
  forward: (policy) => policy.forward(batch),
  async backward(policy) {
    await policy.forward(batch);
    await policy.backward(new Float32Array(tokens).fill(1e-3));
  },
  async step(policy) {
    await policy.forward(batch);
    await policy.backward(new Float32Array(tokens).fill(1e-3));
    await policy.step({ lr: 1e-6 });
  },
  async forget(policy) {
    await policy.forget(batch, options);
    await policy.syncRollout();
  },
  async load() {
    (await Policy.load(embeddedModel)).dispose();
  },
  async save(policy) {
    // What an end leaves here is removed by the test, which gives a temporary folder of its own.
    const folder = mkdtempSync(join(tmpdir(), 'eepo-exit-'));
    try {
      for (let i = 0; i < 5; i++) await policy.save(join(folder, String(i)));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  async clone(policy) {
    const clone = await policy.clone();
    await clone.parameters();
    clone.dispose();
  },
  /** Handle after handle is made: the thread is mostly in the constructors of the addon when it is terminated. */
  async handles(policy) {
    for (const parameters of await Promise.all(Array.from({ length: 20 }, () => policy.parameters()))) {
      for (const tensor of parameters.values()) tensor.dispose();
    }
  },
  /** The queue is never empty, and everything in it is thrown away at the end. */
  async queue(policy) {
    await Promise.all(Array.from({ length: 300 }, () => policy.score([[1, 2, 3]])));
  },
};

async function workForever(name: string): Promise<void> {
  const work = works[name];
  if (work === undefined) throw new Error(`no such work: ${name}`);
  const policy = await Policy.load(embeddedModel);
  parentPort?.postMessage('started');
  for (;;) await work(policy);
}

/** Ends this process or worker thread: `exit` by process.exit(7), `throw` by an uncaught exception. */
function endLater(how: string, delay: number): void {
  setTimeout(() => {
    if (how === 'throw') throw new Error('on purpose');
    process.exit(7);
  }, delay);
}

/** Starts a worker thread and ends it; its exit code. */
async function endWorker(work: string, how: string, delay: number): Promise<number> {
  const own = how === 'terminate' ? undefined : how;
  const worker = new Worker(new URL(import.meta.url), { workerData: { work, how: own, delay } });
  worker.on('error', () => undefined);
  const exited = new Promise<number>((resolve) => worker.once('exit', resolve));
  if (how === 'terminate') {
    await new Promise((resolve) => worker.once('message', resolve));
    await new Promise((resolve) => setTimeout(resolve, delay));
    await worker.terminate();
  }
  return exited;
}

async function endWorkers(rounds: number, hows: string[]): Promise<void> {
  const policy = await Policy.load(embeddedModel);
  const before = JSON.stringify(await policy.score(batch.responses));
  const expected: Record<string, number> = { terminate: 1, exit: 7, throw: 1 };
  let ended = 0;
  for (let round = 0; round < rounds; round++) {
    for (const work of Object.keys(works)) {
      for (const how of hows) {
        const code = await endWorker(work, how, Math.random() * 60);
        if (code !== expected[how]) throw new Error(`${work}, ${how}: exit code ${code}`);
        ended++;
      }
    }
  }
  if (JSON.stringify(await policy.score(batch.responses)) !== before) throw new Error('other numbers than before');
  console.log(`ended ${ended}`);
}

if (!isMainThread) {
  const { work, how, delay } = workerData as { work: string; how?: string; delay: number };
  if (how !== undefined) endLater(how, delay + 40);
  await workForever(work);
} else if (process.argv[2] === 'workers') {
  await endWorkers(Number(process.argv[3]), ['terminate', ...process.argv.slice(4)]);
} else if (process.argv[2] !== undefined && import.meta.url === `file://${process.argv[1]}`) {
  const [, , work = '', how = '', delay = ''] = process.argv;
  if (how === 'exit listener') {
    // More work than ever is queued while the process is already going away.
    const policy = await Policy.load(embeddedModel);
    process.on('exit', () => {
      for (let i = 0; i < 300; i++) void works[work]?.(policy).catch(() => undefined);
    });
    endLater('exit', Number(delay));
  } else {
    endLater(how, Number(delay));
  }
  await workForever(work);
}
