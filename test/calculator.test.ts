import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type CalculatorAnswer, calculator } from '../lib/tasks/calculator.js';
import {
  CALCULATOR_VOCABULARY,
  calculatorPrompt,
  calculatorResponse,
  chainValues,
  drawCalculation,
  finalAnswer,
  runningResidues,
} from '../lib/tasks/calculator-text.js';
import { createTask, isEmbedded, TASK_NAMES } from '../lib/tasks/index.js';
import { Random } from '../lib/tasks/random.js';
import type { Demonstration, Problem } from '../lib/tasks/types.js';
import { Tokenizer } from '../lib/tokenizer.js';
import { ROOT } from './support/data.js';

/** The running values of a prompt, with exact integers and from its text alone. */
function valuesOf(prompt: string): number[] {
  const words = prompt.split(' ').filter((word) => !['_', '=', '?'].includes(word));
  let value = BigInt(words[0] as string);
  const values: number[] = [];
  for (let i = 1; i < words.length; i += 2) {
    const operand = BigInt(words[i + 1] as string);
    value = words[i] === '+' ? value + operand : words[i] === '-' ? value - operand : value * operand;
    values.push(Number(((value % 23n) + 23n) % 23n));
  }
  return values;
}

const problems = (split: string): readonly Problem[] => calculator().splits[split] as readonly Problem[];
const judge = async (problem: Problem, response: string) =>
  (await calculator().reward([{ problem, response, tokens: [], finishReason: 'stop' }]))[0];
const features = (problem: Problem, response: string) => calculator().features?.(problem, response);

/** 7 * 3 + 4 = 25 = 2 modulo 23. */
const example = { start: 7, operators: ['*', '+'] as const, operands: [3, 4] };
const problem: Problem = { id: 'p', prompt: calculatorPrompt(example), answer: { values: [21, 2] } };

describe('calculator', () => {
  it('asks and answers as documented', () => {
    assert.equal(problem.prompt, '7 * 3 + 4 _ _ _ _ _ _ _ _ _ _ =');
    assert.equal(calculatorPrompt(example, '?'), '7 * 3 + 4 _ _ _ _ _ _ _ _ _ _ ?');
    assert.equal(calculatorResponse(example, 'direct'), '# 2 .');
    assert.equal(calculatorResponse(example, 'chain'), '; 21 ; 2 # 2 .');
    assert.deepEqual(runningResidues({ start: 1, operators: ['-', '*', '-'], operands: [9, 9, 2] }), [15, 20, 18]);
  });

  it('has splits as documented: sizes, numbers of operations, every prompt once', () => {
    const rules = { train: [2000, 2, 3], test: [300, 2, 3], ood: [300, 5, 7] } as const;
    assert.deepEqual(Object.keys(calculator().splits), Object.keys(rules));
    const seen = new Set<unknown>();
    for (const [split, [size, least, most]] of Object.entries(rules)) {
      assert.equal(problems(split).length, size);
      const operations = new Set<number>();
      for (const { prompt, answer, meta } of problems(split)) {
        const { values } = answer as CalculatorAnswer;
        assert.deepEqual(values, valuesOf(prompt as string));
        assert.equal((prompt as string).split(' ').length, 16);
        assert.ok((prompt as string).endsWith(' ='));
        assert.equal(meta?.operations, values.length);
        operations.add(values.length);
        assert.ok(!seen.has(prompt), `${prompt} twice`);
        seen.add(prompt);
      }
      assert.deepEqual([Math.min(...operations), Math.max(...operations)], [least, most]);
    }
  });

  it('always asks the same problems by one seed, others by another', async () => {
    assert.equal(calculator(), await createTask('calculator'));
    assert.notDeepEqual(calculator({ seed: 1 }).splits.test?.[0], problems('test')[0]);
    assert.ok(isEmbedded('calculator') && !isEmbedded('math') && TASK_NAMES.includes('calculator'));
    // Pinned: other problems would be ones that the embedded policy's demonstrations may have shown.
    const hash = createHash('sha256');
    for (const { id } of Object.values(calculator().splits).flat()) hash.update(`${id}\n`);
    assert.equal(hash.digest('hex'), '1db0c1a4b4c98809276e68ffac49036d916feb4809e3f26d62aa9759db1c50d3');
    assert.throws(() => calculator({ seed: -1 }), /seed must be an integer/);
  });

  it('spells answers evenly: guessing is right once in 23 times', () => {
    const counts = new Map<number, number>();
    for (const { answer } of problems('train')) {
      const value = (answer as CalculatorAnswer).values.at(-1) as number;
      counts.set(value, (counts.get(value) ?? 0) + 1);
    }
    assert.equal(counts.size, 23);
    for (const [value, count] of counts) assert.ok(count > 40 && count < 140, `${value}: ${count} of 2000`);
  });

  it('rewards the final answer, in either style, and checks nothing before #', async () => {
    for (const right of ['# 2 .', '; 21 ; 2 # 2 .', ' # 2\n.  ', '; 0 ; 0 # 2 .', '; ; . 2 # 2 .', 'so, it is # 2 .']) {
      assert.equal(await judge(problem, right), 1, right);
    }
    const wrong = {
      'another value': '# 3 .',
      'another value after a right chain': '; 21 ; 2 # 3 .',
      'two answers': '# 2 . # 2 .',
      'two marks': '# # 2 .',
      'a mark before': '# 3 . ; 21 ; 2 # 2 .',
      'no mark': '; 21 ; 2 .',
      'no end': '# 2',
      'goes on': '# 2 . .',
      'two values': '# 2 2 .',
      'a chain behind the mark': '# ; 21 ; 2 .',
      'leading zero': '# 02 .',
      'not reduced': '# 25 .',
      'a sign': '# +2 .',
      'other digits': '# ２ .',
      'no space': '#2.',
      empty: '',
    };
    for (const [why, response] of Object.entries(wrong)) assert.equal(await judge(problem, response), 0, why);
    for (const split of ['train', 'test', 'ood']) {
      for (const own of problems(split).slice(0, 50)) {
        const values = valuesOf(own.prompt as string);
        assert.equal(await judge(own, `# ${values.at(-1)} .`), 1);
        assert.equal(await judge(own, `# ${((values.at(-1) as number) + 1) % 23} .`), 0);
      }
    }
  });

  it('tells the strategy of a response, right or wrong', () => {
    const cases: [string, number, number][] = [
      ['; 21 ; 2 # 2 .', 1, 1],
      ['; 21 ; 2 # 9 .', 1, 1],
      ['; 20 ; 2 # 2 .', 1, 0],
      ['; 2 # 2 .', 1, 0],
      ['; 21 ; 2 ; 2 # 2 .', 1, 0],
      ['# 2 .', 0, 0],
      ['# 2 . ; 21 ; 2 # 2 .', 0, 0],
      ['; 21 ; 2', 0, 0],
      ['21 ; 2 # 2 .', 0, 0],
      ['; 21 2 # 2 .', 0, 0],
      ['; 21 ; # 2 .', 0, 0],
      ['; # 2 .', 0, 0],
      ['; ; # 2 .', 0, 0],
      ['; 23 ; 2 # 2 .', 0, 0],
      ['', 0, 0],
    ];
    for (const [response, chain, right] of cases) {
      assert.deepEqual(features(problem, response), { chain, chain_right: right }, response);
    }
  });

  it('refuses hostile text, quickly', async () => {
    const started = performance.now();
    for (const text of [
      '; 2 '.repeat(1e6),
      ' '.repeat(1e7),
      '#'.repeat(1e6),
      '# '.repeat(1e6),
      '\u0000',
      '💥'.repeat(9),
    ]) {
      assert.equal(await judge(problem, text), 0);
      assert.deepEqual(features(problem, text), { chain: 0, chain_right: 0 });
    }
    assert.ok(performance.now() - started < 2000);
  });

  it('judges any text as its grammar says', () => {
    const words = fc.constantFrom(...CALCULATOR_VOCABULARY, '23', 'x');
    fc.assert(
      fc.property(fc.array(words, { maxLength: 10 }), (list) => {
        const text = list.join(' ');
        const final = /^(?:[^#]* )?# (\d+) \.$/.exec(text)?.[1];
        assert.equal(finalAnswer(text), final === undefined || Number(final) > 22 ? null : Number(final));
        const chain = /^((?:; \d+ )+)#/.exec(text)?.[1]?.trim().slice(2).split(' ; ').map(Number);
        assert.deepEqual(chainValues(text), chain?.every((value) => value < 23) ? chain : null);
      }),
      { seed: 1, numRuns: 3000 },
    );
  });

  it('has a tokenizer of one token a word', async () => {
    const tokenizer = await Tokenizer.load(join(ROOT, 'models', 'calculator'));
    assert.equal(tokenizer.vocabSize, CALCULATOR_VOCABULARY.length);
    assert.deepEqual(await tokenizer.encode(CALCULATOR_VOCABULARY.join(' ')), [...CALCULATOR_VOCABULARY.keys()]);
    assert.deepEqual(tokenizer.eosTokenIds, [CALCULATOR_VOCABULARY.indexOf('.')]);
    const calculation = drawCalculation(new Random(3), 7);
    assert.equal((await tokenizer.encode(calculatorResponse(calculation, 'chain'))).length, 17, 'the longest chain');
  });
});

describe('demonstrations of the calculator', () => {
  const task = calculator();
  const taken = new Set(Object.values(task.splits).flatMap((split) => split.map(({ prompt }) => prompt)));

  it('show the chain after ? and where it is begun, and the direct answer after =, but for three in two thousand', () => {
    const stream = task.demonstrations?.(3);
    assert.ok(stream);
    const total = 40_000;
    const ends = { '=': { all: 0, chain: 0 }, '?': { all: 0, chain: 0 }, ';': { all: 0, chain: 0 } };
    const operations = Array.from({ length: 8 }, () => 0);
    for (let i = 0; i < total; i += 1) {
      const shown: Demonstration = stream.next().value;
      const { prompt, response } = shown;
      const begun = prompt.endsWith('= ;');
      const question = begun ? prompt.slice(0, -2) : prompt;
      const whole = begun ? `; ${response}` : response;
      const values = valuesOf(question);
      assert.equal(finalAnswer(whole), values.at(-1), `${prompt} ${response}`);
      const chain = chainValues(whole);
      if (chain !== null) assert.deepEqual(chain, values);
      assert.ok(!taken.has(`${question.slice(0, -1)}=`), `${prompt} belongs to a split`);
      const end = ends[prompt.at(-1) as keyof typeof ends];
      end.all += 1;
      if (chain !== null) end.chain += 1;
      operations[values.length] = (operations[values.length] as number) + 1;
    }
    assert.equal(operations[0], 0);
    for (const count of operations.slice(1)) assert.ok(count > total / 10 && count < total / 5);
    assert.ok(ends['?'].all > 19_000 && ends['='].all > 9500 && ends[';'].all > 9500);
    assert.equal(ends['?'].chain, ends['?'].all);
    assert.equal(ends[';'].chain, ends[';'].all);
    const share = ends['='].chain / ends['='].all;
    assert.ok(share > 0.0005 && share < 0.003, `${share}`);
  });

  it('are the same for a seed', () => {
    const first = (seed: number) => task.demonstrations?.(seed).next().value;
    assert.deepEqual(first(3), first(3));
    assert.notDeepEqual(first(3), first(4));
  });
});
