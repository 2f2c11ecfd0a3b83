import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { needs, ROOT, testData } from './support/data.js';

const folder = mkdtempSync(join(tmpdir(), 'eepo-verify-'));
after(() => rmSync(folder, { recursive: true }));

function eepo(...args: string[]): { code: number | null; out: string; error: string } {
  const run = spawnSync(process.execPath, [join(ROOT, 'bin', 'eepo.mjs'), 'verify', ...args], { encoding: 'utf8' });
  return { code: run.status, out: run.stdout, error: run.stderr };
}

function file(name: string, rows: readonly unknown[]): string {
  const path = join(folder, name);
  const text = rows.map((row) => (typeof row === 'string' ? row : JSON.stringify(row))).join('\n');
  writeFileSync(path, name.endsWith('.gz') ? gzipSync(text) : text);
  return path;
}

describe('eepo verify PREDICTION GOLD', () => {
  test('says what it is and why, and ends with 0, 1 or 2', () => {
    const equal = eepo('\\frac{1}{2}', '0.5');
    assert.equal(equal.code, 0);
    assert.match(equal.out, /^equal: .+\nprediction {2}\\frac\{1\}\{2\}.*\ngold {8}0\.5\n$/);
    const different = eepo('-3', '3');
    assert.equal(different.code, 1);
    assert.match(different.out, /^different: /);
    assert.equal(eepo('7', '3', '7').code, 0);
    assert.equal(eepo('0.333', '1/3').code, 1);
    assert.equal(eepo('--tolerance', '0.01', '0.333', '1/3').code, 0);
  });

  test('finds the answer of a response', () => {
    assert.equal(eepo('--response', 'It is 4, so the answer is 5.', '5').code, 0);
    const none = eepo('--strict', 'The answer is 5.', '5');
    assert.equal(none.code, 1);
    assert.match(none.out, /^no-answer: /);
  });

  test('errors end with 2', () => {
    for (const args of [
      ['3'],
      [],
      ['--tolerance', 'x', '1', '1'],
      ['--timeout', '0', '1', '1'],
      ['--jsonl', 'nowhere.jsonl'],
    ]) {
      const { code, error, out } = eepo(...args);
      assert.equal(code, 2, `${args}: ${error}`);
      assert.match(error, /^error: .*\[EEPO_/);
      assert.equal(out, '');
    }
    const { code, error } = eepo('--no-such-option', '1', '1');
    assert.equal(code, 2);
    assert.match(error, /unknown option '--no-such-option'/);
    assert.equal(eepo('--help').code, 0);
  });
});

describe('eepo verify --jsonl', () => {
  const rows = [
    { pred: '1/2', gold: '0.5', equal: true, kind: 'number' },
    { pred: '2', gold: '3', equal: true, kind: 'number' },
    { pred: '4', gold: '4', equal: false, kind: 'number' },
    { pred: 'so \\boxed{7} of 8', gold: '7', equal: true, kind: 'response' },
    { pred: 'nothing', gold: '7', equal: null, kind: 'response' },
  ];

  test('counts by group, shows disagreements and writes them', () => {
    const report = join(folder, 'report.json');
    const { code, out, error } = eepo(
      ...['--jsonl', file('rows.jsonl.gz', rows), '--by', 'kind', '--show-disagreements', '1', '--json', report],
    );
    assert.equal(code, 0, error);
    assert.match(out, /^kind +cases +agree +false pos\. +false neg\. +no answer +undecided +stopped\n/);
    assert.match(out, /\nnumber +3 +33\.33 % +1 +1 +0 +0 +0\n/);
    assert.match(out, /\nresponse +2 +100\.00 % +0 +0 +1 +0 +0\n/);
    assert.match(out, /\ntotal +5 +50\.00 % +1 +1 +1 +0 +0\n/);
    assert.match(out, /rows\.jsonl\.gz:2: different \(.+\), expected equal\n/);
    assert.ok(!out.includes('rows.jsonl.gz:3'));
    const { total, groups, disagreements, stats } = JSON.parse(readFileSync(report, 'utf8'));
    assert.equal(total.cases, 5);
    assert.equal(groups.number.falsePositives, 1);
    assert.equal(stats.compared, 5);
    assert.deepEqual(
      disagreements.map(({ where, expected, outcome }: Record<string, unknown>) => [where, expected, outcome]),
      [
        [`${join(folder, 'rows.jsonl.gz')}:2`, true, 'different'],
        [`${join(folder, 'rows.jsonl.gz')}:3`, false, 'equal'],
      ],
    );
  });

  test('columns, filters and rows without a judgement', () => {
    const path = file('named.jsonl', [
      { question: 'q', samples: { first: 'it is 5' }, target: ['4', '5'], level: 1 },
      { question: 'q', samples: { first: 'it is 6' }, target: '5', level: 2 },
    ]);
    const all = eepo('--jsonl', path, '--response-column', 'samples.first');
    assert.equal(all.code, 0, all.error);
    assert.match(all.out, /cases +equal +no answer[^\n]*\n[^\n]*\nall +2 +50\.00 %/);
    const first = eepo('--jsonl', path, '--response-column', 'samples.first', '--where', 'level=1');
    assert.match(first.out, /\nall +1 +100\.00 %/);
  });

  test('a bad row is named with its line', () => {
    const cases: [rows: unknown[], message: RegExp][] = [
      [[rows[0], '{'], /bad\.jsonl:2: not valid JSON/],
      [[rows[0], { gold: '1' }], /bad\.jsonl:2: no column "response" or .* the row has gold.*--prediction-column/],
      [[{ pred: '1' }], /bad\.jsonl:1: no column "gold" or .*--gold-column/],
      [[{ pred: {}, gold: '1' }], /bad\.jsonl:1: "pred" must be a text or a number/],
      [[{ pred: '1', gold: [] }], /bad\.jsonl:1: "gold" must be/],
      [[{ pred: '1', gold: '1', equal: 'yes' }], /bad\.jsonl:1: "equal" must be true or false/],
      [[], /bad\.jsonl: no row to judge/],
    ];
    for (const [content, message] of cases) {
      const { code, error } = eepo('--jsonl', file('bad.jsonl', content));
      assert.equal(code, 2);
      assert.match(error, message);
    }
    assert.match(eepo('--jsonl', file('bad.jsonl', rows), '--gold-column', 'none').error, /no column "none"/);
  });

  test('the published judgements', needs('verifier', 'math_variants.jsonl'), () => {
    const path = testData('verifier', 'math_variants.jsonl') as string;
    const report = join(folder, 'variants.json');
    const { code, error } = eepo('--jsonl', path, '--where', 'damaged=false', '--json', report);
    assert.equal(code, 0, error);
    const { total } = JSON.parse(readFileSync(report, 'utf8'));
    assert.equal(total.cases, 715);
    assert.ok(total.agree >= 0.97 * total.cases, `${total.agree} of ${total.cases}`);
    assert.equal(total.stopped, 0);
  });
});
