/** Rewards of stage 1 that are asked for before stage 2 is drawn: once, and with the same report as all at once. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { RolloutSample } from '../lib/rollout.js';
import type { AnyReward, RewardOptions } from '../lib/tasks/rewards.js';
import { computeRewards } from '../lib/tasks/rewards.js';
import type { RewardInput } from '../lib/tasks/types.js';
import { defineConfig, type TrainConfigInput } from '../lib/train/config.js';
import { IterationRewards } from '../lib/train/iteration-rewards.js';
import { Trainer } from '../lib/train/trainer.js';
import { FakePolicy } from './support/fake-policy.js';
import { containsThree, iterationsOf, toyTask, toyTokenizer } from './support/toy-task.js';

const sample = (id: number, stage: 1 | 2, finishReason: 'stop' | 'length' = 'stop'): RolloutSample => ({
  ...{ promptIndex: 0, sampleIndex: id, stage, tokens: [id], finishReason },
  ...{ logprob: new Float32Array(1), entropy: new Float32Array(1) },
});
const problem = { id: 'p', prompt: 'p', answer: 1 };
const inputOf = ({ tokens, finishReason }: RolloutSample): RewardInput => ({
  ...{ problem, response: String(tokens[0]), tokens, finishReason },
});

describe('rewards in two parts', () => {
  const drawn = [
    ...[sample(1, 1), sample(2, 1, 'length'), sample(3, 2), sample(4, 2)],
    ...[sample(5, 1), sample(6, 1), sample(7, 2, 'length'), sample(8, 2)],
  ];
  const stage1 = drawn.filter(({ stage }) => stage === 1);
  const list = (asked: number[]): AnyReward[] => [
    {
      name: 'value',
      weight: 2,
      fn: (inputs, context) =>
        inputs.map(({ tokens }) => {
          asked.push(tokens[0] as number);
          context?.report({ seen: 1 });
          return (tokens[0] as number) % 4 === 1 ? null : (tokens[0] as number);
        }),
    },
    {
      name: 'fragile',
      fn: (inputs) => inputs.map(({ tokens }) => ([4, 6].includes(tokens[0] as number) ? Number.NaN : 0.5)),
    },
  ];

  for (const overlong of ['verify', 'zero', 'null'] as const) {
    it(`are those of all at once, asked for once: ${overlong}`, async () => {
      const options: RewardOptions = { task: 't', overlong, onError: 'skip' };
      const expected = await computeRewards(list([]), drawn.map(inputOf), options);
      const asked: number[] = [];
      const rewards = new IterationRewards(list(asked), options, inputOf);
      const early = await rewards.judge(stage1);
      assert.deepEqual(
        early,
        expected.rewards.filter((_, i) => drawn[i]?.stage === 1),
      );
      const report = await rewards.finish(drawn);
      const first = expected.failures.map(({ first: _, ...rest }) => rest);
      assert.deepEqual(
        { ...report, failures: report.failures.map(({ first: _, ...rest }) => rest) },
        { ...expected, failures: first },
      );
      assert.ok(expected.failures.length > 0 && expected.failedShare > 0);
      assert.equal(new Set(asked).size, asked.length, 'asked twice');
      assert.deepEqual(await new IterationRewards(list([]), options, inputOf).finish(drawn), expected);
    });
  }

  it('are those the trainer learns from, whatever is forgotten', async () => {
    const run = async (unlearn: TrainConfigInput['unlearn']) => {
      let asked = 0;
      const reward = (inputs: readonly RewardInput[]) => {
        asked += inputs.length;
        return containsThree(inputs);
      };
      const config = defineConfig({
        run: { iterations: 2, seed: 4 },
        rollout: { promptsPerIteration: 4, groupSize: 4, maxNewTokens: 8 },
        optimizer: { lr: 0.05, miniBatchPrompts: 4 },
        objective: { klCoef: 0 },
        eval: { atEnd: false },
        unlearn: { gate: 'always', eta: 0, ...unlearn },
      });
      const policy = new FakePolicy();
      const trainer = new Trainer({ policy, tokenizer: toyTokenizer, task: toyTask({ reward }), config });
      const { iterations, error } = await iterationsOf(trainer);
      assert.equal(error, null);
      const metrics = iterations.map((one) =>
        Object.entries(one.metrics).filter(([name]) => !/^(timing_s|perf|unlearn)\//.test(name)),
      );
      return {
        asked,
        metrics,
        hash: await policy.hash(),
        shares: iterations.map((i) => i.metrics['unlearn/sample_frac']),
      };
    };
    const all = await run({});
    const correct = await run({ samples: 'correct' });
    assert.equal(correct.asked, all.asked);
    assert.deepEqual([correct.metrics, correct.hash], [all.metrics, all.hash], 'with eta = 0 both are GRPO');
    assert.deepEqual(all.shares, [1, 1]);
    assert.ok(correct.shares.every((share) => share !== undefined && share > 0 && share < 1));
  });
});
