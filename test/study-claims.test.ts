/** How numbers are read off a run, and what claims make of them, on runs that are made up. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { judgeClaim, type Lookup, verdictOf } from '../lib/study/claims.js';
import { type ClaimSpec, parseStudy } from '../lib/study/schema.js';
import { bestAt, interpolate, parseRows, pathOf, type RunData, readValue, seriesOf } from '../lib/study/series.js';
import { meanInterval } from '../lib/study/statistics.js';

/** A run that measured `curves`, with one second and four samples an iteration. */
function runOf(curves: Record<string, readonly (number | undefined)[]>): RunData {
  const length = Math.max(...Object.values(curves).map((values) => values.length));
  const rows = Array.from({ length }, (_, i) => ({
    iteration: i + 1,
    metrics: {
      ...Object.fromEntries(
        Object.entries(curves).flatMap(([metric, values]) => (values[i] === undefined ? [] : [[metric, values[i]]])),
      ),
      seconds: i + 1,
      samples: 4 * (i + 1),
    } as Record<string, number>,
  }));
  return { rows, seconds: length };
}

/** A claim with the defaults of the file. */
function claim(text: string): ClaimSpec {
  const { claim: claims } = parseStudy(
    `[study]\nname = "s"\nout = "o"\nbase = "b"\nseeds = [1]\n[[method]]\nname = "a"\n[[method]]\nname = "b"\n[[claim]]\ntext = "it does"\n${text}`,
    'study.toml',
  );
  return claims[0] as ClaimSpec;
}

describe('a reading', () => {
  const run = runOf({ acc: [0.1, undefined, 0.3, undefined, 0.5], h: [5, 4, 3, 2, 1] });
  const value = (metric: string, reading: object, stop: number | null = null) =>
    readValue(run, metric, reading, stop)?.value;

  it('is the last measurement, or the last up to an iteration', () => {
    assert.equal(value('acc', {}), 0.5);
    assert.equal(value('acc', { at: 4 }), 0.3);
    assert.equal(value('acc', {}, 4), 0.3);
    assert.equal(value('acc', { at: 0 }), undefined);
    assert.equal(value('nothing', {}), undefined);
  });

  it('is a mean over iterations', () => {
    assert.equal(value('h', { range: [2, 4] }), 3);
    assert.equal(value('h', { range: [2, 4] }, 3), 3.5);
    assert.equal(value('h', { range: [9, 12] }), undefined);
  });

  it('is where a metric reaches a value, or all there was', () => {
    assert.deepEqual(readValue(run, 'acc', { crosses: 0.3 }), { value: 3, censored: false });
    assert.deepEqual(readValue(run, 'acc', { crosses: 0.9 }), { value: 5, censored: true });
    assert.deepEqual(readValue(run, 'acc', { crosses: 0.5 }, 4), { value: 4, censored: true });
    assert.deepEqual(readValue(run, 'h', { crosses: 2, below: true }), { value: 4, censored: false });
    assert.deepEqual(readValue(run, 'acc', { crosses: 0.3, cost: 'samples' }), { value: 12, censored: false });
    assert.deepEqual(readValue(run, 'acc', { crosses: 0.3, cost: 'seconds' }), { value: 3, censored: false });
  });

  it('of a smoothed curve waits for a whole window', () => {
    const noisy = runOf({ share: [0.9, 0, 0, 0.6, 0.6, 0.6] });
    assert.equal(readValue(noisy, 'share', { crosses: 0.5 })?.value, 1);
    assert.equal(readValue(noisy, 'share', { crosses: 0.5, smooth: 2 })?.value, 5);
  });
});

describe('a path', () => {
  it('is read at equal x', () => {
    const path = pathOf(runOf({ x: [1, undefined, 3], y: [10, 11, 30] }), 'x', 'y');
    assert.deepEqual(path, [
      [1, 10],
      [3, 30],
    ]);
    assert.equal(interpolate(path, 2), 20);
    assert.equal(interpolate(path, 9), 30);
    assert.equal(interpolate(path, 0), 10);
    assert.equal(interpolate([], 0), null);
  });

  it('gives the best y it has at x, whichever way it passes', () => {
    // up to 3, and back lower: at 2 it had 5, later 1
    const path = [
      [1, 5],
      [3, 5],
      [1, -1],
    ] as const;
    assert.deepEqual(bestAt(path, 2), { value: 5, beyond: false });
    assert.deepEqual(bestAt(path, 4), { value: 5, beyond: true });
    assert.deepEqual(bestAt([[2, 7]], 2), { value: 7, beyond: false });
    assert.equal(bestAt([], 2), null);
  });

  it('is made of whole lines with numbers', () => {
    const rows = parseRows(
      '{"iteration":1,"a":0.5,"b":null}\n{"c":1}\nnull\n{"iteration":2,"a":"x","b":3}\n{"iteration":3,"a',
    );
    assert.deepEqual(rows, [
      { iteration: 1, metrics: { a: 0.5 } },
      { iteration: 2, metrics: { b: 3 } },
    ]);
    assert.deepEqual(seriesOf({ rows, seconds: 1 }, 'b'), [[2, 3]]);
  });
});

describe('a verdict', () => {
  const spec = { direction: 'higher', margin: 0, minSeeds: 3 } as const;
  const of = (values: number[], more: object = {}) => verdictOf({ ...spec, ...more }, meanInterval(values));

  it('holds where the whole interval is on the claimed side', () => {
    assert.equal(of([1, 1.1, 0.9]).verdict, 'holds');
    assert.equal(of([-1, -1.1, -0.9], { direction: 'lower' }).verdict, 'holds');
    assert.equal(of([1, 1.1, 0.9], { margin: 0.5 }).verdict, 'holds');
  });

  it('says why it does not', () => {
    assert.deepEqual(of([-1, -1.1, -0.9]), { verdict: 'does not hold', reason: 'the opposite is shown' });
    assert.match(of([1, -1, 0.5]).reason, /contains 0/);
    assert.match(of([1, 1.1, 0.9], { margin: 1 }).reason, /not shown to be as large as 1/);
    assert.deepEqual(of([1, 1.1, 0.9], { direction: 'lower' }).reason, 'the opposite is shown');
    assert.match(of([0, 0, 0]).reason, /contains 0/);
  });

  it('waits for seeds', () => {
    assert.deepEqual(of([1, 1.1]), { verdict: 'not enough seeds', reason: '2 of at least 3' });
    assert.deepEqual(verdictOf(spec, null), { verdict: 'not enough seeds', reason: '0 of at least 3' });
  });

  it('of sameness needs an interval within the margin', () => {
    const same = { direction: 'same', margin: 0.5 };
    assert.equal(of([0.1, -0.1, 0], same).verdict, 'holds');
    assert.match(of([1, -1, 0.5], same).reason, /reaches beyond/);
    assert.match(of([1, 1.1, 0.9], same).reason, /differ by more/);
  });
});

describe('a claim', () => {
  const runs: Record<string, RunData[]> = {
    // eepo is ahead by 0.1 +- 0.02 and took three iterations, grpo four or never
    eepo: [0.5, 0.6, 0.7].map((end) => runOf({ acc: [0.1, 0.2, end, end], div: [0.9, 0.85, 0.8, 0.7] })),
    grpo: [0.4, 0.52, 0.58].map((end) => runOf({ acc: [0.1, 0.2, 0.3, end], div: [0.9, 0.8, 0.6, 0.4] })),
    worse: [0.1, 0.2, 0.1].map((end) => runOf({ acc: [0.1, 0.1, 0.1, end], div: [1, 1, 1, 1] })),
  };
  const units = ['0', '1', '2'];
  const lookup: Lookup = (method, unit) => {
    const data = runs[method]?.[Number(unit)];
    return data === undefined ? null : { data, stop: null };
  };
  const judge = (text: string, all: readonly string[] = units) => judgeClaim(claim(text), lookup, () => all);

  it('compares pairs', () => {
    const { verdict, comparisons } = judge('metric = "acc"\ncompare = ["eepo", "grpo"]\nminSeeds = 3');
    assert.equal(verdict, 'holds');
    const [one] = comparisons;
    assert.ok(Math.abs((one?.difference?.mean as number) - 0.1) < 1e-12);
    assert.ok(Math.abs((one?.relative as number) - 0.2) < 1e-12);
    assert.equal(one?.signTest, 0.25);
    assert.deepEqual(one?.missing, []);
  });

  it('against several holds only against each', () => {
    const both = judge('metric = "acc"\ncompare = ["eepo", ["grpo", "worse"]]\nminSeeds = 3');
    assert.deepEqual([both.verdict, both.comparisons.length], ['holds', 2]);
    const not = judge('metric = "acc"\ncompare = ["grpo", ["worse", "eepo"]]\nminSeeds = 3');
    assert.deepEqual([not.verdict, not.reason], ['does not hold', 'not against eepo']);
  });

  it('names what is missing', () => {
    const { verdict, comparisons } = judge('metric = "acc"\ncompare = ["eepo", "grpo"]\nminSeeds = 3', ['0', '1', '7']);
    assert.equal(verdict, 'not enough seeds');
    assert.deepEqual(comparisons[0]?.missing, ['7']);
  });

  it('counts runs in which nothing came', () => {
    const found = judge('metric = "acc"\ncompare = ["eepo", "grpo"]\ncrosses = 0.5\ndirection = "lower"\nminSeeds = 3');
    const [one] = found.comparisons;
    assert.deepEqual(one?.censored, { a: 0, b: 1 });
    assert.deepEqual(
      one?.pairs.map(({ a, b }) => [a, b]),
      [
        [3, 4],
        [3, 4],
        [3, 4],
      ],
    );
    assert.equal(found.verdict, 'holds');
  });

  it('compares at an earlier end of training', () => {
    const { comparisons } = judge('metric = "acc"\ncompare = ["eepo@3", "grpo@3"]');
    assert.deepEqual(
      comparisons[0]?.pairs.map(({ b }) => b),
      [0.3, 0.3, 0.3],
    );
  });

  it('compares at equal accuracy along the other path', () => {
    const { comparisons } = judge('metric = "div"\ncompare = ["eepo", "grpo"]\nequal = "acc"');
    const [first, , last] = comparisons[0]?.pairs ?? [];
    // grpo never gets to 0.5 in the first pair: its end stands for it
    assert.deepEqual([first?.a, first?.b, comparisons[0]?.beyond], [0.7, 0.4, 3]);
    assert.equal(last?.b, 0.4);
    const reverse = judge('metric = "div"\ncompare = ["grpo", "eepo"]\nequal = "acc"').comparisons[0];
    // eepo passes 0.4 on its way from (0.2, 0.85) to (0.5, 0.8)
    assert.ok(Math.abs((reverse?.pairs[0]?.b as number) - (0.85 - (0.05 * 2) / 3)) < 1e-12);
    assert.equal(reverse?.beyond, 0);
  });

  it('compares at equal time', () => {
    const slow = runOf({ acc: [0.1, 0.2, 0.3, 0.4] });
    const fast = runOf({ acc: [0.2, 0.4] });
    const found = judgeClaim(
      claim('metric = "acc"\ncompare = ["a", "b"]\nequal = "seconds"'),
      (method) => ({ data: method === 'a' ? slow : fast, stop: null }),
      () => ['0'],
    );
    assert.deepEqual(found.comparisons[0]?.pairs, [{ unit: '0', a: 0.2, b: 0.4 }]);
  });

  it('compares two metrics of one run', () => {
    const { comparisons, verdict } = judge('metrics = ["div", "acc"]\nmethod = "eepo"\nrange = [1, 2]\nminSeeds = 3');
    assert.equal(verdict, 'holds');
    assert.ok(Math.abs((comparisons[0]?.pairs[0]?.a as number) - 0.875) < 1e-12);
    assert.ok(Math.abs((comparisons[0]?.pairs[0]?.b as number) - 0.15) < 1e-12);
  });
});
