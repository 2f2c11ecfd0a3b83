import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { InvalidArgumentError, InvalidFileError } from '../lib/errors.js';
import { createTask, type DatasetOptions, jsonlTask } from '../lib/tasks/index.js';
import type { Task } from '../lib/tasks/types.js';
import { dataRoot, needs } from './support/data.js';
import { temporaryFolder, writeFiles } from './support/files.js';

const wordTokenizer = {
  encodePrompt: (prompt: unknown) =>
    String(prompt)
      .split(' ')
      .map((_, i) => i),
};

const lines = (...rows: unknown[]) => `${rows.map((row) => JSON.stringify(row)).join('\n')}\n`;

const judge = async (task: Task, response: string, index = 0, split = 'train') => {
  const problem = task.splits[split]?.[index];
  assert.ok(problem);
  return (await task.reward([{ problem, response, tokens: [], finishReason: 'stop' }]))[0];
};

test('prompts, answers and everything else of a row', async (t) => {
  const folder = writeFiles(temporaryFolder(t), {
    'train.jsonl': lines({ problem: '1+1?', answer: '2', level: 3 }, { problem: 'a $& b', answer: 7 }),
    'test.jsonl.gz': gzipSync(lines({ problem: 'x', answer: '1' })),
  });
  const task = await createTask('jsonl', {
    files: { train: join(folder, 'train.jsonl'), test: join(folder, 'test.jsonl.gz') },
    template: 'Q: {prompt}\nA:',
  });
  assert.deepEqual(task.splits.train, [
    { id: 'train:1', prompt: 'Q: 1+1?\nA:', answer: '2', meta: { level: 3 } },
    { id: 'train:2', prompt: 'Q: a $& b\nA:', answer: 7, meta: {} },
  ]);
  assert.equal(task.splits.test?.length, 1);
  assert.deepEqual(task.notes, []);
});

test('columns can be named; chats are taken as they are; blank lines, BOM and U+2028 are no trouble', async (t) => {
  const chat = [{ role: 'user', content: 'hi' }];
  const folder = writeFiles(temporaryFolder(t), {
    'x.jsonl': `\uFEFF${lines({ q: 'one\u2028two', a: 'x' })}\n   \r\n${lines({ q: chat, a: ['y', 'z'] })}`,
  });
  const task = await jsonlTask({
    files: { train: join(folder, 'x.jsonl') },
    promptColumn: 'q',
    answerColumn: 'a',
    name: 'mine',
  });
  assert.equal(task.name, 'mine');
  assert.deepEqual(
    task.splits.train?.map(({ id, prompt }) => [id, prompt]),
    [
      ['train:1', 'one\u2028two'],
      ['train:4', chat],
    ],
  );
});

test('overlong prompts are left out and counted', async (t) => {
  const folder = writeFiles(temporaryFolder(t), {
    'x.jsonl': lines({ prompt: 'a b c', answer: '1' }, { prompt: 'a', answer: '2' }, { prompt: 'a b', answer: '3' }),
  });
  const files = { train: join(folder, 'x.jsonl') };
  const task = await jsonlTask({ files, maxPromptTokens: 2, tokenizer: wordTokenizer });
  assert.deepEqual(
    task.splits.train?.map(({ id }) => id),
    ['train:2', 'train:3'],
  );
  assert.deepEqual(task.notes, [`${files.train}: 1 of 3 prompts are longer than 2 tokens`]);
  await assert.rejects(
    jsonlTask({ files, maxPromptTokens: 2, tokenizer: { encodePrompt: () => [1, 2, 3] } }),
    /no problems left for split 'train': every prompt is longer than 2 tokens/,
  );
  await assert.rejects(jsonlTask({ files, maxPromptTokens: 2 }), /maxPromptTokens needs a tokenizer/);
});

test('rows without an answer are left out and counted', async (t) => {
  const folder = writeFiles(temporaryFolder(t), {
    'x.jsonl': lines({ prompt: 'a', answer: ' ' }, { prompt: 'b', answer: '2' }, { prompt: 'c', answers: [''] }),
  });
  const files = { train: join(folder, 'x.jsonl') };
  const task = await jsonlTask({ files });
  assert.deepEqual(
    task.splits.train?.map(({ id }) => id),
    ['train:2'],
  );
  assert.deepEqual(task.notes, [`${files.train}: 2 of 3 rows have an empty answer and are left out`]);
});

test('shuffling follows the seed and keeps every row', async (t) => {
  const rows = Array.from({ length: 30 }, (_, i) => ({ prompt: `p${i}`, answer: String(i) }));
  const files = { train: join(writeFiles(temporaryFolder(t), { 'x.jsonl': lines(...rows) }), 'x.jsonl') };
  const order = async (options: Partial<DatasetOptions>) =>
    (await jsonlTask({ files, ...options })).splits.train?.map((p) => p.answer);
  const plain = rows.map(({ answer }) => answer);
  assert.deepEqual(await order({}), plain);
  const shuffled = await order({ shuffleSeed: 1 });
  assert.notDeepEqual(shuffled, plain);
  assert.deepEqual(await order({ shuffleSeed: 1 }), shuffled);
  assert.notDeepEqual(await order({ shuffleSeed: 2 }), shuffled);
  assert.deepEqual(shuffled?.toSorted(), plain.toSorted());
  assert.deepEqual(await order({ maxProblems: 2 }), ['0', '1']);
});

test('rewards: math, exact, one of several answers, worked solutions, a function', async (t) => {
  const folder = writeFiles(temporaryFolder(t), {
    'x.jsonl': lines(
      { prompt: 'a', answer: '\\frac{1}{2}' },
      { prompt: 'b', answer: 'We add. #### 1,072' },
      { prompt: 'c', answers: ['3', '4'] },
      { prompt: 'd', answer: 'so $\\boxed{x^2}$' },
      { prompt: 'e', answer: 12 },
    ),
  });
  const files = { train: join(folder, 'x.jsonl') };
  const math = await jsonlTask({ files });
  assert.equal(await judge(math, 'thus \\boxed{0.5}', 0), 1);
  assert.equal(await judge(math, 'thus \\boxed{0.6}', 0), 0);
  assert.equal(await judge(math, 'nothing here', 0), 0);
  assert.equal(await judge(math, '#### 1072', 1), 1);
  assert.equal(await judge(math, 'The answer is 4.', 2), 1);
  assert.equal(await judge(math, 'The answer is 5.', 2), 0);
  assert.equal(await judge(math, '\\boxed{x^2}', 3), 1);
  assert.equal(await judge(math, 'it makes 12', 4), 1);
  const exact = await jsonlTask({ files, reward: 'exact' });
  assert.equal(await judge(exact, ' \\frac{1}{2}\n', 0), 1);
  assert.equal(await judge(exact, '\\boxed{\\frac{1}{2}}', 0), 0);
  const own = await jsonlTask({ files, reward: (inputs) => inputs.map(({ response }) => response.length) });
  assert.equal(await judge(own, 'abc'), 3);
});

test('a bad file or row is one error with file and line', async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'x.jsonl');
  const fails = async (content: string, message: RegExp, options: Partial<DatasetOptions> = {}) => {
    writeFiles(folder, { 'x.jsonl': content });
    await assert.rejects(
      jsonlTask({ files: { train: path }, ...options }),
      (error) => error instanceof InvalidFileError && error.message.startsWith(path) && message.test(error.message),
      `${message}`,
    );
  };
  const good = lines({ prompt: 'a', answer: '1' });
  await fails(`${good}{"prompt": "a"`, /x\.jsonl:2: not valid JSON/);
  await fails(`${good}[1]\n`, /x\.jsonl:2: every line must be a JSON object/);
  await fails(
    `${good}${lines({ text: 'a', answer: '1' })}`,
    /:2: no column "prompt" or "problem" or "question"; the row has text, answer\. Name the column with promptColumn/,
  );
  await fails(lines({ prompt: 'a' }), /:1: no column "answer" or "answers"/);
  await fails(good, /:1: no column "gold"/, { answerColumn: 'gold' });
  await fails(lines({ prompt: '', answer: '1' }), /:1: "prompt" must be a non-empty string/);
  await fails(lines({ prompt: [{ role: 'robot', content: 'a' }], answer: '1' }), /:1: "prompt" must be/);
  await fails(lines({ prompt: 'a', answer: null }), /:1: "answer" must be a string, a number/);
  await fails(lines({ prompt: 'a', answer: [] }), /:1: "answer" must be/);
  await fails('\n\n', /no problems left for split 'train': it has no rows with an answer/);
  await assert.rejects(
    jsonlTask({ files: { train: join(folder, 'none.jsonl') } }),
    /none\.jsonl: cannot be read: no such file/,
  );
  writeFiles(folder, { 'broken.jsonl.gz': 'not gzip' });
  await assert.rejects(
    jsonlTask({ files: { train: join(folder, 'broken.jsonl.gz') } }),
    /broken\.jsonl\.gz: cannot be read/,
  );
});

test('bad options are named', async () => {
  const files = { train: 'x.jsonl' };
  const fails = (options: DatasetOptions, message: RegExp) =>
    assert.rejects(jsonlTask(options), (error) => error instanceof InvalidArgumentError && message.test(error.message));
  await fails({ files: {} }, /files must name at least one file for every split/);
  await fails({} as DatasetOptions, /files must name/);
  await fails({ files, template: 'Q:' }, /template must contain \{prompt\}/);
  await fails({ files, maxPromptTokens: 0, tokenizer: wordTokenizer }, /maxPromptTokens must be a positive integer/);
  await fails({ files, maxProblems: 0 }, /maxProblems must be/);
  await fails({ files, reward: 'fuzzy' as never }, /reward must be 'math', 'gsm8k', 'exact' or a function/);
});

const MATH = ['math', 'train_lvl3to5.jsonl.gz'] as const;
const GSM8K = ['gsm8k', 'test.jsonl'] as const;

test('MATH: every row loads, and every worked solution earns its reward', needs(...MATH), async () => {
  const path = join(dataRoot, ...MATH);
  const task = await jsonlTask({ files: { train: path } });
  const problems = task.splits.train ?? [];
  assert.equal(problems.length, 8886);
  assert.deepEqual(task.notes, [`${path}: 2 of 8888 rows have an empty answer and are left out`]);
  const inputs = problems.map((problem) => ({
    problem,
    response: problem.meta?.solution as string,
    tokens: [],
    finishReason: 'stop' as const,
  }));
  const rewards = await task.reward(inputs);
  const right = rewards.filter((reward) => reward === 1).length;
  assert.ok(right >= 0.99 * problems.length, `${right} of ${problems.length}`);
  // The solution of another problem rarely does.
  const shifted = await task.reward(
    inputs.map((input, i) => ({ ...input, problem: problems[(i + 1) % problems.length]! })),
  );
  assert.ok(shifted.filter((reward) => reward === 1).length < 0.05 * problems.length);
});

test('GSM8K: every worked solution earns its reward', needs(...GSM8K), async () => {
  const task = await jsonlTask({ files: { test: join(dataRoot, ...GSM8K) } });
  const problems = task.splits.test ?? [];
  assert.equal(problems.length, 1319);
  const rewards = await task.reward(
    problems.map((problem) => ({ problem, response: problem.answer as string, tokens: [], finishReason: 'stop' })),
  );
  assert.ok(rewards.every((reward) => reward === 1));
});
