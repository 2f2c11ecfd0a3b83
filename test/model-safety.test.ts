/** The native model on odd shapes against a double-precision reference, on hostile files, and after failures. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Policy } from '../lib/policy.js';
import { embeddedModel } from './support/data.js';
import { openGate } from './support/policy.js';
import { distribution, ReferenceDecoder, type Weights, weightsOf, writeModel } from './support/reference-decoder.js';

/** A small deterministic generator of numbers in [-1, 1). */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

const base = {
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  max_position_embeddings: 128,
  hidden_act: 'silu',
  eos_token_id: null,
};
const configs = {
  'qwen3, heads of 2, one key-value head, 7 tokens, tied': {
    ...base,
    model_type: 'qwen3',
    vocab_size: 7,
    hidden_size: 6,
    intermediate_size: 5,
    num_hidden_layers: 2,
    num_attention_heads: 3,
    num_key_value_heads: 1,
    head_dim: 2,
    tie_word_embeddings: true,
  },
  'qwen2, heads of 24 in groups of 2, untied': {
    ...base,
    model_type: 'qwen2',
    vocab_size: 13,
    hidden_size: 10,
    intermediate_size: 33,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 24,
    rope_theta: 1e6,
    tie_word_embeddings: false,
  },
  'llama, heads of 40 with the rescaled rotation, tied': {
    ...base,
    model_type: 'llama',
    vocab_size: 31,
    hidden_size: 17,
    intermediate_size: 19,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 2,
    head_dim: 40,
    rope_scaling: {
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 64,
    },
    tie_word_embeddings: true,
  },
  'qwen3, a hidden size of 1, untied': {
    ...base,
    model_type: 'qwen3',
    vocab_size: 3,
    hidden_size: 1,
    intermediate_size: 1,
    num_hidden_layers: 1,
    num_attention_heads: 1,
    num_key_value_heads: 1,
    head_dim: 6,
    tie_word_embeddings: false,
  },
};

let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), 'eepo-safety-'));
});
after(() => rm(root, { recursive: true }));

let folders = 0;
async function folder(): Promise<string> {
  const dir = join(root, String(folders++));
  await mkdir(dir);
  return dir;
}

/** A folder with this model and weights of a size at which every part of the computation matters. */
async function randomModel(config: Record<string, unknown>, change?: (weights: Weights) => void) {
  using blank = await Policy.create(config);
  const weights = await weightsOf(blank);
  const next = numbers(7);
  for (const [name, { shape, data }] of weights) {
    const norm = name.endsWith('norm.weight');
    const scale = shape.length === 1 ? 0.5 : Math.sqrt(2 / (shape[1] as number));
    data.forEach((_, i) => {
      data[i] = Math.fround((norm ? 1 : 0) + scale * next());
    });
  }
  change?.(weights);
  const dir = await folder();
  await writeModel(dir, config, weights);
  return { dir, reference: new ReferenceDecoder(config, weights) };
}

function close(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number, what: string): void {
  assert.equal(actual.length, expected.length, `${what}: length`);
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs((actual[i] as number) - (expected[i] as number));
    assert.ok(error <= tolerance, `${what}[${i}]: ${actual[i]} instead of ${expected[i]}`);
  }
}

const sequence = (length: number, vocab: number, seed: number) => {
  const next = numbers(seed);
  return Array.from({ length }, () => Math.floor(((next() + 1) / 2) * vocab));
};

for (const [name, config] of Object.entries(configs)) {
  describe(name, () => {
    it('gives the logits, log-probs and entropies of the reference', async () => {
      const { dir, reference } = await randomModel(config);
      using policy = await Policy.load(dir);
      // 64 queries are one block of attention
      const sequences = [1, 2, 17, 64, 65, 90].map((length, i) => sequence(length, config.vocab_size, i));
      const scored = await policy.score(sequences);
      for (const [i, ids] of sequences.entries()) {
        const expected = reference.logits(ids);
        using logits = await policy.logits(ids);
        close(await logits.data(), expected.flat(), 1e-4, 'logits');
        const rows = expected.map((row) => distribution(row, 1));
        const logprobs = ids.slice(1).map((id, t) => rows[t]?.logprobs[id] as number);
        close(scored[i]?.logprob ?? [], logprobs, 1e-4, 'logprob');
        close(
          scored[i]?.entropy ?? [],
          rows.map(({ entropy }) => entropy),
          1e-4,
          'entropy',
        );
      }
    });

    it('samples from the distributions of the reference', async () => {
      const { dir, reference } = await randomModel(config);
      using policy = await Policy.load(dir);
      const prompts = [1, 16, 33].map((length, i) => sequence(length, config.vocab_size, 20 + i));
      const samples = await policy.generate(prompts, { maxNewTokens: 35, samplesPerPrompt: 2, temperature: 0.8 });
      for (const { prompt, tokens, logprob, entropy } of samples) {
        const ids = prompts[prompt] as number[];
        const logits = reference.logits([...ids, ...tokens]).slice(ids.length - 1, -1);
        const rows = logits.map((row) => distribution(row, 0.8));
        close(
          logprob,
          tokens.map((id, t) => rows[t]?.logprobs[id] as number),
          1e-4,
          'logprob',
        );
        close(
          entropy,
          rows.map((row) => row.entropy),
          1e-4,
          'entropy',
        );
      }
    });

    it('has the gradient that differences of the reference have', async () => {
      const { dir, reference } = await randomModel(config);
      using policy = await Policy.load(dir);
      const next = numbers(3);
      const rows = [
        { prompt: sequence(1, config.vocab_size, 30), response: sequence(5, config.vocab_size, 31) },
        { prompt: sequence(3, config.vocab_size, 32), response: [] },
        { prompt: sequence(4, config.vocab_size, 33), response: sequence(1, config.vocab_size, 34) },
      ];
      const a = Float32Array.from({ length: 6 }, next);
      const b = Float32Array.from({ length: 6 }, next);
      await policy.forward(
        { prompts: rows.map(({ prompt }) => prompt), responses: rows.map(({ response }) => response) },
        { temperature: 0.7 },
      );
      await policy.backward(a, b);
      const objective = () => {
        let at = 0;
        return rows.reduce((total, { prompt, response }) => {
          const end = at + response.length;
          const value = reference.objective(prompt, response, a.subarray(at, end), b.subarray(at, end), 0.7);
          at = end;
          return total + value;
        }, 0);
      };
      for (const [parameter, tensor] of await policy.gradients()) {
        const gradient = await tensor.data();
        tensor.dispose();
        const weight = reference.weights.get(parameter)?.data as Float64Array;
        for (let trial = 0; trial < 6; trial++) {
          const i = Math.floor(((next() + 1) / 2) * weight.length);
          const kept = weight[i] as number;
          const h = 1e-5;
          weight[i] = kept + h;
          const above = objective();
          weight[i] = kept - h;
          const below = objective();
          weight[i] = kept;
          const expected = (above - below) / (2 * h);
          const error = Math.abs((gradient[i] as number) - expected);
          assert.ok(
            error <= 1e-4 * Math.max(1, Math.abs(expected)),
            `${parameter}[${i}]: ${gradient[i]} instead of ${expected}`,
          );
        }
      }
    });

    it('has the same gradient, bit for bit, whatever runs between forward and backward', async () => {
      const { dir } = await randomModel(config);
      using policy = await Policy.load(dir);
      const batch = { prompts: [sequence(2, config.vocab_size, 40)], responses: [sequence(9, config.vocab_size, 41)] };
      const other = {
        prompts: [sequence(70, config.vocab_size, 42)],
        responses: [sequence(20, config.vocab_size, 43)],
      };
      const a = Float32Array.from({ length: 9 }, numbers(44));
      const gradients = async (between: () => Promise<unknown>) => {
        await policy.forward(batch, { temperature: 0.9 });
        await between();
        await policy.backward(a, a);
        const all: number[] = [];
        for (const tensor of (await policy.gradients()).values()) {
          all.push(...(await tensor.data()));
          tensor.dispose();
        }
        await policy.zeroGrad();
        return all;
      };
      const plain = await gradients(async () => {});
      assert.ok(plain.some((g) => g !== 0));
      const disturbed = await gradients(async () => {
        await policy.forward(other, { temperature: 2, keepActivations: false });
        await policy.generate(other.prompts, { maxNewTokens: 40, samplesPerPrompt: 3 });
        await policy.score([sequence(100, config.vocab_size, 45)]);
        using _logits = await policy.logits([0, 1]);
      });
      assert.deepEqual(disturbed, plain);
    });
  });
}

describe('extreme gates', () => {
  it('closes SwiGLU gates of -1000 and opens those of +1000', async () => {
    const config = configs['qwen2, heads of 24 in groups of 2, untied'];
    const { dir, reference } = await randomModel(config, (weights) => {
      for (const [name, { data }] of weights) {
        if (/gate_proj|up_proj/.test(name))
          data.set(data.map((w) => w * (name.includes('gate') ? 300 : 1 / 300)).map(Math.fround));
      }
    });
    using policy = await Policy.load(dir);
    const ids = sequence(20, config.vocab_size, 50);
    using logits = await policy.logits(ids);
    close(await logits.data(), reference.logits(ids).flat(), 1e-3, 'logits');
  });
});

describe('weights that are not numbers', () => {
  it('are named by generate, and never hang it', async () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const { dir } = await randomModel(configs['qwen3, heads of 2, one key-value head, 7 tokens, tied'], (weights) => {
        (weights.get('model.layers.1.mlp.down_proj.weight')?.data as Float64Array)[3] = bad;
      });
      using policy = await Policy.load(dir);
      for (const options of [{}, { temperature: 0 }, { topK: 2 }, { topP: 0.5 }, { samplesPerPrompt: 100 }]) {
        await assert.rejects(policy.generate([[1, 2]], { maxNewTokens: 20, ...options }), {
          code: 'EEPO_NON_FINITE',
          message: /NaN or Infinity/,
        });
      }
      const [scored] = await policy.score([[1, 2, 3]]);
      assert.ok(scored?.logprob.every(Number.isNaN));
    }
  });

  it('leave step without effect and forget without a rollout copy', async () => {
    const { dir } = await randomModel(configs['qwen3, heads of 2, one key-value head, 7 tokens, tied'], (weights) => {
      (weights.get('model.norm.weight')?.data as Float64Array)[0] = Number.NaN;
    });
    using policy = await Policy.load(dir);
    const batch = { prompts: [[1, 2]], responses: [[3, 4]] };
    await policy.forward(batch);
    await policy.backward(new Float32Array(2).fill(1));
    assert.equal((await policy.step({ lr: 0.1 })).applied, false);
    await assert.rejects(policy.forget(batch, { ...forgetting, entropy: new Float32Array(2) }), {
      code: 'EEPO_NON_FINITE',
    });
  });
});

const forgetting = {
  eta: 0.1,
  ...openGate,
} as const;

describe('after a failure', () => {
  const batch = { prompts: [[1, 2]], responses: [[3, 4, 5]] };
  const a = new Float32Array(3).fill(1);

  it('a failed forget leaves no activations behind for a backward of the same length', async () => {
    using policy = await Policy.load(embeddedModel);
    await policy.forward(batch);
    const entropy = new Float32Array(3).fill(Number.NaN);
    await assert.rejects(policy.forget(batch, { ...forgetting, entropy }), { code: 'EEPO_NON_FINITE' });
    await assert.rejects(policy.backward(a), { code: 'EEPO_BUSY' });
    await policy.forward(batch);
    await policy.backward(a);
    assert.equal((await policy.step({ lr: 1e-4 })).applied, true);
  });

  it('an aborted forward cannot be gone back through', async () => {
    using policy = await Policy.load(embeddedModel);
    await policy.forward(batch);
    // long enough to have begun, on a busy machine too, and not to have ended when it is aborted
    const large = { prompts: Array(800).fill([1]), responses: Array(800).fill(sequence(60, 106, 60)) };
    await assert.rejects(policy.forward(large, { signal: AbortSignal.timeout(60) }), { code: 'EEPO_ABORTED' });
    await assert.rejects(policy.backward(a), { code: 'EEPO_BUSY' });
    await assert.rejects(policy.backward(new Float32Array(800 * 60)), { code: 'EEPO_BUSY' });
  });

  it('refuses options of AdamW that would turn weights into NaN', async () => {
    using policy = await Policy.load(embeddedModel);
    const before = await policy.hash();
    for (const options of [{ betas: [1, 0.9] }, { betas: [0.9, 0.99999999999] }, { eps: 0 }, { eps: 1e-60 }] as const) {
      await policy.forward(batch);
      await policy.backward(a);
      await assert.rejects(policy.step({ lr: 1e-3, ...(options as object) }), { code: 'EEPO_INVALID_ARGUMENT' });
      await policy.zeroGrad();
    }
    assert.equal(await policy.hash(), before);
  });
});

describe('one policy, several awaits', () => {
  it('gives each call what it gives alone', async () => {
    using policy = await Policy.load(embeddedModel);
    const sample = (seed: number) =>
      policy.generate([[2, 3, 7, 9, 104, 105, 41]], { maxNewTokens: 16, samplesPerPrompt: 9, seed });
    const score = (length: number) => policy.score([sequence(length, 106, length)]);
    const alone = [await sample(1), await score(30), await sample(2), await score(3)];
    assert.deepEqual(await Promise.all([sample(1), score(30), sample(2), score(3)]), alone);
  });

  it('finishes work that was queued before dispose', async () => {
    const policy = await Policy.load(embeddedModel);
    const running = [policy.generate([[1, 2]], { maxNewTokens: 40, samplesPerPrompt: 50 }), policy.score([[1, 2, 3]])];
    policy.dispose();
    const [samples, scored] = await Promise.all(running);
    assert.equal(samples?.length, 50);
    assert.equal(scored?.length, 1);
    await assert.rejects(policy.score([[1]]), { code: 'EEPO_DISPOSED' });
  });
});

describe('hostile model folders', () => {
  const config = configs['qwen3, heads of 2, one key-value head, 7 tokens, tied'];
  const refused = (dir: string, message: RegExp, code = 'EEPO_INVALID_FILE') =>
    assert.rejects(Policy.load(dir), { code, message });

  const yarn = { rope_type: 'yarn', factor: 2 };
  for (const [what, change, message] of [
    ['a billion layers', { num_hidden_layers: 1_000_000_000 }, /num_hidden_layers: .*10000/],
    ['sizes that overflow', { vocab_size: 2 ** 31 - 1, hidden_size: 2 ** 31 - 1 }, /at most 1e14/],
    ['sizes past 31 bits', { hidden_size: 2 ** 40 }, /hidden_size: .*2147483647/],
    ['heads that overflow', { num_attention_heads: 2 ** 30, head_dim: 2 ** 16 }, /at most 1e14/],
    ['heads wider than any', { head_dim: 2 ** 17 }, /head_dim must be at most 65536, got 131072/],
    ['an epsilon that float32 rounds to 0', { rms_norm_eps: 1e-60 }, /rms_norm_eps must be positive and finite/],
    ['an epsilon beyond float32', { rms_norm_eps: 1e60 }, /rms_norm_eps/],
    ['angles that are infinite', { rope_theta: 1e-300, head_dim: 6 }, /rotary angle that is not finite/],
    ['a scale of angles beyond float32', { rope_scaling: { ...yarn, attention_factor: 1e300 } }, /attention_factor/],
    ['more than the file holds', { hidden_size: 2 ** 20, vocab_size: 2 ** 20 }, /shape that config.json does not give/],
    ['heads not in groups', { num_attention_heads: 4, num_key_value_heads: 3 }, /must be a multiple/],
  ] as const) {
    it(`a config.json with ${what}`, async () => {
      const { dir } = await randomModel(config);
      await writeFile(join(dir, 'config.json'), JSON.stringify({ ...config, ...change }));
      const before = process.memoryUsage().rss;
      await refused(dir, message);
      assert.ok(process.memoryUsage().rss - before < 100e6, 'it costs no memory');
    });
  }

  it('a model that no machine can hold', async () => {
    // more than the address space, so that no lenient allocator promises it
    await assert.rejects(
      Policy.create({ ...config, vocab_size: 2 ** 23, hidden_size: 2 ** 22, tie_word_embeddings: false }),
      {
        code: 'EEPO_OUT_OF_MEMORY',
      },
    );
  });

  it('layers with attention of another kind', async () => {
    const { dir } = await randomModel(config);
    const layer_types = ['full_attention', 'sliding_attention'];
    await writeFile(join(dir, 'config.json'), JSON.stringify({ ...config, layer_types }));
    await refused(dir, /layer_types\[1\] is "sliding_attention"/, 'EEPO_UNSUPPORTED');
  });

  it('a named pipe or a folder in place of a file', async () => {
    for (const file of ['model.safetensors', 'config.json']) {
      const { dir } = await randomModel(config);
      await rm(join(dir, file));
      execFileSync('mkfifo', [join(dir, file)]);
      await refused(dir, /not a regular file/);
      await rm(join(dir, file));
      await mkdir(join(dir, file));
      await refused(dir, /not a regular file/);
    }
  });

  it('but a symbolic link is followed, as in a download cache', async () => {
    const { dir } = await randomModel(config);
    const linked = await folder();
    for (const file of ['config.json', 'model.safetensors']) await symlink(join(dir, file), join(linked, file));
    using policy = await Policy.load(linked);
    using same = await Policy.load(dir);
    assert.equal(await policy.hash(), await same.hash());
  });

  it('weights files that are cut, empty or contradict themselves', async () => {
    const { dir } = await randomModel(config);
    const path = join(dir, 'model.safetensors');
    const good = await readFile(path);
    const headerSize = Number(good.readBigUInt64LE(0));
    const withHeader = (edit: (header: string) => string) => {
      const header = Buffer.from(edit(good.subarray(8, 8 + headerSize).toString()));
      const size = Buffer.alloc(8);
      size.writeBigUInt64LE(BigInt(header.length));
      return Buffer.concat([size, header, good.subarray(8 + headerSize)]);
    };
    const first = '"shape":[7,6]';
    const cases: [Buffer, RegExp, string?][] = [
      [Buffer.alloc(0), /too short/],
      [Buffer.alloc(7), /too short/],
      [Buffer.alloc(8), /header length 0 has no room/],
      [Buffer.alloc(8, 255), /header length 18446744073709551615/],
      [good.subarray(0, good.length - 1), /outside the file/],
      [good.subarray(0, headerSize), /does not fit the file/],
      [Buffer.concat([good, Buffer.alloc(1)]), /1 bytes after the last tensor/],
      [withHeader((h) => h.replace(first, '"shape":[7,0]')), /need 0 bytes/],
      [withHeader((h) => h.replace(first, '"shape":[4294967296,4294967296]')), /shape overflows/],
      [withHeader((h) => h.replace(first, '"shape":[-7,-6]')), /no size/],
      [withHeader((h) => h.replace(first, '"shape":[6,7]')), /has a shape that config.json does not give it/],
      [withHeader((h) => h.replace('"F32"', '"I32"')), /embed_tokens.weight has dtype I32/, 'EEPO_UNSUPPORTED'],
      [withHeader((h) => `{"a":${'['.repeat(1000)}`.padEnd(h.length)), /nesting too deep/],
    ];
    for (const [bytes, message, code] of cases) {
      await writeFile(path, bytes);
      await refused(dir, message, code);
    }
  });
});
