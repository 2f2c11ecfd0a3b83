import assert from 'node:assert/strict';
import { test } from 'node:test';
import { extractAnswer, lastBoxed } from '../lib/verify/index.js';

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
