import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { after, describe, it } from 'node:test';
import { EvalProgress } from '../lib/cli/eval-progress.js';
import type { ModelResult } from '../lib/eval/suite.js';
import type { ResultTable } from '../lib/eval/table.js';
import type { EvaluationProgress } from '../lib/eval/types.js';
import { Policy } from '../lib/policy.js';
import { dataRoot, embeddedModel, needs, ROOT } from './support/data.js';
import { writeFiles } from './support/files.js';

const folder = mkdtempSync(join(tmpdir(), 'eepo-eval-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const main = join(ROOT, 'dist', 'lib', 'cli', 'main.js');
let outs = 0;
const fresh = (): string => join(folder, `out-${outs++}`);
const env = { ...process.env, HF_HUB_OFFLINE: '1', HF_HOME: join(folder, 'hub') };

const eepo = (...args: string[]) =>
  spawnSync(process.execPath, [main, 'eval', ...args], { encoding: 'utf8', cwd: folder, env });

function jsonOf(...args: string[]): { models: ModelResult[]; table: ResultTable } {
  const { status, stdout, stderr } = eepo(...args, '--json');
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout) as { models: ModelResult[]; table: ResultTable };
}

const countdown = [embeddedModel, '--task', 'countdown', '--split', 'test', '--samples', '4', '--limit', '24'];

interface Line {
  problem: string;
  phase: string;
  sample: number;
}
const sortedLines = (path: string): string[] => readFileSync(path, 'utf8').trimEnd().split('\n').sort();

describe('eepo eval', () => {
  it('gives the same when it was killed in the middle and started again', async () => {
    const whole = fresh();
    const expected = jsonOf(...countdown, '--out', whole);
    const out = fresh();
    const path = join(out, 'countdown', 'test', 'responses.jsonl');
    const child = spawn(process.execPath, [main, 'eval', ...countdown, '--out', out, '--batch-size', '1'], {
      cwd: folder,
    });
    const ended = new Promise<NodeJS.Signals | null>((resolve) =>
      child.once('exit', (_code, signal) => resolve(signal)),
    );
    while (!existsSync(path) && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 2));
    child.kill('SIGKILL');
    assert.equal(await ended, 'SIGKILL', 'it was still at work');
    const before = sortedLines(path).filter((line) => line.endsWith('}'));
    assert.ok(before.length >= 1 && before.length < 24 + 96, `${before.length} responses`);
    const { status, stderr } = eepo(...countdown, '--out', out, '--batch-size', '7');
    assert.equal(status, 0, stderr);
    assert.match(stderr, /^countdown: test greedy +[0-9]+\/24 are there$/m);
    // The weights are those of one file; everything else, too, is what an evaluation in one go gives.
    assert.deepEqual(jsonOf('table', out), jsonOf('table', whole));
    assert.deepEqual(jsonOf('table', whole).models, expected.models);
    assert.deepEqual(sortedLines(path), sortedLines(join(whole, 'countdown', 'test', 'responses.jsonl')));
    for (const line of before) assert.ok(sortedLines(path).includes(line));
    // Once more, with nothing left to do.
    assert.equal(eepo(...countdown, '--out', out).status, 0);
    assert.equal(sortedLines(path).length, 24 + 96);
  });

  it('refuses a folder with other settings, naming them', () => {
    const out = fresh();
    const small = [
      embeddedModel,
      '--task',
      'countdown',
      '--split',
      'test',
      '--samples',
      '0',
      '--limit',
      '2',
      '--out',
      out,
    ];
    assert.equal(eepo(...small).status, 0);
    const { status, stderr } = eepo(...small, '--seed', '3', '--stop-token', '5');
    assert.equal(status, 1);
    assert.match(stderr, /seed: 0 there, 3 now/);
    assert.match(stderr, /stopTokens: \[103\] there, \[5\] now/);
    assert.doesNotMatch(stderr, /temperature/);
  });

  it('makes one table of several models, and of finished folders', () => {
    const out = fresh();
    const other = join(folder, 'other');
    cpSync(embeddedModel, other, { recursive: true });
    const options = [
      '--task',
      'countdown',
      '--split',
      'test,ood',
      '--samples',
      '0',
      '--limit',
      '20',
      '--baseline',
      'first',
    ];
    const { models, table } = jsonOf(embeddedModel, other, ...options, '--name', 'first', '--out', out);
    assert.deepEqual(
      models.map(({ name }) => name),
      ['first', 'other'],
    );
    assert.equal(table.rows[1]?.relativeGain, 0, 'they are the same model');
    assert.deepEqual(jsonOf('table', out, '--baseline', 'first'), { models, table });
    const text = eepo('table', join(out, 'other'), join(out, 'first'), '--baseline', 'first').stdout;
    assert.match(text, /^Method +test +ood +Average\n-+ .*\nother( +[0-9.]+){3} \(\+0\.0\)\nfirst( +[0-9.]+){3}\n/);
    assert.match(
      eepo('table', out, '--markdown').stdout,
      /^Accuracy in percent, greedy pass@1\.\n\n\| Method \| test \| ood \| Average \|/,
    );
  });

  it('asks problems of a file, and shows the prompts it was told to use', () => {
    const data = writeFiles(folder, {
      'own.jsonl': '{"problem": "2 3 7 9 _ > 41", "answer": "33"}\n{"problem": "1 2 _ _ _ > 3", "answer": "1"}\n',
    });
    const out = fresh();
    const run = ['--data', join(data, 'own.jsonl'), '--prompt-style', 'plain', '--max-new-tokens', '12', '--out', out];
    const { models } = jsonOf(embeddedModel, ...run, '--k', '1,4');
    const own = models[0]?.sets.own;
    assert.deepEqual([own?.problems, own?.samples, Object.keys(own?.majAtK ?? {})], [2, 4, ['4']]);
    const lines = sortedLines(join(out, 'countdown', 'own', 'responses.jsonl')).map((line) => JSON.parse(line) as Line);
    assert.deepEqual(new Set(lines.map(({ problem }) => problem)), new Set(['own/0', 'own/1']));
    assert.equal(lines.length, 2 + 8);
  });

  const refused: [string, string[], RegExp][] = [
    [
      'nothing to evaluate on',
      [embeddedModel],
      /say what to evaluate .* on: --benchmarks math500,aime24, --data FILE or --task countdown/,
    ],
    ['an unknown benchmark', [embeddedModel, '--benchmarks', 'aime23'], /no benchmark 'aime23'; did you mean/],
    [
      'a task beside benchmarks',
      [embeddedModel, '--benchmarks', 'aime24', '--split', 'test'],
      /leave out --benchmarks and --data/,
    ],
    ['another task', [embeddedModel, '--task', 'math'], /--task math: expected countdown/],
    ['a missing model', ['no/such/folder', '--task', 'countdown'], /no\/such\/folder: no such model folder/],
    ['two of one name', [embeddedModel, embeddedModel, '--task', 'countdown'], /two models are named "countdown"/],
    [
      'more names than models',
      [embeddedModel, '--task', 'countdown', '--name', 'a', '--name', 'b'],
      /--name is given 2 times for 1 models/,
    ],
    [
      'an unknown baseline',
      [embeddedModel, '--task', 'countdown', '--baseline', 'x'],
      /--baseline x: no model has this name/,
    ],
    ['an unknown metric', [embeddedModel, '--task', 'countdown', '--metric', 'mean'], /no metric 'mean'/],
    [
      'no number',
      [embeddedModel, '--task', 'countdown', '--temperature', 'hot'],
      /--temperature hot: expected a number above 0/,
    ],
    ['two styles', [embeddedModel, '--data', 'x', '--chat', '--prompt-style', 'plain'], /exclude each other/],
    [
      'an unknown style',
      [embeddedModel, '--data', 'x', '--prompt-style', 'fancy'],
      /--prompt-style fancy: expected plain, chat/,
    ],
    [
      'a text of several tokens',
      [embeddedModel, '--task', 'countdown', '--stop-token', '1 2'],
      /stop token "1 2" is not a single token/,
    ],
    ['a device', [embeddedModel, '--task', 'countdown', '--device', 'tpu'], /--device tpu: expected auto, cpu or cuda/],
    [
      'a type',
      [embeddedModel, '--task', 'countdown', '--dtype', 'float16'],
      /--dtype float16: expected float32 or bfloat16/,
    ],
    ['a folder without results', ['table', folder], /has no results.json, nor has a folder in it/],
  ];
  for (const [what, args, message] of refused) {
    it(`refuses ${what} with one clear error`, () => {
      const { status, stderr, stdout } = eepo(...args, ...(args[0] === 'table' ? [] : ['--out', fresh()]));
      assert.equal(status, 1);
      assert.equal(stdout, '');
      assert.match(stderr, message);
      assert.match(stderr, /\[EEPO_[A-Z_]+\]\n$/);
    });
  }
});

describe('the real benchmarks', () => {
  it('are asked of a model with a real tokenizer', needs('benchmarks'), async () => {
    const model = join(folder, 'tiny-qwen');
    const files = join(ROOT, 'node_modules', '@lenml', 'tokenizer-qwen2_5', 'models');
    const tiny = {
      model_type: 'qwen2',
      vocab_size: 151_936,
      hidden_size: 16,
      intermediate_size: 32,
      num_hidden_layers: 1,
    };
    const heads = { num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 2048, rms_norm_eps: 1e-6 };
    const config = { ...tiny, ...heads, rope_theta: 1e6, tie_word_embeddings: true, eos_token_id: 151_643 };
    const policy = await Policy.create(config, { companions: files });
    await policy.save(model);
    policy.dispose();
    const names = ['minerva_math', 'olympiadbench', 'amc23', 'aime24', 'aime25', 'math500', 'gsm8k'];
    const data = ['--benchmark-data', join(dataRoot, 'benchmarks', 'benchmarks.jsonl')];
    const gsm8k = ['--benchmark-data', `gsm8k=${join(dataRoot, 'gsm8k', 'test.jsonl')}`];
    const sizes = ['--limit', '2', '--k', '1,2', '--max-new-tokens', '8', '--out', fresh()];
    const { models, table } = jsonOf(model, '--benchmarks', names.join(','), ...data, ...gsm8k, ...sizes);
    assert.deepEqual(
      table.sets.map(({ name }) => name),
      names,
    );
    assert.deepEqual(table.sets[0], { name: 'minerva_math', title: 'Minerva Math' });
    for (const name of names) {
      const set = models[0]?.sets[name];
      assert.equal(set?.problems, 2);
      assert.equal(set?.samples, 2);
      assert.deepEqual([Object.keys(set?.majAtK ?? {}), Object.keys(set?.passAtK ?? {})], [['2'], ['1', '2']]);
      const { value } = set?.greedy ?? { value: Number.NaN };
      assert.ok(value >= 0 && value <= 0.5, 'a random model knows next to nothing');
    }
  });
});

describe('progress of an evaluation', () => {
  const event = (over: Partial<EvaluationProgress>): EvaluationProgress => ({
    set: 'math500',
    phase: 'greedy',
    done: 0,
    total: 500,
    responses: 0,
    correct: 0,
    undecided: 0,
    tokens: 0,
    ...over,
  });

  it('is plain lines without a terminal: few, with accuracy, speed, time left and what is undecided', () => {
    const stream = new PassThrough();
    let now = 0;
    const progress = new EvalProgress({
      label: 'm: ',
      stream: stream as unknown as NodeJS.WriteStream,
      lines: 4,
      clock: () => now,
    });
    progress.update(event({ done: 100, responses: 100, correct: 30 }));
    for (let done = 100; done <= 500; done += 4) {
      now += 1000;
      progress.update(
        event({ done, responses: done, correct: done / 4, tokens: (done - 100) * 50, undecided: done >= 250 ? 2 : 0 }),
      );
    }
    progress.update(event({ phase: 'sample' }));
    progress.stop();
    assert.deepEqual(String(stream.read()).trimEnd().split('\n'), [
      'm: math500 greedy  100/500 are there',
      'm: math500 greedy  128/500  25.0 % correct  175 tok/s  1m46s left',
      'm: math500 greedy  252/500  25.0 % correct  195 tok/s  2 undecided  1m04s left',
      'm: math500 greedy  376/500  25.0 % correct  197 tok/s  2 undecided  31s left',
      'm: math500 greedy  500/500  25.0 % correct  198 tok/s  2 undecided  0s left',
    ]);
  });
});
