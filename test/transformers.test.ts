import assert from 'node:assert/strict';
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { modelFolder } from '../lib/hub/index.js';
import { Policy } from '../lib/policy.js';
import { embeddedModel } from './support/data.js';
import { FakeHub } from './support/fake-hub.js';
import { temporaryFolder } from './support/files.js';
import { needsTransformers, runPython } from './support/python.js';

/** Loads a model by folder or name; prints its logits, what it says of itself, and what was missing or unexpected. */
const load = `
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
where, ids, dtype = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
model, info = AutoModelForCausalLM.from_pretrained(where, dtype=dtype, output_loading_info=True)
tokenizer = AutoTokenizer.from_pretrained(where)
with torch.no_grad(): logits = model(torch.tensor([ids])).logits[0].float()
print(json.dumps({
  'class': type(model).__name__, 'dtype': str(model.dtype), 'tied': model.lm_head.weight is model.model.embed_tokens.weight,
  'info': {key: sorted(value) for key, value in info.items() if value and key.endswith('_keys')},
  'eos': model.generation_config.eos_token_id, 'template': tokenizer.chat_template,
  'tokens': tokenizer('12 + 3').input_ids, 'logits': logits.flatten().tolist(),
}))`;

interface Loaded {
  class: string;
  dtype: string;
  tied: boolean;
  info: Record<string, string[]>;
  eos: unknown;
  template: string | null;
  tokens: number[];
  logits: number[];
}

const ids = [5, 7, 9, 41, 3, 3, 60];

const sizes = {
  vocab_size: 106,
  hidden_size: 24,
  intermediate_size: 40,
  num_hidden_layers: 2,
  num_attention_heads: 3,
  num_key_value_heads: 1,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  eos_token_id: 103,
};

async function compare(policy: Policy, dir: string, tolerance: number, dtype = 'auto'): Promise<Loaded> {
  const theirs = (await runPython(load, [dir, JSON.stringify(ids), dtype])) as Loaded;
  using logits = await policy.logits(ids);
  const ours = await logits.data();
  assert.equal(theirs.logits.length, ours.length);
  const error = ours.reduce((worst, x, i) => Math.max(worst, Math.abs(x - (theirs.logits[i] as number))), 0);
  assert.ok(error <= tolerance, `logits differ by ${error}`);
  assert.deepEqual(theirs.info, {});
  return theirs;
}

describe('transformers', needsTransformers, () => {
  for (const [name, config, expected] of [
    ['qwen2, tied', { ...sizes, model_type: 'qwen2', tie_word_embeddings: true }, 'Qwen2ForCausalLM'],
    ['qwen3, untied, heads of 16', { ...sizes, model_type: 'qwen3', head_dim: 16 }, 'Qwen3ForCausalLM'],
    [
      'llama in the new style, with rope scaling',
      {
        ...sizes,
        rope_theta: undefined,
        model_type: 'llama',
        dtype: 'bfloat16',
        rope_parameters: {
          rope_type: 'llama3',
          rope_theta: 500000,
          factor: 8,
          low_freq_factor: 1,
          high_freq_factor: 4,
          original_max_position_embeddings: 16,
        },
      },
      'LlamaForCausalLM',
    ],
  ] as const) {
    it(`loads what save() wrote: ${name}`, async (t) => {
      const source = temporaryFolder(t);
      cpSync(embeddedModel, source, { recursive: true });
      writeFileSync(join(source, 'chat_template.jinja'), '{{ messages[0].content }}');
      writeFileSync(join(source, 'generation_config.json'), '{"eos_token_id": [103, 5]}');
      using policy = await Policy.create(config, { seed: 3, companions: source });
      const dir = join(temporaryFolder(t), 'saved');
      await policy.save(dir, { maxShardBytes: 9000 });
      assert.ok(readdirSync(dir).filter((file) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(file)).length > 2);
      const theirs = await compare(policy, dir, 1e-5);
      assert.deepEqual(
        { class: theirs.class, dtype: theirs.dtype, tied: theirs.tied, eos: theirs.eos, template: theirs.template },
        {
          class: expected,
          dtype: 'torch.float32',
          tied: name.includes(', tied'),
          eos: [103, 5],
          template: '{{ messages[0].content }}',
        },
      );
      assert.ok(theirs.tokens.length > 0);
      using again = await Policy.load(dir);
      assert.equal(await again.hash(), await policy.hash());
      assert.deepEqual([...again.config.eosTokenIds].sort(), [103, 5]);
    });
  }

  it('loads what save() wrote in bfloat16: the rounded weights, half the bytes', async (t) => {
    using policy = await Policy.create({ ...sizes, model_type: 'qwen2' }, { seed: 5, companions: embeddedModel });
    const dir = join(temporaryFolder(t), 'saved');
    await policy.save(dir, { dtype: 'bfloat16', maxShardBytes: 5000 });
    const index = JSON.parse(readFileSync(join(dir, 'model.safetensors.index.json'), 'utf8'));
    assert.equal(index.metadata.total_size, 2 * policy.numParameters);
    assert.equal(index.metadata.total_parameters, policy.numParameters);
    using rounded = await Policy.load(dir);
    assert.notEqual(await rounded.hash(), await policy.hash());
    assert.equal((await compare(rounded, dir, 1e-5, 'float32')).dtype, 'torch.float32');
    assert.equal(((await runPython(load, [dir, JSON.stringify(ids), 'auto'])) as Loaded).dtype, 'torch.bfloat16');
  });

  it('reads the cache that a download filled, by name and without a network', async (t) => {
    const files = Object.fromEntries(
      readdirSync(embeddedModel).map((name) => [name, readFileSync(join(embeddedModel, name))]),
    );
    const hub = await FakeHub.start(t, { 'owner/name': { files } });
    const home = temporaryFolder(t);
    const folder = await modelFolder('owner/name', { endpoint: hub.endpoint, env: { HF_HOME: home } });
    const theirs = (await runPython(load, ['owner/name', JSON.stringify(ids), 'auto'], { HF_HOME: home })) as Loaded;
    using policy = await Policy.load(folder);
    using logits = await policy.logits(ids);
    const ours = await logits.data();
    assert.ok(ours.every((x, i) => Math.abs(x - (theirs.logits[i] as number)) < 1e-4));
  });

  it('and we read the cache that huggingface_hub filled', async (t) => {
    const files = Object.fromEntries(
      readdirSync(embeddedModel).map((name) => [name, readFileSync(join(embeddedModel, name))]),
    );
    const hub = await FakeHub.start(t, { 'owner/name': { files } });
    const home = temporaryFolder(t);
    const fetch = `
import json, sys
from huggingface_hub import hf_hub_download
print(json.dumps([hf_hub_download('owner/name', name) for name in sys.argv[1:]]))`;
    const env = {
      HF_HOME: home,
      HF_ENDPOINT: hub.endpoint,
      HF_HUB_OFFLINE: '0',
      HF_HUB_DISABLE_XET: '1',
      HF_HUB_DISABLE_TELEMETRY: '1',
    };
    const paths = (await runPython(fetch, Object.keys(files), env)) as string[];
    hub.requests.length = 0;
    using policy = await Policy.load('owner/name', { endpoint: hub.endpoint, env: { HF_HOME: home } });
    assert.ok(paths.every((path) => path.startsWith(policy.folder ?? '-')));
    assert.deepEqual(hub.of('resolve'), []);
    using local = await Policy.load(embeddedModel);
    assert.equal(await policy.hash(), await local.hash());
  });
});
