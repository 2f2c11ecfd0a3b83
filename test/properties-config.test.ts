import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { stringify } from 'smol-toml';
import { defineConfig, loadTrainConfig, trainSchema } from '../lib/train/config.js';
import { configToToml, fieldDocs, parseAssignment, parseTomlText } from '../lib/train/config-file.js';
import { parseMemory } from '../lib/train/memory.js';
import { defineSftConfig, loadSftConfig, sftSchema } from '../lib/train/sft-config.js';
import { forAll, STRANGE, spoiltBytes, valueOrNamedError } from './support/properties.js';

const folder = mkdtempSync(join(tmpdir(), 'eepo-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const file = (text: string | Buffer): string => {
  const path = join(folder, 'run.toml');
  writeFileSync(path, text);
  return path;
};

const valid = configToToml(defineConfig());
const strange = fc.oneof(fc.constantFrom(...STRANGE), fc.jsonValue({ maxDepth: 3 }));
const train = fieldDocs(trainSchema);
const sft = fieldDocs(sftSchema);

/** Values of TOML that no field expects, as they are written. */
const written = fc.oneof(
  fc.constantFrom(
    'nan',
    '-inf',
    '1e400',
    '9223372036854775807',
    '99999999999999999999999',
    '-0',
    '0x7f',
    '1979-05-27',
    '1979-05-27T07:32:00Z',
    '07:32:00',
    '{}',
    '{ a = 1 }',
    '[]',
    '[[]]',
    '[1, "a", {}]',
    '"\\u0000"',
    '"""\n"""',
    "''",
    'true',
    '"../../etc/passwd"',
    `${'['.repeat(5000)}${']'.repeat(5000)}`,
    `${'{a='.repeat(900)}1${'}'.repeat(900)}`,
    '1\n[run]\nseed = 1',
    '1 # x',
    '=',
    '',
  ),
  fc.string(),
  fc.jsonValue({ maxDepth: 2 }).map((value) => JSON.stringify(value)),
);

describe('a configuration', () => {
  it('that is valid is read as it was written', async () => {
    const values = fc.record({
      run: fc.record({ iterations: fc.integer({ min: 1, max: 1e6 }), seed: fc.integer({ min: 0, max: 2 ** 32 - 1 }) }),
      rollout: fc.record({
        groupSize: fc.integer({ min: 1, max: 64 }).map((n) => 2 * n),
        temperature: fc.double({ min: 1e-3, max: 9, noNaN: true }),
      }),
      task: fc.record({
        system: fc.string(),
        levels: fc.array(fc.integer({ min: 1, max: 5 })),
        maxPromptTokens: fc.nat(9999).map((n) => n + 1),
      }),
    });
    await forAll(values, 100, (input) => {
      const config = defineConfig(input);
      for (const [section, fields] of Object.entries(input)) {
        for (const [key, value] of Object.entries(fields)) {
          assert.deepEqual((config as unknown as Record<string, Record<string, unknown>>)[section]?.[key], value);
        }
      }
      const { model, ...rest } = config;
      const { model: read, ...others } = loadTrainConfig(file(configToToml(config)));
      assert.deepEqual(others, rest);
      assert.equal(read.path, folder);
      assert.equal(model.path, '.');
    });
  });

  it('cut off at any byte, or with bytes changed, is read or named with its line or key', async () => {
    const bytes = Buffer.from(valid);
    for (let length = 0; length < bytes.length; length += 7) {
      await valueOrNamedError(() => loadTrainConfig(file(bytes.subarray(0, length))), join(folder, 'run.toml'));
    }
    await forAll(spoiltBytes(bytes), 150, async (spoilt) => {
      await valueOrNamedError(() => loadTrainConfig(file(spoilt)), join(folder, 'run.toml'));
    });
  });

  it('of any text', async () => {
    await forAll(fc.string({ unit: 'binary', maxLength: 200 }), 150, async (text) => {
      await valueOrNamedError(() => parseTomlText(text, 'x.toml'), 'x.toml');
    });
  });

  for (const [name, docs, load] of [
    ['train', train, loadTrainConfig],
    ['sft', sft, loadSftConfig],
  ] as const) {
    it(`${name}: any value of any key is taken, or named by its key`, async () => {
      const base = name === 'train' ? '' : '[model]\npath = "m"\n[data]\nname = "countdown"\n';
      await forAll(fc.tuple(fc.constantFrom(...docs), written), 400, async ([doc, value]) => {
        const path = file(base);
        const error = await valueOrNamedError(() => {
          load(path, [`model.path=m`, `${doc.section}.${doc.key}=${value}`]);
        });
        assert.notEqual(error, 0);
      });
    });
  }

  it('in a file, any value of any key is taken, or named by file', async () => {
    await forAll(fc.tuple(fc.constantFrom(...train), written), 300, async ([doc, value]) => {
      const path = file(`[${doc.section}]\n${doc.key} = ${value}\n`);
      await valueOrNamedError(() => loadTrainConfig(path), path);
    });
  });

  it('of a script: anything', async () => {
    const values = fc.oneof(
      strange,
      fc.constantFrom<unknown>(1n, Symbol('x'), () => 1, new Date(Number.NaN), /x/, new Map(), Number.NaN, Infinity),
    );
    const circular: unknown[] = [];
    circular.push(circular);
    await forAll(
      fc.tuple(fc.constantFrom(...train), fc.oneof(values, fc.constant(circular))),
      300,
      async ([doc, value]) => {
        await valueOrNamedError(
          () => defineConfig({ [doc.section]: { [doc.key]: value } }),
          `${doc.section}.${doc.key}`,
        );
        await valueOrNamedError(() => defineConfig({ [doc.section]: value } as never));
        await valueOrNamedError(() => defineSftConfig({ [doc.section]: { [doc.key]: value } } as never));
      },
    );
  });

  it('with sections and keys of any name: each is told, and nothing else changes', async () => {
    const names = fc.oneof(
      fc.constantFrom('__proto__', 'constructor', 'toString', 'hasOwnProperty', 'rum', 'seed'),
      fc.string({ minLength: 1 }),
    );
    await forAll(fc.tuple(names, names), 200, async ([section, key]) => {
      const path = file(stringify(Object.fromEntries([[section, Object.fromEntries([[key, 1]])]])));
      assert.equal(await valueOrNamedError(() => loadTrainConfig(path), path), null);
      await valueOrNamedError(() => loadTrainConfig(file('[model]\npath = "m"'), [`${section}.${key}=1`]));
      assert.equal(({} as Record<string, unknown>)[key] === 1, false, 'Object.prototype is what it was');
    });
  });
});

describe('--set', () => {
  it('any text is an assignment or told', async () => {
    const part = fc.constantFrom(
      'run',
      '.',
      'seed',
      '=',
      '1',
      '"',
      '\n',
      ' ',
      '__proto__',
      '[',
      ']',
      '{',
      'x',
      '\0',
      '#',
    );
    await forAll(
      fc.oneof(
        fc.string(),
        fc.array(part, { maxLength: 9 }).map((parts) => parts.join('')),
      ),
      500,
      async (text) => {
        const read = await valueOrNamedError(() => parseAssignment(text), '--set');
        if (read !== null)
          assert.ok(read.section !== '' && read.key !== '' && text.trimStart().startsWith(read.section));
      },
    );
  });

  it('texts, numbers and lists are what TOML says', async () => {
    await forAll(fc.oneof(fc.integer(), fc.boolean(), fc.array(fc.integer())), 100, (value) => {
      assert.deepEqual(parseAssignment(`run.seed=${JSON.stringify(value)}`).value, value);
    });
  });
});

describe('an amount of memory', () => {
  it('is positive and finite, or told', async () => {
    const part = fc.constantFrom('8', '0', '.', 'G', 'gib', 'M', ' ', '-', 'e', '9'.repeat(400), 'x', '\u0660');
    await forAll(
      fc.oneof(
        fc.string(),
        fc.array(part, { maxLength: 6 }).map((parts) => parts.join('')),
      ),
      500,
      async (text) => {
        const bytes = await valueOrNamedError(() => parseMemory(text, '--memory'), '--memory');
        if (bytes !== null) assert.ok(Number.isFinite(bytes) && bytes > 0, `${text}: ${bytes}`);
      },
    );
  });

  it('is what was written', async () => {
    await forAll(fc.integer({ min: 1, max: 1e6 }), 100, (n) => {
      assert.equal(parseMemory(`${n} GiB`, 'x'), n * 2 ** 30);
      assert.equal(parseMemory(`${n}MB`, 'x'), n * 2 ** 20);
    });
  });
});
