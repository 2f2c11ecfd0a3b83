/**
 * Device 'cuda' beside the CPU: tensors, the kernels' TypeScript face, the policy and a training run. Runs where a GPU
 * is, or on the emulated CUDA half (scripts/build-emulated-cuda.sh and EEPO_CUDA_LIBRARY); else it skips, saying so.
 */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { cudaStatus } from '../lib/cuda.js';
import { deviceInfo, emptyCache } from '../lib/device.js';
import { ascend, complementaryGrad, complementaryLoss, sample, tokenGrad, tokenStats } from '../lib/kernels.js';
import { Policy } from '../lib/policy.js';
import type { Generation } from '../lib/policy-types.js';
import { countdown } from '../lib/tasks/countdown.js';
import { type FloatDType, Tensor } from '../lib/tensor.js';
import { defineConfig } from '../lib/train/config.js';
import { Trainer } from '../lib/train/trainer.js';
import { embeddedModel } from './support/data.js';

const status = cudaStatus();
const skip = status.available ? false : `no CUDA: ${status.reason}`;

/** Numbers that look random and are the same everywhere. */
function noise(count: number, scale = 1, seed = 1): Float32Array {
  let state = seed >>> 0;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return scale * (state / 2 ** 31 - 1);
  });
}

async function maxDifference(left: Tensor, right: Tensor): Promise<number> {
  const [a, b] = [await left.data(), await right.data()];
  assert.equal(a.length, b.length);
  return a.reduce((most, value, i) => {
    const other = b[i] as number;
    return Object.is(value, other) ? most : Math.max(most, Math.abs(value - other));
  }, 0);
}

/** The largest difference of `right` from `left` as a share of the largest number of `left`. */
function relative(left: ArrayLike<number>, right: ArrayLike<number>): number {
  let size = 0;
  let difference = 0;
  assert.equal(left.length, right.length);
  for (let i = 0; i < left.length; i++) {
    size = Math.max(size, Math.abs(left[i] as number));
    difference = Math.max(difference, Math.abs((left[i] as number) - (right[i] as number)));
  }
  return difference / Math.max(size, 1e-30);
}

describe('cuda: tensors', { skip }, () => {
  it('go there and back with the same bits', async () => {
    for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
      const here = Tensor.from(noise(24, 3), { shape: [4, 6], dtype });
      const there = await here.to({ device: 'cuda' });
      assert.equal(there.device, 'cuda');
      assert.equal(there.dtype, dtype);
      assert.deepEqual(there.shape, [4, 6]);
      assert.deepEqual(await there.data(), await here.data());
      const back = await there.to({ device: 'cpu' });
      assert.equal(back.device, 'cpu');
      assert.deepEqual(await back.data(), await here.data());
    }
    const ids = Tensor.from(BigInt64Array.of(3n, -1n, 2n ** 40n), { device: 'cuda' });
    assert.deepEqual(await ids.data(), BigInt64Array.of(3n, -1n, 2n ** 40n));
  });

  it('are made there, changed in dtype, cloned, reshaped and disposed of', async () => {
    const zeros = Tensor.zeros([3, 5], { device: 'cuda' });
    assert.equal(zeros.device, 'cuda');
    assert.ok((await zeros.data()).every((value) => value === 0));
    const values = Tensor.from(Float32Array.of(1.0001, -2.5, 3e4), { device: 'cuda' });
    const half = await values.to({ dtype: 'bfloat16' });
    assert.equal(half.device, 'cuda');
    assert.deepEqual(await half.data(), await (await Tensor.from(await values.data(), { dtype: 'bfloat16' })).data());
    const narrow = await values.to({ dtype: 'float16', device: 'cpu' });
    assert.deepEqual([narrow.device, narrow.dtype], ['cpu', 'float16']);
    assert.deepEqual((await values.clone()).device, 'cuda');
    assert.deepEqual((await zeros.reshape([5, 3]).data()).length, 15);
    zeros.dispose();
    assert.equal(zeros.disposed, true);
  });

  it('of two devices are not mixed', async () => {
    const here = Tensor.from(noise(8), { shape: [2, 4] });
    const there = await here.to({ device: 'cuda' });
    await assert.rejects(tokenStats({ hidden: here, head: there }, [0, 1]), {
      code: 'EEPO_INVALID_ARGUMENT',
      message: /hidden is on device 'cpu' and head on 'cuda'/,
    });
    await assert.rejects(ascend([here], [there], { eta: 1, into: [here] }), /grads\[0\] is on device 'cuda'/);
  });

  it('that do not fit say how much was asked for and what to do', () => {
    assert.throws(() => Tensor.zeros([1 << 20, 1 << 20], { device: 'cuda' }), {
      code: 'EEPO_OUT_OF_MEMORY',
      message: /out of memory: .*asked for.*lower microBatchTokens/is,
    });
  });
});

describe('cuda: kernels agree with the CPU', { skip }, () => {
  const rows = 7;
  const vocab = 1003;
  const targets = [0, 1002, 500, 3, 77, 900, 41];

  for (const dtype of ['float32', 'bfloat16', 'float16'] as const satisfies readonly FloatDType[]) {
    it(`tokenStats and tokenGrad of ${dtype} logits`, async () => {
      const here = Tensor.from(noise(rows * vocab, 8), { shape: [rows, vocab], dtype });
      const there = await here.to({ device: 'cuda' });
      for (const ids of [targets, await Tensor.from(targets, { dtype: 'int64' }).to({ device: 'cuda' })]) {
        const [cpu, gpu] = [
          await tokenStats(here, targets, { temperature: 0.7 }),
          await tokenStats(there, ids, { temperature: 0.7 }),
        ];
        for (const name of ['logprob', 'entropy', 'oneMinusP'] as const) {
          assert.equal(gpu[name].device, 'cuda');
          assert.ok((await maxDifference(cpu[name], gpu[name])) < 1e-5, name);
        }
      }
      const a = noise(rows, 1, 5);
      const b = noise(rows, 0.3, 6);
      a[2] = b[2] = 0;
      await tokenGrad(here, targets, { a, b });
      await tokenGrad(there, targets, { a, b });
      const [cpu, gpu] = [await here.data(), await there.data()];
      assert.ok(relative(cpu, gpu) < (dtype === 'float32' ? 1e-6 : 1e-2));
      assert.ok(gpu.subarray(2 * vocab, 3 * vocab).every((value) => value === 0));
    });
  }

  it('tokenStats and tokenGrad of hidden states and a head, with rows dropped', async () => {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const hidden = Tensor.from(noise(rows * 24, 1, 2), { shape: [rows, 24], dtype });
      const head = Tensor.from(noise(vocab * 24, 1, 3), { shape: [vocab, 24], dtype });
      const input = { hidden: await hidden.to({ device: 'cuda' }), head: await head.to({ device: 'cuda' }) };
      const cpu = await tokenStats({ hidden, head }, targets);
      const gpu = await tokenStats(input, targets);
      assert.ok((await maxDifference(cpu.logprob, gpu.logprob)) < 1e-4);
      assert.ok((await maxDifference(cpu.entropy, gpu.entropy)) < 1e-4);
      for (const dropped of [[], [0, 3, 4]]) {
        const a = noise(rows, 1, 7);
        const b = noise(rows, 1, 8);
        for (const row of dropped) a[row] = b[row] = 0;
        const left = await tokenGrad({ hidden, head }, targets, { a, b });
        const right = await tokenGrad(input, targets, { a, b });
        // In bfloat16 the gradient of the logits is rounded before the products, as everywhere.
        const bound = dtype === 'float32' ? 1e-5 : 1e-2;
        assert.ok(relative(await left.hidden.data(), await right.hidden.data()) < bound, `hidden, ${dtype}`);
        assert.ok(relative(await left.head.data(), await right.head.data()) < bound, `head, ${dtype}`);
        for (const row of dropped) {
          const part = (await right.hidden.data()).subarray(row * 24, row * 24 + 24);
          assert.ok(part.every((value) => value === 0));
        }
      }
    }
  });

  it('complementaryLoss, in one piece and with the gate carried over', async () => {
    const tokens = 40;
    const logprob = noise(tokens, 2, 9).map((value) => -Math.abs(value) - 1e-4);
    const entropy = noise(tokens, 0.4, 10).map(Math.abs);
    const offsets = [0, 1, 1, 18, 40];
    const there = async (values: Float32Array): Promise<Tensor> => Tensor.from(values).to({ device: 'cuda' });
    const cpu = await complementaryLoss({ logprob, entropy, offsets });
    const gpu = await complementaryLoss({ logprob: await there(logprob), entropy: await there(entropy), offsets });
    assert.deepEqual(gpu.gate, cpu.gate);
    assert.equal(gpu.a.device, 'cuda');
    assert.ok(Math.abs(gpu.loss - cpu.loss) < 1e-9);
    assert.ok((await maxDifference(cpu.a, gpu.a)) < 1e-7);
    for (const name of ['tokens', 'openTokens', 'clampedLow', 'clampedHigh', 'activeTokens'] as const) {
      assert.equal(gpu[name], cpu[name], name);
    }
    const weight = Float32Array.of(1, 1);
    const carry = Float32Array.of(0.1, Number.NaN, 0.5, 0.2);
    const onGpu = await Tensor.from(carry, { shape: [2, 2] }).to({ device: 'cuda' });
    const parts = { offsets: [0, 1, 40], weight };
    const left = await complementaryLoss({ logprob, entropy, carry, ...parts });
    const right = await complementaryLoss({
      logprob: await there(logprob),
      entropy: await there(entropy),
      carry: onGpu,
      ...parts,
    });
    assert.deepEqual(right.gate, left.gate);
    assert.deepEqual(await onGpu.data(), carry);
  });

  it('complementaryGrad, on logits and through a head', async () => {
    const entropy = Float32Array.of(0.1, 0.2, 0.1, 0.9, 0.9, 0.05, 0.1);
    const options = { entropy, offsets: [0, 3, 7], clampGrad: 'saturate' as const };
    const here = Tensor.from(noise(rows * vocab, 6), { shape: [rows, vocab] });
    const there = await here.to({ device: 'cuda' });
    const [cpu, gpu] = [
      await complementaryGrad(here, targets, options),
      await complementaryGrad(there, targets, options),
    ];
    assert.deepEqual([...gpu.gate], [...cpu.gate]);
    assert.ok(gpu.openTokens > 0 && gpu.openTokens < rows);
    assert.ok(Math.abs(gpu.loss - cpu.loss) < 1e-6 * Math.abs(cpu.loss));
    assert.ok(relative(await cpu.a.data(), await gpu.a.data()) < 1e-5);
    assert.ok((await maxDifference(cpu.logprob, gpu.logprob)) < 1e-5);
    assert.ok(relative(await here.data(), await there.data()) < 1e-5);
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const hidden = Tensor.from(noise(rows * 24, 1, 2), { shape: [rows, 24], dtype });
      const head = Tensor.from(noise(vocab * 24, 1, 3), { shape: [vocab, 24], dtype });
      const left = await complementaryGrad({ hidden, head }, targets, options);
      const input = { hidden: await hidden.to({ device: 'cuda' }), head: await head.to({ device: 'cuda' }) };
      const right = await complementaryGrad(input, targets, options);
      const bound = dtype === 'float32' ? 1e-5 : 1e-2;
      assert.ok(relative(await left.hidden.data(), await right.hidden.data()) < bound, `hidden, ${dtype}`);
      assert.ok(relative(await left.head.data(), await right.head.data()) < bound, `head, ${dtype}`);
    }
  });

  it('ascend to the bit, by both roundings and into every dtype', async () => {
    for (const rounding of ['nearest', 'stochastic'] as const) {
      for (const into of ['float32', 'bfloat16', 'float16'] as const) {
        const params = Tensor.from(noise(1000, 0.02, 11), { shape: [10, 100] });
        const grads = Tensor.from(noise(1000, 1, 12), { shape: [10, 100] });
        const target = Tensor.zeros([10, 100], { dtype: into });
        const gpu = {
          params: await params.to({ device: 'cuda' }),
          grads: await grads.to({ device: 'cuda' }),
          target: await target.to({ device: 'cuda' }),
        };
        const options = { eta: 1e-4, rounding, seed: 5 };
        const left = await ascend([params], [grads], { ...options, into: [target] });
        const right = await ascend([gpu.params], [gpu.grads], { ...options, into: [gpu.target] });
        assert.deepEqual(right, left);
        assert.deepEqual(await gpu.target.data(), await target.data());
      }
    }
  });

  it('sample', async () => {
    const here = Tensor.from(noise(64 * vocab, 4, 13), { shape: [64, vocab] });
    const there = await here.to({ device: 'cuda' });
    for (const options of [{}, { temperature: 0 }, { topK: 20 }, { topP: 0.6, temperature: 0.8 }]) {
      const [cpu, gpu] = [await sample(here, { seed: 3, ...options }), await sample(there, { seed: 3, ...options })];
      assert.deepEqual(await gpu.tokens.data(), await cpu.tokens.data(), JSON.stringify(options));
      assert.ok((await maxDifference(cpu.logprob, gpu.logprob)) < 1e-5);
      assert.ok((await maxDifference(cpu.entropy, gpu.entropy)) < 1e-5);
    }
    const broken = Tensor.from(noise(64 * vocab, 4, 13).fill(Number.NaN, 5 * vocab, 6 * vocab), { shape: [64, vocab] });
    await assert.rejects(sample(await broken.to({ device: 'cuda' })), { code: 'EEPO_NON_FINITE', message: /row 5 / });
  });

  it('a target out of range is named, wherever the targets are', async () => {
    const logits = Tensor.zeros([3, 10], { device: 'cuda' });
    const ids = Tensor.from(Int32Array.of(1, 10, -1));
    for (const bad of [[1, 10, -1], await ids.to({ device: 'cuda' })]) {
      await assert.rejects(tokenStats(logits, bad), { code: 'EEPO_INVALID_ARGUMENT', message: /targets\[1\] is 10,/ });
      await assert.rejects(tokenGrad(logits, bad, { a: [1, 1, 1] }), /targets\[1\] is 10,/);
    }
    assert.ok(
      (await logits.data()).every((value) => value === 0),
      'and nothing was written',
    );
  });
});

const shape = { vocab_size: 211, hidden_size: 48, intermediate_size: 80, num_hidden_layers: 3, num_attention_heads: 6 };
const families = {
  qwen2: { ...shape, model_type: 'qwen2', num_key_value_heads: 2, tie_word_embeddings: true },
  qwen3: { ...shape, model_type: 'qwen3', num_key_value_heads: 3, head_dim: 16, tie_word_embeddings: false },
  llama: {
    ...shape,
    model_type: 'llama',
    num_key_value_heads: 6,
    rope_theta: 500000,
    rope_scaling: {
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 64,
    },
  },
};

describe('cuda: a policy agrees with its twin on the CPU', { skip }, () => {
  const sequences = [[1, 2, 3, 4, 5], [7], Array.from({ length: 70 }, (_, i) => (i * 37) % 211)];
  const prompts = [
    [1, 2, 3],
    [5, 6, 7, 8, 9, 10],
  ];

  for (const [family, json] of Object.entries(families)) {
    it(`${family}: scores, logits, samples, gradients, steps and forgetting`, async () => {
      const config = { max_position_embeddings: 256, rms_norm_eps: 1e-6, ...json };
      const [cpu, gpu] = [
        await Policy.create(config, { seed: 3 }),
        await Policy.create(config, { seed: 3, device: 'cuda' }),
      ];
      assert.equal(gpu.device, 'cuda');
      assert.equal(await gpu.hash(), await cpu.hash());

      const [scored, other] = [await cpu.score(sequences), await gpu.score(sequences)];
      for (const [i, { logprob, entropy }] of scored.entries()) {
        assert.ok(relative(entropy, other[i]?.entropy ?? []) < 1e-5);
        if (logprob.length > 0) assert.ok(relative(logprob, other[i]?.logprob ?? []) < 1e-5);
      }

      const options = { maxNewTokens: 12, samplesPerPrompt: 3, seed: 8, stopTokens: [0] };
      const greedy = { ...options, temperature: 0, samplesPerPrompt: 1 };
      const tokens = (all: Generation[]): number[][] => all.map((one) => [...one.tokens]);
      assert.deepEqual(tokens(await gpu.generate(prompts, greedy)), tokens(await cpu.generate(prompts, greedy)));
      const drawn = await cpu.generate(prompts, options);
      assert.deepEqual(tokens(await gpu.generate(prompts, options)), tokens(drawn));

      const batch = {
        prompts: drawn.map(({ prompt }) => prompts[prompt] as number[]),
        responses: drawn.map((one) => one.tokens),
      };
      const [seen, same] = [await cpu.forward(batch), await gpu.forward(batch)];
      assert.ok(relative(seen.logprob, same.logprob) < 1e-5);
      assert.ok(relative(seen.entropy, same.entropy) < 1e-5);
      const a = noise(seen.logprob.length, 1, 20);
      const b = noise(seen.logprob.length, 0.2, 21);
      await cpu.backward(a, b);
      await gpu.backward(a, b);
      const gradients = await gpu.gradients();
      for (const [name, gradient] of await cpu.gradients()) {
        const there = gradients.get(name) as Tensor;
        assert.equal(there.device, 'cuda');
        assert.ok(relative(await gradient.data(), await there.data()) < 2e-5, name);
      }
      const [step, twin] = [await cpu.step({ lr: 1e-3 }), await gpu.step({ lr: 1e-3 })];
      assert.ok(twin.applied && Math.abs(step.gradNorm - twin.gradNorm) < 1e-5 * step.gradNorm);

      const forgetting = {
        entropy: Float32Array.from(drawn.flatMap(({ entropy }) => [...entropy])),
        eta: 0.1,
        alpha: Number.POSITIVE_INFINITY,
        window: 3,
        epsLow: 1e-6,
        epsHigh: 1e-5,
        clampGrad: 'zero' as const,
        normalize: 'none' as const,
      };
      const before = await gpu.hash();
      const [left, right] = [await cpu.forget(batch, forgetting), await gpu.forget(batch, forgetting)];
      assert.equal(right.activeTokens, left.activeTokens);
      assert.ok(Math.abs(left.gradNorm - right.gradNorm) < 1e-4 * left.gradNorm);
      assert.ok(right.stage1LogpDelta < 0, 'forgetting lowers what was sampled');
      assert.equal(await gpu.hash(), before, 'and never writes the policy');
      const later = { ...options, weights: 'rollout' as const };
      assert.equal((await gpu.generate(prompts, later)).length, 6);
      cpu.dispose();
      gpu.dispose();
    });
  }
});

describe('cuda: memory while responses are drawn', { skip }, () => {
  const config = {
    model_type: 'llama',
    vocab_size: 37,
    hidden_size: 8,
    intermediate_size: 8,
    num_hidden_layers: 1,
    num_attention_heads: 4,
    num_key_value_heads: 4,
    head_dim: 128, // 4 kB of keys and values per position and layer
    max_position_embeddings: 128,
    rms_norm_eps: 1e-6,
  };
  const options = { samplesPerPrompt: 9, maxNewTokens: 36, seed: 4, stopTokens: [] };

  it('a cache whose layers are larger than a copy of rows may be wide grows', async () => {
    const gpu = await Policy.create(config, { seed: 3, device: 'cuda' });
    // 33 tokens need a larger region: by then a layer has 1.2 MB, see kMaxPitch of native/test/emulator/runtime.cc
    const grown = await gpu.generate([[1, 2, 3]], options);
    const bounded = await gpu.generate([[1, 2, 3]], { ...options, cacheTokens: 600 });
    assert.deepEqual(grown, bounded);
    gpu.dispose();
  });

  it('is lent only while nothing in it is needed: the same gradients whatever is called in between', async () => {
    const batch = { prompts: [[1, 2, 3], [1, 2, 3], [4]], responses: [[5, 6], [7], [8, 9, 10, 11]] };
    const entropy = new Float32Array(7).fill(0.3);
    const gate = { alpha: 9, window: 2, epsLow: 1e-6, epsHigh: 1e-5, clampGrad: 'zero', normalize: 'none' } as const;
    const short = { samplesPerPrompt: 2, maxNewTokens: 3, seed: 4, stopTokens: [] };
    const small = { ...config, num_attention_heads: 2, num_key_value_heads: 1, head_dim: 8, num_hidden_layers: 1 };
    for (const choices of [{ gradientCheckpointing: true }, { lora: { rank: 2, seed: 3 } }] as const) {
      const run = async (disturbed: boolean) => {
        const gpu = await Policy.create(small, { seed: 3, device: 'cuda', ...choices });
        const disturb = async () => {
          if (!disturbed) return;
          await gpu.generate([[1, 2, 3]], short);
          await gpu.score([[1, 2, 3, 4, 5, 6, 7]]);
          (await gpu.clone()).dispose();
          await gpu.forward(batch, { keepActivations: false });
        };
        const seen: unknown[] = [];
        for (let step = 0; step < 2; step++) {
          await disturb();
          seen.push((await gpu.forget(batch, { ...gate, entropy, eta: 0.1 })).gradNorm);
          await disturb();
          seen.push(await gpu.generate([[5, 6]], { ...short, weights: 'rollout' }));
          await gpu.syncRollout();
          for (let micro = 0; micro < 2; micro++) {
            seen.push(await gpu.forward(batch));
            await disturb();
            await gpu.backward(new Float32Array(7).fill(-0.1), null);
            await disturb();
          }
          for (const tensor of (await gpu.gradients()).values()) seen.push(await tensor.data());
          seen.push(await gpu.step({ lr: 1e-2 }));
        }
        seen.push(await gpu.hash());
        gpu.dispose();
        return seen;
      };
      assert.deepEqual(await run(true), await run(false));
    }
  });
});

describe('cuda: a policy in bfloat16', { skip }, () => {
  // Both have the same weights; the GPU rounds what they are multiplied with as well, 2^-9 relative per product.
  const prompts = [
    [1, 2, 3],
    [5, 6, 7, 8, 9, 10],
  ];
  /** ||left - right|| / ||left|| */
  const apart = (left: Float32Array, right: Float32Array): number =>
    Math.hypot(...left.map((x, i) => x - (right[i] as number))) / Math.hypot(...left);

  for (const [family, json] of Object.entries(families)) {
    it(`${family}: is near its twin on the CPU`, async () => {
      const config = { max_position_embeddings: 256, rms_norm_eps: 1e-6, ...json };
      const [cpu, gpu] = [
        await Policy.create(config, { seed: 3, dtype: 'bfloat16' }),
        await Policy.create(config, { seed: 3, dtype: 'bfloat16', device: 'cuda' }),
      ];
      assert.equal(await gpu.hash(), await cpu.hash(), 'the same master copy');
      const [frozen, frozenTwin] = [await cpu.clone(), await gpu.clone()];
      assert.equal(await frozenTwin.hash(), await frozen.hash(), 'and the same working copy');
      assert.deepEqual(await frozenTwin.memory(), await frozen.memory());

      const ids = Array.from({ length: 40 }, (_, i) => (i * 37) % 211);
      const logits = async (policy: Policy) => (await (await policy.logits(ids)).data()) as Float32Array;
      assert.ok(apart(await logits(cpu), await logits(gpu)) < 0.02);

      const options = { maxNewTokens: 12, samplesPerPrompt: 3, seed: 8, stopTokens: [0] };
      const drawn = await gpu.generate(prompts, options);
      const batch = {
        prompts: drawn.map(({ prompt }) => prompts[prompt] as number[]),
        responses: drawn.map((one) => one.tokens),
      };
      const [seen, same] = [await cpu.forward(batch), await gpu.forward(batch)];
      assert.ok(apart(seen.logprob, same.logprob) < 0.01);
      const recorded = Float32Array.from(drawn.flatMap(({ logprob }) => [...logprob]));
      assert.ok(relative(recorded, same.logprob) < 5e-3, 'what was recorded is what a forward gives');
      assert.deepEqual(await frozenTwin.forward(batch, { keepActivations: false }), same);

      const [a, b] = [noise(seen.logprob.length, 1, 20), noise(seen.logprob.length, 0.2, 21)];
      await cpu.backward(a, b);
      await gpu.backward(a, b);
      const gradients = await gpu.gradients();
      for (const [name, gradient] of await cpu.gradients()) {
        const [left, right] = [await gradient.data(), await (gradients.get(name) as Tensor).data()];
        assert.ok(apart(left as Float32Array, right as Float32Array) < 0.05, name);
      }
      for (const policy of [cpu, gpu]) assert.ok((await policy.step({ lr: 1e-3 })).applied);
      assert.ok(apart(await logits(cpu), await logits(gpu)) < 0.05, 'the step reached the working copy');

      const entropy = Float32Array.from(drawn.flatMap((one) => [...one.entropy]));
      const gate = { alpha: Number.POSITIVE_INFINITY, window: 3, epsLow: 1e-6, epsHigh: 1e-5 };
      const how = { ...gate, clampGrad: 'zero' as const, normalize: 'none' as const, entropy };
      for (const rolloutDtype of ['same', 'float32'] as const) {
        const before = await gpu.hash();
        const report = await gpu.forget(batch, { ...how, eta: 0.1, rolloutDtype });
        assert.ok(report.stage1LogpDelta < 0 && report.paramChangedFrac > 0);
        assert.equal(await gpu.hash(), before);
        const still = await gpu.forget(batch, { ...how, eta: 0, rolloutDtype });
        assert.equal(still.paramChangedFrac, 0);
      }
      for (const policy of [cpu, gpu, frozen, frozenTwin]) policy.dispose();
    });
  }

  it('is loaded and saved: the same bytes', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'eepo-cuda-bf16-'));
    const narrow = { dtype: 'bfloat16', trainable: false } as const;
    const gpu = await Policy.load(embeddedModel, { ...narrow, device: 'cuda' });
    const cpu = await Policy.load(embeddedModel, narrow);
    assert.equal(await gpu.hash(), await cpu.hash());
    await gpu.save(folder); // widened: in bfloat16 norms would be rounded too
    const again = await Policy.load(folder, narrow);
    assert.equal(await again.hash(), await cpu.hash());
    for (const policy of [gpu, cpu, again]) policy.dispose();
    await rm(folder, { recursive: true });
  });
});

describe('cuda: the package', { skip }, () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'eepo-cuda-'));
  });
  after(async () => {
    await rm(dir, { recursive: true });
  });

  it('loads, saves and clones: the same bytes', async () => {
    const cpu = await Policy.load(embeddedModel);
    const gpu = await Policy.load(embeddedModel, { device: 'cuda' });
    assert.equal(await gpu.hash(), await cpu.hash());
    const copy = await gpu.clone();
    assert.deepEqual([copy.device, await copy.hash()], ['cuda', await cpu.hash()]);
    await gpu.save(join(dir, 'saved'));
    const again = await Policy.load(join(dir, 'saved'));
    assert.equal(await again.hash(), await cpu.hash());
    for (const policy of [cpu, gpu, copy, again]) policy.dispose();
  });

  it('goes on from saved weights and moments: the same bytes, also from the other device', async () => {
    const batch = { prompts: [[5, 7, 9]], responses: [[4, 6, 8, 2]] };
    const update = async (policy: Policy): Promise<void> => {
      await policy.forward(batch);
      await policy.backward(new Float32Array(4).fill(-0.25), null);
      await policy.step({ lr: 1e-3 });
    };
    for (const lora of [undefined, { rank: 2 }]) {
      const load = (device: 'cpu' | 'cuda') => Policy.load(embeddedModel, { device, ...(lora ? { lora } : {}) });
      using gpu = await load('cuda');
      await update(gpu);
      const at = join(dir, lora ? 'lora' : 'full');
      await (lora ? gpu.saveAdapter(at) : gpu.save(at));
      await gpu.saveOptimizer(join(at, 'optimizer'));
      const saved = await readFile(join(at, 'optimizer'));
      const before = await gpu.hash();
      await update(gpu);
      for (const device of ['cuda', 'cpu'] as const) {
        using twin = await load(device);
        await twin.restoreWeights(at);
        await twin.loadOptimizer(join(at, 'optimizer'));
        assert.equal(await twin.hash(), before);
        await twin.saveOptimizer(join(at, 'again'));
        assert.ok(saved.equals(await readFile(join(at, 'again'))));
        if (device === 'cpu') continue;
        await update(twin);
        assert.equal(await twin.hash(), await gpu.hash());
      }
    }
  });

  it('has the same gradients every time, of responses that begin behind one prompt', async () => {
    using policy = await Policy.load(embeddedModel, { device: 'cuda' });
    using twin = await Policy.load(embeddedModel);
    const samples = 8; // the hidden state of the prompt's last token gets a gradient from each
    const prompts = Array.from({ length: samples }, (_, s) => [1, 2, 3, 4, 5, s < 4 ? 6 : 7]);
    const responses = prompts.map((_, s) => Array.from({ length: 8 }, (_, t) => (7 * s + 3 * t) % 90));
    const a = noise(64, 1, 5);
    const gradients = async (of: Policy) => {
      await of.forward({ prompts, responses });
      await of.backward(a, null);
      const all = await of.gradients();
      const data = await Promise.all([...all.values()].map((tensor) => tensor.data()));
      await of.zeroGrad();
      return data;
    };
    const first = await gradients(policy);
    const there = await gradients(twin);
    for (const [i, gradient] of first.entries()) assert.ok(relative(there[i] as Float32Array, gradient) < 1e-4);
    for (let again = 0; again < 10; again++) assert.deepEqual(await gradients(policy), first);
  });

  it('waits for the GPU once per position, and for nothing else while it generates', async () => {
    const policy = await Policy.load(embeddedModel, { device: 'cuda' });
    const waits = async (): Promise<number> => (await deviceInfo('cuda')).synchronizations;
    const started = await waits();
    const options = { maxNewTokens: 9, samplesPerPrompt: 4, stopTokens: [] };
    await policy.generate([[2, 3, 7, 9, 104, 105, 41]], options);
    assert.equal((await waits()) - started, 9);
    policy.dispose();
  });

  it('gives memory back', async () => {
    const held = async (): Promise<number> => (await deviceInfo('cuda')).allocatedBytes;
    const use = async (): Promise<void> => {
      const policy = await Policy.load(embeddedModel, { device: 'cuda' });
      const [one] = await policy.generate([[2, 3, 7, 9, 104, 105, 41]], { maxNewTokens: 4 });
      await policy.forward({ prompts: [[2, 3, 7]], responses: [(one as Generation).tokens] });
      policy.dispose();
      await emptyCache();
    };
    await use();
    const started = await held();
    await use();
    assert.equal(await held(), started);
  });

  it('trains as on the CPU', async () => {
    const config = defineConfig({
      run: { iterations: 2, seed: 3 },
      rollout: { promptsPerIteration: 2, groupSize: 4, maxNewTokens: 12 },
      unlearn: { gate: 'always' },
      optimizer: { lr: 1e-4, miniBatchPrompts: 1 },
    });
    const run = async (device: 'cpu' | 'cuda'): Promise<Record<string, number | undefined>[]> => {
      const policy = await Policy.load(embeddedModel, { device });
      const all: Record<string, number | undefined>[] = [];
      for await (const { metrics } of new Trainer({ policy, task: countdown(), config })) all.push({ ...metrics });
      policy.dispose();
      return all;
    };
    const [cpu, gpu] = [await run('cpu'), await run('cuda')];
    assert.equal(gpu.length, 2);
    for (const [i, metrics] of cpu.entries()) {
      for (const name of ['reward/mean', 'response_length/mean', 'rollout/stage1/entropy', 'rollout/stage2/entropy']) {
        const [left, right] = [metrics[name] as number, gpu[i]?.[name] as number];
        assert.ok(Math.abs(left - right) <= 1e-3 * Math.abs(left) + 1e-6, `${name} of ${i}: ${left}, ${right}`);
      }
    }
  });
});
