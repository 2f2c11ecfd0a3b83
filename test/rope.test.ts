/** Rope scaling and attention windows of config.json: both styles, transformers' defaults, and what must be refused. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { normalizeConfig } from '../lib/config-json.js';

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
const llama3 = { factor: 32, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64 };
const scaling = (rope: object, more: object = {}) => normalizeConfig({ ...base, rope_scaling: rope, ...more });

describe('rope scaling', () => {
  for (const rope of [
    { factor: 2, kind: 'linear' },
    { factor: 2, kind: 'dynamic' },
    { factor: 4, original_max_position_embeddings: 32, beta_fast: 16, beta_slow: 2, truncate: false, kind: 'yarn' },
    { ...llama3, kind: 'llama3' },
  ]) {
    const { kind, ...values } = rope;
    it(`${kind} is the same in every spelling`, () => {
      const now = normalizeConfig({ ...base, rope_parameters: { rope_type: kind, rope_theta: 5e5, ...values } });
      assert.equal(now.ropeScaling?.type, kind);
      assert.equal(now.ropeTheta, 5e5);
      assert.deepEqual(scaling({ rope_type: kind, ...values }, { rope_theta: 5e5 }), now);
      assert.deepEqual(scaling({ type: kind, ...values }, { rope_theta: 5e5 }), now);
      assert.deepEqual(scaling({ type: kind, ...values, rope_theta: 5e5 }, { rope_theta: 7 }), now);
    });
  }

  it('takes the defaults of YaRN from transformers', () => {
    const config = scaling({ rope_type: 'yarn', factor: 4, beta_fast: 0, beta_slow: null });
    assert.deepEqual(config.ropeScaling, {
      type: 'yarn',
      factor: 4,
      originalMaxPositionEmbeddings: 128,
      attentionFactor: 0.1 * Math.log(4) + 1,
      betaFast: 32,
      betaSlow: 1,
      truncate: true,
    });
  });

  it('infers the attention factor of YaRN', () => {
    const factor = (more: object) => {
      const { ropeScaling } = scaling({ rope_type: 'yarn', factor: 40, ...more });
      return ropeScaling?.type === 'yarn' ? ropeScaling.attentionFactor : Number.NaN;
    };
    assert.equal(factor({ attention_factor: 0.5, mscale: 1, mscale_all_dim: 2 }), 0.5);
    assert.equal(factor({ mscale: 1, mscale_all_dim: 1 }), 1);
    assert.equal(factor({ mscale: 0.75, mscale_all_dim: 0.5 }), (0.075 * Math.log(40) + 1) / (0.05 * Math.log(40) + 1));
    assert.equal(factor({ mscale: 0.75 }), 0.1 * Math.log(40) + 1);
    assert.equal(factor({ factor: 1 }), 1);
    assert.equal(factor({ factor: null, original_max_position_embeddings: 32 }), 0.1 * Math.log(4) + 1);
  });

  it('stretches the context as far as the scaling reaches', () => {
    const context = (rope: object) => scaling(rope).maxPositionEmbeddings;
    assert.equal(context({ rope_type: 'linear', factor: 2.5 }), 320);
    assert.equal(context({ rope_type: 'dynamic', factor: 4 }), 512);
    assert.equal(context({ rope_type: 'yarn', factor: 4, original_max_position_embeddings: 32 }), 128);
    assert.equal(context({ rope_type: 'yarn', factor: 4, original_max_position_embeddings: 100 }), 400);
    assert.equal(context({ rope_type: 'llama3', ...llama3 }), 128);
    assert.equal(context({ rope_type: 'default' }), 128);
  });

  it('counts an empty rope_scaling as none and a full one before rope_parameters', () => {
    const both = (rope_scaling: object) =>
      normalizeConfig({ ...base, rope_scaling, rope_parameters: { rope_type: 'dynamic', factor: 2 } }).ropeScaling
        ?.type;
    assert.equal(both({}), 'dynamic');
    assert.equal(both({ type: 'linear', factor: 2 }), 'linear');
  });

  const refused: [string, object, string, RegExp][] = [
    ['longrope', { rope_type: 'longrope' }, 'EEPO_UNSUPPORTED', /"longrope".*default, linear, dynamic, yarn, llama3/],
    ['a type that is no own one', { rope_type: 'constructor' }, 'EEPO_UNSUPPORTED', /"constructor"/],
    ['half a llama3', { rope_type: 'llama3', factor: 4 }, 'EEPO_INVALID_FILE', /llama3 needs low_freq_factor/],
    ['a llama3 turned over', { ...llama3, type: 'llama3', low_freq_factor: 4 }, 'EEPO_INVALID_FILE', /must be above/],
    ['linear without factor', { rope_type: 'linear' }, 'EEPO_INVALID_FILE', /linear needs factor/],
    ['yarn without factor', { rope_type: 'yarn' }, 'EEPO_INVALID_FILE', /yarn needs factor/],
    ['yarn with base 1', { rope_type: 'yarn', factor: 2, rope_theta: 1 }, 'EEPO_INVALID_FILE', /rope_theta above 1/],
    ['a factor below 1', { rope_type: 'linear', factor: 0.5 }, 'EEPO_INVALID_FILE', /rope_scaling.factor/],
    ['a factor in words', { rope_type: 'linear', factor: 'two' }, 'EEPO_INVALID_FILE', /rope_scaling.factor/],
    ['a negative beta', { rope_type: 'yarn', factor: 2, beta_fast: -1 }, 'EEPO_INVALID_FILE', /beta_fast/],
    ['half rotated heads', { partial_rotary_factor: 0.5 }, 'EEPO_UNSUPPORTED', /partial_rotary_factor 0.5/],
    ['one rope for each type of layer', { full_attention: {} }, 'EEPO_UNSUPPORTED', /full_attention/],
    ['a list', [], 'EEPO_INVALID_FILE', /rope_scaling/],
  ];
  for (const [what, rope, code, message] of refused) {
    it(`refuses ${what}`, () => {
      assert.throws(() => scaling(rope), { code, message });
    });
  }

  it('refuses dynamic scaling of heads of two', () => {
    assert.throws(() => scaling({ type: 'dynamic', factor: 2 }, { head_dim: 2 }), { code: 'EEPO_INVALID_FILE' });
  });
});

describe('sliding windows', () => {
  const qwen = (more: object) => normalizeConfig({ ...base, model_type: 'qwen2', ...more });
  const sliding = ['full_attention', 'sliding_attention'];

  const harmless: [string, object][] = [
    ['switched off', { use_sliding_window: false, sliding_window: 8, max_window_layers: 0 }],
    ['as long as the context', { use_sliding_window: true, sliding_window: 128, max_window_layers: 0 }],
    ['null', { use_sliding_window: true, sliding_window: null, max_window_layers: 0 }],
    ['behind the last layer', { use_sliding_window: true, sliding_window: 8, max_window_layers: 2 }],
    ['in no layer', { use_sliding_window: true, sliding_window: 8, layer_types: ['full_attention', 'full_attention'] }],
    ['in a layer, and long', { use_sliding_window: true, sliding_window: 128, layer_types: sliding }],
    ['left to its defaults', { use_sliding_window: true }],
  ];
  for (const [what, more] of harmless) {
    it(`pass when ${what}`, () => assert.equal(qwen(more).numLayers, 2));
  }

  const refused: [string, object, RegExp][] = [
    ['shorter than the context', { use_sliding_window: true, sliding_window: 127, max_window_layers: 1 }, /layer 1 on/],
    ['of a named layer', { use_sliding_window: true, sliding_window: 8, layer_types: sliding }, /layer_types\[1\]/],
    ['of a named layer, size unknown', { use_sliding_window: false, layer_types: sliding }, /layer_types\[1\]/],
    ['of another kind', { layer_types: ['full_attention', 'chunked_attention'] }, /"chunked_attention"/],
    [
      'that a scaled context outgrows',
      {
        use_sliding_window: true,
        sliding_window: 128,
        max_window_layers: 0,
        rope_scaling: { type: 'yarn', factor: 2 },
      },
      /window of 128 tokens in a context of 256/,
    ],
  ];
  for (const [what, more, message] of refused) {
    it(`are refused: one ${what}`, () => {
      assert.throws(() => qwen(more), { code: 'EEPO_UNSUPPORTED', message });
    });
  }

  it('are refused in a llama', () => {
    assert.throws(() => normalizeConfig({ ...base, use_sliding_window: true, sliding_window: 8 }), {
      code: 'EEPO_UNSUPPORTED',
      message: /use_sliding_window/,
    });
  });
});
