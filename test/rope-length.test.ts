/** Rope that depends on the length of the sequence: what forward passes, batches and generation make of it. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Policy } from '../lib/policy.js';

const config = {
  model_type: 'llama',
  vocab_size: 41,
  hidden_size: 24,
  intermediate_size: 23,
  num_hidden_layers: 2,
  num_attention_heads: 6,
  num_key_value_heads: 2,
  max_position_embeddings: 16,
  rms_norm_eps: 1e-6,
  rope_theta: 100,
};
const dynamic = { ...config, rope_scaling: { rope_type: 'dynamic', factor: 4 } };
const ids = (count: number, from = 0) => Array.from({ length: count }, (_, i) => (7 * (i + from) + (i % 3)) % 41);

describe('dynamic rope', () => {
  let policy: Policy;
  before(async () => {
    policy = await Policy.create(dynamic, { seed: 3 });
  });
  after(() => policy.dispose());

  it('changes nothing up to the original context', async () => {
    using plain = await Policy.create(config, { seed: 3 });
    assert.deepEqual(await policy.score([ids(16)]), await plain.score([ids(16)]));
    const options = { maxNewTokens: 10, seed: 5, stopTokens: [] };
    assert.deepEqual(await policy.generate([ids(6)], options), await plain.generate([ids(6)], options));
  });

  it('moves every token of a longer sequence', async () => {
    const [short] = await policy.score([ids(16)]);
    const [long] = await policy.score([ids(17)]);
    const moved = short?.logprob.filter((l, t) => t > 0 && l !== long?.logprob[t]).length ?? 0;
    assert.ok(moved > 10, `${moved} of 15 log-probs`);
  });

  it('does not depend on what else is in the batch', async () => {
    const sequences = [ids(30), ids(9, 4), ids(17, 8), ids(30, 2)];
    const together = await policy.score(sequences);
    for (const [i, sequence] of sequences.entries()) assert.deepEqual(await policy.score([sequence]), [together[i]]);
  });

  it('gives training the numbers of scoring, whatever shares a prompt', async () => {
    const prompt = ids(8);
    // shared, beyond the original context, shared again, an empty one, and beyond by one
    const responses = [ids(5, 1), ids(20, 2), ids(8, 3), [], ids(9, 5)];
    const seen = await policy.forward({ prompts: responses.map(() => prompt), responses });
    const scored = await policy.score(responses.map((response) => [...prompt, ...response]));
    const expected = scored.flatMap(({ logprob }) => [...logprob.slice(prompt.length - 1)]);
    assert.equal(seen.logprob.length, expected.length);
    for (const [t, l] of expected.entries()) assert.ok(Math.abs((seen.logprob[t] as number) - l) < 2e-6, `token ${t}`);
  });

  it('has the gradients of its sequences one by one', async () => {
    const batch = { prompts: [ids(8), ids(8), ids(8)], responses: [ids(20, 2), ids(4, 1), ids(6, 3)] };
    const gradientOf = async (prompts: number[][], responses: number[][]) => {
      await policy.forward({ prompts, responses });
      await policy.backward(new Float32Array(responses.flat().length).fill(1), null);
      const data = await (await policy.gradients()).get('model.layers.0.self_attn.k_proj.weight')?.data();
      await policy.zeroGrad();
      return data as Float32Array;
    };
    const together = await gradientOf(batch.prompts, batch.responses);
    const apart: Float32Array[] = [];
    for (const [i, response] of batch.responses.entries()) {
      apart.push(await gradientOf([batch.prompts[i] as number[]], [response]));
    }
    const largest = Math.max(...together.map(Math.abs));
    assert.ok(largest > 0);
    for (const [i, g] of together.entries()) {
      const sum = apart.reduce((total, one) => total + (one[i] as number), 0);
      assert.ok(Math.abs(g - sum) < 1e-5 * largest, `${i}: ${g} instead of ${sum}`);
    }
  });

  it('keeps the activations of a forward over a longer generation', async () => {
    const batch = { prompts: [ids(4)], responses: [ids(9, 1)] };
    const a = new Float32Array(9).fill(1);
    const gradientAfter = async (between: () => Promise<unknown>) => {
      await policy.forward(batch);
      await between();
      await policy.backward(a, null);
      const data = await (await policy.gradients()).get('model.layers.0.self_attn.q_proj.weight')?.data();
      await policy.zeroGrad();
      return data;
    };
    const alone = await gradientAfter(async () => undefined);
    const between = await gradientAfter(() => policy.generate([ids(20)], { maxNewTokens: 40, stopTokens: [] }));
    assert.deepEqual(between, alone);
  });

  it('refuses what lies beyond the stretched context', async () => {
    await assert.rejects(policy.score([ids(65)]), { code: 'EEPO_INVALID_ARGUMENT', message: /context of 64/ });
  });
});
