/** `eepo bench verify`: how many comparisons a second the verifier makes, everything included. */
import type { Command } from 'commander';
import { ordinaryCase } from '../bench/verify-cases.js';
import { VerifierError } from '../errors.js';
import { VerifierPool } from '../verify/pool.js';
import { formatTable, wholeNumber, withInterrupt } from './common.js';

interface Options {
  cases: number;
  characters: number;
  workers: number;
}

export function register(bench: Command): void {
  bench
    .command('verify')
    .description('comparisons a second of the verifier, with extraction, processes and messages')
    .option('--cases <n>', 'comparisons of a round', wholeNumber('cases', 10), 10_000)
    .option('--characters <n>', 'length of a response', wholeNumber('characters', 0), 2_000)
    .option('--workers <n>', 'worker processes', wholeNumber('workers', 1), 1)
    .action((options: Options) => withInterrupt((signal) => run(options, signal)));
}

const ROUNDS = 3;

async function run({ cases, characters, workers }: Options, signal: AbortSignal): Promise<void> {
  await using pool = new VerifierPool({ workers });
  const started = performance.now();
  await pool.verify([{ prediction: '1', gold: '1' }], { signal });
  console.log(`the first comparison, with the start of a worker: ${Math.round(performance.now() - started)} ms\n`);
  const rows: string[][] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const first = round * cases;
    const items = Array.from({ length: cases }, (_, i) => ordinaryCase(first + i, characters));
    const cpu = process.cpuUsage();
    const begin = performance.now();
    const verdicts = await pool.verify(items, { signal });
    const milliseconds = performance.now() - begin;
    const { user, system } = process.cpuUsage(cpu);
    const wrong = verdicts.filter(({ equal }, i) => equal === ((first + i) % 3 === 2)).length;
    if (wrong > 0)
      throw new VerifierError(`${wrong} of ${cases} ordinary comparisons came out wrong: a bug of the verifier`);
    rows.push([
      String(round + 1),
      String(Math.round((1000 * cases) / milliseconds)),
      String(Math.round((1000 * cases) / milliseconds / workers)),
      ((user + system) / cases).toFixed(1),
    ]);
  }
  console.log(formatTable(['round', 'a second', 'a second and worker', 'us of the main process'], rows));
}
