import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { complementaryLossReference } from '../lib/algorithm/unlearning.js';
import { logitGradient, relativeError, softmaxStatistics, tokenLogits } from './support/softmax.js';

const OPEN = { alpha: Number.POSITIVE_INFINITY } as const;

test('Eq. 10: 1 / |O1| over responses, 1 / T_k over all their tokens, open or not', () => {
  const p = [0.5, 0.5, 0.9];
  const entropy = [0.1, 5, 0.1];
  const result = complementaryLossReference(p.map(Math.log), entropy, [0, 2, 3], { alpha: 0.3, window: 1 });
  const expected = (Math.log(1 - 0.5) / 2 + Math.log(1 - 0.9)) / 2;
  assert.ok(Math.abs(result.loss - expected) < 1e-12);
  assert.deepEqual([...result.gate], [1, 0, 1]);
  assert.equal(result.a[1], 0);
  assert.ok(Math.abs((result.a[0] as number) + 0.25) < 1e-12, '-w p / (1 - p) with w = 1/4, p = 1/2');
  assert.ok(Math.abs((result.a[2] as number) + 4.5) < 1e-9);
  assert.deepEqual([result.tokens, result.openTokens, result.activeTokens], [3, 2, 2]);
});

test('a is the gradient of L by the logits (central differences), p from 1e-6 to 1 - 1e-7', () => {
  // log(1 - p) as the log-sum-exp of the others minus that of all: no subtraction from 1.
  const logSum = (z: readonly number[]) => Math.log(z.reduce((sum, value) => sum + Math.exp(value), 0));
  const lossAt = (z: readonly number[]) => logSum(z.slice(1)) - logSum(z);
  for (const p of [1e-6, 1e-4, 0.01, 0.3, 0.5, 0.9, 0.999, 1 - 1e-5, 1 - 1e-7]) {
    const z = tokenLogits(p, 6);
    const { logprob } = softmaxStatistics(z, 0);
    const { a, loss } = complementaryLossReference([logprob], [0], [0, 1], { ...OPEN, epsLow: 0, epsHigh: 0 });
    assert.ok(Math.abs(loss - lossAt(z)) <= 1e-8 * Math.abs(loss));
    const h = 1e-4;
    const numeric = z.map((_, j) => {
      const shifted = (by: number) => lossAt(z.map((value, i) => (i === j ? value + by : value)));
      return (shifted(h) - shifted(-h)) / (2 * h);
    });
    assert.ok(relativeError(logitGradient(z, 0, a[0] as number, 0), numeric) < 1e-5, `p = ${p}`);
    // |dL/dz_y| = p: dominant tokens are pushed hardest.
    assert.ok(Math.abs((logitGradient(z, 0, a[0] as number, 0)[0] as number) + p) < 1e-6 * p + 1e-12);
  }
});

test('ascending lowers the probability of what was sampled', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: -4, max: 4, noNaN: true }), { minLength: 2, maxLength: 8 }),
      fc.constantFrom('zero' as const, 'saturate' as const),
      fc.constantFrom('complementary' as const, 'nll' as const),
      (z, clampGrad, loss) => {
        const before = softmaxStatistics(z, 0).logprob;
        const { a, activeTokens } = complementaryLossReference([before], [0], [0, 1], { ...OPEN, clampGrad, loss });
        assert.ok((a[0] as number) <= 0);
        const gradient = logitGradient(z, 0, a[0] as number, 0);
        const after = softmaxStatistics(
          z.map((value, j) => value + 1e-2 * (gradient[j] as number)),
          0,
        ).logprob;
        if (activeTokens > 0 && before < -1e-6) assert.ok(after < before, `${before} rose to ${after}`);
      },
    ),
  );
});

test('nll: -log p, the same push for every open token, its gradient by the logits', () => {
  const p = [1e-12, 0.2, 0.5, 1 - 1e-9];
  const logprob = p.map(Math.log);
  const result = complementaryLossReference(logprob, [0, 0, 9, 0], [0, 4], { alpha: 0.3, window: 1, loss: 'nll' });
  assert.deepEqual([...result.gate], [1, 1, 0, 1]);
  assert.deepEqual([...result.a], [-0.25, -0.25, 0, -0.25]);
  assert.deepEqual([result.clampedLow, result.clampedHigh, result.activeTokens], [0, 0, 3]);
  const expected = -(Math.log(1e-12) + Math.log(0.2) + Math.log(1 - 1e-9)) / 4;
  assert.ok(Math.abs(result.loss - expected) < 1e-12);
  const z = tokenLogits(0.4, 5);
  const lossAt = (logits: readonly number[]) => -softmaxStatistics([...logits], 0).logprob;
  const { a, loss } = complementaryLossReference([softmaxStatistics(z, 0).logprob], [0], [0, 1], {
    ...OPEN,
    loss: 'nll',
  });
  assert.ok(Math.abs(loss - lossAt(z)) < 1e-12);
  const numeric = z.map((_, j) => {
    const shifted = (by: number) => lossAt(z.map((value, i) => (i === j ? value + by : value)));
    return (shifted(1e-4) - shifted(-1e-4)) / 2e-4;
  });
  assert.ok(relativeError(logitGradient(z, 0, a[0] as number, 0), numeric) < 1e-6);
  assert.throws(() => complementaryLossReference([-1], [0], [0, 1], { loss: 'mse' as never }), /loss must be/);
});

test('clipped tokens: no gradient with zero, the gradient of the bound with saturate', () => {
  const logprob = [Math.log(1e-8), Math.log(1 - 1e-9), 0, Math.log(0.5)];
  const entropy = [0, 0, 0, 0];
  const options = { ...OPEN, epsLow: 1e-6, epsHigh: 1e-5 };
  const zero = complementaryLossReference(logprob, entropy, [0, 4], { ...options, clampGrad: 'zero' });
  assert.deepEqual([zero.a[0], zero.a[1], zero.a[2]], [0, 0, 0]);
  assert.deepEqual([zero.openTokens, zero.clampedLow, zero.clampedHigh, zero.activeTokens], [4, 1, 2, 1]);
  const saturate = complementaryLossReference(logprob, entropy, [0, 4], { ...options, clampGrad: 'saturate' });
  assert.equal(saturate.loss, zero.loss);
  assert.ok(Number.isFinite(saturate.loss));
  assert.ok(Math.abs((saturate.a[0] as number) + 0.25e-6) < 1e-11);
  for (const t of [1, 2]) assert.ok(Math.abs((saturate.a[t] as number) / (-0.25 * (1 - 1e-5) * 1e5) - 1) < 1e-9);
  assert.equal(saturate.activeTokens, 4);
});

test('the bounds themselves are inside', () => {
  const bound = complementaryLossReference([Math.log(0.25), Math.log(0.75)], [0, 0], [0, 2], {
    ...OPEN,
    epsLow: Math.exp(Math.log(0.25)),
    epsHigh: 0.25,
    oneMinusP: [0.75, 0.25],
  });
  assert.deepEqual([bound.clampedLow, bound.activeTokens], [0, 2]);
});

test('a given 1 - p is used where exp(l) has lost it', () => {
  const { a } = complementaryLossReference([-0], [0], [0, 1], { ...OPEN, epsHigh: 0, oneMinusP: [1e-20] });
  assert.ok(Math.abs((a[0] as number) / -1e20 - 1) < 1e-12);
});

test('weights replace 1 / (|O1| T_k), so parts of a batch add up to it', () => {
  const logprob = [-0.1, -0.2, -0.3, -0.4, -0.5];
  const entropy = [0.1, 0.2, 0.1, 0.5, 0.1];
  const whole = complementaryLossReference(logprob, entropy, [0, 2, 5]);
  const first = complementaryLossReference(logprob.slice(0, 2), entropy.slice(0, 2), [0, 2], { weight: [1 / 4] });
  const second = complementaryLossReference(logprob.slice(2), entropy.slice(2), [0, 3], { weight: [1 / 6] });
  assert.ok(Math.abs(first.loss + second.loss - whole.loss) < 1e-15);
  assert.deepEqual([...first.a, ...second.a], [...whole.a]);
});

test('a closed gate leaves nothing', () => {
  const { loss, a, openTokens } = complementaryLossReference([-0.1, -0.1], [2, 2], [0, 2]);
  assert.deepEqual([loss, openTokens, ...a], [0, 0, 0, 0]);
});

test('wrong arguments are named', () => {
  assert.throws(() => complementaryLossReference([-1], [0, 0], [0, 1]), /entropy must have one entry per token/);
  assert.throws(
    () => complementaryLossReference([-1], [0], [0, 1], { weight: [] }),
    /weight must have one entry per sequence/,
  );
  assert.throws(() => complementaryLossReference([-1], [0], [0, 1], { epsHigh: 1 }), /epsLow and epsHigh/);
});
