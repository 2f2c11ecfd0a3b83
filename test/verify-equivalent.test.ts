import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import fc from 'fast-check';
import { Algebra } from '../lib/verify/algebra/algebra.js';
import { Budget } from '../lib/verify/algebra/arithmetic.js';
import { compareAnswers, equivalent, extractAnswer } from '../lib/verify/index.js';
import { parseLatex } from '../lib/verify/latex/answer.js';
import { dataRoot, needs } from './support/data.js';
import { RULES } from './support/verify-cases.js';

for (const { rule, same, different } of RULES) {
  test(rule, () => {
    for (const [x, y] of same) {
      assert.ok(equivalent(x, y), `${x} is ${y}`);
      assert.ok(equivalent(y, x), `${y} is ${x}`);
    }
    for (const [x, y] of different) {
      assert.ok(!equivalent(x, y), `${x} is not ${y}`);
      assert.ok(!equivalent(y, x), `${y} is not ${x}`);
    }
  });
}

test('a tolerance is the caller’s, relative to the larger number or absolute', () => {
  assert.ok(!equivalent('0.333', '1/3'));
  assert.ok(equivalent('0.333', '1/3', { tolerance: 1e-2 }));
  assert.ok(!equivalent('0.333', '1/3', { tolerance: 1e-4 }));
  assert.ok(equivalent('3.14', '\\pi', { tolerance: { absolute: 0.002 } }));
  assert.ok(!equivalent('3.14', '\\pi', { tolerance: { absolute: 0.001 } }));
  assert.ok(equivalent('(0.333, 2)', '(1/3, 2)', { tolerance: 0.01 }));
  assert.ok(equivalent('4.5 \\times 10^{33}', '4.51e33', { tolerance: 0.05 }));
  assert.ok(!equivalent('4.5 \\times 10^{33}', '4.51e34', { tolerance: 0.05 }));
  assert.ok(!equivalent('x', '1', { tolerance: 0.5 }));
});

test('a comparison says what decided it, and when nothing did', () => {
  assert.deepEqual(compareAnswers('1/2', '0.5'), { equal: true, undecided: false, reason: 'same value' });
  assert.deepEqual(compareAnswers('3', '4'), { equal: false, undecided: false, reason: 'different numbers' });
  assert.equal(compareAnswers('x+1', 'y+1').undecided, false);
  for (const [x, y] of [
    ['9^{9^{9^9}}', '9^{9^{9^8}}'],
    ['1'.repeat(300_000), '1'],
    ['\\int_0^1 f(x)\\,dx', '\\int_0^1 g(x)\\,dx'],
  ] as [string, string][]) {
    assert.deepEqual(
      { ...compareAnswers(x, y), reason: '' },
      { equal: false, undecided: true, reason: '' },
      x.slice(0, 40),
    );
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
});

/** Expressions in x and y with their values at x = 2, y = 3, in two spellings. */
const expression = fc.letrec<{ e: { latex: string; plain: string } }>((tie) => ({
  e: fc.oneof(
    { maxDepth: 4 },
    fc.integer({ min: 1, max: 9 }).map((n) => ({ latex: `${n}`, plain: `${n}` })),
    fc.constantFrom({ latex: 'x', plain: 'x' }, { latex: 'y', plain: 'y' }),
    fc
      .tuple(tie('e'), tie('e'))
      .map(([a, b]) => ({ latex: `\\left(${a.latex} + ${b.latex}\\right)`, plain: `(${b.plain}+${a.plain})` })),
    fc
      .tuple(tie('e'), tie('e'))
      .map(([a, b]) => ({ latex: `${a.latex} \\cdot ${b.latex}`, plain: `${b.plain}*${a.plain}` })),
    fc
      .tuple(tie('e'), tie('e'))
      .map(([a, b]) => ({ latex: `\\frac{${a.latex}}{${b.latex}}`, plain: `(${a.plain})/(${b.plain})` })),
    tie('e').map((a) => ({ latex: `\\sqrt{${a.latex}}`, plain: `(${a.plain})^{1/2}` })),
    tie('e').map((a) => ({ latex: `{${a.latex}}^{2}`, plain: `(${a.plain})*(${a.plain})` })),
  ),
}));

test('an expression is itself in another spelling, and not with one added', () => {
  fc.assert(
    fc.property(expression.e, ({ latex, plain }) => {
      const wrapped = `(${latex})`;
      assert.ok(equivalent(wrapped, plain), `${wrapped} is ${plain}`);
      assert.ok(!equivalent(`${wrapped}+1`, plain), `${wrapped}+1 is not ${plain}`);
      assert.ok(equivalent(plain, wrapped));
    }),
    { numRuns: 200 },
  );
});

/** Any UTF-16 code units, lone surrogates included. */
const anyText = fc
  .array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 60 })
  .map((units) => String.fromCharCode(...units));
const PIECES =
  '\\frac \\sqrt { } ( ) [ ] \\{ \\} 1 2 12 1,234 x y \\pi e i + - * / ^ _ = < > , ; | \\pm \\cup \\infty \\text{cm} cm % ^\\circ ! \\sin \\log_2 \\sum_{k=1}^{n} \\binom \\left( \\right) $ \\begin{pmatrix} & \\\\ \\end{pmatrix} and or : f(x) 0.5 \\boxed{'.split(
    ' ',
  );
const fragments = fc.array(fc.constantFrom(...PIECES), { maxLength: 14 }).map((pieces) => pieces.join(' '));

test('any text: no throw, symmetric, and equal to itself unless empty', () => {
  for (const text of [anyText, fc.string(), fragments]) {
    fc.assert(
      fc.property(text, text, (x, y) => {
        assert.equal(equivalent(x, y), equivalent(y, x));
        if (/[0-9a-z]/i.test(x)) assert.ok(equivalent(x, ` ${x} `), x);
      }),
      { numRuns: 300 },
    );
  }
});

/** Processor time of this process in milliseconds: others on the machine do not count. */
function processorTime(run: () => void): number {
  const before = process.cpuUsage();
  run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

const LARGE = [
  '10^{10^{10}}', '9^{9^{9^{9}}}', '(10^9)!', '170!!!!', '\\binom{10^9}{5\\cdot10^8}', '2^{2^{20}}', '1e999999', '\\sum_{k=1}^{10^9} k', '\\sum_{k=1}^{300}\\sum_{j=1}^{300}\\sum_{i=1}^{300} ijk',
  '\\prod_{k=1}^{400} k^{k}', '\\sqrt[1000000]{2}', '\\sin(10^{100})', 'e^{e^{e^{e^{10}}}}', '\\tan(10^{50})', '0^0', '1/0', '\\log_1 5', '(-1)^{0.5}', '1.0000001^{10^{12}}', '\\gcd(10^{4000},7^{4000})',
  '\\pm1\\pm1\\pm1\\pm1\\pm1\\pm1', `0.${'3'.repeat(1900)}`, 'x^{999999}', '(x+1)^{5000}', '((x+1)^{50}+1)^{50}', '\\lfloor 10^{300}\\pi \\rfloor', `${'\\sqrt{'.repeat(40)}2${'}'.repeat(40)}`,
  `\\begin{pmatrix}${Array(30).fill(Array(30).fill('1').join('&')).join('\\\\')}\\end{pmatrix}`, Array(300).fill('x+1').join(','), Array.from({ length: 100 }, (_, i) => `\\sqrt{${4 * i}}/2`).join(','),
  `${'\\sin(x+'.repeat(40)}1${')'.repeat(40)}`,
]; // biome-ignore format: a list

test('what is too large is not decided, and not slowly', () => {
  for (const large of LARGE) {
    for (const other of [
      '1',
      '\\sqrt{2}x',
      '\\frac{\\sin x}{2}',
      '\\{1,2\\}',
      '(1,2]',
      'x>3',
      `${large}+1`,
      `\\sqrt2+${large}`,
    ]) {
      const milliseconds = processorTime(() => compareAnswers(large, other));
      assert.ok(milliseconds < 1_000, `${large.slice(0, 60)} beside ${other.slice(0, 30)}: ${milliseconds} ms`);
    }
  }
});

test('hostile text takes little time, whatever its length', () => {
  const pieces =
    '\\boxed{ { } ( [ | \\frac \\frac{1}{ \\sqrt - -- \\pm 1, 9 \\text{ \\text{a} \\ ^ ^{ x_ 1/ 1. $ \\( ! \\left( 1& \\\\ a and < x< \\cup (1,2)\\cup \\sin \\sum_{k=1}^{9} f( \\log_2 ° ½ ² % 5% 1: \\{ \\lfloor .. e^ 2^ 9^ 1{,} 1,\\! x+ \\frac12 0.\\overline{3}'.split(
      ' ',
    );
  for (const piece of pieces) {
    for (const length of [1_990, 100_000, 2_000_000]) {
      const text = piece.repeat(Math.ceil(length / piece.length));
      const milliseconds = processorTime(() => {
        equivalent(text, '1');
        equivalent(text, `${text.slice(0, -1)}2`);
        equivalent(`1${text}`, 'x>3');
      });
      assert.ok(milliseconds < 2_000, `${piece} ${length}: ${milliseconds} ms`);
    }
  }
});

interface Row {
  id?: string;
  pred: string;
  gold: string;
  equal: boolean | null;
  kind?: string;
  policy?: string;
  suspect?: string;
  damaged?: boolean;
  response?: string;
}

function readRows(name: string): Row[] {
  const file = readFileSync(join(dataRoot, 'verifier', name));
  const text = (name.endsWith('.gz') ? gunzipSync(file) : file).toString('utf8');
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Row);
}

/** The share of rows with the expected outcome, and the others. */
function agreement(rows: Row[], judge: (row: Row) => boolean): { share: number; others: string } {
  const wrong = rows.filter((row) => judge(row) !== row.equal);
  const others = wrong
    .slice(0, 20)
    .map(({ id, pred, gold }) => `${id}: ${String(pred).slice(-60)} | ${gold.slice(-60)}`);
  return { share: 1 - wrong.length / rows.length, others: others.join('\n') };
}

const extracted = ({ pred, gold }: Row): boolean => {
  const answer = extractAnswer(pred);
  return answer !== null && equivalent(answer, gold);
};

test('cases of other graders: at least 95 %', needs('verifier', 'pairs.jsonl'), () => {
  const rows = readRows('pairs.jsonl').filter(({ policy, suspect }) => policy === undefined && suspect === undefined);
  const { share, others } = agreement(rows, (row) =>
    row.kind === 'response' ? extracted(row) : equivalent(row.pred, row.gold),
  );
  assert.ok(share >= 0.95, `${share}\n${others}`);
});

test('spellings of one MATH answer: at least 97 %', needs('verifier', 'math_variants.jsonl'), () => {
  const rows = readRows('math_variants.jsonl').filter(({ damaged }) => !damaged);
  const { share, others } = agreement(rows, ({ pred, gold }) => equivalent(pred, gold));
  assert.ok(share >= 0.97, `${share}\n${others}`);
});

test(
  'look-alike answers of different MATH problems: none is taken for another',
  needs('verifier', 'math_neighbours.jsonl'),
  () => {
    for (const { pred, gold, equal } of readRows('math_neighbours.jsonl')) {
      if (equal !== null) assert.equal(equivalent(pred, gold), equal, `${pred} | ${gold}`);
    }
  },
);

test('scored GSM8K solutions: at least 99 %', needs('verifier', 'scored_gsm8k_examples.jsonl.gz'), () => {
  const rows = readRows('scored_gsm8k_examples.jsonl.gz');
  const { share, others } = agreement(rows, ({ response, gold }) => {
    const answer = extractAnswer(response ?? '');
    return answer !== null && equivalent(answer, gold);
  });
  assert.ok(share >= 0.99, `${share}\n${others}`);
});

test(
  'LaTeX of another parser: at least nine in ten are read, with the values it gives',
  needs('verifier', 'latex_parse.jsonl'),
  () => {
    const text = readFileSync(join(dataRoot, 'verifier', 'latex_parse.jsonl'), 'utf8');
    const rows = text
      .trim()
      .split('\n')
      .map(
        (line) =>
          JSON.parse(line.replace(/"value": -?(?:Infinity|NaN)/, '"value": null')) as {
            latex: string;
            value?: number | null;
            error?: unknown;
          },
      );
    const good = rows.filter(({ error }) => error === undefined);
    const read = good.filter(({ latex }) => parseLatex(latex) !== null);
    assert.ok(read.length >= 0.9 * good.length, `${read.length} of ${good.length}`);
    const valued = read.filter(({ value }) => typeof value === 'number');
    const right = valued.filter(({ latex, value }) => {
      const node = parseLatex(latex);
      const ours = node === null ? null : new Algebra(new Budget(60_000)).real(node);
      return ours !== null && Math.abs(ours - (value as number)) <= 1e-9 * Math.max(1, Math.abs(value as number));
    });
    // The others are divisors of polynomials, which that parser takes for numbers, and money.
    assert.ok(right.length >= 0.85 * valued.length, `${right.length} of ${valued.length}`);
    const bad = rows.filter(({ error }) => error !== undefined);
    const refused = bad.filter(({ latex }) => parseLatex(latex) === null);
    assert.ok(refused.length >= 0.8 * bad.length, `${refused.length} of ${bad.length}`);
  },
);

test('all reference answers: symmetric, and equal to themselves', needs('verifier', 'math_variants.jsonl'), () => {
  for (const name of ['math_variants.jsonl', 'math_neighbours.jsonl', 'pairs.jsonl']) {
    for (const { pred, gold } of readRows(name)) {
      assert.equal(equivalent(pred, gold), equivalent(gold, pred), `${pred} | ${gold}`);
      assert.ok(equivalent(`${pred} `, pred), pred);
      assert.ok(equivalent(`${gold} `, gold), gold);
    }
  }
});

test('gold answers may be numbers; anything else is a clear error', () => {
  assert.ok(equivalent('\\frac{1}{2}', 0.5));
  assert.ok(equivalent(18, '$18'));
  assert.ok(!equivalent(5, 6));
  for (const wrong of [null, undefined, ['5'], {}]) {
    assert.throws(() => equivalent('5', wrong as never), {
      code: 'EEPO_INVALID_ARGUMENT',
      message: /gold must be a string or a number/,
    });
  }
});
