/** Features of responses: checked, averaged by stage in training and by phase in evaluations. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { measure, measurePlan, memoryStore } from '../lib/eval/measure.js';
import { openResponses } from '../lib/eval/response-file.js';
import { taskSet } from '../lib/eval/task-set.js';
import { calculator } from '../lib/tasks/calculator.js';
import { countdown } from '../lib/tasks/countdown.js';
import { defineTask } from '../lib/tasks/define.js';
import { featuresOf, meanFeatures } from '../lib/tasks/features.js';
import type { Problem, Task } from '../lib/tasks/types.js';
import { verifierReward } from '../lib/tasks/verifiers.js';
import { evaluationMetrics } from '../lib/train/evaluation.js';
import { featureMetrics } from '../lib/train/metrics.js';
import { ScriptedPolicy } from './support/scripted-policy.js';

const problem: Problem = { id: 'p7', prompt: 'one', answer: '1' };
const withFeatures = (features: unknown) => ({ name: 'mine', features }) as Pick<Task, 'name' | 'features'>;

describe('features of a response', () => {
  it('are numbers by name, those that are not finite left out', () => {
    assert.deepEqual(featuresOf({ name: 'none' }, problem, 'x'), {});
    const task = withFeatures((own: Problem, response: string) => ({
      length: response.length,
      'id.7': own.id === 'p7' ? 1 : 0,
      ratio: 0 / 0,
      top: Infinity,
    }));
    assert.deepEqual(featuresOf(task, problem, 'abc'), { length: 3, 'id.7': 1 });
  });

  it('are refused where the function throws or gives something else, by task and problem', () => {
    const cases: [unknown, RegExp][] = [
      [null, /"mine", problem "p7": expected an object of numbers by name, got null/],
      [[1], /expected an object/],
      [3, /expected an object .* got 3/],
      [{ a: '1' }, /a must be a number, got 1/],
      [{ a: null }, /a must be a number, got null/],
      [{ 'a b': 1 }, /the name "a b" may only have letters/],
      [{ 'a/b': 1 }, /the name "a\/b"/],
    ];
    for (const [value, message] of cases) {
      assert.throws(
        () =>
          featuresOf(
            withFeatures(() => value),
            problem,
            '',
          ),
        message,
      );
    }
    const cause = new TypeError('no such thing');
    const thrower = withFeatures(() => {
      throw cause;
    });
    assert.throws(() => featuresOf(thrower, problem, ''), {
      code: 'EEPO_INVALID_ARGUMENT',
      cause,
      message: /no such thing/,
    });
  });

  it('are averaged over the responses that have them', () => {
    assert.deepEqual(meanFeatures([]), {});
    assert.deepEqual(meanFeatures([{ a: 1, b: 2 }, { a: 0 }, {}]), { a: 0.5, b: 2 });
  });

  it('of countdown: whether it starts with the largest number', () => {
    const own = countdown().splits.test?.[0] as Problem;
    const { numbers } = own.answer as { numbers: number[] };
    const [smallest, largest] = [numbers[0], numbers.at(-1)];
    assert.notEqual(smallest, largest);
    const habit = (response: string) => countdown().features?.(own, response).habit;
    assert.equal(habit(`${largest} + 1`), 1);
    assert.equal(habit(` ${largest}`), 1);
    for (const other of [`${smallest} + ${largest}`, `${largest}${largest}`, '', ' ', `+ ${largest}`]) {
      assert.equal(habit(other), 0, other);
    }
    assert.equal(habit(' '.repeat(1e7)), 0);
  });
});

describe('means of features', () => {
  it('are told by stage in training', () => {
    const task = calculator();
    const own = task.splits.test?.[0] as Problem;
    const { values } = own.answer as { values: number[] };
    const chain = `${values.map((value) => `; ${value}`).join(' ')} # 0 .`;
    const sample = (stage: 1 | 2, response: string) => ({ stage, problem: own, response });
    const samples = [
      sample(1, '# 1 .'),
      sample(1, '# 2 .'),
      sample(1, '; 3 # 2 .'),
      sample(1, chain),
      sample(2, chain),
    ];
    assert.deepEqual(featureMetrics(task, samples), {
      'task/chain/stage1': 0.5,
      'task/chain_right/stage1': 0.25,
      'task/chain/stage2': 1,
      'task/chain_right/stage2': 1,
    });
    assert.deepEqual(featureMetrics(task, samples.slice(0, 1)), {
      'task/chain/stage1': 0,
      'task/chain_right/stage1': 0,
    });
    assert.deepEqual(featureMetrics({ name: 'none' }, samples), {});
  });

  const folder = mkdtempSync(join(tmpdir(), 'eepo-features-'));
  after(() => rmSync(folder, { recursive: true, force: true }));

  const definition = {
    name: 'scripted',
    splits: { test: [{ id: 'one', prompt: 'one', answer: '1' }] },
    features: (_: Problem, response: string) => ({ ones: response.split('1').length - 1 }),
  };
  const scripted = () => new ScriptedPolicy({ one: { greedy: '1 1 1', samples: ['1', '2', '1 1', '2'] } });
  const plan = measurePlan(1, { maxNewTokens: 8, samples: 4, ks: [1] });

  it('are told by phase in evaluations, whatever the verifier', async () => {
    for (const reward of [() => [1], verifierReward('math')]) {
      const { policy, tokenizer } = scripted();
      const all = (inputs: readonly unknown[]) => inputs.map(() => 1);
      const task = defineTask({ ...definition, reward: reward === verifierReward('math') ? reward : all });
      const set = taskSet(task, 'test');
      const summary = await measure({ policy, tokenizer, set, plan, store: memoryStore() });
      const metrics = evaluationMetrics('test', summary);
      assert.equal(metrics['test/task/ones'], 0.75);
      assert.equal(metrics['test/greedy_task/ones'], 3);
    }
  });

  it('are kept with the responses, and read again', async () => {
    const path = join(folder, 'responses.jsonl');
    const set = taskSet(defineTask({ ...definition, reward: (inputs) => inputs.map(() => 1) }), 'test');
    const { policy, tokenizer } = scripted();
    const first = await measure({ policy, tokenizer, set, plan, store: openResponses(path) });
    const again = await measure({ policy, tokenizer, set, plan, store: openResponses(path) });
    assert.deepEqual(again, first);
    assert.deepEqual(again.sampledResponses?.features, { ones: 0.75 });
    const line = JSON.parse(readFileSync(path, 'utf8').split('\n')[0] as string) as object;
    for (const features of [[], null, { a: '1' }, 'x']) {
      writeFileSync(path, `${JSON.stringify({ ...line, features })}\n`);
      assert.throws(() => openResponses(path), /responses\.jsonl:1: not a response/);
    }
  });
});
