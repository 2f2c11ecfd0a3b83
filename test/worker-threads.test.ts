import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { performance } from 'node:perf_hooks';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { tokenStats } from '../lib/kernels.js';
import { Tensor } from '../lib/tensor.js';

const program = new URL('./support/edge-program.js', import.meta.url);

/** Runs the program in a process of its own. */
async function runProcess(
  name: string,
): Promise<{ code: number | null; signal: string | null; out: string; error: string }> {
  const child = spawn(process.execPath, [fileURLToPath(program), name], { stdio: ['ignore', 'pipe', 'pipe'] });
  let [out, error] = ['', ''];
  child.stdout.on('data', (data) => {
    out += data;
  });
  child.stderr.on('data', (data) => {
    error += data;
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  return { code, signal, out, error };
}

function start(name: string): Worker {
  return new Worker(program, { workerData: name });
}

describe('worker threads', () => {
  test('several threads share the device thread, and each gets its own results', async () => {
    const workers = Array.from({ length: 4 }, () => start('small'));
    const results = await Promise.all(workers.map((worker) => once(worker, 'message')));
    assert.deepEqual(results.flat(), [200, 200, 200, 200]);
    await Promise.all(workers.map((worker) => worker.terminate()));
    using logits = Tensor.from([[0, 0]]);
    assert.ok(Math.abs((await (await tokenStats(logits, [0])).logprob.item()) + Math.LN2) < 1e-6);
  });

  test('terminate() with work in flight cancels it, and other threads go on', async () => {
    for (let round = 0; round < 5; round++) {
      const worker = start('busy');
      await once(worker, 'message');
      await worker.terminate();
    }
    const from = performance.now();
    using logits = Tensor.from([[0, 0]]);
    await tokenStats(logits, [0]);
    // Ten calls of hundreds of milliseconds were pending; they must not still be computed.
    assert.ok(performance.now() - from < 2000, `the next call waited ${performance.now() - from} ms`);
  });

  test('a worker that is done ends by itself', async () => {
    const worker = start('idle');
    const [code] = await once(worker, 'exit');
    assert.equal(code, 0);
  });
});

describe('process exit', () => {
  test('an idle device thread does not keep the process alive', async () => {
    assert.deepEqual(await runProcess('idle'), { code: 0, signal: null, out: '', error: '' });
  });

  test('a pending promise does', async () => {
    assert.deepEqual(await runProcess('awaited'), { code: 0, signal: null, out: 'settled\n', error: '' });
  });

  test('process.exit(7) with work in flight is exit code 7', async () => {
    for (let round = 0; round < 3; round++) {
      assert.deepEqual(await runProcess('exit'), { code: 7, signal: null, out: '', error: '' });
    }
  });

  test('an uncaught exception with work in flight is exit code 1', async () => {
    const { code, signal, error } = await runProcess('throw');
    assert.deepEqual([code, signal], [1, null]);
    assert.match(error, /on purpose/);
  });

  test('the addon stays mapped when the only thread that loaded it is terminated', async () => {
    for (let round = 0; round < 3; round++) {
      assert.deepEqual(await runProcess('onlyWorker'), { code: 0, signal: null, out: 'terminated\n', error: '' });
    }
  });
});

test('the event loop runs while a kernel computes', async () => {
  const rows = 1 << 14;
  using hidden = Tensor.zeros([rows, 64]);
  using head = Tensor.zeros([8192, 64]);
  let ticks = 0;
  const timer = setInterval(() => ticks++, 2);
  const from = performance.now();
  const stats = await tokenStats({ hidden, head }, new Int32Array(rows));
  const took = performance.now() - from;
  clearInterval(timer);
  for (const tensor of Object.values(stats) as Tensor[]) tensor.dispose();
  assert.ok(ticks > took / 40, `${ticks} ticks of 2 ms in ${took} ms`);
});
