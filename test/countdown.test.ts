import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { type CountdownAnswer, countdown, parseResponse, promptText, responseText } from '../lib/tasks/countdown.js';
import {
  algebraicIdentity,
  countSolutions,
  type Expression,
  expressionText,
  OPERATORS,
  runningValues,
} from '../lib/tasks/countdown-expression.js';
import { createTask } from '../lib/tasks/index.js';
import type { Demonstration, Problem } from '../lib/tasks/types.js';

/** Every ordering of `items`, equal ones included. */
function permutations<T>(items: readonly T[]): T[][] {
  if (items.length <= 1) return [[...items]];
  return items.flatMap((item, i) => permutations(items.toSpliced(i, 1)).map((rest) => [item, ...rest]));
}

/** Every distinct valid expression over all the numbers, the slow way. */
function allExpressions(numbers: readonly number[]): Map<string, Expression & { value: number }> {
  const found = new Map<string, Expression & { value: number }>();
  for (const operands of permutations(numbers)) {
    for (let code = 0; code < 3 ** (numbers.length - 1); code += 1) {
      const operators = numbers
        .slice(1)
        .map((_, i) => OPERATORS[Math.floor(code / 3 ** i) % 3] as Expression['operators'][0]);
      const value = runningValues({ operands, operators })?.at(-1);
      if (value !== undefined) found.set(expressionText({ operands, operators }), { operands, operators, value });
    }
  }
  return found;
}

const problemOf = (numbers: number[], target: number): Problem => ({
  id: 'p',
  prompt: promptText(numbers, target),
  answer: { numbers, target } satisfies CountdownAnswer,
});

const judge = async (problem: Problem, response: string) =>
  (await countdown().reward([{ problem, response, tokens: [], finishReason: 'stop' }]))[0];

/** Any UTF-16 code units, lone surrogates included. */
const anyText = fc
  .array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 60 })
  .map((units) => String.fromCharCode(...units));

test('solutions are counted exactly', () => {
  for (const numbers of [
    [1, 2, 3],
    [2, 3, 7, 9],
    [4, 4, 4, 4],
    [1, 1, 9, 9],
    [2, 2, 3, 7, 8],
  ]) {
    const counts = countSolutions(numbers);
    const expected = counts.map(() => ({ total: 0, largestFirst: 0 }));
    for (const { operands, value } of allExpressions(numbers).values()) {
      const count = expected[value] as { total: number; largestFirst: number };
      count.total += 1;
      if (operands[0] === Math.max(...numbers)) count.largestFirst += 1;
    }
    assert.deepEqual(counts, expected, `${numbers}`);
  }
});

test('the splits are as documented: sizes, numbers of solutions, disjoint', () => {
  const { splits } = countdown();
  const rules = { train: [1500, 4, 3, 60], test: [300, 4, 3, 60], ood: [300, 5, 10, 600], off: [150, 4, 2, Infinity] };
  const seen = new Set<string>();
  for (const [name, [size, count, least, most]] of Object.entries(rules) as [string, number[]][]) {
    const problems = splits[name] as readonly Problem[];
    assert.equal(problems.length, size);
    for (const { id, prompt, answer, meta } of problems) {
      const { numbers, target } = answer as CountdownAnswer;
      assert.equal(numbers.length, count);
      assert.ok(target >= 10 && target <= 99 && numbers.every((n) => n >= 1 && n <= 9));
      const { total, largestFirst } = countSolutions(numbers)[target] as { total: number; largestFirst: number };
      assert.equal(meta?.solutions, total);
      assert.ok(total >= (least as number) && total <= (most as number), id);
      if (name === 'off') assert.equal(largestFirst, 0);
      assert.equal(prompt, promptText(numbers, target));
      assert.equal((prompt as string).split(' ').length, 7);
      const key = `${numbers} ${target}`;
      assert.ok(!seen.has(key), `${key} twice`);
      seen.add(key);
    }
  }
});

test('a seed always gives the same problems, another seed others, and the task is kept', async () => {
  assert.equal(countdown(), await createTask('countdown'));
  const other = countdown({ seed: 1 });
  assert.equal(other, countdown({ seed: 1 }));
  assert.notDeepEqual(other.splits.test?.[0], countdown().splits.test?.[0]);
  // Pinned: other problems would be ones that the embedded policy's demonstrations may have shown.
  const hash = createHash('sha256');
  for (const { id } of Object.values(countdown().splits).flat()) hash.update(`${id}\n`);
  assert.equal(hash.digest('hex'), '729edf59c0c13b32b3ae7e241df01dc1f11373e67a6b2f23df9f729b43d3b1da');
  assert.throws(() => countdown({ seed: -1 }), /seed must be an integer/);
});

test('demonstrations are right, have the habit, and show no problem of any split', async () => {
  const task = countdown();
  const taken = new Set(Object.values(task.splits).flatMap((problems) => problems.map(({ prompt }) => prompt)));
  const stream = task.demonstrations?.(3);
  assert.ok(stream);
  const sizes = [0, 0, 0, 0, 0, 0];
  let habit = 0;
  const total = 4000;
  for (let i = 0; i < total; i += 1) {
    const { prompt, response }: Demonstration = stream.next().value;
    const words = prompt.split(' ');
    const numbers = words
      .slice(0, 5)
      .filter((word) => word !== '_')
      .map(Number);
    const target = Number(words[6]);
    assert.equal(await judge(problemOf(numbers, target), response), 1, `${prompt} ${response}`);
    const parsed = parseResponse(response, numbers.length) as Expression;
    assert.equal(responseText(parsed), response, 'scratch is the true running value');
    assert.ok(!taken.has(prompt), `${prompt} belongs to a split`);
    sizes[numbers.length] = (sizes[numbers.length] as number) + 1;
    if (parsed.operands[0] === Math.max(...numbers)) habit += 1;
  }
  assert.ok(habit / total > 0.88, `habit ${habit / total}`);
  for (const n of [3, 4, 5]) assert.ok((sizes[n] as number) / total > 0.1);
  const again = task.demonstrations?.(3).next().value;
  assert.deepEqual(again, task.demonstrations?.(3).next().value);
});

test('the verifier accepts every solution and nothing else among all valid expressions', async () => {
  const numbers = [2, 3, 7, 9];
  for (const target of [13, 40, 41, 57]) {
    const problem = problemOf(numbers, target);
    for (const expression of allExpressions(numbers).values()) {
      assert.equal(await judge(problem, responseText(expression)), expression.value === target ? 1 : 0);
    }
  }
});

test('scratch values are not checked; everything else is', async () => {
  const problem = problemOf([2, 3, 7, 9], 26);
  const right = '9 + 2 11 * 3 33 - 7 26 .';
  assert.equal(await judge(problem, right), 1);
  assert.equal(await judge(problem, '9 + 2 0 * 3 99 - 7 5 .'), 1, 'scratch');
  assert.equal(await judge(problem, `  ${right}\n`), 1, 'white space around');
  const wrong = {
    'no period': '9 + 2 11 * 3 33 - 7 26',
    'goes on': `${right} .`,
    'second answer': `${right} ${right}`,
    'period too early': '9 + 2 11 . * 3 33 - 7 26',
    'a number twice': '9 + 2 11 + 9 20 + 7 27 .',
    'a number left out': '9 * 3 27 .',
    'a foreign number': '9 + 8 17 + 9 26 + 0 26 .',
    'operator missing': '9 2 + 11 * 3 33 - 7 26 .',
    'illegal operator': '9 / 2 4 * 3 33 - 7 26 .',
    'no scratch': '9 + 2 * 3 - 7 .',
    'leading zero': '09 + 2 11 * 3 33 - 7 26 .',
    'other digits': '９ + 2 11 * 3 33 - 7 26 .',
    'scratch is no number': '9 + 2 x * 3 33 - 7 26 .',
    'scratch too large': '9 + 2 100 * 3 33 - 7 26 .',
    'operator precedence': '7 + 9 16 + 2 18 * 3 54 .',
    'negative intermediate': '2 - 9 0 * 3 0 + 7 26 .',
    empty: '',
  };
  for (const [why, response] of Object.entries(wrong)) assert.equal(await judge(problem, response), 0, why);
});

test('a value above 99 on the way is refused although the end would fit', async () => {
  const numbers = [2, 7, 8, 9];
  // 9 * 8 = 72, 72 * 2 = 144, which leaves 0..99
  assert.equal(runningValues({ operands: [9, 8, 2, 7], operators: ['*', '*', '-'] }), null);
  assert.equal(await judge(problemOf(numbers, 137 % 100), '9 * 8 72 * 2 44 - 7 37 .'), 0);
});

test('hostile text is refused quickly', async () => {
  const problem = problemOf([2, 3, 7, 9], 26);
  const started = performance.now();
  for (const text of ['9 + 2 11 * '.repeat(1e6), ' '.repeat(1e7), '.'.repeat(1e6), '\u0000', '💥'.repeat(20)]) {
    assert.equal(await judge(problem, text), 0);
  }
  assert.ok(performance.now() - started < 2000);
  await fc.assert(fc.asyncProperty(anyText, async (text) => (await judge(problem, text)) === 0));
});

test('distinct keys: the expression without scratch, and the formula up to algebra', () => {
  const task = countdown();
  const problem = problemOf([2, 3, 7, 9], 21);
  const key = (response: string) => task.distinctKey?.(problem, response);
  const formula = (response: string) => task.algebraicKey?.(problem, response);
  const one = '9 + 7 16 + 3 19 + 2 21 .';
  const other = '2 + 3 5 + 7 12 + 9 21 .';
  assert.equal(key(one), '9 + 7 + 3 + 2');
  assert.equal(key('9 + 7 0 + 3 0 + 2 0 .'), '9 + 7 + 3 + 2', 'scratch makes no difference');
  assert.notEqual(key(one), key(other));
  assert.equal(formula(one), formula(other));
  assert.equal(key('9 + 7 16 + 3 19 - 2 17 .'), null);
  assert.equal(formula('9 .'), null);
});

test('formulas are the same exactly when they are the same polynomial', () => {
  const of = (text: string) => {
    const words = text.split(' ');
    return algebraicIdentity({
      operands: words.filter((_, i) => i % 2 === 0).map(Number),
      operators: words.filter((_, i) => i % 2 === 1) as Expression['operators'],
    });
  };
  assert.equal(of('2 * 3 * 7'), of('7 * 2 * 3'));
  assert.equal(of('9 - 2 - 3'), of('9 - 3 - 2'));
  assert.notEqual(of('9 - 2 + 3'), of('9 + 2 - 3'));
  assert.notEqual(of('2 + 2'), of('2 * 2'), 'equal values, other formulas');
  assert.notEqual(of('9 * 1 + 1'), of('9 + 1 * 1'));
});

test('an unknown task is named with its nearest neighbour', async () => {
  await assert.rejects(
    createTask('countdwon' as never),
    /no task 'countdwon'; did you mean 'countdown'\? Known: countdown, calculator, math, gsm8k/,
  );
});
