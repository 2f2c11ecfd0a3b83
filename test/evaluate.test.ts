import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AbortedError, RewardError } from '../lib/errors.js';
import { type EvaluationOptions, evaluatePolicy } from '../lib/eval/evaluate.js';
import { passAtK } from '../lib/eval/pass-at-k.js';
import type { EvaluationTokenizer } from '../lib/eval/types.js';
import type { GenerateOptions, Generation, Policy } from '../lib/policy.js';
import type { Task } from '../lib/tasks/types.js';

/** The prompt's id p says how often its problem is solved: sample s answers s when s < p, else 99. Greedy answers p. */
class ScriptedPolicy {
  readonly calls: { prompts: readonly (readonly number[])[]; options: GenerateOptions }[] = [];

  async generate(prompts: readonly (readonly number[])[], options: GenerateOptions): Promise<Generation[]> {
    this.calls.push({ prompts, options });
    return prompts.flatMap((ids, prompt) =>
      Array.from({ length: options.samplesPerPrompt ?? 1 }, (_, sample): Generation => {
        const p = ids[0] as number;
        const answer = options.temperature === 0 ? p : sample < p ? sample : 99;
        return {
          prompt,
          sample,
          tokens: [answer, 7],
          logprob: Float32Array.of(-1, -1),
          entropy: Float32Array.of(0.25, 0.75),
          finishReason: 'stop',
        };
      }),
    );
  }
}

const tokenizer: EvaluationTokenizer = {
  encodePrompt: (prompt) => [Number(prompt)],
  decode: (ids) => String(ids[0]),
  eosTokenIds: [7],
};

const SOLVED = [0, 2, 4];
const task: Task = {
  name: 'scripted',
  splits: { test: SOLVED.map((p, i) => ({ id: `p${i}`, prompt: String(p), answer: null })), empty: [] },
  reward: (inputs) => inputs.map(({ response }) => Number(Number(response) < 50 && response !== '0')),
  distinctKey: (_problem, response) => response,
  algebraicKey: (_problem, response) => String(Number(response) % 2),
};

const evaluate = (policy: ScriptedPolicy, options: Partial<EvaluationOptions> = {}, on: Task = task, split = 'test') =>
  evaluatePolicy(policy as unknown as Policy, tokenizer, on, split, {
    maxNewTokens: 4,
    samples: 4,
    ks: [1, 4],
    ...options,
  });

test('greedy, pass@k, distinct solutions, entropy and length', async () => {
  const result = await evaluate(new ScriptedPolicy());
  // 0, 1 and 3 correct samples of 4.
  const correct = [0, 1, 3];
  assert.deepEqual(
    result.rows.map((row) => row.correct),
    correct,
  );
  assert.deepEqual(
    result.rows.map((row) => row.greedyCorrect),
    [false, true, true],
  );
  assert.equal(result.greedy, 2 / 3);
  for (const k of [1, 4]) {
    const expected = correct.reduce((sum, c) => sum + passAtK(4, c, k), 0) / 3;
    assert.ok(Math.abs((result.passAtK[k] as number) - expected) < 1e-12);
  }
  assert.deepEqual([result.problems, result.sampledProblems, result.solved], [3, 3, 2]);
  assert.equal(result.distinctPerSolved, (1 + 3) / 2);
  assert.equal(result.distinctAlgebraicPerSolved, (1 + 2) / 2);
  assert.equal(result.meanEntropy, 0.5);
  assert.equal(result.meanLength, 2);
});

test('the result does not depend on the batch size, and the policy is asked as documented', async () => {
  const whole = await evaluate(new ScriptedPolicy());
  const policy = new ScriptedPolicy();
  assert.deepEqual(await evaluate(policy, { batchSize: 4, seed: 5, temperature: 0.7 }), whole);
  const asked = policy.calls.map(({ prompts, options }) => [
    prompts.length,
    options.temperature,
    options.samplesPerPrompt,
  ]);
  assert.deepEqual(asked, [
    [3, 0, 1],
    [1, 0.7, 4],
    [1, 0.7, 4],
    [1, 0.7, 4],
  ]);
  assert.deepEqual(
    policy.calls.map(({ options }) => options.promptIds),
    [[0, 1, 2], [0], [1], [2]],
  );
  for (const { options } of policy.calls) {
    assert.deepEqual([options.seed, options.weights, options.stopTokens, options.maxNewTokens], [5, 'policy', [7], 4]);
  }
});

test('fewer problems, only greedy, only samples', async () => {
  const few = await evaluate(new ScriptedPolicy(), { maxProblems: 2, sampleProblems: 1 });
  assert.deepEqual([few.problems, few.sampledProblems, few.rows.length, few.solved], [2, 1, 2, 0]);
  assert.equal(few.distinctPerSolved, null, 'nothing was solved');
  const greedy = await evaluate(new ScriptedPolicy(), { samples: 0, ks: [] });
  assert.deepEqual([greedy.greedy, greedy.passAtK, greedy.meanEntropy], [2 / 3, {}, null]);
  const sampled = await evaluate(new ScriptedPolicy(), { greedy: false, sampleProblems: 2 });
  assert.deepEqual([sampled.greedy, sampled.problems, sampled.rows.length], [null, 2, 2]);
});

test('progress counts problems of both phases', async () => {
  const seen: string[] = [];
  await evaluate(new ScriptedPolicy(), {
    batchSize: 8,
    onProgress: (p) => seen.push(`${p.phase} ${p.done}/${p.total}`),
  });
  assert.deepEqual(seen, ['greedy 0/3', 'greedy 3/3', 'sample 0/3', 'sample 2/3', 'sample 3/3']);
});

test('an aborted signal stops before the next batch', async () => {
  const controller = new AbortController();
  const policy = new ScriptedPolicy();
  const onProgress: EvaluationOptions['onProgress'] = ({ done }) => {
    if (done > 0) controller.abort();
  };
  const options = { batchSize: 4, signal: controller.signal, onProgress };
  await assert.rejects(
    evaluate(policy, options),
    (error) => error instanceof AbortedError && error.name === 'AbortError',
  );
  assert.equal(policy.calls.length, 1);
});

test('bad options and rewards are one clear error each', async () => {
  const policy = new ScriptedPolicy();
  await assert.rejects(evaluate(policy, {}, task, 'dev'), /has no split 'dev'; it has test, empty/);
  await assert.rejects(evaluate(policy, {}, task, 'toString'), /has no split 'toString'/);
  await assert.rejects(evaluate(policy, {}, task, 'empty'), /has no problems/);
  await assert.rejects(evaluate(policy, { ks: [8] }), /pass@8 needs at least 8 samples/);
  await assert.rejects(evaluate(policy, { greedy: false, samples: 0 }), /nothing to evaluate/);
  await assert.rejects(evaluate(policy, { maxNewTokens: 0 }), /maxNewTokens must be an integer of at least 1/);
  assert.equal(policy.calls.length, 0, 'before anything was generated');
  const bad = (reward: Task['reward'], message: RegExp) =>
    assert.rejects(
      evaluate(policy, {}, { ...task, reward }),
      (e) => e instanceof RewardError && message.test(e.message),
    );
  await bad(() => [1], /returned 1 values for 3 responses/);
  await bad((inputs) => inputs.map(() => Number.NaN), /returned NaN for a response to problem/);
  await bad(() => {
    throw new Error('boom');
  }, /threw: boom/);
});
