import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { benchmarkOf } from '../lib/eval/benchmarks.js';
import type { Estimate } from '../lib/eval/statistics.js';
import type { ModelResult, SetResult } from '../lib/eval/suite.js';
import { formatDetails, formatResultTable, resultDocument, resultTable } from '../lib/eval/table.js';
import { ROOT } from './support/data.js';

const fixture = (name: string): string => readFileSync(join(ROOT, 'test', 'fixtures', 'eval', name), 'utf8');

const estimate = (value: number, standardError = 0.05): Estimate => ({ value, standardError, interval: [0, 1] });

function setResult(title: string, greedy: number | null, more: Partial<SetResult> = {}): SetResult {
  return {
    title,
    problems: 40,
    greedy: greedy === null ? null : estimate(greedy),
    samples: 0,
    sampledProblems: 0,
    avgAtK: null,
    majAtK: {},
    passAtK: {},
    solved: 0,
    distinctPerSolved: null,
    distinctAlgebraicPerSolved: null,
    greedyResponses: {
      responses: 40,
      meanLength: 100.5,
      truncated: 0.025,
      noAnswer: 0.05,
      undecided: 1,
      missing: 0,
      meanEntropy: 0.3,
    },
    sampledResponses: null,
    ...more,
  };
}

function model(name: string, values: Record<string, number>): ModelResult {
  const sets = Object.entries(values).map(([set, value]) => [set, setResult(benchmarkOf(set).title, value)]);
  return { name, model: null, sets: Object.fromEntries(sets) };
}

interface PaperTable {
  title: string;
  sets: string[];
  rows: { name: string; values: number[]; average: string }[];
}

describe("the paper's tables", () => {
  const { tables, baseline } = JSON.parse(fixture('paper-tables.json')) as { tables: PaperTable[]; baseline: string };
  for (const { title, sets, rows } of tables) {
    it(`${title}: averages and gains as printed`, () => {
      const results = rows.map(({ name, values }) =>
        model(name, Object.fromEntries(sets.map((set, i) => [set, (values[i] as number) / 100]))),
      );
      const text = formatResultTable(resultTable(results, { baseline }));
      const lines = text.split('\n');
      assert.match(lines[0] as string, /^Method +Minerva Math +Olympiad Bench +AMC 23 +AIME 24( +AIME 25)? +Average$/);
      rows.forEach(({ name, values, average }, i) => {
        const cells = (lines[i + 2] as string).split(/ {2,}/);
        const expected = [name, ...values.map((value) => value.toFixed(1))];
        assert.deepEqual(cells.slice(0, -1), expected);
        // The model before training has a gain in our tables too.
        if (name === rows[0]?.name) assert.match(cells.at(-1) as string, new RegExp(`^${average} \\(-[0-9.]+\\)$`));
        else assert.equal(cells.at(-1), average);
      });
    });
  }
});

describe('tables', () => {
  const results = [
    model('base', { amc23: 0.2, aime24: 0.1 }),
    model('a|b', { amc23: 0.25, aime24: 0.2 }),
    model('worse', { amc23: 0.1, aime24: 0.1 }),
    model('half', { amc23: 0.3 }),
  ];
  Object.assign((results[1] as ModelResult).sets.amc23 as SetResult, {
    samples: 8,
    avgAtK: estimate(0.24, 0.01),
    majAtK: { 4: estimate(0.3, 0.01) },
    passAtK: { 1: estimate(0.24, 0.01), 4: estimate(0.4, 0.01) },
  });

  it('are Markdown with a baseline, an escaped bar, a missing benchmark and no gain for the baseline itself', () => {
    assert.equal(
      resultDocument(results, resultTable(results, { baseline: 'base' })),
      fixture('table.md').trimEnd().concat('\n\n'),
    );
  });

  it('keep exact gains beside the printed ones; a baseline of 0 gives none', () => {
    const table = resultTable(results, { baseline: 'base' });
    assert.ok(Math.abs((table.rows[1]?.relativeGain as number) - 0.5) < 1e-12);
    assert.equal(table.rows[0]?.relativeGain, null);
    assert.deepEqual(table.rows[3], {
      name: 'half',
      values: [0.3, null],
      average: null,
      relativeGain: null,
      printedGain: null,
    });
    const zero = [model('zero', { amc23: 0 }), model('one', { amc23: 0.1 })];
    assert.equal(resultTable(zero, { baseline: 'zero' }).rows[1]?.relativeGain, null);
  });

  it('show other metrics, and one benchmark without an average', () => {
    const table = resultTable([results[1] as ModelResult], { metric: 'maj@4' });
    assert.deepEqual(table.rows[0]?.values, [0.3, null]);
    const one = [model('m', { amc23: 0.2 })];
    assert.equal(formatResultTable(resultTable(one)), 'Method  AMC 23\n------  ------\nm         20.0');
  });

  it('leave out what nobody measured', () => {
    const [header] = formatDetails([results[0] as ModelResult]).split('\n');
    assert.equal(header, 'Method  Benchmark  problems      greedy  length  cut off  no answer  undecided');
  });

  it('name what is wrong', () => {
    assert.throws(() => resultTable(results, { baseline: 'nobody' }), /no model has this name; there are base, a\|b/);
    assert.throws(() => resultTable([...results, results[0] as ModelResult]), /two models are named "base"/);
    assert.throws(() => resultTable(results, { metric: 'pass@0' }), /no metric 'pass@0'/);
    assert.throws(() => resultTable(results, { metric: 'accuracy' }), /expected greedy, avg, maj@K or pass@K/);
  });
});
