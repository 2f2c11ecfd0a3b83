/** Exact resume in short: the long form is scripts/kill-loop.mjs. */
import assert from 'node:assert/strict';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { BusyError } from '../lib/errors.js';
import { sweepTemporaries } from '../lib/train/durable.js';
import { RunLock } from '../lib/train/run-lock.js';
import { randomOf, randomTime } from './support/kill/campaign.js';
import { Announced, invariantProblems } from './support/kill/invariants.js';
import type { Moment } from './support/kill/moments.js';
import { followCalls, readSystemCalls } from './support/kill/power-loss.js';
import { differences } from './support/kill/reference.js';
import { checkpointsOf } from './support/kill/run-files.js';
import {
  KEPT,
  type ReferenceRun,
  resumeComplete,
  runReference,
  runTrial,
  type TrialResult,
  VARIANTS,
  type Variant,
  workplace,
} from './support/kill/trial.js';

const boots = '/proc/sys/kernel/random/boot_id';
const bootId = existsSync(boots) ? readFileSync(boots, 'utf8').trim() : '';
const folder = mkdtempSync(join(tmpdir(), 'eepo-kill-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

describe('a run that is killed and resumed', () => {
  const variant = VARIANTS[0] as Variant;
  let config = '';
  let run: ReferenceRun;
  before(async () => {
    config = workplace(folder);
    run = await runReference(folder, config, variant);
  });

  async function trial(name: string, moments: readonly Moment[]): Promise<TrialResult> {
    const plan = { name, variant, blows: moments.map((moment) => ({ moment })) };
    const random = randomOf(1, name);
    const result = await runTrial(plan, { folder, config, reference: run.reference, random });
    assert.deepEqual([...result.landed.flatMap(({ problems }) => problems), ...result.problems], []);
    return result;
  }

  it('ends as if it had never been stopped: kills in an iteration, in a save, in the last save', async () => {
    const { landed } = await trial('directed', [
      { at: 'phase', name: 'stage2', nth: 3 },
      { at: 'step', name: 'rename', nth: 1 },
      { at: 'fs', op: 'appendFile', path: '^metrics\\.jsonl$', nth: 2, when: 'torn' },
      { at: 'step', name: 'latest', nth: 2 },
      { at: 'fs', op: 'rename', path: '^model$', nth: 1, when: 'before' },
    ]);
    assert.equal(landed.length, 5);
  });

  it('ends as if it had never been stopped: kills at random times', async () => {
    const random = randomOf(Number(process.env.EEPO_TEST_SEED ?? 1), 'short');
    const times = Array.from({ length: 3 }, (): Moment => ({ at: 'time', ...randomTime(run.life, random) }));
    await trial('random', times);
  });

  it('stops at SIGTERM, says how to go on, and does', async () => {
    const ms = run.life.trainingMs / 3;
    await trial('signal', [{ at: 'signal', name: 'SIGTERM', since: 'training', ms }]);
  });

  it('is left as it is when it is complete', async () => {
    assert.deepEqual(await resumeComplete(config, variant, run.reference.root), []);
  });

  it('is compared by something that sees a flipped bit', () => {
    const root = join(folder, 'broken');
    const check = (change: () => void, message: RegExp): void => {
      rmSync(root, { recursive: true, force: true });
      cpSync(run.reference.root, root, { recursive: true });
      assert.deepEqual(differences(root, run.reference), []);
      change();
      const announced = new Announced();
      announced.add(run.life.traces);
      const invariants = invariantProblems({ root, reference: run.reference, announced, kept: KEPT });
      assert.match([...differences(root, run.reference), ...invariants].join('\n'), message);
    };
    const flip = (name: string): void => {
      const data = readFileSync(join(root, name));
      data[data.length - 1] = (data.at(-1) as number) ^ 1;
      writeFileSync(join(root, name), data);
    };
    const [oldest] = checkpointsOf(run.reference.root);
    check(() => flip('model/model.safetensors'), /^model\/model\.safetensors differs/m);
    check(() => flip('completions.jsonl'), /^completions\.jsonl differs/m);
    check(() => appendFileSync(join(root, 'metrics.jsonl'), '{"iterat'), /8 torn bytes/);
    const [events] = readdirSync(join(run.reference.root, 'tensorboard'));
    check(() => appendFileSync(join(root, 'tensorboard', String(events)), 'torn'), /tensorboard\/.* and 4 torn bytes/);
    check(() => rmSync(join(root, 'tensorboard'), { recursive: true }), /^tensorboard\/ holds/m);
    check(
      () => flip(`checkpoints/${oldest}/optimizer.safetensors`),
      /optimizer\.safetensors is not what its state says/,
    );
    check(() => rmSync(join(root, 'checkpoints', String(oldest)), { recursive: true }), /was announced and is lost/);
    check(
      () => writeFileSync(join(root, 'checkpoints', 'latest'), 'iteration-000099\n'),
      /latest names iteration-000099/,
    );
    check(() => writeFileSync(join(root, '.iteration-000002.12.tmp'), ''), /left over/);
    assert.ok(existsSync(root));
  });
});

describe('what a process that was ended leaves in a folder', () => {
  const fresh = (name: string): string => {
    const place = join(folder, name);
    mkdirSync(place);
    return place;
  };

  it('is removed, but for the older folder that a new one was about to replace', () => {
    const place = fresh('swept');
    for (const name of ['.a.7.tmp', '.b.7.old.tmp', 'b', '.c.7.old.tmp', '.d.8.tmp']) mkdirSync(join(place, name));
    writeFileSync(join(place, '.c.7.old.tmp', 'x'), 'the only one');
    sweepTemporaries(place, (pid) => pid === 8);
    assert.deepEqual(readdirSync(place).sort(), ['.d.8.tmp', 'b', 'c']);
    assert.equal(readFileSync(join(place, 'c', 'x'), 'utf8'), 'the only one');
  });

  it('may be a lock that a power loss emptied or filled with zeros', () => {
    for (const [i, content] of ['', '\0'.repeat(150), '{"pid":', 'null'].entries()) {
      const place = fresh(`locked-${i}`);
      writeFileSync(join(place, '.lock'), content);
      // one that is fresh may be one that is being written: it is waited for
      if (i > 0) utimesSync(join(place, '.lock'), 1, 1);
      const lock = RunLock.take(place);
      assert.throws(() => RunLock.take(place), /is in use by process/);
      lock.release();
      assert.deepEqual(readdirSync(place), []);
    }
  });
});

describe('a lock that a machine left when it went down', { skip: bootId === '' }, () => {
  const holder = { pid: 1, started: '1', machine: 'before', host: hostname(), boot: 'another', since: 'then' };
  /** A lock that was renewed 60 s ago, and a machine that was started so many seconds ago. */
  const take = (name: string, change: Partial<typeof holder>, startedAgo: number): RunLock => {
    const place = join(folder, name);
    mkdirSync(place);
    writeFileSync(join(place, '.lock'), JSON.stringify({ ...holder, ...change }));
    const renewed = Date.now() / 1000 - 60;
    utimesSync(join(place, '.lock'), renewed, renewed);
    return RunLock.take(place, Date.now() - 1000 * startedAgo);
  };

  it('is taken over at once after a restart', () => take('restarted', {}, 30).release());

  it('is not where it was renewed since, or is of another host, or of this very start', () => {
    assert.throws(() => take('renewed', {}, 3600), BusyError);
    assert.throws(() => take('other', { host: 'other' }, 30), BusyError);
    assert.throws(() => take('same', { boot: bootId }, 30), BusyError, 'another container of this start');
    assert.throws(() => take('unknown', { boot: '' }, 30), BusyError);
  });
});

describe('what a power loss may take', () => {
  it('is what the log of system calls does not show as synced', () => {
    const log = join(folder, 'calls');
    writeFileSync(
      log,
      [
        '7 openat(AT_FDCWD</>, "/r/a.tmp", O_WRONLY|O_CREAT|O_TRUNC, 0666) = 3</r/a.tmp>',
        '7 write(3</r/a.tmp>, ""..., 10) = 10',
        '7 fsync(3</r/a.tmp> <unfinished ...>',
        '8 openat(AT_FDCWD</>, "/r/m", O_WRONLY|O_CREAT|O_APPEND, 0666) = 4</r/m>',
        '7 <... fsync resumed>) = 0',
        '7 rename("/r/a.tmp", "/r/a") = 0',
        '8 write(4</r/m>, ""..., 5) = 5',
        '8 write(4</r/m>, ""..., 7 <unfinished ...>',
        '8 +++ killed by SIGKILL +++',
      ].join('\n'),
    );
    const { files, renames } = followCalls(readSystemCalls(log), '/r', new Map([['/r/m', 100]]));
    assert.deepEqual(files.get('/r/a'), { size: 10, synced: 10, named: true });
    assert.deepEqual(files.get('/r/m'), { size: 105, synced: 100, named: true });
    assert.deepEqual(renames, [{ from: '/r/a.tmp', to: '/r/a', replaced: false }]);
  });
});
