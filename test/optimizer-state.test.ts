/** Weights and moments in files: what training goes on from, and files that are none. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { InvalidFileError, type LoadOptions, Policy, UnsupportedError } from '../lib/index.js';
import { embeddedModel, readSafetensors } from './support/data.js';

const folder = mkdtempSync(join(tmpdir(), 'eepo-optimizer-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const batch = {
  prompts: [
    [5, 7, 9],
    [5, 7],
  ],
  responses: [
    [4, 6, 8, 2],
    [3, 2],
  ],
};

async function update(policy: Policy, scale = 1): Promise<void> {
  const { logprob } = await policy.forward(batch);
  await policy.backward(
    logprob.map((_, i) => (scale * (i - 2)) / 4),
    null,
  );
  await policy.step({ lr: 1e-3 });
}

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** A safetensors file with its header changed, data as it is. */
function rewrite(from: string, to: string, change: (header: Record<string, Entry>, data: Buffer) => Buffer): string {
  const file = readFileSync(from);
  const size = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + size).toString('utf8')) as Record<string, Entry>;
  const data = change(header, Buffer.from(file.subarray(8 + size)));
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(to, Buffer.concat([length, text, data]));
  return to;
}

const KINDS: Record<string, LoadOptions> = {
  float32: {},
  bfloat16: { dtype: 'bfloat16' },
  LoRA: { lora: { rank: 3, seed: 2 } },
};

describe('a policy that goes on from files', () => {
  for (const [name, options] of Object.entries(KINDS)) {
    it(`has the bits it would have had: ${name}`, async () => {
      const at = join(folder, name);
      const file = join(at, 'optimizer');
      using policy = await Policy.load(embeddedModel, options);
      const save = (): Promise<void> => (options.lora ? policy.saveAdapter(at) : policy.save(at));
      await save();
      await policy.saveOptimizer(file);
      assert.deepEqual([...readSafetensors(file).keys()], ['step'], 'no moments before the first step');
      for (const steps of [0, 1, 2]) {
        await save();
        await policy.saveOptimizer(file);
        const hash = await policy.hash();
        assert.equal(readSafetensors(file).get('step')?.data[0], steps);
        // one that has been elsewhere
        using twin = await Policy.load(embeddedModel, options);
        await update(twin, 3);
        await twin.restoreWeights(at);
        await twin.loadOptimizer(file);
        assert.equal(await twin.hash(), hash);
        await update(policy);
        await update(twin);
        assert.equal(await twin.hash(), await policy.hash());
      }
      const moments = readSafetensors(file);
      const names = [...(await policy.parameters()).keys()];
      assert.equal(moments.size, 1 + 2 * names.length);
      for (const parameter of names) {
        assert.ok(
          moments.get(`${parameter}.exp_avg_sq`)?.data.every((v) => v >= 0),
          parameter,
        );
      }
    });
  }

  it('loses moments, gradients and theta prime with the weights', async () => {
    const at = join(folder, 'fresh');
    using policy = await Policy.load(embeddedModel);
    await policy.save(at);
    await update(policy);
    await policy.forward(batch);
    await policy.backward(new Float32Array(6), null);
    await policy.restoreWeights(at);
    await assert.rejects(policy.step({ lr: 1 }), /needs gradients/);
    using other = await Policy.load(embeddedModel);
    await update(policy);
    await update(other);
    assert.equal(await policy.hash(), await other.hash());
  });
});

describe('files that are no state of this policy', () => {
  let policy: Policy;
  let good: string;
  before(async () => {
    policy = await Policy.load(embeddedModel);
    await update(policy);
    good = join(folder, 'good');
    await policy.saveOptimizer(good);
  });
  after(() => policy.dispose());

  const norm = 'model.norm.weight.exp_avg';
  const bad: Record<string, [RegExp, (header: Record<string, Entry>, data: Buffer) => Buffer]> = {
    'a tensor that is missing': [
      /has \d+ tensors, expected \d+/,
      (header, data) => {
        const last = Object.keys(header).at(-1) as string;
        const [begin] = (header[last] as Entry).data_offsets;
        delete header[last];
        return data.subarray(0, begin);
      },
    ],
    'a tensor of another name': [
      /tensor model\.norm\.weight\.exp_avg is missing/,
      (header, data) => {
        header.other = header[norm] as Entry;
        delete header[norm];
        return data;
      },
    ],
    'another shape': [
      /model\.norm\.weight\.exp_avg has another shape/,
      (header, data) => {
        const entry = header[norm] as Entry;
        entry.shape = [1, ...entry.shape];
        return data;
      },
    ],
    'another dtype': [
      /model\.norm\.weight\.exp_avg has dtype F16, expected F32/,
      (header, data) => {
        const entry = header[norm] as Entry;
        entry.dtype = 'F16';
        entry.shape = entry.shape.map((n) => n * 2);
        return data;
      },
    ],
    'a moment that is NaN': [
      /holds values that are no moments of AdamW/,
      (header, data) => {
        data.writeFloatLE(Number.NaN, (header[norm] as Entry).data_offsets[0]);
        return data;
      },
    ],
    'a negative second moment': [
      /norm\.weight\.exp_avg_sq holds values that are no moments of AdamW/,
      (header, data) => {
        data.writeFloatLE(-1, (header[`${norm}_sq`] as Entry).data_offsets[0]);
        return data;
      },
    ],
    ...Object.fromEntries(
      [-1, 0.5, 2 ** 25, Number.NaN, Number.POSITIVE_INFINITY].map((step) => [
        `step ${step}`,
        [
          /step is .*, expected a whole number from 0 to 16777216/,
          (header: Record<string, Entry>, data: Buffer) => {
            data.writeFloatLE(step, (header.step as Entry).data_offsets[0]);
            return data;
          },
        ],
      ]),
    ),
    'moments before the first step': [
      /has \d+ tensors, expected 1/,
      (header, data) => {
        data.writeFloatLE(0, (header.step as Entry).data_offsets[0]);
        return data;
      },
    ],
  };
  // The dtype makes the shape another one too: what is named first is of no matter.
  bad['another dtype'] = [
    /model\.norm\.weight\.exp_avg has (dtype F16|another shape)/,
    (bad['another dtype'] as (typeof bad)[string])[1],
  ];

  for (const [what, [message, change]] of Object.entries(bad)) {
    it(`are named, and nothing is changed: ${what}`, async () => {
      const file = rewrite(good, join(folder, 'bad'), change);
      await assert.rejects(policy.loadOptimizer(file), (error: Error) => {
        assert.ok(error instanceof InvalidFileError, error.message);
        assert.match(error.message, message);
        assert.ok(error.message.includes(file));
        return true;
      });
      await policy.saveOptimizer(join(folder, 'still'));
      assert.ok(readFileSync(good).equals(readFileSync(join(folder, 'still'))));
    });
  }

  it('of another adapter, a frozen policy, or no file at all', async () => {
    await assert.rejects(policy.loadOptimizer(join(folder, 'none')), /cannot be opened/);
    using frozen = await Policy.load(embeddedModel, { trainable: false });
    await assert.rejects(frozen.saveOptimizer(join(folder, 'x')), UnsupportedError);
    await assert.rejects(frozen.loadOptimizer(good), UnsupportedError);
    await assert.rejects(frozen.restoreWeights(embeddedModel), UnsupportedError);
    using three = await Policy.load(embeddedModel, { lora: { rank: 3 } });
    using four = await Policy.load(embeddedModel, { lora: { rank: 4 } });
    await four.saveAdapter(join(folder, 'four'));
    await assert.rejects(three.restoreWeights(join(folder, 'four')), /the adapter has rank 4, that of this policy 3/);
    await assert.rejects(three.loadOptimizer(good), InvalidFileError);
  });
});
