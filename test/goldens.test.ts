/**
 * The decoder against transformers in float32: log-probs, entropies, logits, 100 greedy ids, gradients, AdamW steps. On
 * the tiny models of scripts/make-goldens.py (test/fixtures/goldens) and, where it is, on the reference data.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { cudaStatus } from '../lib/cuda.js';
import { Policy } from '../lib/policy.js';
import { modelDir, needs, ROOT, readSafetensors } from './support/data.js';

interface Golden {
  cases: { ids: number[]; next_logprobs: number[]; entropy: number[]; greedy: number[] }[];
  ce_loss: number;
  grad_norm: number;
  adamw: { lr: number; betas: [number, number]; eps: number; weight_decay: number; clip: number; losses: number[] };
}

const readGolden = <T>(dir: string) => JSON.parse(readFileSync(join(dir, 'golden.json'), 'utf8')) as T;

const fixtures = join(ROOT, 'test', 'fixtures', 'goldens');
const models: { name: string; dir: string; options: { skip?: string | false } }[] = [
  ...readdirSync(fixtures, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => ({ name, dir: join(fixtures, name), options: {} })),
  ...['stories260K', 'tiny-random-llama32', 'tiny-random-qwen2', 'tiny-random-qwen3'].map((name) => ({
    name,
    dir: modelDir(name),
    options: needs('models', name, 'golden.json'),
  })),
];

function close(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number, what: string): void {
  assert.equal(actual.length, expected.length, `${what}: length`);
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs((actual[i] as number) - (expected[i] as number));
    assert.ok(error <= tolerance, `${what}[${i}]: ${actual[i]} instead of ${expected[i]}`);
  }
}

/** Mean cross-entropy of ids[1..] and its backward; returns the loss. */
async function crossEntropy(policy: Policy, ids: number[]): Promise<number> {
  const seen = await policy.forward({ prompts: [ids.slice(0, 1)], responses: [ids.slice(1)] });
  const n = ids.length - 1;
  await policy.backward(new Float32Array(n).fill(-1 / n), null);
  return -seen.logprob.reduce((sum, l) => sum + l, 0) / n;
}

const cuda = cudaStatus();
const onDevices = models.flatMap(({ name, dir, options }) => [
  { name, dir, options, device: 'cpu' as const },
  // on an emulator only the small ones
  ...(dir.startsWith(fixtures)
    ? [
        {
          name: `${name} on a GPU`,
          dir,
          options: { skip: cuda.available ? false : `no CUDA: ${cuda.reason}` },
          device: 'cuda' as const,
        },
      ]
    : []),
]);

for (const { name, dir, options, device } of onDevices) {
  describe(name, options, () => {
    it('scores as transformers does', async () => {
      const golden = readGolden<Golden>(dir);
      using policy = await Policy.load(dir, { device });
      const scored = await policy.score(golden.cases.map((c) => c.ids));
      for (const [i, c] of golden.cases.entries()) {
        close(scored[i]?.logprob ?? [], c.next_logprobs, 1e-4, 'logprob');
        close(scored[i]?.entropy ?? [], c.entropy, 1e-4, 'entropy');
      }
    });

    it('has its logits', async () => {
      const golden = readGolden<Golden>(dir);
      const tensors = readSafetensors(join(dir, 'golden_tensors.safetensors'));
      using policy = await Policy.load(dir, { device });
      let compared = 0;
      for (const [key, expected] of tensors) {
        const match = /^case(\d+)\.logits$|^logits_?(\d+)$/.exec(key);
        if (!match) continue;
        const ids = golden.cases[Number(match[1] ?? match[2])]?.ids ?? [];
        using logits = await policy.logits(ids);
        close(await logits.data(), expected.data, 1e-4, key);
        compared++;
      }
      assert.ok(compared > 0, `no logits among ${[...tensors.keys()].join(', ')}`);
    });

    it('continues greedily with the same ids', async () => {
      const golden = readGolden<Golden>(dir);
      using policy = await Policy.load(dir, { device });
      // one case on a GPU: the emulator takes its time
      for (const c of device === 'cuda' ? golden.cases.slice(1, 2) : golden.cases) {
        const [sample] = await policy.generate([c.ids], {
          maxNewTokens: c.greedy.length,
          temperature: 0,
          stopTokens: [],
        });
        assert.deepEqual(sample?.tokens, c.greedy);
        assert.equal(sample?.finishReason, 'length');
      }
    });

    it('has its gradients', async () => {
      const golden = readGolden<Golden>(dir);
      const expected = readSafetensors(join(dir, 'golden_grads.safetensors'));
      using policy = await Policy.load(dir, { device });
      const loss = await crossEntropy(policy, golden.cases[0]?.ids ?? []);
      assert.ok(Math.abs(loss - golden.ce_loss) < 1e-5, `loss ${loss} instead of ${golden.ce_loss}`);
      const gradients = await policy.gradients();
      let checked = 0;
      for (const [key, { shape, data }] of expected) {
        const tensor = gradients.get(key);
        assert.ok(tensor, `no gradient of ${key}`);
        assert.deepEqual(tensor.shape, shape);
        const got = await tensor.data();
        let difference = 0;
        let norm = 0;
        for (let i = 0; i < data.length; i++) {
          difference += ((got[i] as number) - (data[i] as number)) ** 2;
          norm += (data[i] as number) ** 2;
        }
        assert.ok(
          Math.sqrt(difference) <= 1e-4 * Math.sqrt(norm),
          `${key}: relative error ${Math.sqrt(difference / norm)}`,
        );
        checked++;
      }
      assert.equal(checked, gradients.size);
    });

    it('descends as torch.optim.AdamW does', async () => {
      const golden = readGolden<Golden>(dir);
      const { lr, betas, eps, weight_decay: weightDecay, clip: maxGradNorm, losses } = golden.adamw;
      using policy = await Policy.load(dir, { device });
      for (const [i, expected] of losses.entries()) {
        const loss = await crossEntropy(policy, golden.cases[0]?.ids ?? []);
        assert.ok(Math.abs(loss - expected) < 1e-5, `step ${i}: loss ${loss} instead of ${expected}`);
        const { gradNorm, applied } = await policy.step({ lr, betas, eps, weightDecay, maxGradNorm });
        assert.ok(applied);
        if (i === 0) assert.ok(Math.abs(gradNorm - golden.grad_norm) < 1e-4 * golden.grad_norm);
      }
    });
  });
}

/** 100 greedy tokens after the cases of the reference data, some of which come with fewer. */
const longer = JSON.parse(readFileSync(join(fixtures, 'greedy.json'), 'utf8')) as Record<
  string,
  { case: number; greedy: number[] }[]
>;
for (const [name, runs] of Object.entries(longer)) {
  it(`${name} continues greedily for 100 tokens`, needs('models', name, 'golden.json'), async () => {
    const { cases } = readGolden<Golden>(modelDir(name));
    using policy = await Policy.load(modelDir(name));
    for (const run of runs) {
      assert.equal(run.greedy.length, 100);
      const options = { maxNewTokens: 100, temperature: 0, stopTokens: [] };
      const [sample] = await policy.generate([cases[run.case]?.ids ?? []], options);
      assert.deepEqual(sample?.tokens, run.greedy, `case ${run.case}`);
    }
  });
}

describe('tiny-random-qwen2-bf16-sharded', needs('models', 'tiny-random-qwen2-bf16-sharded'), () => {
  it('is read from bfloat16 shards', async () => {
    const golden = readGolden<{ ids: number[]; logits_f32_from_bf16_weights: number[][] }>(
      modelDir('tiny-random-qwen2-bf16-sharded'),
    );
    using policy = await Policy.load(modelDir('tiny-random-qwen2-bf16-sharded'));
    using logits = await policy.logits(golden.ids);
    close(await logits.data(), golden.logits_f32_from_bf16_weights.flat(), 1e-4, 'logits');
  });
});
