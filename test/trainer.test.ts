import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { grpo } from '../lib/algorithm/grpo.js';
import { AbortedError, ConfigError, NonFiniteError, RewardError } from '../lib/errors.js';
import type { StepReport } from '../lib/policy.js';
import type { RewardFunction } from '../lib/tasks/types.js';
import { chunk, packByBudget, splitTokens } from '../lib/train/batching.js';
import { defineConfig, type TrainConfig } from '../lib/train/config.js';
import { PromptStream } from '../lib/train/prompt-stream.js';
import { type Iteration, Trainer, type TrainerEvent, type TrainerOptions } from '../lib/train/trainer.js';
import { FakePolicy } from './support/fake-policy.js';
import { containsThree, toyTask, toyTokenizer } from './support/toy-task.js';

type Sections = Parameters<typeof defineConfig>[0];

function toyConfig(sections: NonNullable<Sections> = {}): TrainConfig {
  return defineConfig({
    run: { iterations: 3, seed: 4, ...sections.run },
    rollout: { promptsPerIteration: 4, groupSize: 4, maxNewTokens: 8, ...sections.rollout },
    unlearn: { eta: 0.5, gate: 'always', ...sections.unlearn },
    objective: { klCoef: 0, ...sections.objective },
    optimizer: { lr: 0.05, miniBatchPrompts: 2, ...sections.optimizer },
    eval: { ...sections.eval },
  });
}

function toyTrainer(options: Partial<TrainerOptions> = {}): { trainer: Trainer; policy: FakePolicy } {
  const policy = (options.policy as FakePolicy | undefined) ?? new FakePolicy();
  const trainer = new Trainer({ tokenizer: toyTokenizer, task: toyTask(), config: toyConfig(), ...options, policy });
  return { trainer, policy };
}

async function collect(trainer: Trainer): Promise<Iteration[]> {
  const all: Iteration[] = [];
  for await (const iteration of trainer) all.push(iteration);
  return all;
}

const closeTo = (actual: number | undefined, expected: number, tolerance: number, what: string): void => {
  assert.ok(actual !== undefined && Math.abs(actual - expected) <= tolerance, `${what}: ${actual} is not ${expected}`);
};

/** The steps of one iteration's rewards are seen by tests through this reward. */
const constant =
  (value: number): RewardFunction =>
  (inputs) =>
    inputs.map(() => value);

describe('batching', () => {
  it('keeps order and budget; a large item is alone', () => {
    const sizes = [3, 4, 2, 9, 1, 1];
    const runs = packByBudget(sizes, 7, (size) => size);
    assert.deepEqual(runs, [[3, 4], [2], [9], [1, 1]]);
    assert.deepEqual(runs.flat(), sizes);
  });

  it('chunks and splits', () => {
    assert.deepEqual(chunk([1, 2, 3, 4, 5], 2), [[1, 2], [3, 4], [5]]);
    const parts = splitTokens(Float32Array.of(1, 2, 3), [{ length: 2 }, { length: 0 }, { length: 1 }]);
    assert.deepEqual(
      parts.map((part) => [...part]),
      [[1, 2], [], [3]],
    );
  });

  it('draws every prompt once an epoch, with ids that never repeat', () => {
    const stream = new PromptStream(7, 3);
    const drawn = stream.next(21);
    for (const epoch of chunk(drawn, 7)) {
      assert.deepEqual(epoch.map(({ index }) => index).sort(), [0, 1, 2, 3, 4, 5, 6]);
    }
    assert.equal(new Set(drawn.map(({ id }) => id)).size, 21);
    assert.notDeepEqual(
      drawn.slice(0, 7).map(({ index }) => index),
      drawn.slice(7, 14).map(({ index }) => index),
    );
    assert.deepEqual(new PromptStream(7, 3, 10).next(4), drawn.slice(10, 14), 'a stream goes on from a position');
  });
});

describe('trainer', () => {
  it('yields every iteration with metrics of both stages', async () => {
    const iterations = await collect(toyTrainer().trainer);
    assert.deepEqual(
      iterations.map(({ iteration }) => iteration),
      [1, 2, 3],
    );
    const names = [
      'rollout/stage1/entropy',
      'rollout/stage2/entropy',
      'reward/mean',
      'reward/frac_zero_std',
      'response_length/mean',
      'unlearn/open_frac',
      'unlearn/clamped_frac',
      'unlearn/stage1_logp_delta',
      'unlearn/param_changed_frac',
      'unlearn/grad_norm',
      'actor/ratio/stage1/mean',
      'actor/ratio/stage2/mean',
      'actor/clip_frac/stage2',
      'actor/grad_norm',
      'timing_s/stage1',
      'timing_s/unlearn',
      'timing_s/stage2',
      'timing_s/reward',
      'timing_s/update',
      'perf/tokens_per_s',
      'perf/peak_memory_mib',
    ];
    for (const { metrics } of iterations) {
      for (const name of names) assert.ok(Number.isFinite(metrics[name]), `${name} is ${metrics[name]}`);
    }
  });

  it('learns the toy task, by GRPO and by EEPO', async () => {
    for (const enabled of [false, true]) {
      const config = toyConfig({ run: { iterations: 40 }, unlearn: { enabled } });
      const all = await collect(toyTrainer({ config }).trainer);
      const reward = (part: Iteration[]) =>
        part.reduce((sum, { metrics }) => sum + (metrics['rollout/stage1/reward'] as number), 0) / part.length;
      const [first, last] = [reward(all.slice(0, 5)), reward(all.slice(-5))];
      assert.ok(last > first + 0.2, `unlearn ${enabled}: reward went from ${first} to ${last}`);
    }
  });

  it('with eta = 0 trains byte for byte as GRPO does', async () => {
    const weights = async (unlearn: { enabled: boolean; eta?: number }) => {
      const { trainer, policy } = toyTrainer({ config: toyConfig({ unlearn }) });
      await collect(trainer);
      return policy.hash();
    };
    const grpoWeights = await weights({ enabled: false });
    assert.equal(await weights({ enabled: true, eta: 0 }), grpoWeights);
    assert.notEqual(await weights({ enabled: true, eta: 0.5 }), grpoWeights);
  });

  it('has ratio 1 in stage 1 before the first update, and not in stage 2', async () => {
    const config = toyConfig({ run: { iterations: 1 }, unlearn: { eta: 2 }, optimizer: { miniBatchPrompts: 4 } });
    const [only] = await collect(toyTrainer({ config }).trainer);
    closeTo(only?.metrics['actor/ratio/stage1/mean'], 1, 1e-6, 'stage 1');
    closeTo(only?.metrics['actor/ratio/stage1/max'], 1, 1e-5, 'stage 1, largest');
    assert.ok((only?.metrics['actor/ratio/stage2/max'] as number) > 1.01);
  });

  it('with ratio "policy" has ratio 1 in both stages before the first update', async () => {
    const config = toyConfig({
      run: { iterations: 1 },
      unlearn: { eta: 2 },
      objective: { ratio: 'policy' },
      optimizer: { miniBatchPrompts: 4 },
    });
    const [only] = await collect(toyTrainer({ config }).trainer);
    closeTo(only?.metrics['actor/ratio/stage1/max'], 1, 1e-5, 'stage 1');
    closeTo(only?.metrics['actor/ratio/stage2/max'], 1, 1e-5, 'stage 2');
  });

  it('with ratio "decoupled" weighs stage 2 by theta over theta prime', async () => {
    const config = toyConfig({ run: { iterations: 1 }, unlearn: { eta: 20 }, objective: { ratio: 'decoupled' } });
    const [only] = await collect(toyTrainer({ config }).trainer);
    closeTo(only?.metrics['actor/decoupled_weight/stage1'], 1, 1e-6, 'stage 1');
    assert.ok(Math.abs((only?.metrics['actor/decoupled_weight/stage2'] as number) - 1) > 1e-3);
  });

  it('does not depend on the micro-batch size', async () => {
    const run = async (microBatchTokens: number) => {
      const config = toyConfig({ objective: { klCoef: 0.01 }, optimizer: { microBatchTokens } });
      const { trainer, policy } = toyTrainer({ config });
      return { iterations: await collect(trainer), theta: policy.theta, calls: policy.calls };
    };
    const [small, large] = [await run(12), await run(100000)];
    assert.ok(small.calls.filter(({ method }) => method === 'backward').length > large.calls.length / 3);
    small.theta.forEach((w, i) => {
      closeTo(w, large.theta[i] as number, 1e-6, `weight ${i}`);
    });
    for (const name of ['actor/loss', 'actor/kl', 'actor/grad_norm', 'actor/ratio/stage2/mean', 'actor/clip_frac']) {
      closeTo(small.iterations[2]?.metrics[name], large.iterations[2]?.metrics[name] as number, 1e-5, name);
    }
  });

  it('takes one step per mini-batch and epoch', async () => {
    const config = toyConfig({ run: { iterations: 2 }, optimizer: { miniBatchPrompts: 1, epochs: 3 } });
    const { trainer, policy } = toyTrainer({ config });
    await collect(trainer);
    assert.equal(policy.calls.filter(({ method }) => method === 'step').length, 2 * 4 * 3);
  });

  it('makes a reference model only for a KL penalty', async () => {
    const clones = async (klCoef: number) => {
      const { trainer, policy } = toyTrainer({ config: toyConfig({ objective: { klCoef } }) });
      const all = await collect(trainer);
      return { count: policy.calls.filter(({ method }) => method === 'clone').length, last: all.at(-1) };
    };
    assert.equal((await clones(0)).count, 0);
    const { count, last } = await clones(0.1);
    assert.equal(count, 1);
    assert.ok((last?.metrics['actor/kl'] as number) > 0, 'the policy has moved away from the reference');
  });

  it('changes nothing but by decay where all rewards are equal', async () => {
    const config = toyConfig({ objective: { entropyCoef: 0 }, optimizer: { weightDecay: 0 } });
    const task = toyTask({ reward: constant(1) });
    const { trainer, policy } = toyTrainer({ config, task });
    const before = await policy.hash();
    const all = await collect(trainer);
    assert.equal(await policy.hash(), before);
    assert.deepEqual(
      all.map(({ metrics }) => [metrics['reward/frac_zero_std'], metrics['reward/frac_all_one']]),
      [
        [1, 1],
        [1, 1],
        [1, 1],
      ],
    );
  });

  it('leaves responses with a null reward out of the group', async () => {
    const reward: RewardFunction = (inputs) =>
      inputs.map(({ response }, i) => (i === 0 ? null : response.includes('3') ? 1 : 0));
    const [first] = await collect(toyTrainer({ task: toyTask({ reward }) }).trainer);
    assert.equal(first?.samples[0]?.reward, null);
    assert.equal(first?.samples[0]?.advantage, 0);
    closeTo(first?.metrics['reward/frac_left_out'], 1 / 16, 1e-9, 'left out');
  });

  it('warns once where no response gets a reward', async () => {
    const warnings: Error[] = [];
    const listen = (warning: Error): void => void (warning.name === 'EepoRewardWarning' && warnings.push(warning));
    process.on('warning', listen);
    try {
      let tried = false; // the check before the run gets one, the run none
      const reward: RewardFunction = (inputs) => inputs.map(() => (tried ? null : 1));
      const { trainer } = toyTrainer({ task: toyTask({ reward }), config: toyConfig({ run: { iterations: 2 } }) });
      await trainer.prepare();
      tried = true;
      await collect(trainer);
      await new Promise((resolve) => setImmediate(resolve));
    } finally {
      process.off('warning', listen);
    }
    assert.equal(warnings.length, 1);
    assert.match(warnings[0]?.message ?? '', /iteration 1: no response got a reward/);
  });

  it('reports its phases in order', async () => {
    const events: TrainerEvent[] = [];
    const config = toyConfig({ run: { iterations: 1 }, objective: { klCoef: 0.1 } });
    await collect(toyTrainer({ config, onEvent: (event) => events.push(event) }).trainer);
    assert.deepEqual(
      events.flatMap((event) => (event.type === 'phase' ? [event.phase] : [])),
      ['stage1', 'unlearn', 'stage2', 'reward', 'reference', 'update'],
    );
  });

  it('evaluates at the start, every n iterations and at the end', async () => {
    const at: number[] = [];
    const config = toyConfig({ run: { iterations: 5 }, eval: { every: 2, atStart: true, atEnd: true } });
    const evaluate = async (iteration: number) => {
      at.push(iteration);
      return { 'test/pass@1': 0.5 };
    };
    const all = await collect(toyTrainer({ config, evaluate }).trainer);
    assert.deepEqual(at, [0, 2, 4, 5]);
    assert.equal(all[0]?.iteration, 0);
    assert.equal(all.at(-1)?.metrics['eval/test/pass@1'], 0.5);
    assert.equal(all[1]?.metrics['eval/test/pass@1'], undefined);
  });

  it("uses an objective of the caller's own", async () => {
    let calls = 0;
    const objective: TrainerOptions['objective'] = (batch, normalizer) => {
      calls += 1;
      return grpo({ klCoef: 0 })(batch, normalizer);
    };
    await collect(toyTrainer({ objective }).trainer);
    assert.equal(calls, 3 * 2);
  });

  it('stops when aborted, with clean gradients', async () => {
    const abort = new AbortController();
    const { trainer, policy } = toyTrainer({
      signal: abort.signal,
      onEvent: (event) => {
        if (event.iteration === 2 && event.type === 'phase' && event.phase === 'reward') abort.abort();
      },
    });
    await assert.rejects(collect(trainer), (error: Error) => error instanceof AbortedError);
    assert.equal(trainer.iteration, 1);
    assert.equal((await policy.step({ lr: 0 })).gradNorm, 0);
  });

  it('stops after as many skipped updates as are allowed', async () => {
    class Broken extends FakePolicy {
      override async step(): Promise<StepReport> {
        return { gradNorm: Number.NaN, applied: false };
      }
    }
    await assert.rejects(collect(toyTrainer({ policy: new Broken() }).trainer), (error: Error) => {
      assert.ok(error instanceof NonFiniteError);
      assert.match(error.message, /^3 updates in a row .*iteration 2: update 1 of 2 was skipped.*Lower optimizer\.lr/);
      return true;
    });
  });
});

describe('trainer, what may be left out', () => {
  it('completes a partial configuration, and checks it', async () => {
    const config = { run: { iterations: 1 }, rollout: { promptsPerIteration: 2, groupSize: 2, maxNewTokens: 4 } };
    const { trainer, policy } = toyTrainer({ config });
    const [only] = await collect(trainer);
    assert.equal(only?.samples.length, 4);
    assert.equal(policy.calls.filter(({ method }) => method === 'step').length, 1);
    const wrong = { rollout: { groupsize: 2 } } as unknown as TrainerOptions['config'];
    assert.throws(() => toyTrainer({ config: wrong }), /groupsize is not a key/);
  });

  it("takes the caller's reward where the task has none, and asks for one where there is none", async () => {
    const { reward: _, ...task } = toyTask();
    const [first] = await collect(toyTrainer({ task, reward: constant(1) }).trainer);
    assert.equal(first?.metrics['reward/mean'], 1);
    assert.throws(() => toyTrainer({ task }), /task "toy" has no reward/);
  });

  it('asks for a tokenizer where the policy comes from no folder', async () => {
    const trainer = new Trainer({ policy: new FakePolicy(), task: toyTask(), config: toyConfig() });
    await assert.rejects(trainer.prepare(), /give its tokenizer/);
  });
});

describe('trainer, bad input', () => {
  /** The error, which must come before anything was computed. */
  async function early(options: Partial<TrainerOptions>): Promise<Error> {
    const { trainer, policy } = toyTrainer(options);
    const error = await collect(trainer).then(
      () => assert.fail('accepted'),
      (reason: Error) => reason,
    );
    assert.deepEqual(
      policy.calls.filter(({ method }) => method !== 'zeroGrad'),
      [],
    );
    return error;
  }

  it('refuses an empty list of prompts', async () => {
    const error = await early({ task: toyTask({ prompts: [] }) });
    assert.ok(error instanceof ConfigError);
    assert.match(error.message, /task "toy" has no training prompts/);
  });

  it('refuses a prompt that does not fit into the context', async () => {
    const error = await early({ task: toyTask({ prompts: ['1', Array(60).fill('2').join(' ')] }) });
    assert.ok(error instanceof ConfigError);
    assert.match(error.message, /maxNewTokens = 8 .*\(60 tokens\).*context of 64.*at most 4 new tokens/);
  });

  it('leaves out prompts above task.maxPromptTokens and says how many', async () => {
    const prompts = ['1', '2 2', '3 3 3', '4 4 4 4'];
    const config = { ...toyConfig(), task: { ...toyConfig().task, maxPromptTokens: 2 } };
    const { trainer } = toyTrainer({ task: toyTask({ prompts }), config });
    assert.deepEqual(await trainer.prepare(), { prompts: 2, tooLong: 2, longestPrompt: 2 });
    const none = { ...config, task: { ...config.task, maxPromptTokens: 1 } };
    assert.match(
      (await early({ task: toyTask({ prompts: ['1 1'] }), config: none })).message,
      /all 1 prompts are longer/,
    );
  });

  it('refuses a prompt without tokens, naming the problem', async () => {
    assert.match((await early({ task: toyTask({ prompts: ['1', ''] }) })).message, /problem toy-1 .*without tokens/);
  });

  const rewards: [string, RewardFunction, RegExp][] = [
    ['throws', () => assert.fail('no such answer'), /reward of task "toy" threw: no such answer/],
    ['rejects', () => Promise.reject(new Error('offline')), /threw: offline/],
    ['returns too few', () => [], /returned 0 values for 1 responses/],
    ['returns NaN', (inputs) => inputs.map(() => Number.NaN), /returned NaN for a response to problem toy-0/],
    [
      'returns a boolean',
      ((inputs: readonly unknown[]) => inputs.map(() => true)) as unknown as RewardFunction,
      /a value of type boolean/,
    ],
    ['returns nothing', (() => undefined) as unknown as RewardFunction, /returned undefined; expected an array/],
  ];
  for (const [what, reward, message] of rewards) {
    it(`refuses a reward that ${what}`, async () => {
      const error = await early({ task: toyTask({ reward }) });
      assert.ok(error instanceof RewardError, `${error}`);
      assert.match(error.message, message);
    });
  }

  it('names a reward that throws in the middle of a run', async () => {
    let calls = 0;
    const reward: RewardFunction = (inputs) => {
      calls += 1;
      if (calls === 3) throw new Error('disk full');
      return containsThree(inputs);
    };
    const { trainer } = toyTrainer({ task: toyTask({ reward }) });
    await assert.rejects(collect(trainer), (error: Error) => {
      assert.ok(error instanceof RewardError);
      assert.match(error.message, /threw: disk full/);
      return true;
    });
    assert.equal(trainer.iteration, 1);
  });
});
