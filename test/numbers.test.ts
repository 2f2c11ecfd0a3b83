/**
 * Numbers that are not finite: the step is skipped with every bit in its place and named by the first tensor, several
 * in a row end the run, unlearning that diverges is undone. On the CPU and, where there is one (a GPU, or the emulated
 * CUDA half), on device 'cuda'.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { grpo } from '../lib/algorithm/grpo.js';
import type { Objective } from '../lib/algorithm/types.js';
import { cudaStatus } from '../lib/cuda.js';
import { ConfigError, NonFiniteError } from '../lib/errors.js';
import { EntropyGate, twoStageRollout } from '../lib/index.js';
import { Policy } from '../lib/policy.js';
import type { NonFinite, SequenceBatch } from '../lib/policy-types.js';
import type { RewardFunction } from '../lib/tasks/types.js';
import { defineConfig, type TrainConfigInput } from '../lib/train/config.js';
import { RunDirectory } from '../lib/train/run-directory.js';
import { Trainer } from '../lib/train/trainer.js';
import { temporaryFolder } from './support/files.js';
import { forgetting, values } from './support/policy.js';
import { type Weights, weightsOf, writeModel } from './support/reference-decoder.js';
import { iterationsOf, toyTask, toyTokenizer } from './support/toy-task.js';

const LAYERS = 3;
const model = {
  model_type: 'qwen3',
  vocab_size: 13,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: LAYERS,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 4,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  max_position_embeddings: 64,
  hidden_act: 'silu',
  eos_token_id: 0,
  tie_word_embeddings: true,
};
const untied = { ...model, tie_word_embeddings: false };
const batch: SequenceBatch = {
  prompts: [[1, 2], [4]],
  responses: [
    [3, 4, 5],
    [6, 7],
  ],
};
const a = Float32Array.from({ length: 5 }, (_, t) => 0.1 * (t + 1));

const cuda = cudaStatus();
const devices = [
  { device: 'cpu', skip: false },
  { device: 'cuda', skip: cuda.available ? false : `no CUDA: ${cuda.reason}` },
] as const;

for (const { device, skip } of devices) {
  describe(`numbers that are not finite, ${device}`, { skip }, () => {
    let weights: Weights;
    let folder: string;
    let count = 0;
    before(async () => {
      folder = mkdtempSync(join(tmpdir(), 'eepo-test-'));
      using policy = await Policy.create(untied, { seed: 3 });
      weights = await weightsOf(policy);
    });
    after(() => rmSync(folder, { recursive: true, force: true }));

    /** A policy whose weights `change` has changed. */
    async function changed(change: (weights: Weights) => void, config: object = model, options = {}): Promise<Policy> {
      const copy: Weights = new Map(
        [...weights]
          .filter(([name]) => name !== 'lm_head.weight' || config === untied)
          .map(([name, { shape, data }]) => [name, { shape, data: data.slice() }]),
      );
      change(copy);
      const dir = `${folder}/${count++}`;
      mkdirSync(dir);
      await writeModel(dir, config, copy);
      return Policy.load(dir, { device, ...options });
    }
    const set = (name: string, index: number, value: number) => (all: Weights) => {
      (all.get(name)?.data as Float64Array)[index] = value;
    };

    it('finds nothing where all is well', async () => {
      using policy = await changed(() => {});
      assert.equal(await policy.findNonFinite(), null);
      assert.equal(await policy.findNonFinite(batch), null);
      await policy.forward(batch);
      await policy.backward(a);
      const before = await values(await policy.gradients());
      assert.equal(await policy.findNonFinite(batch, { temperature: 0.5 }), null);
      assert.deepEqual(await values(await policy.gradients()), before);
      assert.equal((await policy.step({ lr: 1e-3 })).applied, true);
      assert.equal(await policy.findNonFinite(), null);
    });

    it('names every weight, of each layer, and the value', async () => {
      for (const [name, { data }] of weights) {
        for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
          // The embedding of a token that is asked about, the last element of everything else.
          const index = name === 'model.embed_tokens.weight' ? 15 : data.length - 1;
          using policy = await changed(set(name, index, value), untied);
          const found = await policy.findNonFinite(batch);
          assert.deepEqual(
            { kind: found?.kind, name: found?.name, index: found?.index, value: found?.value },
            { kind: 'weight', name, index, value },
          );
          assert.equal(found?.text, `${name}: element ${index} is ${value}`);
          if (Number.isNaN(value)) {
            await assert.rejects(policy.generate([[1, 2]], { maxNewTokens: 3 }), (error: Error) => {
              assert.ok(error instanceof NonFiniteError);
              assert.ok(
                error.message.includes(`first non-finite tensor: ${name}: element ${index} is NaN`),
                error.message,
              );
              return true;
            });
          }
        }
      }
    });

    it('names a weight in bfloat16 and of an adapter', async () => {
      const name = 'model.layers.1.mlp.up_proj.weight';
      using half = await changed(set(name, 5, Number.NaN), model, { dtype: 'bfloat16' });
      assert.equal((await half.findNonFinite())?.name, name);
      using adapted = await changed(set(name, 5, Number.NaN), model, { lora: { rank: 2 } });
      assert.equal((await adapted.findNonFinite(batch))?.name, name);
    });

    it('names the layer in which finite weights overflow, the token and the row', async () => {
      for (let layer = 0; layer < LAYERS; layer++) {
        using policy = await changed((all) => {
          for (const part of ['gate_proj', 'up_proj', 'down_proj']) {
            const { data } = all.get(`model.layers.${layer}.mlp.${part}.weight`) as { data: Float64Array };
            data.fill(1e30);
          }
        });
        const found = await policy.findNonFinite(batch);
        assert.equal(found?.kind, 'hidden');
        assert.equal(found?.layer, layer);
        // After the last layer only those tokens count that predict the response.
        const first = layer === LAYERS - 1 ? 1 : 0;
        assert.match(
          found?.text ?? '',
          new RegExp(`^the hidden state after layer ${layer}, token ${first}: element \\d is (NaN|-?Infinity)$`),
        );
        assert.deepEqual([found?.sequence, found?.position], [0, first]);
        const [scored] = await policy.score([[1, 2, 3]]);
        assert.ok(scored?.logprob.some((l) => !Number.isFinite(l)));
      }
      using large = await changed(
        (all) => (all.get('lm_head.weight') as { data: Float64Array }).data.fill(3e38),
        untied,
      );
      const found = await large.findNonFinite(batch);
      assert.equal(found?.kind, 'logits');
      assert.match(found?.text ?? '', /^the logits, token 1: element \d+ is -?(Infinity|NaN)$/);
    });

    it('skips a step whose gradient is not finite, names it, and keeps every bit', async () => {
      for (const config of [model, untied]) {
        using policy = await changed(() => {}, config);
        using twin = await changed(() => {}, config);
        for (const one of [policy, twin]) {
          await one.forward(batch);
          await one.backward(a);
          assert.equal((await one.step({ lr: 1e-2 })).applied, true);
        }
        const before = await policy.hash();
        await policy.forward(batch);
        await policy.backward(Float32Array.of(0, 0, Number.NaN, 0, 0));
        const found = await policy.findNonFinite();
        const report = await policy.step({ lr: 1e-2 });
        assert.equal(report.applied, false);
        assert.equal(report.cause?.kind, 'gradient');
        // The head first; a tied head has the embedding's name.
        assert.equal(report.cause?.name, config === model ? 'model.embed_tokens.weight' : 'lm_head.weight');
        assert.deepEqual(found, report.cause);
        assert.equal(await policy.hash(), before);
        // Moments and the count of steps too: the next step is the one it would have been.
        for (const one of [policy, twin]) {
          await one.forward(batch);
          await one.backward(a);
          await one.step({ lr: 1e-2 });
        }
        assert.equal(await policy.hash(), await twin.hash());
      }
    });

    it('skips a step whose gradients would overflow the moments', async () => {
      using policy = await changed(() => {});
      await policy.forward(batch);
      await policy.backward(a);
      const { gradNorm } = await policy.step({ lr: 0 });
      const before = await policy.hash();
      const scale = 3e18 / gradNorm;
      await policy.forward(batch);
      await policy.backward(a.map((x) => x * scale));
      const report = await policy.step({ lr: 1e-3, maxGradNorm: null });
      assert.equal(report.applied, false);
      assert.equal(report.cause, null);
      assert.ok(Number.isFinite(report.gradNorm) && report.gradNorm > 1e18);
      assert.equal(await policy.hash(), before);
      await policy.forward(batch);
      await policy.backward(a.map((x) => x * scale));
      assert.equal((await policy.step({ lr: 1e-3, maxGradNorm: 1 })).applied, true);
      assert.equal(await policy.findNonFinite(), null);
    });

    it('refuses steps that could lead from finite weights to others', async () => {
      using policy = await changed(() => {});
      await policy.forward(batch);
      await policy.backward(a);
      await assert.rejects(policy.step({ lr: 1e30 }), /lr must be at most/);
      await assert.rejects(policy.step({ lr: 1e-3, weightDecay: 1e30 }), /lr x weightDecay/);
    });

    it("undoes unlearning whose theta' is not finite", async () => {
      using policy = await changed(() => {});
      const before = await policy.hash();
      const samples = await policy.generate([[1, 2], [4]], { maxNewTokens: 4, samplesPerPrompt: 2 });
      const drawn = { prompts: [[1, 2], [1, 2], [4], [4]], responses: samples.map(({ tokens }) => tokens) };
      const report = await policy.forget(drawn, forgetting(samples, { eta: 1e60, normalize: 'gradNorm' }));
      assert.equal(report.skipped, 'non-finite');
      assert.ok(report.cause, 'a cause is named');
      // What is sampled is sampled from theta.
      assert.deepEqual(
        await policy.generate([[1, 2]], { maxNewTokens: 4, weights: 'rollout' }),
        await policy.generate([[1, 2]], { maxNewTokens: 4 }),
      );
      assert.equal(await policy.hash(), before);
    });

    it('draws stage 2 from theta where unlearning diverges, whatever its first sign', async () => {
      using policy = await changed(() => {});
      const prompts = [
        { id: 0, tokens: [1, 2] },
        { id: 1, tokens: [4] },
      ];
      const draw = (unlearn: object | null) =>
        twoStageRollout(policy, prompts, {
          groupSize: 4,
          maxNewTokens: 5,
          unlearn: unlearn === null ? null : { eta: 0, gate: new EntropyGate({ gate: 'always' }), ...unlearn },
        });
      const tokens = (samples: { tokens: number[] }[]) => samples.map((sample) => sample.tokens);
      const plain = await draw(null);
      const signs: [object, RegExp][] = [
        [{ eta: 1e60, normalize: 'gradNorm' }, /./],
        [{ eta: 1e60, normalize: 'gradNorm', probeTokens: 0 }, /times as long as the weights/],
        // Without bounds and probes it is the first token that nothing can be drawn for.
        [
          { eta: 1e60, normalize: 'gradNorm', probeTokens: 0, maxRelativeStep: 0 },
          /under theta' no token can be drawn.*first non-finite tensor/,
        ],
        [
          { eta: 2, normalize: 'gradNorm', maxRelativeStep: 1e-3 },
          /times as long as the weights; at most 0\.001 .*unlearn\.maxRelativeStep/,
        ],
        [
          { eta: 5, normalize: 'gradNorm', maxRelativeStep: 0, maxLogpDelta: 1e-3 },
          /log-prob of stage-1 tokens changed by .*unlearn\.maxLogpDelta/,
        ],
      ];
      for (const [unlearn, message] of signs) {
        const rollout = await draw(unlearn);
        assert.match(rollout.undone ?? '', message);
        assert.deepEqual(tokens(rollout.samples), tokens(plain.samples));
      }
      const step = await draw({ eta: 2, normalize: 'gradNorm' });
      assert.equal(step.undone, null);
      assert.equal(step.forget?.skipped, null);
    });

    describe('a run', () => {
      const config = (sections: Partial<TrainConfigInput> = {}) =>
        defineConfig({
          run: { iterations: 4, seed: 4, ...sections.run },
          rollout: { promptsPerIteration: 2, groupSize: 4, maxNewTokens: 5 },
          unlearn: { eta: 0.01, gate: 'always', ...sections.unlearn },
          objective: { klCoef: 0, ...sections.objective },
          optimizer: { lr: 1e-3, miniBatchPrompts: 1, ...sections.optimizer },
          reward: { ...sections.reward },
        });
      const half: RewardFunction = (inputs) => inputs.map((_, i) => i % 2);
      async function run(policy: Policy, options: Partial<ConstructorParameters<typeof Trainer>[0]> = {}) {
        const trainer = new Trainer({
          policy,
          tokenizer: toyTokenizer,
          task: toyTask({ reward: half, prompts: ['1', '2', '4', '5'] }),
          config: config(),
          ...options,
        });
        return { trainer, ...(await iterationsOf(trainer)) };
      }
      /** GRPO, but for its calls `bad`, of which `change` makes something. */
      function broken(bad: (call: number) => boolean, change: (result: ReturnType<Objective>) => void): Objective {
        const plain = grpo({ klCoef: 0 });
        let calls = 0;
        return (tokens, normalizer) => {
          const result = plain(tokens, normalizer);
          if (bad(calls++)) change(result);
          return result;
        };
      }

      it('skips one update, says which coefficient of which token, and goes on as if it had not been', async () => {
        const changes: [(result: ReturnType<Objective>) => void, RegExp][] = [
          [
            ({ a }) => a.fill(Number.NaN, 1, 2),
            /the loss coefficient a = dL\/dlogprob of token 1 of sample 0 of prompt toy-\d .* is NaN/,
          ],
          [
            ({ b }) => b.fill(Number.POSITIVE_INFINITY, 0, 1),
            /the loss coefficient b = dL\/dentropy of token 0 of sample 0 .* is Infinity/,
          ],
          [(result) => Object.assign(result, { loss: Number.NaN }), /the loss is NaN/],
        ];
        for (const [change, message] of changes) {
          using policy = await changed(() => {});
          const { iterations, error, trainer } = await run(policy, { objective: broken((call) => call === 1, change) });
          assert.equal(error, null);
          assert.deepEqual(
            iterations.map(({ metrics }) => metrics['actor/skipped_steps']),
            [1, 0, 0, 0],
          );
          assert.match(iterations[0]?.incidents[0]?.message ?? '', message);
          assert.match(
            iterations[0]?.incidents[0]?.message ?? '',
            /^iteration 1: update 2 of 2 was skipped, nothing was changed: /,
          );
          assert.ok(Object.values(iterations[0]?.metrics ?? {}).every(Number.isFinite));
          assert.deepEqual(trainer.streaks, { skippedSteps: 0, failedRewards: 0 });
        }
      });

      it('leaves weights alone where every update is skipped, and stops after so many in a row', async () => {
        using policy = await changed(() => {});
        const before = await policy.hash();
        const objective = broken(
          () => true,
          ({ a }) => a.fill(Number.NaN),
        );
        const { iterations, error, trainer } = await run(policy, { objective });
        assert.ok(error instanceof NonFiniteError);
        assert.match(error.message, /^3 updates in a row .*iteration 2: update 1 of 2 was skipped.*loss coefficient a/);
        // The iteration of the third is handed over first: what can be saved is known.
        assert.equal(iterations.length, 2);
        assert.equal(trainer.iteration, 2);
        assert.deepEqual(trainer.streaks, { skippedSteps: 3, failedRewards: 0 });
        assert.equal(await policy.hash(), before);
        assert.ok(!('actor/loss' in (iterations[0]?.metrics ?? {})));

        const endless = await run(policy, { objective, config: config({ optimizer: { maxSkippedSteps: 0 } }) });
        assert.equal(endless.error, null);
        assert.equal(endless.trainer.streaks.skippedSteps, 8);
        assert.equal(await policy.hash(), before);
      });

      it('counts a row across iterations and restarts, and begins again after one that was applied', async () => {
        using policy = await changed(() => {});
        const change = ({ a }: ReturnType<Objective>) => a.fill(Number.NaN);
        // Two bad, one good, two bad, ...
        const { error, trainer } = await run(policy, { objective: broken((call) => call % 3 !== 2, change) });
        assert.equal(error, null);
        assert.equal(trainer.streaks.skippedSteps, 2);
        const second = new Trainer({
          policy,
          tokenizer: toyTokenizer,
          task: toyTask({ reward: half }),
          config: config(),
          objective: broken(() => true, change),
        });
        second.streaks = trainer.streaks;
        await assert.rejects(async () => {
          for await (const _ of second);
        }, /3 updates in a row .*iteration 1: update 1 of 2/);
      });

      it('names an advantage that does not fit into float32, with its reward', async () => {
        using policy = await changed(() => {});
        const before = await policy.hash();
        const { iterations, error } = await run(policy, {
          task: toyTask({ reward: (inputs) => inputs.map((_, i) => (i % 2 ? 1e300 : -1e300)) }),
          config: config({ objective: { klCoef: 0, advantageStd: false }, run: { iterations: 1 } }),
        });
        assert.equal(error, null);
        assert.match(
          iterations[0]?.incidents[0]?.message ?? '',
          /: the advantage of sample 0 of prompt toy-\d \(reward -1e\+300\) is -Infinity$/,
        );
        assert.equal(await policy.hash(), before);
      });

      it('names a log-prob of the reference model', async () => {
        using policy = await changed(() => {});
        using reference = await changed(set('model.layers.1.mlp.down_proj.weight', 0, Number.NaN));
        const { iterations } = await run(policy, {
          reference,
          config: config({ objective: { klCoef: 1e-3 }, run: { iterations: 1 } }),
        });
        assert.match(
          iterations[0]?.incidents[0]?.message ?? '',
          /the log-prob under the reference model of token 0 of sample 0 of prompt toy-\d \(reward 0\) \(position \d\) is NaN/,
        );
      });

      it('ends where theta itself cannot be sampled, naming the weight', async () => {
        using policy = await changed(set('model.layers.2.self_attn.k_norm.weight', 1, Number.NaN));
        const { iterations, error } = await run(policy);
        assert.equal(iterations.length, 0);
        assert.ok(error instanceof NonFiniteError);
        assert.match(
          error.message,
          /no token can be drawn for prompt 0 .* model\.layers\.2\.self_attn\.k_norm\.weight: element 1 is NaN/,
        );
      });

      it('undoes unlearning that diverges, counts it and goes on', async () => {
        using policy = await changed(() => {});
        const { iterations, error } = await run(policy, {
          config: config({ unlearn: { eta: 1e30, gate: 'always' }, run: { iterations: 2 } }),
        });
        assert.equal(error, null);
        for (const { metrics, incidents } of iterations) {
          assert.equal(metrics['unlearn/undone'], 1);
          assert.equal(metrics['unlearn/skipped'], 1);
          assert.equal(metrics['actor/skipped_steps'], 0);
          assert.equal(incidents[0]?.kind, 'unlearn');
          assert.match(
            incidents[0]?.message ?? '',
            /the unlearning step diverged and was undone, stage 2 was drawn from theta: /,
          );
        }
        const fine = await run(policy, { config: config({ run: { iterations: 1 } }) });
        assert.equal(fine.iterations[0]?.metrics['unlearn/undone'], 0);
      });
    });
  });
}

describe('a model with weights that are not finite', () => {
  it('is not written, and what was there stays', async (t) => {
    const run = RunDirectory.create(join(temporaryFolder(t), 'run'));
    using policy = await Policy.create(model, { seed: 3 });
    const tokenizer = { save: async () => {} };
    const path = await run.saveModel('model', policy, tokenizer);
    const before = readFileSync(join(path, 'model.safetensors'));
    const bad = { kind: 'weight', name: 'w', index: 1, value: Number.NaN, layer: null, sequence: null, position: null };
    const broken = {
      save: (folder: string) => policy.save(folder),
      findNonFinite: async () => ({ ...bad, text: 'w: element 1 is NaN' }) as NonFinite,
    };
    await assert.rejects(
      run.saveModel('model', broken, tokenizer),
      (error: Error) =>
        error instanceof NonFiniteError && /model was not written: the weight w: element 1 is NaN$/.test(error.message),
    );
    assert.deepEqual(readFileSync(join(path, 'model.safetensors')), before);
  });
});

describe('hostile options', () => {
  it('of the optimizer are refused before anything is drawn', () => {
    assert.throws(
      () => defineConfig({ optimizer: { lr: 1e30 } }),
      (e: Error) => e instanceof ConfigError && /optimizer\.lr/.test(e.message),
    );
    assert.throws(
      () => defineConfig({ optimizer: { lr: 1e-3, weightDecay: 1e30 } }),
      (e: Error) => e instanceof ConfigError && /optimizer\.weightDecay = 1e\+30/.test(e.message),
    );
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, -1]) {
      for (const key of ['lr', 'eps', 'weightDecay', 'maxGradNorm', 'maxSkippedSteps']) {
        assert.throws(() => defineConfig({ optimizer: { [key]: value } }), ConfigError, `${key} = ${value}`);
      }
    }
  });
});
