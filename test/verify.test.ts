import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { equivalent, extractAnswer, lastBoxed } from '../lib/verify/index.js';
import { dataRoot, needs } from './support/data.js';

/** Any UTF-16 code units, lone surrogates included. */
const anyText = fc
  .array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 60 })
  .map((units) => String.fromCharCode(...units));

test('the last closed box counts, braces balanced', () => {
  const cases: [response: string, answer: string | null][] = [
    ['so \\boxed{42}.', '42'],
    ['first \\boxed{1}, no: \\boxed{2}', '2'],
    ['\\boxed{\\frac{1}{2}}', '\\frac{1}{2}'],
    ['\\boxed{\\{1, 2\\}}', '\\{1, 2\\}'],
    ['\\boxed{\\left\\{ x \\mid x > 0 \\right.}', '\\left\\{ x \\mid x > 0 \\right.'],
    ['\\fbox{7}', '7'],
    ['$\\boxed 7$', '7'],
    ['\\boxed{ \\boxed{5} }', '5'],
    ['\\boxed{1} then \\boxed{2', '1'],
    ['\\boxedtext{9}', null],
    ['}}} \\boxed{3}', '3'],
    ['no box', null],
  ];
  for (const [response, answer] of cases) assert.equal(lastBoxed(response), answer, response);
});

test('without a box: ####, then "the answer is", then the last number', () => {
  const cases: [response: string, answer: string | null][] = [
    ['2 + 2 = 4\n#### 1,234\n', '1,234'],
    ['The answer is 12.', '12'],
    ['the final answer is: $x = 3.5$. Done in 2 steps.', '$x = 3.5$'],
    ['The answer is 5. No, the answer is 6.', '6'],
    ['first 3, then 1,000,', '1,000'],
    ['it is -2.5', '-2.5'],
    ['no number at all', null],
    ['', null],
    ['#### ', null],
    ['The answer is 3 but \\boxed{4}', '4'],
  ];
  for (const [response, answer] of cases) assert.equal(extractAnswer(response), answer, response);
});

const SAME: [string, string][] = [
  ['42', '42'],
  ['42.0', '42'],
  ['.5', '\\frac{1}{2}'],
  ['\\dfrac{3}{4}', '0.75'],
  ['\\frac34', '3/4'],
  ['-\\frac{1}{2}', '-0.5'],
  ['\\frac{-1}{2}', '\\frac{1}{-2}'],
  ['2\\frac{1}{2}', '5/2'],
  ['1,234', '1234'],
  ['10{,}000', '10,\\!000'],
  ['$\\$5$', '5'],
  ['50\\%', '50'],
  ['90^\\circ', '90'],
  ['5 \\text{ cm}^2', '5'],
  ['12 inches', '12'],
  ['\\text{Yes}', 'yes'],
  ['(B)', '\\text{(B)}'],
  ['x = 7', '7'],
  ['\\left( 1, 2 \\right)', '(1,2)'],
  ['(0.5, 2)', '(\\frac12, 2)'],
  ['\\sqrt3', '\\sqrt{3}'],
  ['3\\times 10^{5}', '300000'],
  ['1e-3', '0.001'],
  ['12.', '12'],
  ['−3', '-3'],
];

const DIFFERENT: [string, string][] = [
  ['42', '43'],
  ['0.333', '1/3'],
  ['1, 234', '1234'],
  ['(1,2)', '(2,1)'],
  ['(1,2)', '[1,2]'],
  ['(1,2)', '(1,2,3)'],
  ['\\frac{1}{2}x', '\\frac{1}{2x}'],
  ['2^\\frac{1}{2}', '\\frac{2^1}{2}'],
  ['A', 'a'],
  ['3m', '3'],
  ['', ''],
  ['$$', '0'],
  ['-5', '5'],
  ['12', '1'],
];

test('equal answers in other spellings, both ways round', () => {
  for (const [x, y] of SAME) {
    assert.ok(equivalent(x, y), `${x} is ${y}`);
    assert.ok(equivalent(y, x), `${y} is ${x}`);
  }
});

test('different answers stay different', () => {
  for (const [x, y] of DIFFERENT) {
    assert.ok(!equivalent(x, y), `${x} is not ${y}`);
    assert.ok(!equivalent(y, x), `${y} is not ${x}`);
  }
});

test('numbers are compared exactly', () => {
  fc.assert(
    fc.property(fc.integer(), fc.integer({ min: 1, max: 10 ** 6 }), fc.integer({ min: 2, max: 50 }), (n, d, factor) => {
      assert.ok(equivalent(`\\frac{${n}}{${d}}`, `${n}/${d}`));
      assert.ok(equivalent(`${BigInt(n) * BigInt(factor)}/${BigInt(d) * BigInt(factor)}`, `${n}/${d}`));
      assert.ok(!equivalent(`${n}/${d}`, `${n + 1}/${d}`));
    }),
  );
  assert.ok(!equivalent('0.1000000000000000000001', '0.1'));
});

test('any text: no throw, symmetric, and equal to itself unless empty', () => {
  fc.assert(
    fc.property(anyText, fc.string(), (x, y) => {
      extractAnswer(x);
      assert.equal(equivalent(x, y), equivalent(y, x));
    }),
  );
});

test('hostile text takes linear time', () => {
  const started = performance.now();
  const n = 200_000;
  for (const piece of [
    '\\boxed{',
    '{',
    '}',
    '#',
    '####',
    'answer is ',
    '1,',
    ',',
    '\\frac',
    '-',
    '\\text{',
    ' ',
    '\\',
    '^ ',
    '1.',
  ]) {
    const text = piece.repeat(Math.ceil(n / piece.length));
    extractAnswer(text);
    extractAnswer(`${text}1`);
    equivalent(text, '1');
    equivalent(text.slice(0, 2000), `${text.slice(0, 1999)}1`);
  }
  equivalent(`${'9'.repeat(1000)}e999`, '1e999');
  assert.ok(performance.now() - started < 3000);
});

const NEIGHBOURS = ['verifier', 'math_neighbours.jsonl'] as const;
const VARIANTS = ['verifier', 'math_variants.jsonl'] as const;
const readRows = (path: readonly string[]): { pred: string; gold: string; equal: boolean; damaged?: boolean }[] =>
  readFileSync(join(dataRoot, ...path), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

test('look-alike answers of different MATH problems are refused', needs(...NEIGHBOURS), () => {
  for (const { pred, gold, equal } of readRows(NEIGHBOURS)) {
    if (!equal) assert.ok(!equivalent(pred, gold), `${pred} is not ${gold}`);
  }
});

test('at least nine in ten spellings of one MATH answer are recognized', needs(...VARIANTS), () => {
  const rows = readRows(VARIANTS).filter(({ damaged }) => !damaged);
  const recognized = rows.filter(({ pred, gold }) => equivalent(pred, gold)).length;
  assert.ok(recognized >= 0.9 * rows.length, `${recognized} of ${rows.length}`);
});
