/**
 * Memory over many iterations: EEPO with a KL penalty and two updates per iteration on the embedded policy, the resident
 * set after every tenth part. Fails when the second half grew by more than 2 % or 8 MiB.
 *
 *     node --expose-gc dist/bench/memory.js [iterations=500]
 */
import { fileURLToPath } from 'node:url';
import { countdown, defineConfig, Policy, Tokenizer, Trainer } from 'eepo';

const iterations = Number(process.argv[2] ?? 500);
const folder = fileURLToPath(new URL('../../models/countdown', import.meta.url));
const policy = await Policy.load(folder);
const tokenizer = await Tokenizer.load(folder);
const config = defineConfig({
  run: { iterations },
  rollout: { promptsPerIteration: 16, groupSize: 8, maxNewTokens: 16 },
  optimizer: { lr: 1e-6, miniBatchPrompts: 8 },
});

const every = Math.max(1, Math.floor(iterations / 10));
const resident: number[] = [];
for await (const { iteration } of new Trainer({ policy, tokenizer, task: countdown(), config })) {
  if (iteration % every !== 0) continue;
  globalThis.gc?.();
  const { rss, heapUsed, external } = process.memoryUsage();
  const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
  resident.push(rss / 2 ** 20);
  console.log(`${iteration}: resident ${mib(rss)} MiB, heap ${mib(heapUsed)} MiB, external ${mib(external)} MiB`);
}
policy.dispose();

const half = resident[Math.floor((resident.length - 1) / 2)] ?? 0;
const last = resident.at(-1) ?? 0;
console.log(`second half: ${(last - half).toFixed(1)} MiB`);
if (last - half > Math.max(8, 0.02 * half)) process.exitCode = 1;
