import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { regexProblem } from '../lib/tokenizer/regex.js';
import { Tokenizer } from '../lib/tokenizer.js';
import { forAll, spoiltBytes, spoiltJson, valueOrNamedError } from './support/properties.js';

const folder = mkdtempSync(join(tmpdir(), 'eepo-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const token = (id: number, content: string, special = true) => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special,
});

const byteLevel = {
  version: '1.0',
  truncation: null,
  padding: null,
  added_tokens: [token(6, '<s>'), token(7, '<u>', false)],
  normalizer: { type: 'NFC' },
  pre_tokenizer: {
    type: 'Sequence',
    pretokenizers: [
      {
        type: 'Split',
        pattern: { Regex: '\\p{N}{1,3}| ?\\p{L}+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+' },
        behavior: 'Isolated',
        invert: false,
      },
      { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
    ],
  },
  post_processor: {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
    special_tokens: { '<s>': { id: '<s>', ids: [6], tokens: ['<s>'] } },
  },
  decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: {
    type: 'BPE',
    unk_token: null,
    continuing_subword_prefix: '',
    end_of_word_suffix: '',
    byte_fallback: false,
    vocab: { a: 0, b: 1, c: 2, ab: 3, abc: 4, Ġ: 5 },
    merges: [
      ['a', 'b'],
      ['ab', 'c'],
    ],
  },
};

const sentencePiece = {
  ...byteLevel,
  added_tokens: [token(0, '<unk>')],
  normalizer: {
    type: 'Sequence',
    normalizers: [
      { type: 'Prepend', prepend: '▁' },
      { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
    ],
  },
  pre_tokenizer: null,
  post_processor: null,
  decoder: {
    type: 'Sequence',
    decoders: [
      { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
      { type: 'ByteFallback' },
      { type: 'Fuse' },
      { type: 'Strip', content: ' ', start: 1, stop: 0 },
    ],
  },
  model: {
    type: 'BPE',
    unk_token: '<unk>',
    fuse_unk: true,
    byte_fallback: true,
    vocab: { '<unk>': 0, a: 1, '▁': 2, '▁a': 3, '<0x41>': 4 },
    merges: ['▁ a'],
  },
};

const settings = {
  bos_token: '<s>',
  eos_token: { content: '<u>' },
  pad_token: null,
  extra_special_tokens: { image: '<i>' },
  chat_template: [{ name: 'default', template: '{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}' }],
};

const texts = ['', 'a', 'ab abc <s> x\ny', '\ud800 é▁ 漢字 12345', '\0', '  a'.repeat(50)];

/** All that is done with a tokenizer in a run. */
async function use(): Promise<void> {
  const tokenizer = await Tokenizer.load(folder);
  for (const text of texts) {
    const ids = await tokenizer.encode(text, { addSpecialTokens: true });
    assert.equal(typeof tokenizer.decode(ids), 'string');
    const stream = tokenizer.stream();
    for (const id of ids) stream.push(id);
    stream.end();
    await tokenizer.encodePrompt(text, { parseSpecialTokens: false });
  }
  if (tokenizer.chatTemplateNames.length > 0) await tokenizer.encodePrompt([{ role: 'user', content: 'a' }]);
  tokenizer.endOfTurnTokenId;
  assert.ok(tokenizer.vocabSize <= 2 ** 31);
}

const write = (name: string, data: string | Uint8Array): void => writeFileSync(join(folder, name), data);

describe('tokenizer.json', () => {
  for (const [name, valid] of Object.entries({ byteLevel, sentencePiece })) {
    it(`${name}: spoilt, it works or an error names the file; the process lives`, async () => {
      write('tokenizer.json', JSON.stringify(valid));
      await use();
      await forAll(spoiltJson(valid), 120, async (json) => {
        write('tokenizer.json', json);
        await valueOrNamedError(use, folder);
      });
    });
  }

  it('cut off and with bytes changed', async () => {
    const valid = Buffer.from(JSON.stringify(byteLevel));
    for (let length = 0; length < valid.length; length += 3) {
      write('tokenizer.json', valid.subarray(0, length));
      assert.equal(await valueOrNamedError(use, 'tokenizer.json'), null);
    }
    await forAll(spoiltBytes(valid), 100, async (bytes) => {
      write('tokenizer.json', bytes);
      await valueOrNamedError(use, folder);
    });
  });

  it('the files beside it, spoilt', async () => {
    write('tokenizer.json', JSON.stringify(byteLevel));
    for (const name of ['tokenizer_config.json', 'special_tokens_map.json', 'generation_config.json', 'config.json']) {
      await forAll(spoiltJson({ ...settings, eos_token_id: [1, 2] }), 40, async (json) => {
        write(name, json);
        await valueOrNamedError(use, folder);
      });
      rmSync(join(folder, name));
    }
  });
});

describe('regular expressions of tokenizers', () => {
  it('any text is told to be one way or the other, in no time', async () => {
    const part = fc.constantFrom(
      'a',
      '*',
      '+',
      '?',
      '{1,3}',
      '{9,}',
      '(',
      '(?:',
      '(?=',
      '(?<!',
      ')',
      '|',
      '[^a',
      ']',
      '\\p{L}',
      '\\1',
      '\\',
      '.',
    );
    await forAll(fc.array(part, { maxLength: 60 }), 1000, (parts) => {
      const problem = regexProblem(parts.join(''));
      assert.ok(problem === null || problem.length > 0);
    });
  });

  for (const regex of [
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+',
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{M}]*[\\p{Ll}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}",
    '\\d{1,3}(?=(?:\\d{3})*\\b)',
  ]) {
    it(`of a known tokenizer: ${regex.slice(0, 40)}`, () => assert.equal(regexProblem(regex), null));
  }

  for (const regex of [
    '(a+)+$',
    '(a|aa)+$',
    '(?:a*)*',
    '(x+x+)+y',
    '(a)\\1*',
    '.*.*.*.*.*=',
    '(?:a?){30}a',
    '((a{1,99})){1,99}',
  ]) {
    it(`that never ends: ${regex}`, () => assert.notEqual(regexProblem(regex), null));
  }
});
