/**
 * Policies whose matrices are bfloat16. On the CPU the weights are widened exactly and everything else is float32, so a
 * bfloat16 policy must have the bits of a float32 policy that holds the rounded weights; only what is rounded (the
 * working copy after a step, theta') may differ.
 */
import assert from 'node:assert/strict';
import { mkdtemp, open, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { EntropyGate } from '../lib/algorithm/gate.js';
import { Policy } from '../lib/policy.js';
import type { ForgetOptions, Generation } from '../lib/policy-types.js';
import { roundToBfloat16 } from '../lib/reference.js';
import { twoStageRollout } from '../lib/rollout.js';
import { countdown } from '../lib/tasks/countdown.js';
import { defineConfig } from '../lib/train/config.js';
import { Trainer } from '../lib/train/trainer.js';
import { embeddedModel } from './support/data.js';
import { forgetting, values } from './support/policy.js';

const shape = { vocab_size: 211, hidden_size: 48, intermediate_size: 80, num_hidden_layers: 3, num_attention_heads: 6 };
const common = { ...shape, max_position_embeddings: 256, rms_norm_eps: 1e-6 };
/** Odd sizes too: rows of bfloat16 that end in the middle of a vector. */
const families: Record<string, Record<string, unknown>> = {
  qwen2: { ...common, model_type: 'qwen2', num_key_value_heads: 2, tie_word_embeddings: true },
  qwen3: { ...common, model_type: 'qwen3', num_key_value_heads: 3, head_dim: 16, tie_word_embeddings: false },
  llama: { ...common, model_type: 'llama', num_key_value_heads: 5, num_attention_heads: 5, hidden_size: 50 },
};
const prompts = [
  [1, 2, 3],
  [5, 6, 7, 8, 9, 10],
  [11, 200, 13],
];
const sequences = [[1, 2, 3, 4, 5], [7], Array.from({ length: 70 }, (_, i) => (i * 37) % 211)];

const _bytes = (arrays: ArrayLike<number>[]): number[] => arrays.flatMap((array) => Array.from(array));
const drawn = (all: Generation[]): number[] =>
  all.flatMap(({ tokens, logprob, entropy }) => [...tokens, ...logprob, ...entropy]);
const batchOf = (all: Generation[], of: readonly (readonly number[])[] = prompts) => ({
  prompts: all.map(({ prompt }) => of[prompt] as readonly number[]),
  responses: all.map(({ tokens }) => tokens),
});
const wave = (count: number, scale: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => scale * Math.sin(1 + i * 1.7));

/** The first bytes of a safetensors file, its header parsed. */
async function headerOf(path: string): Promise<Record<string, { dtype: string; shape: number[] }>> {
  const file = await open(path);
  try {
    const length = Number((await file.read(Buffer.alloc(8), 0, 8, 0)).buffer.readBigUInt64LE());
    const { buffer } = await file.read(Buffer.alloc(length), 0, length, 8);
    return JSON.parse(buffer.toString());
  } finally {
    await file.close();
  }
}

describe('bfloat16 weights', () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'eepo-bf16-'));
  });
  after(async () => {
    await rm(dir, { recursive: true });
  });

  for (const [family, config] of Object.entries(families)) {
    it(`${family}: has the bits of a float32 policy that holds the rounded weights`, async () => {
      const narrow = await Policy.create(config, { seed: 3, dtype: 'bfloat16' });
      await narrow.save(join(dir, family), { dtype: 'bfloat16' });
      const wide = await Policy.load(join(dir, family));
      assert.equal(narrow.dtype, 'bfloat16');
      assert.notEqual(await narrow.hash(), await wide.hash(), 'the master copy is not rounded');

      const ids = sequences[2] as number[];
      assert.deepEqual(await (await narrow.logits(ids)).data(), await (await wide.logits(ids)).data());
      assert.deepEqual(await narrow.score(sequences), await wide.score(sequences));
      const options = { maxNewTokens: 12, samplesPerPrompt: 3, seed: 8, stopTokens: [0] };
      const samples = await narrow.generate(prompts, options);
      assert.deepEqual(samples, await wide.generate(prompts, options));

      const batch = batchOf(samples);
      const seen = await narrow.forward(batch);
      assert.deepEqual(seen, await wide.forward(batch));
      const [a, b] = [wave(seen.logprob.length, 1), wave(seen.logprob.length, 0.2)];
      await narrow.backward(a, b);
      await wide.backward(a, b);
      assert.deepEqual(await values(await narrow.gradients()), await values(await wide.gradients()));
      narrow.dispose();
      wide.dispose();
    });
  }

  it('is near the float32 policy it was rounded from, in logits and gradients', async () => {
    const [wide, narrow] = [await Policy.load(embeddedModel), await Policy.load(embeddedModel, { dtype: 'bfloat16' })];
    const samples = await wide.generate([[2, 3, 7, 9, 104, 105, 41]], { maxNewTokens: 12, samplesPerPrompt: 8 });
    const batch = batchOf(samples, [[2, 3, 7, 9, 104, 105, 41]]);
    const [exact, rounded] = [await wide.forward(batch), await narrow.forward(batch)];
    const apart = exact.logprob.map((l, i) => Math.abs(l - (rounded.logprob[i] as number)));
    assert.ok(Math.max(...apart) < 0.1 && Math.max(...apart) > 1e-6, `${Math.max(...apart)}`);
    for (const policy of [wide, narrow]) await policy.backward(wave(exact.logprob.length, 1));
    const [left, right] = [await values(await wide.gradients()), await values(await narrow.gradients())];
    for (const [name, gradient] of left) {
      const other = right.get(name) as Float32Array;
      const norm = Math.hypot(...gradient);
      const error = Math.hypot(...gradient.map((g, i) => g - (other[i] as number)));
      assert.ok(error < 0.05 * norm, `${name}: ${error / norm}`);
    }
    for (const policy of [wide, narrow]) policy.dispose();
  });

  it('keeps updates that are smaller than a unit of bfloat16', async () => {
    const policy = await Policy.create(families.qwen2 as Record<string, unknown>, { seed: 4, dtype: 'bfloat16' });
    const name = 'model.layers.1.mlp.down_proj.weight';
    const master = async () => (await values(await policy.parameters())).get(name) as Float32Array;
    const start = await master();
    const batch = { prompts: [prompts[1] as number[]], responses: [[4, 9, 80, 33, 60]] };
    const step = async () => {
      await policy.forward(batch);
      await policy.backward(new Float32Array(5).fill(-0.2));
      await policy.step({ lr: 1e-6, weightDecay: 0 });
    };
    /** Share of the weights that round to something else than before the first step. */
    const moved = (now: Float32Array) =>
      start.filter((w, i) => roundToBfloat16(w) !== roundToBfloat16(now[i] as number)).length / start.length;
    await step();
    const first = await master();
    const lost = start.filter(
      (w, i) => roundToBfloat16(roundToBfloat16(w) + ((first[i] as number) - w)) === roundToBfloat16(w),
    );
    assert.ok(lost.length > 0.95 * start.length, 'a model that is bfloat16 alone would stand still');
    assert.ok(moved(first) < 0.1);
    for (let i = 1; i < 100; i++) await step();
    const last = await master();
    const distance = last.map((w, i) => Math.abs(w - (start[i] as number)));
    assert.ok(distance.filter((d) => d > 5e-5).length > 0.9 * distance.length, 'the master sums the updates up');
    assert.ok(moved(last) > 0.4, `${moved(last)}`);

    // and the working copy is the master rounded: what a checkpoint of it computes
    await policy.save(join(dir, 'stepped'), { dtype: 'bfloat16' });
    const twin = await Policy.load(join(dir, 'stepped'), { dtype: 'bfloat16', trainable: false });
    const working = (await values(await twin.parameters())).get(name) as Float32Array;
    assert.deepEqual([...working], [...last].map(roundToBfloat16));
    const reference = await policy.clone();
    assert.deepEqual(await reference.score(sequences), await policy.score(sequences));
    for (const one of [policy, twin, reference]) one.dispose();
  });

  describe('forgetting', () => {
    const puzzle = [[2, 3, 7, 9, 104, 105, 41]];
    let policy: Policy;
    let samples: Generation[];
    before(async () => {
      policy = await Policy.load(embeddedModel, { dtype: 'bfloat16' });
      samples = await policy.generate(puzzle, { maxNewTokens: 16, samplesPerPrompt: 16, seed: 5 });
    });
    after(() => policy.dispose());

    for (const rolloutDtype of ['same', 'float32'] as const) {
      it(`${rolloutDtype}: lowers what was sampled and leaves the policy as it is`, async () => {
        const before = [await policy.hash(), await policy.score(puzzle)];
        const options = forgetting(samples, { rolloutDtype, eta: 0.03, seed: 9 });
        const report = await policy.forget(batchOf(samples, puzzle), options);
        assert.equal(report.skipped, null);
        assert.ok(report.stage1LogpDelta < 0, `${report.stage1LogpDelta}`);
        assert.ok(report.paramChangedFrac > 1e-3, `${report.paramChangedFrac}`);
        assert.deepEqual([await policy.hash(), await policy.score(puzzle)], before);
        const memory = await policy.memory();
        const width = rolloutDtype === 'same' ? 2 : 4;
        assert.ok(memory.rollout >= width * 0.99 * policy.numParameters);
        assert.ok(memory.rollout < (width + 0.2) * policy.numParameters);

        const later = { maxNewTokens: 16, seed: 5, samplesPerPrompt: 4 } as const;
        const under = await policy.generate(puzzle, { ...later, weights: 'rollout' });
        assert.notDeepEqual(drawn(under), drawn(await policy.generate(puzzle, later)));
        await policy.syncRollout();
        assert.deepEqual(
          await policy.generate(puzzle, { ...later, weights: 'rollout' }),
          await policy.generate(puzzle, later),
        );
      });
    }

    it('rounds by (seed, iteration, element): the same bits again, others with another key', async () => {
      const report = async (change: Partial<ForgetOptions>) => {
        await policy.forget(batchOf(samples, puzzle), forgetting(samples, change));
        return policy.generate(puzzle, { maxNewTokens: 16, weights: 'rollout', temperature: 0 });
      };
      const first = await report({ seed: 1, iteration: 2 });
      assert.deepEqual(await report({ seed: 1, iteration: 2 }), first);
      assert.notDeepEqual(drawn(await report({ seed: 1, iteration: 3 })), drawn(first));
      assert.notDeepEqual(drawn(await report({ seed: 2, iteration: 2 })), drawn(first));
      await policy.syncRollout();
    });

    it('stochastic rounding keeps on average what rounding to nearest loses', async () => {
      const own = await Policy.create(families.llama as Record<string, unknown>, { seed: 2, dtype: 'bfloat16' });
      const all = await own.generate(prompts, { maxNewTokens: 8, samplesPerPrompt: 2 });
      // steps far below a unit of bfloat16: nearly no weight would move if it were rounded to nearest
      const shift = async (rolloutDtype: 'same' | 'float32', seed = 0) => {
        const options = forgetting(all, { rolloutDtype, eta: 1e-3, seed, normalize: 'gradNorm', probeTokens: 1000 });
        return (await own.forget(batchOf(all), options)).stage1LogpDelta;
      };
      const exact = await shift('float32');
      const rounded: number[] = [];
      for (let seed = 0; seed < 60; seed++) rounded.push(await shift('same', seed));
      const mean = rounded.reduce((sum, x) => sum + x, 0) / rounded.length;
      const deviation = Math.sqrt(rounded.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (rounded.length - 1));
      const standardError = deviation / Math.sqrt(rounded.length);
      assert.ok(exact < 0);
      assert.ok(
        Math.abs(mean - exact) < 4 * standardError + 0.05 * Math.abs(exact),
        `${mean} ± ${standardError}, ${exact}`,
      );
      own.dispose();
    });

    it('moves only what the step moves: no noise where it is tiny', async () => {
      const change = { eta: 1e-6, normalize: 'gradNorm' as const };
      const report = await policy.forget(batchOf(samples, puzzle), forgetting(samples, change));
      assert.ok(report.paramChangedFrac > 0 && report.paramChangedFrac < 1e-2, `${report.paramChangedFrac}`);
      await policy.syncRollout();
    });

    it('with eta = 0 EEPO is GRPO byte for byte', async () => {
      const rollout = { groupSize: 4, maxNewTokens: 16, seed: 3, iteration: 1 };
      const asked = puzzle.map((tokens, id) => ({ id, tokens }));
      const grpo = await twoStageRollout(policy, asked, { ...rollout, unlearn: null });
      for (const rolloutDtype of ['same', 'float32'] as const) {
        const gate = new EntropyGate({ gate: 'always' });
        const eepo = await twoStageRollout(policy, asked, { ...rollout, unlearn: { gate, eta: 0, rolloutDtype } });
        assert.equal(eepo.forget?.paramChangedFrac, 0);
        assert.deepEqual(
          eepo.samples.map(({ tokens, logprob, entropy }) => [tokens, logprob, entropy]),
          grpo.samples.map(({ tokens, logprob, entropy }) => [tokens, logprob, entropy]),
        );
      }
    });
  });

  describe('frozen', () => {
    it('holds its weights alone and computes the same', async () => {
      const policy = await Policy.load(embeddedModel, { dtype: 'bfloat16' });
      const frozen = await Policy.load(embeddedModel, { dtype: 'bfloat16', trainable: false });
      const wide = await Policy.load(embeddedModel, { trainable: false });
      const copy = await policy.clone();
      const puzzle = [[2, 3, 7, 9, 104, 105, 41]];
      const samples = await policy.generate(puzzle, { maxNewTokens: 8, samplesPerPrompt: 2 });
      const batch = batchOf(samples, puzzle);
      const seen = await policy.forward(batch, { keepActivations: false });
      for (const one of [frozen, copy]) {
        assert.equal(one.trainable, false);
        assert.deepEqual(await one.generate(puzzle, { maxNewTokens: 8, samplesPerPrompt: 2 }), samples);
        assert.deepEqual(await one.forward(batch, { keepActivations: false }), seen);
        assert.deepEqual(await one.score(puzzle), await policy.score(puzzle));
      }
      assert.equal(await copy.hash(), await frozen.hash());

      const vectors = [...(await frozen.parameters()).values()].filter((t) => t.shape.length === 1);
      const inVectors = vectors.reduce((sum, { shape: [n = 0] }) => sum + n, 0);
      const matrices = policy.numParameters - inVectors;
      const none = { master: 0, gradients: 0, moments: 0, rollout: 0 };
      for (const [one, width] of [[frozen, 2] as const, [copy, 2] as const, [wide, 4] as const]) {
        const { working, ...rest } = await one.memory();
        assert.deepEqual(rest, none);
        const expected = width * matrices + 4 * inVectors;
        assert.ok(working >= expected && working < 1.01 * expected + 64 * 100, `${working}, ${expected}`);
      }
      const training = await policy.memory();
      assert.ok(training.master >= 4 * policy.numParameters && training.working >= 2 * matrices);
      assert.ok(training.working < 2.1 * matrices, 'norms are not held twice');
      for (const one of [policy, frozen, wide, copy]) one.dispose();
    });

    it('refuses to be trained, saying why', async () => {
      for (const dtype of ['float32', 'bfloat16'] as const) {
        const frozen = await Policy.load(embeddedModel, { dtype, trainable: false });
        const batch = { prompts: [[2, 3]], responses: [[4, 5]] };
        const refused = { code: 'EEPO_UNSUPPORTED', message: /frozen/ };
        await assert.rejects(frozen.forward(batch), refused);
        await assert.rejects(frozen.backward(new Float32Array(2)), refused);
        await assert.rejects(frozen.step({ lr: 1 }), refused);
        await assert.rejects(frozen.gradients(), refused);
        const options = { ...forgetting([]), entropy: new Float32Array(2) };
        await assert.rejects(frozen.forget(batch, options), refused);
        const unknown = { ...options, rolloutDtype: 'float16' as 'float32' };
        await assert.rejects(frozen.forget(batch, unknown), { code: 'EEPO_INVALID_ARGUMENT', message: /rolloutDtype/ });
        await frozen.zeroGrad();
        await frozen.syncRollout();
        assert.equal((await frozen.score([[2, 3]])).length, 1);
        frozen.dispose();
      }
    });

    it('is refused in a type that matrices cannot have', async () => {
      const options = { dtype: 'float16' as 'float32' };
      await assert.rejects(Policy.load(embeddedModel, options), { code: 'EEPO_UNSUPPORTED', message: /float16/ });
    });
  });

  describe('files', () => {
    it('are written in bfloat16, sharded, and read back the same', async () => {
      const policy = await Policy.create(families.qwen3 as Record<string, unknown>, { seed: 6, dtype: 'bfloat16' });
      const folder = join(dir, 'sharded');
      await policy.save(folder, { dtype: 'bfloat16', maxShardBytes: 40_000 });
      const shards = (await readdir(folder)).filter((name) => /^model-00001-of-\d+\.safetensors$/.test(name));
      const first = await headerOf(join(folder, shards[0] as string));
      assert.deepEqual(first.__metadata__ as unknown, { format: 'pt' });
      assert.equal(first['model.embed_tokens.weight']?.dtype, 'BF16');
      const frozen = await policy.clone();
      const again = await Policy.load(folder, { dtype: 'bfloat16', trainable: false });
      assert.equal(await again.hash(), await frozen.hash());
      // what is narrow already is saved wide without loss
      await again.save(join(dir, 'wide'), { dtype: 'float32' });
      const wide = await Policy.load(join(dir, 'wide'));
      assert.equal(await wide.hash(), await again.hash());
      for (const one of [policy, frozen, again, wide]) one.dispose();
    });

    it('of the master copy lose nothing', async () => {
      const policy = await Policy.create(families.llama as Record<string, unknown>, { seed: 6, dtype: 'bfloat16' });
      await policy.save(join(dir, 'master'));
      const again = await Policy.load(join(dir, 'master'), { dtype: 'bfloat16' });
      assert.equal(await again.hash(), await policy.hash());
      for (const one of [policy, again]) one.dispose();
    });
  });

  it('is trained by EEPO much as in float32, with a frozen reference of its own', async () => {
    const config = defineConfig({
      run: { iterations: 2, seed: 3 },
      rollout: { promptsPerIteration: 2, groupSize: 4, maxNewTokens: 12 },
      unlearn: { gate: 'always' },
      objective: { klCoef: 0.01 },
      optimizer: { lr: 1e-4, miniBatchPrompts: 1 },
    });
    const run = async (dtype: 'float32' | 'bfloat16') => {
      const policy = await Policy.load(embeddedModel, { dtype });
      const start = await policy.hash();
      const all: Readonly<Record<string, number | undefined>>[] = [];
      for await (const { metrics } of new Trainer({ policy, task: countdown(), config })) all.push({ ...metrics });
      assert.notEqual(await policy.hash(), start);
      policy.dispose();
      return all;
    };
    const [wide, narrow] = [await run('float32'), await run('bfloat16')];
    assert.equal(narrow.length, 2);
    for (const [i, metrics] of wide.entries()) {
      const near = (name: string, limit: number) => {
        const [left, right] = [metrics[name] as number, narrow[i]?.[name] as number];
        assert.ok(Math.abs(left - right) <= limit, `${name} of ${i}: ${left}, ${right}`);
      };
      near('unlearn/stage1_logp_delta', 0.03); // the first about -0.62
      near('unlearn/grad_norm', 0.3); // 14 to 26
    }
    assert.ok((narrow[0]?.['unlearn/stage1_logp_delta'] as number) < -0.5);
  });

  it('a response does not depend on what it is batched with', async () => {
    const policy = await Policy.create(families.qwen2 as Record<string, unknown>, { seed: 3, dtype: 'bfloat16' });
    const together = await policy.score(sequences);
    for (const [i, sequence] of sequences.entries()) assert.deepEqual((await policy.score([sequence]))[0], together[i]);
    const options = { maxNewTokens: 10, seed: 4, samplesPerPrompt: 2 };
    const all = await policy.generate(prompts, options);
    for (let p = 0; p < prompts.length; p++) {
      const alone = await policy.generate([prompts[p] as number[]], { ...options, promptIds: [p] });
      assert.deepEqual(drawn(alone), drawn(all.filter(({ prompt }) => prompt === p)));
    }
    policy.dispose();
  });
});
