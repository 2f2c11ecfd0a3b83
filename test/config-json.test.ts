/** config.json in its old and new styles, and everything the decoder must refuse rather than compute wrongly. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { normalizeConfig } from '../lib/config-json.js';
import { dataRoot, needs } from './support/data.js';

const base = {
  model_type: 'llama',
  vocab_size: 100,
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-5,
};
const llama3 = {
  factor: 32,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
};

describe('normalizeConfig', () => {
  it('fills in what config.json may leave out', () => {
    const config = normalizeConfig(base);
    assert.equal(config.headDim, 16);
    assert.equal(config.numKeyValueHeads, 4);
    assert.equal(config.ropeTheta, 10000);
    assert.equal(config.ropeScaling, null);
    assert.equal(config.tieWordEmbeddings, false);
    assert.deepEqual(config.eosTokenIds, []);
  });

  it('reads both styles of rope alike', () => {
    const old = normalizeConfig({ ...base, rope_theta: 5e5, rope_scaling: { rope_type: 'llama3', ...llama3 } });
    const now = normalizeConfig({ ...base, rope_parameters: { rope_type: 'llama3', rope_theta: 5e5, ...llama3 } });
    assert.deepEqual(old, now);
    assert.equal(now.ropeTheta, 5e5);
    assert.equal(now.ropeScaling?.factor, 32);
    assert.deepEqual(
      normalizeConfig({ ...base, rope_scaling: { type: 'llama3', ...llama3 } }).ropeScaling,
      now.ropeScaling,
    );
  });

  it('knows what sets the architectures apart', () => {
    assert.equal(normalizeConfig({ ...base, model_type: 'qwen2' }).attentionBias, true);
    assert.equal(normalizeConfig({ ...base, model_type: 'qwen2' }).qkNorm, false);
    assert.equal(normalizeConfig({ ...base, model_type: 'qwen3' }).qkNorm, true);
    assert.equal(normalizeConfig({ ...base, model_type: 'qwen3' }).attentionBias, false);
    for (const [modelType, qkv, o] of [
      ['llama', true, true],
      ['qwen3', true, true],
      ['qwen2', true, false], // which knows no attention_bias
    ] as const) {
      const config = normalizeConfig({ ...base, model_type: modelType, attention_bias: true });
      assert.deepEqual([config.attentionBias, config.attentionOutputBias], [qkv, o], modelType);
    }
  });

  it('takes one end-of-sequence id or several', () => {
    assert.deepEqual(normalizeConfig({ ...base, eos_token_id: 2 }).eosTokenIds, [2]);
    assert.deepEqual(normalizeConfig({ ...base, eos_token_id: [2, 5] }).eosTokenIds, [2, 5]);
    assert.deepEqual(normalizeConfig({ ...base, eos_token_id: null }).eosTokenIds, []);
  });

  const refused: [string, object, string, RegExp][] = [
    ['an architecture', { ...base, model_type: 'mistral' }, 'EEPO_UNSUPPORTED', /"mistral".*qwen2, qwen3, llama/],
    ['another activation', { ...base, hidden_act: 'gelu' }, 'EEPO_UNSUPPORTED', /hidden_act "gelu"/],
    ['an MLP bias', { ...base, mlp_bias: true }, 'EEPO_UNSUPPORTED', /mlp_bias/],
    ['an odd head', { ...base, head_dim: 15 }, 'EEPO_INVALID_FILE', /head_dim must be an even integer/],
    ['a missing size', { ...base, hidden_size: undefined }, 'EEPO_INVALID_FILE', /hidden_size/],
    ['a negative size', { ...base, vocab_size: -1 }, 'EEPO_INVALID_FILE', /vocab_size/],
  ];
  for (const [what, json, code, message] of refused) {
    it(`refuses ${what}`, () => {
      assert.throws(() => normalizeConfig(json), { code, message });
    });
  }

  it('reads the configs of the models the paper trains', needs('configs'), () => {
    const read = (name: string) =>
      normalizeConfig(JSON.parse(readFileSync(join(dataRoot, 'configs', `${name}.json`), 'utf8')), name);
    const qwen2 = read('Qwen2.5-3B');
    assert.deepEqual([qwen2.modelType, qwen2.hiddenSize, qwen2.tieWordEmbeddings], ['qwen2', 2048, true]);
    const qwen3 = read('Qwen3-8B-Base');
    assert.deepEqual([qwen3.modelType, qwen3.headDim, qwen3.tieWordEmbeddings], ['qwen3', 128, false]);
    const llama = read('Llama-3.2-3B-Instruct');
    assert.deepEqual([llama.modelType, llama.numKeyValueHeads, llama.ropeScaling?.factor], ['llama', 8, 32]);
  });
});
