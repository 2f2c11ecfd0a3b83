// Makes base policies of the embedded tasks with other seeds than the ones that ship, for studies over several:
// runs/base/countdown-seed1/model, runs/base/calculator-seed1/model, ... What is there already is kept.
//
//   node scripts/make-base-models.mjs [--tasks countdown,calculator] [--seeds 1,2,3] [--out runs/base]
import { spawnSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const { values } = parseArgs({
  options: {
    tasks: { type: 'string', default: 'calculator,countdown' },
    seeds: { type: 'string', default: '1,2,3' },
    out: { type: 'string', default: join(root, 'runs', 'base') },
  },
});

/**
 * The skill of the calculator comes at once, some time after step 500, and with most seeds later than with the one that
 * ships: 1200 steps are enough for that, not for all.
 */
const SETTINGS = { calculator: ['--set', 'run.steps=2000'] };

/** A run of `eepo sft`, unless it is complete; what a stopped one left is made again. */
function sft(task, out, seed) {
  if (existsSync(join(out, 'summary.json'))) return;
  rmSync(out, { recursive: true, force: true });
  const args = [
    'sft',
    join(root, 'configs', `${task}-sft.toml`),
    '--set',
    `run.seed=${seed}`,
    ...(SETTINGS[task] ?? []),
  ];
  const { status } = spawnSync(process.execPath, [join(root, 'bin', 'eepo.mjs'), ...args, '--out', out], {
    stdio: 'inherit',
  });
  if (status !== 0) process.exit(status ?? 1);
}

for (const task of values.tasks.split(',')) {
  for (const seed of values.seeds.split(',')) {
    const out = join(values.out, `${task}-seed${seed}`);
    sft(task, out, seed);
    console.log(join(out, 'model'));
  }
}
