import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { describe, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import fc from 'fast-check';
import { InvalidArgumentError } from '../lib/errors.js';
import { type ExtractOptions, extractAnswer, statedAnswer } from '../lib/verify/extract.js';
import { needs, testData } from './support/data.js';

type Case = [response: string, answer: string | null];

function check(cases: readonly Case[], options?: ExtractOptions): void {
  for (const [response, answer] of cases) assert.equal(extractAnswer(response, options), answer, response);
}

describe('boxes', () => {
  test('the last one that is closed counts', () => {
    check([
      ['so \\boxed{42}.', '42'],
      ['first \\boxed{1}, no: \\boxed{2}', '2'],
      ['\\boxed{1} then \\boxed{2', '1'],
      ['\\boxed{\\frac{1}{2}}', '\\frac{1}{2}'],
      ['\\boxed{\\{1, 2\\}}', '\\{1, 2\\}'],
      ['\\fbox{7}', '7'],
      ['\\boxed {5}', '5'],
      ['\\boxed{ \\boxed{5} }', '5'],
      ['\\\\boxed{-3}', '-3'],
      ['\\boxed{\\text{Evelyn}} is our answer', '\\text{Evelyn}'],
      ['\\boxed{9} \\pmod{11}.', '9'],
      ['}}} \\boxed{3}', '3'],
      ['a box{5} is 6', '6'],
      ['\\boxed{\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}}', '\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}'],
    ]);
  });

  test('without braces up to the end of the term, never into it', () => {
    check([
      ['$\\boxed 7$', '7'],
      ['it is $\\boxed 42$.', '42'],
      ['\\boxed 7. And so on', '7'],
      ['\\boxed -3', '-3'],
      ['\\boxed\\frac{1}{2}$', '\\frac{1}{2}'],
      ['\\boxed (1, 2)', '(1, 2)'],
      ['\\(\\boxed 5\\)', '5'],
    ]);
  });

  test('boxes with only connectors between them are one answer', () => {
    check([
      ['$x = \\boxed{3}$ and $y = \\boxed{4}$', '3, 4'],
      ['\\boxed{1},\\boxed{2},\\boxed{3}', '1, 2, 3'],
      ['$\\boxed{(98, 2)} \\quad \\text{and} \\quad \\boxed{(99, 503)}$', '(98, 2), (99, 503)'],
      ['\\boxed{1} thus \\boxed{2} and \\boxed{3}', '2, 3'],
      ['\\boxed{5}, \\boxed{5}', '5'],
      ['\\boxed{5}. So \\boxed{6}', '6'],
      ['\\(y_1 = \\boxed{x} \\) and \\( y_{12} = \\boxed{2x} \\)', 'x, 2x'],
    ]);
  });

  test('an empty box is an empty answer, no box is none', () => {
    check(
      [
        ['\\boxed{}', ''],
        ['\\boxed{5}, I put it into \\boxed{}', '5'],
        ['5', null],
        ['', null],
        ['\\boxedtext{9}', null],
        ['\\boxed{42', null],
      ],
      { strategies: ['boxed'] },
    );
  });

  test('what is in a box that was cut off does not count', () => {
    check([
      ['The sum is \\boxed{4', null],
      ['It is 42, so \\boxed{4', '42'],
      ['The answer is \\boxed{', null],
    ]);
  });

  test('strict: nothing but the last box', () => {
    check(
      [
        ['\\boxed{1}. Final answer: 2', '1'],
        ['the answer is 5', null],
        ['#### 5', null],
        ['<answer>5</answer>', null],
        ['\\boxed{1} \\boxed{2} \\boxed{3} no, it is \\boxed{4}', '4'],
        ['\\boxed{1}, \\boxed{2}, \\boxed{3} or \\boxed{4}', '1, 2, 3, 4'],
      ],
      { strict: 'boxed' },
    );
  });
});

describe('announced answers', () => {
  test('after the words, to the end of the sentence', () => {
    check([
      ['The answer is 12.', '12'],
      ['The answer is 5. No, the answer is 6.', '6'],
      ['the final answer is: $x = 3.5$. Done in 2 steps.', '$x = 3.5$'],
      ['**Final Answer:** $\\frac{1}{2}$', '$\\frac{1}{2}$'],
      ['## Final Answer\n\n\\[ x = 5 \\]\n\nI hope this helps in 3 ways.', '\\[ x = 5 \\]'],
      ['**Answer: 42**', '42'],
      ['The answer is **42**.', '42'],
      ['Answer: $18 per day', '$18 per day'],
      ['The answer is $18.', '$18'],
      ['Answer: \\$1,234.50.', '\\$1,234.50'],
      ['A: 90,000', '90,000'],
      ['The correct answer is (B).', 'B'],
      ['The answer: D, it does not make sense for it to be A or B', 'D'],
      ['The answer is (1, 2).', '(1, 2)'],
      ['The answer is A, B.', 'A, B'],
      ['The answer is 5 p.m.', '5 p.m'],
      ['So the answer to the first question is 7', '7'],
      ['The answer is 3 because 1 + 2 = 3.', '3'],
      ['The answer is 40 min, which is less than 50 min.', '40 min'],
      ['Final Answer: The largest $n$ is 34.', '34'],
      ['Final Answer: The final answer is $10,455$. I hope it is correct.', '$10,455$'],
      ['Final Answer: Jane started growing Sphere 3 hours ago. I hope it is correct.', '3'],
      ['The answer is 6 and 8', '6 and 8'],
      ['The answer is 12 eggs in the whole basket of today', '12 eggs'],
      ['答案是 5。', '5'],
      ['The answer is 2/3. <|im_start|>user\nThe answer is 9.', '2/3'],
      ['<|im_start|>assistant\nThe answer is 2.<|im_end|> The answer is 9.', '2'],
    ]);
  });

  test('words that only look like an announcement are passed over', () => {
    check([
      ['The answer is 5. I hope the answer is correct.', '5'],
      ['The answer is 7. Let me know if the answer is not clear!', '7'],
    ]);
  });

  test('a final answer after the last box outdoes it, anything else does not', () => {
    check([
      ['the interest is \\boxed{255}. Final Answer: The final answer is $10455$.', '$10455$'],
      ['The answer is 3 but \\boxed{4}', '4'],
      ['\\boxed{4}, so the answer is 3', '4'],
      ['Final Answer: the smallest $N$ is $\\boxed{14{,}916}$.', '14{,}916'],
    ]);
  });

  test('#### as in GSM8K, but not a heading', () => {
    check([
      ['2 + 2 = 4\n#### 1,234\n', '1,234'],
      ['#### -5\n', '-5'],
      ['#### $18', '$18'],
      ['#### Step 1\nWe add 2 and 3.\n#### Conclusion\nThe answer is 5.', '5'],
      ['#### ', null],
      ['##### 5 apples\nThe answer is 6', '6'],
    ]);
  });

  test('answer tags', () => {
    check([
      ['<think>1 or 2</think><answer>2</answer>', '2'],
      ['<answer> \\boxed{3} </answer> 5', '3'],
      ['<answer>The answer is 4.</answer>', '4'],
      ['<answer>\\frac{1}{2}</answer>', '\\frac{1}{2}'],
      ['<answer></answer> 7', ''],
      ['<answer>1</answer> no, <answer>2</answer>', '2'],
      ['<answer>9', '9'],
    ]);
  });
});

describe('the last value of a text', () => {
  test('numbers', () => {
    check([
      ['first 3, then 1,000,', '1,000'],
      ['it is -2.5', '-2.5'],
      ['it is −2.5.', '−2.5'],
      ['10-3=7', '7'],
      ['He has 12 apples and 1/2 a pear', '1/2'],
      ['a probability of 20%', '20%'],
      ['that makes 20\\%.', '20\\%'],
      ['it is .5', '.5'],
      ['about 1.5e-7 in all', '1.5e-7'],
      ['She earned $5 and $6', '6'],
      ['因此，数学作业比阅读作业多 **3页**。', '3'],
      ['no number at all', null],
      ['', null],
    ]);
  });

  test('a term is never cut', () => {
    check([
      ['that gives 3x', '3x'],
      ['that gives x^{12}', 'x^{12}'],
      ['that gives 2^10', '2^10'],
      ['that gives 3\\sqrt{2}', '3\\sqrt{2}'],
      ['that gives -\\frac{1}{2}', '-\\frac{1}{2}'],
      ['the point (3, 4)', '(3, 4)'],
      ['the set \\{3, 4\\}.', '\\{3, 4\\}'],
      ['the code AZYUK2A', 'AZYUK2A'],
      ['that gives x+2', 'x+2'],
      ['that gives 5 + 1', '5 + 1'],
      ['that gives 2 \\times 3', '2 \\times 3'],
      ['that gives 5 000', '5 000'],
      ['that gives 5 million', '5 million'],
      ['that gives the square root of 5', 'square root of 5'],
      ['3 + 4 = 7', '7'],
      ['that gives $2x + 3$', '$2x + 3$'],
      ['that gives \\( \\frac{2}{5} \\) tons', '\\( \\frac{2}{5} \\)'],
    ]);
  });

  test('what is denied is no answer', () => {
    check([
      ['The answer is not 5', null],
      ['The answer cannot be 5', null],
      ['It is 4, not 5.', '4'],
      ['The answer is 4, not 5.', '4'],
      ["It isn't equal to 5", null],
    ]);
  });

  test('of a calculation its result, of an equation all of it', () => {
    check([
      ['so $35 + 70 = 105$.', '$105$'],
      ['so \\[ \\text{Total} = 24 \\times 2 = 48 \\]', '$48$'],
      ['so $y = 2x + 3$.', '$y = 2x + 3$'],
      ['so $x^2 + y^2 = 25$', '$x^2 + y^2 = 25$'],
      ['we get 5 for $x$', '5'],
      ['we get $x$', '$x$'],
    ]);
  });
});

test('responses as models write them', () => {
  check([
    ['To solve this, we note ... Therefore, the final answer is:\n\n$$\\boxed{\\frac{3}{4}}$$', '\\frac{3}{4}'],
    ['### Conclusion\nThe total is **72** clips.', '72'],
    [
      'So, Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nNatalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.\n#### 72',
      '72',
    ],
    ['Thus, the answer is $\\frac{1}{2}$.\n\nLet me know if you have other questions about step 3!', '$\\frac{1}{2}$'],
    ['**Answer:** The cost is \\$18.', '\\$18'],
    ['Answer: $12.50', '$12.50'],
    ['The answer is: \\(\\sqrt{2}\\)', '\\(\\sqrt{2}\\)'],
    ['Hence the value of $x$ is $7$.', '$7$'],
    ['Therefore, $x = \\frac{5}{3}$.', '$x = \\frac{5}{3}$'],
    ['Therefore x = 5.', '5'],
    ['The final answer is \\boxed{(C)}.', '(C)'],
    ['**Final Answer**\n\n42', '42'],
    ['**Final answer:** $\\{1, 2\\}$', '$\\{1, 2\\}$'],
    ['The correct option is C.', 'C'],
    ["It is not A, therefore I think it's B", 'B'],
    ['The answer is for sure D, it cannot be A or B', 'D'],
    ['La réponse est 12.', '12'],
    ['$\\boxed{1}$ paper and $\\boxed{2}$ bins', '1, 2'],
    ['first \\boxed{3} and then we get \\boxed{4}', '4'],
    ['The answer is C', 'C'],
    ['Therefore, she has 5 apples left.', '5'],
    ['She makes $18 every day.', '18'],
    ['He needs 3.5 hours, i.e. 210 minutes.', '210'],
    ['Total = 5 + 6 = 11 dollars', '11'],
    ['the probability is 3/8', '3/8'],
    ['the probability is \\frac{3}{8}', '\\frac{3}{8}'],
    ['the answer is \\frac{3}{8}.', '\\frac{3}{8}'],
    ['= 1,234,567.', '1,234,567'],
    ['So the answer is 1,234.', '1,234'],
    ['The answer is 1.5.', '1.5'],
    ['the answer is 7!', '7!'],
    ['The answer is 5 + 3i', '5 + 3i'],
    ['The answer is 2x + 3', '2x + 3'],
    ['The answer is x = 2 or x = 3.', 'x = 2 or x = 3'],
    ['The answer is [1, 2).', '[1, 2)'],
    ['The answer is -3 < x < 5', '-3 < x < 5'],
    ['The answer is 10 %.', '10 %'],
    ['The answer is 3:4.', '3:4'],
    ['The answer is 12:30 p.m.', '12:30 p.m'],
    ['The answer is\n\n\\[ \\frac{a}{b} \\]', '\\[ \\frac{a}{b} \\]'],
    ['The answer is\n5', '5'],
    ['Answer\n5', '5'],
    ['A: The total is 5 apples.', '5 apples'],
    ['Q: ...\nA: 5\n\nQ: what is 6?\nA: 7', '7'],
    ['The answer is 5.\n\nQ: another problem with 9 apples', '5'],
    ["I'm not sure, but the answer might be 5.", '5'],
    ['The answer, then, is 5.', '5'],
    ['answer=5', '5'],
    ['<answer>5</answer>', '5'],
    ['<answer>$x=5$</answer>', '$x=5$'],
    ['<answer>x + 1</answer>', 'x + 1'],
    ['\\boxed{5} \\text{ cm}', '5'],
    ['$\\boxed{\\textbf{(A)}\\ 5}$', '\\textbf{(A)}\\ 5'],
    ['$$\\boxed{\n5\n}$$', '5'],
    ['\\[\\boxed{x=5,\\ y=6}\\]', 'x=5,\\ y=6'],
    ['The answer is `42`.', '42'],
    ['The answer is "yes".', 'yes'],
    ['Yes.', null],
    ['The answer is yes, because it is even.', 'yes'],
    ['The answer is no solution.', 'no solution'],
    ['答案：42', '42'],
    ['最终答案是 $\\frac{1}{2}$。', '$\\frac{1}{2}$'],
    ['因此答案为12。', '12'],
  ]);
});

test('reasoning counts only where nothing follows it', () => {
  const cases: [response: string, fallback: string | null, never: string | null, always: string | null][] = [
    ['<think>\\boxed{1}</think> It is \\boxed{2}', '2', '2', '2'],
    ['<think>\\boxed{1}</think> It is 2', '2', '2', '1'],
    ['\\boxed{1}</think> It is 2', '2', '2', '1'],
    ['<think>\\boxed{1}</think>\n', '1', null, '1'],
    ['<think>\\boxed{1} or', '1', null, '1'],
    ['\\boxed{1}', '1', '1', '1'],
    ['<think>1</think> It is \\boxed{2}. <think>\\boxed{3}', '3', '2', '3'],
  ];
  for (const [response, fallback, never, always] of cases) {
    assert.equal(extractAnswer(response), fallback, response);
    assert.equal(extractAnswer(response, { thinking: 'never' }), never, response);
    assert.equal(extractAnswer(response, { thinking: 'always' }), always, response);
  }
});

test('strategies and their order are the options', () => {
  const response = '#### 1\nThe answer is 2. \\boxed{3} and 4';
  const with_ = (...strategies: NonNullable<ExtractOptions['strategies']>) => extractAnswer(response, { strategies });
  assert.equal(with_('hash'), '1');
  assert.equal(with_('phrase'), '2');
  assert.equal(with_('boxed'), '3');
  assert.equal(with_('number'), '4');
  assert.equal(with_('tag', 'phrase', 'boxed'), '2');
  assert.equal(with_('tag'), null);
  for (const options of [{ strategies: [] }, { strategies: ['box'] }, { strict: 'box' }, { thinking: 'no' }]) {
    assert.throws(() => extractAnswer('5', options as ExtractOptions), InvalidArgumentError);
  }
});

test('what a sentence states outright', () => {
  const cases: Case[] = [
    ['so $\\boxed{3}$.', '3'],
    ['\\boxed{a = 1 and a = 2', 'a = 1 and a = 2'],
    ['Therefore the answer is -3', '-3'],
    ['We find that $x \\neq 3$.', '$x \\neq 3$'],
    ['Here is a matrix: $ \\begin{pmatrix}0 & 0\\end{pmatrix} $', '$ \\begin{pmatrix}0 & 0\\end{pmatrix} $'],
    ['72 + 4 = 76\n#### 76', '76'],
    ['so the number is 10', '10'],
    ['因此 13只鸟', '13'],
    ['an even function with 3 zeros', null],
    ['It is divisible by 7', null],
    ['all primes less than $n$', null],
    ['$n$ not divisible by $3$', null],
    ['if and only if n is at least 10', null],
    ['x is 5 if y is 6', null],
    ['rhombus with side 4', null],
    ['\\text{Evelyn}', null],
    ['', null],
  ];
  for (const [text, answer] of cases) assert.equal(statedAnswer(text), answer, text);
});

/** Pieces of the syntax the extraction knows, in any order. */
const PIECES = [
  '\\boxed{', '\\boxed ', '\\fbox', '{', '}', '\\{', '\\}', '####', 'the answer is ', 'Final Answer', ':', '\n', ' ', '1', '1,000',
  '-', '\\frac', '\\sqrt', '$', '$$', '\\(', '\\)', '\\[', '\\]', '(', ')', '[', ',', '.', '^', '_', 'x', '<think>',
  '</think>', '<answer>', '</answer>', '<|im_end|>', '\\', '\\\\', 'and', 'because', '**', '=', '!', '%', '答案是', '\ud83d',
]; // biome-ignore format: a list

test('any text: no throw, and no answer that is not in it', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...PIECES), { maxLength: 40 }), (pieces) => {
      const text = pieces.join('');
      for (const strategy of ['tag', 'boxed', 'hash', 'phrase', 'number'] as const) {
        const answer = extractAnswer(text, { strategies: [strategy] });
        if (strategy === 'hash' && answer !== null) assert.ok(text.includes(answer), JSON.stringify([text, answer]));
      }
      extractAnswer(text);
      statedAnswer(text);
    }),
    { numRuns: 2_000 },
  );
});

test('a megabyte of anything, and ten of the worst, take a time in proportion', () => {
  const slow: string[] = [];
  const time = (piece: string, bytes: number, limit: number): void => {
    const text = piece.repeat(Math.ceil(bytes / piece.length));
    const start = performance.now();
    extractAnswer(text);
    const milliseconds = performance.now() - start;
    if (milliseconds > limit) slow.push(`${bytes} bytes of ${JSON.stringify(piece)}: ${milliseconds.toFixed(0)} ms`);
  };
  for (const piece of [...PIECES, '\\boxed(', '\\boxed{1}', 'A:\n', '1,', 'x^{', '\\frac{', '(1,'])
    time(piece, 10 ** 6, 1_500);
  for (const piece of ['\\boxed{', '####\n', 'answer is ', '\n', '\\[', '\\(']) time(piece, 10 ** 7, 10_000);
  assert.deepEqual(slow, []);
});

const GSM8K = ['verifier', 'scored_gsm8k_examples.jsonl.gz'] as const;

test('the answers of GSM8K solutions that people scored', needs(...GSM8K), () => {
  const lines = gunzipSync(readFileSync(testData(...GSM8K) as string))
    .toString()
    .trim()
    .split('\n');
  const value = (text: string | null): number => (text === null ? Number.NaN : Number(text.replace(/[$,]/g, '')));
  const wrong = lines
    .map((line) => JSON.parse(line) as { response: string; gold: string; equal: boolean })
    .filter(({ response, gold, equal }) => (value(extractAnswer(response)) === value(gold)) !== equal);
  assert.ok(wrong.length <= 0.002 * lines.length, `${wrong.length} of ${lines.length}`);
});
