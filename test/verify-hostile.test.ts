/** Answers made to hang or to exhaust: what one comparison may take at most, in time and in memory. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { VerifierPool } from '../lib/verify/index.js';
import type { VerifyItem } from '../lib/verify/judge.js';

const repeat = (text: string, count: number): string => text.repeat(count);
const list = (count: number, item: (i: number) => string | number, separator = ','): string =>
  Array.from({ length: count }, (_, i) => item(i)).join(separator);
const nested = (open: string, inner: string, close: string, depth: number): string =>
  repeat(open, depth) + inner + repeat(close, depth);
const matrix = (rows: number, item: (i: number, j: number) => string | number): string =>
  `\\begin{pmatrix}${list(rows, (i) => list(rows, (j) => item(i, j), '&'), '\\\\')}\\end{pmatrix}`;

/** Towers, factorials, sums and roots: little to write, much to compute. */
const CALCULATIONS = [
  '9^{9^{9^{9}}}',
  '9^9^9^9^9^9',
  '-9^{9^{9}}',
  '(-2)^{3^{4^{5}}}',
  '2^{2^{2^{2^{2^{2}}}}}',
  '10^{-10^{10}}',
  '(1+10^{-9})^{10^9}',
  '0.999999999^{999999999}',
  '(10^{300})^{300}',
  `${repeat('9', 900)}^{${repeat('9', 900)}}`,
  `\\frac{${repeat('7', 900)}}{${repeat('3', 900)}}^{99}`,
  `\\sqrt[${repeat('9', 50)}]{2}`,
  `\\sqrt{${repeat('9', 1500)}}`,
  '(9!)!',
  '9!!!!!!!!!!',
  '99999!',
  `${repeat('9', 100)}!`,
  '\\binom{10^9}{5\\cdot 10^8}',
  '\\binom{99999}{50000}',
  '\\sum_{k=1}^{10^{12}} \\frac{1}{k}',
  '\\prod_{k=1}^{10^{9}} k^k',
  '\\sum_{i=1}^{999}\\sum_{j=1}^{999}\\sum_{k=1}^{999} i j k',
  '\\int_0^1 x^{x^x} dx',
  `\\gcd(${repeat('9', 900)}, ${repeat('7', 900)})`,
  `\\operatorname{lcm}(${list(300, (i) => i + 1000)})`,
  `\\max(${list(900, (i) => i)})`,
  '7^{7^{7^{7}}} \\bmod 10^{9}',
  `\\log_{${repeat('9', 99)}}{${repeat('9', 999)}}`,
  '\\sin(10^{300})',
  '\\tan(\\frac{\\pi}{2})^{10^{10}}',
  '\\arcsin(10^{100})',
  'e^{e^{e^{e^{e}}}}',
  'i^{i^{i^{i}}}',
  '(1+i)^{99999}',
  `0.\\overline{${repeat('142857', 6)}}^{99}`,
  `${repeat('1', 200)}_{36}`,
  `5 \\text{ cm}^{999999999}`,
  '\\lfloor 10^{400}\\pi \\rfloor',
  '10^{99999} + 10^{-99999}',
];

/** Expressions with many parts, or deep. */
const SHAPES = [
  list(40, () => '1', '\\pm '),
  list(30, (i) => `x_{${i}}`, ' \\pm '),
  list(25, (i) => `${String.fromCharCode(97 + i)}`, '+'),
  `(${list(12, (i) => String.fromCharCode(97 + i), '+')})^{999}`,
  list(200, (i) => `(x-${i})`, ''),
  list(300, (i) => `\\sin(${i}x)`, '+'),
  nested('(', '1', ')', 900),
  nested('{', '1', '}', 900),
  nested('[', '1', ']', 900),
  nested('\\{', '1', '\\}', 400),
  nested('|', 'x', '|', 500),
  nested('\\sqrt{', '2', '}', 250),
  nested('\\frac{1}{1+', 'x', '}', 150),
  nested('\\frac{', 'x', '}{2}', 150),
  nested('x^{', 'x', '}', 400),
  nested('-', '1', '', 1900),
  nested('\\sin ', 'x', '', 350),
  nested('\\overline{', 'x', '}', 150),
  nested('\\text{', '5', '}', 300),
  nested('\\boxed{', '5', '}', 250),
  nested('\\begin{pmatrix}', '1', '\\end{pmatrix}', 60),
  nested('\\left(', '1', '\\right)', 120),
  `${repeat('1/', 900)}1`,
  `${repeat('1-', 900)}1`,
  `${repeat('2^', 900)}2`,
  repeat('x!', 900),
  `${repeat('5,', 900)}5`,
  `${repeat('5 or ', 380)}5`,
  `${repeat('x<', 600)}x`,
  `${repeat('1=', 900)}1`,
  repeat('5 cm ', 380),
  repeat('\\frac', 350),
  repeat('_{1}', 450),
  repeat('^', 1900),
  repeat("'", 1900),
  repeat('\\', 1900),
  repeat('\\left', 350),
  repeat('$', 1900),
  repeat('\\text{and}', 190),
  repeat('million ', 240),
];

/** Sets, lists, intervals and matrices that must be matched with each other. */
const COLLECTIONS = [
  `\\{${list(500, (i) => i)}\\}`,
  `\\{${list(250, (i) => `\\sqrt{${i}}`)}\\}`,
  `\\{${list(60, (i) => `\\{${i},${i + 1}\\}`)}\\}`,
  `\\{${list(100, () => 'x')}\\}`,
  list(100, (i) => `\\pm ${i}`),
  list(200, (i) => `(${i},${-i})`),
  list(80, (i) => `x_{${i}}=\\frac{${i}}{7}`),
  list(100, (i) => `(${2 * i},${2 * i + 1})`, '\\cup'),
  list(100, (i) => `(-${i},${i})`, '\\cap'),
  list(60, (i) => `x\\neq ${i}`, '\\text{ and }'),
  list(60, (i) => `x^{${i}}`, '<'),
  matrix(20, (i, j) => i * j),
  matrix(12, (i, j) => `\\frac{${i}}{${j + 1}}`),
  matrix(9, (i, j) => `x^{${i}}+${j}`),
  matrix(30, () => 0),
  `\\begin{cases}${list(60, (i) => `x=${i}`, '\\\\')}\\end{cases}`,
  `\\det ${matrix(9, (i, j) => (i === j ? 'x' : i - j))}`,
];

/** An answer that is like `text`, but not the same text: so that all of it is compared. */
const twins = (text: string): string[] => [`${text}+0`, `1 \\cdot ${text}`, text.replace(/(\d)(?!.*\d)/s, '$1 + 1')];

/** A megabyte of the same, ending otherwise: where a search goes back and forth, it is slow here. */
const FLOODS =
  ' |\t|\n|a|0|1.|1,000|{|}|$|\\|(|)|[|\\{|\\boxed{|\\boxed |\\text{|answer is |The answer is: |####|#|</think>|<answer>|</answer>|<|im_end|>|, and |and |is |not |.|;|* |\\quad|\\,|é|−|½|\u3000|= |x=|1/|^{|_{|\\frac{|&|\\\\'
    .split(/(?<!<)\|(?!im_end|>)/)
    .filter((piece) => piece !== '');

function hostileItems(): VerifyItem[] {
  const items: VerifyItem[] = [];
  for (const text of [...CALCULATIONS, ...SHAPES, ...COLLECTIONS]) {
    items.push(
      { prediction: text, gold: '12' },
      { prediction: 'x+1', gold: text },
      { response: `\\boxed{${text}}`, gold: '0.5' },
    );
    items.push({ response: `So the answer is $${text}$.`, gold: '\\frac{1}{3}' });
    for (const twin of twins(text)) items.push({ prediction: text, gold: twin }, { prediction: twin, gold: text });
    items.push({ prediction: text, gold: text.slice(0, -1), options: { compare: { tolerance: 1e-3 } } });
  }
  for (const piece of FLOODS) {
    const flood = repeat(piece, Math.ceil(1e6 / piece.length));
    items.push({ response: `${flood}!`, gold: '12' }, { response: `\\boxed{${flood}}x`, gold: '12' });
    items.push(
      { prediction: flood.slice(0, 1990), gold: '12' },
      { prediction: '12', gold: `${flood.slice(0, 900_000)}?` },
    );
  }
  const many = Array.from({ length: 50_000 }, (_, i) => `\\boxed{${i}}`);
  items.push(
    { response: many.join(' and '), gold: '7' },
    { response: many.join(''), gold: '7' },
    { response: many.join(' so '), gold: '7' },
  );
  items.push({ response: repeat('9', 1e7), gold: '9' }, { response: repeat('\\boxed{9}\n', 1e6), gold: '9' });
  return items;
}

/** Peak memory, in MiB, of the processes that this one has started. */
function peakOfChildren(): number {
  const children = readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, 'utf8').trim().split(' ');
  const peaks = children.map((pid) => {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return Number(/^VmHWM:\s*(\d+) kB/m.exec(status)?.[1] ?? 0) / 1024;
  });
  return Math.max(...peaks);
}

test('nothing hangs, nothing exhausts: the worst comparison is within the bounds', { timeout: 120_000 }, async (t) => {
  const problems: string[] = [];
  const pool = new VerifierPool({
    workers: 1,
    onProblem: ({ outcome, message }) => problems.push(`${outcome}: ${message}`),
  });
  await pool.verify([{ prediction: '\\sqrt 2', gold: '2^{1/2}' }]);
  const items = hostileItems();
  let worst = { ms: 0, what: '' };
  const outcomes = new Map<string, number>();
  for (const item of items) {
    const start = performance.now();
    const [verdict] = await pool.verify([item]);
    const ms = performance.now() - start;
    const what = JSON.stringify(item).slice(0, 120);
    if (ms > worst.ms) worst = { ms, what };
    const { outcome = '', reason = '' } = verdict ?? {};
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    assert.ok(!['timeout', 'memory', 'crashed'].includes(outcome), `${what}: ${outcome} ${reason}`);
  }
  const peak = peakOfChildren();
  assert.equal(pool.stats.restarts, 0);
  // 256 MiB beside the program itself is what a worker may hold.
  assert.ok(peak < 256 + 192, `${peak.toFixed(0)} MiB`);
  assert.ok(
    problems.every((problem) => problem.startsWith('undecided')),
    problems.join(),
  );
  const counts = [...outcomes].map(([outcome, count]) => `${outcome} ${count}`).join(', ');
  t.diagnostic(
    `${items.length} hostile comparisons: worst ${worst.ms.toFixed(0)} ms (${worst.what}), mean ${pool.stats.msPerComparison.toFixed(1)} ms, ` +
      `peak of the worker ${peak.toFixed(0)} MiB; ${counts}`,
  );
  await pool.close();
});
