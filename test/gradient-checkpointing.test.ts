/** Gradient checkpointing: the same bits as without, for less memory. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { cudaStatus } from '../lib/cuda.js';
import { deviceInfo, emptyCache } from '../lib/device.js';
import { Policy } from '../lib/policy.js';
import type { LoadOptions } from '../lib/policy-types.js';
import { countdown } from '../lib/tasks/countdown.js';
import { defineConfig } from '../lib/train/config.js';
import { Trainer } from '../lib/train/trainer.js';
import { embeddedModel, ROOT } from './support/data.js';

const fixtures = join(ROOT, 'test', 'fixtures', 'goldens');
const names = readdirSync(fixtures, { withFileTypes: true }).flatMap((e) => (e.isDirectory() ? [e.name] : []));
const cuda = cudaStatus();

const ids = (count: number, from: number) => Array.from({ length: count }, (_, i) => (7 * (i + from) + (i % 3)) % 37);
// shared and own prompts, beyond the original context of some, an empty response
const batch = {
  prompts: [ids(5, 0), ids(5, 0), ids(9, 2), ids(9, 2)],
  responses: [ids(6, 1), ids(30, 3), [], ids(4, 5)],
};
const tokens = 40;

/** Everything a pass gives: statistics, gradients, what forgetting says and makes, and the weights after a step. */
async function everything(dir: string, options: LoadOptions): Promise<unknown[]> {
  using policy = await Policy.load(dir, options);
  const seen = await policy.forward(batch, { temperature: 0.8 });
  const a = Float32Array.from({ length: tokens }, (_, t) => Math.sin(t));
  const b = Float32Array.from({ length: tokens }, (_, t) => 0.1 * Math.cos(t));
  await policy.backward(a, b);
  const gradients: [string, unknown][] = [];
  for (const [name, tensor] of await policy.gradients()) gradients.push([name, await tensor.data()]);
  await policy.step({ lr: 1e-2 });
  const report = await policy.forget(batch, {
    entropy: seen.entropy,
    eta: 0.1,
    alpha: Number.POSITIVE_INFINITY,
    window: 2,
    epsLow: 1e-6,
    epsHigh: 1e-5,
    clampGrad: 'zero',
    normalize: 'none',
    microBatchTokens: 30,
  });
  const drawn = await policy.generate([ids(5, 0)], { maxNewTokens: 8, weights: 'rollout', stopTokens: [] });
  return [seen, gradients, report, drawn, await policy.hash()];
}

for (const device of ['cpu', 'cuda'] as const) {
  const skip = device === 'cuda' && !cuda.available ? `no CUDA: ${cuda.reason}` : false;
  describe(`gradient checkpointing (${device})`, { skip }, () => {
    for (const name of device === 'cpu' ? names : names.slice(0, 2)) {
      it(`changes no bit of ${name}`, async () => {
        const dir = join(fixtures, name);
        const with_ = await everything(dir, { device, gradientCheckpointing: true });
        assert.deepEqual(with_, await everything(dir, { device }));
      });
    }

    it('changes no bit with an adapter', async () => {
      const options = { device, adapter: join(ROOT, 'test', 'fixtures', 'lora', 'qwen3-bias-yarn') };
      const dir = join(fixtures, 'qwen3-bias-yarn');
      const with_ = await everything(dir, { ...options, gradientCheckpointing: true });
      assert.deepEqual(with_, await everything(dir, options));
    });

    it('keeps a fraction of the memory', async () => {
      const config = {
        model_type: 'llama',
        vocab_size: 64,
        hidden_size: 32,
        intermediate_size: 96,
        num_hidden_layers: 12,
        num_attention_heads: 4,
        max_position_embeddings: 128,
        rms_norm_eps: 1e-6,
      };
      const n = 128;
      /** Bytes above the weights and gradients while a forward and a backward run. */
      const peak = async (gradientCheckpointing: boolean) => {
        using policy = await Policy.create(config, { device, gradientCheckpointing });
        const pass = async () => {
          await policy.forward({ prompts: [ids(1, 0)], responses: [ids(n - 1, 1)] });
          await policy.backward(new Float32Array(n - 1).fill(1), null);
        };
        await policy.forward({ prompts: [[1]], responses: [[2]] });
        await policy.backward(Float32Array.of(1), null);
        await emptyCache(device);
        const before = (await deviceInfo(device)).allocatedBytes;
        await pass();
        return (await deviceInfo(device)).peakBytes - before;
      };
      const [all, inputs] = [await peak(false), await peak(true)];
      // of every layer: two inputs, q k v, attention, gate and up, two inverse norms, lse; or one input
      const layer = 4 * n * (2 * 32 + 3 * 32 + 32 + 2 * 96 + 2 + 4);
      const input = 4 * n * 32;
      assert.ok(all > 12 * layer, `${all} bytes for twelve layers of ${layer}`);
      assert.ok(all - inputs > 0.9 * 11 * (layer - input), `${all} and ${inputs} bytes`);
      assert.ok(inputs < all / 3, `${inputs} of ${all} bytes`);
    });

    it('is what optimizer.gradientCheckpointing asks for', async () => {
      const run = async (gradientCheckpointing: boolean) => {
        using policy = await Policy.load(embeddedModel, { device });
        const config = defineConfig({
          model: { path: embeddedModel },
          run: { iterations: 1 },
          rollout: { promptsPerIteration: 2, groupSize: 4, maxNewTokens: 8 },
          optimizer: { lr: 1e-3, gradientCheckpointing },
          eval: { every: 0, atStart: false, atEnd: false },
        });
        for await (const _ of new Trainer({ policy, task: countdown(), config }));
        const { peakBytes } = await deviceInfo(device);
        return { hash: await policy.hash(), peakBytes };
      };
      await emptyCache(device);
      const with_ = await run(true);
      await emptyCache(device);
      const without = await run(false);
      assert.equal(with_.hash, without.hash);
      assert.ok(with_.peakBytes < without.peakBytes, `${with_.peakBytes} and ${without.peakBytes}`);
    });
  });
}
