import assert from 'node:assert/strict';
import { test } from 'node:test';
import { passAtK } from '../lib/eval/pass-at-k.js';

/** The share of k-subsets of n samples that hold one of the first c, by visiting every subset. */
function byEnumeration(n: number, c: number, k: number): number {
  let subsets = 0;
  let hits = 0;
  for (let mask = 0; mask < 2 ** n; mask += 1) {
    const members = Array.from({ length: n }, (_, i) => i).filter((i) => (mask >> i) & 1);
    if (members.length !== k) continue;
    subsets += 1;
    if (members.some((i) => i < c)) hits += 1;
  }
  return hits / subsets;
}

test('pass@k equals the enumeration of all subsets', () => {
  for (let n = 1; n <= 8; n += 1) {
    for (let c = 0; c <= n; c += 1) {
      for (let k = 1; k <= n; k += 1) {
        const expected = byEnumeration(n, c, k);
        assert.ok(Math.abs(passAtK(n, c, k) - expected) < 1e-12, `n ${n}, c ${c}, k ${k}`);
      }
    }
  }
});

test('pass@1 is the share of correct samples; none and all are exact', () => {
  assert.ok(Math.abs(passAtK(64, 16, 1) - 0.25) < 1e-12);
  assert.equal(passAtK(64, 0, 64), 0);
  assert.equal(passAtK(64, 64, 1), 1);
  assert.equal(passAtK(64, 1, 64), 1);
});

test('large numbers neither overflow nor leave [0, 1]', () => {
  // 1 - C(9990, 100) / C(10000, 100) by logarithms of factorials
  const logChoose = (n: number, k: number) =>
    Array.from({ length: k }, (_, i) => Math.log((n - i) / (k - i))).reduce((s, x) => s + x, 0);
  const expected = -Math.expm1(logChoose(9990, 100) - logChoose(10000, 100));
  assert.ok(Math.abs(passAtK(10000, 10, 100) - expected) < 1e-10);
  assert.equal(passAtK(100000, 50000, 1000), 1);
});

test('it rises with c and with k', () => {
  for (let k = 1; k < 16; k += 1) assert.ok(passAtK(16, 3, k + 1) >= passAtK(16, 3, k));
  for (let c = 0; c < 16; c += 1) assert.ok(passAtK(16, c + 1, 4) >= passAtK(16, c, 4));
});

test('impossible counts are errors', () => {
  assert.throws(() => passAtK(4, 5, 1), /got 5 correct of 4 samples/);
  assert.throws(() => passAtK(4, -1, 1), /correct/);
  assert.throws(() => passAtK(4, 1, 5), /k must be between 1 and the number of samples 4, got 5/);
  assert.throws(() => passAtK(4, 1, 0), /k must be/);
  assert.throws(() => passAtK(4, 0.5, 1), /correct/);
});
