/** The variants of the unlearning step on real weights, against float64, and what each of them must never do. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { complementaryLossReference } from '../lib/algorithm/unlearning.js';
import {
  type ForgetOptions,
  type Generation,
  InvalidFileError,
  type LoadOptions,
  Policy,
  UnsupportedError,
} from '../lib/index.js';
import { embeddedModel, readSafetensors } from './support/data.js';
import { forgetting, values } from './support/policy.js';

const folder = mkdtempSync(join(tmpdir(), 'eepo-variants-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const prompts = [
  [5, 7, 9],
  [3, 4],
];
const batchOf = (samples: readonly Generation[]) => ({
  prompts: samples.map(({ prompt }) => prompts[prompt] as number[]),
  responses: samples.map(({ tokens }) => tokens),
});
type Vectors = Map<string, Float64Array>;

const add = (a: Vectors, b: Vectors, scale = 1): Vectors =>
  new Map([...a].map(([name, x]) => [name, x.map((v, i) => v + scale * ((b.get(name) as Float64Array)[i] as number))]));
const times = (a: Vectors, scale: number): Vectors =>
  new Map([...a].map(([name, x]) => [name, x.map((v) => scale * v)]));
const flat = (a: Vectors): number[] => [...a.values()].flatMap((x) => [...x]);
const norm = (xs: number[]): number => Math.sqrt(xs.reduce((sum, x) => sum + x * x, 0));
const apart = (a: Vectors, b: Vectors): number => norm(flat(add(a, b, -1))) / norm(flat(b));
const doubles = (floats: Map<string, Float32Array>): Vectors =>
  new Map([...floats].map(([name, x]) => [name, Float64Array.from(x)]));

/** grad L under a policy's weights, its coefficients by the reference. */
async function gradient(policy: Policy, samples: Generation[], change: Partial<ForgetOptions> = {}): Promise<Vectors> {
  const { entropy, alpha, window, epsLow, epsHigh, loss = 'complementary' } = forgetting(samples, change);
  const { logprob } = await policy.forward(batchOf(samples));
  let at = 0;
  const offsets = [0, ...samples.map(({ tokens }) => (at += tokens.length))];
  const { a } = complementaryLossReference(logprob, entropy, offsets, { alpha, window, epsLow, epsHigh, loss });
  await policy.backward(Float32Array.from(a));
  const result = doubles(await values(await policy.gradients()));
  await policy.zeroGrad();
  return result;
}

/** theta' - theta as it is kept. */
async function kept(policy: Policy, iteration: number): Promise<Vectors> {
  const file = join(folder, 'kept.safetensors');
  await policy.saveMemory(file, iteration);
  const tensors = [...readSafetensors(file)].filter(([name]) => name.endsWith('.delta'));
  return new Map(tensors.map(([name, { data }]) => [name.slice(0, -'.delta'.length), Float64Array.from(data)]));
}

/** A policy with the weights theta + delta. */
async function displaced(policy: Policy, delta: Vectors): Promise<Policy> {
  const at = join(folder, 'displaced');
  await policy.save(at);
  const path = join(at, 'model.safetensors');
  const file = readFileSync(path);
  const size = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + size).toString('utf8')) as Record<string, { data_offsets: number[] }>;
  for (const [name, values] of delta) {
    const begin = 8 + size + ((header[name] as { data_offsets: number[] }).data_offsets[0] as number);
    for (const [i, v] of values.entries()) file.writeFloatLE(file.readFloatLE(begin + 4 * i) + v, begin + 4 * i);
  }
  writeFileSync(path, file);
  return Policy.load(at);
}

const generation = { maxNewTokens: 12, samplesPerPrompt: 3, seed: 4 };
const underRollout = (policy: Policy) => policy.generate(prompts, { ...generation, weights: 'rollout' });

/** The largest difference between what theta' recorded and what `other` says of the same tokens. */
async function recordedApart(samples: Generation[], other: Policy): Promise<number> {
  const { logprob } = await other.forward(batchOf(samples), { keepActivations: false });
  const recorded = samples.flatMap((sample) => [...sample.logprob]);
  return Math.max(...recorded.map((l, t) => Math.abs(l - (logprob[t] as number))));
}

describe('variants of the unlearning step', () => {
  let policy: Policy;
  let samples: Generation[];
  let theta: number;
  before(async () => {
    policy = await Policy.load(embeddedModel);
    samples = await policy.generate(prompts, generation);
    theta = norm(flat(doubles(await values(await policy.parameters()))));
  });
  after(() => policy.dispose());

  for (const loss of ['complementary', 'nll'] as const) {
    for (const normalize of ['none', 'gradNorm', 'relative'] as const) {
      it(`${loss}, ${normalize}: theta' - theta is the reference's, and what was drawn becomes unlikely`, async () => {
        const g = await gradient(policy, samples, { loss });
        const length = norm(flat(g));
        const eta = { none: 0.01, gradNorm: 0.02, relative: 1e-3 }[normalize];
        const step = { none: eta, gradNorm: eta / length, relative: (eta * theta) / length }[normalize];
        const before = await policy.hash();
        const how = forgetting(samples, { loss, normalize, eta, probeTokens: 1000 });
        const report = await policy.forget(batchOf(samples), { ...how, memory: 1 });
        assert.equal(await policy.hash(), before);
        const delta = await kept(policy, 0);
        assert.ok(apart(delta, times(g, step)) < 1e-5);
        assert.ok(Math.abs(report.gradNorm - length) < 1e-5 * length);
        assert.ok(Math.abs(report.relativeStep - (step * length) / theta) < 1e-5 * report.relativeStep);
        assert.ok(report.stage1LogpDelta < 0, `log-probs rose by ${report.stage1LogpDelta}`);
        assert.equal(report.steps, 1);
        // theta' is theta and that, and without memory the same
        const drawn = await underRollout(policy);
        using other = await displaced(policy, delta);
        assert.ok((await recordedApart(drawn, other)) < 1e-4);
        const plain = await policy.forget(batchOf(samples), how);
        const again = await underRollout(policy);
        assert.ok((await recordedApart(again, other)) < 1e-4);
        assert.ok(Math.abs(plain.relativeStep - report.relativeStep) < 1e-6 * report.relativeStep);
        assert.ok((await recordedApart(again, policy)) > 1e-3, "theta' is theta");
        await policy.syncRollout();
      });
    }
  }

  it('reports the loss of nll, clips nothing, and pushes open tokens only', async () => {
    const how = forgetting(samples, { loss: 'nll', alpha: 0.3 });
    const report = await policy.forget(batchOf(samples), how);
    let at = 0;
    const offsets = [0, ...samples.map(({ tokens }) => (at += tokens.length))];
    const logprob = samples.flatMap((sample) => [...sample.logprob]);
    const expected = complementaryLossReference(logprob, how.entropy, offsets, { loss: 'nll', alpha: 0.3 });
    assert.ok(expected.openTokens > 0 && expected.openTokens < expected.tokens, 'some are open');
    assert.ok(Math.abs(report.loss - expected.loss) < 1e-5 * expected.loss);
    assert.deepEqual(
      [report.openTokens, report.activeTokens, report.clampedLow, report.clampedHigh],
      [expected.openTokens, expected.openTokens, 0, 0],
    );
    const g = await gradient(policy, samples, { loss: 'nll', alpha: 0.3 });
    assert.ok(Math.abs(report.gradNorm - norm(flat(g))) < 1e-5 * report.gradNorm);
    await policy.syncRollout();
  });

  it('said or left out, the defaults are one step by the gradient: the same bits', async () => {
    const how = forgetting(samples, { eta: 0.02 });
    const report = await policy.forget(batchOf(samples), how);
    const drawn = await underRollout(policy);
    const said = { loss: 'complementary', steps: 1, memory: 0, direction: 'gradient', normalize: 'none' } as const;
    assert.deepEqual(await policy.forget(batchOf(samples), { ...how, ...said }), report);
    assert.deepEqual(await underRollout(policy), drawn);
    await policy.syncRollout();
  });

  it('takes every later step from theta prime, and says how far all of them led', async () => {
    const eta = 0.01;
    const first = times(await gradient(policy, samples), eta);
    using there = await displaced(policy, first);
    const both = add(first, await gradient(there, samples), eta);
    assert.ok(apart(both, times(first, 2)) > 1e-3, 'the second gradient is another one');
    const one = await policy.forget(batchOf(samples), forgetting(samples, { eta }));
    const two = await policy.forget(batchOf(samples), forgetting(samples, { eta, steps: 2, memory: 1 }));
    assert.ok(apart(await kept(policy, 0), both) < 1e-5);
    assert.equal(two.steps, 2);
    assert.deepEqual([two.loss, two.gradNorm, two.openTokens], [one.loss, one.gradNorm, one.openTokens]);
    assert.ok(Math.abs(two.relativeStep - norm(flat(both)) / theta) < 1e-5 * two.relativeStep);
    assert.ok(two.stage1LogpDelta < one.stage1LogpDelta);
    const remembered = await underRollout(policy);
    await policy.forget(batchOf(samples), forgetting(samples, { eta, steps: 2 }));
    assert.deepEqual(await underRollout(policy), remembered, 'with nothing to remember yet the memory changes nothing');
    await policy.syncRollout();
  });

  describe('in a random direction', () => {
    const random = { direction: 'random', eta: 0.01, memory: 1 } as const;
    const step = async (change: Partial<ForgetOptions> = {}) => {
      const report = await policy.forget(batchOf(samples), forgetting(samples, { ...random, ...change }));
      const delta = await kept(policy, change.iteration ?? 0);
      await policy.dropMemory(change.iteration ?? 0);
      await policy.syncRollout();
      return { report, delta: flat(delta) };
    };

    it('goes as far as the gradient would, and elsewhere', async () => {
      const g = flat(await gradient(policy, samples));
      for (const [normalize, length] of [
        ['none', 0.01 * norm(g)],
        ['gradNorm', 0.01],
        ['relative', 0.01 * theta],
      ] as const) {
        const { delta, report } = await step({ normalize });
        assert.ok(Math.abs(norm(delta) - length) < 1e-5 * length, normalize);
        assert.ok(Math.abs(report.relativeStep * theta - length) < 1e-5 * length, normalize);
        assert.ok(Math.abs(report.gradNorm - norm(g)) < 1e-5 * norm(g), 'the gradient is reported all the same');
        const cosine = g.reduce((sum, x, i) => sum + x * (delta[i] as number), 0) / norm(g) / norm(delta);
        assert.ok(Math.abs(cosine) < 0.05, `cosine ${cosine}`);
      }
    });

    it('is Gaussian', async () => {
      const { delta } = await step();
      const scale = norm(delta) / Math.sqrt(delta.length);
      const moment = (k: number) => delta.reduce((sum, x) => sum + (x / scale) ** k, 0) / delta.length;
      const error = 6 / Math.sqrt(delta.length);
      assert.ok(Math.abs(moment(1)) < error);
      assert.ok(Math.abs(moment(3)) < error * Math.sqrt(15));
      assert.ok(Math.abs(moment(4) - 3) < error * Math.sqrt(96));
      assert.ok(delta.every((x) => x !== 0));
      const neighbours = delta.slice(1).reduce((sum, x, i) => sum + (x * (delta[i] as number)) / scale ** 2, 0);
      assert.ok(Math.abs(neighbours / delta.length) < error);
    });

    it('is the same for the same seed and iteration, and another for others and for another step', async () => {
      const one = await step({ seed: 3, iteration: 5 });
      assert.deepEqual((await step({ seed: 3, iteration: 5 })).delta, one.delta);
      const cosine = (a: number[], b: number[]) =>
        a.reduce((sum, x, i) => sum + x * (b[i] as number), 0) / norm(a) / norm(b);
      assert.ok(Math.abs(cosine((await step({ seed: 4, iteration: 5 })).delta, one.delta)) < 0.05);
      assert.ok(Math.abs(cosine((await step({ seed: 3, iteration: 6 })).delta, one.delta)) < 0.05);
      const two = await step({ seed: 3, iteration: 5, steps: 2, normalize: 'gradNorm' });
      assert.ok(Math.abs(norm(two.delta) / (0.01 * Math.SQRT2) - 1) < 0.05, 'two steps at a right angle');
    });
  });

  describe('that remembers theta prime', () => {
    const how = { eta: 0.01, memory: 0.5 };
    let own: Policy;
    before(async () => {
      own = await policy.clone();
    });
    after(() => own.dispose());

    it('adds a share of the last displacement, and can make an iteration again', async () => {
      let last: Vectors | null = null;
      for (const iteration of [1, 2, 3]) {
        const g = times(await gradient(own, samples), how.eta);
        const expected: Vectors = last === null ? g : add(g, last, how.memory);
        for (const _ of ['once', 'and again']) {
          const report = await own.forget(batchOf(samples), forgetting(samples, { ...how, iteration }));
          const delta = await kept(own, iteration);
          assert.ok(apart(delta, expected) < 1e-5, `iteration ${iteration}`);
          assert.ok(Math.abs(report.relativeStep - norm(flat(expected)) / theta) < 1e-3 * report.relativeStep);
          using other = await displaced(own, delta);
          assert.ok((await recordedApart(await underRollout(own), other)) < 1e-4);
        }
        if (last !== null)
          assert.ok(apart(await kept(own, iteration - 1), last) === 0, 'the one before is still there');
        await own.syncRollout();
        last = await kept(own, iteration);
        const { logprob } = await own.forward(batchOf(samples));
        await own.backward(logprob.map((_, t) => (t - 20) / 100));
        await own.step({ lr: 1e-4 });
      }
    });

    it('decays where no token is open, and stage 2 is drawn from what is left', async () => {
      const before = await kept(own, 3);
      const report = await own.forget(batchOf(samples), forgetting(samples, { ...how, iteration: 4, alpha: 0 }));
      assert.deepEqual([report.skipped, report.steps, report.activeTokens], [null, 0, 0]);
      assert.ok(Number.isNaN(report.stage1LogpDelta));
      const delta = await kept(own, 4);
      assert.ok(apart(delta, times(before, 0.5)) < 1e-7);
      using other = await displaced(own, delta);
      assert.ok((await recordedApart(await underRollout(own), other)) < 1e-4);
      await own.syncRollout();
    });

    it('is what it was after a file, and is dropped with other weights, by a step without memory and on demand', async () => {
      const at = join(folder, 'own');
      const file = join(folder, 'memory.safetensors');
      await own.save(at);
      await own.saveMemory(file, 4);
      const next = async (one: Policy) => {
        await one.forget(batchOf(samples), forgetting(samples, { ...how, iteration: 5 }));
        return { drawn: await underRollout(one), delta: flat(await kept(one, 5)) };
      };
      const expected = await next(own);
      using twin = await Policy.load(at);
      const fresh = await next(twin);
      assert.notDeepEqual(fresh.delta, expected.delta);
      await twin.loadMemory(file);
      assert.deepEqual(await next(twin), expected);

      await twin.restoreWeights(at);
      assert.equal((await kept(twin, 5)).size, 0);
      assert.deepEqual(await next(twin), fresh);
      await twin.loadMemory(file);
      await twin.dropMemory(4);
      assert.equal((await kept(twin, 4)).size, 0);
      assert.deepEqual(await next(twin), fresh);
      await twin.loadMemory(file);
      await twin.forget(batchOf(samples), forgetting(samples, { iteration: 4 }));
      assert.deepEqual(await next(twin), fresh);
      await own.syncRollout();
    });

    it('refuses files that are none, and keeps what it had', async () => {
      const good = join(folder, 'memory.safetensors');
      const bad = join(folder, 'bad.safetensors');
      const file = readFileSync(good);
      await own.loadMemory(good);
      const before = flat(await kept(own, 4));
      const refused = async (text: RegExp) => {
        await assert.rejects(own.loadMemory(bad), (error: Error) => {
          assert.ok(error instanceof InvalidFileError);
          assert.match(error.message, text);
          return true;
        });
        assert.deepEqual(flat(await kept(own, 4)), before);
      };
      const nan = Buffer.from(file);
      nan.writeFloatLE(Number.NaN, file.length - 4);
      writeFileSync(bad, nan);
      await refused(/\.delta holds values that are not finite/);
      writeFileSync(bad, file.subarray(0, file.length - 8));
      await refused(/bad\.safetensors/);
      await own.saveOptimizer(bad);
      await refused(/tensor iteration is missing; is it what this model remembers of theta'\?/);
      using adapter = await Policy.load(embeddedModel, { lora: { rank: 2 } });
      await adapter.forget(batchOf(samples), forgetting(samples, { memory: 1, iteration: 1 }));
      await adapter.saveMemory(bad, 1);
      await refused(/has \d+ tensors, expected \d+; is it what this model remembers/);
      using frozen = await Policy.load(embeddedModel, { trainable: false });
      await assert.rejects(frozen.saveMemory(bad, 1), UnsupportedError);
      await assert.rejects(frozen.loadMemory(good), UnsupportedError);
    });

    it('undoes a step that is not finite, and nothing else', async () => {
      await own.loadMemory(join(folder, 'memory.safetensors'));
      const before = flat(await kept(own, 4));
      for (const steps of [1, 2]) {
        const change = { ...how, eta: 1e60, normalize: 'gradNorm', iteration: 5, steps } as const;
        const report = await own.forget(batchOf(samples), forgetting(samples, change));
        assert.equal(report.skipped, 'non-finite');
        assert.ok(report.cause?.text);
        assert.ok((await recordedApart(await underRollout(own), own)) < 1e-4, 'theta prime is theta');
        assert.deepEqual(flat(await kept(own, 5)), before);
      }
      await own.syncRollout();
    });
  });

  const kinds: Record<string, LoadOptions> = {
    bfloat16: { dtype: 'bfloat16' },
    LoRA: { lora: { rank: 4, seed: 3 } },
    'LoRA on bfloat16': { dtype: 'bfloat16', lora: { rank: 4, seed: 3 } },
  };
  for (const [name, load] of Object.entries(kinds)) {
    it(`${name}: every variant lowers what was drawn, and never writes the policy`, async () => {
      using own = await Policy.load(embeddedModel, load);
      if (load.lora) {
        // B is 0 at first: A has no gradient before a step
        const { logprob } = await own.forward(batchOf(samples));
        await own.backward(logprob.map((_, t) => (t - 20) / 100));
        await own.step({ lr: 1e-3 });
      }
      const drawn = await own.generate(prompts, { ...generation, samplesPerPrompt: 8 });
      const before = await own.hash();
      const base = { eta: 0.1, normalize: 'gradNorm', probeTokens: 1000 } as const;
      const deltas: Record<string, number> = {};
      for (const change of [{ loss: 'nll' }, { steps: 3 }, { memory: 0.5, iteration: 1 }] as Partial<ForgetOptions>[]) {
        for (const rolloutDtype of ['same', 'float32'] as const) {
          const report = await own.forget(batchOf(drawn), forgetting(drawn, { ...base, ...change, rolloutDtype }));
          assert.equal(report.skipped, null);
          deltas[Object.keys(change)[0] as string] = report.stage1LogpDelta;
          assert.ok(report.stage1LogpDelta < 0, `${JSON.stringify(change)}: ${report.stage1LogpDelta}`);
          assert.ok(report.paramChangedFrac > 0);
        }
      }
      assert.ok((deltas.steps as number) < (deltas.memory as number), 'three steps do more than one');
      const delta = flat(await kept(own, 1));
      assert.ok(Math.abs(norm(delta) - base.eta) < 1e-5 * base.eta, 'the step is as long as eta, before rounding');
      const change = { ...base, direction: 'random', memory: 0.5, iteration: 2 } as const;
      await own.forget(batchOf(drawn), forgetting(drawn, change));
      const turned = flat(await kept(own, 2)).map((x, i) => x - 0.5 * (delta[i] as number));
      assert.ok(Math.abs(norm(turned) - base.eta) < 1e-5 * base.eta);
      assert.equal(await own.hash(), before);
    });
  }

  it('refuses what is no variant', async () => {
    for (const [change, message] of [
      [{ loss: 'mse' }, /loss must be "complementary" or "nll", got "mse"/],
      [{ steps: 0 }, /steps must be an integer >= 1, got 0/],
      [{ memory: 1.5 }, /memory must be from 0 to 1, got 1\.5/],
      [{ memory: Number.NaN }, /memory must be from 0 to 1/],
      [{ direction: 'up' }, /direction must be "gradient" or "random", got "up"/],
      [{ normalize: 'l1' }, /normalize must be "none" or "gradNorm" or "relative", got "l1"/],
    ] as [Record<string, unknown>, RegExp][]) {
      await assert.rejects(policy.forget(batchOf(samples), forgetting(samples, change)), {
        code: 'EEPO_INVALID_ARGUMENT',
        message,
      });
    }
    for (const call of ['dropMemory', 'saveMemory'] as const) {
      await assert.rejects(call === 'dropMemory' ? policy.dropMemory(-1) : policy.saveMemory(join(folder, 'x'), 0.5), {
        message: /iteration must be an integer >= 0/,
      });
    }
    await assert.rejects(policy.findNonFinite(null, { weights: 'rolout' as never }), {
      code: 'EEPO_INVALID_ARGUMENT',
      message: /weights must be "policy" or "rollout", got "rolout"/,
    });
  });
});
