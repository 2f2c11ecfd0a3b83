import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EntropyGate, movingMeanEntropy, tokenGate } from '../lib/algorithm/gate.js';

test('the window grows at the start of a response and never crosses into another', () => {
  const entropy = [4, 2, 0, 1, 10, 20];
  assert.deepEqual([...movingMeanEntropy(entropy, [0, 4, 6], 3)], [4, 3, 2, 1, 10, 15]);
  assert.deepEqual([...movingMeanEntropy(entropy, [0, 4, 6], 1)], entropy);
});

test('empty responses have no tokens and disturb nothing', () => {
  assert.deepEqual([...movingMeanEntropy([1, 3], [0, 0, 1, 1, 2], 3)], [1, 3]);
});

test('the gate is strict: a mean of exactly alpha stays closed', () => {
  assert.deepEqual([...tokenGate([0.25, 0.25, 0.24], [0, 1, 2, 3], { alpha: 0.25, window: 1 })], [0, 0, 1]);
  assert.deepEqual([...tokenGate([100, 5], [0, 2], { alpha: Number.POSITIVE_INFINITY })], [1, 1]);
});

test('packing responses together changes no gate', () => {
  const entropies = fc.array(fc.double({ min: 0, max: 2, noNaN: true }), { maxLength: 8 });
  fc.assert(
    fc.property(fc.array(entropies, { maxLength: 6 }), fc.integer({ min: 1, max: 5 }), (responses, window) => {
      const offsets = [0];
      for (const response of responses) offsets.push((offsets.at(-1) as number) + response.length);
      const packed = [...tokenGate(responses.flat(), offsets, { window })];
      const alone = responses.flatMap((response) => [...tokenGate(response, [0, response.length], { window })]);
      assert.deepEqual(packed, alone);
    }),
  );
});

test('step: the mean over the last m iterations, fewer at the start', () => {
  const gate = new EntropyGate({ gate: 'step', alpha: 0.3, window: 3 });
  const decisions = [0.6, 0.2, 0.09, 0.3, 0.6].map((h) => gate.decide(h));
  const means = [0.6, 0.4, 0.89 / 3, 0.59 / 3, 0.33];
  decisions.forEach(({ movingEntropy, skip, stepOpen, alpha }, i) => {
    assert.ok(Math.abs(movingEntropy - (means[i] as number)) < 1e-12);
    assert.equal(stepOpen, (means[i] as number) < 0.3);
    assert.equal(skip, !stepOpen);
    assert.equal(alpha, Number.POSITIVE_INFINITY, 'an open step opens every token');
  });
  assert.deepEqual(gate.history, [0.09, 0.3, 0.6]);
});

test('every reading decides as documented at low and at high entropy', () => {
  const table = [
    ['token', 0.3, false, false],
    ['step', Number.POSITIVE_INFINITY, false, true],
    ['token+step', 0.3, false, true],
    ['always', Number.POSITIVE_INFINITY, false, false],
    ['never', 0.3, true, true],
  ] as const;
  for (const [mode, alpha, skipLow, skipHigh] of table) {
    const low = new EntropyGate({ gate: mode }).decide(0.1);
    const high = new EntropyGate({ gate: mode }).decide(1);
    assert.deepEqual([low.skip, low.alpha, high.skip], [skipLow, alpha, skipHigh], mode);
    assert.deepEqual([low.stepOpen, high.stepOpen], [true, false], 'logged in every reading');
  }
});

test('a restored history continues as if never interrupted', () => {
  const entropies = [0.5, 0.4, 0.2, 0.1, 0.35];
  const gate = new EntropyGate({ gate: 'step' });
  const whole = entropies.map((h) => gate.decide(h));
  const first = new EntropyGate({ gate: 'step' });
  for (const h of entropies.slice(0, 3)) first.decide(h);
  const second = new EntropyGate({ gate: 'step' });
  second.restore(first.history);
  assert.deepEqual(
    entropies.slice(3).map((h) => second.decide(h)),
    whole.slice(3),
  );
});

test('wrong options are named', () => {
  assert.throws(() => new EntropyGate({ gate: 'tokens' as never }), /gate must be .* got "tokens"/);
  assert.throws(() => new EntropyGate({ alpha: 0 }), /alpha must be a positive number/);
  assert.throws(() => new EntropyGate({ window: 0 }), /window must be an integer/);
  assert.throws(() => new EntropyGate().decide(Number.NaN), /mean entropy must be a finite number/);
  assert.throws(() => movingMeanEntropy([1], [0, 2], 3), /offsets end at 2/);
});
