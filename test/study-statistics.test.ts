/** Student's distribution and exact tests against SciPy 1.x: scipy.stats.t, scipy.special.betainc, scipy.stats.binomtest. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  incompleteBeta,
  logGamma,
  meanInterval,
  signTest,
  studentCdf,
  studentQuantile,
} from '../lib/study/statistics.js';

function close(actual: number, expected: number, tolerance: number, what: string): void {
  assert.ok(Math.abs(actual - expected) <= tolerance * Math.abs(expected), `${what}: ${actual}, expected ${expected}`);
}

describe('Student', () => {
  const QUANTILES: readonly [df: number, ...values: number[]][] = [
    [1, 3.0776835371752544, 12.706204736174694, 63.656741162871526],
    [2, 1.8856180831641272, 4.302652729749462, 9.924843200918287],
    [4, 1.533206274058944, 2.7764451051977934, 4.604094871349992],
    [7, 1.4149239276505086, 2.364624251592784, 3.4994832973504924],
    [9, 1.3830287383966329, 2.262157162798205, 3.249835541592126],
    [29, 1.311433647301551, 2.045229642132703, 2.756385903670605],
    [100, 1.290074761346516, 1.9839715185235518, 2.6258905214380173],
  ];

  it('has the quantiles of SciPy', () => {
    for (const [df, ...values] of QUANTILES)
      for (const [i, p] of [0.9, 0.975, 0.995].entries()) {
        close(studentQuantile(p, df), values[i] as number, 1e-12, `t(${p}, ${df})`);
        close(studentQuantile(1 - p, df), -(values[i] as number), 1e-11, `t(${1 - p}, ${df})`);
      }
    assert.equal(studentQuantile(0.5, 3), 0);
  });

  it('has the distribution of SciPy', () => {
    close(studentCdf(-2.5, 3), 0.04385332350403278, 1e-13, 'cdf');
    close(studentCdf(0.7, 11), 0.7507677671528018, 1e-13, 'cdf');
    close(studentCdf(30, 2), 0.9994453686590201, 1e-13, 'cdf');
    for (const [i, [a, b, x]] of (
      [
        [0.5, 0.5, 0.25],
        [2, 3, 0.4],
        [20, 0.5, 0.9],
        [50, 60, 0.5],
      ] as const
    ).entries())
      close(
        incompleteBeta(x, a, b),
        [0.33333333333333337, 0.5247999999999999, 0.041327483918087285, 0.8309072939016693][i] as number,
        1e-12,
        `I_${x}(${a}, ${b})`,
      );
    for (let n = 2, factorial = 1; n < 20; n += 1) {
      close(Math.exp(logGamma(n)), factorial, 1e-12, `gamma(${n})`);
      factorial *= n;
    }
    close(logGamma(0.5), Math.log(Math.sqrt(Math.PI)), 1e-14, 'gamma(1/2)');
  });

  it('refuses what has no quantile', () => {
    assert.throws(() => studentQuantile(1, 3), /p = 1; expected 0 < p < 1/);
    assert.throws(() => studentQuantile(0.9, 0), /df = 0; expected at least 1/);
  });
});

describe('the interval of a mean', () => {
  it('is that of SciPy', () => {
    const interval = meanInterval([0.466, 0.481, 0.452, 0.47, 0.459]);
    assert.equal(interval?.n, 5);
    close(interval.mean, 0.46559999999999996, 1e-14, 'mean');
    close(interval.half as number, 0.013675225280119108, 1e-11, 'half');
    close(interval.sd as number, 0.011013627921806678, 1e-11, 'sd');
  });

  it('of one value has no width, of none is none', () => {
    assert.deepEqual(meanInterval([3]), { n: 1, mean: 3, sd: null, half: null });
    assert.equal(meanInterval([]), null);
  });

  it('covers the mean in 95 of 100 samples of five', () => {
    // a small generator of our own: the test must not depend on luck
    let state = 12345;
    const uniform = (): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state + 0.5) / 2 ** 32;
    };
    const normal = (): number => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
    const covered = Array.from({ length: 4000 }, () => {
      const { mean, half } = meanInterval(Array.from({ length: 5 }, normal)) as { mean: number; half: number };
      return Math.abs(mean) < half ? 1 : 0;
    }).reduce<number>((sum, one) => sum + one, 0);
    assert.ok(Math.abs(covered / 4000 - 0.95) < 0.012, `${covered} of 4000`);
  });
});

describe('the sign test', () => {
  it('is the binomial test of SciPy', () => {
    const signs = (positive: number, n: number): number[] =>
      Array.from({ length: n }, (_, i) => (i < positive ? 1 : -2));
    close(signTest(signs(5, 5)) as number, 0.0625, 1e-15, '5 of 5');
    close(signTest(signs(4, 5)) as number, 0.375, 1e-15, '4 of 5');
    close(signTest(signs(7, 9)) as number, 0.1796875, 1e-15, '7 of 9');
    close(signTest(signs(0, 6)) as number, 0.03125, 1e-15, '0 of 6');
  });

  it('passes over differences of 0', () => {
    assert.equal(signTest([0, 0]), null);
    assert.equal(signTest([0, 1, 1, 1, 1, 1]), 0.0625);
  });
});
