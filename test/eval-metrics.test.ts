import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { InvalidArgumentError } from '../lib/errors.js';
import { answerClasses, majAtK, majorityClass, type Vote } from '../lib/eval/majority.js';
import { mathSet } from '../lib/eval/math-set.js';
import {
  bootstrapInterval,
  meanEstimate,
  shareEstimate,
  standardError,
  wilsonInterval,
} from '../lib/eval/statistics.js';
import { verifyMath } from '../lib/verify/index.js';

const near = (x: number, y: number, tolerance = 1e-12): void =>
  assert.ok(Math.abs(x - y) <= tolerance, `${x} is not ${y}`);

describe('statistics', () => {
  it('has the standard error with ddof 1', () => {
    // deviations -0.5, 0.5: variance 0.5, by the root of 2
    near(standardError([0, 1]) as number, Math.sqrt(0.5 / 2));
    assert.equal(standardError([0.3]), null);
    assert.equal(standardError([0.3, 0.3, 0.3]), 0);
  });

  it("has Wilson's interval, with a width at 0 and 1 too", () => {
    // Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    const published: [number, number, number, number][] = [
      [81, 263, 0.2553, 0.3662],
      [15, 148, 0.0624, 0.1605],
      [0, 20, 0, 0.1611],
      [1, 29, 0.0061, 0.1718],
    ];
    for (const [c, n, low, high] of published) {
      const interval = wilsonInterval(c, n);
      near(interval[0], low, 5e-5);
      near(interval[1], high, 5e-5);
    }
    assert.equal(wilsonInterval(30, 30)[1], 1);
    assert.ok(wilsonInterval(30, 30)[0] > 0.85);
  });

  it('bootstraps problems: the same numbers every time, about as wide as the normal interval', () => {
    const values = Array.from({ length: 200 }, (_, i) => (i % 8) / 8);
    const interval = bootstrapInterval(values);
    assert.deepEqual(bootstrapInterval(values), interval);
    const { value, standardError: error } = meanEstimate(values);
    near(interval[0], value - 1.96 * (error as number), 0.005);
    near(interval[1], value + 1.96 * (error as number), 0.005);
    assert.deepEqual(bootstrapInterval([0.25, 0.25]), [0.25, 0.25]);
  });

  it('estimates a share', () => {
    const { value, interval } = shareEstimate([1, 0, 1, 1]);
    assert.equal(value, 0.75);
    assert.deepEqual(interval, wilsonInterval(3, 4));
  });
});

/** Numbers that are the same modulo 10 are the same answer. */
const modulo10 = async (pairs: readonly (readonly [string, string])[]) =>
  pairs.map(([x, y]) => Number(x) % 10 === Number(y) % 10);

const wrong = (...answers: (string | null)[]): Vote[] =>
  answers.map((answer) => ({ answer, verdict: answer === null ? 'no-answer' : 'wrong' }));

describe('maj@k', () => {
  it('joins equal answers, keeps the gold class apart, and gives no vote to a response without an answer', async () => {
    const votes: Vote[] = [
      ...wrong('3', '13', null, '5'),
      { answer: '7', verdict: 'correct' },
      { answer: '27', verdict: 'correct' },
      // Equal to a correct answer by the function, but judged wrong: the verdict counts.
      ...wrong('17'),
      { answer: '15', verdict: 'undecided' },
      { answer: '15', verdict: 'undecided' },
      ...wrong('', ' '),
    ];
    assert.deepEqual(await answerClasses(votes, modulo10), [1, 1, null, 2, 0, 0, 3, 4, 4, null, null]);
  });

  it('compares each spelling once, with the first member of every class', async () => {
    const seen: string[] = [];
    const counting = async (pairs: readonly (readonly [string, string])[]) => {
      seen.push(...pairs.map(([x, y]) => `${x}=${y}`));
      return modulo10(pairs);
    };
    await answerClasses(wrong('1', '1', '2', '1', '12', '2', '11'), counting);
    assert.deepEqual(seen, ['2=1', '12=1', '12=2', '11=1', '11=2']);
  });

  it('takes the first seen of a tie; nobody votes, nobody wins', () => {
    assert.equal(majorityClass([2, 0, 0, 2]), 2);
    assert.equal(majorityClass([0, 2, 2, 0]), 0);
    assert.equal(majorityClass([null, 2, 0, 0]), 0);
    assert.equal(majorityClass([null, null]), null);
  });

  it('is the mean over disjoint blocks of k samples', () => {
    const classes = [0, 0, 1, 1, 1, 0, null, null];
    assert.equal(majAtK(classes, 8), 1, 'three of each, the right one came first');
    assert.equal(majAtK(classes, 4), 1 / 2);
    assert.equal(majAtK(classes, 2), 1 / 4);
    assert.equal(majAtK(classes, 3), 1 / 2, 'the last two are left over');
    assert.equal(majAtK(classes, 1), 3 / 8, 'maj@1 is the share of right samples');
    assert.throws(() => majAtK(classes, 9), InvalidArgumentError);
    assert.throws(() => majAtK(classes, 0), /k must be between 1 and the number of samples 8, got 0/);
  });

  it('compares plain numbers as the verifier does, and everything else by it', async () => {
    const { sameAnswer } = mathSet('s', 's', []);
    const numbers = [
      '7',
      '07',
      '7.0',
      '7.00',
      '-7',
      '0',
      '-0',
      '0.0',
      '0.5',
      '.5',
      '0.50',
      '5',
      '70',
      '7.05',
      '1000',
      '1,000',
    ];
    const pairs = numbers.flatMap((x) => numbers.map((y): [string, string] => [x, y]));
    const verdicts = await verifyMath(pairs.map(([prediction, gold]) => ({ prediction, gold })));
    const same = await (sameAnswer as NonNullable<typeof sameAnswer>)(pairs);
    for (const [i, pair] of pairs.entries()) assert.equal(same[i], verdicts[i]?.equal, pair.join(' and '));
    // Four sevens, three zeros, three halves, two thousands, and four numbers that are alone.
    assert.equal(same.filter(Boolean).length, 4 * 4 + 3 * 3 + 3 * 3 + 2 * 2 + 4);
  });

  it('is over equivalence in mathematics', async () => {
    const { sameAnswer } = mathSet('s', 's', []);
    const votes = wrong('\\frac{1}{2}', '0.5', '\\boxed{2}', '50', '1/2', '2');
    const classes = await answerClasses(votes, sameAnswer as NonNullable<typeof sameAnswer>);
    assert.deepEqual(classes, [1, 1, 2, 3, 1, 2]);
  });
});
