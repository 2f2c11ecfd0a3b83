import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { normalizeConfig } from '../lib/config-json.js';
import { noWeights, weightFiles } from '../lib/model-folder.js';
import { Policy } from '../lib/policy.js';
import { temporaryFolder, writeFiles } from './support/files.js';

type FileType = 'F32' | 'BF16' | 'F16' | 'F64' | 'I32';
type Weights = Map<string, { shape: readonly number[]; data: Float32Array }>;

const config = {
  architectures: ['Qwen2ForCausalLM'],
  model_type: 'qwen2',
  vocab_size: 11,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 32,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: true,
};

/** Weights that every type holds exactly: whole 64ths. */
async function exactWeights(json: Record<string, unknown> = config): Promise<Weights> {
  using blank = await Policy.create(json);
  const weights: Weights = new Map();
  let next = 1;
  for (const [name, tensor] of await blank.parameters()) {
    const size = tensor.shape.reduce((a, b) => a * b, 1);
    const data = Float32Array.from({ length: size }, () => {
      next = (next * 48271) % 2147483647;
      return ((next % 65) - 32) / 64;
    });
    weights.set(name, { shape: tensor.shape, data });
    tensor.dispose();
  }
  return weights;
}

function encode(data: Float32Array, type: FileType): Buffer {
  const bits = new Uint32Array(data.buffer, data.byteOffset, data.length);
  const half = (x: number) => {
    const [sign, exponent, mantissa] = [(x >>> 31) << 15, ((x >>> 23) & 255) - 127 + 15, (x >>> 13) & 1023];
    return (x & 0x7fffffff) === 0 ? sign : sign | (exponent << 10) | mantissa;
  };
  const bytes = (array: ArrayBufferView) => Buffer.from(array.buffer, array.byteOffset, array.byteLength);
  if (type === 'BF16') return bytes(Uint16Array.from(bits, (x) => x >>> 16));
  if (type === 'F16') return bytes(Uint16Array.from(bits, half));
  if (type === 'F64') return bytes(Float64Array.from(data));
  if (type === 'I32') return bytes(Int32Array.from(data));
  return bytes(data);
}

/** The bytes of a safetensors file. */
function safetensors(weights: Weights, type: (name: string) => FileType = () => 'F32'): Buffer {
  let at = 0;
  const parts: Buffer[] = [];
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  for (const [name, { shape, data }] of weights) {
    const part = encode(data, type(name));
    header[name] = { dtype: type(name), shape, data_offsets: [at, at + part.length] };
    at += part.length;
    parts.push(part);
  }
  const text = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([size, text, ...parts]);
}

const json = (value: unknown) => JSON.stringify(value);
const indexOf = (map: Record<string, unknown>) => json({ metadata: { total_size: 1 }, weight_map: map });

function folder(t: TestContext, files: Record<string, string | Buffer>): string {
  return writeFiles(temporaryFolder(t), { 'config.json': json(config), ...files });
}

/** Two shards and what the index says of them. */
async function sharded(type?: (name: string) => FileType) {
  const weights = await exactWeights();
  const halves = [...weights].map((entry, i): [boolean, typeof entry] => [i % 3 === 0, entry]);
  const [a, b] = [true, false].map(
    (first): Weights => new Map(halves.filter(([in_]) => in_ === first).map(([, e]) => e)),
  );
  const map = Object.fromEntries(
    [...weights.keys()].map((name) => [name, a?.has(name) ? 'a.safetensors' : 'b.safetensors']),
  );
  const file = (part: Weights | undefined) => safetensors(part as Weights, type);
  return {
    weights,
    a: a as Weights,
    b: b as Weights,
    map,
    files: { 'a.safetensors': file(a), 'b.safetensors': file(b) },
  };
}

async function weightsOf(dir: string): Promise<Record<string, number[]>> {
  using policy = await Policy.load(dir);
  const found: Record<string, number[]> = {};
  for (const [name, tensor] of await policy.parameters()) {
    found[name] = [...(await tensor.data())];
    tensor.dispose();
  }
  return found;
}

const plain = (weights: Weights) => Object.fromEntries([...weights].map(([name, { data }]) => [name, [...data]]));

describe('weights of a folder', () => {
  it('are read from one file or shards, in every type and types mixed', async (t) => {
    const weights = await exactWeights();
    const expected = plain(weights);
    const mixed = (name: string): FileType => (name.includes('norm') ? 'F32' : name.includes('mlp') ? 'BF16' : 'F16');
    for (const type of ['F32', 'BF16', 'F16', 'F64', mixed] as const) {
      const typeOf = typeof type === 'string' ? () => type : type;
      const one = folder(t, { 'model.safetensors': safetensors(weights, typeOf) });
      assert.deepEqual(await weightsOf(one), expected);
      const { map, files } = await sharded(typeOf);
      const several = folder(t, { ...files, 'model.safetensors.index.json': indexOf(map) });
      assert.deepEqual(await weightsOf(several), expected);
    }
    const integers = folder(t, { 'model.safetensors': safetensors(weights, () => 'I32') });
    await assert.rejects(Policy.load(integers), { code: 'EEPO_UNSUPPORTED', message: /I32.*use float32, bfloat16/ });
  });

  it('are those of the single file where an index is there too, as in transformers', async (t) => {
    const weights = await exactWeights();
    const dir = folder(t, {
      'model.safetensors': safetensors(weights),
      'model.safetensors.index.json': indexOf({ x: 'gone.safetensors' }),
    });
    assert.deepEqual(await weightFiles(dir), [join(dir, 'model.safetensors')]);
    assert.deepEqual(await weightsOf(dir), plain(weights));
  });

  it('must be where the index says, each once', async (t) => {
    const { a, b, map, files } = await sharded();
    const bias = 'model.layers.0.self_attn.q_proj.bias';
    const norm = 'model.norm.weight';
    const other = (file: unknown) => (file === 'a.safetensors' ? 'b.safetensors' : 'a.safetensors');
    const without = (weights: Weights, name: string): Weights => new Map([...weights].filter(([key]) => key !== name));
    const { [bias]: _, ...incomplete } = map;
    const cases: [string, Record<string, unknown>, Record<string, Buffer | string>, RegExp][] = [
      [
        'an entry missing',
        incomplete,
        files,
        /index\.json does not list tensor .*q_proj\.bias, which is in [ab]\.safetensors/,
      ],
      ['an entry of another file', { ...map, [bias]: other(map[bias]) }, files, /said to be in . ?.*but it is in/],
      ['a tensor that no file has', { ...map, extra: 'a.safetensors' }, files, /a\.safetensors lacks tensor extra/],
      [
        'a file that is not there',
        { ...map, [bias]: 'c.safetensors' },
        files,
        /c\.safetensors is missing, but .* names it/,
      ],
      [
        'a tensor in both files',
        map,
        { ...files, 'b.safetensors': safetensors(new Map([...b, ...a])) },
        /in both a\.safetensors and b/,
      ],
      [
        'a tensor in no file',
        map,
        { ...files, 'a.safetensors': safetensors(without(a, norm)), 'b.safetensors': safetensors(without(b, norm)) },
        /lacks tensor model\.norm\.weight/,
      ],
      ['no map', {}, files, /weight_map is missing or empty/],
      [
        'a file that is cut',
        map,
        { ...files, 'a.safetensors': files['a.safetensors'].subarray(0, 400) },
        /a\.safetensors/,
      ],
      [
        'a pickle',
        { ...map, [bias]: 'pytorch_model.bin' },
        { ...files, 'pytorch_model.bin': 'x' },
        /not a \.safetensors file/,
      ],
    ];
    for (const path of [
      '../a.safetensors',
      '/etc/a.safetensors',
      'sub/a.safetensors',
      '..',
      '',
      'a\\b.safetensors',
      7,
      null,
    ]) {
      cases.push([`the path ${path}`, { ...map, [bias]: path }, files, /is not the name of a file in the folder/]);
    }
    for (const [what, weight_map, content, message] of cases) {
      const dir = folder(t, { ...content, 'model.safetensors.index.json': indexOf(weight_map) });
      await assert.rejects(Policy.load(dir), { code: 'EEPO_INVALID_FILE', message }, what);
    }
    for (const [text, message] of [
      ['{', /not valid JSON/],
      ['[]', /must hold a JSON object/],
      ['{}', /weight_map/],
    ] as const) {
      const dir = folder(t, { ...files, 'model.safetensors.index.json': text });
      await assert.rejects(Policy.load(dir), { code: 'EEPO_INVALID_FILE', message });
    }
  });

  it('in other formats are refused, saying how to convert them', async (t) => {
    const cases = [
      [['pytorch_model.bin'], 'EEPO_UNSUPPORTED', /only pytorch_model\.bin.*save_pretrained\(d\)/],
      [['pytorch_model-00001-of-00002.bin', 'pytorch_model.bin.index.json'], 'EEPO_UNSUPPORTED', /Convert it once/],
      [['consolidated.00.pth'], 'EEPO_UNSUPPORTED', /consolidated/],
      [['model.Q4_K.gguf'], 'EEPO_UNSUPPORTED', /GGUF/],
      [['adapter_model.safetensors'], 'EEPO_UNSUPPORTED', /only an adapter; merge it/],
      [['training_args.bin'], 'EEPO_INVALID_FILE', /neither model\.safetensors nor/],
      [[], 'EEPO_INVALID_FILE', /neither model\.safetensors nor/],
    ] as const;
    for (const [names, code, message] of cases) {
      const dir = folder(t, Object.fromEntries(names.map((name) => [name, 'x'])));
      await assert.rejects(Policy.load(dir), { code, message });
    }
    assert.match(noWeights('owner/name', ['pytorch_model.bin']).message, /s, d = 'owner\/name', 'converted'/);
  });
});

describe('heads', () => {
  it('tied or not, saved or not', async (t) => {
    const weights = await exactWeights();
    const embedding = weights.get('model.embed_tokens.weight') as { shape: number[]; data: Float32Array };
    const tied = folder(t, { 'model.safetensors': safetensors(new Map([...weights, ['lm_head.weight', embedding]])) });
    assert.deepEqual(await weightsOf(tied), plain(weights));
    const halves = safetensors(new Map([...weights, ['lm_head.weight', embedding]]), (name) =>
      name === 'lm_head.weight' ? 'BF16' : 'F16',
    );
    assert.deepEqual(await weightsOf(folder(t, { 'model.safetensors': halves })), plain(weights));
    const own = { shape: embedding.shape, data: embedding.data.map((x) => -x) };
    const both = safetensors(new Map([...weights, ['lm_head.weight', own]]));
    const untied = folder(t, { 'model.safetensors': both });
    writeFileSync(join(untied, 'config.json'), json({ ...config, tie_word_embeddings: false }));
    assert.deepEqual(await weightsOf(untied), { ...plain(weights), 'lm_head.weight': [...own.data] });
    for (const type of ['F32', 'F16'] as const) {
      const file = safetensors(new Map([...weights, ['lm_head.weight', own]]), (name) =>
        name === 'lm_head.weight' ? type : 'F32',
      );
      await assert.rejects(Policy.load(folder(t, { 'model.safetensors': file })), {
        code: 'EEPO_INVALID_FILE',
        message: /lm_head\.weight differs from model\.embed_tokens\.weight.*tie_word_embeddings.*set it to false/,
      });
    }
    rmSync(join(untied, 'model.safetensors'));
    writeFileSync(join(untied, 'model.safetensors'), safetensors(weights));
    await assert.rejects(Policy.load(untied), { code: 'EEPO_INVALID_FILE', message: /lm_head\.weight is missing/ });
  });
});

describe('loading', () => {
  it('tells how much of the files was read', async (t) => {
    const weights = await exactWeights();
    const dir = folder(t, { 'model.safetensors': safetensors(weights, () => 'BF16') });
    const seen: [number, number][] = [];
    using policy = await Policy.load(dir, {
      onProgress: (event) => {
        if (event.phase === 'load' && event.model === dir) seen.push([event.done, event.total]);
      },
    });
    // the last notices come on the event loop, after the promise
    while (seen.at(-1)?.[0] !== 2 * policy.numParameters) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.ok(seen.every(([done, total], i) => total === 2 * policy.numParameters && done > (seen[i - 1]?.[0] ?? 0)));
  });
});

describe('what a model is', () => {
  const refused = (change: Record<string, unknown>, message: RegExp) =>
    assert.throws(() => normalizeConfig({ ...config, ...change }), { code: 'EEPO_UNSUPPORTED', message });
  const named = /qwen2, qwen3, llama \(Qwen2ForCausalLM, Qwen3ForCausalLM, LlamaForCausalLM\)/;

  it('is told by model_type and by architectures', () => {
    refused({ model_type: 'mistral' }, named);
    refused({ architectures: ['Qwen2ForSequenceClassification'] }, named);
    refused({ architectures: ['Qwen2ForSequenceClassification'] }, /architecture Qwen2ForSequenceClassification/);
    refused({ architectures: ['Qwen2Model'] }, /Qwen2Model/);
    refused({ architectures: ['LlamaForCausalLM'] }, /LlamaForCausalLM/);
    refused({ model_type: undefined, architectures: ['Qwen2_5_VLForConditionalGeneration'] }, /Qwen2_5_VL/);
    refused({ model_type: 'llava', text_config: config }, /"llava"/);
    refused({ quantization_config: { quant_method: 'gptq', bits: 4 } }, /quantized.*gptq/);
    refused({ quantization_config: {} }, /quantized.*unknown method/);
    for (const architectures of [undefined, null, [], ['Qwen2ForCausalLM'], ['qwen2forcausallm']]) {
      assert.equal(normalizeConfig({ ...config, architectures }).modelType, 'qwen2');
    }
    assert.equal(normalizeConfig({ ...config, quantization_config: null }).modelType, 'qwen2');
  });

  it('is read whatever style config.json has', async (t) => {
    const weights = safetensors(await exactWeights());
    const hashes = new Set<string>();
    for (const style of [
      { rope_theta: 5000, torch_dtype: 'bfloat16', rope_scaling: null },
      { rope_parameters: { rope_type: 'default', rope_theta: 5000 }, dtype: 'bfloat16' },
    ]) {
      const dir = folder(t, { 'model.safetensors': weights, 'config.json': json({ ...config, ...style }) });
      using policy = await Policy.load(dir);
      assert.equal(policy.config.ropeTheta, 5000);
      using logits = await policy.logits([1, 2, 3]);
      hashes.add((await logits.data()).join());
      await policy.save(join(dir, 'saved'));
      const saved = JSON.parse(readFileSync(join(dir, 'saved', 'config.json'), 'utf8'));
      const key = 'torch_dtype' in style ? 'torch_dtype' : 'dtype';
      assert.deepEqual(saved, { ...config, ...style, [key]: 'float32' });
    }
    assert.equal(hashes.size, 1);
  });

  it('says when the folder is none', async (t) => {
    const dir = temporaryFolder(t);
    await assert.rejects(Policy.load(dir), { code: 'EEPO_INVALID_FILE', message: /config\.json does not exist/ });
    mkdirSync(join(dir, 'config.json'));
    await assert.rejects(Policy.load(dir), { code: 'EEPO_INVALID_FILE', message: /not a regular file/ });
  });
});
