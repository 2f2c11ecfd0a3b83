/** Evaluation where rewards are missing, fail or hang: as in training, and never a silent 0. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AbortedError, RewardError } from '../lib/errors.js';
import { evaluatePolicy } from '../lib/eval/evaluate.js';
import { measure, measurePlan, memoryStore } from '../lib/eval/measure.js';
import { passAtK } from '../lib/eval/pass-at-k.js';
import { formatDetails } from '../lib/eval/table.js';
import { taskSet } from '../lib/eval/task-set.js';
import { combinedReward } from '../lib/tasks/rewards.js';
import type { Reward, RewardFunction, RewardInput, Task } from '../lib/tasks/types.js';
import { defineConfig, type TrainConfigInput } from '../lib/train/config.js';
import { makeEvaluator } from '../lib/train/evaluation.js';
import { ScriptedPolicy } from './support/scripted-policy.js';

/** By the text of the response: `right` 1, `wrong` 0, `none` null, `late` never, `bad` throws, `nan` NaN. */
const judge = ({ response }: RewardInput): Reward | Promise<Reward> => {
  if (response === 'late') return new Promise(() => {});
  if (response === 'bad') return Promise.reject(new TypeError('boom'));
  return response === 'none' ? null : response === 'nan' ? Number.NaN : Number(response === 'right');
};
const reward = ((inputs) => inputs.map(judge)) as RewardFunction;
const scripts = (first: string[], second: string[]) => ({
  a: { greedy: first[0] as string, samples: first.slice(1) },
  b: { greedy: second[0] as string, samples: second.slice(1) },
});
const problems = ['a', 'b'].map((prompt) => ({ id: prompt, prompt, answer: '' }));
const toy = (fn: RewardFunction = reward): Task => ({ name: 'toy', splits: { test: problems }, reward: fn });

function evaluator(
  responses: ReturnType<typeof scripts>,
  options: TrainConfigInput['reward'],
  fn?: RewardFunction,
  signal?: AbortSignal,
) {
  const { policy, tokenizer } = new ScriptedPolicy(responses);
  const config = defineConfig({
    rollout: { maxNewTokens: 8 },
    eval: { every: 1, samplesPerPrompt: 4, passK: [1, 4] },
    reward: options,
  });
  return makeEvaluator(policy, tokenizer, toy(fn), config, signal).evaluate;
}

/** Warnings of the process while `work` is done. */
async function warningsOf<T>(work: () => Promise<T>): Promise<{ result: T; warnings: string[] }> {
  const warnings: string[] = [];
  const listener = ({ name, message }: Error): void => {
    if (name === 'EepoRewardWarning') warnings.push(message);
  };
  process.on('warning', listener);
  try {
    const result = await work();
    await new Promise(setImmediate);
    return { result, warnings };
  } finally {
    process.off('warning', listener);
  }
}

describe('an evaluation whose rewards are missing', { timeout: 20_000 }, () => {
  it('leaves them out of every accuracy, and counts them', async () => {
    const { policy, tokenizer } = new ScriptedPolicy(
      scripts(['none', 'right', 'none', 'wrong', 'none'], ['right', 'right', 'right', 'wrong', 'wrong']),
    );
    const options = { samples: 4, ks: [1, 2, 4], maxNewTokens: 8 };
    const result = await evaluatePolicy(policy, tokenizer, toy(), 'test', options);
    assert.equal(result.greedy, 1, 'of the one that was judged');
    assert.equal(result.avgAtK, 1 / 2);
    // of the first problem two samples are known: it has no pass@4
    assert.deepEqual(result.passAtK, { 1: 1 / 2, 2: (1 + passAtK(4, 2, 2)) / 2, 4: 1 });
    assert.equal(result.missing, 3);
    assert.deepEqual(
      result.rows.map(({ greedyCorrect, samples, correct }) => [greedyCorrect, samples, correct]),
      [
        [null, 2, 1],
        [true, 4, 2],
      ],
    );
  });

  it('has no accuracy where none was judged; the table says how many are missing', async () => {
    const { policy, tokenizer } = new ScriptedPolicy(scripts(['none', 'none', 'none'], ['none', 'none', 'none']));
    const set = taskSet(toy(), 'test');
    const plan = measurePlan(2, { samples: 2, ks: [1, 2], maxNewTokens: 8 });
    const summary = await measure({ policy, tokenizer, set, plan, store: memoryStore() });
    assert.deepEqual([summary.greedy, summary.avgAtK, summary.passAtK], [null, null, {}]);
    const { rows: _, ...numbers } = summary;
    const table = formatDetails([{ name: 'm', model: null, sets: { test: { title: 'test', ...numbers } } }], 'text');
    assert.match(table, /undecided {2}missing\n.*\n.* 0 +6$/);
  });

  it('goes on over errors and time limits as training does, and warns', async () => {
    const evaluate = evaluator(
      scripts(['right', 'right', 'late', 'wrong', 'bad'], ['nan', 'right', 'right', 'wrong', 'wrong']),
      { onError: 'skip', timeoutMs: 50 },
    );
    const { result, warnings } = await warningsOf(() => evaluate(3));
    assert.equal(result['test/greedy'], 1);
    assert.equal(result['test/avg@4'], 1 / 2);
    assert.equal(result['test/missing'], 3);
    assert.equal(warnings.length, 1);
    assert.match(
      warnings[0] as string,
      /^evaluation after iteration 3, "test": the reward of task "toy" failed for 3 of 10 responses \(1 errors, 1 not finite, 1 cut off\); the first: .*returned NaN/,
    );
    const later = await warningsOf(() => evaluate(4));
    assert.match(
      later.warnings[0] as string,
      /iteration 4, .* 3 of 10 /,
      'those of the evaluation before are not counted',
    );
  });

  it('ends with a named error where the policy is to stop, and counts a late one as wrong where that is asked for', async () => {
    const bad = scripts(['right', 'bad', 'right', 'right', 'right'], ['right', 'right', 'right', 'right', 'right']);
    await assert.rejects(evaluator(bad, {})(1), (error: RewardError) => {
      assert.ok(error instanceof RewardError);
      assert.match(error.message, /task "toy" threw: boom/);
      return true;
    });
    const late = scripts(['late', 'right', 'right', 'right', 'right'], ['right', 'right', 'right', 'right', 'right']);
    await assert.rejects(evaluator(late, { timeoutMs: 30, onTimeout: 'throw' })(1), /took longer than 30 ms/);
    const { result } = await warningsOf(() => evaluator(late, { timeoutMs: 30, onTimeout: 'zero' })(1));
    assert.deepEqual([result['test/greedy'], result['test/missing']], [1 / 2, undefined]);
  });

  it('asks the terms of a sum by the same rules', async () => {
    const one: RewardFunction = (inputs) => inputs.map(() => 1);
    const sum = combinedReward(
      [
        { name: 'own', fn: reward, required: true },
        { name: 'one', fn: one },
      ],
      'toy',
    );
    const responses = scripts(
      ['bad', 'late', 'right', 'right', 'right'],
      ['right', 'right', 'right', 'right', 'right'],
    );
    const { result, warnings } = await warningsOf(() =>
      evaluator(responses, { onError: 'skip', timeoutMs: 50 }, sum)(1),
    );
    assert.deepEqual([result['test/greedy'], result['test/avg@4'], result['test/missing']], [1, 1, 2]);
    assert.match(warnings[0] as string, /reward "own" of task "toy" failed for 2 of 10/);
  });

  it('ends at once where the run is stopped while a reward hangs', async () => {
    const stop = new AbortController();
    const late = scripts(['late', 'right', 'right', 'right', 'right'], ['right', 'right', 'right', 'right', 'right']);
    const evaluation = evaluator(late, { timeoutMs: 0 }, undefined, stop.signal)(1);
    setTimeout(() => stop.abort(), 20);
    await assert.rejects(evaluation, AbortedError);
  });
});
