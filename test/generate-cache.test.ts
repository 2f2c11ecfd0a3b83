/** A bounded number of rows and a bounded key-value cache change no response. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import type { GenerateOptions, Generation } from '../lib/index.js';
import { Policy } from '../lib/index.js';

const config = {
  model_type: 'qwen2',
  vocab_size: 61,
  hidden_size: 24,
  intermediate_size: 40,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-6,
};
let policy: Policy;
before(async () => {
  policy = await Policy.create(config, { seed: 3 });
});
after(() => policy.dispose());

const prompts = [3, 40, 1, 17, 18, 5].map((length, p) => Array.from({ length }, (_, t) => (t * 7 + p * 13) % 61));

const draw = (options: Partial<GenerateOptions>): Promise<Generation[]> =>
  policy.generate(prompts, {
    maxNewTokens: 150,
    samplesPerPrompt: 4,
    seed: 11,
    stopTokens: [7], // one in 61: lengths from 1 to 150
    ...options,
  });

test('lengths of the samples differ enough for rows to wait, end and be put back', async () => {
  const lengths = (await draw({})).map(({ tokens }) => tokens.length);
  assert.ok(Math.min(...lengths) < 20 && Math.max(...lengths) === 150, lengths.join(' '));
});

test('a bounded number of rows and a bounded cache give the same responses, bit for bit', async () => {
  const whole = await draw({});
  // 48 for the longest prompt and 160 for a response is the least there can be
  for (const options of [
    { maxRows: 1 },
    { maxRows: 3 },
    { maxRows: 7, cacheTokens: 208 },
    { cacheTokens: 208 },
    { cacheTokens: 500 },
    { cacheTokens: 1000 },
    { cacheTokens: 3000 },
    { cacheTokens: 1e9, maxRows: 1e6 },
  ]) {
    assert.deepEqual(await draw(options), whole, JSON.stringify(options));
  }
});

test('any bound gives the same responses', async () => {
  const whole = await draw({ maxNewTokens: 90 });
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 0, max: 30 }),
      fc.integer({ min: 144, max: 1500 }),
      async (maxRows, cacheTokens) => {
        assert.deepEqual(await draw({ maxNewTokens: 90, maxRows, cacheTokens }), whole);
      },
    ),
    { numRuns: 40 },
  );
});

test('one token needs no memory of its own', async () => {
  const one = await draw({ maxNewTokens: 1 });
  assert.ok(one.every(({ tokens }) => tokens.length === 1));
  assert.deepEqual(await draw({ maxNewTokens: 1, maxRows: 2, cacheTokens: 64 }), one);
});

test('a cache too small for one response says what it needs', async () => {
  await assert.rejects(draw({ cacheTokens: 207 }), {
    code: 'EEPO_INVALID_ARGUMENT',
    message: /cacheTokens is 207, too few for one response: .* need 208/,
  });
  await assert.rejects(draw({ maxRows: -1 }), { code: 'EEPO_INVALID_ARGUMENT', message: /maxRows/ });
});

test('the number of running rows never exceeds maxRows', async () => {
  const running: number[] = [];
  await draw({ maxRows: 5, onProgress: (progress) => running.push(progress.running) });
  assert.ok(running.length > 0 && Math.max(...running) <= 5, String(Math.max(...running)));
});

test('samples that end with their first token need no cache, whatever the bound', async () => {
  const stopTokens = Array.from({ length: 61 }, (_, token) => token);
  const whole = await draw({ stopTokens });
  assert.ok(whole.every(({ tokens, finishReason }) => tokens.length === 1 && finishReason === 'stop'));
  for (const options of [{ maxRows: 1 }, { cacheTokens: 208 }, { maxRows: 2, cacheTokens: 208 }]) {
    assert.deepEqual(await draw({ ...options, stopTokens }), whole, JSON.stringify(options));
  }
});

test('one prompt twice is two prompts, and one response where the random numbers are the same', async () => {
  const twice = [prompts[1], prompts[1], prompts[1]] as number[][];
  const options = { maxNewTokens: 60, samplesPerPrompt: 3, seed: 2, stopTokens: [7], promptIds: [4, 9, 4] };
  const whole = await policy.generate(twice, options);
  const tokens = (prompt: number) => whole.filter((one) => one.prompt === prompt).map((one) => one.tokens);
  assert.deepEqual(tokens(0), tokens(2));
  assert.notDeepEqual(tokens(0), tokens(1));
  for (const bound of [{ maxRows: 1 }, { maxRows: 4, cacheTokens: 112 }, { cacheTokens: 200 }]) {
    assert.deepEqual(await policy.generate(twice, { ...options, ...bound }), whole, JSON.stringify(bound));
  }
});

test('a prompt longer than one pass, beside short ones and in a cache that holds it alone', async () => {
  const long = await Policy.create({ ...config, num_hidden_layers: 1, max_position_embeddings: 8400 }, { seed: 3 });
  const mixed = [[5, 6], Array.from({ length: 8300 }, (_, t) => (t * t) % 61), [7, 8, 9]];
  const options = { maxNewTokens: 40, samplesPerPrompt: 2, seed: 2, stopTokens: [7] };
  const whole = await long.generate(mixed, options);
  assert.deepEqual(await long.generate(mixed, { ...options, maxRows: 3, cacheTokens: 8304 + 48 }), whole);
  const alone = await long.generate([mixed[1] as number[]], { ...options, promptIds: [1] });
  assert.deepEqual(
    alone.map(({ tokens }) => tokens),
    whole.filter(({ prompt }) => prompt === 1).map(({ tokens }) => tokens),
  );
  long.dispose();
});

test('any model, any prompts, any bounds: a response is the same, also after one that was aborted', async () => {
  const shape = fc.record({
    heads: fc.integer({ min: 1, max: 3 }),
    group: fc.integer({ min: 1, max: 2 }),
    half: fc.integer({ min: 2, max: 9 }),
    dynamic: fc.boolean(),
    dtype: fc.constantFrom('float32' as const, 'bfloat16' as const),
    lora: fc.boolean(),
  });
  const asked = fc.record({
    lengths: fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 7 }),
    samplesPerPrompt: fc.integer({ min: 1, max: 5 }),
    maxNewTokens: fc.integer({ min: 1, max: 80 }),
    stops: fc.integer({ min: 0, max: 30 }),
    maxRows: fc.integer({ min: 0, max: 9 }),
    room: fc.integer({ min: 0, max: 400 }),
    abortAfter: fc.integer({ min: 0, max: 20 }),
  });
  await fc.assert(
    fc.asyncProperty(shape, asked, async (model, how) => {
      const json = {
        ...config,
        model_type: 'qwen3',
        vocab_size: 31,
        hidden_size: 6,
        intermediate_size: 5,
        num_attention_heads: model.heads * model.group,
        num_key_value_heads: model.heads,
        head_dim: 2 * model.half,
        rope_scaling: model.dynamic ? { rope_type: 'dynamic', factor: 2, original_max_position_embeddings: 30 } : null,
      };
      const choices = { dtype: model.dtype, ...(model.lora && { lora: { rank: 2, seed: 1 } }) };
      const any = await Policy.create(json, { seed: 3, ...choices });
      const texts = how.lengths.map((length, p) => Array.from({ length }, (_, t) => (t * 5 + p) % 31));
      const { samplesPerPrompt, maxNewTokens, maxRows } = how;
      const stopTokens = Array.from({ length: how.stops }, (_, i) => i);
      const options = { samplesPerPrompt, maxNewTokens, seed: 6, stopTokens };
      const whole = await any.generate(texts, options);
      const capacity = (n: number) => Math.ceil(n / 16) * 16;
      const least = capacity(Math.max(...how.lengths)) + capacity(Math.max(maxNewTokens - 1, 1));
      const bounded = { ...options, maxRows, cacheTokens: least + how.room };
      const controller = new AbortController();
      setTimeout(() => controller.abort(), how.abortAfter);
      await any.generate(texts, { ...bounded, signal: controller.signal }).catch((error) => {
        assert.equal(error.name, 'AbortError');
      });
      assert.deepEqual(await any.generate(texts, bounded), whole);
      any.dispose();
    }),
    { numRuns: 60 },
  );
});
