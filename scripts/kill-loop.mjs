// Kills training runs again and again and compares what the resumed runs end with, bit for bit, with runs that were never
// stopped. Prints a table; exits with 1 at any difference, and keeps the folder where it is.
//   node scripts/kill-loop.mjs --kills 60 --seed 1
//   node scripts/kill-loop.mjs --kills 8 --directed 0 --syscalls 0 --power 0 --signals 0 --variants float32
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '60' }, // SIGKILLs at random times
    seed: { type: 'string', default: '1' },
    directed: { type: 'string', default: 'Infinity' }, // at events and file operations; Infinity: every one
    syscalls: { type: 'string', default: '60' }, // inside system calls (strace)
    power: { type: 'string', default: '24' }, // what was not synced is damaged (strace)
    signals: { type: 'string', default: '24' }, // SIGINT, SIGTERM
    variants: { type: 'string', default: 'float32,bfloat16,lora' },
    only: { type: 'string' }, // the runs of this name alone ("resume 3"), to repeat one
    jobs: { type: 'string', default: '1' }, // runs at a time
    quiet: { type: 'boolean', default: false },
  },
});
const number = (name) => {
  const value = Number(values[name]);
  if (!(value >= 0)) throw new Error(`--${name} ${values[name]}: expected a number`);
  return value;
};

let loop;
try {
  loop = await import('../dist/test/support/kill/loop.js');
} catch (error) {
  console.error(`build first (npm run build:ts): ${error.message}`);
  process.exit(1);
}
const began = performance.now();
const report = await loop.killLoop({
  kills: number('kills'),
  seed: number('seed'),
  directed: number('directed'),
  syscalls: number('syscalls'),
  power: number('power'),
  signals: number('signals'),
  variants: values.variants.split(','),
  only: values.only,
  jobs: Math.max(1, number('jobs')),
  say: values.quiet ? () => {} : (line) => console.error(line),
});
console.log(loop.formatReport(report));
console.log(`${Math.round((performance.now() - began) / 1000)} s`);
for (const problem of report.problems) console.error(`WRONG: ${problem}`);
process.exitCode = report.problems.length > 0 ? 1 : 0;
