/** Event files of TensorBoard: their bytes, and that they say what metrics.jsonl says whatever happened to the run. */
import assert from 'node:assert/strict';
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { crc32c, maskedCrc, record, records, scalarsRecord, startRecords, wallTimes } from '../lib/train/event-file.js';
import { type MetricsRow, TensorBoardLog } from '../lib/train/tensorboard.js';
import { eventFileNames, readEvents, scalarsOf } from './support/event-files.js';
import { temporaryFolder } from './support/files.js';
import { atPhase, smallConfig, smallRun, stoppedRun } from './support/small-run.js';

/** Written by tensorboard 2.21's own RecordWriter and protocol buffers, from the events of `ours`. */
const THEIRS = Buffer.from(
  'GAAAAAAAAACjf0siCQAAEED8VNlBGg1icmFpbi5FdmVudDoyM40v6Q0AAAAAAAAAPDe4NAkAABBA/FTZQToCCAGMjlTNOgAAAAAAAAASleriCQAA' +
    'YED8VNlBEAEqLQoSCgtyZXdhcmQvbWVhbhUAAAA/ChcKEGV2YWwvdGVzdC9wYXNzQDgVCtejuj1pruMdAAAAAAAAAGAv3yMJAACAQPxU2UEQlLTk' +
    '9MsDKgsKCQoCw7wV+QIVUOlw5Bc=',
  'base64',
);
const ours = Buffer.concat([
  startRecords(1700000000.25, 0),
  scalarsRecord(1700000001.5, 1, { 'reward/mean': 0.5, 'eval/test/pass@8': -1.25e-3 }),
  scalarsRecord(1700000002, 123456789012, { ü: 1e10 }),
]);

const row = (iteration: number, loss = iteration / 8): MetricsRow => ({ iteration, metrics: { 'actor/loss': loss } });

/** The warnings of `work`. */
async function warnings(t: TestContext, work: () => void): Promise<string[]> {
  const seen: string[] = [];
  const listen = (warning: Error): void => {
    if (warning.name === 'EepoTensorBoardWarning') seen.push(warning.message);
  };
  process.on('warning', listen);
  t.after(() => process.off('warning', listen));
  work();
  await new Promise(setImmediate);
  return seen;
}

describe('an event file', () => {
  it('has checksums as RFC 3720 gives them, masked', () => {
    assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283);
    assert.equal(crc32c(Buffer.alloc(32)), 0x8a9136aa);
    assert.equal(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43);
    assert.equal(crc32c(Buffer.alloc(0)), 0);
    assert.equal(maskedCrc(Buffer.alloc(0)), 0xa282ead8);
  });

  it('has the bytes that tensorboard itself writes', () => {
    assert.equal(ours.toString('base64'), THEIRS.toString('base64'));
  });

  it('is read back, as far as it is whole', () => {
    assert.deepEqual(
      [...wallTimes(THEIRS)],
      [
        [1, 1700000001.5],
        [123456789012, 1700000002],
      ],
    );
    const { events, torn } = readEvents(ours);
    assert.equal(torn, 0);
    assert.deepEqual(events[3], { wallTime: 1700000002, step: 123456789012, scalars: { ü: 1e10 } });
    const ends = events.map((_, i) => readEnd(ours, i));
    for (let length = 0; length <= ours.length; length += 1) {
      const whole = ends.filter((end) => end <= length).length;
      assert.equal([...records(ours.subarray(0, length))].length, whole, `${length} bytes`);
      assert.equal(wallTimes(ours.subarray(0, length)).size, Math.max(0, whole - 2), `${length} bytes`);
    }
  });

  it('that is damaged is read up to the damage', () => {
    for (let at = 0; at < ours.length; at += 1) {
      const damaged = Buffer.from(ours);
      damaged[at] = (damaged[at] as number) ^ 0x10;
      const before = [0, 1, 2, 3].filter((i) => readEnd(ours, i) <= at).length;
      assert.equal([...records(damaged)].length, before, `byte ${at}`);
    }
    // what is whole as a record and no event of ours
    for (const bytes of [[], [9], [0x10, 0xff, 0xff], [9, 1, 2, 3, 4, 5, 6, 7, 8, 0x10, ...Array(20).fill(0xff)]]) {
      assert.equal(wallTimes(record(Buffer.from(bytes))).size, 0);
    }
  });

  it('takes steps of any size and values beyond a float', () => {
    for (const step of [0, 1, 127, 128, 16383, 16384, 2 ** 31, Number.MAX_SAFE_INTEGER]) {
      const file = scalarsRecord(5, step, { a: 1e300, b: -0.1 });
      assert.deepEqual([...wallTimes(file)], [[step, 5]]);
      assert.deepEqual(readEvents(file).events[0]?.scalars, { a: Number.POSITIVE_INFINITY, b: Math.fround(-0.1) });
      assert.equal(readEvents(file).events[0]?.step, step);
    }
  });
});

/** Where the i-th record ends. */
function readEnd(file: Buffer, i: number): number {
  let at = 0;
  for (let k = 0; k <= i; k += 1) at += 16 + Number(file.readBigUInt64LE(at));
  return at;
}

describe('the event file of a folder', () => {
  const folderOf = (t: TestContext): string => join(temporaryFolder(t), 'tensorboard');
  const steps = (folder: string): number[] => scalarsOf(join(folder, '..')).map(({ step }) => step);

  it('grows by an iteration at a time', (t) => {
    const folder = folderOf(t);
    const log = new TensorBoardLog(folder, []);
    assert.deepEqual(steps(folder), []);
    const before = Date.now() / 1000;
    for (const iteration of [0, 1, 2]) log.append(row(iteration));
    const written = scalarsOf(join(folder, '..'));
    assert.deepEqual(
      written.map(({ step, scalars }) => [step, scalars['actor/loss']]),
      [
        [0, 0],
        [1, 0.125],
        [2, 0.25],
      ],
    );
    for (const { wallTime } of written) assert.ok(wallTime >= before && wallTime <= Date.now() / 1000);
    assert.match(readdirSync(folder).join(), /^events\.out\.tfevents\.\d{10}\.eepo$/);
  });

  it('is made anew from the lines that are left, with the times at which they were written', (t) => {
    const folder = folderOf(t);
    mkdirSync(folder);
    const old = join(folder, 'events.out.tfevents.0000000007.eepo');
    const times = [0, 1, 2, 3].map((step) => scalarsRecord(1000 + step, step, { 'actor/loss': step }));
    // the last record is torn, as by kill -9
    writeFileSync(old, Buffer.concat([startRecords(999, 0), ...times]).subarray(0, -5));
    const log = new TensorBoardLog(folder, [row(0), row(1), row(3)]);
    log.append(row(4));
    const written = scalarsOf(join(folder, '..'));
    assert.deepEqual(
      written.map(({ step }) => step),
      [0, 1, 3, 4],
    );
    assert.deepEqual(
      written.slice(0, 2).map(({ wallTime }) => wallTime),
      [1000, 1001],
    );
    assert.ok((written[2]?.wallTime ?? 0) > 1e9, 'a line whose record is lost has the time of now');
  });

  it('comes after the one it replaces, also in the same second or with a clock that was set back', (t) => {
    const folder = folderOf(t);
    mkdirSync(folder);
    writeFileSync(join(folder, 'events.out.tfevents.9000000000.eepo'), ours);
    for (const name of ['9000000001', '9000000002']) {
      new TensorBoardLog(folder, [row(1)]);
      assert.deepEqual(eventFileNames(join(folder, '..')), [`events.out.tfevents.${name}.eepo`]);
    }
  });

  it('replaces two, and what is no event file; what is not ours stays, and the last one, empty, for who reads it', (t) => {
    const folder = folderOf(t);
    mkdirSync(folder);
    writeFileSync(join(folder, 'events.out.tfevents.0000000001.eepo'), ours);
    writeFileSync(join(folder, 'events.out.tfevents.0000000002.eepo'), 'no event file');
    writeFileSync(join(folder, '.next.tmp'), 'half');
    writeFileSync(join(folder, 'notes.txt'), 'mine');
    new TensorBoardLog(folder, [row(1)]);
    assert.deepEqual(
      scalarsOf(join(folder, '..')).map(({ wallTime }) => wallTime),
      [1700000001.5],
    );
    assert.equal(readdirSync(folder).length, 3);
    assert.equal(readFileSync(join(folder, 'events.out.tfevents.0000000002.eepo')).length, 0);
    new TensorBoardLog(folder, [row(1)]);
    assert.equal(readdirSync(folder).length, 3);
    assert.ok(!existsSync(join(folder, 'events.out.tfevents.0000000002.eepo')));
    assert.equal(readFileSync(join(folder, 'notes.txt'), 'utf8'), 'mine');
  });

  it('that cannot be written is a warning, once', async (t) => {
    const folder = folderOf(t);
    const log = new TensorBoardLog(folder, []);
    rmSync(folder, { recursive: true });
    const seen = await warnings(t, () => {
      log.append(row(1));
      log.append(row(2));
    });
    assert.equal(seen.length, 1);
    assert.match(seen[0] ?? '', /tensorboard: no more event files .*ENOENT.*metrics\.jsonl has everything/);
    assert.ok(!existsSync(folder), 'nothing is made in the place of what was removed');
  });

  it('where a file is in the way is a warning', async (t) => {
    const folder = folderOf(t);
    writeFileSync(folder, 'a file');
    const seen = await warnings(t, () => new TensorBoardLog(folder, [row(1)]).append(row(2)));
    assert.equal(seen.length, 1);
  });
});

describe('the event file of a run', () => {
  const config = (every = 1) => smallConfig({ checkpoint: { every }, eval: { atStart: true } });
  const expected = (run: string): unknown[] =>
    readFileSync(join(run, 'metrics.jsonl'), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => {
        const { iteration, ...metrics } = JSON.parse(line) as Record<string, number>;
        return [iteration, Object.fromEntries(Object.entries(metrics).map(([name, v]) => [name, Math.fround(v)]))];
      });
  const written = (run: string): unknown[] => scalarsOf(run).map(({ step, scalars }) => [step, scalars]);

  it('says what metrics.jsonl says, evaluations too', async (t) => {
    const out = join(temporaryFolder(t), 'run');
    await smallRun(config(), out);
    assert.deepEqual(written(out), expected(out));
    const [start, , second] = scalarsOf(out);
    assert.equal(start?.step, 0);
    for (const event of [start, second]) assert.ok(Number.isFinite(event?.scalars['eval/test/greedy']));
  });

  it('has each iteration once after a run went on from a checkpoint before its last line', async (t) => {
    const out = join(temporaryFolder(t), 'run');
    await stoppedRun(config(), out, atPhase(3, 'stage1'));
    // as after kill -9: lines and records of an iteration that no checkpoint knows
    rmSync(join(out, 'checkpoints', 'iteration-000002'), { recursive: true });
    const [name] = eventFileNames(out);
    const first = scalarsOf(out).map(({ wallTime }) => wallTime);
    assert.equal(first.length, 3);
    appendFileSync(join(out, 'tensorboard', name as string), ours.subarray(0, 30));
    await smallRun(config(), out, { resume: 'latest' });
    assert.deepEqual(written(out), expected(out));
    const times = scalarsOf(out).map(({ wallTime }) => wallTime);
    assert.deepEqual(times.slice(0, 2), first.slice(0, 2));
    assert.ok((times[2] as number) > (first[2] as number), 'iteration 2 was trained again');
  });

  it('is not there where it is not wanted, and the run is the same', async (t) => {
    const out = join(temporaryFolder(t), 'run');
    const off = smallConfig({ run: { tensorboard: false } });
    await stoppedRun(smallConfig(), out, atPhase(3, 'stage1'));
    assert.equal(eventFileNames(out).length, 1);
    const notes: string[] = [];
    await smallRun(off, out, { resume: 'latest', onNote: (text) => notes.push(text) });
    assert.ok(notes.some((text) => text.includes('run.tensorboard: true -> false')));
    assert.deepEqual(eventFileNames(out), []);
  });
});
