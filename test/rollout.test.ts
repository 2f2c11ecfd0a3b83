import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { EntropyGate } from '../lib/algorithm/gate.js';
import type { GateMode } from '../lib/algorithm/types.js';
import { InvalidArgumentError } from '../lib/errors.js';
import type { ForgetOptions, SequenceBatch } from '../lib/policy.js';
import { type RolloutOptions, type RolloutSample, twoStageRollout, type UnlearnOptions } from '../lib/rollout.js';
import { FakePolicy } from './support/fake-policy.js';
import { options, prompts } from './support/rollout.js';

const unlearn = (gate: GateMode, eta: number, alpha = 0.3): UnlearnOptions => ({
  eta,
  gate: new EntropyGate({ gate, alpha }),
});

const bytes = (samples: RolloutSample[]): unknown =>
  samples.map(({ promptIndex, sampleIndex, tokens, logprob, entropy, finishReason }) => [
    promptIndex,
    sampleIndex,
    tokens,
    Buffer.from(logprob.buffer).toString('hex'),
    Buffer.from(entropy.buffer).toString('hex'),
    finishReason,
  ]);

/** The largest difference between what was recorded and the log-probs under the policy as it is now. */
async function recordedError(policy: FakePolicy, samples: RolloutSample[]): Promise<number> {
  const { logprob } = await policy.forward(
    {
      prompts: samples.map(({ promptIndex }) => (prompts[promptIndex] as { tokens: number[] }).tokens),
      responses: samples.map(({ tokens }) => tokens),
    },
    { keepActivations: false },
  );
  const recorded = samples.flatMap((sample) => [...sample.logprob]);
  return Math.max(...recorded.map((l, t) => Math.abs(l - (logprob[t] as number))));
}

describe('two-stage rollout', () => {
  it('groups the samples by prompt, stage 1 first', async () => {
    const { samples } = await twoStageRollout(new FakePolicy(), prompts, options({ unlearn: unlearn('always', 0.5) }));
    assert.deepEqual(
      samples.map(({ promptIndex, sampleIndex, stage }) => [promptIndex, sampleIndex, stage]),
      [0, 1, 2].flatMap((p) => [0, 1, 2, 3, 4, 5].map((s) => [p, s, s < 3 ? 1 : 2])),
    );
  });

  it('with eta = 0 is byte for byte GRPO', async () => {
    const policy = new FakePolicy();
    const grpo = await twoStageRollout(policy, prompts, options());
    const eepo = await twoStageRollout(policy, prompts, options({ unlearn: unlearn('always', 0) }));
    assert.equal(eepo.forget?.paramChangedFrac, 0);
    assert.deepEqual(bytes(eepo.samples), bytes(grpo.samples));
    const other = await twoStageRollout(policy, prompts, options({ unlearn: unlearn('always', 2) }));
    assert.notDeepEqual(bytes(other.samples), bytes(grpo.samples), 'a real eta must change stage 2');
  });

  it('gives a prompt the same samples whatever it is batched with', async () => {
    const policy = new FakePolicy();
    const all = await twoStageRollout(policy, prompts, options());
    const alone = await twoStageRollout(policy, prompts.slice(1, 2), options());
    const own = all.samples.filter(({ promptIndex }) => promptIndex === 1);
    assert.deepEqual(
      alone.samples.map(({ tokens }) => tokens),
      own.map(({ tokens }) => tokens),
    );
  });

  it('forgets stage 1: its log-probs fall, and the policy is not written', async () => {
    const policy = new FakePolicy();
    const before = await policy.hash();
    const { samples, forget } = await twoStageRollout(policy, prompts, options({ unlearn: unlearn('always', 1) }));
    assert.equal(await policy.hash(), before);
    assert.ok((forget?.stage1LogpDelta ?? 0) < 0, `stage-1 log-probs rose by ${forget?.stage1LogpDelta}`);
    assert.ok((forget?.paramChangedFrac ?? 0) > 0);
    assert.equal(forget?.tokens, samples.filter(({ stage }) => stage === 1).flatMap(({ tokens }) => tokens).length);
  });

  it('records stage 2 under the weights that drew it', async () => {
    const policy = new FakePolicy();
    const { samples } = await twoStageRollout(policy, prompts, options({ unlearn: unlearn('always', 3) }));
    const error = (stage: 1 | 2) =>
      recordedError(
        policy,
        samples.filter((sample) => sample.stage === stage),
      );
    assert.ok((await error(1)) < 1e-6);
    assert.ok((await error(2)) > 1e-2, 'stage 2 was recorded under theta, not theta prime');
  });

  it('does not accumulate over iterations', async () => {
    const policy = new FakePolicy();
    const once = await twoStageRollout(policy, prompts, options({ unlearn: unlearn('always', 1) }));
    const twice = await twoStageRollout(policy, prompts, options({ unlearn: unlearn('always', 1) }));
    assert.deepEqual(bytes(twice.samples), bytes(once.samples));
  });

  it('leaves theta prime behind when stage 2 fails', async () => {
    class Failing extends FakePolicy {
      override async generate(...args: Parameters<FakePolicy['generate']>) {
        if (args[1].weights === 'rollout') throw new Error('stage 2 broke');
        return super.generate(...args);
      }
    }
    const policy = new Failing();
    await assert.rejects(twoStageRollout(policy, prompts, options({ unlearn: unlearn('always', 1) })), /stage 2 broke/);
    assert.equal(policy.calls.at(-1)?.method, 'syncRollout');
  });

  it('hands forget the stage-1 samples and their recorded entropies', async () => {
    const seen: { batch: SequenceBatch; options: ForgetOptions }[] = [];
    class Watched extends FakePolicy {
      override async forget(batch: SequenceBatch, given: ForgetOptions) {
        seen.push({ batch, options: given });
        return super.forget(batch, given);
      }
    }
    const rollout = await twoStageRollout(
      new Watched(),
      prompts,
      options({ temperature: 1.5, unlearn: { ...unlearn('token', 0.1), epsHigh: 1e-4, normalize: 'gradNorm' } }),
    );
    const stage1 = rollout.samples.filter(({ stage }) => stage === 1);
    const { batch, options: given } = seen[0] as (typeof seen)[number];
    assert.deepEqual(
      batch.responses,
      stage1.map(({ tokens }) => tokens),
    );
    assert.deepEqual(
      batch.prompts,
      stage1.map(({ promptIndex }) => prompts[promptIndex]?.tokens),
    );
    assert.deepEqual(
      [...given.entropy],
      stage1.flatMap(({ entropy }) => [...entropy]),
    );
    assert.deepEqual(
      [given.eta, given.alpha, given.window, given.epsHigh, given.normalize, given.temperature],
      [0.1, 0.3, 3, 1e-4, 'gradNorm', 1.5],
    );
  });

  for (const [gate, alpha, forgets] of [
    ['never', 100, false],
    ['step', 1e-3, false],
    ['step', 100, true],
    ['token+step', 1e-3, false],
    ['token', 1e-3, true],
    ['always', 1e-3, true],
  ] as const) {
    it(`gate "${gate}" with alpha ${alpha} ${forgets ? 'reaches' : 'skips'} the unlearning`, async () => {
      const policy = new FakePolicy();
      const rollout = await twoStageRollout(policy, prompts, options({ unlearn: unlearn(gate, 1, alpha) }));
      assert.equal(rollout.forget !== null, forgets);
      assert.equal(policy.calls.filter(({ method }) => method === 'forget').length, forgets ? 1 : 0);
      if (forgets) return;
      const grpo = await twoStageRollout(new FakePolicy(), prompts, options());
      assert.deepEqual(bytes(rollout.samples), bytes(grpo.samples));
    });
  }

  it('is aborted by its signal', async () => {
    const signal = AbortSignal.abort();
    await assert.rejects(twoStageRollout(new FakePolicy(), prompts, options({ signal })));
  });

  describe('refuses, before anything is sampled,', () => {
    const cases: [string, Partial<RolloutOptions>, typeof prompts, RegExp][] = [
      ['no prompts', {}, [], /prompts is empty/],
      ['an odd group for EEPO', { groupSize: 5, unlearn: unlearn('token', 1) }, prompts, /groupSize is 5.*even.*6\?/s],
      ['a group of one', { groupSize: 1 }, prompts, /groupSize is 1.*at least 2/s],
      ['an empty prompt', {}, [{ id: 0, tokens: [] }], /prompts\[0\] has no tokens/],
      ['too long a prompt', { maxNewTokens: 63 }, prompts, /prompts\[0\] has 2 tokens.*context of 64.*at most 62/s],
      ['no new tokens', { maxNewTokens: 0 }, prompts, /maxNewTokens is 0/],
      ['greedy sampling', { temperature: 0 }, prompts, /temperature is 0/],
    ];
    for (const [what, more, given, message] of cases) {
      it(what, async () => {
        const policy = new FakePolicy();
        await assert.rejects(twoStageRollout(policy, given, options(more)), (error: Error) => {
          assert.ok(error instanceof InvalidArgumentError);
          assert.match(error.message, message);
          return true;
        });
        assert.deepEqual(policy.calls, []);
      });
    }
  });

  it('accepts an odd group for GRPO', async () => {
    const { samples } = await twoStageRollout(new FakePolicy(), prompts, options({ groupSize: 3 }));
    assert.equal(samples.length, 9);
    assert.ok(samples.every(({ stage }) => stage === 1));
  });
});
