/** The fused unlearning gradient against its parts, which have tests and references of their own. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  type ComplementaryGradOptions,
  complementaryGrad,
  complementaryLoss,
  tokenGrad,
  tokenStats,
} from '../lib/kernels.js';
import { Tensor } from '../lib/tensor.js';

const rows = 9;
const vocab = 2500;
const offsets = [0, 4, 4, 9];

function noise(count: number, scale: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return scale * (state / 2 ** 31 - 1);
  });
}

/** Row 1 is certain of its target, row 5 nearly rules it out: both are clamped at the bounds below. */
function logitsOf(): Float32Array {
  const logits = noise(rows * vocab, 4, 7);
  logits[1 * vocab + 11] = 60;
  logits[5 * vocab + 15] = -60;
  return logits;
}
const targets = Array.from({ length: rows }, (_, row) => 10 + row);

function closeTo(actual: ArrayLike<number>, expected: ArrayLike<number>, bound: number, what: string): void {
  let size = 0;
  for (let i = 0; i < expected.length; i++) size = Math.max(size, Math.abs(expected[i] as number));
  assert.equal(actual.length, expected.length, what);
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs((actual[i] as number) - (expected[i] as number));
    assert.ok(difference <= bound * size, `${what}[${i}]: ${actual[i]} is not ${expected[i]}`);
  }
}

const entropy = Float32Array.of(0.1, 0.2, 0.9, 0.9, 0.05, 0.1, 0.1, 2, 0.1);
const cases: [string, ComplementaryGradOptions][] = [
  ['the defaults', { entropy, offsets }],
  ['every gate open', { entropy, offsets, alpha: Number.POSITIVE_INFINITY }],
  [
    'saturated, weighted, warm',
    { entropy, offsets, alpha: 9, clampGrad: 'saturate', weight: [2, 5, 0.1], temperature: 1.4 },
  ],
  ['wide bounds', { entropy, offsets, alpha: 9, epsLow: 1e-3, epsHigh: 1e-2 }],
  ['a weight of nothing', { entropy, offsets, alpha: 9, weight: [0, 1, 1] }],
];

describe('complementaryGrad', () => {
  for (const [name, options] of cases) {
    it(`is tokenStats, complementaryLoss and tokenGrad in one: ${name}`, async () => {
      const { temperature = 1, ...rule } = options;
      const weightless = name === 'a weight of nothing';
      const parts = Tensor.from(logitsOf(), { shape: [rows, vocab] });
      const stats = await tokenStats(parts, targets, { temperature });
      const loss = await complementaryLoss({ ...rule, logprob: stats.logprob, oneMinusP: stats.oneMinusP });
      await tokenGrad(parts, targets, { a: loss.a, temperature });

      const fused = Tensor.from(logitsOf(), { shape: [rows, vocab] });
      const report = await complementaryGrad(fused, targets, options);
      for (const key of ['tokens', 'openTokens', 'clampedLow', 'clampedHigh', 'activeTokens'] as const) {
        // of what weighs nothing no probability is computed, so nothing is known to be clamped
        const expected = weightless && key === 'clampedHigh' ? 0 : loss[key];
        assert.equal(report[key], expected, key);
      }
      assert.deepEqual([...report.gate], [...loss.gate]);
      assert.ok(Math.abs(report.loss - loss.loss) <= 1e-6 * Math.abs(loss.loss));
      closeTo(await report.a.data(), await loss.a.data(), 1e-6, 'a');
      closeTo(await fused.data(), await parts.data(), 2e-6, 'gradient');
      const seen = await report.logprob.data();
      for (const [row, l] of (await stats.logprob.data()).entries()) {
        const open = report.gate[row] === 1 && !(weightless && row < 4);
        assert.ok(open ? seen[row] === l : Number.isNaN(seen[row]), `logprob of row ${row}`);
      }
    });

    it(`through a head: ${name}`, async () => {
      const hidden = Tensor.from(noise(rows * 16, 1, 3), { shape: [rows, 16] });
      const head = Tensor.from(noise(vocab * 16, 1.5, 4), { shape: [vocab, 16] });
      const { temperature = 1, ...rule } = options;
      const stats = await tokenStats({ hidden, head }, targets, { temperature });
      const loss = await complementaryLoss({ ...rule, logprob: stats.logprob, oneMinusP: stats.oneMinusP });
      const parts = await tokenGrad({ hidden, head }, targets, { a: loss.a, temperature });
      const fused = await complementaryGrad({ hidden, head }, targets, options);
      assert.equal(fused.activeTokens, loss.activeTokens);
      closeTo(await fused.hidden.data(), await parts.hidden.data(), 5e-6, 'hidden');
      closeTo(await fused.head.data(), await parts.head.data(), 5e-6, 'head');
    });
  }

  it('carries the gate from chunk to chunk', async () => {
    const change = { alpha: 0.35, clampGrad: 'saturate' as const, weight: [0.2, 0.1] };
    const whole = Tensor.from(logitsOf(), { shape: [rows, vocab] });
    const all = await complementaryGrad(whole, targets, { ...change, entropy, offsets: [0, 4, 9] });
    const carry = new Float32Array(4).fill(Number.NaN);
    const gates: number[][] = [];
    const gradients: number[] = [];
    // tokens 0-2 and 4-5, then 3 and 6-8
    for (const [own, ends] of [
      [
        [0, 1, 2, 4, 5],
        [0, 3, 5],
      ],
      [
        [3, 6, 7, 8],
        [0, 1, 4],
      ],
    ] as const) {
      const data = own.flatMap((row) => [...logitsOf().subarray(row * vocab, (row + 1) * vocab)]);
      const part = Tensor.from(Float32Array.from(data), { shape: [own.length, vocab] });
      const report = await complementaryGrad(
        part,
        own.map((row) => targets[row] as number),
        { ...change, entropy: own.map((row) => entropy[row] as number), offsets: ends, carry },
      );
      gates.push([...report.gate]);
      const values = await part.data();
      own.forEach((row, i) => {
        gradients[row] = values[i * vocab + 3] as number;
      });
    }
    const order = [0, 1, 2, 4, 5, 3, 6, 7, 8];
    assert.deepEqual(
      gates.flat(),
      order.map((row) => all.gate[row]),
    );
    assert.ok(gates.flat().includes(0) && gates.flat().includes(1));
    const data = await whole.data();
    assert.deepEqual(
      gradients,
      Array.from({ length: rows }, (_, row) => data[row * vocab + 3]),
    );
    assert.deepEqual([...carry], [entropy[3], entropy[2], entropy[8], entropy[7]]);
  });

  it('takes no row at all, and leaves everything as it was when an argument is wrong', async () => {
    const none = await complementaryGrad(Tensor.zeros([0, 5]), [], { entropy: [], offsets: [0] });
    assert.deepEqual([none.loss, none.tokens, none.gate.length], [0, 0, 0]);
    const logits = Tensor.from(logitsOf(), { shape: [rows, vocab] });
    const before = await logits.data();
    const bad: [Partial<ComplementaryGradOptions>, number[], RegExp][] = [
      [{}, targets.with(3, vocab), /targets\[3\] is 2500/],
      [{ offsets: [0, 5] }, targets, /offsets must end with the number of tokens, 9, got 5/],
      [{ entropy: entropy.subarray(1) }, targets, /entropy .*9/],
      [{ entropy: entropy.map((h, i) => (i === 4 ? Number.NaN : h)) }, targets, /entropy\[4\] is nan/],
      [{ epsLow: 0.7, epsHigh: 0.4 }, targets, /epsLow \+ epsHigh/],
      [{ weight: [1] }, targets, /weight/],
    ];
    for (const [change, ids, message] of bad) {
      await assert.rejects(complementaryGrad(logits, ids, { entropy, offsets, ...change }), message);
    }
    assert.deepEqual(await logits.data(), before);
  });
});
