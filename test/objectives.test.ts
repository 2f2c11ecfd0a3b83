import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MetricAccumulator } from '../lib/algorithm/accumulator.js';
import { normalizerOf } from '../lib/algorithm/batch.js';
import { type GrpoOptions, grpo, grpoLoss } from '../lib/algorithm/grpo.js';
import { k3 } from '../lib/algorithm/kl.js';
import { nllLoss } from '../lib/algorithm/nll.js';
import type { Aggregation, TokenBatch } from '../lib/algorithm/types.js';
import { logitGradient, relativeError, softmaxStatistics, tokenLogits } from './support/softmax.js';

const NO_EXTRAS = { klCoef: 0, entropyCoef: 0 } as const;

/** A batch of one-entry-per-token arrays; sequences of the given lengths. */
function batchOf(lengths: readonly number[], fields: Partial<Record<keyof TokenBatch, readonly number[]>>): TokenBatch {
  const offsets = [0];
  for (const length of lengths) offsets.push((offsets.at(-1) as number) + length);
  const tokens = offsets.at(-1) as number;
  const array = (key: keyof TokenBatch, fallback: number) =>
    Float32Array.from(fields[key] ?? Array<number>(tokens).fill(fallback));
  return {
    logprob: array('logprob', -1),
    entropy: array('entropy', 0.5),
    behaviorLogprob: array('behaviorLogprob', -1),
    policyLogprob: fields.policyLogprob ? array('policyLogprob', -1) : null,
    refLogprob: fields.refLogprob ? array('refLogprob', -1) : null,
    advantage: array('advantage', 1),
    offsets: Int32Array.from(offsets),
    stage: Uint8Array.from(fields.stage ?? lengths.map(() => 1)),
  };
}

const globalOf = (batch: TokenBatch) =>
  normalizerOf(
    Array.from(
      { length: batch.offsets.length - 1 },
      (_, k) => (batch.offsets[k + 1] as number) - (batch.offsets[k] as number),
    ),
  );

/** One token with ratio `ratio` to its behaviour. */
const oneToken = (ratio: number, advantage: number, options: GrpoOptions = {}) => {
  const batch = batchOf([1], { logprob: [-1], behaviorLogprob: [-1 - Math.log(ratio)], advantage: [advantage] });
  return grpoLoss(batch, { tokens: 1, sequences: 1 }, { ...NO_EXTRAS, ...options });
};

test('on-policy the ratio is 1, the loss the mean of -A and a the policy gradient -A / N', () => {
  const batch = batchOf([2, 1], { advantage: [2, -1, 0.5], stage: [1, 2] });
  const { loss, a, b, metrics } = grpoLoss(batch, globalOf(batch), NO_EXTRAS);
  assert.ok(Math.abs(loss + 1.5 / 3) < 1e-7);
  for (const [t, expected] of [-2 / 3, 1 / 3, -0.5 / 3].entries()) {
    assert.ok(Math.abs((a[t] as number) - expected) < 1e-7);
  }
  assert.deepEqual(
    [...b],
    [0, 0, 0].map((zero) => -zero),
  );
  const values = metrics.values();
  for (const stage of ['stage1', 'stage2']) {
    assert.equal(values[`actor/ratio/${stage}/mean`], 1);
    assert.equal(values[`actor/ratio/${stage}/max`], 1);
    assert.equal(values[`actor/clip_frac/${stage}`], 0);
  }
});

test('clip: positive advantages stop above 1 + clipHigh, negative ones below 1 - clipLow', () => {
  const cases: [ratio: number, advantage: number, clipped: boolean][] = [
    [1.19, 1, false],
    [1.21, 1, true],
    [0.5, 1, false],
    [0.81, -1, false],
    [0.79, -1, true],
    [3, -1, false],
    [3, 0, false],
  ];
  for (const [ratio, advantage, clipped] of cases) {
    const { loss, a, metrics } = oneToken(ratio, advantage);
    const r = clipped ? (advantage > 0 ? 1.2 : 0.8) : ratio;
    assert.ok(Math.abs(loss + advantage * r) < 1e-6, `ratio ${ratio}, A ${advantage}: loss ${loss}`);
    assert.ok(Math.abs((a[0] as number) - (clipped ? 0 : -advantage * ratio)) < 1e-6);
    assert.equal(metrics.get('actor/clip_frac/stage1'), clipped ? 1 : 0);
  }
});

test('clip-higher lets positive advantages go further', () => {
  assert.notEqual(oneToken(1.25, 1, { clipHigh: 0.28 }).a[0], 0);
  assert.equal(oneToken(1.25, 1, { clipHigh: 0.2 }).a[0], 0);
});

test('clip fractions are told apart by stage and by the sign of the advantage', () => {
  const ratios = [2, 1, 0.5, 1, 2, 2];
  const batch = batchOf([4, 2], {
    behaviorLogprob: ratios.map((r) => -1 - Math.log(r)),
    advantage: [1, 1, -1, -1, 1, -1],
    stage: [1, 2],
  });
  const { metrics } = grpoLoss(batch, globalOf(batch), NO_EXTRAS);
  assert.equal(metrics.get('actor/clip_frac/stage1'), 0.5);
  assert.equal(metrics.get('actor/clip_frac/stage1/positive'), 0.5);
  assert.equal(metrics.get('actor/clip_frac/stage1/negative'), 0.5);
  assert.equal(metrics.get('actor/clip_frac/stage2'), 0.5);
  assert.equal(metrics.get('actor/clip_frac/stage2/positive'), 1);
  assert.equal(metrics.get('actor/clip_frac/stage2/negative'), 0);
  assert.equal(metrics.get('actor/clip_frac'), 0.5);
  assert.ok(Math.abs((metrics.get('actor/ratio/stage2/max') as number) - 2) < 1e-6);
});

test('ratio modes differ only where theta_k and the sampling weights do', () => {
  const lengths = [3];
  const on = batchOf(lengths, {
    logprob: [-1, -2, -3],
    behaviorLogprob: [-1, -2.1, -3],
    policyLogprob: [-1, -2.1, -3],
  });
  const results = (['behavior', 'policy', 'decoupled'] as const).map((ratio) =>
    grpoLoss(on, globalOf(on), { ...NO_EXTRAS, ratio }),
  );
  for (const result of results) assert.deepEqual([...result.a], [...(results[0] as { a: Float32Array }).a]);

  // theta' made the token 4 times less likely than theta_k; theta is still theta_k.
  const off = batchOf([1], { logprob: [-1], policyLogprob: [-1], behaviorLogprob: [-1 - Math.log(4)] });
  const one = { tokens: 1, sequences: 1 };
  assert.equal(grpoLoss(off, one, { ...NO_EXTRAS, ratio: 'behavior' }).a[0], 0, 'ratio 4 is clipped away');
  assert.equal(grpoLoss(off, one, { ...NO_EXTRAS, ratio: 'policy' }).a[0], -1, 'ratio 1');
  assert.equal(grpoLoss(off, one, { ...NO_EXTRAS, ratio: 'decoupled' }).a[0], -2, 'ratio 1, weight 4 capped at 2');
  assert.equal(grpoLoss(off, one, { ...NO_EXTRAS, ratio: 'decoupled', decoupledCap: 3 }).a[0], -3);
});

test('a and b are the gradient of the loss by the logits (central differences), every term on', () => {
  const options: GrpoOptions = { klCoef: 0.3, entropyCoef: 0.05 };
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: -3, max: 3, noNaN: true }), { minLength: 4, maxLength: 7 }),
      fc.constantFrom(-1.5, -0.2, 0.7, 2),
      fc.constantFrom(0.5, 0.9, 1.1, 1.7),
      fc.double({ min: -1, max: 1, noNaN: true }),
      (z, advantage, ratio, refShift) => {
        const at = softmaxStatistics(z, 0);
        const behavior = at.logprob - Math.log(ratio);
        const ref = at.logprob + refShift;
        const lossOf = (logits: readonly number[]) => grpoInDoubles(logits, advantage, behavior, ref, 0.3, 0.05);
        const batch = batchOf([1], {
          logprob: [at.logprob],
          entropy: [at.entropy],
          behaviorLogprob: [behavior],
          refLogprob: [ref],
          advantage: [advantage],
        });
        const { loss, a, b } = grpoLoss(batch, { tokens: 1, sequences: 1 }, options);
        assert.ok(Math.abs(loss - lossOf(z)) < 1e-5 * (1 + Math.abs(loss)));
        const analytic = logitGradient(z, 0, a[0] as number, b[0] as number);
        const numeric = centralDifferences(lossOf, z);
        for (const [j, g] of analytic.entries()) {
          assert.ok(Math.abs(g - (numeric[j] as number)) < 1e-5, `${analytic} against ${numeric}`);
        }
      },
    ),
    { numRuns: 200 },
  );
});

/** The same loss written as one formula of the logits, V outcomes, target 0. */
function grpoInDoubles(
  z: readonly number[],
  advantage: number,
  behavior: number,
  ref: number,
  beta: number,
  lambda: number,
) {
  const { logprob, entropy } = softmaxStatistics(z, 0);
  const r = Math.exp(logprob - behavior);
  const clipped = Math.min(Math.max(r, 0.8), 1.2);
  const d = ref - logprob;
  return -Math.min(r * advantage, clipped * advantage) + beta * (Math.exp(d) - d - 1) - lambda * entropy;
}

function centralDifferences(f: (z: readonly number[]) => number, z: readonly number[], h = 1e-5): number[] {
  return z.map((_, j) => {
    const shifted = (by: number) => f(z.map((value, i) => (i === j ? value + by : value)));
    return (shifted(h) - shifted(-h)) / (2 * h);
  });
}

test('the (a, b) row of NLL matches central differences at p from 1e-6 to 1 - 1e-7', () => {
  for (const p of [1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 1e-5, 1 - 1e-7]) {
    const z = tokenLogits(p, 5);
    const { logprob, entropy } = softmaxStatistics(z, 0);
    const batch = batchOf([1], { logprob: [logprob], entropy: [entropy] });
    const { loss, a, b } = nllLoss(batch, { tokens: 1, sequences: 1 });
    assert.ok(Math.abs(loss + logprob) <= 1e-6 * Math.abs(logprob));
    const numeric = centralDifferences((logits) => -softmaxStatistics(logits, 0).logprob, z, 1e-3);
    assert.ok(relativeError(logitGradient(z, 0, a[0] as number, b[0] as number), numeric) < 1e-5, `p = ${p}`);
  }
});

test('k3 is 0 at equality, positive elsewhere, and its gradient is 1 - exp(d)', () => {
  assert.deepEqual(k3(-2, -2), { value: 0, gradient: -0 });
  for (const d of [-5, -1, -1e-4, 1e-4, 0.5, 2.3]) {
    const { value, gradient } = k3(-3, -3 + d);
    assert.ok(value > 0);
    const h = 1e-6;
    const numeric = (k3(-3 + h, -3 + d).value - k3(-3 - h, -3 + d).value) / (2 * h);
    assert.ok(Math.abs(gradient - numeric) < 1e-5 * (1 + Math.abs(gradient)), `d = ${d}`);
  }
});

test('where a clamp of k3 acts, the gradient is 0', () => {
  assert.deepEqual(k3(-30, -2), { value: 10, gradient: 0 });
  assert.deepEqual(k3(-4, -1), { value: 10, gradient: 0 }, 'exp(3) - 4 > 10');
  assert.deepEqual(k3(-1, -13), { value: 10, gradient: 0 }, '12 - 1 > 10');
  assert.deepEqual(k3(-1, Number.NEGATIVE_INFINITY), { value: 10, gradient: 0 });
  assert.notEqual(k3(-1, -11).gradient, 0);
});

test('log-probs of -Infinity stay finite', () => {
  const batch = batchOf([1], { logprob: [Number.NEGATIVE_INFINITY], refLogprob: [-1] });
  const { loss, a } = grpoLoss(batch, { tokens: 1, sequences: 1 });
  assert.ok(Number.isFinite(loss));
  assert.equal(Math.abs(a[0] as number), 0);
});

test('NaN is passed on, not hidden', () => {
  const batch = batchOf([2], { logprob: [Number.NaN, -1] });
  const { loss, a } = grpoLoss(batch, { tokens: 2, sequences: 1 }, NO_EXTRAS);
  assert.ok(Number.isNaN(loss) && Number.isNaN(a[0]));
});

test('aggregations weigh tokens as their names say', () => {
  const expected: Record<Aggregation, number[]> = {
    'token-mean': [1 / 4, 1 / 4, 1 / 4, 1 / 4],
    'seq-mean-token-mean': [1 / 6, 1 / 6, 1 / 6, 1 / 2],
    'seq-mean-token-sum': [1 / 2, 1 / 2, 1 / 2, 1 / 2],
    'seq-mean-token-sum-norm': [1 / 16, 1 / 16, 1 / 16, 1 / 16],
  };
  for (const [aggregation, weights] of Object.entries(expected) as [Aggregation, number[]][]) {
    const batch = batchOf([3, 0, 1], {});
    const normalizer = { ...globalOf(batch), maxTokens: 8 };
    const { a } = grpoLoss(batch, normalizer, { ...NO_EXTRAS, aggregation });
    for (const [t, w] of weights.entries()) assert.ok(Math.abs((a[t] as number) + w) < 1e-7, aggregation);
    assert.deepEqual([...nllLoss(batch, normalizer, { aggregation }).a], [...a]);
  }
});

test('an advantage per sequence is the same as that advantage on each of its tokens', () => {
  const perToken = batchOf([2, 3], { advantage: [1, 1, -2, -2, -2] });
  const perSequence = { ...perToken, advantage: Float32Array.of(1, -2) };
  const one = grpoLoss(perToken, globalOf(perToken), NO_EXTRAS);
  const other = grpoLoss(perSequence, globalOf(perToken), NO_EXTRAS);
  assert.deepEqual([...one.a], [...other.a]);
  assert.equal(one.loss, other.loss);
});

test('micro-batches add up to the mini-batch: loss, a, b and every metric', () => {
  const value = fc.float({ min: -4, max: 0, noNaN: true });
  const sequence = fc.record({
    tokens: fc.array(fc.tuple(value, value, value, value), { minLength: 1, maxLength: 5 }),
    advantage: fc.constantFrom(-1, 0, 0.5, 2),
    stage: fc.constantFrom(1, 2),
  });
  fc.assert(
    fc.property(
      fc.array(sequence, { minLength: 1, maxLength: 8 }),
      fc.integer({ min: 1, max: 4 }),
      fc.constantFrom<Aggregation>('token-mean', 'seq-mean-token-mean', 'seq-mean-token-sum'),
      fc.constantFrom('behavior' as const, 'policy' as const, 'decoupled' as const),
      (sequences, size, aggregation, ratio) => {
        const make = (part: typeof sequences) => {
          const all = part.flatMap(({ tokens }) => tokens);
          return batchOf(
            part.map(({ tokens }) => tokens.length),
            {
              logprob: all.map((t) => t[0]),
              behaviorLogprob: all.map((t) => t[1]),
              policyLogprob: all.map((t) => t[2]),
              refLogprob: all.map((t) => t[3]),
              entropy: all.map((t) => -t[0]),
              advantage: part.flatMap(({ tokens, advantage }) => tokens.map(() => advantage)),
              stage: part.map(({ stage }) => stage),
            },
          );
        };
        const objective = grpo({ klCoef: 0.1, entropyCoef: 0.01, aggregation, ratio });
        const whole = make(sequences);
        const normalizer = globalOf(whole);
        const expected = objective(whole, normalizer);
        const total = new MetricAccumulator();
        const a: number[] = [];
        const b: number[] = [];
        let loss = 0;
        for (let i = 0; i < sequences.length; i += size) {
          const part = objective(make(sequences.slice(i, i + size)), normalizer);
          loss += part.loss;
          a.push(...part.a);
          b.push(...part.b);
          total.merge(part.metrics);
        }
        assert.deepEqual(a, [...expected.a]);
        assert.deepEqual(b, [...expected.b]);
        assert.ok(Math.abs(loss - expected.loss) <= 1e-9 * (1 + Math.abs(loss)));
        const values = expected.metrics.values();
        const merged = total.values();
        assert.deepEqual(Object.keys(merged).sort(), Object.keys(values).sort());
        for (const [name, metric] of Object.entries(values)) {
          assert.ok(Math.abs((merged[name] as number) - metric) <= 1e-9 * (1 + Math.abs(metric)), name);
        }
        assert.ok(Math.abs((values['actor/loss'] as number) - expected.loss) <= 1e-9 * (1 + Math.abs(loss)));
      },
    ),
    { numRuns: 200 },
  );
});

test('wrong input is named', () => {
  const batch = batchOf([2], {});
  const one = { tokens: 2, sequences: 1 };
  assert.throws(() => grpoLoss(batch, one), /refLogprob is missing: klCoef 0.0001 needs a reference model/);
  assert.throws(
    () => grpoLoss(batch, one, { ...NO_EXTRAS, ratio: 'policy' }),
    /policyLogprob is missing: ratio 'policy'/,
  );
  assert.throws(() => grpoLoss(batch, { tokens: 1, sequences: 1 }, NO_EXTRAS), /normalizer/);
  assert.throws(() => grpoLoss({ ...batch, offsets: Int32Array.of(0, 3) }, one, NO_EXTRAS), /offsets end at 3/);
  assert.throws(() => grpoLoss({ ...batch, stage: Uint8Array.of(3) }, one, NO_EXTRAS), /stage\[0\] must be 1 or 2/);
  assert.throws(
    () => grpoLoss({ ...batch, entropy: new Float32Array(1) }, one, NO_EXTRAS),
    /entropy must have one entry/,
  );
  assert.throws(() => grpo({ clipLow: -0.1 }), /clipLow must not be negative/);
  assert.throws(() => grpo({ ratio: 'exact' as never }), /ratio must be/);
  assert.throws(() => grpo({ aggregation: 'mean' as never }), /aggregation must be/);
});
