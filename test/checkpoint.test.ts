import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { planCheckpoint } from '../lib/checkpoint-plan.js';
import { type Checkpoint, writeCheckpoint } from '../lib/checkpoint-writer.js';
import { temporaryFolder, writeFiles } from './support/files.js';

const json = (path: string) => JSON.parse(readFileSync(path, 'utf8'));

describe('planCheckpoint', () => {
  const layout = [
    { name: 'b', shape: [10, 10] },
    { name: 'c', shape: [50] },
    { name: 'a', shape: [30, 10] },
    { name: 'd', shape: [] },
  ];

  it('is one file without an index where everything fits', () => {
    const { files, index } = planCheckpoint(layout, 4, 451 * 4);
    assert.deepEqual(files, [{ name: 'model.safetensors', tensors: ['b', 'c', 'a', 'd'] }]);
    assert.equal(index, null);
  });

  it("has Hugging Face's names and index where it does not", () => {
    const { files, index } = planCheckpoint(layout, 2, 300);
    assert.deepEqual(files, [
      { name: 'model-00001-of-00003.safetensors', tensors: ['b', 'c'] },
      { name: 'model-00002-of-00003.safetensors', tensors: ['a'] },
      { name: 'model-00003-of-00003.safetensors', tensors: ['d'] },
    ]);
    assert.deepEqual(index?.metadata, { total_parameters: 451, total_size: 902 });
    assert.deepEqual(Object.entries(index?.weight_map ?? {}), [
      ['a', 'model-00002-of-00003.safetensors'],
      ['b', 'model-00001-of-00003.safetensors'],
      ['c', 'model-00001-of-00003.safetensors'],
      ['d', 'model-00003-of-00003.safetensors'],
    ]);
  });

  it('keeps every tensor once, in order, and every file but of one tensor below the limit', () => {
    const tensor = fc.record({ shape: fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 3 }) });
    fc.assert(
      fc.property(
        fc.array(tensor, { minLength: 1, maxLength: 30 }),
        fc.integer({ min: 1, max: 9000 }),
        (shapes, limit) => {
          const all = shapes.map(({ shape }, i) => ({ name: `t${i}`, shape }));
          const size = new Map(all.map(({ name, shape }) => [name, 4 * shape.reduce((a, b) => a * b, 1)]));
          const { files, index } = planCheckpoint(all, 4, limit);
          assert.deepEqual(
            files.flatMap(({ tensors }) => tensors),
            all.map(({ name }) => name),
          );
          assert.equal(new Set(files.map(({ name }) => name)).size, files.length);
          for (const { tensors } of files) {
            const bytes = tensors.reduce((sum, name) => sum + (size.get(name) ?? 0), 0);
            assert.ok(tensors.length === 1 || bytes <= limit);
          }
          assert.equal(index === null, files.length === 1);
          for (const [name, file] of Object.entries(index?.weight_map ?? {}))
            assert.ok(files.find((entry) => entry.name === file)?.tensors.includes(name));
        },
      ),
    );
  });

  it('names a limit that no file can keep', () => {
    assert.throws(() => planCheckpoint(layout, 4, 0), /maxShardBytes/);
    assert.throws(() => planCheckpoint(layout, 4, Number.NaN), /maxShardBytes/);
  });
});

describe('writeCheckpoint', () => {
  const checkpoint = (companions: string | null, more: Partial<Checkpoint> = {}): Checkpoint => ({
    layout: [
      { name: 'x', shape: [10] },
      { name: 'y', shape: [10] },
    ],
    write: async (files) => {
      for (const { path, names } of files) writeFileSync(path, names.join());
    },
    config: { modelType: 'qwen2', tieWordEmbeddings: true },
    raw: { model_type: 'qwen2', torch_dtype: 'bfloat16', architectures: ['x'], vocab_size: 3, unknown: [1] },
    companions,
    ...more,
  });

  it('writes weights, config and companions, and corrects what config.json says', async (t) => {
    const source = writeFiles(temporaryFolder(t), {
      'tokenizer.json': '{}',
      'chat_template.jinja': 'template',
      'additional_chat_templates/tools.jinja': 'tools',
      'generation_config.json': '{"eos_token_id": 1}',
      'optimizer.pt': 'no',
      'model.safetensors': 'no',
    });
    const dir = join(temporaryFolder(t), 'a', 'b');
    await writeCheckpoint(dir, checkpoint(source), { dtype: 'bfloat16' });
    assert.deepEqual(readdirSync(dir, { recursive: true }).sort(), [
      'additional_chat_templates',
      'additional_chat_templates/tools.jinja',
      'chat_template.jinja',
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'tokenizer.json',
    ]);
    assert.deepEqual(json(join(dir, 'config.json')), {
      model_type: 'qwen2',
      architectures: ['Qwen2ForCausalLM'],
      vocab_size: 3,
      unknown: [1],
      tie_word_embeddings: true,
      torch_dtype: 'bfloat16',
    });
    await writeCheckpoint(dir, checkpoint(dir, { raw: { dtype: 'float16' } }));
    assert.equal(json(join(dir, 'config.json')).dtype, 'float32');
    assert.equal(readFileSync(join(dir, 'tokenizer.json'), 'utf8'), '{}');
  });

  it('leaves no weights of an older save behind, and nothing else alone', async (t) => {
    const dir = temporaryFolder(t);
    await writeCheckpoint(dir, checkpoint(null), { maxShardBytes: 40 });
    const shards = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
    assert.deepEqual(readdirSync(dir).sort(), ['config.json', ...shards, 'model.safetensors.index.json']);
    assert.equal(json(join(dir, 'model.safetensors.index.json')).metadata.total_size, 80);
    writeFiles(dir, { 'notes.txt': 'mine', 'model-3.safetensors': 'mine', 'model-00003-of-00004.safetensors': 'old' });
    await writeCheckpoint(dir, checkpoint(null));
    assert.deepEqual(readdirSync(dir).sort(), ['config.json', 'model-3.safetensors', 'model.safetensors', 'notes.txt']);
    await writeCheckpoint(dir, checkpoint(null), { maxShardBytes: 40 });
    assert.deepEqual(readdirSync(dir).sort(), [
      'config.json',
      ...shards,
      'model-3.safetensors',
      'model.safetensors.index.json',
      'notes.txt',
    ]);
  });

  it('leaves what was there when the disk is full or the save is stopped', async (t) => {
    const dir = temporaryFolder(t);
    await writeCheckpoint(dir, checkpoint(null));
    const before = readdirSync(dir).map((name) => [name, readFileSync(join(dir, name), 'utf8')]);
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    const write: Checkpoint['write'] = async (files) => {
      writeFileSync(files[0]?.path ?? '', 'half');
      throw full;
    };
    await assert.rejects(writeCheckpoint(dir, checkpoint(null, { write }), { maxShardBytes: 40 }), {
      code: 'EEPO_INVALID_FILE',
      message: /free some disk space.*What was there is unchanged/,
    });
    // a companion that cannot be read comes after the weights
    const source = temporaryFolder(t);
    mkdirSync(join(source, 'tokenizer.json'));
    await assert.rejects(writeCheckpoint(dir, checkpoint(source)), { code: 'EEPO_INVALID_FILE' });
    assert.deepEqual(
      readdirSync(dir).map((name) => [name, readFileSync(join(dir, name), 'utf8')]),
      before,
    );
  });

  it('removes what a killed save left, and not what a running one writes', async (t) => {
    const dir = temporaryFolder(t);
    const ended = spawnSync(process.execPath, ['-e', '']).pid;
    const [left, running, foreign] = [
      `.saving-${hostname()}-${ended}-abc123`,
      `.saving-${hostname()}-${process.pid}-abc123`,
      '.saving-another-host-1-abc123',
    ];
    for (const name of [left, running, foreign]) writeFiles(dir, { [`${name}/model.safetensors`]: 'half' });
    await writeCheckpoint(dir, checkpoint(null));
    assert.deepEqual(readdirSync(dir).sort(), [foreign, running, 'config.json', 'model.safetensors'].sort());
  });

  it('names a folder that cannot be made and a dtype that is none', async (t) => {
    const file = join(temporaryFolder(t), 'file');
    writeFileSync(file, '');
    await assert.rejects(writeCheckpoint(join(file, 'x'), checkpoint(null)), { code: 'EEPO_INVALID_ARGUMENT' });
    const dtype = 'float16' as 'float32';
    await assert.rejects(writeCheckpoint(dirname(file), checkpoint(null), { dtype }), /"float32" or "bfloat16"/);
    assert.ok(!existsSync(join(dirname(file), 'config.json')));
  });
});
