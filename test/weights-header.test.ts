/** What is known of weights before they are loaded: names, shapes and dtypes, from the headers of their files. */
import assert from 'node:assert/strict';
import { cpSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { normalizeConfig } from '../lib/config-json.js';
import { Policy } from '../lib/policy.js';
import { defineConfig } from '../lib/train/config.js';
import { prepareRun } from '../lib/train/load.js';
import { checkWeights, readHeader, weightShapes } from '../lib/weights-header.js';
import { ROOT } from './support/data.js';
import { temporaryFolder } from './support/files.js';

const base = {
  vocab_size: 7,
  hidden_size: 6,
  intermediate_size: 5,
  num_hidden_layers: 2,
  num_attention_heads: 3,
  num_key_value_heads: 1,
  head_dim: 2,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  max_position_embeddings: 16,
  hidden_act: 'silu',
  eos_token_id: null,
};

describe('the tensors that a model needs', () => {
  for (const more of [
    { model_type: 'llama', tie_word_embeddings: false },
    { model_type: 'llama', tie_word_embeddings: true, attention_bias: true },
    { model_type: 'qwen2', tie_word_embeddings: false },
    { model_type: 'qwen3', tie_word_embeddings: true },
  ]) {
    it(`are those that it is saved with: ${JSON.stringify(more)}`, async (t) => {
      const dir = temporaryFolder(t);
      using policy = await Policy.create({ ...base, ...more });
      await policy.save(dir);
      const paths = [join(dir, 'model.safetensors')] as const;
      const saved = [...(await readHeader(paths[0]))].map(([name, { shape }]): [string, number[]] => [
        name,
        [...shape],
      ]);
      const config = normalizeConfig({ ...base, ...more }, 'config');
      const needed = weightShapes(config);
      assert.deepEqual(new Map(saved), needed);
      await checkWeights(config, paths);
    });
  }
});

/** The embedded model, with a change to its files, as a run prepares it. */
async function prepared(t: TestContext, change: (dir: string) => void, available?: number) {
  const dir = join(temporaryFolder(t), 'model');
  cpSync(join(ROOT, 'models', 'countdown'), dir, { recursive: true });
  change(dir);
  const config = defineConfig({ model: { path: dir, device: 'cpu' } });
  return prepareRun(config, available === undefined ? {} : { available });
}

describe('a run that is prepared, as for --dry-run', () => {
  const editConfig = (edit: object) => (dir: string) => {
    const path = join(dir, 'config.json');
    writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...edit }));
  };

  it('has read the headers of its weights', async (t) => {
    assert.equal((await prepared(t, () => {})).weightsChecked, true);
  });

  it('finds weights that are cut off, and such as belong to another model', async (t) => {
    const cut = prepared(t, (dir) => truncateSync(join(dir, 'model.safetensors'), 50_000));
    await assert.rejects(cut, { code: 'EEPO_INVALID_FILE', message: /lie outside the file's .*truncated/ });
    await assert.rejects(prepared(t, editConfig({ intermediate_size: 8 })), {
      code: 'EEPO_INVALID_FILE',
      message: /mlp\.\w+_proj\.weight has a shape that config\.json does not give it/,
    });
    await assert.rejects(prepared(t, editConfig({ num_hidden_layers: 1 })), {
      message: /model\.layers\.1\.\S+ does not belong to this architecture/,
    });
    await assert.rejects(prepared(t, editConfig({ num_hidden_layers: 9 })), {
      message: /tensor model\.layers\.\d\.input_layernorm\.weight is missing from the weights/,
    });
  });
});
