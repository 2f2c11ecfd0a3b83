/** Files of problems: formats, columns, prompts, presets, and what a bad row says. */
import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { InvalidArgumentError, InvalidFileError } from '../lib/errors.js';
import { findDataFiles, parseHubUri } from '../lib/tasks/data/source.js';
import { createTask, type DatasetOptions, datasetTask, defineTask, type Task } from '../lib/tasks/index.js';
import { HUB_FILES } from '../lib/tasks/presets.js';
import { Random } from '../lib/tasks/random.js';
import { dataRoot, needs } from './support/data.js';
import { FakeHub } from './support/fake-hub.js';
import { temporaryFolder, writeFiles } from './support/files.js';

const fixture = (name: string): string => fileURLToPath(new URL(`../../test/fixtures/tasks/${name}`, import.meta.url));
const lines = (...rows: unknown[]): string => `${rows.map((row) => JSON.stringify(row)).join('\n')}\n`;
const train = (task: Task) => task.splits.train ?? [];

async function fails(loading: Promise<unknown>, message: RegExp, type: new (m: string) => Error = InvalidFileError) {
  await assert.rejects(loading, (error: Error) => {
    assert.ok(error instanceof type, `${error}`);
    assert.match(error.message, message);
    return true;
  });
}

describe('parquet', () => {
  it("reads verl's layout, packed by snappy, gzip and zstd", async () => {
    const loaded = [];
    for (const codec of ['snappy', 'gzip', 'zstd']) {
      const task = await createTask('verl', { files: { train: fixture(`verl.${codec}.parquet`) } });
      loaded.push(task.splits.train);
    }
    assert.deepEqual(loaded[0]?.[2], {
      id: 'train:3',
      prompt: [
        { role: 'system', content: 'Answer briefly.' },
        { role: 'user', content: 'Solve $x^2 = 9$ for $x > 0$.' },
      ],
      answer: '3',
      meta: {
        data_source: 'own/arithmetic',
        ability: 'math',
        reward_model: { ground_truth: '3', style: 'rule' },
        extra_info: { answer: null, index: 2, split: 'train' },
      },
    });
    assert.equal(loaded[0]?.length, 5);
    assert.deepEqual(loaded[0]?.[4]?.prompt[1], { role: 'user', content: 'Wie viel ist $7 \\cdot 8$? äöü √' });
    assert.deepEqual(loaded[1], loaded[0]);
    assert.deepEqual(loaded[2], loaded[0]);
  });

  it('takes a text out of a chat by a dotted path, for a template of its own', async () => {
    const task = await createTask('verl', {
      files: { train: fixture('verl.zstd.parquet') },
      promptColumn: 'prompt.1.content',
      promptStyle: 'simplerl',
      metaColumns: ['extra_info.index'],
    });
    assert.deepEqual(train(task)[0], {
      id: 'train:1',
      prompt: "Question:\nWhat is $1 + 1$?\nAnswer:\nLet's think step by step.\n",
      answer: '2',
      meta: { 'extra_info.index': 0 },
    });
  });

  it('reads integers as numbers, or text beyond 2^53, times as ISO text, bytes as text, over row groups', async () => {
    const task = await createTask('parquet', { files: { train: fixture('flat.parquet') } });
    assert.deepEqual(
      train(task).map(({ id, answer }) => [id, answer]),
      [
        ['train:1', 2],
        ['train:2', 1e15],
        ['train:3', '1152921504606846976'],
        ['train:4', -4],
        ['train:5', 0],
      ],
    );
    const { meta } = train(task)[1] ?? {};
    assert.deepEqual([meta?.when, meta?.score, meta?.accepted], ['1970-01-01T00:00:00.001Z', 1.5, ['1']]);
    assert.equal(train(task)[2]?.meta?.score, null);
    const accepted = await createTask('parquet', {
      files: { train: fixture('flat.parquet') },
      answerColumn: 'accepted',
    });
    assert.deepEqual(train(accepted)[0]?.answer, ['2', 'two']);
  });

  it('names the row of a bad value, a missing column, and a file that is none', async (t) => {
    const path = fixture('null-answer.parquet');
    await fails(
      createTask('parquet', { files: { train: path } }),
      /null-answer\.parquet: row 2: "answer" must be .* got null/,
    );
    await fails(
      createTask('parquet', { files: { train: path }, promptColumn: 'problem.text' }),
      /row 1: no column "problem\.text"; the row has problem, answer/,
    );
    const folder = temporaryFolder(t);
    writeFiles(folder, { 'x.parquet': 'not parquet at all', 'empty.parquet': '' });
    await fails(createTask('parquet', { files: { train: join(folder, 'x.parquet') } }), /cannot be read as Parquet/);
    await fails(
      createTask('parquet', { files: { train: join(folder, 'empty.parquet') } }),
      /cannot be read as Parquet/,
    );
    await fails(createTask('parquet', { files: { train: join(folder, 'none.parquet') } }), /no such file/);
  });

  it('gives rows or one clear error for a damaged file, whatever the damage', async (t) => {
    const path = join(temporaryFolder(t), 'damaged.parquet');
    const whole = ['verl.snappy', 'verl.gzip', 'verl.zstd', 'flat'].map((name) =>
      readFileSync(fixture(`${name}.parquet`)),
    );
    const random = new Random(5);
    let errors = 0;
    for (let i = 0; i < 800; i += 1) {
      const bytes = Buffer.from(whole[i % 4] as Buffer);
      // Every other time the footer, where the structure is.
      const from = i % 8 < 4 ? 0 : bytes.length - 2200;
      for (let k = random.int(4); k >= 0; k -= 1) bytes[from + random.int(bytes.length - from)] = random.int(256);
      writeFileSync(path, i % 10 === 9 ? bytes.subarray(0, random.int(bytes.length)) : bytes);
      try {
        await createTask(i % 4 === 3 ? 'parquet' : 'verl', { files: { train: path } });
      } catch (error) {
        assert.ok(error instanceof InvalidFileError && error.message.startsWith(path), `damage ${i}: ${error}`);
        errors += 1;
      }
    }
    assert.ok(errors > 400, `${errors} of 800`);
  });
});

describe('files of a split', () => {
  it('may be several, patterns, packed or not, JSON or JSON lines', async (t) => {
    const folder = writeFiles(temporaryFolder(t), {
      'a/one.jsonl': lines({ prompt: 'a', answer: '1' }),
      'b/two.jsonl.gz': gzipSync(lines({ prompt: 'b', answer: '2' }, { prompt: 'c', answer: '3' })),
      'b/.hidden.jsonl.gz': gzipSync('broken'),
      'c/list.json': JSON.stringify(
        [
          { prompt: 'd', answer: '4' },
          { prompt: 'e', answer: '5' },
        ],
        null,
        2,
      ),
      'c/object.json': JSON.stringify({ prompt: 'f', answer: '6' }, null, 2),
      'c/lines.json': lines({ prompt: 'g', answer: '7' }, { prompt: 'h', answer: '8' }),
      'c/packed.json.gz': gzipSync(JSON.stringify([{ prompt: 'i', answer: '9' }])),
    });
    const task = await createTask('jsonl', {
      files: { train: [join(folder, 'a/one.jsonl'), join(folder, '?/*.gz')], test: join(folder, 'c/*.json') },
    });
    assert.deepEqual(
      train(task).map(({ id, prompt }) => `${id} ${prompt}`),
      ['train:1:1 a', 'train:2:1 b', 'train:2:2 c', 'train:3:1 i'],
    );
    assert.deepEqual(
      task.splits.test?.map(({ prompt }) => prompt),
      ['g', 'h', 'd', 'e', 'f'],
    );
    assert.deepEqual(Object.keys(task.splits), ['train', 'test']);
  });

  it('are named where they are not there, and a folder says what to do', async (t) => {
    const folder = writeFiles(temporaryFolder(t), { 'a/x.txt': '', 'j.json': '[{"prompt": "a", "answer": "1"}, 7]' });
    await fails(createTask('jsonl', { files: { train: join(folder, 'a/*.jsonl') } }), /\*\.jsonl: no file matches/);
    await fails(createTask('jsonl', { files: { train: join(folder, 'a') } }), /is a folder; name its files.*\*\.jsonl/);
    await fails(
      createTask('jsonl', { files: { train: join(folder, 'j.json') } }),
      /j\.json: row 2: expected a JSON object/,
    );
    await fails(createTask('jsonl', { files: { train: [] } }), /at least one file/, InvalidArgumentError);
  });

  it('may be of another ending, read by the format given', async (t) => {
    const path = join(temporaryFolder(t), 'data.bin');
    copyFileSync(fixture('flat.parquet'), path);
    assert.equal(train(await createTask('parquet', { files: { train: path } })).length, 5);
    await fails(createTask('jsonl', { files: { train: path } }), /data\.bin:1: not valid (JSON|UTF-8)/);
  });

  it('end at a limit: rows behind it are not even read', async (t) => {
    const folder = writeFiles(temporaryFolder(t), {
      'x.jsonl': `${lines({ prompt: 'a', answer: '1' }, { prompt: 'b', answer: '2' })}not JSON`,
    });
    const files = { train: join(folder, 'x.jsonl') };
    assert.equal(train(await datasetTask({ files, maxProblems: { train: 2 } })).length, 2);
    await fails(datasetTask({ files, maxProblems: { train: 3 } }), /x\.jsonl:3: not valid JSON/);
  });

  it('are refused with the line for hostile rows, and take odd ones as they are', async (t) => {
    const deep = `${'['.repeat(200_000)}${']'.repeat(200_000)}`;
    const folder = temporaryFolder(t);
    const load = (row: string) => {
      writeFiles(folder, { 'x.jsonl': `${row}\n` });
      return datasetTask({ files: { train: join(folder, 'x.jsonl') } });
    };
    await fails(load(`{"prompt": "a", "answer": ${deep}}`), /x\.jsonl:1: "answer" must be .* nested too deeply/);
    await fails(load(`{"prompt": ${deep}, "answer": "1"}`), /x\.jsonl:1: "prompt" must be .* nested too deeply/);
    await fails(load('{"prompt": "a", "answer": 1e999}'), /x\.jsonl:1: "answer" must be .* got Infinity/);
    assert.equal(train(await load(`{"prompt": "a", "answer": "1", "more": ${deep}}`)).length, 1);
    const [odd] = train(await load('{"prompt": "a", "answer": "1", "__proto__": {"x": 1}, "constructor": 3}'));
    assert.deepEqual(Object.keys(odd?.meta ?? {}), ['__proto__', 'constructor']);
    assert.equal(({} as { x?: number }).x, undefined);
  });

  it('are refused with the line where they are not text, or a line never ends', async (t) => {
    const folder = writeFiles(temporaryFolder(t), {
      'latin1.jsonl': Buffer.concat([
        Buffer.from(lines({ prompt: 'a', answer: '1' })),
        Buffer.from('{"prompt": "\xe4", "answer": "1"}\n', 'latin1'),
      ]),
      'cut.jsonl.gz': gzipSync(
        lines(...Array.from({ length: 500 }, (_, i) => ({ prompt: `${i}`, answer: `${i * 7}` }))),
      ).subarray(0, 900),
      'long.jsonl.gz': gzipSync(Buffer.alloc(70 * 2 ** 20, 0x20)),
    });
    await fails(datasetTask({ files: { train: join(folder, 'latin1.jsonl') } }), /latin1\.jsonl:2: not valid UTF-8/);
    await fails(
      datasetTask({ files: { train: join(folder, 'cut.jsonl.gz') } }),
      /cut\.jsonl\.gz: cannot be read: unexpected end/,
    );
    await fails(
      datasetTask({ files: { train: join(folder, 'long.jsonl.gz') } }),
      /long\.jsonl\.gz:1: the line is longer than 64 MiB/,
    );
  });

  it('on the hub have an address of their own', async () => {
    assert.deepEqual(parseHubUri('hf://datasets/openai/gsm8k@v1.0/main/train.parquet'), {
      repo: 'openai/gsm8k',
      revision: 'v1.0',
      path: 'main/train.parquet',
    });
    for (const wrong of [
      'hf://openai/gsm8k/x.jsonl',
      'hf://datasets/openai/gsm8k',
      'hf://datasets/a/b/../../x',
      'hf://datasets/a/b/',
    ]) {
      assert.throws(() => parseHubUri(wrong), InvalidArgumentError, wrong);
    }
    for (const { train: files, test: own } of Object.values(HUB_FILES)) {
      for (const uri of [files, own].flat()) assert.match(parseHubUri(uri).path, /\.(parquet|jsonl)$/);
    }
  });

  it('on the hub are fetched once, patterns too, and keep their address in messages', async (t) => {
    const folder = writeFiles(temporaryFolder(t), { 'main/a.jsonl': 'no JSON', 'main/b.jsonl': '', 'c.jsonl': '' });
    const asked: unknown[] = [];
    const files = await findDataFiles(
      ['hf://datasets/o/n@r/main/*.jsonl', 'hf://datasets/o/n/c.jsonl'],
      async (file) => {
        asked.push(file);
        return folder;
      },
    );
    assert.deepEqual(asked, [
      { repo: 'o/n', revision: 'r', path: 'main/*.jsonl' },
      { repo: 'o/n', revision: null, path: 'c.jsonl' },
    ]);
    assert.deepEqual(files, [
      { path: join(folder, 'main/a.jsonl'), name: 'hf://datasets/o/n@r/main/a.jsonl' },
      { path: join(folder, 'main/b.jsonl'), name: 'hf://datasets/o/n@r/main/b.jsonl' },
      { path: join(folder, 'c.jsonl'), name: 'hf://datasets/o/n/c.jsonl' },
    ]);
  });
});

describe('data sets of the hub', () => {
  const parquet = (name: string): Buffer => readFileSync(fixture(name));

  it('are downloaded once, then read from the cache, offline too', async (t) => {
    const hub = await FakeHub.start(t, {
      'datasets/openai/gsm8k': {
        files: {
          'main/train-00000-of-00001.parquet': parquet('gsm8k.parquet'),
          'main/test-00000-of-00001.parquet': parquet('gsm8k.parquet'),
          'socratic/train-00000-of-00001.parquet': 'not asked for',
        },
      },
    });
    const options = { hub: { endpoint: hub.endpoint, cacheDir: temporaryFolder(t), token: false } as const };
    const task = await createTask('gsm8k', options);
    const local = await createTask('gsm8k', { files: { train: fixture('gsm8k.jsonl') } });
    assert.deepEqual(train(task), train(local));
    assert.equal(task.splits.test?.length, 4);
    assert.ok(!hub.requests.some(({ path }) => path.includes('socratic') && !path.includes('tree')));
    hub.stop();
    const again = await createTask('gsm8k', { hub: { ...options.hub, offline: true } });
    assert.deepEqual(again.splits, task.splits);
    await assert.rejects(
      createTask('gsm8k', {
        files: { train: 'hf://datasets/openai/gsm8k/socratic/train-00000-of-00001.parquet' },
        hub: { ...options.hub, offline: true },
      }),
      /^InvalidFileError: hf:.*\/socratic\/.* is not in the cache .*offline/,
    );
  });

  it('MATH: all seven subjects, without what MATH-500 asks', async (t) => {
    const subjects = HUB_FILES.math.train.map((uri) => parseHubUri(uri).path);
    assert.equal(subjects.length, 14);
    const files = Object.fromEntries(subjects.map((path) => [path, parquet('math.parquet')]));
    const asked = { problem: 'Simplify $\\frac{6}{8}$.', answer: '\\frac{3}{4}', level: 3 };
    const hub = await FakeHub.start(t, {
      'datasets/EleutherAI/hendrycks_math': { files },
      'datasets/HuggingFaceH4/MATH-500': { files: { 'test.jsonl': lines(asked) } },
    });
    const task = await createTask('math', {
      hub: { endpoint: hub.endpoint, cacheDir: temporaryFolder(t), token: false },
    });
    assert.deepEqual(
      train(task)
        .slice(0, 2)
        .map(({ id, answer }) => [id, answer]),
      [
        ['train:1:3', '5\\sqrt{2}'],
        ['train:1:4', '(-1, 1)'],
      ],
    );
    assert.equal(train(task).length, 2 * 14);
    assert.match(String(task.notes), /14 of 70 prompts are also asked in another split and are left out/);
  });
});

describe('prompts', () => {
  const files = { train: fixture('math.jsonl') };
  const answers = { answerColumn: 'solution' };
  const first = async (options: Partial<DatasetOptions>) =>
    train(await datasetTask({ files, ...answers, ...options }))[0]?.prompt;

  it('have the style that is asked for', async () => {
    const text = 'What is $2 + 2$?';
    const boxed = 'Please reason step by step, and put your final answer within \\boxed{}.';
    assert.equal(await first({}), text);
    assert.deepEqual(await first({ promptStyle: 'chat' }), [{ role: 'user', content: text }]);
    assert.deepEqual(await first({ promptStyle: 'qwen-boxed' }), [
      { role: 'system', content: 'You are a helpful assistant.' },
      { role: 'user', content: `${text}\n${boxed}` },
    ]);
    assert.deepEqual(await first({ promptStyle: 'qwen-math' }), [
      { role: 'system', content: boxed },
      { role: 'user', content: text },
    ]);
    assert.deepEqual(
      await first({ promptStyle: 'chat', system: 'Be brief.', template: '{prompt} And why? {prompt}' }),
      [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: `${text} And why? ${text}` },
      ],
    );
    assert.deepEqual(await first({ promptStyle: 'qwen-boxed', system: '' }), [
      { role: 'user', content: `${text}\n${boxed}` },
    ]);
  });

  it('that the tokenizer refuses are named, with a way out', async () => {
    const tokenizer = {
      encodePrompt: async (prompt: unknown) => {
        if (JSON.stringify(prompt).includes('x^2 = 50')) throw new InvalidArgumentError('no system messages, please');
        return [1, 2];
      },
    };
    const options = { files, tokenizer, maxPromptTokens: 10, promptStyle: 'qwen-boxed', levels: [] } as const;
    await fails(
      createTask('math', options),
      /math\.jsonl: the prompt of problem train:3 cannot be tokenized: no system messages, please\. Plain text .*'simplerl'/,
    );
  });

  it('say what does not go together', async () => {
    await fails(
      first({ system: 'x' }) as Promise<unknown>,
      /system: promptStyle 'plain' is plain text/,
      InvalidArgumentError,
    );
    await fails(
      first({ promptStyle: 'fancy' as never }) as Promise<unknown>,
      /promptStyle must be one of 'plain'/,
      InvalidArgumentError,
    );
    await fails(
      createTask('verl', { files: { train: fixture('verl.gzip.parquet') }, template: 'Q: {prompt}' }),
      /row 1: "prompt" is a chat, which is taken as it is; .*prompt\.1\.content/,
    );
  });
});

describe('presets', () => {
  it('math: levels 3 to 5 to train on, all to evaluate on, the answer out of the solution', async () => {
    const path = fixture('math.jsonl');
    const task = await createTask('math', { files: { train: path, test: path }, promptStyle: 'plain' });
    assert.deepEqual(
      train(task).map(({ id, answer }) => [id, answer]),
      [
        ['train:2', '\\frac{3}{4}'],
        ['train:3', '5\\sqrt{2}'],
        ['train:4', '(-1, 1)'],
      ],
    );
    assert.equal(train(task)[0]?.meta?.solution, 'Divide by two: $\\boxed{\\frac{3}{4}}$.');
    assert.equal(task.splits.test?.length, 5);
    assert.deepEqual(task.notes, [
      `${path}: 2 of 5 rows are left out by the filter`,
      `${path}: 3 of 5 prompts are also asked in another split and stay; dropEvalPrompts leaves them out`,
    ]);
    assert.equal(train(await createTask('math', { files: { train: path }, levels: [] })).length, 5);
    assert.equal(
      train(await createTask('math', { files: { train: path }, levels: [5], filter: ({ type }) => type === 'Algebra' }))
        .length,
      1,
    );
    assert.equal(train(await createTask('math', { files: { train: path } }))[0]?.prompt.length, 2);
  });

  it('math: rows without level, or without an answer, say so', async (t) => {
    const folder = writeFiles(temporaryFolder(t), {
      'a.jsonl': lines({ problem: 'x', answer: '1' }),
      'b.jsonl': lines({ problem: 'x', level: 5, solution: 'no box' }),
    });
    await fails(
      createTask('math', { files: { train: join(folder, 'a.jsonl') } }),
      /a\.jsonl:1: "level" must be 1 to 5.*levels = \[\]/,
    );
    await fails(
      createTask('math', { files: { train: join(folder, 'b.jsonl') } }),
      /b\.jsonl:1: "solution" has no \\boxed/,
    );
  });

  it('gsm8k: the answer after ####', async (t) => {
    const task = await createTask('gsm8k', { files: { train: fixture('gsm8k.jsonl') } });
    assert.deepEqual(
      train(task).map(({ answer }) => answer),
      ['7', '1,500', '6', '14'],
    );
    assert.match(String(train(task)[0]?.meta?.answer), /#### 7$/);
    const folder = writeFiles(temporaryFolder(t), { 'x.jsonl': lines({ question: 'x', answer: 'seven' }) });
    await fails(
      createTask('gsm8k', { files: { train: join(folder, 'x.jsonl') } }),
      /x\.jsonl:1: "answer" has no "#### x"/,
    );
  });

  it('drop from training what is evaluated, whatever the spaces', async (t) => {
    const folder = writeFiles(temporaryFolder(t), {
      'train.jsonl': lines({ prompt: 'a  b', answer: '1' }, { prompt: 'c', answer: '2' }),
      'test.jsonl': lines({ prompt: 'a b\n', answer: '1' }),
    });
    const files = { train: join(folder, 'train.jsonl'), test: join(folder, 'test.jsonl') };
    const task = await datasetTask({ files, dropEvalPrompts: true });
    assert.deepEqual(
      train(task).map(({ prompt }) => prompt),
      ['c'],
    );
    assert.match(String(task.notes), /1 of 2 prompts are also asked in another split and are left out/);
    await fails(
      datasetTask({ files: { ...files, train: files.test }, dropEvalPrompts: true }),
      /no problems left for split 'train': every prompt is also asked in another split/,
    );
  });

  it('are known by name', async () => {
    await fails(createTask('mth' as never), /no task 'mth'; did you mean 'math'/, InvalidArgumentError);
    await fails(createTask('constructor' as never), /there is no task/, InvalidArgumentError);
  });

  it('of MATH: the whole set', needs('math', 'train_lvl3to5.jsonl.gz'), async () => {
    const task = await createTask('math', {
      files: {
        train: join(dataRoot, 'math', 'train_lvl3to5.jsonl.gz'),
        test: join(dataRoot, 'math', 'math500_test.jsonl'),
      },
      dropEvalPrompts: true,
    });
    assert.equal(task.splits.test?.length, 500);
    assert.ok(train(task).length > 8800);
    assert.ok(train(task).every(({ meta }) => (meta?.level as number) >= 3));
  });

  it('of GSM8K: the whole set', needs('gsm8k', 'train.jsonl.gz'), async () => {
    const task = await createTask('gsm8k', {
      files: { train: join(dataRoot, 'gsm8k', 'train.jsonl.gz'), test: join(dataRoot, 'gsm8k', 'test.jsonl') },
    });
    assert.deepEqual([train(task).length, task.splits.test?.length], [7473, 1319]);
    assert.ok(train(task).every(({ answer }) => /^-?[0-9][0-9,.]*$/.test(String(answer))));
  });
});

describe('verifiers', () => {
  const judge = async (task: Task, response: string, index: number) =>
    (await task.reward([{ problem: train(task)[index]!, response, tokens: [], finishReason: 'stop' }]))[0];

  it('gsm8k wants the last number after ####', async () => {
    const task = await createTask('gsm8k', { files: { train: fixture('gsm8k.jsonl') }, reward: 'gsm8k' });
    for (const right of [
      'so\n#### 1500',
      '#### $1,500.00',
      '#### 3\nno:\n#### 1500.',
      `${'long '.repeat(500)}#### 1500`,
    ]) {
      assert.equal(await judge(task, right, 1), 1, right);
    }
    for (const wrong of ['1500', '\\boxed{1500}', '#### 15,00', '#### 1500 or 7', '####', '#### -1500', '']) {
      assert.equal(await judge(task, wrong, 1), 0, wrong);
    }
  });

  it('math judges the worked solutions of every row', async () => {
    for (const name of ['math', 'gsm8k'] as const) {
      const task = await createTask(name, { files: { train: fixture(`${name}.jsonl`) } });
      for (const [i, { meta }] of train(task).entries()) {
        assert.equal(await judge(task, String(meta?.solution ?? meta?.answer), i), 1);
        assert.equal(await judge(task, 'The answer is $\\boxed{-77}$.', i), 0);
      }
    }
  });
});

test('a task of one’s own is checked', () => {
  const reward = () => [];
  const task = defineTask({
    name: 'own',
    splits: {
      train: [
        { prompt: 'a', answer: 1 },
        { id: 'b', prompt: [{ role: 'user', content: 'x' }], answer: 2 },
      ],
    },
    reward,
  });
  assert.deepEqual(
    task.splits.train?.map(({ id }) => id),
    ['train:1', 'b'],
  );
  const wrong = (definition: object, message: RegExp) =>
    assert.throws(
      () => defineTask(definition as never),
      (error) => error instanceof InvalidArgumentError && message.test(error.message),
    );
  wrong({ name: 'x', splits: { train: [{ prompt: 'a', answer: 1 }] } }, /task "x" has no reward/);
  wrong({ name: 'x', splits: {}, reward }, /has no splits/);
  wrong({ name: 'x', splits: { train: [{ prompt: '', answer: 1 }] }, reward }, /the prompt of train:1 must be/);
  wrong(
    { name: 'x', splits: { train: [{ id: 'a', prompt: 'a' }], test: [{ id: 'a', prompt: 'b' }] }, reward },
    /two problems have the id "a"/,
  );
  wrong(
    { name: 'x', splits: { train: [] }, rewards: [{ name: 'a b', fn: reward }] },
    /rewards\[0\]\.name must be letters/,
  );
});
