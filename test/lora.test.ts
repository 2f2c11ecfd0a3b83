/** LoRA: against PEFT's numbers, its files, merging, unlearning and training with an adapter. */
import assert from 'node:assert/strict';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type LoraOptions, normalizeLora } from '../lib/adapter.js';
import { cudaStatus } from '../lib/cuda.js';
import { Policy } from '../lib/policy.js';
import type { Generation } from '../lib/policy-types.js';
import { countdown } from '../lib/tasks/countdown.js';
import { defineConfig } from '../lib/train/config.js';
import { loadRun } from '../lib/train/load.js';
import { trainRun } from '../lib/train/run.js';
import { Trainer } from '../lib/train/trainer.js';
import { embeddedModel, ROOT, readSafetensors } from './support/data.js';
import { temporaryFolder } from './support/files.js';
import { values as arraysOf, forgetting } from './support/policy.js';
import { needsPython, runPython } from './support/python-modules.js';

const fixture = (kind: string, name: string) => join(ROOT, 'test', 'fixtures', kind, name);
const names = ['qwen3-bias-yarn', 'llama-gqa-dynamic'];

interface Golden {
  ids: number[];
  grad_norm: number;
  adamw: { lr: number; betas: [number, number]; eps: number; weight_decay: number; clip: number; losses: number[] };
}

async function crossEntropy(policy: Policy, ids: number[]): Promise<number> {
  const seen = await policy.forward({ prompts: [ids.slice(0, 1)], responses: [ids.slice(1)] });
  const n = ids.length - 1;
  await policy.backward(new Float32Array(n).fill(-1 / n), null);
  return -seen.logprob.reduce((sum, l) => sum + l, 0) / n;
}

async function logitsOf(policy: Policy, ids: number[]): Promise<Float32Array> {
  using logits = await policy.logits(ids);
  return (await logits.data()) as Float32Array;
}

function close(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number, what: string): void {
  assert.equal(actual.length, expected.length, `${what}: length`);
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs((actual[i] as number) - (expected[i] as number));
    assert.ok(error <= tolerance, `${what}[${i}]: ${actual[i]} instead of ${expected[i]}`);
  }
}

const cuda = cudaStatus();
for (const device of ['cpu', 'cuda'] as const) {
  const skip = device === 'cuda' && !cuda.available ? `no CUDA: ${cuda.reason}` : false;
  for (const name of names) {
    describe(`LoRA on ${name} (${device})`, { skip }, () => {
      const golden = JSON.parse(readFileSync(join(fixture('lora', name), 'golden.json'), 'utf8')) as Golden;
      const load = () => Policy.load(fixture('goldens', name), { adapter: fixture('lora', name), device });

      it('has the logits of PEFT', async () => {
        using policy = await load();
        const expected = readSafetensors(join(fixture('lora', name), 'golden_tensors.safetensors')).get('logits');
        close(await logitsOf(policy, golden.ids), expected?.data ?? [], 1e-4, 'logits');
      });

      it('has its gradients, of A and B alone', async () => {
        const expected = readSafetensors(join(fixture('lora', name), 'golden_grads.safetensors'));
        using policy = await load();
        await crossEntropy(policy, golden.ids);
        const gradients = await arraysOf(await policy.gradients());
        assert.deepEqual([...gradients.keys()].sort(), [...expected.keys()].sort());
        for (const [key, { data: wanted }] of expected) {
          const got = gradients.get(key) ?? new Float32Array();
          let [difference, norm] = [0, 0];
          for (let i = 0; i < wanted.length; i++) {
            difference += ((got[i] as number) - (wanted[i] as number)) ** 2;
            norm += (wanted[i] as number) ** 2;
          }
          assert.ok(norm > 0 && difference <= 1e-8 * norm, `${key}: relative error ${Math.sqrt(difference / norm)}`);
        }
      });

      it('descends as PEFT under torch.optim.AdamW', async () => {
        const { lr, betas, eps, weight_decay: weightDecay, clip: maxGradNorm, losses } = golden.adamw;
        using policy = await load();
        for (const [i, expected] of losses.entries()) {
          const loss = await crossEntropy(policy, golden.ids);
          assert.ok(Math.abs(loss - expected) < 1e-5, `step ${i}: loss ${loss} instead of ${expected}`);
          const { gradNorm } = await policy.step({ lr, betas, eps, weightDecay, maxGradNorm });
          if (i === 0) assert.ok(Math.abs(gradNorm - golden.grad_norm) < 1e-4 * golden.grad_norm);
        }
      });
    });
  }

  describe(`a policy with an adapter (${device})`, { skip }, () => {
    const name = names[0] as string;
    const ids = Array.from({ length: 30 }, (_, i) => (11 * i + (i % 4)) % 41);
    const lora: LoraOptions = { rank: 4, alpha: 8, seed: 7 };

    it('begins as its base, bit for bit', async () => {
      using base = await Policy.load(fixture('goldens', name), { device });
      using policy = await Policy.load(fixture('goldens', name), { lora, device });
      assert.deepEqual(await logitsOf(policy, ids), await logitsOf(base, ids));
      const options = { maxNewTokens: 20, seed: 3, stopTokens: [] };
      assert.deepEqual(await policy.generate([ids], options), await base.generate([ids], options));
    });

    it('draws A as PEFT does and has B zero', async () => {
      using policy = await Policy.load(fixture('goldens', name), { lora, device });
      const seen = await arraysOf(await policy.parameters());
      assert.equal(seen.size, 2 * 7 * 2);
      for (const [key, values] of seen) {
        const largest = Math.max(...values.map(Math.abs));
        if (key.endsWith('lora_B.weight')) assert.equal(largest, 0, key);
        else {
          const bound = 1 / Math.sqrt(values.length / 4);
          assert.ok(largest > 0.7 * bound && largest <= bound, `${key}: ${largest} of ${bound}`);
        }
      }
      using other = await Policy.load(fixture('goldens', name), { lora: { ...lora, seed: 8 }, device });
      assert.notEqual(await other.hash(), await policy.hash());
      assert.equal(
        policy.numTrainable,
        [...seen.values()].reduce((sum, { length }) => sum + length, 0),
      );
    });

    it('has the targets it is given', async () => {
      const targets = ['down_proj', 'k_proj'] as const;
      using policy = await Policy.load(fixture('goldens', name), { lora: { ...lora, targets }, device });
      const modules = new Set(
        [...(await arraysOf(await policy.parameters())).keys()].map((key) => key.split('.').at(-3)),
      );
      assert.deepEqual(modules, new Set(targets));
      await crossEntropy(policy, ids);
      await policy.step({ lr: 1e-2 });
      await crossEntropy(policy, ids);
      for (const [key, values] of await arraysOf(await policy.gradients())) {
        assert.ok(
          values.some((g) => g !== 0),
          `no gradient of ${key}`,
        );
      }
    });

    it('can be asked without its adapter, and cloned without a second base', async () => {
      using base = await Policy.load(fixture('goldens', name), { device });
      using policy = await Policy.load(fixture('goldens', name), { adapter: fixture('lora', name), device });
      const batch = { prompts: [ids.slice(0, 3)], responses: [ids.slice(3)] };
      const off = { adapter: false, keepActivations: false };
      const [with_, without] = [await policy.forward(batch), await policy.forward(batch, off)];
      assert.deepEqual(without, await base.forward(batch, { keepActivations: false }));
      assert.notDeepEqual(with_, without);
      await assert.rejects(policy.forward(batch, { adapter: false }), { code: 'EEPO_INVALID_ARGUMENT' });
      using copy = await policy.clone();
      assert.deepEqual(await copy.forward(batch, { keepActivations: false }), with_);
      await policy.zeroGrad();
      await crossEntropy(policy, ids);
      await policy.step({ lr: 1e-2 });
      assert.deepEqual(await copy.forward(batch, { keepActivations: false }), with_);
      assert.notDeepEqual(await policy.forward(batch, { keepActivations: false }), with_);
      assert.deepEqual(await policy.forward(batch, off), without);
    });

    it('sits on a base in bfloat16, of which there is one copy', async (t) => {
      const dir = temporaryFolder(t);
      const options = { device, dtype: 'bfloat16' } as const;
      using base = await Policy.load(fixture('goldens', name), options);
      using policy = await Policy.load(fixture('goldens', name), { ...options, lora });
      assert.deepEqual(await logitsOf(policy, ids), await logitsOf(base, ids));
      for (let i = 0; i < 3; i++) {
        await crossEntropy(policy, ids);
        await policy.step({ lr: 2e-2 });
      }
      const memory = await policy.memory();
      const adapter = 4 * policy.numTrainable;
      assert.ok(memory.working < 2.2 * policy.numParameters, `${memory.working} bytes of base`);
      for (const bytes of [memory.master, memory.gradients, memory.moments / 2]) {
        assert.ok(bytes >= adapter && bytes < 1.3 * adapter, `${bytes} bytes for an adapter of ${adapter}`);
      }
      using copy = await policy.clone();
      assert.equal(await copy.hash(), await policy.hash());
      const expected = await logitsOf(policy, ids);
      assert.deepEqual(await logitsOf(copy, ids), expected);
      // merged in float32 nothing is rounded but what the device rounds in its products
      await policy.save(dir);
      using merged = await Policy.load(dir, { device });
      close(await logitsOf(merged, ids), expected, device === 'cpu' ? 1e-5 : 0.1, 'merged');
    });

    it('saves an adapter that is read again, and a merged model that computes the same', async (t) => {
      const dir = temporaryFolder(t);
      using policy = await Policy.load(fixture('goldens', name), { lora: { ...lora, rslora: true }, device });
      for (let i = 0; i < 3; i++) {
        await crossEntropy(policy, ids);
        await policy.step({ lr: 2e-2 });
      }
      const expected = await logitsOf(policy, ids);
      await policy.saveAdapter(join(dir, 'adapter'));
      await policy.save(join(dir, 'merged'));
      using again = await Policy.load(fixture('goldens', name), { adapter: join(dir, 'adapter'), device });
      assert.equal(await again.hash(), await policy.hash());
      assert.deepEqual(await logitsOf(again, ids), expected);
      using merged = await Policy.load(join(dir, 'merged'), { device });
      close(await logitsOf(merged, ids), expected, 1e-5, 'merged');
      using base = await Policy.load(fixture('goldens', name), { device });
      const far = Math.max(...(await logitsOf(base, ids)).map((z, i) => Math.abs(z - (expected[i] as number))));
      assert.ok(far > 1e-2, `the adapter moved logits by ${far} alone`);
    });

    it('forgets with the adapter alone', async () => {
      using policy = await Policy.load(embeddedModel, { lora: { rank: 8 }, device });
      const prompts = [[2, 3, 7, 9, 104, 105, 41]];
      const before = await policy.hash();
      const drawn = await policy.generate(prompts, { maxNewTokens: 12, samplesPerPrompt: 8, seed: 1 });
      const report = await policy.forget(batchOf(prompts, drawn), forgetting(drawn, { eta: 0.3 }));
      assert.equal(report.skipped, null);
      assert.ok(report.stage1LogpDelta < -1e-3, `${report.stage1LogpDelta}`);
      assert.ok(report.relativeStep > 0 && report.paramChangedFrac > 0 && report.paramChangedFrac <= 1);
      assert.equal(await policy.hash(), before);
      const same = await policy.generate(prompts, { maxNewTokens: 12, samplesPerPrompt: 8, seed: 1 });
      assert.deepEqual(same, drawn);
      const other = await policy.generate(prompts, {
        maxNewTokens: 12,
        samplesPerPrompt: 8,
        seed: 1,
        weights: 'rollout',
      });
      assert.notDeepEqual(other, drawn);
      await policy.syncRollout();
      const synced = await policy.generate(prompts, {
        maxNewTokens: 12,
        samplesPerPrompt: 8,
        seed: 1,
        weights: 'rollout',
      });
      assert.deepEqual(synced, drawn);
    });

    it('is trained by EEPO', async () => {
      using policy = await Policy.load(embeddedModel, { lora: { rank: 8 }, device });
      const before = await policy.hash();
      const config = defineConfig({
        model: { path: embeddedModel },
        run: { iterations: 2 },
        rollout: { promptsPerIteration: 4, groupSize: 4, maxNewTokens: 10 },
        objective: { klCoef: 0.01 },
        optimizer: { lr: 1e-3 },
        unlearn: { eta: 0.1, alpha: 10 },
        eval: { every: 0, atStart: false, atEnd: false },
      });
      let iterations = 0;
      for await (const { metrics } of new Trainer({ policy, task: countdown(), config })) {
        assert.ok(Number.isFinite(metrics['update/loss'] ?? 0));
        assert.ok((metrics['unlearn/stage1_logp_delta'] as number) < 0);
        iterations++;
      }
      assert.equal(iterations, 2);
      assert.notEqual(await policy.hash(), before);
    });
  });
}

const batchOf = (prompts: number[][], generations: Generation[]) => ({
  prompts: generations.map(({ prompt }) => prompts[prompt] as number[]),
  responses: generations.map(({ tokens }) => tokens),
});

describe('a run with [lora]', () => {
  it('leaves an adapter and the model with it merged', async (t) => {
    const config = defineConfig({
      model: { path: embeddedModel, device: 'cpu' },
      lora: { rank: 4, alpha: 8, targets: ['q_proj', 'v_proj'] },
      run: { iterations: 1 },
      task: { name: 'countdown' },
      rollout: { promptsPerIteration: 4, groupSize: 4, maxNewTokens: 10 },
      optimizer: { lr: 1e-2, gradientCheckpointing: true },
      eval: { every: 0, atStart: false, atEnd: false },
    });
    const run = await loadRun(config);
    const out = join(temporaryFolder(t), 'run');
    const summary = await trainRun({ ...run, config, out });
    using again = await Policy.load(embeddedModel, { adapter: join(out, 'adapter') });
    assert.equal(await again.hash(), summary.weights);
    assert.deepEqual(again.adapter, { rank: 4, alpha: 8, rslora: false, targets: ['q_proj', 'v_proj'] });
    using merged = await Policy.load(join(out, 'model'));
    const ids = [2, 3, 7, 9, 104, 105, 41];
    close(await logitsOf(merged, ids), await logitsOf(again, ids), 1e-5, 'logits');
    run.policy.dispose();
  });

  it('needs a policy with one', async () => {
    using policy = await Policy.load(embeddedModel);
    const config = defineConfig({ model: { path: embeddedModel }, lora: { rank: 4 }, task: { name: 'countdown' } });
    const trainer = new Trainer({ policy, task: countdown(), config });
    await assert.rejects(trainer.prepare(), { code: 'EEPO_CONFIG', message: /lora.rank = 4.*has no adapter/ });
  });
});

describe('options of an adapter', () => {
  it('have defaults', () => {
    assert.deepEqual(normalizeLora({ rank: 8 }), {
      rank: 8,
      alpha: 16,
      rslora: false,
      targets: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
    });
    assert.deepEqual(normalizeLora({ rank: 1, targets: ['v_proj', 'q_proj', 'v_proj'] }).targets, ['q_proj', 'v_proj']);
  });

  const wrong: [unknown, RegExp][] = [
    [{ rank: 0 }, /lora.rank/],
    [{ rank: 1.5 }, /lora.rank/],
    [{ rank: 4, alpha: 0 }, /lora.alpha/],
    [{ rank: 4, alpha: Number.NaN }, /lora.alpha/],
    [{ rank: 4, alpha: 1e300 }, /lora.alpha/],
    [{ rank: 4, targts: ['q_proj'] }, /lora: there is no option.*targets/],
    [{ rank: 4, dropout: 0.1 }, /lora.dropout must be 0/],
    [{ rank: 4, targets: [] }, /lora.targets/],
    [{ rank: 4, targets: ['lm_head'] }, /"lm_head" is none of all-linear, q_proj/],
    [{ rank: 4, targets: 'q_proj' }, /lora.targets/],
    [{ rank: 4, rslora: 1 }, /lora.rslora/],
  ];
  for (const [options, message] of wrong) {
    it(`refuse ${JSON.stringify(options)}`, () => {
      assert.throws(() => normalizeLora(options as LoraOptions), { code: 'EEPO_INVALID_ARGUMENT', message });
    });
  }
});

describe('adapter folders', () => {
  const name = names[0] as string;
  const changed = (t: Parameters<typeof temporaryFolder>[0], change: object) => {
    const dir = join(temporaryFolder(t), 'adapter');
    cpSync(fixture('lora', name), dir, { recursive: true });
    const path = join(dir, 'adapter_config.json');
    writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...change }));
    return dir;
  };

  const refused: [string, object, string, RegExp][] = [
    ['another method', { peft_type: 'IA3' }, 'EEPO_UNSUPPORTED', /peft_type "IA3"/],
    ['DoRA', { use_dora: true }, 'EEPO_UNSUPPORTED', /use_dora = true/],
    ['biases', { bias: 'all' }, 'EEPO_UNSUPPORTED', /bias = "all"/],
    ['saved modules', { modules_to_save: ['lm_head'] }, 'EEPO_UNSUPPORTED', /modules_to_save/],
    ['ranks by pattern', { rank_pattern: { q_proj: 4 } }, 'EEPO_UNSUPPORTED', /rank_pattern/],
    ['some layers', { layers_to_transform: [0] }, 'EEPO_UNSUPPORTED', /layers_to_transform/],
    ['PiSSA', { init_lora_weights: 'pissa' }, 'EEPO_UNSUPPORTED', /init_lora_weights/],
    ['another module', { target_modules: ['q_proj', 'embed_tokens'] }, 'EEPO_UNSUPPORTED', /"embed_tokens"/],
    ['a pattern of modules', { target_modules: '.*proj' }, 'EEPO_UNSUPPORTED', /target_modules ".\*proj"/],
    ['no rank', { r: 0 }, 'EEPO_INVALID_FILE', /\n {2}r:/],
    ['another rank', { r: 4 }, 'EEPO_INVALID_FILE', /lora_[AB].weight.*shape/],
    [
      'more targets than numbers',
      { target_modules: ['q_proj'] },
      'EEPO_INVALID_FILE',
      /lora_[AB].weight belongs to no target/,
    ],
  ];
  for (const [what, change, code, message] of refused) {
    it(`with ${what} are refused`, async (t) => {
      await assert.rejects(Policy.load(fixture('goldens', name), { adapter: changed(t, change) }), { code, message });
    });
  }

  it('that are none are refused', async (t) => {
    const dir = temporaryFolder(t);
    await assert.rejects(Policy.load(fixture('goldens', name), { adapter: dir }), {
      code: 'EEPO_INVALID_FILE',
      message: /adapter_config.json does not exist/,
    });
    await assert.rejects(Policy.load(fixture('goldens', name), { adapter: fixture('lora', name), lora: { rank: 2 } }), {
      code: 'EEPO_INVALID_ARGUMENT',
      message: /adapter/,
    });
    await assert.rejects(Policy.load(fixture('goldens', name), { adapter: fixture('lora', name), trainable: false }), {
      code: 'EEPO_INVALID_ARGUMENT',
      message: /leave trainable out/,
    });
    await assert.rejects(Policy.load(fixture('goldens', name), { adapter: 7 as unknown as string }), {
      code: 'EEPO_INVALID_ARGUMENT',
      message: /adapter must be the path/,
    });
  });

  it('of a policy without one are refused', async (t) => {
    using policy = await Policy.load(fixture('goldens', name));
    await assert.rejects(policy.saveAdapter(temporaryFolder(t)), { code: 'EEPO_UNSUPPORTED', message: /adapter/ });
  });

  const program = `
import json, sys, torch
from transformers import AutoModelForCausalLM
from peft import PeftModel
base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, attn_implementation="eager")
model = PeftModel.from_pretrained(base, sys.argv[2])
with torch.no_grad():
    print(json.dumps(model(torch.tensor([json.loads(sys.argv[3])])).logits.flatten().tolist()))
`;
  it('that were saved here load in PEFT', needsPython('torch', 'transformers', 'peft'), async (t) => {
    const dir = temporaryFolder(t);
    const ids = Array.from({ length: 14 }, (_, i) => (5 * i) % 41);
    using policy = await Policy.load(fixture('goldens', name), { lora: { rank: 3, targets: ['o_proj', 'gate_proj'] } });
    await crossEntropy(policy, ids);
    await policy.step({ lr: 5e-2 });
    await policy.saveAdapter(dir);
    const seen = runPython(program, fixture('goldens', name), dir, JSON.stringify(ids)) as number[];
    close(await logitsOf(policy, ids), seen, 1e-4, 'logits');
  });
});
