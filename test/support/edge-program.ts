/**
 * A program for the tests of threads and exits: what it does is its first argument (as a process) or its workerData
 * (as a worker thread). Matrices are sized so that one call takes some hundred milliseconds.
 */
import { isMainThread, parentPort, threadId, Worker, workerData } from 'node:worker_threads';
import { tokenStats } from '../../lib/kernels.js';
import { Tensor } from '../../lib/tensor.js';

/** A fused call that polls its CancelToken between chunks of rows. */
function longCall(rows = 1 << 14): Promise<unknown> {
  const input = { hidden: Tensor.zeros([rows, 64]), head: Tensor.zeros([8192, 64]) };
  return tokenStats(input, new Int32Array(rows));
}

/** Log-probs of 0 in logits that depend on the thread, checked where they are computed. */
async function manySmallCalls(count: number): Promise<number> {
  let correct = 0;
  for (let i = 0; i < count; i++) {
    const x = threadId + i / count;
    using logits = Tensor.from([[x, 0]]);
    const { logprob, entropy, oneMinusP } = await tokenStats(logits, [0]);
    if (Math.abs((await logprob.item()) + Math.log1p(Math.exp(-x))) < 1e-6) correct++;
    for (const tensor of [logprob, entropy, oneMinusP]) tensor.dispose();
  }
  return correct;
}

const programs: Record<string, () => Promise<unknown> | unknown> = {
  small: () => manySmallCalls(200),
  idle: () => longCall(8),
  /** Settles only if the pending promise keeps the process alive. */
  awaited: () => longCall(1 << 12).then(() => console.log('settled')),
  async exit() {
    void longCall();
    void longCall();
    setTimeout(() => process.exit(7), 30);
  },
  throw() {
    void longCall();
    setTimeout(() => {
      throw new Error('on purpose');
    }, 30);
  },
  /** Work in flight and a message, then forever: to be terminated. */
  busy() {
    void longCall();
    void longCall();
    setTimeout(() => parentPort?.postMessage('busy'), 20);
    setInterval(() => undefined, 1000);
  },
  /** The main thread never loads the addon; the only thread that did goes away under a running job. */
  async onlyWorker() {
    const worker = new Worker(new URL(import.meta.url), { workerData: 'busy' });
    await new Promise((resolve) => worker.once('message', resolve));
    await worker.terminate();
    await new Promise((resolve) => setTimeout(resolve, 300));
    console.log('terminated');
  },
};

const name = isMainThread ? process.argv[2] : (workerData as string);
const program = programs[name ?? ''];
if (program === undefined) throw new Error(`no such program: ${name}`);
const result = await program();
if (!isMainThread) parentPort?.postMessage(result);
