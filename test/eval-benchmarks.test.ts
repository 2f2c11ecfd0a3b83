import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { InvalidFileError } from '../lib/errors.js';
import { type BenchmarkOptions, loadBenchmarks, loadDataSet } from '../lib/eval/benchmark-data.js';
import { BENCHMARKS, benchmarkOf } from '../lib/eval/benchmarks.js';
import type { EvaluationSet } from '../lib/eval/types.js';
import type { ChatMessage } from '../lib/tasks/types.js';
import { dataRoot, needs, ROOT } from './support/data.js';
import { FakeHub } from './support/fake-hub.js';
import { temporaryFolder, writeFiles } from './support/files.js';

const fixture = join(ROOT, 'test', 'fixtures', 'eval', 'benchmarks.jsonl');
/** Nothing of a test may ask the hub. */
const offline = (folder: string): BenchmarkOptions => ({
  hub: { offline: true, cacheDir: folder, token: false, env: {} },
});

const judge = async (set: EvaluationSet, index: number, ...responses: string[]) => {
  const problem = set.problems[index];
  assert.ok(problem);
  const inputs = responses.map((response) => ({ problem, response, tokens: [], finishReason: 'stop' as const }));
  return (await set.judge(inputs)).map(({ verdict }) => verdict);
};

describe('the registry', () => {
  it("has the paper's benchmarks with its titles and their sizes", () => {
    const sizes = Object.fromEntries(BENCHMARKS.map(({ name, problems }) => [name, problems]));
    assert.deepEqual(sizes, {
      minerva_math: 272,
      olympiadbench: 675,
      amc23: 40,
      aime24: 30,
      aime25: 30,
      math500: 500,
      gsm8k: 1319,
    });
    const titles = BENCHMARKS.slice(0, 5).map(({ title }) => title);
    assert.deepEqual(titles, ['Minerva Math', 'Olympiad Bench', 'AMC 23', 'AIME 24', 'AIME 25']);
  });

  it('knows the nearest name', () => {
    assert.throws(
      () => benchmarkOf('aime2024'),
      /no benchmark 'aime2024'; did you mean 'aime24'\? Known: minerva_math, /,
    );
  });
});

describe('loading benchmarks', () => {
  it('takes those that are asked for from a file of several, in the order of the names', async (t) => {
    const sets = await loadBenchmarks(['amc23', 'aime24'], { data: [fixture], ...offline(temporaryFolder(t)) });
    assert.deepEqual(
      sets.map(({ name, title, problems }) => [name, title, problems.map(({ id }) => id)]),
      [
        ['amc23', 'AMC 23', ['amc23/0']],
        ['aime24', 'AIME 24', ['aime24/0', 'aime24/1']],
      ],
    );
    assert.deepEqual(sets[1]?.notes, ['aime24: 2 problems; the benchmark has 30']);
    const prompt = sets[1]?.problems[0]?.prompt as ChatMessage[];
    assert.deepEqual(prompt, [
      { role: 'system', content: 'You are a helpful assistant.' },
      {
        role: 'user',
        content: 'What is $1 + 1$?\nPlease reason step by step, and put your final answer within \\boxed{}.',
      },
    ]);
    const [amc, aime] = sets;
    assert.ok(amc && aime);
    assert.deepEqual(await judge(amc, 0, '\\boxed{-3}', '\\boxed{3}', '\\boxed{4}', ''), [
      'correct',
      'correct',
      'wrong',
      'no-answer',
    ]);
    assert.deepEqual(await judge(aime, 1, '\\boxed{0.75}', 'The answer is 3/4.', '\\boxed{\\frac{3}{5}}'), [
      'correct',
      'correct',
      'wrong',
    ]);
  });

  it('asks as it is told', async () => {
    const data = [fixture];
    const prompts = async (options: BenchmarkOptions) =>
      (await loadBenchmarks(['aime24'], { data, ...options }))[0]?.problems[0]?.prompt;
    assert.equal(await prompts({ promptStyle: 'plain', template: 'Q: {prompt} A:' }), 'Q: What is $1 + 1$? A:');
    assert.deepEqual(await prompts({ promptStyle: 'chat', system: 'Be brief.' }), [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'What is $1 + 1$?' },
    ]);
  });

  it('reads folders, named files and the columns of published sets', async (t) => {
    const folder = writeFiles(temporaryFolder(t), {
      'aime24/test.jsonl': '{"question": "Q?", "solution": "It is \\\\boxed{\\\\frac{1}{2}}."}\n',
      'olympiadbench.jsonl.gz': gzipSync(
        '{"id": 7, "context": "Let n = 2.", "question": "n?", "final_answer": ["$2$"], "solution": ["x"]}\n',
      ),
      'other.jsonl': '{"question": "How many?", "answer": "1 + 1 = 2 so\\n#### 1,234"}\n',
      'readme.md': 'nothing',
    });
    const names = ['aime24', 'olympiadbench', 'gsm8k'];
    const data = [folder, `gsm8k=${join(folder, 'other.jsonl')}`];
    const sets = await loadBenchmarks(names, { data, promptStyle: 'plain', ...offline(folder) });
    assert.deepEqual(
      sets.map(({ problems }) => problems.map(({ id, prompt }) => [id, prompt])),
      [[['aime24/0', 'Q?']], [['olympiadbench/7', 'Let n = 2.\nn?']], [['gsm8k/0', 'How many?']]],
    );
    const right = ['0.5', '2', '1234'];
    for (const [i, set] of sets.entries()) {
      assert.deepEqual(await judge(set, 0, `\\boxed{${right[i]}}`, '\\boxed{99}'), ['correct', 'wrong'], set.name);
    }
  });

  it("compares numbers within the benchmark's tolerance, its own for a row, or the one that is given", async (t) => {
    const folder = writeFiles(temporaryFolder(t), {
      'minerva_math.jsonl': '{"problem": "p", "answers": ["4.5e33"]}\n',
      'olympiadbench.jsonl':
        '{"problem": "p", "answers": ["4.2"], "tolerance": "1e-1"}\n{"problem": "q", "answers": ["4.2"], "tolerance": null}\n',
    });
    const load = (options: BenchmarkOptions = {}) =>
      loadBenchmarks(['minerva_math', 'olympiadbench'], { data: [folder], ...options, ...offline(folder) });
    const [minerva, olympiad] = await load();
    assert.ok(minerva && olympiad);
    assert.deepEqual(await judge(minerva, 0, '\\boxed{4.53e33}', '\\boxed{4.6e33}'), ['correct', 'wrong']);
    assert.deepEqual(
      await minerva.sameAnswer?.([
        ['9.6', '9.65'],
        ['9.6', '9.8'],
      ]),
      [true, false],
    );
    assert.deepEqual(await judge(olympiad, 0, '\\boxed{4.29}', '\\boxed{4.31}'), ['correct', 'wrong']);
    assert.deepEqual(await judge(olympiad, 1, '\\boxed{4.20}', '\\boxed{4.21}'), ['correct', 'wrong']);
    const [exact] = await load({ tolerance: 1e-4 });
    assert.ok(exact);
    assert.deepEqual(await judge(exact, 0, '\\boxed{4.53e33}', '\\boxed{4.5001e33}'), ['wrong', 'correct']);
  });

  it('downloads what is not here, once, and reads only the files of the split', async (t) => {
    const row = '{"problem": "What is 2 + 2?", "answer": "4"}\n';
    const files = { 'README.md': 'about', 'train.jsonl': row.repeat(3), 'test.jsonl': row };
    const hub = await FakeHub.start(t, { 'datasets/math-ai/aime25': { files } });
    const options = { hub: { endpoint: hub.endpoint, cacheDir: temporaryFolder(t), token: false as const, env: {} } };
    const [first] = await loadBenchmarks(['aime25'], options);
    assert.ok(first);
    assert.deepEqual(
      first.problems.map(({ answer }) => answer),
      ['4'],
    );
    assert.deepEqual(await judge(first, 0, '\\boxed{4}'), ['correct']);
    const downloads = hub.of('resolve').length;
    assert.ok(downloads >= 1);
    // What is downloaded does without the hub.
    hub.stop();
    const [again] = await loadBenchmarks(['aime25'], { hub: { ...options.hub, offline: true } });
    assert.deepEqual(again?.problems, first.problems);
    assert.equal(
      (await loadDataSet('hf://datasets/math-ai/aime25/test.jsonl', { hub: { ...options.hub, offline: true } })).name,
      'test',
    );
  });

  it('says what to download and where to put it when the problems are not here', async (t) => {
    const options = { data: [fixture], ...offline(temporaryFolder(t)) };
    await assert.rejects(loadBenchmarks(['aime24', 'aime25'], options), (error) => {
      assert.ok(error instanceof InvalidFileError);
      assert.match(error.message, /the problems of aime25 \(statements: Mathematical Association of America/);
      assert.match(error.message, /Download the data set math-ai\/aime25 from the hub/);
      assert.match(
        error.message,
        /aime25=FILE, or a folder with aime25.jsonl or aime25\/test.jsonl, with --benchmark-data/,
      );
      return true;
    });
  });

  it('names file and line of what is wrong', async (t) => {
    const folder = writeFiles(temporaryFolder(t), {
      'nobench.jsonl': '{"problem": "p", "answer": "1"}\n',
      'noproblem.jsonl':
        '{"bench": "aime24", "problem": "p", "answers": ["1"]}\n{"bench": "aime24", "answers": ["1"]}\n',
      'noanswer.jsonl': '{"bench": "aime24", "problem": "p", "text": "1"}\n',
      'object.jsonl': '{"bench": "aime24", "problem": "p", "answer": {"x": 1}}\n',
      'unboxed.jsonl': '{"bench": "aime24", "problem": "p", "solution": "it is 1"}\n',
      'broken.jsonl': '{"bench": \n',
    });
    const load = (name: string) =>
      loadBenchmarks(['aime24'], { data: [join(folder, name)], ...offline(folder) }).then(
        () => '',
        (error) => {
          assert.ok(error instanceof InvalidFileError, `${error}`);
          return error.message;
        },
      );
    assert.match(await load('nobench.jsonl'), /nobench.jsonl:1: no column "bench".*<benchmark>=FILE/);
    assert.match(
      await load('noproblem.jsonl'),
      /noproblem.jsonl:2: none of the columns "problem", .*the row has bench, answers/,
    );
    assert.match(await load('noanswer.jsonl'), /noanswer.jsonl:1: none of the columns "answers"/);
    assert.match(await load('object.jsonl'), /object.jsonl:1: "answer" must be a text, a number or a list/);
    assert.match(await load('unboxed.jsonl'), /unboxed.jsonl:1: "solution" has no \\boxed/);
    assert.match(await load('broken.jsonl'), /broken.jsonl:1/);
    assert.match(await load('.'), /holds no benchmark: expected <name>.jsonl/);
    await assert.rejects(loadBenchmarks(['aime24'], { data: [fixture], tolerance: 2 }), /tolerance must be at least 0/);
  });
});

describe("problems of one's own", () => {
  it('are a set named after their file, or as asked', async (t) => {
    const rows = '{"prompt": [{"role": "user", "content": "hi"}], "reward_model": {"ground_truth": "4"}}\n';
    const folder = writeFiles(temporaryFolder(t), {
      'my set.jsonl': `${rows}{"prompt": "p", "answer": ""}\n`,
      'empty.jsonl': '',
    });
    const set = await loadDataSet(join(folder, 'my set.jsonl'));
    assert.deepEqual([set.name, set.title, set.problems.length], ['my_set', 'my set', 1]);
    assert.deepEqual(set.problems[0]?.prompt, [{ role: 'user', content: 'hi' }], 'a chat is taken as it is');
    assert.deepEqual(set.notes, ['my_set: 1 of 2 rows have an empty answer and are left out']);
    assert.equal((await loadDataSet(`mine=${join(folder, 'my set.jsonl')}`)).name, 'mine');
    await assert.rejects(loadDataSet(join(folder, 'empty.jsonl')), /no rows/);
    await assert.rejects(loadDataSet(join(folder, 'absent.jsonl')), /absent.jsonl/);
  });
});

describe('the reference data', () => {
  it(
    'has every benchmark with its number of problems, and every gold answer is its own',
    needs('benchmarks'),
    async () => {
      const data = [join(dataRoot, 'benchmarks', 'benchmarks.jsonl'), `gsm8k=${join(dataRoot, 'gsm8k', 'test.jsonl')}`];
      const sets = await loadBenchmarks(
        BENCHMARKS.map(({ name }) => name),
        { data },
      );
      assert.deepEqual(
        sets.flatMap(({ notes }) => notes),
        [],
      );
      for (const set of sets) {
        const inputs = set.problems.map((problem) => {
          const [gold] = [problem.answer].flat() as string[];
          // What follows "####" or stands in the gold text, in a box.
          const answer = String(gold).split('####').at(-1)?.trim() ?? '';
          return { problem, response: `\\boxed{${answer}}`, tokens: [], finishReason: 'stop' as const };
        });
        const wrong = (await set.judge(inputs)).flatMap(({ verdict }, i) =>
          verdict === 'correct' ? [] : [inputs[i]?.response],
        );
        assert.ok(
          wrong.length <= 0.01 * inputs.length,
          `${set.name}: ${wrong.length} of ${inputs.length}: ${wrong.join('  ')}`,
        );
      }
    },
  );
});
