import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { openResponses } from '../lib/eval/response-file.js';
import { incomparable, readSettings } from '../lib/eval/settings.js';
import { readResult } from '../lib/eval/suite.js';
import { formatDetails, formatResultTable, resultDocument, resultTable } from '../lib/eval/table.js';
import { readParquet } from '../lib/tasks/data/read-parquet.js';
import { readJsonDocument, readJsonLines } from '../lib/tasks/data/read-text.js';
import type { PlacedRow } from '../lib/tasks/data/rows.js';
import { createTask, isEmbedded, TASK_NAMES } from '../lib/tasks/index.js';
import { readDemonstrations } from '../lib/train/demonstrations.js';
import { ROOT } from './support/data.js';
import { deep, forAll, spoiltBytes, spoiltJson, valueOrNamedError } from './support/properties.js';

const folder = mkdtempSync(join(tmpdir(), 'eepo-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const write = (name: string, data: string | Uint8Array): string => {
  const path = join(folder, name);
  writeFileSync(path, data);
  return path;
};

const collect = async (rows: AsyncIterable<PlacedRow>): Promise<PlacedRow[]> => {
  const all: PlacedRow[] = [];
  for await (const row of rows) all.push(row);
  return all;
};

const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom('\ud800', 'a\0b', '\u2028', '\ufeff', '"', '\\', '__proto__', '{"a":1}', '\r', '[[[['),
);
const row = fc.record({
  prompt: fc.string({ minLength: 1 }),
  answer: fc.oneof(fc.string(), fc.integer()),
  extra: fc.jsonValue({ maxDepth: 3 }),
});
const lines =
  '{"prompt": "What is 1 + 1?", "answer": "2"}\n\n{"prompt": "And 2 + 2?", "answer": ["4", 4], "level": 3}\n';

describe('JSONL', () => {
  it('what was written is read, whatever the line ends and marks', async () => {
    await forAll(
      fc.tuple(fc.array(row, { maxLength: 5 }), fc.constantFrom('\n', '\r\n', '\n\n'), fc.boolean()),
      100,
      async ([rows, end, mark]) => {
        const path = write('x.jsonl', (mark ? '\ufeff' : '') + rows.map((one) => JSON.stringify(one) + end).join(''));
        assert.deepEqual(
          (await collect(readJsonLines({ path, name: path }))).map((placed) => placed.row),
          JSON.parse(JSON.stringify(rows)),
        );
      },
    );
  });

  it('any bytes are rows, or an error that names file and line', async () => {
    const any = fc.oneof(
      text.map((t) => Buffer.from(t)),
      spoiltBytes(Buffer.from(lines)),
      spoiltBytes(gzipSync(lines)),
    );
    await forAll(fc.tuple(any, fc.constantFrom('x.jsonl', 'x.json', 'x.jsonl.gz')), 300, async ([bytes, name]) => {
      const path = write(name, bytes);
      await valueOrNamedError(() => collect(readJsonLines({ path, name: path })), path);
      await valueOrNamedError(() => collect(readJsonDocument({ path, name: path })), path);
      await valueOrNamedError(() => readDemonstrations(path, 'prompt', 'answer'), path);
    });
  });

  it('rows of any kind make a task, or an error that names the row', async () => {
    const valid = {
      prompt: [{ role: 'user', content: 'a' }],
      answer: ['1'],
      problem: 'b',
      question: 'c',
      level: 'Level 3',
      solution: '\\boxed{1}',
      reward_model: { ground_truth: '1' },
    };
    await forAll(
      fc.tuple(
        spoiltJson(valid),
        fc.constantFrom(...TASK_NAMES.filter((name) => !isEmbedded(name))),
        fc.constantFrom(undefined, 'prompt', 'prompt.0.content', '__proto__', 'reward_model.ground_truth', 'a..b'),
      ),
      300,
      async ([json, name, column]) => {
        const path = write('rows.jsonl', `${json}\n`);
        const task = await valueOrNamedError(
          () =>
            createTask(name, {
              files: { train: path },
              ...(column === undefined ? {} : { promptColumn: column }),
            } as never),
          path,
        );
        for (const { prompt, answer } of task?.splits.train ?? []) {
          assert.ok(typeof prompt === 'string' || prompt.every(({ content }) => typeof content === 'string'));
          assert.ok(['string', 'number'].includes(typeof answer) || Array.isArray(answer));
        }
      },
    );
  });

  it('nesting that cannot be shown', async () => {
    const path = write(
      'deep.jsonl',
      `{"prompt": ${JSON.stringify('a')}, "answer": ${'['.repeat(50_000)}${']'.repeat(50_000)}}\n`,
    );
    assert.ok(deep());
    assert.equal(await valueOrNamedError(() => createTask('jsonl', { files: { train: path } }), `${path}:1`), null);
  });

  it('a line of 100 MB is refused by its number, without being kept', async () => {
    const path = write(
      'long.jsonl.gz',
      gzipSync(Buffer.concat([Buffer.from('{"prompt": "a", "answer": "b"}\n"'), Buffer.alloc(100e6, 'x')]), {
        level: 1,
      }),
    );
    const before = process.memoryUsage().arrayBuffers;
    assert.equal(await valueOrNamedError(() => collect(readJsonLines({ path, name: path })), `${path}:2`), null);
    assert.equal(await valueOrNamedError(() => collect(readJsonDocument({ path, name: path })), path), null);
    assert.ok(process.memoryUsage().arrayBuffers - before < 600e6);
  });
});

describe('Parquet', () => {
  for (const name of ['flat.parquet', 'verl.zstd.parquet', 'verl.snappy.parquet', 'math.parquet']) {
    it(`${name}: spoilt, it is read or named`, async () => {
      const valid = readFileSync(join(ROOT, 'test', 'fixtures', 'tasks', name));
      await forAll(spoiltBytes(valid), 25, async (bytes) => {
        const path = write('x.parquet', bytes);
        await valueOrNamedError(
          () => collect(readParquet({ path, name: path }, undefined, { milliseconds: 10_000 })),
          path,
        );
      });
    });
  }

  it('any bytes between its marks', async () => {
    await forAll(fc.uint8Array({ maxLength: 64 }), 40, async (middle) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(middle.length);
      const path = write('x.parquet', Buffer.concat([Buffer.from('PAR1'), middle, length, Buffer.from('PAR1')]));
      await valueOrNamedError(
        () => collect(readParquet({ path, name: path }, undefined, { milliseconds: 10_000 })),
        path,
      );
    });
  });
});

describe('what an evaluation reads again', () => {
  const statistics = { responses: 2, meanLength: 3.5, truncated: 0, noAnswer: 0, undecided: 0, meanEntropy: 0.5 };
  const estimate = { value: 0.5, standardError: 0.1, interval: [0.3, 0.7] };
  const result = {
    name: 'm',
    model: null,
    sets: {
      amc23: {
        title: 'AMC 23',
        problems: 2,
        greedy: estimate,
        samples: 2,
        sampledProblems: 2,
        avgAtK: estimate,
        majAtK: { 2: estimate },
        passAtK: { 1: estimate, 2: { ...estimate, standardError: null } },
        solved: 1,
        distinctPerSolved: 1,
        distinctAlgebraicPerSolved: null,
        greedyResponses: statistics,
        sampledResponses: statistics,
      },
    },
  };

  it('results.json: spoilt, it makes a table or is named', async () => {
    const path = join(folder, 'results.json');
    await forAll(spoiltJson(result), 300, async (json) => {
      writeFileSync(path, json);
      const read = await valueOrNamedError(() => readResult(folder), path);
      if (read === null) return;
      const table = resultTable([read], { metric: 'pass@2' });
      for (const made of [formatResultTable(table), formatDetails([read]), resultDocument([read], table)])
        assert.ok(made);
    });
  });

  it('settings.json: spoilt, it is compared or named', async () => {
    const settings = {
      model: 'm',
      weights: 'abc',
      device: 'cpu',
      dtype: 'float32',
      temperature: 1,
      topP: 1,
      seed: 0,
      maxNewTokens: 8,
      stopTokens: [1],
      sets: { amc23: 'def' },
    };
    const path = join(folder, 'settings.json');
    await forAll(spoiltJson(settings), 200, async (json) => {
      writeFileSync(path, json);
      const read = await valueOrNamedError(() => readSettings(path), path);
      if (read !== null)
        incomparable([
          { name: 'a', settings: read },
          { name: 'b', settings: settings as never },
        ]);
    });
  });

  it('responses.jsonl: spoilt, it goes on or names the line; a cut end is cut off', async () => {
    const line = {
      problem: 'a/1',
      phase: 'sample',
      sample: 0,
      verdict: 'correct',
      answer: '2',
      tokens: 4,
      finishReason: 'stop',
      logprob: -1,
      entropy: 0.5,
      text: 'x',
    };
    const path = join(folder, 'responses.jsonl');
    const valid = `${JSON.stringify(line)}\n${JSON.stringify({ ...line, sample: 1 })}\n`;
    for (let length = 0; length <= valid.length; length += 1) {
      writeFileSync(path, valid.slice(0, length));
      const { records } = openResponses(path);
      assert.equal(records.length, valid.slice(0, length).split('\n').length - 1);
    }
    await forAll(
      fc.oneof(
        spoiltBytes(Buffer.from(valid)),
        spoiltJson(line).map((json) => Buffer.from(`${json}\n`)),
      ),
      200,
      async (bytes) => {
        writeFileSync(path, bytes);
        await valueOrNamedError(() => openResponses(path), path);
      },
    );
  });
});
