import assert from 'node:assert/strict';
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { configPage } from '../lib/cli/config.js';
import { demoReport } from '../lib/cli/demo.js';
import type { ModelResult } from '../lib/eval/suite.js';
import { Policy } from '../lib/policy.js';
import { loadTrainConfig } from '../lib/train/config.js';
import { loadRun } from '../lib/train/load.js';
import { Progress, secondsLeft } from '../lib/train/progress.js';
import { type RunSummary, trainRun } from '../lib/train/run.js';
import { RunDirectory } from '../lib/train/run-directory.js';
import { embeddedModel, modelDir, needs, ROOT, testData } from './support/data.js';
import { FakePolicy } from './support/fake-policy.js';

const folder = mkdtempSync(join(tmpdir(), 'eepo-cli-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const main = join(ROOT, 'dist', 'lib', 'cli', 'main.js');
const preset = (name: string): string => join(ROOT, 'configs', `${name}.toml`);
let runs = 0;
const fresh = (): string => join(folder, `run-${runs++}`);

function eepo(...args: string[]): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', cwd: folder });
}

/** Small enough for a test, of the same shape as the preset. */
const small = [
  'run.iterations=2',
  'rollout.promptsPerIteration=4',
  'rollout.groupSize=4',
  'optimizer.miniBatchPrompts=2',
  'eval.atStart=false',
  'eval.atEnd=false',
];

async function trainSmall(overrides: string[] = [], name = 'eepo'): Promise<RunSummary> {
  const config = loadTrainConfig(preset(name), [...small, ...overrides]);
  const loaded = await loadRun(config);
  try {
    return await trainRun({ ...loaded, config, out: fresh() });
  } finally {
    loaded.policy.dispose();
  }
}

function jsonLines(path: string): Record<string, unknown>[] {
  const text = readFileSync(path, 'utf8');
  assert.ok(text.endsWith('\n'), 'the last line is whole');
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

describe('eepo train', () => {
  it('writes a run that can be read, loaded and repeated', async () => {
    const out = fresh();
    const args = small.flatMap((value) => ['--set', value]);
    const result = eepo('train', preset('eepo'), ...args, '--out', out);
    assert.equal(result.status, 0, result.stderr);
    assert.match(result.stderr, /EEPO: .* parameters on cpu.*\n(.*\n)*1\/2 {2}reward .* H1 .* H2 .* tok\/s/);
    assert.match(result.stdout, /2 iterations in .*entropy of stage 1 .*, of stage 2/);
    assert.deepEqual(readdirSync(out).sort(), [
      'checkpoints',
      'completions.jsonl',
      'config.toml',
      'metrics.jsonl',
      'model',
      'summary.json',
      'tensorboard',
    ]);

    const metrics = jsonLines(join(out, 'metrics.jsonl'));
    assert.deepEqual(
      metrics.map(({ iteration }) => iteration),
      [1, 2],
    );
    for (const name of ['unlearn/grad_norm', 'unlearn/param_changed_frac', 'rollout/stage2/entropy', 'actor/kl']) {
      assert.ok(Number.isFinite(metrics[0]?.[name]), name);
    }

    const completions = jsonLines(join(out, 'completions.jsonl'));
    assert.equal(completions.length, 2 * 4 * 4);
    assert.deepEqual(
      completions.slice(0, 4).map(({ stage }) => stage),
      [1, 1, 2, 2],
    );
    assert.match(String(completions[0]?.prompt), /^[\d _]+ > \d+$/);
    assert.ok(completions.every(({ reward }) => reward === 0 || reward === 1));

    const config = loadTrainConfig(join(out, 'config.toml'));
    assert.deepEqual(config, loadTrainConfig(preset('eepo'), small));
    const summary = JSON.parse(readFileSync(join(out, 'summary.json'), 'utf8')) as RunSummary;
    const policy = await Policy.load(join(out, 'model'));
    assert.equal(await policy.hash(), summary.weights, 'the saved weights are the final ones');
    policy.dispose();
    assert.ok(existsSync(join(out, 'model', 'tokenizer.json')));
    assert.equal((await trainSmall()).weights, summary.weights, 'the same configuration gives the same weights');
    assert.notEqual((await trainSmall(['run.seed=1'])).weights, summary.weights);

    const sizes = ['--samples', '2', '--limit', '3', '--json'];
    const evaluation = eepo('eval', out, '--split', 'test', '--out', join(out, 'evals'), ...sizes);
    assert.equal(evaluation.status, 0, evaluation.stderr);
    const { models } = JSON.parse(evaluation.stdout) as { models: ModelResult[] };
    assert.deepEqual(Object.keys(models[0]?.sets ?? {}), ['test']);
    assert.equal(models[0]?.sets.test?.problems, 3);
    assert.deepEqual(Object.keys(models[0]?.sets.test?.passAtK ?? {}), ['1']);
  });

  it('with eta = 0 samples and trains byte for byte as GRPO does', async () => {
    const zero = await trainSmall(['unlearn.eta=0', 'unlearn.gate=always']);
    const grpo = await trainSmall(['unlearn.enabled=false']);
    assert.equal(zero.weights, grpo.weights);
    const responses = ({ path }: RunSummary) =>
      jsonLines(join(path, 'completions.jsonl')).map(({ stage: _, ...rest }) => rest);
    assert.deepEqual(responses(zero), responses(grpo));
    assert.notEqual((await trainSmall(['unlearn.gate=always'])).weights, grpo.weights);
  });

  it('gives the same weights whatever the micro-batch size, up to rounding', async () => {
    const parameters = async (tokens: number): Promise<Float32Array> => {
      const { path } = await trainSmall(['run.iterations=1', `optimizer.microBatchTokens=${tokens}`]);
      const policy = await Policy.load(join(path, 'model'));
      const all = await policy.parameters();
      const data = await all.get('model.layers.0.mlp.up_proj.weight')?.data();
      for (const tensor of all.values()) tensor.dispose();
      policy.dispose();
      return data as Float32Array;
    };
    const [one, many] = [await parameters(100000), await parameters(50)];
    const worst = one.reduce((max, w, i) => Math.max(max, Math.abs(w - (many[i] as number))), 0);
    // AdamW's first steps are about lr * sign(gradient): a gradient that is nearly 0 may differ by as much as the step.
    assert.ok(worst <= 2.1e-4, `weights differ by ${worst}`);
    const far = one.filter((w, i) => Math.abs(w - (many[i] as number)) > 2e-6).length;
    assert.ok(far < one.length / 100, `${far} of ${one.length} weights differ`);
  });

  it('checks everything and trains nothing with --dry-run', () => {
    const out = fresh();
    const result = eepo('train', preset('grpo'), '--set', 'rollout.groupSize=16', '--out', out, '--dry-run');
    assert.equal(result.status, 0, result.stderr);
    assert.match(result.stdout, /groupSize = 16/);
    assert.match(result.stdout, /# 16 prompts x 16 = 256 samples of at most 16 tokens/);
    assert.match(result.stdout, /nothing was trained/);
    assert.equal(existsSync(out), false);
  });

  it('trains a Hugging Face folder on a JSONL of prompts and answers', needs('models', 'stories260K'), () => {
    const math = gunzipSync(readFileSync(testData('math', 'train_lvl3to5.jsonl.gz') as string)).toString('utf8');
    const file = join(folder, 'math.jsonl');
    writeFileSync(file, math.split('\n').slice(0, 200).join('\n'));
    const config = join(folder, 'math.toml');
    writeFileSync(
      config,
      `[run]\niterations = 2\n[model]\npath = ${JSON.stringify(modelDir('stories260K'))}\n` +
        '[task]\nname = "jsonl"\npath = "math.jsonl"\nmaxPromptTokens = 160\n' +
        '[rollout]\npromptsPerIteration = 4\ngroupSize = 4\nmaxNewTokens = 24\n' +
        '[optimizer]\nminiBatchPrompts = 2\n',
    );
    const out = fresh();
    const result = eepo('train', config, '--out', out);
    assert.equal(result.status, 0, result.stderr);
    assert.match(result.stderr, /note: .*prompts are longer than 160 tokens/);
    const metrics = jsonLines(join(out, 'metrics.jsonl'));
    assert.equal(metrics.length, 2);
    assert.equal(metrics[1]?.['reward/frac_zero_std'], 1, 'a model of stories solves no MATH problem');
    assert.ok(jsonLines(join(out, 'completions.jsonl')).every(({ response }) => typeof response === 'string'));
  });
});

describe('eepo train, bad input: one clear error before anything is made', () => {
  /** Runs with overrides that are wrong; nothing may have been written. */
  function refused(message: RegExp, code: string, file: string, ...overrides: string[]): void {
    const out = fresh();
    const result = eepo('train', file, ...overrides.flatMap((value) => ['--set', value]), '--out', out);
    assert.equal(result.status, 1, result.stdout);
    assert.match(result.stderr, message);
    assert.ok(result.stderr.trimEnd().endsWith(`[${code}]`), result.stderr);
    assert.ok(!result.stderr.includes('    at '), 'no stack trace');
    assert.equal(existsSync(out), false, 'no run folder');
  }

  /** A copy of the embedded model that may be broken. */
  function brokenModel(change: (dir: string) => void): string {
    const dir = fresh();
    mkdirSync(dir);
    cpSync(embeddedModel, dir, { recursive: true });
    change(dir);
    return `model.path=${JSON.stringify(dir)}`;
  }

  it('a missing configuration file', () => {
    refused(/nowhere\.toml: no such configuration file/, 'EEPO_CONFIG', 'nowhere.toml');
  });

  it('a wrong key and a wrong value, both named', () => {
    refused(/rollout\.groupsize is not a key.*groupSize\?/, 'EEPO_CONFIG', preset('eepo'), 'rollout.groupsize=4');
    refused(/optimizer\.lr = "fast": expected a number/, 'EEPO_CONFIG', preset('eepo'), 'optimizer.lr=fast');
  });

  it('an odd group size', () => {
    refused(/rollout\.groupSize = 7: .*even number/, 'EEPO_CONFIG', preset('eepo'), 'rollout.groupSize=7');
  });

  it('a missing model folder, a file in its place, one without weights', () => {
    refused(/nowhere: no such model folder/, 'EEPO_INVALID_FILE', preset('eepo'), 'model.path="nowhere"');
    const file = JSON.stringify(preset('eepo'));
    refused(/is a file; expected a model folder/, 'EEPO_INVALID_FILE', preset('eepo'), `model.path=${file}`);
    const empty = brokenModel((dir) => rmSync(join(dir, 'model.safetensors')));
    refused(/has no weights/, 'EEPO_INVALID_FILE', preset('eepo'), empty);
    const untold = brokenModel((dir) => rmSync(join(dir, 'config.json')));
    refused(/has no config\.json/, 'EEPO_INVALID_FILE', preset('eepo'), untold);
  });

  it('broken weights, config.json and tokenizer.json', () => {
    const weights = brokenModel((dir) => {
      const path = join(dir, 'model.safetensors');
      writeFileSync(path, readFileSync(path).subarray(0, 5000));
    });
    refused(/model\.safetensors/, 'EEPO_INVALID_FILE', preset('eepo'), weights);
    for (const name of ['config.json', 'tokenizer.json']) {
      const broken = brokenModel((dir) => writeFileSync(join(dir, name), '{"model_type": '));
      refused(new RegExp(name.replace('.', '\\.')), 'EEPO_INVALID_FILE', preset('eepo'), broken);
    }
  });

  it('prompts and responses that do not fit into the context', () => {
    const message = /maxNewTokens = 60 and the longest prompt \(7 tokens\).*context of 64.*at most 57/;
    refused(message, 'EEPO_CONFIG', preset('eepo'), 'rollout.maxNewTokens=60');
  });

  it('a file of prompts that is missing, empty or broken', () => {
    const jsonl = (text: string | null): string => {
      const path = join(folder, `prompts-${runs++}.jsonl`);
      if (text !== null) writeFileSync(path, text);
      return `task.path=${JSON.stringify(path)}`;
    };
    const refuse = (message: RegExp, text: string | null): void =>
      refused(message, 'EEPO_INVALID_FILE', preset('eepo'), 'task.name=jsonl', jsonl(text));
    refuse(/no such file/, null);
    refuse(/prompts-\d+\.jsonl/, '');
    refuse(/:2/, '{"prompt": "1 2 > 3", "answer": "x"}\n{nonsense\n');
  });

  it('a run folder that is not empty, or a file, before anything is loaded', () => {
    const run = (...args: string[]) => eepo('train', preset('eepo'), ...small.flatMap((v) => ['--set', v]), ...args);
    // the first line but for errors tells of a policy that is loaded
    const full = /^error: .* is not empty; give another folder with --out, or remove this one \[EEPO_CONFIG\]\n$/;
    for (const args of [
      ['--out', folder],
      ['--resume', 'latest', '--out', folder],
    ]) {
      const { status, stderr } = run(...args);
      assert.equal(status, 1);
      assert.match(stderr, full);
    }
    assert.match(run('--out', preset('eepo')).stderr, /^error: .*eepo\.toml is a file; a run is written to a folder/);
    const { status, stderr } = eepo('sft', preset('countdown-sft'), '--out', folder);
    assert.equal(status, 1);
    assert.match(stderr, full);
  });

  it('a chat template that cannot be parsed', () => {
    const broken = brokenModel((dir) => writeFileSync(join(dir, 'chat_template.jinja'), '{% if %}'));
    refused(/chat_template\.jinja: the chat template cannot be parsed/, 'EEPO_INVALID_FILE', preset('eepo'), broken);
  });

  it('splits that do not exist', () => {
    refused(
      /eval\.splits: task "countdown" has no split "tset"/,
      'EEPO_CONFIG',
      preset('eepo'),
      'eval.splits=["tset"]',
    );
  });
});

describe('run folder', () => {
  /** A tokenizer without files. */
  const noFiles = { save: async () => {} };

  it('shows a whole file or the old one, and never a temporary', async () => {
    const run = RunDirectory.create(fresh());
    run.write('a.json', 'one');
    run.write('a.json', 'two');
    assert.equal(readFileSync(run.file('a.json'), 'utf8'), 'two');
    run.appendLines('m.jsonl', [{ a: 1 }]);
    run.appendLines('m.jsonl', [{ a: 2 }, { a: 3 }]);
    assert.deepEqual(jsonLines(run.file('m.jsonl')), [{ a: 1 }, { a: 2 }, { a: 3 }]);
    await run.saveModel('model', new FakePolicy(), noFiles);
    run.release();
    assert.deepEqual(readdirSync(run.path).sort(), ['a.json', 'm.jsonl', 'model']);
  });

  it('keeps no half model when saving fails', async () => {
    class Unwritable extends FakePolicy {
      override async save(dir: string): Promise<void> {
        await super.save(dir);
        throw new Error('disk full');
      }
    }
    const run = RunDirectory.create(fresh());
    await assert.rejects(run.saveModel('model', new Unwritable(), noFiles), /disk full/);
    assert.equal(existsSync(run.file('model')), false);
  });
});

describe('progress', () => {
  it('writes plain lines without a terminal, at most as many as asked for', () => {
    const lines: string[] = [];
    const stream = { isTTY: false, write: (line: string) => lines.push(line) > 0 } as unknown as NodeJS.WriteStream;
    const progress = new Progress({ iterations: 100, lines: 5, label: 'EEPO ', stream });
    const metrics = {
      'reward/mean': 0.5,
      'rollout/stage1/reward': 0.75,
      'rollout/stage1/entropy': 0.25,
      'rollout/stage2/entropy': 0.3,
    };
    for (let iteration = 1; iteration <= 100; iteration++)
      progress.iteration({ iteration, metrics, samples: [], incidents: [] });
    progress.stop();
    assert.equal(lines.length, 6);
    assert.match(lines[0] as string, /^EEPO 1\/100 {2}reward 0\.500 {2}H1 0\.250 {2}H2 0\.300/);
    assert.match(lines.at(-1) as string, /100\/100 .* 0s left/);
    assert.equal(secondsLeft(25, 100, 10), 30);
  });
});

describe('eepo sft, demo, bench, config', () => {
  it('makes a model from nothing', async () => {
    const out = fresh();
    const config = preset('countdown-sft');
    const sets = ['run.steps=3', 'optimizer.batchSize=8', 'optimizer.warmupSteps=1'].flatMap((v) => ['--set', v]);
    const result = eepo('sft', config, ...sets, '--out', out);
    assert.equal(result.status, 0, result.stderr);
    assert.deepEqual(readdirSync(out).sort(), ['config.toml', 'metrics.jsonl', 'model', 'summary.json']);
    const first = jsonLines(join(out, 'metrics.jsonl'))[0]?.['sft/loss'] as number;
    assert.ok(Math.abs(first - Math.log(106)) < 0.1, `a new model guesses: ${first}`);
    const policy = await Policy.load(join(out, 'model'));
    assert.ok(policy.numParameters < 3e6);
    policy.dispose();
  });

  it('shows the demo, in little', () => {
    const out = fresh();
    const result = eepo('demo', '--quick', '--compare', '--iterations', '2', '--out', out);
    assert.equal(result.status, 0, result.stderr);
    for (const text of ['before', 'EEPO', 'GRPO', 'test: pass@64', 'entropy 2', 'What to look at', out]) {
      assert.ok(result.stdout.includes(text), `${text} is not in\n${result.stdout}`);
    }
    assert.deepEqual(readdirSync(out).sort(), ['eepo', 'grpo']);
    const again = eepo('demo', '--quick', '--out', out);
    assert.match(again.stderr, /exists; give another folder/);
  });

  it('reports what a demo measured, and no more', () => {
    const summary = (h2: number | undefined): RunSummary => ({
      path: 'x',
      iterations: 12,
      seconds: 1,
      first: { 'eval/test/pass@1': 0.25 },
      last: { 'eval/test/pass@1': 0.5 },
      weights: '',
      history: Array.from({ length: 12 }, (_, i) => ({
        iteration: i + 1,
        metrics: {
          'rollout/stage1/entropy': 0.2,
          ...(h2 === undefined ? {} : { 'rollout/stage2/entropy': i < 9 ? h2 : 0.1 }),
        },
      })),
    });
    const report = demoReport(summary(0.3), summary(undefined));
    assert.match(report, /pass@1 on held-out problems 0\.25 -> 0\.50/);
    assert.match(report, /higher entropy in 9 of 12 iterations \(mean 0\.250 against 0\.200 of stage 1\)/);
    assert.match(report, /1-2 +0\.200 +0\.300/);
  });

  it('times iterations in which every response has its full length', () => {
    const shape = ['--prompts', '2', '--group', '2', '--max-new', '5', '--iterations', '2', '--warmup', '1'];
    const result = eepo('bench', 'step', '--model', embeddedModel, ...shape, '--compare', '--json', '--threads', '1');
    assert.equal(result.status, 0, result.stderr);
    const report = JSON.parse(result.stdout) as {
      machine: { threads: number };
      eepoOverGrpo: number;
      results: { algorithm: string; ms: { min: number; median: number }; phases: Record<string, { share: number }> }[];
    };
    assert.equal(report.machine.threads, 1);
    assert.deepEqual(
      report.results.map(({ algorithm }) => algorithm),
      ['grpo', 'eepo'],
    );
    for (const { ms, phases } of report.results) {
      assert.ok(ms.min > 0 && ms.min <= ms.median);
      const total = Object.values(phases).reduce((sum, { share }) => sum + share, 0);
      // What the machine does between two phases is not known, so there is no lower bound but the obvious one.
      assert.ok(total > 0 && total <= 1.001, `the phases are ${total} of the iteration`);
    }
    assert.ok(report.eepoOverGrpo > 0);
    const wrong = eepo('bench', 'step', '--model', embeddedModel, '--algorithm', 'ppo');
    assert.match(wrong.stderr, /--algorithm ppo: expected grpo or eepo/);
  });

  it('documents the configuration in docs/config.md', () => {
    assert.equal(readFileSync(join(ROOT, 'docs', 'config.md'), 'utf8'), configPage());
  });
});
