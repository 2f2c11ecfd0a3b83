/** What a run is said to hold, against what it holds. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { normalizeConfig, type PolicyConfig } from '../lib/config-json.js';
import { deviceInfo, emptyCache } from '../lib/device.js';
import type { LoadOptions } from '../lib/index.js';
import { cacheBytesPerToken, estimateMemory, type MemoryItem, type MemoryOptions } from '../lib/memory/estimate.js';
import { machineMemory, planMemory, requireFit } from '../lib/memory/fit.js';
import { countAdapter, countParameters } from '../lib/memory/parameters.js';
import { Policy } from '../lib/policy.js';
import { loadTrainConfig } from '../lib/train/config.js';
import { memoryOptions, parseMemory } from '../lib/train/memory.js';
import { needs, ROOT, testData } from './support/data.js';
import { openGate } from './support/policy.js';

const base = {
  vocab_size: 1000,
  hidden_size: 128,
  intermediate_size: 352,
  num_hidden_layers: 4,
  num_attention_heads: 8,
  num_key_value_heads: 2,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-6,
};
const families: Record<string, Record<string, unknown>> = {
  qwen2: { ...base, model_type: 'qwen2', tie_word_embeddings: true },
  qwen3: { ...base, model_type: 'qwen3', head_dim: 24 },
  llama: { ...base, model_type: 'llama', num_key_value_heads: 8 },
};
/** 8 prompts of 40 tokens, 4 samples of 40 each. */
const options: MemoryOptions = {
  dtype: 'float32',
  lora: null,
  unlearning: true,
  rolloutDtype: 'same',
  reference: false,
  gradientCheckpointing: false,
  microBatchTokens: 640,
  longestPrompt: 40,
  maxNewTokens: 40,
  prompts: 8,
  samplesPerPrompt: 4,
  maxRows: 0,
  cacheTokens: 0,
  device: 'cpu',
};
const prompts = Array.from({ length: 8 }, (_, p) => Array.from({ length: 40 }, (_, t) => (p * 131 + t * 7) % 1000));

const item = (items: readonly MemoryItem[], name: string): number => items.find((one) => one.name === name)?.bytes ?? 0;
const padding = 0.02; // parameters start at multiples of 16 floats

function near(actual: number, expected: number, tolerance: number, what: string): void {
  assert.ok(
    actual <= expected * (1 + tolerance) && actual >= expected * (1 - tolerance),
    `${what}: ${actual} bytes, ${expected} were estimated`,
  );
}

/** Most bytes that tensors take during `work`, above what they took before. */
async function peakOf(work: () => Promise<unknown>): Promise<number> {
  await emptyCache('cpu');
  const before = (await deviceInfo('cpu')).allocatedBytes;
  await work();
  return (await deviceInfo('cpu')).peakBytes - before;
}

const cases: [string, LoadOptions, Partial<MemoryOptions>][] = [
  ['float32', {}, {}],
  ['bfloat16', { dtype: 'bfloat16' }, { dtype: 'bfloat16' }],
  ['checkpointed', { gradientCheckpointing: true }, { gradientCheckpointing: true }],
  ['an adapter', { lora: { rank: 8 } }, { lora: { rank: 8 } }],
  ['an adapter on bfloat16', { dtype: 'bfloat16', lora: { rank: 8 } }, { dtype: 'bfloat16', lora: { rank: 8 } }],
];

for (const [family, json] of Object.entries(families)) {
  const config = normalizeConfig(json);
  describe(`memory of ${family}`, () => {
    it('parameters are counted', async () => {
      const policy = await Policy.create(json);
      const { matrices, vectors } = countParameters(config);
      assert.equal(matrices + vectors, policy.numParameters);
      policy.dispose();
    });

    for (const [name, load, change] of cases) {
      it(`${name}: weights, gradients, moments, theta', activations and cache`, async () => {
        const policy = await Policy.create(json, load);
        const { items } = estimateMemory(config, { ...options, ...change });
        const generating = await peakOf(() =>
          policy.generate(prompts, { maxNewTokens: 40, samplesPerPrompt: 4, stopTokens: [] }),
        );
        const held =
          item(items, 'key-value cache') + item(items, 'prompts being read') + item(items, 'logits of a step');
        // the estimate is for every row growing at the worst moment
        assert.ok(generating <= held * 1.1 && generating >= held * 0.4, `generation: ${generating} of ${held}`);

        const batch = { prompts, responses: prompts };
        const training = await peakOf(async () => {
          const { logprob } = await policy.forward(batch);
          await policy.backward(new Float32Array(logprob.length).fill(-0.01));
        });
        const formed = item(items, 'activations') + item(items, 'gradients');
        assert.ok(training <= formed * 1.1 && training >= formed * 0.6, `training: ${training} of ${formed}`);

        await policy.step({ lr: 1e-4 });
        await policy.forget(batch, {
          entropy: new Float32Array(320).fill(0.1),
          eta: 1e-3,
          ...openGate,
        });
        const memory = await policy.memory();
        const weights = item(items, 'weights') + item(items, 'master copy') + item(items, 'adapter');
        near(memory.master + memory.working, weights, padding, 'weights');
        near(memory.gradients, item(items, 'gradients'), padding, 'gradients');
        near(memory.moments, item(items, 'optimizer (AdamW)'), padding, 'moments');
        near(memory.rollout, item(items, "rollout copy theta'"), padding, "theta'");
        for (const [displacements, variant] of [
          [1, { steps: 2 }],
          [2, { memory: 0.5, iteration: 1 }],
          [2, { memory: 0.5, iteration: 2 }],
        ] as const) {
          const how = { entropy: new Float32Array(320).fill(0.1), eta: 1e-3, ...openGate, ...variant };
          await policy.forget(batch, how);
          const { items: more } = estimateMemory(config, { ...options, ...change, displacements });
          // the first iteration has nothing to remember, and needs no second copy yet
          const copies = !('iteration' in variant) || variant.iteration === 2 ? displacements : 1;
          near(
            (await policy.memory()).rollout,
            item(more, "rollout copy theta'") + (item(more, "theta' - theta") * copies) / displacements,
            padding,
            `theta' - theta, ${copies}`,
          );
        }
        policy.dispose();
      });
    }
  });
}

describe('a plan', () => {
  const config: PolicyConfig = normalizeConfig(families.qwen2);
  const total = (change: Partial<MemoryOptions> = {}) => estimateMemory(config, { ...options, ...change }).total;

  it('fits where there is room, and bounds the cache where only that is too large', () => {
    const roomy = planMemory(config, options, 1e9);
    assert.ok(roomy.fits && roomy.options.cacheTokens === 0 && roomy.advice.length === 0);
    const long = { ...options, maxNewTokens: 4000, microBatchTokens: 1, gradientCheckpointing: true };
    const whole = estimateMemory(config, long);
    const tight = planMemory(config, long, whole.total * 0.9);
    assert.ok(tight.fits, 'a bounded cache makes it fit');
    assert.ok(tight.options.cacheTokens > 0 && tight.options.cacheTokens < whole.cacheTokensMost);
    assert.ok(tight.total <= whole.total * 0.9 * 0.95);
    near(
      item(tight.items, 'key-value cache'),
      tight.options.cacheTokens * cacheBytesPerToken(config) * 1.5,
      0,
      'cache',
    );
  });

  it('names one change where one is enough, else the changes that are enough together', () => {
    const saved = total() - total({ gradientCheckpointing: true });
    const one = planMemory(config, options, (total() - saved / 2) / 0.95);
    assert.ok(!one.fits);
    assert.equal(one.advice.length, 1);
    assert.match(one.advice[0] as string, /gradientCheckpointing/);
    const fixed = { ...options, cacheTokens: 10_000 }; // so that no smaller cache helps
    const least = estimateMemory(config, { ...fixed, gradientCheckpointing: true, microBatchTokens: 1 }).total;
    const two = planMemory(config, fixed, (least * 1.001) / 0.95);
    assert.deepEqual(
      two.advice.map((text) => text.split(' ')[0]),
      ['optimizer.gradientCheckpointing', 'optimizer.microBatchTokens'],
    );
    const adapter: MemoryOptions = { ...options, lora: { rank: 256 }, cacheTokens: 10_000 };
    const small = planMemory(
      config,
      adapter,
      (estimateMemory(config, { ...adapter, lora: { rank: 16 } }).total * 1.001) / 0.95,
    );
    assert.match(small.advice.join(), /lora\.rank = 16/);
    const none = planMemory(config, options, 1e5);
    // with the cache that 8 responses need at least, not the one for all 32
    assert.equal(none.options.cacheTokens, 8 * none.cacheTokensLeast);
    assert.deepEqual(none.advice, []);
    assert.throws(() => requireFit(none, 'x.toml'), {
      code: 'EEPO_CONFIG',
      message: /x\.toml: .*does not fit[\s\S]*No option/,
    });
    assert.throws(() => requireFit(two, 'x.toml'), { message: /all of:\n {2}optimizer\.gradient/ });
    requireFit(planMemory(config, options, 1e9), 'x.toml');
  });

  it('generation and training do not add up on a GPU', () => {
    const there = estimateMemory(config, { ...options, device: 'cuda' });
    assert.equal(there.total, Math.max(there.generation, there.training));
    assert.ok(there.items.some(({ name }) => name.startsWith('CUDA')));
  });

  it('reads amounts of memory', () => {
    assert.equal(parseMemory('80GB', '--memory'), 80 * 2 ** 30);
    assert.equal(parseMemory(' 512 MiB', '--memory'), 512 * 2 ** 20);
    assert.equal(parseMemory('1.5', '--memory'), 1.5 * 2 ** 30);
    for (const wrong of ['', '0', 'GB', '80 bytes', '-1GB', '1e3GB']) {
      assert.throws(() => parseMemory(wrong, '--memory'), { code: 'EEPO_INVALID_ARGUMENT', message: /--memory/ });
    }
    assert.ok(machineMemory() > 2 ** 28);
  });
});

describe("the paper's models on one GPU of 80 GB", () => {
  const presets: [string, string, number][] = [
    ['qwen2.5-3b', 'Qwen2.5-3B.json', 3.086e9],
    ['llama-3.2-3b-instruct', 'Llama-3.2-3B-Instruct.json', 3.213e9],
    ['qwen3-8b-base', 'Qwen3-8B-Base.json', 8.191e9],
  ];
  for (const [preset, file, parameters] of presets) {
    it(`${preset} fits, with room for more than a dozen responses at a time`, needs('configs', file), () => {
      const model = normalizeConfig(JSON.parse(readFileSync(testData('configs', file) as string, 'utf8')), file);
      const { matrices, vectors } = countParameters(model);
      near(matrices + vectors, parameters, 1e-3, 'parameters');
      const path = join(ROOT, 'configs', 'paper', `${preset}.toml`);
      assert.ok(existsSync(path));
      const wanted = memoryOptions(loadTrainConfig(path), 'cuda', 1024);
      const plan = planMemory(model, wanted, 79.1 * 2 ** 30);
      assert.ok(plan.fits, plan.advice.join('; '));
      assert.ok(plan.options.cacheTokens >= 12 * plan.cacheTokensLeast, `${plan.options.cacheTokens} tokens`);
    });
  }

  it(
    'all weights of 8 B parameters do not fit, and the advice is an adapter',
    needs('configs', 'Qwen3-8B-Base.json'),
    () => {
      const model = normalizeConfig(
        JSON.parse(readFileSync(testData('configs', 'Qwen3-8B-Base.json') as string, 'utf8')),
      );
      const wanted = memoryOptions(loadTrainConfig(join(ROOT, 'configs', 'paper', 'qwen3-8b-base.toml')), 'cuda', 1024);
      const plan = planMemory(model, { ...wanted, lora: null, reference: true }, 79.1 * 2 ** 30);
      assert.ok(!plan.fits);
      assert.match(plan.advice.join(), /lora\.rank/);
      assert.equal(countAdapter(model, 64), 174_587_904);
    },
  );
});
