import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { type LoraTarget, readAdapterConfig, writeAdapter } from '../lib/adapter.js';
import { normalizeConfig, readConfig } from '../lib/config-json.js';
import { readWeightIndex, weightFiles } from '../lib/model-folder.js';
import { sizes } from './support/model-config.js';
import { forAll, spoiltBytes, spoiltJson, valueOrNamedError } from './support/properties.js';

const folder = mkdtempSync(join(tmpdir(), 'eepo-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const CONFIGS: Record<string, Record<string, unknown>> = {
  'old style': {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    ...sizes,
    rope_theta: 500000,
    rope_scaling: {
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 128,
    },
    eos_token_id: [1, 2],
    hidden_act: 'silu',
    tie_word_embeddings: true,
    quantization_config: null,
  },
  'new style': {
    architectures: ['Qwen3ForCausalLM'],
    model_type: 'qwen3',
    ...sizes,
    head_dim: 16,
    rope_parameters: { rope_type: 'yarn', rope_theta: 1e6, factor: 4, beta_fast: 32, mscale: 0.7, mscale_all_dim: 1 },
    layer_types: ['full_attention', 'full_attention'],
    use_sliding_window: false,
    sliding_window: null,
    max_window_layers: 2,
    attention_bias: false,
    eos_token_id: 3,
  },
  window: { model_type: 'qwen2', ...sizes, use_sliding_window: true, sliding_window: 4096, rope_scaling: null },
};

describe('config.json', () => {
  for (const [name, valid] of Object.entries(CONFIGS)) {
    it(`${name}: spoilt, it is a configuration in finite numbers or an error that names the file`, async () => {
      assert.ok(normalizeConfig(valid));
      await forAll(spoiltJson(valid), 400, async (text) => {
        const config = await valueOrNamedError(
          () => normalizeConfig(JSON.parse(text), 'dir/config.json'),
          'dir/config.json',
        );
        if (config === null) return;
        for (const value of [config.maxPositionEmbeddings, config.headDim, config.vocabSize, config.numLayers]) {
          assert.ok(Number.isInteger(value) && value > 0 && value < 2 ** 31, text);
        }
        assert.ok(config.eosTokenIds.every((id) => Number.isInteger(id) && id >= 0 && id < 2 ** 31));
      });
    });
  }

  it('any JSON', async () => {
    await forAll(fc.jsonValue(), 300, async (json) => {
      await valueOrNamedError(() => normalizeConfig(json, 'config.json'), 'config.json');
    });
  });

  it('cut off at every byte, and with bytes changed', async () => {
    const valid = Buffer.from(JSON.stringify(CONFIGS['old style'], null, 1));
    const path = join(folder, 'config.json');
    for (let length = 0; length < valid.length; length += 1) {
      writeFileSync(path, valid.subarray(0, length));
      assert.equal(await valueOrNamedError(() => readConfig(folder), path), null);
    }
    await forAll(spoiltBytes(valid), 200, async (bytes) => {
      writeFileSync(path, bytes);
      await valueOrNamedError(() => readConfig(folder), path);
    });
  });

  it('generation_config.json: spoilt, it is read or named', async () => {
    writeFileSync(join(folder, 'config.json'), JSON.stringify(CONFIGS['old style']));
    const path = join(folder, 'generation_config.json');
    await forAll(spoiltJson({ eos_token_id: [1, 2], temperature: 1, pad_token_id: 7 }), 200, async (text) => {
      writeFileSync(path, text);
      await valueOrNamedError(() => readConfig(folder), path);
    });
    rmSync(path);
  });
});

/** The bytes of a safetensors file of bytes. */
function tensors(names: readonly string[]): Buffer {
  const header = Object.fromEntries(
    names.map((name, i) => [name, { dtype: 'U8', shape: [1], data_offsets: [i, i + 1] }]),
  );
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, Buffer.alloc(names.length)]);
}

describe('model.safetensors.index.json', () => {
  const dir = join(folder, 'shards');
  const index = join(dir, 'model.safetensors.index.json');
  const valid = {
    metadata: { total_size: 3 },
    weight_map: { a: 'model-1.safetensors', b: 'model-1.safetensors', c: 'model-2.safetensors' },
  };

  it('spoilt, it names files of the folder alone, or is refused', async () => {
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, 'model-1.safetensors'), tensors(['a', 'b']));
    writeFileSync(join(dir, 'model-2.safetensors'), tensors(['c']));
    writeFileSync(index, JSON.stringify(valid));
    assert.equal((await weightFiles(dir)).length, 2);
    await forAll(spoiltJson(valid), 300, async (text) => {
      writeFileSync(index, text);
      const files = await valueOrNamedError(() => weightFiles(dir), dir);
      for (const file of files ?? []) assert.match(file.slice(dir.length), /^\/model-[12]\.safetensors$/);
    });
  });

  it('whatever a file is called, it is a name of the folder or refused', async () => {
    const part = fc.constantFrom(
      '..',
      '.',
      '/',
      '\\',
      '\0',
      'a',
      '.safetensors',
      'C:',
      '%2e%2e',
      '~',
      ' ',
      '\n',
      '\ud800',
    );
    await forAll(fc.array(part, { maxLength: 6 }), 300, async (parts) => {
      writeFileSync(index, JSON.stringify({ weight_map: { a: parts.join('') } }));
      const map = await valueOrNamedError(() => readWeightIndex(index), index);
      for (const name of map?.values() ?? []) assert.ok(!/[/\\\0]/.test(name) && name.endsWith('.safetensors'), name);
    });
  });

  it('shards cut off and changed are named, or left to the reader of weights', async () => {
    writeFileSync(index, JSON.stringify(valid));
    await forAll(spoiltBytes(tensors(['a', 'b'])), 200, async (bytes) => {
      writeFileSync(join(dir, 'model-1.safetensors'), bytes);
      await valueOrNamedError(() => weightFiles(dir), dir);
    });
  });
});

describe('adapter_config.json', () => {
  const dir = join(folder, 'adapter');
  const path = join(dir, 'adapter_config.json');

  it('what is written is read again', async () => {
    const lora = fc.record({
      rank: fc.integer({ min: 1, max: 65536 }),
      alpha: fc.double({ min: 1e-3, max: 1e6, noNaN: true }),
      targets: fc.constantFrom<LoraTarget[][]>(['q_proj'], ['k_proj', 'down_proj']),
      rslora: fc.boolean(),
    });
    await forAll(lora, 50, async (record) => {
      const given = { ...record };
      await writeAdapter(dir, given, null, async (file) => writeFileSync(file, ''));
      const { weights, ...read } = await readAdapterConfig(dir);
      assert.deepEqual(read, given);
      assert.equal(weights, join(dir, 'adapter_model.safetensors'));
    });
  });

  it('spoilt, it is an adapter or an error that names the file', async () => {
    const valid = {
      peft_type: 'LORA',
      r: 8,
      lora_alpha: 16,
      target_modules: ['q_proj', 'v_proj'],
      use_rslora: false,
      bias: 'none',
      rank_pattern: {},
      modules_to_save: null,
      init_lora_weights: true,
      layers_to_transform: [],
    };
    await forAll(spoiltJson(valid), 400, async (text) => {
      writeFileSync(path, text);
      const read = await valueOrNamedError(() => readAdapterConfig(dir), path);
      if (read !== null) assert.ok(Number.isInteger(read.rank) && read.alpha > 0 && read.targets.length > 0);
    });
  });
});
