import assert from 'node:assert/strict';
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { AbortedError, BusyError, ConfigError, InvalidArgumentError, InvalidFileError } from '../lib/errors.js';
import { mathSet } from '../lib/eval/math-set.js';
import { openResponses } from '../lib/eval/response-file.js';
import { incomparable, readSettings, weightsFingerprint } from '../lib/eval/settings.js';
import { evaluateBenchmarks, readResult, type SuiteOptions } from '../lib/eval/suite.js';
import type { EvaluationProgress, EvaluationSet } from '../lib/eval/types.js';
import { temporaryFolder, writeFiles } from './support/files.js';
import { ScriptedPolicy } from './support/scripted-policy.js';

const boxed = (answer: string): string => `So it is \\boxed{${answer}}.`;

/** 3 of 8 right in both problems; the majority is right in the first by a tie, wrong in the second. */
const scripts = {
  first: {
    greedy: boxed('0.5'),
    samples: [...['0.5', '1/2', '3', '3', '3', '\\frac{1}{2}', '7'].map(boxed), 'I do not know...'],
  },
  second: {
    greedy: 'I think...',
    samples: ['8', '8', '7', '7', '7', '8.0', '9', '10'].map(boxed),
  },
};

const set = (name = 'two'): EvaluationSet =>
  mathSet(name, 'Two', [
    { id: `${name}/0`, prompt: 'first', answer: ['\\frac{1}{2}', 'one half'] },
    { id: `${name}/1`, prompt: 'second', answer: '7' },
  ]);

const evaluate = (scripted: ScriptedPolicy, options: Partial<SuiteOptions> = {}, sets = [set()]) =>
  evaluateBenchmarks(scripted.policy, scripted.tokenizer, sets, {
    maxNewTokens: 8,
    samples: 8,
    ks: [1, 4, 8],
    ...options,
  });

const near = (x: number | undefined, y: number): void =>
  assert.ok(Math.abs((x ?? Number.NaN) - y) < 1e-12, `${x} is not ${y}`);

interface Line {
  problem: string;
  phase: string;
  sample: number;
  verdict: string;
  answer: string | null;
  reason?: string;
  text: string;
  tokens: number;
  finishReason: string;
  logprob: number;
  entropy: number;
}

const linesOf = (path: string): Line[] =>
  readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Line);

describe('evaluateBenchmarks', () => {
  it('measures known answers at known rates exactly', async () => {
    const { sets } = await evaluate(new ScriptedPolicy(scripts));
    const two = sets.two;
    assert.ok(two);
    assert.equal(two.greedy?.value, 1 / 2);
    assert.equal(two.avgAtK?.value, 3 / 8);
    assert.equal(two.avgAtK?.standardError, 0, 'both problems have 3 of 8');
    assert.deepEqual(Object.keys(two.majAtK), ['4', '8']);
    assert.equal(two.majAtK[8]?.value, 1 / 2);
    // Blocks of four: tie won, first of three lost; tie lost, first of four won.
    assert.equal(two.majAtK[4]?.value, (1 / 2 + 1 / 2) / 2);
    near(two.passAtK[1]?.value, 3 / 8);
    near(two.passAtK[4]?.value, 1 - 5 / 70);
    near(two.passAtK[8]?.value, 1);
    assert.deepEqual([two.problems, two.samples, two.sampledProblems, two.solved], [2, 8, 2, 2]);
    assert.deepEqual(two.greedyResponses, {
      responses: 2,
      meanLength: 1.5,
      truncated: 0.5,
      noAnswer: 0.5,
      undecided: 0,
      missing: 0,
      meanEntropy: 0.25,
    });
    assert.equal(two.sampledResponses?.responses, 16);
    assert.equal(two.sampledResponses?.noAnswer, 1 / 16);
    assert.equal(two.sampledResponses?.truncated, 1 / 16);
    assert.equal(two.sampledResponses?.meanLength, 31 / 16);
  });

  it('gives the same for every batch size, splitting the samples of one problem too', async () => {
    const whole = await evaluate(new ScriptedPolicy(scripts));
    for (const batchSize of [1, 3, 8, 100]) {
      const scripted = new ScriptedPolicy(scripts);
      assert.deepEqual(await evaluate(scripted, { batchSize }), whole, `batch size ${batchSize}`);
      for (const { prompts, options } of scripted.calls) {
        assert.ok(prompts.length * (options.samplesPerPrompt ?? 1) <= batchSize);
      }
    }
    const scripted = new ScriptedPolicy(scripts);
    await evaluate(scripted, { batchSize: 3, greedy: false, topP: 0.9, seed: 4 });
    assert.deepEqual(
      scripted.calls.map(({ options: o }) => [o.promptIds, o.sampleOffset, o.samplesPerPrompt, o.seed, o.topP]),
      [0, 1].flatMap((problem) => [
        [[problem], 0, 3, 4, 0.9],
        [[problem], 3, 3, 4, 0.9],
        [[problem], 6, 2, 4, 0.9],
      ]),
    );
  });

  it('counts what could not be decided as wrong, and such an answer votes for itself alone', async (t) => {
    const out = temporaryFolder(t);
    const judged = set();
    const undecided: EvaluationSet = {
      ...judged,
      judge: async (inputs) =>
        (await judged.judge(inputs)).map((j) =>
          j.answer === '3' ? { ...j, verdict: 'undecided', reason: 'timeout: 5 s' } : j,
        ),
    };
    const events: EvaluationProgress[] = [];
    const { sets } = await evaluate(new ScriptedPolicy(scripts), { out, onProgress: (e) => events.push(e) }, [
      undecided,
    ]);
    assert.equal(sets.two?.sampledResponses?.undecided, 3);
    assert.equal(sets.two?.majAtK[8]?.value, 1 / 2);
    assert.equal(events.at(-1)?.undecided, 3);
    const lines = linesOf(join(out, 'two', 'responses.jsonl')).filter(({ verdict }) => verdict === 'undecided');
    assert.deepEqual(
      lines.map(({ reason }) => reason),
      Array(3).fill('timeout: 5 s'),
    );
  });

  it('names what is wrong before anything is generated', async () => {
    const scripted = new ScriptedPolicy(scripts);
    await assert.rejects(evaluate(scripted, {}, []), /sets is empty/);
    await assert.rejects(evaluate(scripted, {}, [set(), set()]), /two sets are named "two"/);
    await assert.rejects(evaluate(scripted, {}, [{ ...set(), name: '../up' }]), /letters, digits/);
    await assert.rejects(evaluate(scripted, { temperature: 0 }), /temperature must be a number above 0/);
    await assert.rejects(evaluate(scripted, { topP: 0 }), /topP must be in \(0, 1\]/);
    await assert.rejects(evaluate(scripted, { ks: [9] }), /pass@9 needs at least 9 samples/);
    await assert.rejects(evaluate(scripted, { maxNewTokens: 64 }), (error) => {
      assert.ok(error instanceof InvalidArgumentError);
      assert.match(error.message, /problem two\/0 has 1 tokens.*context of 64.*use at most 63 new tokens/);
      return true;
    });
    assert.equal(scripted.calls.length, 0);
  });

  it('is an error when a judge forgets a response', async () => {
    const lazy = { ...set(), judge: async () => [] };
    await assert.rejects(evaluate(new ScriptedPolicy(scripts), {}, [lazy]), /returned 0 judgements for 2 responses/);
  });
});

describe('an evaluation folder', () => {
  it('keeps every response with its answer and verdict', async (t) => {
    const out = join(temporaryFolder(t), 'mine');
    const result = await evaluate(new ScriptedPolicy(scripts), { out, name: 'mine', model: 'org/mine' });
    const lines = linesOf(join(out, 'two', 'responses.jsonl'));
    assert.equal(lines.length, 2 + 16);
    const { tokens, finishReason, ...last } = lines[9] as Line;
    assert.deepEqual(last, {
      problem: 'two/0',
      phase: 'sample',
      sample: 7,
      verdict: 'no-answer',
      answer: null,
      logprob: -0.5,
      entropy: 0.25,
      text: 'I do not know...',
    });
    assert.deepEqual([tokens, finishReason], [1, 'length']);
    assert.deepEqual(
      lines.slice(0, 3).map(({ phase, problem, verdict, answer }) => [phase, problem, verdict, answer]),
      [
        ['greedy', 'two/0', 'correct', '0.5'],
        ['greedy', 'two/1', 'no-answer', null],
        ['sample', 'two/0', 'correct', '0.5'],
      ],
    );
    assert.deepEqual(readResult(out), JSON.parse(JSON.stringify(result)));
    assert.equal(result.model, 'org/mine');
    const summary = JSON.parse(readFileSync(join(out, 'two', 'summary.json'), 'utf8'));
    assert.deepEqual(
      summary.rows.map((row: { id: string; correct: number }) => [row.id, row.correct]),
      [
        ['two/0', 3],
        ['two/1', 3],
      ],
    );
    assert.ok(!existsSync(join(out, '.lock')));
  });

  it('goes on where it was stopped, wherever that was', async (t) => {
    const folder = temporaryFolder(t);
    const whole = join(folder, 'whole');
    const expected = await evaluate(new ScriptedPolicy(scripts), { out: whole });
    const text = readFileSync(join(whole, 'two', 'responses.jsonl'), 'utf8');
    // After every line, and in the middle of the next one.
    const ends = [...text.matchAll(/\n/g)].map(({ index }) => index + 1);
    for (const [i, end] of ends.entries()) {
      const out = join(folder, `stopped-${i}`);
      mkdirSync(join(out, 'two'), { recursive: true });
      writeFileSync(join(out, 'settings.json'), readFileSync(join(whole, 'settings.json')));
      writeFileSync(join(out, 'two', 'responses.jsonl'), text.slice(0, i === ends.length - 1 ? end : end + 20));
      const scripted = new ScriptedPolicy(scripts);
      assert.deepEqual(await evaluate(scripted, { out, batchSize: 4 }), expected);
      const generated = scripted.calls.reduce(
        (sum, c) => sum + c.prompts.length * (c.options.samplesPerPrompt ?? 1),
        0,
      );
      assert.equal(generated, 18 - (i + 1), 'only what was missing');
      const key = (line: Line): string => `${line.phase} ${line.problem} ${line.sample}`;
      const sorted = (path: string) =>
        linesOf(join(path, 'two', 'responses.jsonl')).sort((x, y) => (key(x) < key(y) ? -1 : 1));
      assert.deepEqual(sorted(out), sorted(whole));
    }
  });

  it('stops between batches when it is aborted, and keeps what it has', async (t) => {
    const out = temporaryFolder(t);
    const abort = new AbortController();
    const onProgress = ({ responses }: EvaluationProgress): void => {
      if (responses > 0) abort.abort();
    };
    const stopped = evaluate(new ScriptedPolicy(scripts), { out, batchSize: 1, signal: abort.signal, onProgress });
    await assert.rejects(stopped, AbortedError);
    assert.equal(linesOf(join(out, 'two', 'responses.jsonl')).length, 1);
    assert.deepEqual((await evaluate(new ScriptedPolicy(scripts), { out })).sets.two?.avgAtK?.value, 3 / 8);
  });

  it('takes more samples, other k and further sets without generating anything twice', async (t) => {
    const out = temporaryFolder(t);
    await evaluate(new ScriptedPolicy(scripts), { out, samples: 2, ks: [1], maxProblems: 1 });
    const scripted = new ScriptedPolicy(scripts);
    const grown = await evaluate(scripted, { out, batchSize: 100 }, [set(), set('other')]);
    assert.deepEqual(grown, await evaluate(new ScriptedPolicy(scripts), {}, [set(), set('other')]));
    assert.deepEqual(
      scripted.calls
        .slice(0, 3)
        .map(({ prompts, options: o }) => [prompts.length, o.temperature, o.sampleOffset, o.samplesPerPrompt]),
      [
        [1, 0, 0, 1],
        [1, 1, 2, 6],
        [1, 1, 0, 8],
      ],
    );
    // Fewer again: what is there is enough, and the other set stays in the file.
    const again = new ScriptedPolicy(scripts);
    const { sets } = await evaluate(again, { out, samples: 2, ks: [1] });
    assert.equal(again.calls.length, 0);
    assert.equal(sets.two?.avgAtK?.value, (2 / 2 + 0) / 2);
    assert.deepEqual(Object.keys(readResult(out).sets), ['two', 'other']);
  });

  it('refuses other settings, naming every one of them', async (t) => {
    const out = temporaryFolder(t);
    await evaluate(new ScriptedPolicy(scripts), { out });
    const other: EvaluationSet = { ...set(), problems: set().problems.map((p) => ({ ...p, answer: '8' })) };
    const changed = { out, temperature: 0.5, seed: 1, maxNewTokens: 9, weights: 'others', stopTokens: [1, 3] };
    const scripted = new ScriptedPolicy(scripts);
    await assert.rejects(evaluate(scripted, changed, [other]), (error) => {
      assert.ok(error instanceof ConfigError);
      for (const line of [
        'weights: "scripted" there, "others" now',
        'temperature: 1 there, 0.5 now',
        'seed: 0 there, 1 now',
        'maxNewTokens: 8 there, 9 now',
        'stopTokens: [1] there, [1,3] now',
        'two: other problems, prompts or gold answers than there',
      ]) {
        assert.ok(error.message.includes(line), line);
      }
      assert.ok(!error.message.includes('topP'));
      return true;
    });
    assert.equal(scripted.calls.length, 0);
  });

  it('says where the rows of a table were not measured alike', async (t) => {
    const folder = temporaryFolder(t);
    const models = [
      ['a', {}, set()],
      ['b', { seed: 3, stopTokens: [1, 2] }, set()],
      ['c', { maxNewTokens: 9 }, { ...set(), problems: set().problems.slice(0, 1) }],
    ] as const;
    for (const [name, options, on] of models) {
      await evaluate(new ScriptedPolicy(scripts), { out: join(folder, name), ...options }, [on]);
    }
    const read = (...names: string[]) =>
      incomparable(names.map((name) => ({ name, settings: readSettings(join(folder, name, 'settings.json')) })));
    assert.deepEqual(read('a', 'b'), []);
    assert.deepEqual(read('a', 'b', 'c'), [
      'maxNewTokens differs: 8 (a, b), 9 (c)',
      'two: not asked with the same problems, prompts and gold answers: a, b | c',
    ]);
    writeFileSync(join(folder, 'settings.json'), '{"weights": 1}');
    assert.throws(() => readSettings(join(folder, 'settings.json')), InvalidFileError);
  });

  it('tells models apart by their weights, wherever these differ, and by their chat template', (t) => {
    const folder = temporaryFolder(t);
    const weights = Buffer.alloc(10_000_000, 7);
    writeFiles(folder, { 'config.json': '{}', 'tokenizer.json': '{}', 'model.safetensors': weights });
    const seen = new Set([weightsFingerprint(folder)]);
    assert.ok(seen.has(weightsFingerprint(folder)));
    for (const at of [0, 5_000_000, 9_999_999]) {
      const changed = Buffer.from(weights);
      // Training changes numbers everywhere; a change of 200 KB cannot fall between the blocks.
      changed.fill(8, Math.max(0, at - 100_000), Math.min(weights.length, at + 100_000));
      seen.add(weightsFingerprint(writeFiles(folder, { 'model.safetensors': changed })));
    }
    seen.add(weightsFingerprint(writeFiles(folder, { 'chat_template.jinja': 'x' })));
    assert.equal(seen.size, 5);
  });

  it('is used by one process at a time', async (t) => {
    const out = temporaryFolder(t);
    let second: Promise<unknown> | undefined;
    const waiting: EvaluationSet = {
      ...set(),
      judge: async (inputs) => {
        second ??= evaluate(new ScriptedPolicy(scripts), { out });
        await assert.rejects(second, BusyError);
        return set().judge(inputs);
      },
    };
    await evaluate(new ScriptedPolicy(scripts), { out }, [waiting]);
    assert.ok(second !== undefined);
  });

  it('names the line of a file of responses that is none', (t) => {
    const path = join(temporaryFolder(t), 'responses.jsonl');
    const line = {
      problem: 'a',
      phase: 'greedy',
      sample: 0,
      verdict: 'wrong',
      answer: null,
      tokens: 1,
      finishReason: 'stop',
      logprob: 0,
      entropy: 0,
      text: 'x',
    };
    writeFileSync(path, `${JSON.stringify(line)}\n${JSON.stringify({ ...line, text: 'again' })}\n`);
    assert.equal(openResponses(path).records.length, 1, 'of two the first counts');
    for (const bad of ['{"problem": 1}', 'null', '[]', JSON.stringify({ ...line, verdict: 'right' }), '{']) {
      writeFileSync(path, `${JSON.stringify(line)}\n${bad}\n`);
      assert.throws(
        () => openResponses(path),
        (error) => error instanceof InvalidFileError && error.message.includes(`${path}:2`),
      );
    }
    // A line of several chunks, with characters on their borders.
    const long = { ...line, problem: 'b', text: 'ä€😀'.repeat(400_000) };
    writeFileSync(path, `${JSON.stringify(line)}\n${JSON.stringify(long)}\n`);
    appendFileSync(path, '{"problem": "c');
    const store = openResponses(path);
    assert.deepEqual(
      store.records.map(({ problem }) => problem),
      ['a', 'b'],
    );
    assert.equal(linesOf(path).length, 2, 'the unfinished line is gone');
    assert.equal(linesOf(path)[1]?.text, long.text);
  });

  it('says what a folder of results lacks', (t) => {
    const folder = temporaryFolder(t);
    assert.throws(() => readResult(folder), /has no results.json; expected a folder that `eepo eval` has written/);
    for (const bad of ['{', 'null', '{"name": "x"}', '{"name": "x", "sets": {"a": {"title": 3}}}']) {
      writeFileSync(join(folder, 'results.json'), bad);
      assert.throws(() => readResult(folder), InvalidFileError, bad);
    }
  });
});
