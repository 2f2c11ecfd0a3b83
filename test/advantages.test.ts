import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { groupAdvantages, stageSizes } from '../lib/algorithm/advantages.js';
import { InvalidArgumentError } from '../lib/errors.js';

const close = (actual: number, expected: number, tolerance = 1e-6) =>
  assert.ok(Math.abs(actual - expected) <= tolerance, `${actual} is not ${expected}`);

test('a group is centred and divided by its deviation with ddof = 1', () => {
  const { advantages } = groupAdvantages([1, 0, 0, 0], 4);
  // mean 1/4, variance (9 + 3) / 16 / 3 = 1/4
  close(advantages[0] as number, 0.75 / (0.5 + 1e-6));
  close(advantages[1] as number, -0.25 / (0.5 + 1e-6));
});

test('without normalizeByStd the rewards are only centred', () => {
  const { advantages } = groupAdvantages([2, 0], 2, { normalizeByStd: false });
  assert.deepEqual([...advantages], [1, -1]);
});

test('groups do not see each other', () => {
  const both = groupAdvantages([1, 0, 0, 1, 1, 0, 5, 3], 4).advantages;
  assert.deepEqual([...both.subarray(0, 4)], [...groupAdvantages([1, 0, 0, 1], 4).advantages]);
  assert.deepEqual([...both.subarray(4)], [...groupAdvantages([1, 0, 5, 3], 4).advantages]);
});

test('equal rewards give exactly 0, also where the computed deviation would not be 0', () => {
  // 0.1 + 0.1 + 0.1 is not 0.3: the mean differs from the rewards.
  const { advantages, fracRewardZeroStd } = groupAdvantages([0.1, 0.1, 0.1], 3);
  assert.deepEqual([...advantages], [0, 0, 0]);
  assert.equal(fracRewardZeroStd, 1);
});

test('degenerate groups are counted by kind', () => {
  const result = groupAdvantages([0, 0, 1, 1, 0.5, 0.5, 0, 1], 2);
  assert.equal(result.fracRewardZeroStd, 3 / 4);
  assert.equal(result.allZero, 1 / 4);
  assert.equal(result.allOne, 1 / 4);
});

test('a null reward leaves the response out of its group', () => {
  const { advantages } = groupAdvantages([1, null, 0, 1], 4);
  const without = groupAdvantages([1, 0, 1], 3).advantages;
  assert.deepEqual([...advantages], [without[0], 0, without[1], without[2]]);
});

test('any group: sum 0, order kept, shift does not matter', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: -50, max: 50 }), { minLength: 2, maxLength: 12 }),
      fc.integer(),
      (rewards, shift) => {
        const { advantages } = groupAdvantages(rewards, rewards.length);
        close(
          advantages.reduce((sum, a) => sum + a, 0),
          0,
          1e-4,
        );
        for (let i = 1; i < rewards.length; i += 1) {
          const byReward = Math.sign((rewards[i] as number) - (rewards[0] as number));
          assert.equal(Math.sign((advantages[i] as number) - (advantages[0] as number)), byReward);
        }
        const s = shift % 1000;
        const shifted = groupAdvantages(
          rewards.map((r) => r + s),
          rewards.length,
        ).advantages;
        for (const [i, a] of shifted.entries()) close(a, advantages[i] as number, 1e-4);
      },
    ),
  );
});

test('bad sizes and rewards are named', () => {
  const throws = (rewards: (number | null)[], size: number, message: RegExp) =>
    assert.throws(
      () => groupAdvantages(rewards, size),
      (error) => error instanceof InvalidArgumentError && message.test(error.message),
    );
  throws([1, 0, 1], 2, /3 rewards are not a positive multiple of groupSize 2/);
  throws([], 2, /rewards must hold whole groups/);
  throws([1, 0], 0, /groupSize must be an integer of at least 2, got 0/);
  throws([1, 0], 1, /groupSize/);
  throws([1, 0, 1], 1.5, /groupSize/);
  throws([1, Number.NaN], 2, /rewards\[1\] is NaN/);
  throws([Number.POSITIVE_INFINITY, 0], 2, /rewards\[0\] is Infinity/);
});

test('an odd group cannot be split into two stages', () => {
  assert.deepEqual(stageSizes(8), [4, 4]);
  for (const size of [0, 1, 7, 2.5, Number.NaN]) {
    assert.throws(() => stageSizes(size), /groupSize must be an even number/);
  }
});
