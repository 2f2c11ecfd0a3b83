/**
 * Property tests: the same seed every time, so that what passed passes, and ways to spoil a valid file.
 *
 *     EEPO_PROPERTY_SEED=17    other cases; `random` for new ones every time, whose seed is printed
 *     EEPO_PROPERTY_RUNS=100   a hundred times as many cases of every property
 */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { EepoError } from '../../lib/errors.js';

const asked = process.env.EEPO_PROPERTY_SEED ?? '1';
const seed = asked === 'random' ? Date.now() % 2 ** 31 : Number(asked);
const factor = Number(process.env.EEPO_PROPERTY_RUNS ?? 1);
console.log(`# properties: EEPO_PROPERTY_SEED=${seed} repeats them`);

/** No input may take longer: far above what any of them takes, because tests share the machine. */
const MAX_SECONDS = 20;

/** Checks `property` on `runs` cases, and counts them. */
export async function forAll<T>(
  arbitrary: fc.Arbitrary<T>,
  runs: number,
  property: (value: T) => void | Promise<void>,
): Promise<void> {
  const checked = fc.asyncProperty(arbitrary, async (value) => property(value));
  const details = await fc.check(checked, { seed, numRuns: Math.ceil(runs * factor) });
  if (!details.failed) return;
  // A counterexample may be as large as the limits it is about.
  const message = fc.defaultReportMessage(details) ?? 'failed';
  const short = message.length > 3000 ? `${message.slice(0, 1500)}\n...\n${message.slice(-500)}` : message;
  assert.fail(`${short}\n${String(details.errorInstance).slice(0, 2000)}`);
}

/**
 * Every input gives a value or an error of ours with a message, within its time: the value, or null.
 *
 * @param names - what the message must name: the file, say
 */
export async function valueOrNamedError<T>(work: () => T | Promise<T>, names?: string): Promise<T | null> {
  const start = performance.now();
  try {
    return await work();
  } catch (error) {
    assert.ok(error instanceof EepoError, `${(error as Error)?.stack ?? String(error)} is none of our errors`);
    assert.ok(error.message.length > 10, `says what is wrong: ${error.message}`);
    if (names !== undefined) assert.ok(error.message.includes(names), `${error.message} names ${names}`);
    return null;
  } finally {
    const seconds = (performance.now() - start) / 1000;
    assert.ok(seconds < MAX_SECONDS, `took ${seconds} s`);
  }
}

/** As deep as JSON.parse takes it, deeper than anything that calls itself. */
export function deep(levels = 20_000): unknown {
  return JSON.parse(`${'['.repeat(levels)}${']'.repeat(levels)}`);
}

/** Values that no field expects. */
export const STRANGE: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -1,
  0.5,
  1e308,
  -1e308,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  '',
  'x',
  '__proto__',
  '\0',
  '\ud800',
  '../../etc/passwd',
  [],
  {},
  [[]],
  [null],
  { toString: 1, valueOf: 2 },
  { __proto__: null, length: -1 },
  JSON.parse('{"__proto__": {"x": 1}, "constructor": 3}'),
];

interface Edit {
  at: number;
  kind: 'replace' | 'delete' | 'nest' | 'double' | 'rename' | 'deep';
  value: unknown;
}

const edit: fc.Arbitrary<Edit> = fc.record({
  at: fc.nat(),
  kind: fc.constantFrom('replace', 'replace', 'replace', 'delete', 'nest', 'double', 'rename', 'deep'),
  value: fc.oneof(fc.constantFrom(...STRANGE), fc.jsonValue({ maxDepth: 2 })),
});

type Place = { owner: Record<string, unknown> | unknown[]; key: string | number };

function places(value: unknown, found: Place[] = []): Place[] {
  if (typeof value !== 'object' || value === null) return found;
  const keys = Array.isArray(value) ? value.keys() : Object.keys(value);
  for (const key of keys) {
    found.push({ owner: value as Record<string, unknown>, key });
    places((value as Record<string | number, unknown>)[key], found);
  }
  return found;
}

function apply(root: unknown, { at, kind, value }: Edit): void {
  const all = places(root);
  const place = all[at % Math.max(1, all.length)];
  if (place === undefined) return;
  const owner = place.owner as Record<string | number, unknown>;
  const old = owner[place.key];
  if (kind === 'delete') {
    if (Array.isArray(owner)) owner.splice(Number(place.key), 1);
    else delete owner[place.key];
  } else if (kind === 'nest') owner[place.key] = [old];
  else if (kind === 'double')
    owner[place.key] = Array.isArray(old) ? [...old, ...old] : `${String(typeof old)}${place.key}`;
  else if (kind === 'rename') {
    delete owner[place.key];
    owner[`${place.key}_`] = old;
  } else owner[place.key] = structuredClone(value);
}

const DEEP = '\u0001deep\u0001';

/** The text of valid JSON with one to three of its parts replaced, removed, renamed or nested. */
export function spoiltJson(valid: unknown): fc.Arbitrary<string> {
  return fc.array(edit, { minLength: 1, maxLength: 3 }).map((edits) => {
    const copy = structuredClone(valid);
    for (const one of edits) apply(copy, one.kind === 'deep' ? { ...one, value: DEEP } : one);
    return JSON.stringify(copy).replaceAll(JSON.stringify(DEEP), () => '['.repeat(20_000) + ']'.repeat(20_000));
  });
}

/** Valid bytes, cut off, with some changed, repeated, removed or filled in. */
export function spoiltBytes(valid: Buffer): fc.Arbitrary<Buffer> {
  const at = fc.nat({ max: Math.max(0, valid.length - 1) });
  const step = fc.oneof(
    fc.record({ kind: fc.constant('cut' as const), at }),
    fc.record({ kind: fc.constant('byte' as const), at, value: fc.nat(255) }),
    fc.record({ kind: fc.constant('bit' as const), at, value: fc.nat(7) }),
    fc.record({
      kind: fc.constant('fill' as const),
      at,
      value: fc.constantFrom(0, 0x7f, 0x80, 0xff),
      length: fc.nat(9),
    }),
    fc.record({ kind: fc.constant('remove' as const), at, length: fc.integer({ min: 1, max: 16 }) }),
    fc.record({ kind: fc.constant('insert' as const), at, bytes: fc.uint8Array({ maxLength: 16 }) }),
    fc.record({ kind: fc.constant('repeat' as const), at, length: fc.integer({ min: 1, max: 64 }) }),
  );
  return fc.array(step, { minLength: 1, maxLength: 4 }).map((steps) => {
    let bytes = Buffer.from(valid);
    for (const s of steps) {
      const i = Math.min(s.at, bytes.length);
      if (s.kind === 'cut') bytes = bytes.subarray(0, i);
      else if (s.kind === 'byte') bytes[i] = s.value;
      else if (s.kind === 'bit') bytes[i] = (bytes[i] ?? 0) ^ (1 << s.value);
      else if (s.kind === 'fill') bytes.fill(s.value, i, Math.min(bytes.length, i + s.length));
      else if (s.kind === 'remove') bytes = Buffer.concat([bytes.subarray(0, i), bytes.subarray(i + s.length)]);
      else if (s.kind === 'insert') bytes = Buffer.concat([bytes.subarray(0, i), s.bytes, bytes.subarray(i)]);
      else bytes = Buffer.concat([bytes.subarray(0, i + s.length), bytes.subarray(i)]);
    }
    return bytes;
  });
}
