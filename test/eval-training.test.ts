import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ConfigError } from '../lib/errors.js';
import { mathSet } from '../lib/eval/math-set.js';
import { passAtK } from '../lib/eval/pass-at-k.js';
import { evaluateBenchmarks } from '../lib/eval/suite.js';
import type { SetSummary } from '../lib/eval/summary.js';
import { taskSet } from '../lib/eval/task-set.js';
import type { ResponseLine } from '../lib/eval/types.js';
import type { Task } from '../lib/tasks/types.js';
import { verifierReward } from '../lib/tasks/verifiers.js';
import { defineConfig, type TrainConfigInput } from '../lib/train/config.js';
import { evaluationFolder, makeEvaluator } from '../lib/train/evaluation.js';
import { ROOT } from './support/data.js';
import { temporaryFolder } from './support/files.js';
import { ScriptedPolicy } from './support/scripted-policy.js';

const benchmarkData = join(ROOT, 'test', 'fixtures', 'eval', 'benchmarks.jsonl');
const boxed = (answer: string): string => `\\boxed{${answer}}`;

/** By the prompt, which the task's template makes. */
const scripts = {
  'Solve: What is $1 + 1$?': { greedy: boxed('2'), samples: ['2', '3', '3', '2'].map(boxed) },
  'Solve: What is $\\frac{1}{2} + \\frac{1}{4}$?': {
    greedy: boxed('1'),
    samples: ['0.75', '1', '3/4', '5'].map(boxed),
  },
  'my own': { greedy: boxed('7'), samples: ['7', '7', '8', '9'].map(boxed) },
};

const problems = [{ id: 'test:1', prompt: 'my own', answer: '7' }];
const task: Task = { name: 'mine', splits: { train: problems, test: problems }, reward: verifierReward('math') };

function evaluator(
  options: Partial<TrainConfigInput['eval']> = {},
  on: Task = task,
  run: string | null = null,
  cacheTokens = 0,
) {
  const scripted = new ScriptedPolicy(scripts);
  const config = defineConfig({
    rollout: { maxNewTokens: 8, cacheTokens },
    task: { name: 'jsonl', path: 'train.jsonl', template: 'Solve: {prompt}' },
    eval: { every: 1, benchmarks: ['aime24'], benchmarkData, samplesPerPrompt: 4, passK: [1, 2, 4, 8], ...options },
  });
  return { scripted, ...makeEvaluator(scripted.policy, scripted.tokenizer, on, config, undefined, run) };
}

describe('[eval] of a training run', () => {
  it('refuses a best checkpoint by a set that is not evaluated', async () => {
    const { policy, tokenizer } = new ScriptedPolicy(scripts);
    const config = defineConfig({
      rollout: { maxNewTokens: 8 },
      eval: { every: 1 },
      checkpoint: { keepBest: 'eval/tset/greedy' },
    });
    await assert.rejects(
      makeEvaluator(policy, tokenizer, task, config).check(),
      /"tset" is not evaluated; there is test/,
    );
  });

  it('measures splits and benchmarks with one engine, asked as the task asks', async () => {
    const { evaluate, check, scripted } = evaluator();
    await check();
    const metrics = await evaluate(3);
    const aime = Object.fromEntries(Object.entries(metrics).filter(([name]) => name.startsWith('aime24/')));
    assert.deepEqual(aime, {
      'aime24/greedy': 1 / 2,
      'aime24/avg@4': 1 / 2,
      // 2, 3 | 3, 2: the first seen wins; 0.75, 1 | 3/4, 5: so too. Of four: a tie that 2 wins, and 3/4 by 2 to 1 and 1.
      'aime24/maj@2': (1 / 2 + 1) / 2,
      'aime24/maj@4': 1,
      'aime24/pass@1': 1 / 2,
      'aime24/pass@2': passAtK(4, 2, 2),
      'aime24/pass@4': 1,
      'aime24/entropy': 0.25,
      'aime24/response_length': 2,
      'aime24/greedy_length': 2,
      'aime24/truncated_frac': 0,
    });
    assert.deepEqual(
      ['greedy', 'avg@4', 'maj@4', 'pass@2'].map((name) => metrics[`test/${name}`]),
      [1, 1 / 2, 1, passAtK(4, 2, 2)],
      'the verifier of a task also says what is voted for',
    );
    // The same numbers as from `eepo eval`.
    const set = mathSet('aime24', 'AIME 24', [
      { id: '0', prompt: 'Solve: What is $1 + 1$?', answer: '2' },
      { id: '1', prompt: 'Solve: What is $\\frac{1}{2} + \\frac{1}{4}$?', answer: '\\frac{3}{4}' },
    ]);
    const options = { maxNewTokens: 8, samples: 4, ks: [2, 4] };
    const { sets } = await evaluateBenchmarks(scripted.policy, scripted.tokenizer, [set], options);
    assert.equal(sets.aime24?.greedy?.value, metrics['aime24/greedy']);
    assert.equal(sets.aime24?.majAtK[2]?.value, metrics['aime24/maj@2']);
    assert.equal(sets.aime24?.passAtK[2]?.value, metrics['aime24/pass@2']);
    // A second evaluation draws the same random numbers: what changes is the policy.
    assert.deepEqual(await evaluate(4), metrics);
  });

  it('keeps the responses of every evaluation, as eepo eval writes them', async (t) => {
    const run = temporaryFolder(t);
    const { evaluate, check, scripted } = evaluator({}, task, run);
    await check();
    assert.equal(existsSync(join(run, 'evals')), false, 'a check writes nothing');
    const metrics = await evaluate(20);
    assert.deepEqual(metrics, await evaluator().evaluate(20), 'and measures the same');
    const folder = evaluationFolder(run, 20);
    assert.equal(folder, join(run, 'evals', 'iteration-000020'));
    const text = (path: string) => readFileSync(join(folder, path), 'utf8');
    const lines = text('test/responses.jsonl').trim().split('\n');
    assert.equal(lines.length, 5, 'one greedy, four samples');
    const rows = lines.map((line) => JSON.parse(line) as ResponseLine);
    assert.deepEqual(
      rows.map(({ phase, sample, verdict, answer, text }) => [phase, sample, verdict, answer, text]),
      [
        ['greedy', 0, 'correct', '7', boxed('7')],
        ...['7', '7', '8', '9'].map((answer, i) => [
          'sample',
          i,
          answer === '7' ? 'correct' : 'wrong',
          answer,
          boxed(answer),
        ]),
      ],
    );
    const summary = JSON.parse(text('aime24/summary.json')) as SetSummary;
    assert.equal(summary.greedy?.value, metrics['aime24/greedy']);

    // The same file as that of `eepo eval`, but for where it lies.
    const out = join(run, 'suite');
    const set = taskSet(task, 'test');
    await evaluateBenchmarks(scripted.policy, scripted.tokenizer, [set], {
      ...{ maxNewTokens: 8, samples: 4, ks: [1, 2, 4], seed: 0x5eed, out },
    });
    assert.equal(readFileSync(join(out, 'test', 'responses.jsonl'), 'utf8'), text('test/responses.jsonl'));

    // Evaluated again: of the weights as they are now, nothing is left of the first attempt.
    await evaluate(20);
    assert.equal(text('test/responses.jsonl').trim().split('\n').length, 5);
    assert.ok(existsSync(evaluationFolder(run, 20)));
  });

  it('keeps none where keepResponses is false', async (t) => {
    const run = temporaryFolder(t);
    await evaluator({ keepResponses: false }, task, run).evaluate(1);
    assert.equal(existsSync(join(run, 'evals')), false);
  });

  it('refuses a split that cannot be the name of a folder', async (t) => {
    const hostile = { ...task, splits: { train: problems, '../up': problems } };
    await assert.rejects(evaluator({}, hostile, temporaryFolder(t)).check(), /a set is named "\.\.\/up"/);
    await evaluator({ keepResponses: false }, hostile, temporaryFolder(t)).check();
  });

  it('needs no split beside train when benchmarks are named', async () => {
    const { evaluate, check } = evaluator({}, { ...task, splits: { train: problems } });
    await check();
    const names = Object.keys(await evaluate(1));
    assert.ok(names.length > 0 && names.every((name) => name.startsWith('aime24/')));
  });

  it('finds before the run what is wrong', async () => {
    const trainOnly = { ...task, splits: { train: problems } };
    await assert.rejects(evaluator({ benchmarks: [] }, trainOnly).check(), (error) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.message, /only a training split; set task.evalPath, or name eval.splits or eval.benchmarks/);
      return true;
    });
    assert.throws(() => evaluator({ benchmarks: ['aime2024'] }), /no benchmark "aime2024"; did you mean "aime24"/);
    await assert.rejects(evaluator({ maxNewTokens: 64 }).check(), /does not fit into the model's context of 64/);
    await evaluator({ maxNewTokens: 17 }, task, null, 48).check();
    await assert.rejects(
      evaluator({ maxNewTokens: 34 }, task, null, 48).check(),
      /34 new tokens it does not fit into rollout\.cacheTokens = 48, which bounds evaluation too/,
    );
    const named = { ...task, splits: { train: problems, aime24: problems } };
    await assert.rejects(evaluator({}, named).check(), /"aime24" is a split and a benchmark/);
    assert.throws(() => evaluator({ greedy: false, samplesPerPrompt: 0 }), /eval: nothing to measure/);
    // Nothing is checked when nothing is to be evaluated.
    await evaluator({ every: 0, maxNewTokens: 64 }).check();
  });
});
