import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { InvalidFileError, UnsupportedError } from '../lib/errors.js';
import { COUNTDOWN_VOCABULARY } from '../lib/tasks/countdown.js';
import { Tokenizer } from '../lib/tokenizer.js';
import { embeddedModel as COUNTDOWN, modelDir, needs } from './support/data.js';
import { temporaryFolder, writeFiles } from './support/files.js';

const STORIES = 'stories260K';

test('the embedded tokenizer is the task vocabulary, one token a word', async () => {
  const tokenizer = await Tokenizer.load(COUNTDOWN);
  assert.equal(tokenizer.vocabSize, COUNTDOWN_VOCABULARY.length);
  assert.deepEqual(await tokenizer.encode(COUNTDOWN_VOCABULARY.join(' ')), [...COUNTDOWN_VOCABULARY.keys()]);
  assert.deepEqual(await tokenizer.encodePrompt('2 3 7 9 _ > 41'), [2, 3, 7, 9, 104, 105, 41]);
  assert.deepEqual(tokenizer.eosTokenIds, [COUNTDOWN_VOCABULARY.indexOf('.')]);
  assert.equal(tokenizer.padTokenId, COUNTDOWN_VOCABULARY.indexOf('_'));
  assert.equal(tokenizer.bosTokenId, null);
});

test('the final period survives decoding: the verifier needs it', async () => {
  const tokenizer = await Tokenizer.load(COUNTDOWN);
  const text = '9 + 2 11 * 3 33 - 7 26 .';
  assert.equal(tokenizer.decode(await tokenizer.encode(text)), text);
  assert.equal(tokenizer.decode(await tokenizer.encode(text), { skipSpecialTokens: false }), text);
});

test('ids without text are dropped, nothing decodes to nothing', async () => {
  const tokenizer = await Tokenizer.load(COUNTDOWN);
  assert.equal(tokenizer.decode([]), '');
  assert.equal(tokenizer.decode([7, 5000, 103]), '7 .');
  assert.equal(tokenizer.decode([5000]), '');
});

test(
  'a real sentencepiece tokenizer gives the ids of the reference implementation',
  needs('models', STORIES),
  async () => {
    const tokenizer = await Tokenizer.load(modelDir(STORIES));
    const cases: [string, number[]][] = [
      [
        'Once upon a time, there was a little girl named Lily.',
        [403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426],
      ],
      // byte fallback
      ['naïve 猫 🙂\nend', [297, 412, 198, 178, 360, 410, 234, 143, 174, 410, 243, 162, 156, 133, 13, 367]],
    ];
    for (const [text, ids] of cases) {
      assert.deepEqual(await tokenizer.encode(text), ids);
      assert.deepEqual(await tokenizer.encode(text, { addBos: true }), [1, ...ids]);
      assert.deepEqual(await tokenizer.encodePrompt(text), [1, ...ids], 'its post-processor puts BOS first');
      assert.equal(tokenizer.decode(ids), text);
      assert.equal(tokenizer.decode([1, ...ids, 2]), text);
    }
    assert.deepEqual([tokenizer.bosTokenId, tokenizer.eosTokenIds, tokenizer.vocabSize], [1, [2], 512]);
    assert.equal(tokenizer.decode(await tokenizer.encode('f(x) , y .')), 'f(x) , y .', 'no clean-up of spaces');
  },
);

test('files() lists what a saved model needs', async (t) => {
  const tokenizer = await Tokenizer.load(COUNTDOWN);
  assert.deepEqual(
    tokenizer.files().map((path) => basename(path)),
    ['tokenizer.json', 'tokenizer_config.json'],
  );
  const copy = temporaryFolder(t);
  for (const path of tokenizer.files()) cpSync(path, join(copy, basename(path)));
  assert.deepEqual(await (await Tokenizer.load(copy)).encode('9 + 2'), [9, 100, 2]);
});

test('end-of-sequence ids come from the model and from the tokenizer', async (t) => {
  const definition = readFileSync(join(COUNTDOWN, 'tokenizer.json'));
  const folder = writeFiles(temporaryFolder(t), {
    'tokenizer.json': definition,
    'tokenizer_config.json': JSON.stringify({ eos_token: { content: '.' }, unk_token: '_' }),
    'generation_config.json': JSON.stringify({ eos_token_id: [105, 103] }),
    'config.json': JSON.stringify({ eos_token_id: 7 }),
  });
  assert.deepEqual((await Tokenizer.load(folder)).eosTokenIds, [105, 103]);
});

test('a missing or broken tokenizer is one clear error that names the file', async (t) => {
  const folder = temporaryFolder(t);
  const rejects = (message: RegExp) =>
    assert.rejects(Tokenizer.load(folder), (error) => error instanceof InvalidFileError && message.test(error.message));
  await rejects(/tokenizer\.json: no such file/);
  writeFiles(folder, { 'tokenizer.json': '{"model":' });
  await rejects(/tokenizer\.json: not valid JSON/);
  writeFiles(folder, { 'tokenizer.json': '[1]' });
  await rejects(/tokenizer\.json: must hold a JSON object/);
  writeFiles(folder, { 'tokenizer.json': '{}' });
  await rejects(/"model" is missing/);
  writeFiles(folder, { 'tokenizer.json': JSON.stringify({ model: { type: 'Nonsense' } }) });
  await rejects(/model\.vocab must be an object/);
  writeFiles(folder, { 'tokenizer.json': JSON.stringify({ model: { type: 'Nonsense', vocab: {} } }) });
  await rejects(/cannot build this tokenizer/);
  const other = join(folder, 'other');
  mkdirSync(join(other, 'tokenizer.json'), { recursive: true });
  await assert.rejects(Tokenizer.load(other), /tokenizer\.json: cannot be read/);
});

test('what this version does not do is said', async () => {
  const tokenizer = await Tokenizer.load(COUNTDOWN);
  await assert.rejects(tokenizer.encodePrompt([{ role: 'user', content: 'hi' }]), UnsupportedError);
  await assert.rejects(tokenizer.encode('9', { addBos: true }), /has no bos_token/);
});
