/** `eepo train` that is interrupted, runs out of disk or loses its folder: what it says, and that nothing is lost. */
import assert from 'node:assert/strict';
import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { completeText } from '../lib/cli/train.js';
import { CheckpointError } from '../lib/index.js';
import type { RunSummary, StoppedRun } from '../lib/train/run.js';
import { RunDirectory } from '../lib/train/run-directory.js';
import { ROOT } from './support/data.js';
import { outcome, smallConfig, smallRun } from './support/small-run.js';

const folder = mkdtempSync(join(tmpdir(), 'eepo-stop-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let made = 0;
const fresh = (): string => join(folder, `run-${made++}`);

const main = join(ROOT, 'dist', 'lib', 'cli', 'main.js');
const preset = join(ROOT, 'configs', 'eepo.toml');
const SETS = [
  'run.iterations=3',
  'rollout.promptsPerIteration=4',
  'rollout.groupSize=4',
  'optimizer.miniBatchPrompts=2',
  'eval.atStart=false',
  'eval.atEnd=false',
  'checkpoint.every=1',
];
const sets = (...more: string[]): string[] => [...SETS, ...more].flatMap((value) => ['--set', value]);

function eepo(...args: string[]): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', cwd: folder });
}

interface End {
  code: number | null;
  signal: NodeJS.Signals | null;
  stderr: string;
  stdout: string;
}

/** Starts `eepo train` and sends signals where its output says that it is time: [text, signal] one after the other. */
async function signalled(args: string[], signals: [RegExp, NodeJS.Signals][], imports: string[] = []): Promise<End> {
  const child = spawn(process.execPath, [...imports.flatMap((file) => ['--import', file]), main, 'train', ...args], {
    cwd: folder,
  });
  const waiting = [...signals];
  let stderr = '';
  let stdout = '';
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk;
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk;
    const [next] = waiting;
    if (next === undefined || !next[0].test(stderr)) return;
    waiting.shift();
    child.kill(next[1]);
  });
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve) => {
    child.once('close', (...end) => resolve(end as [number | null, NodeJS.Signals | null]));
  });
  return { code, signal, stderr, stdout };
}

/** A module that stretches the saving of a checkpoint, so that a second signal comes while it lasts. */
function slowSaves(): string {
  const file = join(folder, 'slow.mjs');
  const progress = pathToFileURL(join(ROOT, 'dist', 'lib', 'train', 'progress.js')).href;
  writeFileSync(
    file,
    `import { Progress } from ${JSON.stringify(progress)};
const event = Progress.prototype.event;
Progress.prototype.event = function (what) {
  event.call(this, what);
  const end = Date.now() + (what.type === 'checkpoint' && what.step === 'optimizer' ? 30_000 : 0);
  while (Date.now() < end);
};
`,
  );
  return pathToFileURL(file).href;
}

describe('eepo train, interrupted', () => {
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    it(`by ${name} saves a checkpoint, says how to go on and exits with 0; going on ends as if nothing had been`, async () => {
      const [whole, out] = [fresh(), fresh()];
      const reference = eepo('train', preset, ...sets(), '--out', whole);
      assert.equal(reference.status, 0, reference.stderr);
      const args = [preset, ...sets('checkpoint.every=0'), '--out', out];
      const { code, stderr } = await signalled(args, [[/^1\/3 /m, name]]);
      assert.equal(code, 0, stderr);
      assert.match(stderr, /stopping: saving a checkpoint; once more ends at once/);
      const where = /stopped after iteration (\d) of 3; the checkpoint is (.*)\nto go on: (.*)/.exec(stderr);
      assert.ok(where, stderr);
      assert.equal(where[2], join(out, 'checkpoints', `iteration-00000${where[1]}`));
      const command = (where[3] as string).split(' ');
      assert.deepEqual(command.slice(0, 4), ['npx', 'eepo', 'train', preset]);
      assert.deepEqual(command.slice(-2), ['--resume', out]);
      assert.equal(existsSync(join(out, 'model')), false);
      const on = spawnSync(`${process.execPath} ${main} ${command.slice(2).join(' ')}`, {
        shell: true,
        encoding: 'utf8',
        cwd: folder,
      });
      assert.equal(on.status, 0, on.stderr);
      assert.deepEqual(outcome(out), outcome(whole));
    });
  }

  it('twice ends at once, with the older checkpoint whole', async () => {
    const out = fresh();
    const args = [preset, ...sets('checkpoint.every=0'), '--out', out];
    const begin = performance.now();
    const { signal, stderr } = await signalled(
      args,
      [
        [/^1\/3 /m, 'SIGINT'],
        [/once more ends at once/, 'SIGTERM'],
      ],
      [slowSaves()],
    );
    assert.equal(signal, 'SIGTERM', stderr);
    assert.ok(performance.now() - begin < 25_000, 'it did not wait for the save');
    // whatever it was in the middle of: the same command goes on
    const on = eepo('train', ...args, '--resume', 'latest');
    assert.equal(on.status, 0, on.stderr);
  });

  it('before anything was written says so', async () => {
    const out = fresh();
    const wait = join(folder, 'wait.mjs');
    const load = pathToFileURL(join(ROOT, 'dist', 'lib', 'policy.js')).href;
    writeFileSync(
      wait,
      `import { Policy } from ${JSON.stringify(load)};
const { load } = Policy;
Policy.load = async (...args) => {
  console.error('loading');
  await new Promise((resolve) => setTimeout(resolve, 1000));
  return load.apply(Policy, args);
};
`,
    );
    const { code, stderr } = await signalled(
      [preset, ...sets(), '--out', out],
      [[/loading/, 'SIGINT']],
      [pathToFileURL(wait).href],
    );
    assert.equal(code, 0, stderr);
    assert.match(stderr, /stopped before the first iteration: nothing was written/);
    assert.equal(existsSync(out), false);
  });

  it('before the modules of the command are loaded says so, and ends by the signal', async () => {
    const early = join(folder, 'early.mjs');
    writeFileSync(
      early,
      `process.on('newListener', (name) => {
  if (name === 'SIGTERM') setImmediate(() => process.kill(process.pid, 'SIGTERM'));
});
`,
    );
    const program = join(ROOT, 'bin', 'eepo.mjs');
    const args = ['--import', pathToFileURL(early).href, program, 'train', preset, ...sets(), '--out', fresh()];
    const { signal, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', cwd: folder });
    assert.deepEqual([signal, stderr], ['SIGTERM', 'stopped before anything was done\n']);
  });
});

describe('eepo train --resume', () => {
  it('of a finished run trains nothing, and says that plainly; more iterations go on', () => {
    const out = fresh();
    assert.equal(eepo('train', preset, ...sets('run.iterations=1'), '--out', out).status, 0);
    const again = eepo('train', preset, ...sets('run.iterations=1'), '--resume', out);
    assert.equal(again.status, 0, again.stderr);
    assert.match(again.stdout, /already complete \(iteration 1 of 1\); nothing to train\. Set run\.iterations higher/);
    const fewer = completeText('runs/mine', 60, 3);
    assert.match(fewer, /runs\/mine has 60 iterations, more than run\.iterations = 3; .*above 60.*--resume.*--out/);
    const more = eepo('train', preset, ...sets('run.iterations=2'), '--resume', out);
    assert.equal(more.status, 0, more.stderr);
    assert.match(more.stderr, /note: changed since the checkpoint: run\.iterations: 1 -> 2/);
    assert.match(more.stderr, /note: going on after iteration 1 of 2/);
    const other = eepo('train', preset, ...sets('run.iterations=3', 'optimizer.lr=1e-3'), '--resume', out);
    assert.equal(other.status, 1);
    assert.match(other.stderr, /made with another configuration:\n {2}optimizer\.lr: 0\.00005 -> 0\.001\n/);
    assert.match(other.stderr, /--accept-changes/);
  });

  it('latest finds the newest run of the configuration, or begins one in --out', () => {
    const none = eepo('train', preset, ...sets(), '--resume', 'latest');
    assert.equal(none.status, 1);
    assert.match(none.stderr, /there is no run of .*eepo\.toml in runs\//);
    assert.equal(eepo('train', preset, ...sets('run.iterations=1')).status, 0);
    const on = eepo('train', preset, ...sets('run.iterations=2'), '--resume', 'latest');
    assert.equal(on.status, 0, on.stderr);
    assert.match(on.stderr, /going on after iteration 1 of 2, from runs\/eepo-/);
    const out = fresh();
    const begun = eepo('train', preset, ...sets('run.iterations=1'), '--resume', 'latest', '--out', out);
    assert.equal(begun.status, 0, begun.stderr);
    assert.match(begun.stderr, /has no run to go on with: a new one begins there/);
  });

  it('refuses what does not go together', () => {
    const refused = (message: RegExp, ...args: string[]): void => {
      const { status, stderr } = eepo('train', preset, ...sets(), ...args);
      assert.equal(status, 1, stderr);
      assert.match(stderr, message);
    };
    refused(/--accept-changes needs --resume/, '--accept-changes');
    refused(/leave out --resume/, '--resume', 'latest', '--dry-run');
    refused(/no such run or checkpoint/, '--resume', 'nowhere');
  });

  it('needs no configuration where it names a run: it has its own', () => {
    const out = fresh();
    assert.equal(eepo('train', preset, ...sets('run.iterations=1', 'rollout.temperature=1.1'), '--out', out).status, 0);
    const before = readFileSync(join(out, 'config.toml'), 'utf8');
    const again = eepo('train', '--resume', out);
    assert.equal(again.status, 0, again.stderr);
    assert.match(again.stdout, /already complete \(iteration 1 of 1\)/);
    const more = eepo('train', '--resume', 'latest', '--out', out, '--set', 'run.iterations=2');
    assert.equal(more.status, 0, more.stderr);
    assert.match(more.stderr, /going on after iteration 1 of 2/);
    assert.equal(readFileSync(join(out, 'config.toml'), 'utf8'), before.replace('iterations = 1', 'iterations = 2'));
    for (const args of [['train'], ['train', '--resume', 'latest']]) {
      const { status, stderr } = eepo(...args);
      assert.equal(status, 1);
      assert.match(stderr, /which configuration\? .*--resume runs\/NAME/);
    }
  });
});

/** Whether a file system of a few megabytes can be mounted here, in a namespace of our own. */
const mounts = spawnSync('unshare', ['-rm', 'sh', '-c', `mount -t tmpfs -o size=1m tmpfs ${folder}`]).status === 0;
const tmpfs = { skip: mounts ? false : 'no file system can be mounted here (unshare -rm, mount -t tmpfs)' };

/** Runs `eepo train` in a file system of its own; then `after` in the same shell. */
function onDisk(options: string, args: string[], more = 'true'): SpawnSyncReturns<string> {
  const disk = join(folder, 'disk');
  mkdirSync(disk, { recursive: true });
  const script = `mount -t tmpfs -o ${options} tmpfs ${disk} && "$@"; code=$?; ${more}; exit $code`;
  const command = [process.execPath, main, 'train', ...args, '--out', join(disk, 'run')];
  return spawnSync('unshare', ['-rm', 'sh', '-c', script, 'sh', ...command], { encoding: 'utf8', cwd: folder });
}

describe('a disk that is full', () => {
  const list = `cd ${join(folder, 'disk', 'run')} && find . -type f | sort && cat checkpoints/latest`;

  it('before a checkpoint: it is told beforehand, training goes on, the older checkpoint stays', tmpfs, () => {
    // room for one checkpoint of 4.3 MB and for the final model
    const { status, stderr, stdout } = onDisk('size=7m', [preset, ...sets()], list);
    assert.equal(status, 0, stderr);
    assert.match(
      stderr,
      /EepoCheckpointWarning: the next checkpoint will not fit: a checkpoint takes 4\.3 MB, .* has [\d.]+ MB left/,
    );
    assert.match(
      stderr,
      /the checkpoint of iteration 2 was not saved \(a checkpoint takes .*\); the last good one is .*000001\. Training goes on/,
    );
    assert.match(stderr, /3\/3 /);
    assert.match(stdout, /summary\.json/);
    assert.match(stdout, /checkpoints\/iteration-000001\/optimizer\.safetensors/);
    assert.doesNotMatch(stdout, /\.tmp|iteration-000002\/state/);
    assert.match(stdout, /\niteration-000001\n/);
  });

  it('in the middle of a checkpoint: nothing of it stays, and training goes on', tmpfs, () => {
    // more than the estimate (12 bytes a parameter), less than the checkpoint with its tokenizer and state
    const { status, stderr, stdout } = onDisk(
      'size=4160k',
      [preset, ...sets('run.completionsEvery=0')],
      `${list}; true`,
    );
    assert.equal(status, 0, stderr);
    assert.match(
      stderr,
      /the checkpoint of iteration 1 was not saved \(.*(no space left on device|No space left).*\); there is no older one/i,
    );
    assert.doesNotMatch(stdout, /\.tmp/);
    assert.match(stdout, /model\/model\.safetensors/);
  });
});

describe('a folder that cannot be written', () => {
  it('at a checkpoint is told, counted, and training goes on', async () => {
    const out = fresh();
    const warnings: string[] = [];
    const listen = (warning: Error): void => void warnings.push(`${warning.name}: ${warning.message}`);
    process.on('warning', listen);
    let summary: RunSummary;
    try {
      summary = await smallRun(smallConfig(), out, {
        onEvent: (event) => {
          // a file stands where the folder of checkpoints is to be
          if (event.type === 'phase' && event.phase === 'stage1' && event.iteration === 1) {
            writeFileSync(join(out, 'checkpoints'), 'in the way');
          }
          if (event.type === 'phase' && event.phase === 'stage1' && event.iteration === 3)
            rmSync(join(out, 'checkpoints'));
        },
      });
      await new Promise((resolve) => setImmediate(resolve));
    } finally {
      process.off('warning', listen);
    }
    assert.match(
      warnings.join('\n'),
      /EepoCheckpointWarning: the checkpoint of iteration 2 was not saved \(.*ENOTDIR.*\); there is no older one\. Training goes on/,
    );
    assert.deepEqual(
      summary.history.map(({ metrics }) => metrics['checkpoint/failed']),
      [undefined, 1, 2],
    );
    assert.deepEqual(readdirSync(join(out, 'checkpoints')).sort(), ['iteration-000003', 'latest']);
  });

  it('because it has vanished ends the run cleanly, and is not made again', async () => {
    const out = fresh();
    const away = `${out}-away`;
    let stopped: StoppedRun | undefined;
    const run = smallRun(smallConfig(), out, {
      onEvent: (event) => {
        if (event.type === 'phase' && event.phase === 'reward' && event.iteration === 2) renameSync(out, away);
      },
      onStop: (what) => {
        stopped = what;
      },
    });
    await assert.rejects(run, (error: Error) => {
      assert.ok(error instanceof CheckpointError);
      assert.match(error.message, /has vanished, or its file .lock was removed/);
      return true;
    });
    assert.equal(stopped?.iteration, 2);
    assert.equal(existsSync(out), false);
    rmSync(join(away, '.lock')); // of this very process, which lives
    await smallRun(smallConfig(), away, { resume: 'latest' });
    const whole = fresh();
    await smallRun(smallConfig(), whole);
    assert.deepEqual(outcome(away), outcome(whole));
  });

  it('read-only from the start is refused before anything is trained', tmpfs, () => {
    const { status, stderr } = onDisk('size=1m,ro', [preset, ...sets()]);
    assert.equal(status, 1, stderr);
    assert.match(stderr, /EROFS|read-only/i);
    assert.doesNotMatch(stderr, / {4}at /, 'no stack trace');
  });

  it('where none can be made is refused too', () => {
    const nested = join(folder, 'a', 'b', 'c');
    RunDirectory.create(nested).release();
    assert.deepEqual(readdirSync(nested), []);
    // /proc says ENOENT for a folder whose parent is there
    assert.throws(() => RunDirectory.create('/proc/eepo-no-such-folder'), { code: 'EEPO_CONFIG' });
    const file = join(folder, 'file');
    writeFileSync(file, '');
    assert.throws(() => RunDirectory.create(file), { code: 'EEPO_CONFIG', message: /is a file; a run is written/ });
  });

  it('read-only in the middle ends the run with the last checkpoint named', tmpfs, () => {
    const disk = join(folder, 'disk');
    const file = join(folder, 'remount.mjs');
    const progress = pathToFileURL(join(ROOT, 'dist', 'lib', 'train', 'progress.js')).href;
    writeFileSync(
      file,
      `import { execFileSync } from 'node:child_process';
import { Progress } from ${JSON.stringify(progress)};
const event = Progress.prototype.event;
Progress.prototype.event = function (what) {
  event.call(this, what);
  if (what.type === 'phase' && what.phase === 'reward' && what.iteration === 2)
    execFileSync('mount', ['-o', 'remount,ro', ${JSON.stringify(disk)}]);
};
`,
    );
    mkdirSync(disk, { recursive: true });
    const script = `mount -t tmpfs -o size=20m tmpfs ${disk} && "$@"; code=$?; find ${disk} -name state.json; exit $code`;
    const command = [
      process.execPath,
      '--import',
      pathToFileURL(file).href,
      main,
      'train',
      preset,
      ...sets(),
      '--out',
      join(disk, 'run'),
    ];
    const { status, stderr, stdout } = spawnSync('unshare', ['-rm', 'sh', '-c', script, 'sh', ...command], {
      encoding: 'utf8',
    });
    assert.equal(status, 1, stderr);
    assert.match(
      stderr,
      /error: the lines of iteration 2 could not be written to .*EROFS.*the last good checkpoint is .*iteration-000001/,
    );
    assert.match(stderr, /to go on: npx eepo train /);
    assert.match(stdout, /iteration-000001\/state\.json/);
  });
});

const failing = `let calls = 0;
export default (inputs) => {
  calls += 1;
  if (calls > 3) throw new Error('the judge is ill');
  return inputs.map(() => 0);
};
`;

describe('an error in training', () => {
  it('saves the last whole iteration first, and says how to go on', () => {
    const module = join(folder, 'judge.mjs');
    writeFileSync(module, failing);
    const out = fresh();
    const more = [`reward.module=${module}`, 'reward.onError=stop', 'checkpoint.every=0'];
    const { status, stderr } = eepo('train', preset, ...sets(...more), '--out', out);
    assert.equal(status, 1, stderr);
    assert.match(
      stderr,
      /stopped after iteration 2 of 3; the checkpoint is .*iteration-000002\nto go on: npx eepo train/,
    );
    assert.match(stderr, /error: .*the judge is ill.*\[EEPO_REWARD\]/);
    writeFileSync(module, failing.replace('calls > 3', 'false'));
    const on = eepo('train', preset, ...sets(...more), '--resume', out);
    assert.equal(on.status, 0, on.stderr);
    assert.equal(readFileSync(join(out, 'metrics.jsonl'), 'utf8').trim().split('\n').length, 3);
  });
});
