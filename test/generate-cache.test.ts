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
