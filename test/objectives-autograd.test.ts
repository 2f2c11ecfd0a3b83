/**
 * Every policy loss against torch's automatic differentiation in float64, of the published formulas and of TRL's own
 * trainer (scripts/make-objectives.py wrote the fixture), and against central differences of its own loss.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { MetricAccumulator } from '../lib/algorithm/accumulator.js';
import { keptLengths, normalizerOf } from '../lib/algorithm/batch.js';
import { cispo, dapo, drGrpo, grpo, gspo } from '../lib/algorithm/grpo.js';
import { KL_ESTIMATORS, type KlEstimator } from '../lib/algorithm/kl.js';
import { nll } from '../lib/algorithm/nll.js';
import type { PolicyLossOptions } from '../lib/algorithm/policy-loss.js';
import { AGGREGATIONS, type Normalizer, type Objective, RATIO_MODES, type TokenBatch } from '../lib/algorithm/types.js';
import { ROOT } from './support/data.js';

const OBJECTIVES = { grpo, drGrpo, dapo, gspo, cispo };
type Name = keyof typeof OBJECTIVES;

interface Fixture {
  batches: Record<
    string,
    Record<'logprob' | 'entropy' | 'behaviorLogprob' | 'policyLogprob' | 'refLogprob' | 'advantage', number[]> & {
      lengths: number[];
      stage: number[];
      mask: number[];
    }
  >;
  cases: {
    kind: 'torch' | 'trl';
    objective: Name;
    batch: string;
    options: PolicyLossOptions;
    normalizer: Normalizer;
    loss: number;
    a: number[];
    b: number[];
  }[];
}

const fixture = JSON.parse(readFileSync(join(ROOT, 'test', 'fixtures', 'objectives.json'), 'utf8')) as Fixture;

function offsetsOf(lengths: readonly number[]): Int32Array {
  const offsets = new Int32Array(lengths.length + 1);
  for (const [k, length] of lengths.entries()) offsets[k + 1] = (offsets[k] as number) + length;
  return offsets;
}

function batchOf(name: string) {
  const raw = fixture.batches[name];
  assert.ok(raw !== undefined);
  return {
    logprob: Float32Array.from(raw.logprob),
    entropy: Float32Array.from(raw.entropy),
    behaviorLogprob: Float32Array.from(raw.behaviorLogprob),
    policyLogprob: Float32Array.from(raw.policyLogprob),
    refLogprob: Float32Array.from(raw.refLogprob),
    advantage: Float32Array.from(raw.advantage),
    offsets: offsetsOf(raw.lengths),
    stage: Uint8Array.from(raw.stage),
    mask: Uint8Array.from(raw.mask),
  } satisfies TokenBatch;
}

/** Each number next to its own size or, of what cancels, to the largest: float32 holds 7 digits. */
function close(actual: ArrayLike<number>, expected: readonly number[], what: string): void {
  assert.equal(actual.length, expected.length);
  for (const [t, value] of expected.entries()) {
    const error = Math.abs((actual[t] as number) - value);
    assert.ok(error <= 3e-7 * Math.abs(value) + 1e-12, `${what}[${t}] is ${actual[t]} instead of ${value}`);
  }
}

describe('against automatic differentiation', () => {
  for (const kind of ['torch', 'trl'] as const) {
    const cases = fixture.cases.filter((one) => one.kind === kind);
    it(`${kind}: ${cases.length} cases`, () => {
      assert.ok(cases.length >= 50);
      for (const [i, { objective, batch, options, normalizer, loss, a, b }] of cases.entries()) {
        const what = `${kind} ${i}: ${objective} on ${batch} ${JSON.stringify(options)}`;
        const result = OBJECTIVES[objective](options)(batchOf(batch), normalizer);
        assert.ok(Math.abs(result.loss - loss) <= 1e-9 * Math.abs(loss) + 1e-12, `${what}: ${result.loss} ${loss}`);
        close(result.a, a, `${what}: a`);
        close(result.b, b, `${what}: b`);
      }
    });
  }

  it('covers every objective, aggregation, estimator, ratio and option', () => {
    const seen = (key: keyof PolicyLossOptions) =>
      new Set(fixture.cases.filter(({ kind }) => kind === 'torch').map(({ options }) => options[key]));
    for (const name of Object.keys(OBJECTIVES)) assert.ok(fixture.cases.some(({ objective }) => objective === name));
    for (const aggregation of AGGREGATIONS) assert.ok(seen('aggregation').has(aggregation));
    for (const estimator of Object.keys(KL_ESTIMATORS)) assert.ok(seen('klEstimator').has(estimator as KlEstimator));
    for (const ratio of RATIO_MODES) assert.ok(seen('ratio').has(ratio));
    for (const key of ['clipHighStage2', 'dualClip', 'stage2Weight', 'entropyCoef'] as const) {
      assert.ok(seen(key).size > 1, key);
    }
    for (const key of ['ratioLevel', 'decoupledLevel'] as const) assert.ok(seen(key).has('sequence'), key);
  });
});

/** Batches of float32 numbers of every size, with masks and both stages. */
const token = fc.record({
  l: fc.float({ min: -6, max: Math.fround(-0.01), noNaN: true }),
  h: fc.float({ min: 0, max: 3, noNaN: true }),
  behavior: fc.float({ min: -1, max: 1, noNaN: true }),
  policy: fc.float({ min: -1, max: 1, noNaN: true }),
  ref: fc.float({ min: -1, max: 1, noNaN: true }),
  kept: fc.boolean(),
});
const sequence = fc.record({
  tokens: fc.array(token, { minLength: 1, maxLength: 4 }),
  advantage: fc.constantFrom(-1.5, -1, 0, 0.5, 2),
  stage: fc.constantFrom(1, 2),
});
const sequences = fc.array(sequence, { minLength: 1, maxLength: 5 });
const options: fc.Arbitrary<PolicyLossOptions> = fc.record({
  ratio: fc.constantFrom(...RATIO_MODES),
  ratioLevel: fc.constantFrom('token', 'sequence'),
  decoupledLevel: fc.constantFrom('token', 'sequence'),
  aggregation: fc.constantFrom(...AGGREGATIONS),
  klCoef: fc.constantFrom(0, 0.3),
  klEstimator: fc.constantFrom(...(Object.keys(KL_ESTIMATORS) as KlEstimator[])),
  entropyCoef: fc.constantFrom(0, 0.05),
  clipHighStage2: fc.constantFrom(null, 0.05, 3),
  stage2Weight: fc.constantFrom(0, 0.5, 1),
});
const names = fc.constantFrom(...(Object.keys(OBJECTIVES) as Name[]));
const RUNS = { numRuns: 150, seed: 11 };

type Sequences = typeof sequences extends fc.Arbitrary<infer T> ? T : never;

function assemble(parts: Sequences): TokenBatch {
  const all = parts.flatMap(({ tokens }) => tokens);
  const offset = (key: 'behavior' | 'policy' | 'ref') => Float32Array.from(all, (t) => t.l + t[key]);
  return {
    logprob: Float32Array.from(all, ({ l }) => l),
    entropy: Float32Array.from(all, ({ h }) => h),
    behaviorLogprob: offset('behavior'),
    policyLogprob: offset('policy'),
    refLogprob: offset('ref'),
    advantage: Float32Array.from(parts.flatMap(({ tokens, advantage }) => tokens.map(() => advantage))),
    offsets: offsetsOf(parts.map(({ tokens }) => tokens.length)),
    stage: Uint8Array.from(parts, ({ stage }) => stage),
    mask: Uint8Array.from(all, ({ kept }) => (kept ? 1 : 0)),
  };
}

const normalizerFor = (batch: TokenBatch): Normalizer => normalizerOf(keptLengths(batch), 8);

describe('a policy loss', () => {
  it('has the gradient of its own loss in l and H (central differences)', () => {
    fc.assert(
      fc.property(names, sequences, options, (name, parts, chosen) => {
        // What has a stop-gradient is no derivative of the loss: CISPO's weight, k3+, GSPO's ratio beside weights of tokens.
        fc.pre(name !== 'cispo' && chosen.klEstimator !== 'k3+' && chosen.decoupledLevel === 'sequence');
        const objective = OBJECTIVES[name](chosen);
        const batch = assemble(parts);
        const normalizer = normalizerFor(batch);
        const { a, b } = objective(batch, normalizer);
        const step = 2 ** -7;
        for (const [key, gradient] of [
          ['logprob', a],
          ['entropy', b],
        ] as const) {
          for (let t = 0; t < a.length; t += 1) {
            const at = (by: number) => {
              const values = batch[key].slice();
              values[t] = (values[t] as number) + by;
              const moved = objective({ ...batch, [key]: values }, normalizer);
              return { loss: moved.loss, x: values[t] as number, a: moved[key === 'logprob' ? 'a' : 'b'][t] as number };
            };
            const [low, high] = [at(-step), at(step)];
            const slope = (high.loss - low.loss) / (high.x - low.x);
            // Between the two the gradient may jump where a clip begins: it then lies between their gradients.
            const bounds = [low.a, gradient[t] as number, high.a];
            const slack = 1e-3 * (1e-3 + Math.max(...bounds.map(Math.abs)));
            assert.ok(
              slope >= Math.min(...bounds) - slack && slope <= Math.max(...bounds) + slack,
              `${name} ${key}[${t}]: ${slope} is not between ${bounds}`,
            );
          }
        }
      }),
      { ...RUNS, numRuns: 400 },
    );
  });

  it('of parts adds up to that of the whole, every metric too', () => {
    fc.assert(
      fc.property(names, sequences, options, fc.integer({ min: 1, max: 3 }), (name, parts, chosen, size) => {
        const objective = OBJECTIVES[name]({ ...chosen, ...(name === 'cispo' ? {} : { dualClip: 1.5 }) });
        const batch = assemble(parts);
        const normalizer = normalizerFor(batch);
        const whole = objective(batch, normalizer);
        const total = new MetricAccumulator();
        const sum = { loss: 0, a: [] as number[], b: [] as number[] };
        for (let i = 0; i < parts.length; i += size) {
          const part = objective(assemble(parts.slice(i, i + size)), normalizer);
          sum.loss += part.loss;
          sum.a.push(...part.a);
          sum.b.push(...part.b);
          total.merge(part.metrics);
        }
        assert.deepEqual([sum.a, sum.b], [[...whole.a], [...whole.b]]);
        assert.ok(Math.abs(sum.loss - whole.loss) <= 1e-9 * (1 + Math.abs(whole.loss)));
        const [merged, expected] = [total.values(), whole.metrics.values()];
        assert.deepEqual(Object.keys(merged).sort(), Object.keys(expected).sort());
        for (const [key, value] of Object.entries(expected)) {
          assert.ok(Math.abs((merged[key] as number) - value) <= 1e-9 * (1 + Math.abs(value)), key);
        }
      }),
      RUNS,
    );
  });

  it('of masked tokens is that of the tokens that are left', () => {
    const objectives: [string, Objective][] = [
      ...Object.entries(OBJECTIVES).map(([name, make]): [string, Objective] => [
        name,
        make({ klCoef: 0.1, entropyCoef: 0.1 }),
      ]),
      ...AGGREGATIONS.map((aggregation): [string, Objective] => [`nll ${aggregation}`, nll({ aggregation })]),
    ];
    fc.assert(
      fc.property(fc.constantFrom(...objectives), sequences, ([name, objective], parts) => {
        const masked = assemble(parts);
        const left = assemble(parts.map((part) => ({ ...part, tokens: part.tokens.filter(({ kept }) => kept) })));
        const spoilt = { ...masked, logprob: masked.logprob.map((l, t) => (masked.mask?.[t] === 0 ? Number.NaN : l)) };
        const result = objective(spoilt, normalizerFor(masked));
        const expected = objective({ ...left, mask: null }, normalizerFor(left));
        const kept = (values: Float32Array) => [...values].filter((_, t) => masked.mask?.[t] === 1);
        assert.deepEqual([kept(result.a), kept(result.b)], [[...expected.a], [...expected.b]], name);
        assert.ok(
          [...result.a, ...result.b].every((value, t) => masked.mask?.[t % result.a.length] === 1 || value === 0),
        );
        assert.equal(result.loss, expected.loss);
        assert.deepEqual(result.metrics.values(), expected.metrics.values());
      }),
      RUNS,
    );
  });

  it('does not tell the stages apart unless it is asked to', () => {
    fc.assert(
      fc.property(names, sequences, options, (name, parts, { clipHighStage2: _, stage2Weight: __, ...same }) => {
        const objective = OBJECTIVES[name](same);
        const batch = assemble(parts);
        const normalizer = normalizerFor(batch);
        const of = (stage: number) => {
          const { loss, a, b } = objective({ ...batch, stage: batch.stage.map(() => stage) }, normalizer);
          return { loss, a, b };
        };
        assert.deepEqual(of(1), of(2));
      }),
      RUNS,
    );
  });

  it('on-policy has the same gradient whatever the surrogate and the level', () => {
    const batch = batchOf('near');
    const on = { ...batch, behaviorLogprob: batch.logprob, policyLogprob: batch.logprob };
    const plain = { klCoef: 0, entropyCoef: 0, aggregation: 'token-mean' } as const;
    const expected = grpo(plain)(on, normalizerFor(on)).a;
    assert.ok(expected.some((value) => value !== 0));
    for (const make of Object.values(OBJECTIVES)) {
      for (const ratio of RATIO_MODES) {
        assert.deepEqual(make({ ...plain, ratio })(on, normalizerFor(on)).a, expected);
      }
    }
  });

  it('stays finite for ratios of e^+-30, and 0 where the advantage is 0', () => {
    for (const shift of [30, -30, 88, -88]) {
      const batch = batchOf('near');
      const far = batch.logprob.map((l) => l - shift);
      const off = { ...batch, behaviorLogprob: far, policyLogprob: far, refLogprob: far };
      for (const [name, make] of Object.entries(OBJECTIVES)) {
        for (const ratio of RATIO_MODES) {
          for (const level of ['token', 'sequence'] as const) {
            const objective = make({ ratio, ratioLevel: level, decoupledLevel: level, klCoef: 0.1 });
            const { loss, a, b } = objective(off, normalizerFor(off));
            assert.ok(
              Number.isFinite(loss) && [...a, ...b].every(Number.isFinite),
              `${name} ${ratio} ${level} ${shift}`,
            );
            const neutral = make({ ratio, ratioLevel: level, klCoef: 0, entropyCoef: 0 });
            const still = neutral({ ...off, advantage: new Float32Array(off.advantage.length) }, normalizerFor(off));
            assert.ok(still.loss === 0 && still.a.every((value) => value === 0), `${name} ${ratio} ${level} ${shift}`);
          }
        }
      }
    }
  });

  it('hands NaN on, so that the step is refused', () => {
    for (const [name, make] of Object.entries(OBJECTIVES)) {
      for (const key of ['logprob', 'behaviorLogprob', 'refLogprob'] as const) {
        const batch = { ...batchOf('near'), mask: null };
        const values = batch[key].slice();
        values[1] = Number.NaN;
        const { loss, a } = make({ klCoef: 0.1 })({ ...batch, [key]: values }, normalizerFor(batch));
        assert.ok(Number.isNaN(loss) && Number.isNaN(a[1]), `${name}: ${key}`);
      }
    }
  });
});

describe('options of a policy loss', () => {
  it('are named where they are wrong', () => {
    const wrong: [PolicyLossOptions, RegExp][] = [
      [{ surrogate: 'trpo' as never }, /surrogate must be 'ppo' or 'cispo', got 'trpo'/],
      [{ klEstimator: 'k4' as never }, /klEstimator must be 'k1', 'k2', 'k3' or 'k3\+', got 'k4'/],
      [{ ratioLevel: 'batch' as never }, /ratioLevel must be 'token' or 'sequence'/],
      [{ clipLow: 1.1 }, /clipLow must be at most 1/],
      [{ clipHighStage2: -0.1 }, /clipHighStage2 must not be negative/],
      [{ dualClip: 1 }, /dualClip must be above 1, got 1/],
      [{ dualClip: 3, surrogate: 'cispo' }, /dualClip = 3 bounds the clipped surrogate/],
      [{ stage2Weight: Number.NaN }, /stage2Weight must not be negative, got NaN/],
    ];
    for (const [given, message] of wrong) assert.throws(() => grpo(given), message);
  });

  it('that divide by the longest response need to know it', () => {
    const batch = batchOf('near');
    const { tokens, sequences: count } = normalizerFor(batch);
    assert.throws(() => drGrpo()(batch, { tokens, sequences: count }), /normalizer\.maxTokens is undefined/);
    assert.throws(
      () => grpo()({ ...batch, mask: new Uint8Array(2) }, normalizerFor(batch)),
      /mask must have one entry/,
    );
  });
});
