/**
 * Memory over many iterations: EEPO with a KL penalty and two updates per iteration on the embedded policy, the resident
 * set after every tenth part. Fails when its maximum in the second half is above that in the first by 2 % and 8 MiB.
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

// The resident set swings by some MiB as the allocator keeps and returns pages: compare its maxima.
const middle = Math.floor(resident.length / 2);
const [first, second] = [Math.max(...resident.slice(0, middle)), Math.max(...resident.slice(middle))];
console.log(`highest in the first half ${first.toFixed(1)} MiB, in the second ${second.toFixed(1)} MiB`);
if (second - first > Math.max(8, 0.02 * first)) process.exitCode = 1;
