/** A run that was stopped and goes on is the run that was never stopped, bit for bit. */
import assert from 'node:assert/strict';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { AbortedError, BusyError, ConfigError, InvalidFileError, type StepReport } from '../lib/index.js';
import type { StepOptions } from '../lib/policy.js';
import { readState } from '../lib/train/checkpoint-state.js';
import { defineConfig } from '../lib/train/config.js';
import { configChanges } from '../lib/train/config-changes.js';
import { filesBelow } from '../lib/train/durable.js';
import { openCheckpoint, resumePoint } from '../lib/train/resume.js';
import { RunDirectory } from '../lib/train/run-directory.js';
import { startOf } from '../lib/train/run-lock.js';
import { Trainer } from '../lib/train/trainer.js';
import { FakePolicy } from './support/fake-policy.js';
import { atPhase, outcome, type Sections, smallConfig, smallRun, smallTask, stoppedRun } from './support/small-run.js';
import { toyTask, toyTokenizer } from './support/toy-task.js';

const folder = mkdtempSync(join(tmpdir(), 'eepo-checkpoint-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let made = 0;
const fresh = (): string => join(folder, `run-${made++}`);
const checkpoint = (run: string, iteration: number): string =>
  join(run, 'checkpoints', `iteration-${String(iteration).padStart(6, '0')}`);
const checkpoints = (run: string): string[] => readdirSync(join(run, 'checkpoints')).sort();

/** Everything that a resume could forget has an effect in one of these. */
const VARIANTS: Record<string, Sections> = {
  'float32, gate by token': { unlearn: { alpha: 3 } },
  'the gate by step, over a window of 3': { unlearn: { gate: 'token+step', alpha: 0.31, window: 3 } },
  'GRPO with a reference, two epochs': {
    unlearn: { enabled: false },
    objective: { klCoef: 0.05 },
    optimizer: { epochs: 2 },
  },
  'bfloat16 with a reference': { model: { path: '.', dtype: 'bfloat16' }, objective: { klCoef: 0.05 } },
  'a bfloat16 theta in float32': { model: { path: '.', dtype: 'bfloat16' }, unlearn: { rolloutDtype: 'float32' } },
  "memory of theta'": { unlearn: { gate: 'always', eta: 0.03, memory: 0.5 } },
  "memory of a LoRA's theta', behind a gate by step": {
    lora: { rank: 4, alpha: 8 },
    optimizer: { lr: 2e-3 },
    unlearn: { gate: 'token+step', alpha: 0.31, eta: 0.1, memory: 1 },
  },
  'samples, prompts, directions': {
    unlearn: {
      gate: 'always',
      eta: 1e-3,
      normalize: 'relative',
      direction: 'random',
      scope: 'prompt',
      samples: 'wrong',
    },
  },
  'LoRA with a reference': {
    lora: { rank: 4, alpha: 8 },
    optimizer: { lr: 2e-3 },
    unlearn: { eta: 0.1 },
    objective: { klCoef: 0.05 },
  },
};

describe('a run that was stopped and goes on', () => {
  for (const [name, sections] of Object.entries(VARIANTS)) {
    it(`is the one that was never stopped: ${name}`, async () => {
      const config = smallConfig({ ...sections, model: { ...sections.model, path: smallConfig().model.path } });
      const whole = fresh();
      await smallRun(config, whole);
      // stopped in every iteration, each time in another phase
      const parts = fresh();
      const phases = ['reward', 'stage1', 'update'];
      for (const [done, phase] of phases.entries()) {
        const stopped = await stoppedRun(config, parts, atPhase(done + 1, phase), { resume: 'latest' });
        assert.equal(stopped?.iteration, done);
        assert.equal(stopped?.failure, null);
        assert.equal(stopped?.checkpoint, checkpoint(parts, done));
      }
      await smallRun(config, parts, { resume: 'latest' });
      assert.deepEqual(outcome(parts), outcome(whole));
    });
  }

  it('whatever phase it is stopped in, that of an evaluation too', async () => {
    const config = smallConfig({
      run: { iterations: 2 },
      objective: { klCoef: 0.01, ratio: 'policy' },
      eval: { every: 1, atStart: true },
      unlearn: { gate: 'always' },
      checkpoint: { every: 0 },
    });
    const whole = fresh();
    await smallRun(config, whole);
    assert.equal(existsSync(join(whole, 'checkpoints')), false, 'every = 0 saves nothing where nothing goes wrong');
    for (const iteration of [0, 1, 2]) {
      const phases = ['stage1', 'unlearn', 'stage2', 'reward', 'reference', 'update', 'eval'];
      for (const phase of iteration === 0 ? ['eval'] : phases) {
        const run = fresh();
        const stopped = await stoppedRun(config, run, atPhase(iteration, phase));
        const done = phase === 'eval' ? iteration : iteration - 1;
        assert.equal(stopped?.checkpoint, checkpoint(run, done), `${phase} of iteration ${iteration}`);
        await smallRun(config, run, { resume: run });
        assert.deepEqual(outcome(run), outcome(whole), `${phase} of iteration ${iteration}`);
      }
    }
  });

  it('finishes an update that has begun to change weights', async () => {
    const abort = new AbortController();
    class Interrupted extends FakePolicy {
      override async step(options: StepOptions): Promise<StepReport> {
        const report = await super.step(options);
        abort.abort(new AbortedError('stopped by the test'));
        return report;
      }
    }
    const trainer = toyTrainer(new Interrupted(), { signal: abort.signal });
    await assert.rejects(drain(trainer), AbortedError);
    assert.equal(trainer.iteration, 1, 'all steps of the iteration were taken');
    assert.equal(trainer.atBoundary, true);
    assert.equal(trainer.state().promptsDrawn, 4);
  });

  it('knows that weights between two steps of an iteration are no state', async () => {
    let steps = 0;
    class Failing extends FakePolicy {
      override async step(options: StepOptions): Promise<StepReport> {
        if (++steps === 4) throw new Error('out of memory');
        return super.step(options);
      }
    }
    const trainer = toyTrainer(new Failing());
    await assert.rejects(drain(trainer), /out of memory/);
    assert.equal(trainer.atBoundary, false);
    assert.equal(trainer.state().iteration, 1, 'the last boundary');
    assert.equal(trainer.state().promptsDrawn, 4);
  });
});

type ToyOptions = Partial<ConstructorParameters<typeof Trainer>[0]>;

function toyTrainer(policy: FakePolicy, options: ToyOptions = {}): Trainer {
  const config = defineConfig({
    run: { iterations: 3 },
    rollout: { promptsPerIteration: 4, groupSize: 4, maxNewTokens: 8 },
    objective: { klCoef: 0 },
    optimizer: { lr: 0.05, miniBatchPrompts: 2 },
  });
  return new Trainer({ policy, tokenizer: toyTokenizer, task: toyTask(), config, ...options });
}

async function drain(trainer: Trainer): Promise<void> {
  for await (const _ of trainer) {
    // to the end
  }
}

describe("the trainer's state", () => {
  it('goes through JSON, and a trainer with it goes on', async () => {
    const whole = new FakePolicy();
    await drain(toyTrainer(whole));
    const policy = new FakePolicy();
    const first = toyTrainer(policy);
    for await (const { iteration } of first) if (iteration === 2) break;
    const second = toyTrainer(policy);
    await second.prepare();
    second.restore(JSON.parse(JSON.stringify(first.state())));
    assert.equal(second.iteration, 2);
    await drain(second);
    assert.equal(await policy.hash(), await whole.hash());
  });

  it('is refused for other prompts, and where the reference would be another', async () => {
    const trainer = toyTrainer(new FakePolicy());
    await trainer.prepare();
    const state = { ...trainer.state(), iteration: 1, promptsDrawn: 4 };
    const other = toyTrainer(new FakePolicy(), { task: toyTask({ prompts: ['1', '2'] }) });
    await other.prepare();
    assert.throws(() => other.restore(state), /training prompts are not those that the run began with/);
    other.restore(state, true);
    const config = defineConfig({ ...trainer.config, objective: { klCoef: 1 } });
    const penalized = toyTrainer(new FakePolicy(), { config });
    await penalized.prepare();
    assert.throws(() => penalized.restore(state), /needs the policy it began with: new Trainer\(\{ reference/);
  });
});

describe('checkpoints of a run', () => {
  let run: string;
  const config = smallConfig({ run: { iterations: 4 } });

  before(async () => {
    run = fresh();
    await smallRun(config, run);
  });

  /** The run, of which something may be broken. */
  function copy(change: (run: string) => void = () => {}): string {
    const target = fresh();
    cpSync(run, target, { recursive: true });
    change(target);
    return target;
  }

  it('are whole: weights, optimizer, state, and the name of the newest', () => {
    assert.deepEqual(checkpoints(run), [...[1, 2, 3, 4].map((n) => `iteration-00000${n}`), 'latest']);
    assert.equal(readFileSync(join(run, 'checkpoints', 'latest'), 'utf8'), 'iteration-000004\n');
    const files = filesBelow(checkpoint(run, 4));
    for (const name of ['model/model.safetensors', 'model/config.json', 'model/tokenizer.json']) {
      assert.ok(files.includes(name), name);
    }
    const state = readState(checkpoint(run, 4));
    assert.deepEqual(Object.keys(state.files).sort(), files.filter((name) => name !== 'state.json').sort());
    assert.equal(state.trainer.promptsDrawn, 16);
    assert.equal(state.offsets['metrics.jsonl'], readFileSync(join(run, 'metrics.jsonl')).length);
    assert.ok(!readdirSync(run).includes('.lock'));
  });

  it('that are damaged are named, and the one before is taken', async () => {
    const damages: Record<string, (path: string) => void> = {
      'cut off': (path) => truncateSync(path, readFileSync(path).length - 1),
      empty: (path) => truncateSync(path, 0),
      changed: (path) => {
        const bytes = readFileSync(path);
        const at = Math.floor(bytes.length * 0.6);
        bytes[at] = (bytes[at] as number) ^ 1;
        writeFileSync(path, bytes);
      },
      missing: (path) => rmSync(path),
    };
    const broken = copy();
    for (const name of filesBelow(checkpoint(broken, 4))) {
      const path = join(checkpoint(broken, 4), name);
      const good = readFileSync(path);
      for (const [what, damage] of Object.entries(damages)) {
        damage(path);
        const notes: string[] = [];
        const opened = await openCheckpoint(resumePoint('latest', broken), (text) => notes.push(text));
        assert.equal(opened?.iteration, 3, `${name} ${what}`);
        assert.ok(notes[0]?.includes(path), `${name} ${what}: ${notes[0]}`);
        assert.match(notes[1] ?? '', /going on from the checkpoint before it, .*iteration-000003/);
        const named = resumePoint(checkpoint(broken, 4), undefined);
        await assert.rejects(
          openCheckpoint(named, () => {}),
          (error: Error) => {
            assert.ok(error instanceof InvalidFileError);
            assert.ok(error.message.includes(path), error.message);
            return true;
          },
        );
        writeFileSync(path, good);
      }
    }
    writeFileSync(join(checkpoint(broken, 4), 'model', 'model.safetensors.index.json'), '{}');
    const named = resumePoint(checkpoint(broken, 4), undefined);
    await assert.rejects(
      openCheckpoint(named, () => {}),
      /index\.json does not belong to the checkpoint/,
    );
  });

  it('go on from the one before a damaged one to the same end', async () => {
    const broken = copy((target) => rmSync(join(checkpoint(target, 4), 'optimizer.safetensors')));
    await smallRun(config, broken, { resume: 'latest' });
    assert.deepEqual(outcome(broken), outcome(run));
    assert.equal(readState(checkpoint(broken, 4)).trainer.iteration, 4, 'saved again');
  });

  it('without `latest`, or with one that names nothing, are found', async () => {
    const lost = copy((target) => rmSync(join(target, 'checkpoints', 'latest')));
    assert.equal((await openCheckpoint(resumePoint(lost, undefined), () => {}))?.iteration, 4);
    for (const text of ['iteration-000099\n', '../../etc\n', '']) {
      writeFileSync(join(lost, 'checkpoints', 'latest'), text);
      assert.equal((await openCheckpoint(resumePoint(lost, undefined), () => {}))?.iteration, 4, JSON.stringify(text));
    }
    for (const n of [1, 2, 3, 4]) rmSync(join(checkpoint(lost, n), 'state.json'));
    await assert.rejects(
      openCheckpoint(resumePoint(lost, undefined), () => {}),
      /no checkpoint of .* is whole; .*:\n(.*missing.*\n?){4}/,
    );
  });

  it('of an older iteration take the run back to it', async () => {
    const back = copy();
    await smallRun(config, back, { resume: checkpoint(back, 2), out: back });
    assert.deepEqual(outcome(back), outcome(run));
  });

  it('cut away what was written after them', async () => {
    const torn = copy((target) => {
      rmSync(join(target, 'summary.json'));
      rmSync(checkpoint(target, 4), { recursive: true });
      writeFileSync(join(target, 'checkpoints', 'latest'), 'iteration-000003\n');
      writeFileSync(join(target, 'metrics.jsonl'), '{"iteration": 5, "rew', { flag: 'a' });
    });
    await smallRun(config, torn, { resume: 'latest' });
    assert.deepEqual(outcome(torn), outcome(run));
  });

  it('are refused for a configuration that makes another run of it, key by key', async () => {
    const other = smallConfig({
      run: { iterations: 6, seed: 6 },
      optimizer: { lr: 2e-4 },
      checkpoint: { every: 2 },
      eval: { every: 0 },
    });
    const again = copy();
    const untouched = readFileSync(join(again, 'metrics.jsonl'), 'utf8');
    await assert.rejects(smallRun(other, again, { resume: 'latest' }), (error: Error) => {
      assert.ok(error instanceof ConfigError);
      assert.match(
        error.message,
        /\n {2}run\.seed: 5 -> 6\n {2}optimizer\.lr: 0\.0001 -> 0\.0002\nGive the old values/,
      );
      assert.doesNotMatch(error.message, /iterations:|checkpoint\.every/);
      return true;
    });
    assert.equal(readFileSync(join(again, 'metrics.jsonl'), 'utf8'), untouched);
    const notes: string[] = [];
    const summary = await smallRun(other, again, {
      resume: 'latest',
      acceptChanges: true,
      onNote: (text) => notes.push(text),
    });
    assert.equal(summary.iterations, 6);
    assert.ok(notes.includes('changed since the checkpoint: run.iterations: 4 -> 6'), notes.join('\n'));
    assert.ok(notes.includes('changed since the checkpoint, and with it the run: optimizer.lr: 0.0001 -> 0.0002'));
  });

  it('know what has no part in the result', () => {
    const now = smallConfig({
      run: { iterations: 9, completionsEvery: 2 },
      rollout: { maxRows: 4, cacheTokens: 4096 },
      optimizer: { gradientCheckpointing: true, microBatchTokens: 100 },
    });
    const { rollout: _, ...older } = structuredClone(config) as Partial<typeof config>;
    const changes = configChanges({ ...older, rollout: config.rollout } as never, now);
    const harmful = changes.filter(({ harmless }) => !harmless).map(({ key }) => key);
    assert.deepEqual(harmful, ['optimizer.microBatchTokens']);
    assert.equal(changes.length, 6);
  });

  it('are refused for other training data, and for another initial model', async () => {
    const again = copy();
    await assert.rejects(
      smallRun(config, again, { resume: 'latest', task: smallTask(9) }),
      /training prompts are not those/,
    );
    const penalized = smallConfig({ objective: { klCoef: 0.1 }, run: { iterations: 4 } });
    const model = fresh();
    cpSync(config.model.path, model, { recursive: true });
    const { Policy } = await import('../lib/policy.js');
    const kl = fresh();
    await stoppedRun(penalized, kl, atPhase(2, 'stage1'));
    const changed = await Policy.create(JSON.parse(readFileSync(join(model, 'config.json'), 'utf8')), { seed: 3 });
    await changed.save(model);
    changed.dispose();
    const policy = await Policy.load(model);
    await assert.rejects(
      smallRun(penalized, kl, { resume: 'latest', policy }),
      /not the files that the run began with/,
    );
    policy.dispose();
  });

  it('of a finished run are where a longer one goes on', async () => {
    const longer = smallConfig({ run: { iterations: 5 } });
    const [once, twice] = [fresh(), copy()];
    await smallRun(longer, once);
    await smallRun(longer, twice, { resume: 'latest' });
    assert.deepEqual(outcome(twice), outcome(once));
  });

  it('cut away lines after them, whatever these are', async () => {
    const run = fresh();
    await stoppedRun(smallConfig(), run, atPhase(3, 'stage1'));
    const whole = fresh();
    await smallRun(smallConfig(), whole);
    for (const name of ['metrics.jsonl', 'completions.jsonl']) appendFileSync(join(run, name), '{"iteration": 3, "rew');
    await smallRun(smallConfig(), run, { resume: 'latest' });
    assert.deepEqual(outcome(run), outcome(whole));
  });

  it('miss no line without saying so: a file that was cut off or edited is named, and nothing is changed', async () => {
    const stopped = fresh();
    await stoppedRun(smallConfig(), stopped, atPhase(3, 'stage1'));
    const whole = readFileSync(join(stopped, 'metrics.jsonl'), 'utf8');
    const edits: [string, string, RegExp][] = [
      ['metrics.jsonl', whole.slice(0, -20), /metrics\.jsonl lacks 20 of the \d+ bytes that the checkpoint tells of/],
      ['metrics.jsonl', `#${whole.slice(1)}`, /metrics\.jsonl:1: not a line of metrics: it was edited/],
      ['metrics.jsonl', `${whole.slice(0, -1)} and more\n`, /metrics\.jsonl: byte \d+, .* ends no line/],
      ['completions.jsonl', '', /completions\.jsonl lacks/],
    ];
    for (const [name, content, message] of edits) {
      const run = fresh();
      cpSync(stopped, run, { recursive: true });
      writeFileSync(join(run, name), content);
      await assert.rejects(smallRun(smallConfig(), run, { resume: 'latest' }), (error: Error) => {
        assert.ok(error instanceof InvalidFileError, String(error));
        assert.match(error.message, message);
        assert.match(error.message, /older checkpoint .* --accept-changes/);
        return true;
      });
      assert.equal(readFileSync(join(run, name), 'utf8'), content);
      const notes: string[] = [];
      const { weights } = await smallRun(smallConfig(), run, {
        resume: 'latest',
        acceptChanges: true,
        onNote: (text) => notes.push(text),
      });
      const lines = readFileSync(join(run, 'metrics.jsonl'), 'utf8').trim().split('\n');
      for (const line of lines) assert.ok(Number.isInteger(JSON.parse(line).iteration));
      if (content.length < whole.length || content.startsWith('#')) assert.match(notes.join('\n'), /lines are lost/);
      const end = fresh();
      assert.equal(weights, (await smallRun(smallConfig(), end)).weights, 'the training is the same');
    }
  });

  it('are asked for by names that exist', () => {
    assert.throws(() => resumePoint('latest', undefined), /needs `out`/);
    assert.throws(() => resumePoint(join(folder, 'none'), undefined), /no such run or checkpoint/);
    assert.throws(
      () => resumePoint(folder, undefined),
      /neither the folder of a run, which has a config.toml, nor one of its checkpoints/,
    );
    assert.throws(() => resumePoint(run, join(folder, 'other')), /goes on in its own folder/);
    for (const name of ['checkpoints', join('checkpoints', 'latest'), '']) {
      assert.deepEqual(resumePoint(join(run, name), undefined), { run, checkpoint: null });
    }
  });
});

describe('pruning', () => {
  it('keeps the newest, and the best by a metric', async () => {
    const run = fresh();
    const config = smallConfig({
      run: { iterations: 5 },
      eval: { every: 0 },
      checkpoint: { every: 2, keepLast: 1, keepBest: 'reward/mean' },
    });
    const { history } = await smallRun(config, run);
    const rewards = history.map(({ metrics }) => metrics['reward/mean'] as number);
    const best = rewards.indexOf(Math.max(...rewards)) + 1;
    const expected = [...new Set([best, 5])].sort().map((n) => `iteration-00000${n}`);
    assert.deepEqual(checkpoints(run), [...expected, 'latest'], `rewards ${rewards}`);
    assert.equal(readState(checkpoint(run, 5)).best?.iteration, best);
  });

  it('warns of a metric that is not there', async () => {
    const warnings: string[] = [];
    const listen = (warning: Error): void => void warnings.push(`${warning.name}: ${warning.message}`);
    process.on('warning', listen);
    try {
      await smallRun(smallConfig({ run: { iterations: 1 }, checkpoint: { keepBest: 'reward/maen' } }), fresh());
      await new Promise((resolve) => setImmediate(resolve));
    } finally {
      process.off('warning', listen);
    }
    assert.match(warnings.join('\n'), /EepoCheckpointWarning: checkpoint\.keepBest = "reward\/maen".*"reward\/mean"/);
  });
});

describe('a run folder', () => {
  it('belongs to one process at a time', () => {
    const path = fresh();
    const run = RunDirectory.create(path);
    try {
      assert.throws(
        () => RunDirectory.create(path),
        (error: Error) => {
          assert.ok(error instanceof BusyError);
          assert.match(error.message, new RegExp(`is in use by process ${process.pid} on .* since \\d{4}-`));
          return true;
        },
      );
    } finally {
      run.release();
    }
    assert.deepEqual(readdirSync(path), []);
    RunDirectory.create(path).release();
  });

  it("takes over a dead process's lock, also where its number lives again", () => {
    const path = fresh();
    RunDirectory.create(path).release();
    const dead = [
      { pid: 2 ** 22 + 1, started: '5' },
      { pid: process.pid, started: '5' },
    ];
    for (const holder of dead) {
      const run = RunDirectory.create(path);
      const mine = JSON.parse(readFileSync(join(path, '.lock'), 'utf8'));
      assert.equal(mine.started, startOf(process.pid));
      run.release();
      writeFileSync(join(path, '.lock'), JSON.stringify({ ...mine, ...holder }));
      writeFileSync(join(path, `.model.${dead[0]?.pid}.tmp`), 'half');
      RunDirectory.create(path).release();
      assert.deepEqual(readdirSync(path), [], 'nothing is left of it');
    }
    // nothing is known of a process of another machine, whose lock is fresh
    const run = RunDirectory.create(path);
    const mine = JSON.parse(readFileSync(join(path, '.lock'), 'utf8'));
    run.release();
    writeFileSync(join(path, '.lock'), JSON.stringify({ ...mine, machine: 'elsewhere', host: 'elsewhere' }));
    assert.throws(() => RunDirectory.create(path), /on elsewhere since/);
  });
});
