import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { countdown } from '../lib/tasks/countdown.js';
import { compareAnswers, extractAnswer, judge, lastBoxed } from '../lib/verify/index.js';
import { forAll, valueOrNamedError } from './support/properties.js';

const part = fc.constantFrom(
  '\\frac',
  '\\sqrt',
  '\\boxed',
  '\\left',
  '\\right',
  '\\text',
  '\\begin{pmatrix}',
  '\\end{pmatrix}',
  '\\begin{cases}',
  '\\pi',
  '\\infty',
  '\\cup',
  '\\in',
  '\\pm',
  '\\cdot',
  '\\overline',
  '\\binom',
  '\\sum',
  '\\lim',
  '\\log',
  '\\sin',
  '\\%',
  '\\$',
  '\\\\',
  '{',
  '}',
  '(',
  ')',
  '[',
  ']',
  '|',
  '^',
  '_',
  '&',
  ',',
  ';',
  ':',
  '.',
  '=',
  '<',
  '\\le',
  '+',
  '-',
  '*',
  '/',
  '!',
  '%',
  '$',
  '$$',
  '#### ',
  '<answer>',
  '</answer>',
  ' ',
  '\n',
  'x',
  'y',
  'i',
  'e',
  '0',
  '1',
  '2',
  '10',
  '9999999999',
  '0.5',
  '1e99',
  '1/3',
  'and',
  'or',
  'the answer is',
  'none',
  'constructor',
  '__proto__',
  '\0',
  '\ud800',
  '²',
  '½',
  '−',
  '，',
);
const latex = fc.oneof(
  fc.array(part, { maxLength: 20 }).map((parts) => parts.join('')),
  fc.array(part, { maxLength: 20 }).map((parts) => parts.join(' ')),
  fc.string({ unit: 'binary', maxLength: 60 }),
);
/** One thing many times: what is quadratic shows. */
const many = fc
  .tuple(fc.array(part, { minLength: 1, maxLength: 3 }), fc.integer({ min: 100, max: 4000 }))
  .map(([parts, times]) => parts.join('').repeat(times));

describe('answers that a model may write', () => {
  it('are compared without an exception, the same both ways, and are equal to themselves or undecided', async () => {
    await forAll(fc.tuple(latex, latex), 250, ([a, b]) => {
      const [there, back] = [compareAnswers(a, b), compareAnswers(b, a)];
      assert.equal(there.equal, back.equal, `${JSON.stringify([a, b])}: ${there.reason}, ${back.reason}`);
      assert.equal(typeof there.reason, 'string');
    });
  });

  it('are found in any response', async () => {
    await forAll(fc.oneof(latex, many), 200, async (response) => {
      const answer = await valueOrNamedError(() => extractAnswer(response));
      assert.ok(answer === null || typeof answer === 'string');
      lastBoxed(response);
    });
  });

  it('of any length are judged in time', async () => {
    await forAll(fc.tuple(many, latex), 30, async ([response, gold]) => {
      const verdict = await valueOrNamedError(() => judge({ response: `\\boxed{${response}}`, gold }));
      assert.equal(typeof verdict?.outcome, 'string');
    });
  });

  it('of 10 MB, and nested 100,000 times', async () => {
    for (const response of [
      '\\boxed{'.repeat(100_000),
      `\\boxed{${'('.repeat(100_000)}1${')'.repeat(100_000)}}`,
      '\\frac{'.repeat(100_000),
      '1+'.repeat(5e6),
      '$'.repeat(1e7),
      '{'.repeat(1e7),
    ]) {
      const verdict = await valueOrNamedError(() => judge({ response, gold: '1' }));
      assert.equal(typeof verdict?.outcome, 'string');
    }
  });
});

describe('countdown', () => {
  it('any response has a reward of 0 or 1', async () => {
    const task = countdown();
    const problem = task.splits.train?.[0];
    assert.ok(problem);
    const piece = fc.constantFrom(
      '1',
      '2',
      '99999999999999999999',
      '+',
      '-',
      '*',
      '/',
      '(',
      ')',
      '=',
      ' ',
      '\n',
      'x',
      '.',
      '1e5',
      '__proto__',
      '\0',
    );
    const response = fc.oneof(
      fc.string(),
      fc.array(piece, { maxLength: 30 }).map((parts) => parts.join('')),
      piece.map((text) => text.repeat(50_000)),
    );
    await forAll(response, 300, async (text) => {
      const [reward] = (await valueOrNamedError(async () => task.reward([{ problem, response: text } as never]))) ?? [];
      assert.ok(reward === 0 || reward === 1, String(reward));
    });
  });
});
