/** The model's binding by itself: whatever JavaScript hands it is one error or a result, never a crash. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { normalizeConfig } from '../lib/config-json.js';
import { loadNative } from '../lib/native.js';
import type { NativeModel } from '../lib/native-model.js';

const config = normalizeConfig(
  {
    model_type: 'qwen3',
    vocab_size: 19,
    hidden_size: 10,
    intermediate_size: 7,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 6,
    max_position_embeddings: 256,
    rms_norm_eps: 1e-6,
    tie_word_embeddings: true,
    rope_scaling: { rope_type: 'dynamic', factor: 2, original_max_position_embeddings: 24 },
  },
  'config',
);
const adapter = { rank: 3, scale: 0.5, targets: ['q_proj', 'v_proj', 'down_proj'], seed: 5, path: null };
const models: NativeModel[] = [];
before(async () => {
  for (const dtype of ['float32', 'bfloat16'] as const) {
    models.push(
      await loadNative().createModel(config, 1, 'cpu', { dtype, trainable: true, adapter: null }),
      await loadNative().createModel(config, 1, 'cpu', { dtype, trainable: false, adapter }),
      await loadNative().createModel(config, 1, 'cpu', { dtype, trainable: false, adapter: null }),
    );
  }
});
after(() => {
  for (const model of models) model.dispose();
});

/** A detached array: its memory was handed over. */
function detached(): Int32Array {
  const array = Int32Array.of(1, 2, 3);
  structuredClone(array.buffer, { transfer: [array.buffer] });
  return array;
}

const hostile = fc.oneof(
  fc.constantFrom<unknown>(
    ...[undefined, null, true, '', 'float32', -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, -0, 2 ** 31, 2 ** 53],
    ...[1e300, 10n, -1n, 2n ** 64n, {}, [], () => 1, Symbol('s'), new Float64Array(3), new Uint8Array(3)],
    ...[new Int32Array(0), new Float32Array(0), Int32Array.of(-1), Int32Array.of(19), Int32Array.of(2 ** 31 - 1)],
    ...[detached(), new Int32Array(new SharedArrayBuffer(12)), new Proxy([], {}), new Array(2 ** 32 - 1)],
  ),
  fc.array(fc.integer({ min: -2, max: 20 }), { maxLength: 12 }).map((values) => Int32Array.from(values)),
  fc.array(fc.double(), { maxLength: 12 }).map((values) => Float32Array.from(values)),
);

const ids = Int32Array.of(1, 2, 3, 1, 2, 3, 4, 5, 6, 18, 0, 7);
const lengths = Int32Array.of(5, 7);
const starts = Int32Array.of(2, 7);
const generateOptions = {
  ...{ maxNewTokens: 40, samplesPerPrompt: 3, temperature: 1, topK: 0, topP: 1, seed: 3, iteration: 0 },
  ...{ sampleOffset: 0, promptIds: Int32Array.of(0, 1), stopTokens: Int32Array.of(4), rollout: false },
  ...{ maxRows: 2, cacheTokens: 64 },
};
const forgetOptions = {
  ...{ alpha: 0.5, window: 4, epsLow: 0.1, epsHigh: 0.9, saturate: false, eta: 1, temperature: 1 },
  ...{ loss: 'nll', normalize: 'gradNorm', direction: 'random', steps: 2, memory: 0.5 },
  ...{ probeTokens: 4, microBatchTokens: 4, rolloutDtype: 'bfloat16', seed: 1, iteration: 2 },
};
const stepOptions = { lr: 1e-3, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 };
/** Arguments that are right, by method of NativeModel. */
const calls: Record<string, unknown[]> = {
  score: [ids, lengths, 6, undefined],
  logits: [ids, undefined],
  generate: [ids, lengths, generateOptions, undefined, () => undefined],
  forward: [ids, lengths, starts, 1, true, undefined, false],
  backward: [Float32Array.of(1, 2, 3), null],
  step: [stepOptions],
  forget: [ids, lengths, starts, Float32Array.of(1, 0.5, 0.25), forgetOptions, undefined],
  save: [[{ path: '/nowhere/at/all.safetensors', names: ['model.norm.weight'] }], 'float32', undefined],
  saveAdapter: ['/nowhere/at/all.safetensors'],
  setGradientCheckpointing: [true],
  zeroGrad: [],
  syncRollout: [],
  dropMemory: [2],
  loadMemory: ['/nowhere/at/all.safetensors'],
  clone: [],
  gradients: [],
  parameters: [],
  memory: [],
};

async function call(model: NativeModel, name: string, args: unknown[]): Promise<unknown> {
  try {
    const method = (model as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>)[name];
    const result = await method?.apply(model, args);
    for (const one of Array.isArray(result) ? result.map(([, tensor]) => tensor) : [result]) {
      if (typeof one?.dispose === 'function') one.dispose();
    }
    return undefined;
  } catch (error) {
    return error;
  }
}

test('right arguments are taken by every kind of model that can', async () => {
  for (const [m, model] of models.entries()) {
    for (const [name, args] of Object.entries(calls)) {
      const error = (await call(model, name, args)) as { code?: string } | undefined;
      const frozen = m % 3 === 2;
      const files = frozen ? ['save'] : ['save', 'loadMemory'];
      if (files.includes(name) || (name === 'saveAdapter' && m % 3 === 1)) {
        assert.equal(error?.code, 'EEPO_INVALID_FILE');
      } else if (frozen && /^(forward|backward|step|forget|gradients|loadMemory)$/.test(name)) {
        assert.equal(error?.code, 'EEPO_UNSUPPORTED', name);
      } else if (name === 'saveAdapter') assert.equal(error?.code, 'EEPO_UNSUPPORTED');
      else assert.equal(error, undefined, `${m} ${name}: ${error}`);
    }
  }
});

test('any sequence of calls with hostile arguments ends in results or errors', async () => {
  const change = fc.record({ index: fc.nat(6), key: fc.nat(20), value: hostile, hit: fc.integer({ min: 0, max: 3 }) });
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(models.length - 1), fc.constantFrom(...Object.keys(calls)), change), {
        minLength: 1,
        maxLength: 8,
      }),
      async (sequence) => {
        for (const [m, name, { index, key, value, hit }] of sequence) {
          const args = [...(calls[name] as unknown[])];
          const at = index % Math.max(args.length, 1);
          const old = args[at];
          if (hit === 0) args.length = Math.min(args.length, index);
          else if (hit > 1 && old !== null && typeof old === 'object' && !ArrayBuffer.isView(old)) {
            const keys = Object.keys(old);
            const which = keys[key % keys.length] as string;
            const many =
              ['samplesPerPrompt', 'maxNewTokens'].includes(which) && typeof value === 'number' && value > 99;
            if (!many) args[at] = { ...old, [which]: value };
          } else if (hit > 0) args[at] = value;
          await call(models[m] as NativeModel, name, args);
        }
      },
    ),
    { numRuns: 400 },
  );
  // and all of them still work
  for (const model of models) assert.equal(await call(model, 'score', calls.score as unknown[]), undefined);
});

test('calls that overlap, are aborted or outlive dispose() take turns', async () => {
  for (const options of [
    { dtype: 'float32', trainable: true, adapter: null },
    { dtype: 'bfloat16', trainable: false, adapter },
  ] as const) {
    const model = await loadNative().createModel(config, 2, 'cpu', options);
    const pending: Promise<unknown>[] = [];
    for (let round = 0; round < 12; round++) {
      const controller = new AbortController();
      await model.setGradientCheckpointing(round % 2 === 0);
      for (const [name, args] of Object.entries(calls)) {
        pending.push(call(model, name, name.startsWith('save') ? ['/nowhere/x'] : args));
        const signalled = args.map((value, i) => (value === undefined && i > 0 ? controller.signal : value));
        if (!name.startsWith('save')) pending.push(call(model, name, signalled));
      }
      setTimeout(() => controller.abort(), round);
      if (round % 3 === 0) await Promise.all(pending.splice(0));
    }
    const copy = await model.clone();
    const [before, last] = [await copy.score(ids, lengths, 100), model.score(ids, lengths, 100)];
    model.dispose();
    await Promise.all(pending);
    assert.ok((await last).entropy.every(Number.isFinite));
    assert.deepEqual(await copy.score(ids, lengths, 100), before);
    assert.throws(() => model.memory(), { code: 'EEPO_DISPOSED' });
    copy.dispose();
  }
});
