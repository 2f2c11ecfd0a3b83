import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Tokenizer } from '../lib/tokenizer.js';
import { embeddedModel, modelDir, needs } from './support/data.js';
import { familyTokenizer, TOKENIZERS } from './support/tokenizers.js';

interface Options {
  skipSpecialTokens: boolean;
  cleanUpTokenizationSpaces: boolean;
}

const OPTIONS: Options[] = [true, false].flatMap((skipSpecialTokens) =>
  [true, false].map((cleanUpTokenizationSpaces) => ({ skipSpecialTokens, cleanUpTokenizationSpaces })),
);

function pieces(tokenizer: Tokenizer, ids: readonly number[], options: Options): string[] {
  const stream = tokenizer.stream(options);
  return [...ids.map((id) => stream.push(id)), stream.end()];
}

/** Pieces together are the whole, and none ends within a character. */
function checkStream(tokenizer: Tokenizer, ids: readonly number[], options: Options): void {
  const parts = pieces(tokenizer, ids, options);
  assert.equal(parts.join(''), tokenizer.decode(ids, options));
  for (const part of parts) assert.doesNotMatch(part, /\p{Cs}/u, 'half of a surrogate pair');
}

describe('stream', () => {
  for (const name of TOKENIZERS) {
    it(`${name}: random tokens, all four ways`, async () => {
      const tokenizer = await familyTokenizer(name);
      const id = fc.oneof(fc.nat(tokenizer.vocabSize + 300), fc.nat(255), fc.constantFrom(...tokenizer.eosTokenIds));
      const property = fc.property(fc.array(id, { maxLength: 40 }), fc.constantFrom(...OPTIONS), (ids, options) =>
        checkStream(tokenizer, ids, options),
      );
      fc.assert(property, { numRuns: 2000 });
    });

    it(`${name}: real text comes in pieces, and no character is broken`, async () => {
      const tokenizer = await familyTokenizer(name);
      const text = 'e\u0301 naïve 👩‍👩‍👧 𒀀 日本 \ufeff x , y .\nend';
      const ids = await tokenizer.encode(text);
      const options = { skipSpecialTokens: true, cleanUpTokenizationSpaces: false };
      const parts = pieces(tokenizer, ids, options);
      assert.equal(parts.join(''), name === 'llama3_2' ? text : text.normalize('NFC'));
      assert.ok(!parts.some((part) => part.includes('\ufffd')));
      assert.ok(parts.filter((part) => part !== '').length > 10);
      assert.ok(parts.includes(''), 'some tokens end within a character');
    });

    it(`${name}: bytes that never become a character are shown at the end, as decode shows them`, async () => {
      const tokenizer = await familyTokenizer(name);
      const ids = (await tokenizer.encode('a𒀀')).slice(0, -1);
      const parts = pieces(tokenizer, ids, OPTIONS[3] as Options);
      assert.equal(parts.join(''), tokenizer.decode(ids));
      assert.match(parts.at(-1) as string, /^\ufffd+$/);
      const stream = tokenizer.stream();
      stream.push(ids.at(-1) as number);
      stream.end();
      assert.equal(stream.push(ids[0] as number), 'a', 'a stream may be used again');
    });
  }

  it('clean-up is that of whole texts', async () => {
    const tokenizer = await familyTokenizer('llama3_2');
    const ids = await tokenizer.encode("x , y .\n it 's ' a ' do n't");
    const options = { skipSpecialTokens: true, cleanUpTokenizationSpaces: true };
    assert.equal(tokenizer.decode(ids, options), "x, y.\n it's'a'don't");
    checkStream(tokenizer, ids, options);
    assert.equal(pieces(tokenizer, ids, options)[3], 'x, y.\n', 'a line is certain when it ends');
  });

  it('words', async () => {
    const tokenizer = await Tokenizer.load(embeddedModel);
    const ids = fc.array(fc.nat(tokenizer.vocabSize + 3), { maxLength: 20 });
    fc.assert(fc.property(ids, fc.constantFrom(...OPTIONS), (list, options) => checkStream(tokenizer, list, options)));
  });

  it('sentencepiece with byte fallback', needs('models', 'stories260K'), async () => {
    const tokenizer = await Tokenizer.load(modelDir('stories260K'));
    const ids = fc.array(fc.oneof(fc.nat(520), fc.integer({ min: 3, max: 258 })), { maxLength: 30 });
    fc.assert(
      fc.property(ids, fc.constantFrom(...OPTIONS), (list, options) => checkStream(tokenizer, list, options)),
      {
        numRuns: 2000,
      },
    );
    const parts = pieces(tokenizer, await tokenizer.encode('Once 猫 upon'), OPTIONS[3] as Options);
    assert.deepEqual(parts, ['Once', ' ', '', '', '', '猫 upon', ''], 'a run of bytes is certain when it ends');
  });

  it('refuses what is no id', async () => {
    const tokenizer = await Tokenizer.load(embeddedModel);
    for (const id of [-1, 0.5, Number.NaN, 2 ** 40]) {
      assert.throws(() => tokenizer.decode([id]), /is not a token id/);
    }
  });
});
