/** Dynamic sampling, the length penalty, advantages by stage and masked responses, in training. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { MetricAccumulator } from '../lib/algorithm/accumulator.js';
import { groupAdvantages } from '../lib/algorithm/advantages.js';
import { overlongPenalty } from '../lib/algorithm/overlong.js';
import type { RewardInput } from '../lib/tasks/types.js';
import { defineConfig, type TrainConfig, type TrainConfigInput } from '../lib/train/config.js';
import { type Iteration, Trainer, type TrainerOptions } from '../lib/train/trainer.js';
import { FakePolicy } from './support/fake-policy.js';
import { containsThree, iterationsOf, toyTask, toyTokenizer } from './support/toy-task.js';

function config(sections: Partial<TrainConfigInput> = {}): TrainConfig {
  return defineConfig({
    ...sections,
    run: { iterations: 3, seed: 4, ...sections.run },
    rollout: { promptsPerIteration: 4, groupSize: 4, maxNewTokens: 8, ...sections.rollout },
    unlearn: { eta: 0.5, gate: 'always', ...sections.unlearn },
    objective: { klCoef: 0, ...sections.objective },
    optimizer: { lr: 0.05, miniBatchPrompts: 2, ...sections.optimizer },
  });
}

function trainer(sections: Partial<TrainConfigInput>, options: Partial<TrainerOptions> = {}) {
  const policy = new FakePolicy();
  return {
    policy,
    trainer: new Trainer({ policy, tokenizer: toyTokenizer, task: toyTask(), config: config(sections), ...options }),
  };
}

async function iterations(sections: Partial<TrainConfigInput>, options: Partial<TrainerOptions> = {}) {
  const { iterations: all, error } = await iterationsOf(trainer(sections, options).trainer);
  assert.equal(error, null);
  return all;
}

const only = <T>(list: readonly T[]): T => {
  assert.equal(list.length, 1);
  return list[0] as T;
};

/** Samples of one prompt. */
const groupsOf = ({ samples }: Iteration): Iteration['samples'][] => {
  const groups: Iteration['samples'][] = [];
  for (const sample of samples) {
    groups[sample.promptIndex] ??= [];
    groups[sample.promptIndex]?.push(sample);
  }
  return groups;
};

describe('dynamic sampling', () => {
  /** A prompt of an even number teaches nothing. */
  const oddOnly = (inputs: readonly RewardInput[]): number[] =>
    inputs.map((input, i) => (Number(input.problem.prompt) % 2 === 1 ? i % 2 : 1));
  const one = { iterations: 1 };
  const rollout = { dynamicSampling: 9 };

  for (const enabled of [false, true]) {
    it(`fills the batch with prompts whose rewards differ (${enabled ? 'EEPO' : 'GRPO'})`, async () => {
      const result = only(await iterations({ run: one, rollout, unlearn: { enabled } }, { reward: oddOnly }));
      const groups = groupsOf(result);
      assert.deepEqual(
        groups.map(({ length }) => length),
        [4, 4, 4, 4],
      );
      for (const group of groups) {
        assert.ok(Number(group[0]?.problem.prompt) % 2 === 1);
        assert.equal(new Set(group.map(({ problem }) => problem.id)).size, 1);
        assert.deepEqual(
          group.map(({ stage }) => stage),
          enabled ? [1, 1, 2, 2] : [1, 1, 1, 1],
        );
      }
      const { metrics } = result;
      assert.equal(metrics['reward/frac_zero_std'], 0);
      assert.ok((metrics['dynamic_sampling/refills'] as number) >= 1);
      const drawn = metrics['dynamic_sampling/prompts'] as number;
      assert.ok(drawn > 4);
      assert.equal(metrics['dynamic_sampling/useful_frac'], 4 / drawn);
      // of the responses to even prompts all are right, of the others half
      assert.equal(metrics['dynamic_sampling/reward'], (4 * 0.5 + (drawn - 4)) / drawn);
    });
  }

  it('ends after so many refills, and fills up with what teaches nothing', async () => {
    const never = (inputs: readonly RewardInput[]): number[] => inputs.map(() => 0);
    const result = only(await iterations({ run: one, rollout: { dynamicSampling: 2 } }, { reward: never }));
    assert.equal(result.samples.length, 16);
    assert.equal(result.metrics['dynamic_sampling/refills'], 2);
    assert.equal(result.metrics['dynamic_sampling/prompts'], 12);
    assert.equal(result.metrics['dynamic_sampling/useful_frac'], 0);
    assert.equal(result.metrics['reward/frac_zero_std'], 1);
  });

  it('is nothing where every prompt teaches: the same bytes', async () => {
    const alternating = (inputs: readonly RewardInput[]): number[] => inputs.map((_, i) => i % 2);
    const [off, on] = [trainer({}, { reward: alternating }), trainer({ rollout }, { reward: alternating })];
    for (const run of [off, on]) assert.equal((await iterationsOf(run.trainer)).iterations.length, 3);
    assert.equal(await off.policy.hash(), await on.policy.hash());
  });

  it('does not count as iterations of the gate', async () => {
    const unlearn = { gate: 'step' as const, window: 3, alpha: 100 };
    const run = trainer({ run: { iterations: 2 }, rollout, unlearn }, { reward: oddOnly });
    const { iterations: all } = await iterationsOf(run.trainer);
    assert.ok(all.every(({ metrics }) => (metrics['dynamic_sampling/refills'] as number) > 0));
    assert.equal(run.trainer.state().gateHistory.length, 2);
  });

  it('goes on from a state as if it had never stopped', async () => {
    const sections = { run: { iterations: 4 }, rollout };
    const whole = trainer(sections, { reward: containsThree });
    const expected = (await iterationsOf(whole.trainer)).iterations;
    assert.ok(expected.some(({ metrics }) => (metrics['dynamic_sampling/refills'] as number) > 0));

    // The table policy's moments are not in its weights: the same policy goes on under a new trainer.
    const first = trainer(sections, { reward: containsThree });
    const begun: Iteration[] = [];
    for await (const iteration of first.trainer) {
      begun.push(iteration);
      if (begun.length === 2) break;
    }
    const state = JSON.parse(JSON.stringify(first.trainer.state()));
    const second = trainer(sections, { reward: containsThree, policy: first.policy });
    await second.trainer.prepare();
    second.trainer.restore(state);
    const rest = (await iterationsOf(second.trainer)).iterations;
    const steady = (list: Iteration[]) =>
      list.map(({ iteration, samples, metrics }) => ({
        iteration,
        samples: samples.map(({ tokens, reward, advantage, problem }) => ({
          tokens,
          reward,
          advantage,
          id: problem.id,
        })),
        metrics: Object.fromEntries(Object.entries(metrics).filter(([name]) => !/^(timing_s|perf)\//.test(name))),
      }));
    assert.deepEqual(steady([...begun, ...rest]), steady(expected));
    assert.equal(await first.policy.hash(), await whole.policy.hash());
  });
});

describe('the length penalty', () => {
  it('is 0 up to the buffer, falls to -1 at the longest, and stays there', () => {
    assert.deepEqual(
      [0, 60, 80, 90, 100, 120].map((length) => overlongPenalty(length, 100, 20)),
      [0, 0, 0, -0.5, -1, -1],
    );
    assert.deepEqual([overlongPenalty(100, 100, 0), overlongPenalty(50, 100, 100)], [0, -0.5]);
    for (const buffer of [-1, 101, Number.NaN]) assert.throws(() => overlongPenalty(1, 100, buffer), /buffer must be/);
  });

  it('is added to the reward, and decides nothing about which prompts teach', async () => {
    const reward = { overlongBuffer: 0.5, overlongPenalty: 2 };
    const zero = (inputs: readonly RewardInput[]): (number | null)[] => inputs.map((_, i) => (i === 1 ? null : 0));
    const sections = { run: { iterations: 1 }, reward, rollout: { dynamicSampling: 1 }, unlearn: { enabled: false } };
    const { samples, metrics } = only(await iterations(sections, { reward: zero }));
    const penalty = (length: number) => -2 * Math.max(0, (length - 4) / 4);
    const given = samples.filter((sample) => sample.reward !== null);
    assert.equal(given.length, samples.length - 1);
    for (const { tokens, reward: total } of given) assert.equal(total, penalty(tokens.length) + 0);
    assert.ok(given.some((sample) => sample.reward === -2) && given.some((sample) => sample.advantage !== 0));
    const mean = samples.reduce((sum, { tokens }) => sum + penalty(tokens.length), 0) / samples.length;
    assert.ok(Math.abs((metrics['reward/overlong_penalty'] as number) - mean) < 1e-12);
    assert.equal(metrics['dynamic_sampling/useful_frac'], 0);
  });
});

describe('advantages by stage', () => {
  it('have the baseline and deviation of their stage', () => {
    const rewards = [1, 0, 0.2, 0.4, 1, 1, 0, 1];
    const stages = [1, 1, 2, 2, 1, 1, 2, 2];
    const result = groupAdvantages(rewards, 4, { stages });
    assert.deepEqual(result.advantages, groupAdvantages(rewards, 2).advantages);
    assert.equal(result.fracRewardZeroStd, 1 / 4);
    assert.equal(result.allOne, 1 / 4);
    assert.deepEqual(groupAdvantages(rewards, 4, { stages: rewards.map(() => 1) }), groupAdvantages(rewards, 4));
    assert.throws(
      () => groupAdvantages(rewards, 4, { stages: [1] }),
      /stages must have one entry per reward \(8\), got 1/,
    );
  });

  it('are 0 on average in each stage of a prompt, in any order of the stages', () => {
    const sample = fc.record({ reward: fc.integer({ min: 0, max: 3 }), stage: fc.constantFrom(1, 2) });
    fc.assert(
      fc.property(fc.array(sample, { minLength: 2, maxLength: 8 }), (samples) => {
        const { advantages } = groupAdvantages(
          samples.map(({ reward }) => reward),
          samples.length,
          { stages: samples.map(({ stage }) => stage) },
        );
        for (const stage of [1, 2]) {
          const sum = samples.reduce(
            (total, one, i) => total + (one.stage === stage ? (advantages[i] as number) : 0),
            0,
          );
          assert.ok(Math.abs(sum) < 1e-5);
        }
      }),
      { numRuns: 200, seed: 3 },
    );
  });

  it('are what training uses where it is asked to', async () => {
    const byStage = (inputs: readonly RewardInput[]): number[] => inputs.map((_, i) => (i % 4 < 2 ? 1 : i % 2));
    const common = only(await iterations({ run: { iterations: 1 } }, { reward: byStage }));
    const apart = only(
      await iterations({ run: { iterations: 1 }, objective: { advantageGroup: 'stage' } }, { reward: byStage }),
    );
    const mean = ({ metrics }: Iteration) => metrics['rollout/stage1/advantage'] as number;
    assert.ok(mean(common) > 0.4);
    assert.equal(mean(apart), 0);
    assert.throws(
      () => config({ rollout: { groupSize: 2 }, objective: { advantageGroup: 'stage' } }),
      /rollout\.groupSize = 2: with objective\.advantageGroup = "stage".*at least 4/,
    );
  });
});

describe('responses that were cut off', () => {
  it('leave the loss and its normalizer, and a batch of nothing else has no step', async () => {
    const objective = { maskTruncated: true };
    const sections = { run: { iterations: 1 }, objective, rollout: { maxNewTokens: 16 } };
    const { samples, metrics } = only(await iterations(sections));
    const cut = samples.filter(({ finishReason }) => finishReason === 'length');
    assert.ok(cut.length > 0 && cut.length < samples.length);
    assert.equal(metrics['actor/masked_frac'], cut.length / samples.length);

    const all = trainer({ ...sections, rollout: { maxNewTokens: 16 } }, { stopTokens: [] });
    const before = await all.policy.hash();
    const { iterations: list, error } = await iterationsOf(all.trainer);
    assert.equal(error, null);
    assert.equal(only(list).metrics['actor/masked_frac'], 1);
    assert.equal(only(list).metrics['actor/grad_norm'], undefined);
    assert.equal(await all.policy.hash(), before);
  });

  it('are seen by no forward of the update; the rest has the loss of a batch without them', async () => {
    const seen: { lengths: number[]; normalizer: unknown }[] = [];
    const { samples } = only(
      await iterations(
        {
          run: { iterations: 1 },
          objective: { maskTruncated: true },
          rollout: { maxNewTokens: 16 },
          optimizer: { miniBatchPrompts: 4 },
        },
        {
          objective: (batch, normalizer) => {
            const { offsets } = batch;
            const lengths = [...offsets.slice(1)].map((end, k) => end - (offsets[k] as number));
            seen.push({ lengths, normalizer });
            const tokens = batch.logprob.length;
            return {
              loss: 0,
              a: new Float32Array(tokens),
              b: new Float32Array(tokens),
              metrics: new MetricAccumulator(),
            };
          },
        },
      ),
    );
    const left = samples.filter(({ finishReason }) => finishReason === 'stop').map(({ tokens }) => tokens.length);
    assert.deepEqual(
      seen.flatMap(({ lengths }) => lengths),
      left,
    );
    assert.ok(left.length > 0 && left.length < samples.length);
    const tokens = left.reduce((sum, length) => sum + length, 0);
    for (const { normalizer } of seen) {
      assert.deepEqual(normalizer, { tokens, sequences: left.length, maxTokens: 16 });
    }
  });
});

describe('objectives of a configuration', () => {
  it('refuse what does not fit together', () => {
    const refused = (objective: TrainConfigInput['objective'], message: RegExp) =>
      assert.throws(() => config({ objective }), message);
    refused({ dualClip: 0.5 }, /objective\.dualClip = 0\.5: expected a number above 1/);
    refused({ dualClip: 3, surrogate: 'cispo' }, /objective\.dualClip = 3 bounds the clipped surrogate/);
    refused({ klEstimator: 'k5' as never }, /objective\.klEstimator = "k5": expected one of "k1", "k2", "k3", "k3\+"/);
  });

  it('reach the loss: each changes what is learned', async () => {
    const hashOf = async (objective: TrainConfigInput['objective']) => {
      const { policy, trainer: run } = trainer({
        objective: { entropyCoef: 0, ...objective },
        // Several passes: the ratio is then not 1 in stage 1 either.
        optimizer: { epochs: 3, maxGradNorm: 0 },
      });
      assert.equal((await iterationsOf(run)).error, null);
      return policy.hash();
    };
    const kl = { klCoef: 0.5 };
    const variants: TrainConfigInput['objective'][] = [
      {},
      { surrogate: 'cispo' },
      { ratioLevel: 'sequence' },
      { ratio: 'policy' },
      { ratio: 'decoupled' },
      { ratio: 'decoupled', decoupledCap: 0.5 },
      { ratio: 'decoupled', decoupledLevel: 'sequence' },
      { clipLow: 0.05 },
      { clipHigh: 0.5 },
      { clipHighStage2: 2 },
      { dualClip: 1.05 },
      { ...kl },
      { ...kl, klEstimator: 'k1' },
      { ...kl, klEstimator: 'k2' },
      { entropyCoef: 0.1 },
      { aggregation: 'seq-mean-token-mean' },
      { aggregation: 'seq-mean-token-sum' },
      { aggregation: 'seq-mean-token-sum-norm' },
      { advantageStd: false },
      { advantageGroup: 'stage' },
      { stage2Weight: 0.5 },
      { maskTruncated: true },
    ];
    const hashes = await Promise.all(variants.map(hashOf));
    for (const [i, hash] of hashes.entries()) {
      const same = variants[hashes.indexOf(hash)];
      assert.equal(hashes.indexOf(hash), i, `${JSON.stringify(variants[i])} is ${JSON.stringify(same)}`);
    }
    assert.equal(await hashOf({ ...kl, klEstimator: 'k3+' }), hashes[13], 'k3+ has the gradient of k2');
  });
});
