/** What of stage 1 is forgotten, for whom, and what is kept from one iteration to the next. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { samplesToForget } from '../lib/algorithm/forgettable.js';
import { EntropyGate } from '../lib/algorithm/gate.js';
import type { GateMode } from '../lib/algorithm/types.js';
import { InvalidArgumentError, NonFiniteError, UnsupportedError } from '../lib/errors.js';
import type { ForgetOptions, GenerateOptions, SequenceBatch } from '../lib/policy.js';
import { type Rollout, type RolloutSample, twoStageRollout, type UnlearnOptions } from '../lib/rollout.js';
import { defineConfig } from '../lib/train/config.js';
import { FakePolicy } from './support/fake-policy.js';
import { options, prompts } from './support/rollout.js';

const unlearn = (more: Partial<UnlearnOptions> = {}, gate: GateMode = 'always'): UnlearnOptions => ({
  eta: 2,
  gate: new EntropyGate({ gate, alpha: 0.3 }),
  ...more,
});

/** Keeps what `forget` was asked for. */
class Watched extends FakePolicy {
  readonly asked: { batch: SequenceBatch; options: ForgetOptions }[] = [];
  override async forget(batch: SequenceBatch, given: ForgetOptions) {
    this.asked.push({ batch, options: given });
    return super.forget(batch, given);
  }
}

const drawnOf = (samples: readonly RolloutSample[]) =>
  samples.map(({ tokens, logprob, entropy, stage, sampleIndex }) => [stage, sampleIndex, tokens, logprob, entropy]);
const of = (samples: readonly RolloutSample[], prompt: number) =>
  samples.filter(({ promptIndex }) => promptIndex === prompt);
/** Odd lengths are correct. */
const judge = async (samples: readonly RolloutSample[]) => samples.map(({ tokens }) => (tokens.length % 2 ? 1 : 0));

describe('samples to forget', () => {
  const ids = [0, 0, 1, 1, 2, 2, 3, 3];
  const rewards = [1, 0.5, 1, 0, -1, 0, 1, null];
  for (const [which, expected] of [
    ['all', [0, 1, 2, 3, 4, 5, 6, 7]],
    ['correct', [0, 1, 2, 6]],
    ['wrong', [3, 4, 5]],
    ['solved', [0, 1]],
  ] as const) {
    it(which, () => {
      const chosen = samplesToForget(which, ids, rewards);
      assert.deepEqual(
        ids.flatMap((_, i) => (chosen[i] ? [i] : [])),
        expected,
      );
    });
  }

  it('refuses what is none', () => {
    assert.throws(() => samplesToForget('best' as never, ids, rewards), /samples must be .*"solved".* got "best"/);
    assert.throws(() => samplesToForget('wrong', ids, []), /rewards has 0 entries for 8 samples/);
    assert.equal(samplesToForget('all', ids, []).length, 8);
  });

  it('are what the step is made of', async () => {
    for (const which of ['all', 'correct', 'wrong', 'solved'] as const) {
      const policy = new Watched();
      let judged = 0;
      const asking = async (samples: readonly RolloutSample[]) => {
        judged += samples.length;
        return judge(samples);
      };
      const rollout = await twoStageRollout(
        policy,
        prompts,
        options({ unlearn: unlearn({ samples: which }), judge: asking }),
      );
      const stage1 = rollout.samples.filter(({ stage }) => stage === 1);
      const chosen = samplesToForget(
        which,
        stage1.map(({ promptIndex }) => promptIndex),
        await judge(stage1),
      );
      assert.equal(judged, which === 'all' ? 0 : stage1.length);
      const forgotten = stage1.filter((_, i) => chosen[i]);
      if (which === 'correct' || which === 'wrong') assert.ok(forgotten.length > 0 && forgotten.length < stage1.length);
      assert.equal(rollout.unlearned?.samples, forgotten.length / stage1.length);
      if (forgotten.length === 0) {
        assert.deepEqual([policy.asked.length, rollout.forget, rollout.unlearned?.moved], [0, null, 0]);
        continue;
      }
      assert.deepEqual(
        policy.asked[0]?.batch.responses,
        forgotten.map(({ tokens }) => tokens),
      );
      assert.deepEqual(
        [...(policy.asked[0]?.options.entropy ?? [])],
        forgotten.flatMap(({ entropy }) => [...entropy]),
      );
      assert.equal(rollout.unlearned?.moved, 1);
    }
  });

  it('without any, stage 2 is drawn from theta', async () => {
    const nobody = options({ unlearn: unlearn({ samples: 'correct' }), judge: async (all) => all.map(() => null) });
    const rollout = await twoStageRollout(new FakePolicy(), prompts, nobody);
    const grpo = await twoStageRollout(new FakePolicy(), prompts, options());
    assert.deepEqual(
      rollout.samples.map(({ tokens }) => tokens),
      grpo.samples.map(({ tokens }) => tokens),
    );
    assert.deepEqual(rollout.unlearned, { moved: 0, undone: 0, samples: 0 });
  });

  it('are not judged behind a closed gate', async () => {
    const closed = options({ unlearn: unlearn({ samples: 'wrong' }, 'never'), judge: () => assert.fail('asked') });
    assert.equal((await twoStageRollout(new FakePolicy(), prompts, closed)).forget, null);
  });
});

describe('one theta prime per prompt', () => {
  it('is for one prompt what it is for a batch', async () => {
    for (const one of prompts) {
      const batch = await twoStageRollout(new FakePolicy(), [one], options({ unlearn: unlearn() }));
      const own = await twoStageRollout(new FakePolicy(), [one], options({ unlearn: unlearn({ scope: 'prompt' }) }));
      assert.deepEqual({ ...own, timings: 0 }, { ...batch, timings: 0 });
    }
  });

  it('is for each of several what it is for it alone, and is dropped before the next', async () => {
    const policy = new FakePolicy();
    const how = options({ unlearn: unlearn({ scope: 'prompt' }) });
    const together = await twoStageRollout(policy, prompts, how);
    assert.deepEqual(
      policy.calls.map(({ method, weights }) => weights ?? method),
      ['policy', ...prompts.flatMap(() => ['forget', 'rollout', 'syncRollout'])],
    );
    const reports: Rollout['forget'][] = [];
    for (const [p, one] of prompts.entries()) {
      const alone = await twoStageRollout(new FakePolicy(), [one], options({ unlearn: unlearn() }));
      assert.deepEqual(drawnOf(of(together.samples, p)), drawnOf(alone.samples));
      reports.push(alone.forget);
    }
    const batch = await twoStageRollout(new FakePolicy(), prompts, options({ unlearn: unlearn() }));
    assert.notDeepEqual(drawnOf(together.samples), drawnOf(batch.samples), 'one step for all is another step');
    const { forget } = together;
    const sum = (key: 'tokens' | 'openTokens' | 'activeTokens') => reports.reduce((s, r) => s + (r?.[key] ?? 0), 0);
    const mean = (key: 'loss' | 'gradNorm' | 'relativeStep' | 'stage1LogpDelta') =>
      reports.reduce((s, r) => s + (r?.[key] ?? 0), 0) / reports.length;
    for (const key of ['tokens', 'openTokens', 'activeTokens'] as const) assert.equal(forget?.[key], sum(key));
    for (const key of ['loss', 'gradNorm', 'relativeStep', 'stage1LogpDelta'] as const) {
      assert.ok(Math.abs((forget?.[key] ?? 0) - mean(key)) < 1e-12 * Math.abs(mean(key)), key);
    }
  });

  it('undoes the steps of some prompts and keeps those of the others', async () => {
    class Diverging extends FakePolicy {
      override async generate(given: readonly (readonly number[])[], how: GenerateOptions) {
        if (how.weights === 'rollout' && given[0]?.[0] === 2) throw new NonFiniteError('the logits are NaN');
        return super.generate(given, how);
      }
    }
    const how = options({ unlearn: unlearn({ scope: 'prompt' }) });
    const { samples, undone, unlearned } = await twoStageRollout(new Diverging(), prompts, how);
    assert.match(undone ?? '', /under theta' the logits are NaN/);
    assert.deepEqual(unlearned, { moved: 2 / 3, undone: 1 / 3, samples: 1 });
    const plain = await twoStageRollout(new FakePolicy(), prompts, options());
    const all = await twoStageRollout(new FakePolicy(), prompts, how);
    const tokensOf = (list: readonly RolloutSample[], p: number) => of(list, p).map(({ tokens }) => tokens);
    assert.deepEqual(tokensOf(samples, 1), tokensOf(plain.samples, 1), 'stage 2 of the one that diverged is theta’s');
    for (const p of [0, 2]) assert.deepEqual(drawnOf(of(samples, p)), drawnOf(of(all.samples, p)));
  });

  it('leaves out the prompts of which nothing is forgotten', async () => {
    const policy = new Watched();
    const second = async (samples: readonly RolloutSample[]) => samples.map(({ promptIndex }) => promptIndex - 1);
    const how = options({ unlearn: unlearn({ scope: 'prompt', samples: 'correct' }), judge: second });
    const { unlearned } = await twoStageRollout(policy, prompts, how);
    assert.equal(policy.asked.length, 1);
    assert.deepEqual(policy.asked[0]?.batch.prompts[0], prompts[2]?.tokens);
    assert.deepEqual(unlearned, { moved: 1 / 3, undone: 0, samples: 1 / 3 });
  });
});

describe('memory of theta prime', () => {
  const remembering = (more: Partial<UnlearnOptions> = {}, gate: GateMode = 'always') =>
    unlearn({ eta: 0.5, memory: 0.5, ...more }, gate);

  it('makes iterations differ, and is dropped by one without', async () => {
    const run = async (memory: number) => {
      const policy = new FakePolicy();
      const all = [];
      for (const iteration of [1, 2, 3]) {
        const how = options({ iteration, unlearn: remembering({ memory: iteration === 2 ? memory : 0.5 }) });
        all.push(drawnOf((await twoStageRollout(policy, prompts, how)).samples));
      }
      return all;
    };
    const [kept, dropped] = [await run(0.5), await run(0)];
    assert.deepEqual(kept[0], dropped[0]);
    assert.notDeepEqual(kept[1], dropped[1]);
    assert.notDeepEqual(kept[2], dropped[2]);
  });

  it('goes on behind a closed gate', async () => {
    const policy = new Watched();
    await twoStageRollout(policy, prompts, options({ iteration: 1, unlearn: remembering() }));
    const closed = await twoStageRollout(policy, prompts, options({ iteration: 2, unlearn: remembering({}, 'never') }));
    assert.equal(policy.asked[1]?.options.alpha, 0);
    assert.deepEqual(closed.unlearned, { moved: 1, undone: 0, samples: 0 });
    assert.equal(closed.forget?.openTokens, 0);
    const grpo = await twoStageRollout(new FakePolicy(), prompts, options({ iteration: 2 }));
    assert.notDeepEqual(drawnOf(closed.samples), drawnOf(grpo.samples));
  });

  it('is dropped with a step that diverges', async () => {
    const policy = new FakePolicy();
    const how = options({ unlearn: remembering({ eta: 1e6 }) });
    const { undone, unlearned } = await twoStageRollout(policy, prompts, how);
    assert.match(undone ?? '', /unlearn\.max/);
    assert.deepEqual(unlearned, { moved: 0, undone: 1, samples: 1 });
    assert.equal(policy.calls.filter(({ method }) => method === 'dropMemory').length, 1);
    const next = options({ iteration: 3, unlearn: remembering() });
    assert.deepEqual(
      drawnOf((await twoStageRollout(policy, prompts, next)).samples),
      drawnOf((await twoStageRollout(new FakePolicy(), prompts, next)).samples),
    );
  });
});

it('a configuration refuses memory per prompt', () => {
  assert.throws(() => defineConfig({ unlearn: { memory: 0.5, scope: 'prompt' } }), /unlearn\.memory keeps one theta'/);
  assert.equal(defineConfig({ unlearn: { memory: 0.5 } }).unlearn.scope, 'batch');
});

describe('a rollout refuses, before anything is sampled,', () => {
  const none = (policy: FakePolicy) => Object.assign(policy, { dropMemory: undefined });
  const cases: [string, UnlearnOptions, FakePolicy, RegExp, typeof InvalidArgumentError | typeof UnsupportedError][] = [
    ['samples without rewards', unlearn({ samples: 'wrong' }), new FakePolicy(), /pass `judge`/, InvalidArgumentError],
    [
      'an unknown scope',
      unlearn({ scope: 'group' as never }),
      new FakePolicy(),
      /unlearn\.scope/,
      InvalidArgumentError,
    ],
    [
      'unknown samples',
      unlearn({ samples: 'bad' as never }),
      new FakePolicy(),
      /unlearn\.samples/,
      InvalidArgumentError,
    ],
    [
      'memory per prompt',
      unlearn({ memory: 1, scope: 'prompt' }),
      new FakePolicy(),
      /memory keeps one theta'/,
      InvalidArgumentError,
    ],
    [
      'memory of a policy that has none',
      unlearn({ memory: 1 }),
      none(new FakePolicy()),
      /remembers nothing/,
      UnsupportedError,
    ],
  ];
  for (const [what, how, policy, message, kind] of cases) {
    it(what, async () => {
      await assert.rejects(twoStageRollout(policy, prompts, options({ unlearn: how })), (error: Error) => {
        assert.ok(error instanceof kind);
        assert.match(error.message, message);
        return true;
      });
      assert.deepEqual(policy.calls, []);
    });
  }
});
