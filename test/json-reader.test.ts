/** The native JSON reader against JavaScript's: on the corpus of the fuzzer, on its own limits, and on spoilt values. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { ROOT } from './support/data.js';
import { forAll, spoiltBytes, spoiltJson } from './support/properties.js';

const compiler = [process.env.CXX, 'g++', 'clang++', 'c++'].find(
  (name) => name !== undefined && spawnSync(name, ['--version']).status === 0,
);

const folder = mkdtempSync(join(tmpdir(), 'eepo-json-'));
const program = join(folder, 'json_dump');
after(() => rmSync(folder, { recursive: true, force: true }));

/** What is refused although it is JSON (native/core/json.h). */
const STRICTER = /^text: (duplicate key .*|nesting too deep|too many values|number out of range|lone surrogate) /;

type Verdict = { value: unknown } | { error: string };

/** What native/core/json.cc makes of each text. */
function native(texts: readonly Buffer[]): Verdict[] {
  const input = Buffer.concat(
    texts.flatMap((text) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(text.length);
      return [length, text];
    }),
  );
  const lines = execFileSync(program, { input, maxBuffer: 2 ** 30 })
    .toString()
    .split('\n');
  assert.equal(lines.length, texts.length + 1);
  return texts.map((_, i) => {
    const line = lines[i] as string;
    const content: unknown = JSON.parse(line.slice(1));
    return line.startsWith('+') ? { value: content } : { error: content as string };
  });
}

/** What JavaScript makes of bytes that must be UTF-8. */
function javascript(text: Buffer): Verdict {
  try {
    return { value: JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(text)) };
  } catch (error) {
    return { error: String(error) };
  }
}

/** Both must take the same value from a text or refuse it; returns why JSON was refused all the same, or null. */
function compare(text: Buffer, verdict: Verdict): string | null {
  const expected = javascript(text);
  if ('value' in verdict) {
    assert.ok('value' in expected, `accepted, although it is no JSON: ${text}`);
    assert.deepEqual(verdict.value, expected.value, String(text));
    return null;
  }
  if ('error' in expected) return null;
  const why = STRICTER.exec(verdict.error)?.[1];
  assert.ok(why, `refused, although it is JSON: ${text}: ${verdict.error}`);
  return why.split(' ').slice(0, 2).join(' ');
}

function compareAll(texts: readonly Buffer[]): Map<string, number> {
  const reasons = new Map<string, number>();
  for (const [i, verdict] of native(texts).entries()) {
    const why = compare(texts[i] as Buffer, verdict) ?? 'agree';
    reasons.set(why, (reasons.get(why) ?? 0) + 1);
  }
  return reasons;
}

describe('native JSON and JavaScript', { skip: compiler ? false : 'no C++ compiler is here' }, () => {
  before(() => {
    const sources = ['native/test/json_dump.cc', 'native/core/json.cc', 'native/core/utf8.cc'];
    const options = ['-std=c++20', '-O1', '-Inative', '-Wall', '-Wextra', '-Wno-restrict', '-o', program];
    execFileSync(compiler as string, [...sources, ...options], { cwd: ROOT, stdio: ['ignore', 'ignore', 'inherit'] });
  });

  it('agree on what the fuzzer found', (t) => {
    const corpus = join(ROOT, 'native', 'fuzz', 'corpus', 'json');
    const texts = readdirSync(corpus).map((name) => readFileSync(join(corpus, name)));
    assert.ok(texts.length > 50);
    const accepted = native(texts).filter((verdict) => 'value' in verdict).length;
    assert.ok(accepted > 10 && accepted < texts.length, `${accepted} of ${texts.length} are accepted`);
    t.diagnostic(`${texts.length} texts: ${JSON.stringify([...compareAll(texts)])}`);
  });

  it('agree on any value, and on its text with bytes changed', async () => {
    const texts: Buffer[] = [];
    await forAll(fc.jsonValue({ maxDepth: 6 }), 500, (value) => {
      texts.push(Buffer.from(JSON.stringify(value)), Buffer.from(JSON.stringify(value, null, 1)));
    });
    const valid = JSON.stringify({ 'a"\\\u0000é😀': [1, -2.5e-3, true, null, { b: '' }, [], {}], c: 1e21, d: 2 ** 53 });
    await forAll(spoiltBytes(Buffer.from(valid)), 3000, (text) => {
      texts.push(text);
    });
    await forAll(spoiltJson(JSON.parse(valid)), 500, (text) => {
      texts.push(Buffer.from(text));
    });
    compareAll(texts);
  });

  it('agree on numbers, to the last bit', async () => {
    const texts = [
      ...['0', '-0', '-0.0', '0e0', '00', '-', '+1', '.5', '1.', '1e', '1e+', '1E5', '1e-5', '0x1', 'Infinity', 'NaN'],
      ...[
        '9007199254740993',
        '9223372036854775807',
        '9223372036854775808',
        '-9223372036854775808',
        '18446744073709551615',
      ],
      ...['4.9e-324', '1.7976931348623157e308', '2.2250738585072011e-308', `0.${'0'.repeat(300)}1`, '1'.repeat(300)],
    ].map((text) => Buffer.from(text));
    await forAll(fc.double({ noNaN: true, noDefaultInfinity: true }), 2000, (x) => {
      texts.push(Buffer.from(String(x)), Buffer.from(x.toExponential(20)));
    });
    assert.deepEqual([...compareAll(texts).keys()], ['agree']);
  });

  it('differ where native is said to be stricter, and nowhere else', () => {
    const cases: Record<string, string[]> = {
      'duplicate key': ['{"a":1,"a":1}', '{"a":1,"\\u0061":1}', '[{"b":{"":1,"a":2,"":3}}]'],
      'nesting too': ['['.repeat(34) + ']'.repeat(34), `${'{"a":'.repeat(40)}1${'}'.repeat(40)}`],
      'number out': ['1e309', '-1e999', '1e-400'],
      'lone surrogate': ['"\\ud800"', '"\\udc00\\ud800"', '"\\ud800\\u0041"', '{"\\udfff":1}'],
      'too many': [`[${'0,'.repeat(4_000_000)}0]`],
    };
    for (const [why, texts] of Object.entries(cases)) {
      assert.deepEqual([...compareAll(texts.map((text) => Buffer.from(text)))], [[why, texts.length]], why);
    }
    const agreed = [
      '['.repeat(33) + ']'.repeat(33),
      '"\\ud83d\\ude00"',
      '\ufeff1',
      '"\u007f\u0080\u2028"',
      '"\\/"',
      '',
      ' ',
    ];
    assert.deepEqual([...compareAll(agreed.map((text) => Buffer.from(text))).keys()], ['agree']);
  });

  it('agree on every form of UTF-8', () => {
    const texts: Buffer[] = [];
    for (const first of [
      0x00, 0x1f, 0x20, 0x7f, 0x80, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3,
      0xf4, 0xf5, 0xff,
    ])
      for (const second of [0x20, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0])
        for (const rest of [[], [0x80], [0xbf], [0x7f], [0x80, 0x80], [0xbf, 0xbf], [0x80, 0xc0]])
          texts.push(Buffer.from([0x22, first, second, ...rest, 0x22]), Buffer.from([0x22, first, second, ...rest]));
    const valid = native(texts).filter((verdict) => 'value' in verdict).length;
    assert.ok(valid > 100, String(valid));
    assert.deepEqual([...compareAll(texts).keys()], ['agree']);
  });
});
