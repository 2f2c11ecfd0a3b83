/** Rewards that throw, hang or give what is no number: a named error, or a response that is left out; never a silent 0. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { groupAdvantages } from '../lib/algorithm/advantages.js';
import { RewardError } from '../lib/errors.js';
import { loadRewardModule } from '../lib/tasks/reward-module.js';
import { computeRewards } from '../lib/tasks/rewards.js';
import type { NamedReward, RewardFunction, RewardInput } from '../lib/tasks/types.js';
import { defineConfig, type TrainConfigInput } from '../lib/train/config.js';
import { Trainer } from '../lib/train/trainer.js';
import { FakePolicy } from './support/fake-policy.js';
import { temporaryFolder, writeFiles } from './support/files.js';
import { iterationsOf, toyTask, toyTokenizer } from './support/toy-task.js';

const inputs = (...responses: string[]): RewardInput[] =>
  responses.map((response, i) => ({
    problem: { id: `p:${i}`, prompt: 'x', answer: '4' },
    response,
    tokens: [1],
    finishReason: 'stop',
  }));
const never = new Promise<number>(() => {});
const task = { task: 'toy' };
const skip = { ...task, onError: 'skip' } as const;
const named = (fn: NamedReward['fn'], more: Partial<NamedReward> = {}): NamedReward[] => [{ name: 'x', fn, ...more }];
const length = ({ response }: RewardInput): number => response.length;
const fails = (what: (input: RewardInput) => never | unknown): NamedReward['fn'] => {
  return (batch) => batch.map((input) => (input.response === 'bad' ? (what(input) as number) : length(input)));
};
const boom = (): never => {
  throw new TypeError('boom');
};

describe('a reward that fails for one response', { timeout: 20_000 }, () => {
  const cases: [string, NamedReward['fn'], 'errors' | 'nonfinite', RegExp][] = [
    ['throws for the whole batch', fails(boom), 'errors', /^reward "x" of task "toy" threw: boom .*problem p:1/],
    ['rejects one entry', fails(() => Promise.reject(new TypeError('boom'))), 'errors', /threw: boom/],
    ['rejects the batch', async (batch) => fails(boom)(batch) as number[], 'errors', /threw: boom/],
    ['gives NaN', fails(() => Number.NaN), 'nonfinite', /returned NaN for a response to problem p:1/],
    ['gives a promise of NaN', fails(() => Promise.resolve(Number.NaN)), 'nonfinite', /returned NaN/],
    ['gives Infinity', fails(() => Number.NEGATIVE_INFINITY), 'nonfinite', /returned -Infinity/],
    ['gives text', fails(() => '1'), 'errors', /a value of type string/],
    ['gives a big integer', fails(() => 1n), 'errors', /a value of type bigint/],
    ['gives undefined', fails(() => undefined), 'errors', /returned undefined/],
    ['throws no error', fails(() => Promise.reject('no reason')), 'errors', /threw: no reason/],
    [
      'leaves one out',
      (batch) => batch.map(length).filter((n) => n !== 3),
      'errors',
      /returned 0 values for 1 responses/,
    ],
  ];
  for (const [what, fn, kind, message] of cases) {
    it(`leaves that one out, or ends the run: ${what}`, async () => {
      const batch = inputs('a', 'bad', 'bbbb');
      const judged = await computeRewards(named(fn), batch, skip);
      assert.deepEqual(judged.rewards, [1, null, 4]);
      assert.equal(judged.metrics['reward/x/errors'], kind === 'errors' ? 1 : 0);
      assert.equal(judged.metrics['reward/x/nonfinite'], kind === 'nonfinite' ? 1 : 0);
      assert.equal(judged.metrics['reward/x/mean'], 2.5);
      assert.equal(judged.failures.length, 1);
      assert.equal(judged.failures[0]?.asked, 3);
      assert.match(judged.failures[0]?.first ?? '', message);
      assert.equal(judged.failedShare, 1 / 3);
      await assert.rejects(computeRewards(named(fn), batch, task), (error: RewardError) => {
        assert.ok(error instanceof RewardError);
        assert.match(error.message, /^reward "x" of task "toy" /);
        assert.equal(error.reward, 'x');
        return true;
      });
    });
  }

  it('says which response it was, and keeps what was thrown', async () => {
    const entry = fails(() => Promise.reject(new TypeError('boom')));
    await assert.rejects(computeRewards(named(entry), inputs('a', 'bad'), task), (error: RewardError) => {
      assert.deepEqual([error.reward, error.sample, error.problem], ['x', 1, 'p:1']);
      assert.ok(error.cause instanceof TypeError);
      return true;
    });
    await assert.rejects(computeRewards(named(fails(boom)), inputs('bad'), task), (error: RewardError) => {
      assert.ok(error.cause instanceof TypeError);
      return true;
    });
  });

  it('does not wait for other entries where it ends the run', async () => {
    const fn: NamedReward['fn'] = () => [never, Promise.reject(new Error('boom'))];
    await assert.rejects(computeRewards(named(fn), inputs('a', 'b'), task), /threw: boom/);
  });

  it('leaves no rejected promise behind', async () => {
    const seen: unknown[] = [];
    const listener = (reason: unknown) => seen.push(reason);
    process.on('unhandledRejection', listener);
    try {
      const many: NamedReward['fn'] = () => [1, 2, 3].map(() => Promise.reject(new Error('lost')));
      const late: NamedReward['fn'] = async () => {
        await new Promise((resolve) => setTimeout(resolve, 30));
        return [Promise.reject(new Error('late'))] as never;
      };
      assert.deepEqual((await computeRewards(named(many), inputs('a'), skip)).rewards, [null]);
      assert.deepEqual((await computeRewards(named(late, { timeoutMs: 5 }), inputs('a'), skip)).rewards, [null]);
      await new Promise((resolve) => setTimeout(resolve, 60));
      assert.deepEqual(seen, []);
    } finally {
      process.off('unhandledRejection', listener);
    }
  });

  it('is not asked for ever where it always fails', async () => {
    let calls = 0;
    const fn: NamedReward['fn'] = () => {
      calls += 1;
      throw new Error('broken');
    };
    const { rewards, metrics, failedShare } = await computeRewards(named(fn), inputs(...Array(100).fill('a')), skip);
    assert.deepEqual(rewards, Array(100).fill(null));
    assert.equal(metrics['reward/x/errors'], 100);
    assert.equal(failedShare, 1);
    assert.equal(calls, 17);
  });

  it('leaves its term out of the sum, the response where it is required', async () => {
    const list: NamedReward[] = [...named(fails(boom)), { name: 'one', fn: (batch) => batch.map(() => 1) }];
    assert.deepEqual((await computeRewards(list, inputs('a', 'bad'), skip)).rewards, [2, 1]);
    const [first, one] = list as [NamedReward, NamedReward];
    assert.deepEqual((await computeRewards([{ ...first, required: true }, one], inputs('a', 'bad'), skip)).rewards, [
      2,
      null,
    ]);
  });

  it('is caught where only the weighted sum overflows', async () => {
    const huge = named((batch) => batch.map(() => 1e308), { weight: 1e3 });
    await assert.rejects(
      computeRewards(huge, inputs('a'), task),
      /the weighted sum of the rewards is Infinity for a response to problem p:0/,
    );
    const { rewards, failures, failedShare } = await computeRewards(huge, inputs('a'), skip);
    assert.deepEqual(rewards, [null]);
    assert.equal(failures[0]?.nonfinite, 1);
    assert.equal(failedShare, 1);
  });

  it('has a time limit of the run where it has none of its own; onTimeout "throw" ends the run even so', async () => {
    const fn: NamedReward['fn'] = (batch) => batch.map((input) => (input.response === 'bad' ? never : 1));
    const limited = await computeRewards(named(fn), inputs('a', 'bad'), { ...task, timeoutMs: 20 });
    assert.deepEqual(limited.rewards, [1, null]);
    assert.equal(limited.metrics['reward/x/timeouts'], 1);
    assert.equal(limited.failedShare, 0.5);
    assert.equal(limited.failures[0]?.timeouts, 1);
    await assert.rejects(
      computeRewards(named(fn, { onTimeout: 'throw' }), inputs('a', 'bad'), { ...skip, timeoutMs: 20 }),
      /took longer than 20 ms for a response to problem p:1/,
    );
  });

  it('is left out in a module too, also where its thread ends', async (t) => {
    const folder = writeFiles(temporaryFolder(t), {
      'throws.mjs':
        'export default (b) => b.map(({ response }) => { if (response === "bad") throw new Error("boom"); return 1; });',
      'exits.mjs':
        'export default (b) => b.map(({ response }) => { if (response === "bad") process.exit(3); return 1; });',
      'nan.mjs': 'export default (b) => b.map(({ response }) => (response === "bad" ? NaN : 1));',
      'hangs.mjs': 'export default (b) => b.map(({ response }) => { while (response === "bad"); return 1; });',
      'late.mjs': 'export default (b) => b.map(({ response }) => (response === "bad" ? new Promise(() => {}) : 1));',
    });
    for (const name of ['throws', 'exits', 'nan', 'hangs', 'late']) {
      const list = await loadRewardModule(join(folder, `${name}.mjs`), { timeoutMs: 300 });
      const { rewards, failures, failedShare } = await computeRewards(list, inputs('a', 'bad', 'b'), skip);
      assert.deepEqual(rewards, [1, null, 1], name);
      assert.equal(failures.length, 1, name);
      assert.equal(failedShare, 1 / 3, name);
    }
  });
});

describe('advantages of groups with responses left out', () => {
  it('are finite: none, one or all of a group left', () => {
    const rewards = [1, null, 0, 2, null, null, null, null, null, 5, null, null, 1, 1, 1, null];
    const { advantages, fracRewardZeroStd } = groupAdvantages(rewards, 4);
    assert.ok(advantages.every(Number.isFinite));
    assert.ok(advantages.slice(4).every((a) => a === 0));
    assert.equal(advantages[1], 0);
    assert.ok(Math.abs((advantages[0] as number) + (advantages[2] as number) + (advantages[3] as number)) < 1e-6);
    assert.equal(fracRewardZeroStd, 0.75);
  });
});

describe('a run whose rewards fail', () => {
  const config = (reward: TrainConfigInput['reward'] = {}, iterations = 6) =>
    defineConfig({
      run: { iterations },
      rollout: { promptsPerIteration: 2, groupSize: 4, maxNewTokens: 6 },
      unlearn: { eta: 0.5, gate: 'always' },
      objective: { klCoef: 0 },
      optimizer: { lr: 0.05 },
      reward,
    });
  async function run(reward: RewardFunction, options: TrainConfigInput['reward'] = {}) {
    const policy = new FakePolicy();
    const trainer = new Trainer({
      policy,
      tokenizer: toyTokenizer,
      task: toyTask({ reward }),
      config: config(options),
    });
    return { trainer, ...(await iterationsOf(trainer)), policy };
  }
  const some =
    (share: number): RewardFunction =>
    (inputs) =>
      inputs.map((_, i) => ((i % 8) / 8 < share ? Number.NaN : i % 2));

  it('goes on where some are skipped, and says so every time', async () => {
    const { iterations, error } = await run(some(0.25), { onError: 'skip' });
    assert.equal(error, null);
    assert.equal(iterations.length, 6);
    for (const { metrics, incidents, samples } of iterations) {
      assert.equal(metrics['reward/task/nonfinite'], 2);
      assert.equal(metrics['reward/frac_left_out'], 0.25);
      assert.equal(incidents[0]?.kind, 'reward');
      assert.match(
        incidents[0]?.message ?? '',
        /failed for 2 of 8 responses \(0 errors, 2 not finite, 0 cut off\); the first: .*returned NaN/,
      );
      assert.ok(samples.every(({ advantage }) => Number.isFinite(advantage)));
    }
  });

  it('ends where most of them fail again and again, after the iteration is handed over', async () => {
    const { iterations, error, trainer } = await run(some(0.75), { onError: 'skip' });
    assert.ok(error instanceof RewardError);
    assert.match(
      error.message,
      /^in 3 iterations in a row more than 0\.5 of the responses .*reward\.maxFailedShare.*The last one: iteration 3/,
    );
    assert.equal(iterations.length, 3);
    assert.equal(trainer.streaks.failedRewards, 3);
    assert.equal((await run(some(0.75), { onError: 'skip', maxFailedIterations: 0 })).error, null);
    assert.equal((await run(some(0.75), { onError: 'skip', maxFailedShare: 0.8 })).error, null);
  });

  it('stays finite where all are left out', async () => {
    const { iterations, error, policy } = await run(some(1), { onError: 'skip', maxFailedIterations: 0 });
    assert.equal(error, null);
    assert.ok(
      iterations.every(({ metrics }) => metrics['actor/grad_norm'] !== undefined && !('reward/mean' in metrics)),
    );
    assert.ok(iterations.every(({ samples }) => samples.every(({ advantage }) => advantage === 0)));
    assert.ok(policy.theta.every(Number.isFinite));
  });

  it('ends at once by default', async () => {
    const { iterations, error } = await run((inputs) =>
      inputs.map(({ response }) => (response === '' ? 0 : Number.NaN)),
    );
    assert.equal(iterations.length, 0);
    assert.match(error?.message ?? '', /^the reward of task "toy" returned NaN for a response to problem toy-\d/);
  });
});
