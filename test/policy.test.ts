/** The policy on the embedded model: sampling, training and forgetting, and the design's invariants. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Policy } from '../lib/policy.js';
import type { Generation } from '../lib/policy-types.js';
import { embeddedModel } from './support/data.js';
import { forgetting } from './support/policy.js';

/** Countdown prompts: `2 3 7 9 _ > 41` and others. */
const prompts = [
  [2, 3, 7, 9, 104, 105, 41],
  [1, 4, 6, 8, 104, 105, 24],
  [3, 3, 5, 9, 104, 105, 30],
];

const batchOf = (generations: Generation[]) => ({
  prompts: generations.map(({ prompt }) => prompts[prompt] as number[]),
  responses: generations.map(({ tokens }) => tokens),
});

const flat = (arrays: Float32Array[]) => arrays.flatMap((array) => [...array]);
const mean = (values: ArrayLike<number>) => Array.from(values).reduce((sum, v) => sum + v, 0) / values.length;

async function bytesOf(policy: Policy): Promise<string> {
  return policy.hash();
}

describe('Policy', () => {
  let policy: Policy;
  let dir: string;
  before(async () => {
    policy = await Policy.load(embeddedModel);
    dir = await mkdtemp(join(tmpdir(), 'eepo-policy-'));
  });
  after(async () => {
    policy.dispose();
    await rm(dir, { recursive: true });
  });

  describe('generate', () => {
    it('returns samples prompt by prompt with what was recorded', async () => {
      const samples = await policy.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 4, seed: 1 });
      assert.equal(samples.length, 12);
      for (const [i, sample] of samples.entries()) {
        assert.equal(sample.prompt, Math.floor(i / 4));
        assert.equal(sample.sample, i % 4);
        assert.equal(sample.logprob.length, sample.tokens.length);
        assert.equal(sample.entropy.length, sample.tokens.length);
        assert.ok(sample.tokens.length >= 1 && sample.tokens.length <= 16);
        if (sample.finishReason === 'stop') assert.equal(sample.tokens.at(-1), 103);
        else assert.equal(sample.tokens.length, 16);
        assert.ok(!sample.tokens.slice(0, -1).includes(103), 'nothing after the stop token');
      }
    });

    it('records the log-probs and entropies that a forward gives', async () => {
      const samples = await policy.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 4, temperature: 0.7 });
      const seen = await policy.forward(batchOf(samples), { temperature: 0.7, keepActivations: false });
      flat(samples.map(({ logprob }) => logprob)).forEach((l, i) => {
        assert.ok(Math.abs(l - (seen.logprob[i] as number)) < 2e-5, `token ${i}`);
      });
      flat(samples.map(({ entropy }) => entropy)).forEach((h, i) => {
        assert.ok(Math.abs(h - (seen.entropy[i] as number)) < 2e-5, `token ${i}`);
      });
    });

    it('draws the same response whatever it is batched with, bit for bit', async () => {
      const options = { maxNewTokens: 16, seed: 5, iteration: 3 };
      const together = await policy.generate(prompts, { ...options, samplesPerPrompt: 5 });
      for (const [p, prompt] of prompts.entries()) {
        for (let s = 0; s < 5; s++) {
          const [alone] = await policy.generate([prompt], { ...options, promptIds: [p], sampleOffset: s });
          const same = together[p * 5 + s] as Generation;
          assert.deepEqual(alone?.tokens, same.tokens);
          assert.deepEqual(alone?.logprob, same.logprob);
          assert.deepEqual(alone?.entropy, same.entropy);
        }
      }
    });

    it('draws other responses for another seed, iteration, sample or prompt id', async () => {
      const draw = async (change: object) =>
        (await policy.generate([prompts[0] as number[]], { maxNewTokens: 16, samplesPerPrompt: 8, seed: 1, ...change }))
          .map(({ tokens }) => tokens.join(' '))
          .join('|');
      const all = await Promise.all(
        [{}, { seed: 2 }, { iteration: 1 }, { sampleOffset: 8 }, { promptIds: [7] }].map((change) => draw(change)),
      );
      assert.equal(new Set(all).size, all.length);
      assert.equal(await draw({}), all[0]);
    });

    it('aborts, reports progress, and leaves the event loop free', async () => {
      const controller = new AbortController();
      let ticks = 0;
      const timer = setInterval(() => ticks++, 1);
      const running = policy.generate(prompts, {
        maxNewTokens: 50,
        samplesPerPrompt: 2000,
        stopTokens: [],
        signal: controller.signal,
        onProgress: ({ tokens }) => {
          if (tokens > 20000) controller.abort();
        },
      });
      await assert.rejects(running, { code: 'EEPO_ABORTED', name: 'AbortError' });
      clearInterval(timer);
      assert.ok(ticks > 3, `${ticks} ticks of a 1 ms timer while it ran`);
    });

    it('names what is wrong', async () => {
      const refused: [Promise<unknown>, RegExp][] = [
        [policy.generate([], { maxNewTokens: 4 }), /prompts is empty/],
        [policy.generate([[1], []], { maxNewTokens: 4 }), /prompts\[1\] is empty/],
        [policy.generate([[1, 106]], { maxNewTokens: 4 }), /prompts\[0\] holds 106, not a token id from 0 to 105/],
        [policy.generate([Array(60).fill(1)], { maxNewTokens: 5 }), /60 tokens and maxNewTokens 5, more than .* 64/],
        [policy.generate([[1]], { maxNewTokens: 0 }), /maxNewTokens must be an integer >= 1/],
        [policy.generate([[1]], { maxNewTokens: 1, temperature: -1 }), /temperature/],
        [policy.generate([[1]], { maxNewTokens: 1, topP: 0 }), /topP/],
        [policy.generate([[1]], { maxNewTokens: 1, promptIds: [1, 2] }), /promptIds has 2 entries for 1 prompts/],
      ];
      for (const [promise, message] of refused) {
        await assert.rejects(promise, { code: 'EEPO_INVALID_ARGUMENT', message });
      }
    });
  });

  describe('forget', () => {
    it('lowers the stage-1 log-probs under theta-prime, and leaves the policy as it was', async () => {
      const samples = await policy.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 8 });
      const before = await bytesOf(policy);
      const report = await policy.forget(batchOf(samples), forgetting(samples));
      assert.equal(report.skipped, null);
      assert.ok(report.stage1LogpDelta < 0, `mean change ${report.stage1LogpDelta}`);
      assert.ok(report.paramChangedFrac > 0.5);
      assert.ok(report.relativeStep > 0);
      assert.equal(await bytesOf(policy), before);
      const rollout = await policy.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 8, weights: 'rollout' });
      assert.notDeepEqual(
        rollout.map(({ logprob }) => [...logprob]),
        samples.map(({ logprob }) => [...logprob]),
      );
      await policy.syncRollout();
      const again = await policy.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 8, weights: 'rollout' });
      assert.deepEqual(again, samples);
    });

    it('does not accumulate', async () => {
      const samples = await policy.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 8 });
      const rollout = async () => {
        await policy.forget(batchOf(samples), forgetting(samples));
        return policy.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 8, weights: 'rollout' });
      };
      assert.deepEqual(await rollout(), await rollout());
      await policy.syncRollout();
    });

    it('with eta = 0 samples as the policy does', async () => {
      const samples = await policy.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 4 });
      const report = await policy.forget(batchOf(samples), forgetting(samples, { eta: 0 }));
      assert.equal(report.paramChangedFrac, 0);
      const rollout = await policy.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 4, weights: 'rollout' });
      assert.deepEqual(rollout, samples);
      await policy.syncRollout();
    });

    it('skips where no token is open', async () => {
      const samples = await policy.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 4 });
      const report = await policy.forget(batchOf(samples), forgetting(samples, { alpha: 0 }));
      assert.equal(report.skipped, 'no-open-token');
      assert.equal(report.openTokens, 0);
      const rollout = await policy.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 4, weights: 'rollout' });
      assert.deepEqual(rollout, samples);
    });

    it('does not depend on the micro-batch size', async () => {
      const samples = await policy.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 8 });
      const reports = [];
      for (const microBatchTokens of [1, 60, 16384]) {
        reports.push(await policy.forget(batchOf(samples), forgetting(samples, { alpha: 0.3, microBatchTokens })));
      }
      const [one, some, all] = reports;
      for (const other of [one, some]) {
        assert.equal(other?.openTokens, all?.openTokens);
        assert.equal(other?.activeTokens, all?.activeTokens);
        assert.ok(Math.abs((other?.loss ?? 0) - (all?.loss ?? 0)) < 1e-5 * Math.abs(all?.loss ?? 0));
        assert.ok(Math.abs((other?.gradNorm ?? 0) - (all?.gradNorm ?? 0)) < 1e-5 * (all?.gradNorm ?? 0));
      }
      await policy.syncRollout();
    });

    it('scales the step to eta with gradNorm', async () => {
      const samples = await policy.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 4 });
      const raw = await policy.forget(batchOf(samples), forgetting(samples));
      const scaled = await policy.forget(batchOf(samples), forgetting(samples, { normalize: 'gradNorm' }));
      assert.ok(Math.abs(scaled.relativeStep * raw.gradNorm - raw.relativeStep) < 1e-6 * raw.relativeStep);
      await policy.syncRollout();
    });

    it('refuses to mix with gradients that wait for a step', async () => {
      const samples = await policy.generate(prompts, { maxNewTokens: 16 });
      const seen = await policy.forward(batchOf(samples));
      await policy.backward(new Float32Array(seen.logprob.length).fill(1), null);
      await assert.rejects(policy.forget(batchOf(samples), forgetting(samples)), { code: 'EEPO_BUSY' });
      await policy.zeroGrad();
      await policy.forget(batchOf(samples), forgetting(samples));
      await policy.syncRollout();
    });
  });

  describe('training', () => {
    it('descends: a step on the NLL raises the log-probs of what it saw', async () => {
      const own = await policy.clone();
      const samples = await own.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 4 });
      const batch = batchOf(samples);
      const before = await own.forward(batch);
      const n = before.logprob.length;
      await own.backward(new Float32Array(n).fill(-1 / n), null);
      const { gradNorm, applied } = await own.step({ lr: 1e-5, maxGradNorm: null });
      assert.ok(applied && gradNorm > 0);
      const later = await own.forward(batch, { keepActivations: false });
      assert.ok(mean(later.logprob) > mean(before.logprob));
      assert.notEqual(await bytesOf(own), await bytesOf(policy));
      own.dispose();
    });

    it('accumulates over micro-batches what one batch gives', async () => {
      const samples = await policy.generate(prompts, { maxNewTokens: 16, samplesPerPrompt: 4 });
      const gradientOf = async (parts: Generation[][]) => {
        await policy.zeroGrad();
        for (const part of parts) {
          const seen = await policy.forward(batchOf(part));
          const n = seen.logprob.length;
          await policy.backward(new Float32Array(n).fill(-0.01), new Float32Array(n).fill(0.002));
        }
        const gradients = await policy.gradients();
        const out = new Map<string, Float32Array>();
        for (const [name, tensor] of gradients) {
          out.set(name, await tensor.data());
          tensor.dispose();
        }
        await policy.zeroGrad();
        return out;
      };
      const whole = await gradientOf([samples]);
      const parts = await gradientOf(samples.map((sample) => [sample]));
      for (const [name, data] of whole) {
        const scale = Math.max(...data.map(Math.abs)) + 1e-9;
        const other = parts.get(name) as Float32Array;
        data.forEach((value, i) => {
          assert.ok(Math.abs(value - (other[i] as number)) < 1e-4 * scale, `${name}[${i}]`);
        });
      }
    });

    it('skips a gradient that is not finite and says so', async () => {
      const samples = await policy.generate(prompts, { maxNewTokens: 8 });
      const before = await bytesOf(policy);
      const seen = await policy.forward(batchOf(samples));
      await policy.backward(new Float32Array(seen.logprob.length).fill(Number.NaN), null);
      const report = await policy.step({ lr: 1e-3 });
      assert.equal(report.applied, false);
      assert.equal(await bytesOf(policy), before);
    });

    it('names misuse', async () => {
      await assert.rejects(policy.step({ lr: 1e-3 }), { code: 'EEPO_BUSY', message: /forward and backward first/ });
      await assert.rejects(policy.backward(new Float32Array(3), null), { code: 'EEPO_BUSY' });
      await policy.forward({ prompts: [[1, 2]], responses: [[3, 4]] });
      await assert.rejects(policy.backward(new Float32Array(3), null), {
        code: 'EEPO_INVALID_ARGUMENT',
        message: /a has 3 entries.*2 response tokens/,
      });
      await assert.rejects(policy.forward({ prompts: [[]], responses: [[3]] }), { message: /prompts\[0\] is empty/ });
      await assert.rejects(policy.forward({ prompts: [[1]], responses: [] }), { message: /1 rows and responses 0/ });
      await assert.rejects(policy.step({ lr: Number.NaN }), { message: /lr must be a finite number/ });
    });
  });

  describe('save and load', () => {
    it('gives the same policy back, byte for byte, with its tokenizer', async () => {
      const folder = join(dir, 'saved');
      await policy.save(folder);
      await policy.save(folder);
      using again = await Policy.load(folder);
      assert.equal(await bytesOf(again), await bytesOf(policy));
      assert.deepEqual(again.config, policy.config);
      assert.equal(
        await readFile(join(folder, 'tokenizer.json'), 'utf8'),
        await readFile(join(embeddedModel, 'tokenizer.json'), 'utf8'),
      );
    });

    it('names a folder or file that is missing or broken', async () => {
      await assert.rejects(Policy.load(join(dir, 'nowhere')), {
        code: 'EEPO_INVALID_FILE',
        message: /no such model folder/,
      });
      const folder = join(dir, 'broken');
      await policy.save(folder);
      const weights = await readFile(join(folder, 'model.safetensors'));
      const broken: [string, Buffer | string, RegExp][] = [
        ['model.safetensors', weights.subarray(0, weights.length - 100), /outside the file/],
        ['model.safetensors', weights.subarray(0, 6), /too short/],
        ['model.safetensors', Buffer.from('not a weights file at all'), /header length/],
        ['config.json', '{', /not valid JSON/],
        ['config.json', '[]', /must hold a JSON object/],
        ['config.json', '{"model_type": "gpt2"}', /"gpt2" is not supported; supported .* qwen2, qwen3, llama/],
        ['config.json', '{"model_type": "llama"}', /vocab_size[\s\S]*hidden_size/],
      ];
      for (const [file, content, message] of broken) {
        await policy.save(folder);
        await writeFile(join(folder, file), content);
        await assert.rejects(Policy.load(folder), (error: Error & { code: string }) => {
          assert.match(error.message, message);
          assert.ok(error.message.includes(join(folder, file)), error.message);
          return error.code === 'EEPO_INVALID_FILE' || error.code === 'EEPO_UNSUPPORTED';
        });
      }
      await policy.save(folder);
      await rm(join(folder, 'model.safetensors'));
      await assert.rejects(Policy.load(folder), { message: /neither model.safetensors nor/ });
    });

    it('says which device it does not have', async () => {
      await assert.rejects(Policy.load(embeddedModel, { device: 'cuda' }), { code: 'EEPO_UNSUPPORTED' });
    });

    it('throws after dispose', async () => {
      const own = await policy.clone();
      own.dispose();
      own.dispose();
      await assert.rejects(own.score([[1]]), { code: 'EEPO_DISPOSED' });
    });
  });

  it('scores in any number of sequences at once', async () => {
    const sequences = [...prompts, [1], [5, 6]];
    const together = await policy.score(sequences);
    for (const [i, sequence] of sequences.entries()) {
      const [alone] = await policy.score([sequence]);
      assert.deepEqual(alone, together[i]);
      assert.equal(together[i]?.logprob.length, sequence.length - 1);
      assert.equal(together[i]?.entropy.length, sequence.length);
    }
  });
});
