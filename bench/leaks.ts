/**
 * Whether anything is kept of what was made and thrown away: policies, tensors, generations, worker threads, loads that
 * fail, calls that are aborted or refused halfway. Each kind runs many times; afterwards the native counters
 * (`deviceInfo('cpu')`, `tensorMemory()`) must be where they were, and the resident set must not have grown with the
 * number of rounds.
 *
 *     node --expose-gc dist/bench/leaks.js [rounds=1000] [WORD]...    only the kinds whose name contains one of the words
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { deviceInfo, Policy, Tensor, tensorMemory, tokenStats } from 'eepo';

const rounds = Number(process.argv[2] ?? 1000);
const words = process.argv.slice(3);
const model = fileURLToPath(new URL('../../models/countdown', import.meta.url));
const temporary = mkdtempSync(join(tmpdir(), 'eepo-leaks-'));
process.on('exit', () => rmSync(temporary, { recursive: true, force: true }));

const broken = join(temporary, 'broken');
cpSync(model, broken, { recursive: true });
writeFileSync(join(broken, 'model.safetensors'), Buffer.alloc(1000, 255));
const policyJson = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8')) as Record<string, unknown>;

const policy = await Policy.load(model);
const batch = { prompts: [[1, 2]], responses: [[3, 4, 5, 6]] };
const ignore = () => undefined;
const collect = async (): Promise<void> => {
  for (let i = 0; i < 3; i++) {
    globalThis.gc?.();
    await wait(1);
  }
};

/** What leaves the counters and the resident set alone; each is called `rounds / weight` times. */
const kinds: { name: string; weight: number; run: () => Promise<unknown> }[] = [
  { name: 'policy, disposed', weight: 1, run: async () => (await Policy.load(model)).dispose() },
  { name: 'policy, collected', weight: 1, run: () => Policy.load(model) },
  {
    name: 'policy, trained',
    weight: 4,
    async run() {
      using own = await Policy.load(model);
      await own.forward(batch);
      await own.backward(new Float32Array(4).fill(0.1));
      await own.step({ lr: 1e-4 });
      using clone = await own.clone();
      await clone.score([[1, 2]]);
    },
  },
  { name: 'load that fails', weight: 1, run: () => Policy.load(broken).catch(ignore) },
  {
    name: 'load that is aborted',
    weight: 1,
    run: () => Policy.load(model, { signal: AbortSignal.timeout(1) }).then((loaded) => loaded.dispose(), ignore),
  },
  {
    name: 'create that is too large',
    weight: 1,
    run: () =>
      Policy.create({ ...policyJson, vocab_size: 2 ** 23, hidden_size: 2 ** 22, tie_word_embeddings: false }).catch(
        ignore,
      ),
  },
  {
    name: 'tensors, disposed',
    weight: 0.1,
    async run() {
      using tensor = Tensor.zeros([100, 100]);
      using view = tensor.reshape([10000]);
      await view.data();
    },
  },
  { name: 'tensors, collected', weight: 0.1, run: async () => Tensor.zeros([100, 100]).reshape([-1]) },
  {
    name: 'kernel',
    weight: 0.1,
    async run() {
      using logits = Tensor.zeros([4, 50]);
      for (const tensor of Object.values(await tokenStats(logits, [0, 1, 2, 3])) as Tensor[]) tensor.dispose();
      await tokenStats(logits, [0, 1, 2, 99]).catch(ignore);
    },
  },
  {
    name: 'generation',
    weight: 1,
    run: () => policy.generate([[1], [2, 3]], { maxNewTokens: 8, samplesPerPrompt: 4, onProgress() {} }),
  },
  {
    name: 'generation that is aborted',
    weight: 1,
    run: () =>
      policy
        .generate([[1], [2, 3]], { maxNewTokens: 60, samplesPerPrompt: 20, signal: AbortSignal.timeout(2) })
        .catch(ignore),
  },
  {
    name: 'generation that is refused',
    weight: 0.2,
    run: () => policy.generate([[1]], { maxNewTokens: 8, cacheTokens: 2 }).catch(ignore),
  },
  {
    name: 'forget and syncRollout',
    weight: 1,
    async run() {
      await policy.forget(batch, {
        entropy: new Float32Array(4).fill(1),
        eta: 1e-3,
        alpha: 9,
        window: 3,
        epsLow: 1e-6,
        epsHigh: 1e-5,
        clampGrad: 'zero',
        normalize: 'none',
      });
      await policy.syncRollout();
    },
  },
  {
    name: 'backward that is refused',
    weight: 0.5,
    async run() {
      await policy.forward(batch);
      await policy.backward(new Float32Array(99)).catch(ignore);
      await policy.zeroGrad();
    },
  },
  {
    name: 'worker thread, terminated',
    weight: 20,
    async run() {
      const code = `
        const { workerData, parentPort } = require('node:worker_threads');
        import(workerData.index).then(async ({ Policy }) => {
          const policy = await Policy.load(workerData.model);
          parentPort.postMessage('ready');
          for (;;) await policy.generate([[1]], { maxNewTokens: 60, samplesPerPrompt: 10 });
        });`;
      const index = new URL('../lib/index.js', import.meta.url).href;
      const worker = new Worker(code, { eval: true, workerData: { index, model } });
      await new Promise((resolve) => worker.once('message', resolve));
      await worker.terminate();
    },
  },
];

async function counters(): Promise<{ allocated: number; storages: number; rss: number }> {
  await collect();
  const { allocatedBytes } = await deviceInfo('cpu');
  return { allocated: allocatedBytes, storages: tensorMemory().storages, rss: process.memoryUsage().rss / 2 ** 20 };
}

let leaks = 0;
for (const { name, weight, run } of kinds) {
  if (words.length > 0 && !words.some((word) => name.includes(word))) continue;
  const count = Math.max(10, Math.round(rounds / weight));
  const repeat = async (times: number): Promise<void> => {
    for (let i = 0; i < times; i++) {
      await run();
      if (i % 10 === 9) await collect();
    }
  };
  // The first part fills caches, arenas and the JavaScript heap. After it the resident set must not follow the count.
  await repeat(Math.ceil(count / 4));
  const before = await counters();
  await repeat(Math.ceil((3 * count) / 4));
  const after = await counters();
  const growth = after.rss - before.rss;
  const leaked = after.allocated !== before.allocated || after.storages !== before.storages || growth > 16;
  leaks += leaked ? 1 : 0;
  console.log(
    `${leaked ? 'LEAK' : 'ok'}  ${name}: ${count} rounds, native ${after.allocated - before.allocated} bytes, ` +
      `${after.storages - before.storages} storages, resident ${growth.toFixed(1)} MiB`,
  );
}
policy.dispose();
process.exitCode = leaks === 0 ? 0 : 1;
