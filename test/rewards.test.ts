/** Several rewards for one response: sums, time limits, errors, metrics, modules. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { AbortedError, ConfigError, InvalidArgumentError, RewardError } from '../lib/errors.js';
import { callReward } from '../lib/tasks/call-reward.js';
import type { NamedReward, Problem, RewardInput } from '../lib/tasks/index.js';
import { loadRewardModule } from '../lib/tasks/reward-module.js';
import { checkRewards, combinedReward, computeRewards } from '../lib/tasks/rewards.js';
import { defineConfig } from '../lib/train/config.js';
import { type Iteration, Trainer } from '../lib/train/trainer.js';
import { FakePolicy } from './support/fake-policy.js';
import { temporaryFolder, writeFiles } from './support/files.js';
import { toyTask, toyTokenizer } from './support/toy-task.js';

const problem: Problem = { id: 'p:1', prompt: 'x', answer: '4' };
const inputs = (...responses: string[]): RewardInput[] =>
  responses.map((response) => ({ problem, response, tokens: [1], finishReason: 'stop' }));
const task = { task: 'toy' };
const never = new Promise<number>(() => {});
const length: NamedReward = { name: 'length', fn: (batch) => batch.map(({ response }) => response.length) };

describe('the sum of rewards', () => {
  it('weighs each; a null leaves its term out, and the response where nothing is left', async () => {
    const odd: NamedReward = {
      name: 'odd',
      fn: (batch) => batch.map(({ response }) => (response.length % 2 === 1 ? 1 : null)),
      weight: -0.5,
    };
    const { rewards, parts } = await computeRewards([{ ...length, weight: 2 }, odd], inputs('a', 'bb', 'ccc'), task);
    assert.deepEqual(rewards, [1.5, 4, 5.5]);
    assert.deepEqual(parts, [
      { name: 'length', rewards: [1, 2, 3] },
      { name: 'odd', rewards: [1, null, 1] },
    ]);
    assert.deepEqual((await computeRewards([odd], inputs('a', 'bb'), task)).rewards, [-0.5, null]);
    assert.deepEqual((await computeRewards([length, { ...odd, required: true }], inputs('a', 'bb'), task)).rewards, [
      0.5,
      null,
    ]);
  });

  it('has the metrics of each part', async () => {
    const counted: NamedReward = {
      name: 'counted',
      fn: (batch, context) => {
        context?.report({ seen: batch.length });
        context?.report({ seen: 1, other: 5 });
        return batch.map(({ response }, i) => (i === 0 ? null : response.length));
      },
    };
    const { metrics } = await computeRewards([length, counted], inputs('a', 'bbb'), task);
    assert.deepEqual(metrics, {
      'reward/length/mean': 2,
      'reward/length/std': 1,
      'reward/length/null_frac': 0,
      'reward/counted/mean': 3,
      'reward/counted/std': 0,
      'reward/counted/null_frac': 0.5,
      'reward/counted/seen': 3,
      'reward/counted/other': 5,
    });
    const unnamed = await computeRewards([{ ...counted, name: null, timeoutMs: 1000 }], inputs('a', 'b'), task);
    assert.deepEqual(unnamed.metrics, { 'reward/task/seen': 3, 'reward/task/other': 5, 'reward/task/timeouts': 0 });
    assert.deepEqual(unnamed.parts, []);
  });

  it('asks nobody about a response that was cut off, if so set', async () => {
    const asked: string[] = [];
    const fn: NamedReward['fn'] = (batch) => {
      asked.push(...batch.map(({ response }) => response));
      return batch.map(() => 1);
    };
    const batch = inputs('a', 'b', 'c').map(
      (input, i): RewardInput => (i === 1 ? { ...input, finishReason: 'length' } : input),
    );
    const rewarded = async (overlong: 'verify' | 'zero' | 'null') =>
      (await computeRewards([{ name: 'one', fn }], batch, { ...task, overlong })).rewards;
    assert.deepEqual(await rewarded('zero'), [1, 0, 1]);
    assert.deepEqual(await rewarded('null'), [1, null, 1]);
    assert.deepEqual(asked, ['a', 'c', 'a', 'c']);
    assert.deepEqual(await rewarded('verify'), [1, 1, 1]);
    const all = batch.slice(1, 2);
    assert.deepEqual((await computeRewards([{ name: 'one', fn }], all, { ...task, overlong: 'null' })).rewards, [null]);
  });

  it('asks all at once, and ends the others when one fails', async () => {
    let ended = false;
    const slow: NamedReward = {
      name: 'slow',
      fn: async (batch, context) => {
        await sleep(5000, undefined, { ref: false, signal: context?.signal }).catch(() => {
          ended = true;
        });
        return batch.map(() => 1);
      },
    };
    const broken: NamedReward = {
      name: 'broken',
      fn: async () => {
        throw new TypeError('no such thing');
      },
    };
    await assert.rejects(
      computeRewards([slow, broken], inputs('a'), task),
      (error: Error) =>
        error instanceof RewardError && error.message === 'reward "broken" of task "toy" threw: no such thing',
    );
    await sleep(5);
    assert.ok(ended);
  });

  it('is checked before it is used', () => {
    const wrong = (list: unknown, message: RegExp) =>
      assert.throws(
        () => checkRewards(list as NamedReward[]),
        (error) => error instanceof InvalidArgumentError && message.test(error.message),
        `${message}`,
      );
    wrong([], /must be a list of/);
    wrong([null], /rewards\[0\] needs options \{ name, fn, .* \}, got null/);
    wrong([{ ...length, wieght: 2 }], /rewards\[0\]: there is no option "wieght"; did you mean weight\?/);
    wrong([{ ...length, name: 'a/b' }], /got "a\/b"/);
    wrong([length, length], /two rewards have the name "length"/);
    wrong([{ name: 'x', fn: 3 }], /reward "x": fn must be a function, got 3/);
    wrong([{ ...length, weight: Number.NaN }], /weight must be a finite number/);
    wrong([{ ...length, timeoutMs: 0 }], /timeoutMs must be a number of milliseconds above 0/);
    wrong([{ ...length, onTimeout: 'skip' }], /onTimeout must be 'null', 'zero' or 'throw'/);
    checkRewards([length, { ...length, name: 'b.2_c-d', weight: 0, timeoutMs: 1, onTimeout: 'zero' }]);
  });
});

describe('a reward that takes too long', { timeout: 20_000 }, () => {
  const hangs = (policy: Partial<NamedReward>): NamedReward => ({
    name: 'slow',
    // Entry by entry: only the second never comes.
    fn: (batch) => batch.map(({ response }) => (response === 'hang' ? never : Promise.resolve(1))),
    timeoutMs: 30,
    ...policy,
  });

  it('is cut off for the response that hangs alone, by each policy', async () => {
    const judged = await computeRewards([hangs({})], inputs('a', 'hang', 'b'), task);
    assert.deepEqual(judged.rewards, [1, null, 1]);
    assert.equal(judged.metrics['reward/slow/timeouts'], 1);
    assert.deepEqual((await computeRewards([hangs({ onTimeout: 'zero' })], inputs('a', 'hang'), task)).rewards, [1, 0]);
    await assert.rejects(
      computeRewards([hangs({ onTimeout: 'throw' })], inputs('a', 'hang'), task),
      (error: Error) =>
        error instanceof RewardError &&
        /reward "slow" .* took longer than 30 ms for a response to problem p:1/.test(error.message),
    );
  });

  it('is cut off for the batch where the batch is one promise, and told so', async () => {
    let signal: AbortSignal | undefined;
    const reward: NamedReward = {
      name: 'batch',
      fn: (_, context) => {
        signal = context?.signal;
        return never as unknown as Promise<number[]>;
      },
      timeoutMs: 20,
    };
    const { rewards, metrics } = await computeRewards([reward, length], inputs('a', 'bb'), task);
    assert.deepEqual(rewards, [1, 2]);
    assert.equal(metrics['reward/batch/timeouts'], 2);
    assert.equal(metrics['reward/batch/null_frac'], 1);
    assert.ok(signal?.aborted);
  });

  it('may fail afterwards without a trace, and one that is in time is not touched', async () => {
    let fail: (error: Error) => void = () => {};
    const late = new Promise<number>((_, reject) => {
      fail = reject;
    });
    const { rewards } = await computeRewards([{ name: 'x', fn: () => [late], timeoutMs: 10 }], inputs('a'), task);
    assert.deepEqual(rewards, [null]);
    fail(new Error('too late'));
    await sleep(5);
    let aborted = false;
    const prompt: NamedReward = {
      name: 'prompt',
      fn: async (_, context) => {
        context?.signal.addEventListener('abort', () => {
          aborted = true;
        });
        return [1];
      },
      timeoutMs: 20,
    };
    await computeRewards([prompt], inputs('a'), task);
    await sleep(40);
    assert.equal(aborted, false);
  });

  it('ends at once when the run is stopped', async () => {
    const controller = new AbortController();
    const running = computeRewards([{ name: 'x', fn: () => [never] }], inputs('a'), {
      ...task,
      signal: controller.signal,
    });
    controller.abort();
    await assert.rejects(running, AbortedError);
    await assert.rejects(
      callReward(() => [1], inputs('a'), 'toy', { signal: controller.signal }),
      AbortedError,
    );
  });
});

describe('a reward that misbehaves', () => {
  const cases: [string, NamedReward['fn'], RegExp][] = [
    ['NaN', () => [Number.NaN], /reward "x" of task "toy" returned NaN for a response to problem p:1/],
    ['a promise of text', () => [Promise.resolve('1' as never)], /returned a value of type string for a response/],
    ['undefined', () => undefined as never, /returned undefined; expected an array of numbers/],
    ['too many', () => [1, 2], /returned 2 values for 1 responses/],
    ['a rejected entry', () => [Promise.reject(new Error('offline'))], /reward "x" of task "toy" threw: offline/],
  ];
  for (const [what, fn, message] of cases) {
    it(`is one named error: ${what}`, async () => {
      await assert.rejects(
        computeRewards([{ name: 'x', fn }], inputs('a'), task),
        (error: Error) => error instanceof RewardError && message.test(error.message),
      );
    });
  }

  it('may return typed arrays, and be used as one function', async () => {
    const typed: NamedReward = { name: 'typed', fn: () => Float32Array.of(1, 0.5) as unknown as number[], weight: 2 };
    assert.deepEqual(await combinedReward([typed, length], 'toy')(inputs('a', 'bb')), [3, 3]);
  });
});

describe('a module of rewards', () => {
  it('exports a function, or a list of named ones', async (t) => {
    const folder = writeFiles(temporaryFolder(t), {
      'my reward.mjs': 'export default (batch) => batch.map(({ response }) => response.length);',
      'list.mjs':
        'export const rewards = [\n' +
        '  { name: "short", weight: 0.5, fn: (batch) => batch.map(({ response }) => (response.length < 3 ? 1 : 0)) },\n' +
        '  { name: "late", timeoutMs: 5, onTimeout: "zero", fn: (batch) => batch.map(() => new Promise(() => {})) },\n' +
        '];\n',
    });
    const one = await loadRewardModule(join(folder, 'my reward.mjs'), { weight: 3, timeoutMs: 100 });
    assert.deepEqual(
      one.map(({ name, weight }) => [name, weight]),
      [['my_reward', 3]],
    );
    assert.deepEqual((await computeRewards(one, inputs('ab'), task)).rewards, [6]);
    const list = await loadRewardModule(join(folder, 'list.mjs'), { weight: 3, timeoutMs: 100, onTimeout: 'throw' });
    assert.deepEqual((await computeRewards(list, inputs('ab', 'abc'), task)).rewards, [0.5, 0]);
  });

  it('is cut off where it computes without end, and only for the response that makes it', async (t) => {
    const folder = writeFiles(temporaryFolder(t), {
      // The second reward is async, and hangs without computing.
      'loops.mjs':
        'const judge = ({ response }) => { while (response === "loop"); return response.length; };\n' +
        'export const rewards = [\n' +
        '  { name: "loops", fn: (batch, { report }) => { const all = batch.map(judge); report({ judged: all.length }); return all; } },\n' +
        '  { name: "waits", weight: 10, fn: (batch) => batch.map(({ response }) => (response === "wait" ? new Promise(() => {}) : 1)) },\n' +
        '];\n',
    });
    const list = await loadRewardModule(join(folder, 'loops.mjs'), { timeoutMs: 100 });
    const judged = await computeRewards(list, inputs('a', 'loop', 'bbb', 'wait'), task);
    assert.deepEqual(judged.rewards, [11, 10, 13, 4]);
    assert.equal(judged.metrics['reward/loops/timeouts'], 1);
    assert.equal(judged.metrics['reward/waits/timeouts'], 1);
    assert.equal(judged.metrics['reward/loops/judged'], 3);
    const again = await computeRewards(list, inputs('cc'), task);
    assert.deepEqual(again.rewards, [12]);
    const strict = await loadRewardModule(join(folder, 'loops.mjs'), { timeoutMs: 50, onTimeout: 'throw' });
    await assert.rejects(
      computeRewards(strict.slice(0, 1), inputs('loop'), task),
      /reward "loops" of task "toy".* took longer than 50 ms for a response to problem p:1/,
    );
  });

  it('is told when the time is over', async (t) => {
    const folder = writeFiles(temporaryFolder(t), {
      'told.mjs':
        'let told = 0;\n' +
        'export default (batch, { signal }) => {\n' +
        '  signal.addEventListener("abort", () => { told += 1; });\n' +
        '  return batch.map(({ response }) => (response === "wait" ? new Promise(() => {}) : told));\n' +
        '};\n',
    });
    const list = await loadRewardModule(join(folder, 'told.mjs'), { timeoutMs: 50 });
    assert.deepEqual((await computeRewards(list, inputs('a', 'wait'), task)).rewards, [0, null]);
    assert.deepEqual((await computeRewards(list, inputs('a'), task)).rewards, [1]);
  });

  it('stops when the run does, though it computes without end', async (t) => {
    const folder = writeFiles(temporaryFolder(t), { 'loop.mjs': 'export default () => { for (;;); };' });
    const list = await loadRewardModule(join(folder, 'loop.mjs'));
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 50);
    await assert.rejects(computeRewards(list, inputs('a'), { ...task, signal: controller.signal }), AbortedError);
  });

  it('has the errors of every reward', async (t) => {
    const bodies: [string, RegExp][] = [
      ['() => { throw new Error("no key"); }', /reward "x" of task "toy" threw: no key/],
      ['async () => undefined', /returned undefined; expected an array/],
      ['() => () => 1', /returned a value of type object; expected an array/],
      ['() => [1, 2, 3]', /returned 3 values for 1 responses/],
      ['() => ["1"]', /returned a value of type string for a response to problem p:1/],
      ['() => [NaN]', /returned NaN for a response/],
      ['() => [Promise.reject(new Error("offline"))]', /threw: offline/],
      ['() => { process.exit(3); }', /exit code 3/],
    ];
    for (const [i, [body, message]] of bodies.entries()) {
      const folder = writeFiles(temporaryFolder(t), { [`${i}/x.mjs`]: `export default ${body};` });
      const list = await loadRewardModule(join(folder, `${i}/x.mjs`), { timeoutMs: 5000 });
      await assert.rejects(
        computeRewards(list, inputs('a'), task),
        (error: Error) => error instanceof RewardError && message.test(error.message),
        body,
      );
    }
  });

  it('is refused with the reason where it is none', async (t) => {
    const folder = writeFiles(temporaryFolder(t), {
      'none.mjs': 'export const reward = 3;',
      'broken.mjs': 'throw new Error("at the start");',
      'list.mjs': 'export const rewards = [{ name: "a b", fn: () => [] }];',
      'later.mjs': 'const a = 1;\n\nthrow new Error("a is " + a);\n',
      'imports.mjs': 'import { nothing } from "node:fs";\nexport default nothing;',
      'old.cjs': 'const a = 1;\nmodule.exports = (;\n',
      'syntax.mjs': 'export default () => [;\n',
      'folder/rewards.mjs': '',
    });
    const wrong = (name: string, type: typeof RewardError | typeof InvalidArgumentError, message: RegExp) =>
      assert.rejects(
        loadRewardModule(join(folder, name)),
        (error: Error) => error instanceof type && message.test(error.message) && error.message.includes(name),
      );
    await wrong('none.mjs', InvalidArgumentError, /must export a function as its default, or a list/);
    await wrong('broken.mjs', RewardError, /cannot be loaded: at the start \(.*broken\.mjs:1\)$/);
    await wrong('later.mjs', RewardError, /cannot be loaded: a is 1 \(.*later\.mjs:3\)$/);
    await wrong('imports.mjs', RewardError, /cannot be loaded: .* export named 'nothing' \(.*imports\.mjs:1\)$/);
    await wrong('old.cjs', RewardError, /cannot be loaded: .* \(.*old\.cjs:2\)$/);
    // some versions of Node tell where, some do not
    await wrong(
      'syntax.mjs',
      RewardError,
      /cannot be loaded: .*(?:; to see where: node .*syntax\.mjs|syntax\.mjs:1\))$/,
    );
    await wrong('folder', InvalidArgumentError, /folder is a folder; name the module in it/);
    await wrong('list.mjs', InvalidArgumentError, /rewards\[0\]\.name must be letters/);
    await wrong('absent.mjs', InvalidArgumentError, /no such file/);
  });
});

describe('a trainer with several rewards', () => {
  const config = (reward = {}) =>
    defineConfig({
      run: { iterations: 2 },
      rollout: { promptsPerIteration: 2, groupSize: 4, maxNewTokens: 6 },
      unlearn: { eta: 0.5, gate: 'always' },
      objective: { klCoef: 0 },
      optimizer: { lr: 0.05, miniBatchPrompts: 2 },
      reward,
    });
  const collect = async (options: Partial<ConstructorParameters<typeof Trainer>[0]>): Promise<Iteration[]> => {
    const trainer = new Trainer({
      policy: new FakePolicy(),
      tokenizer: toyTokenizer,
      task: toyTask(),
      config: config(),
      ...options,
    });
    const all: Iteration[] = [];
    for await (const iteration of trainer) all.push(iteration);
    return all;
  };

  it('adds them up and reports each', async () => {
    const half: NamedReward = {
      name: 'half',
      fn: (batch) => batch.map((_, i) => (i % 2 === 0 ? 1 : null)),
      weight: 10,
    };
    const base: NamedReward = { name: 'base', fn: toyTask().reward };
    const [first] = await collect({ rewards: [base, half] });
    assert.ok(first);
    first.samples.forEach((sample, i) => {
      assert.equal(sample.rewards?.half, i % 2 === 0 ? 1 : null);
      assert.equal(sample.reward, (sample.rewards?.base as number) + (i % 2 === 0 ? 10 : 0));
    });
    assert.equal(first.metrics['reward/half/null_frac'], 0.5);
    assert.equal(first.metrics['reward/half/mean'], 1);
    const sum = first.samples.reduce((total, { reward }) => total + (reward as number), 0);
    assert.equal(first.metrics['reward/mean'], sum / first.samples.length);
  });

  it("takes the task's own list, the caller's first; cut-off responses as the configuration says", async () => {
    const one: NamedReward = { name: 'one', fn: (batch) => batch.map(() => 1) };
    const listed = { ...toyTask(), rewards: [one] };
    assert.equal((await collect({ task: listed }))[0]?.metrics['reward/mean'], 1);
    assert.equal(
      (await collect({ task: listed, reward: (batch) => batch.map(() => 2) }))[0]?.metrics['reward/mean'],
      2,
    );
    const cut = (await collect({ task: listed, config: config({ overlong: 'zero' }) }))[0];
    const samples = cut?.samples ?? [];
    assert.ok(samples.some(({ finishReason }) => finishReason === 'length'));
    for (const { reward, finishReason } of samples) assert.equal(reward, finishReason === 'length' ? 0 : 1);
  });

  it('wants one of reward and rewards, and checks them', async () => {
    const one: NamedReward = { name: 'one', fn: (batch) => batch.map(() => 1) };
    await assert.rejects(collect({ reward: one.fn, rewards: [one] }), ConfigError);
    await assert.rejects(collect({ rewards: [one, one] }), InvalidArgumentError);
  });
});
