import assert from 'node:assert/strict';
import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { InvalidArgumentError, InvalidFileError } from '../lib/errors.js';
import { defaultStopTokens, resolveStopTokens } from '../lib/tokenizer/stop-tokens.js';
import { type StopToken, Tokenizer } from '../lib/tokenizer.js';
import { Trainer, type TrainerTokenizer } from '../lib/train/trainer.js';
import { embeddedModel } from './support/data.js';
import { FakePolicy } from './support/fake-policy.js';
import { temporaryFolder, writeFiles } from './support/files.js';
import { familyTokenizer, tokenizerFolder } from './support/tokenizers.js';
import { toyTask, toyTokenizer } from './support/toy-task.js';

const CHAT = [{ role: 'user', content: 'x' }];
const END_OF_TEXT = 151643;
const IM_END = 151645;

describe('what ends a response', () => {
  it('Qwen2.5 base: generation_config.json says <|endoftext|>; a chat also ends with <|im_end|>', async (t) => {
    const folder = temporaryFolder(t);
    cpSync(join(tokenizerFolder('qwen2_5'), 'tokenizer.json'), join(folder, 'tokenizer.json'));
    const config = JSON.parse(readFileSync(join(tokenizerFolder('qwen2_5'), 'tokenizer_config.json'), 'utf8'));
    writeFiles(folder, {
      'tokenizer_config.json': JSON.stringify({ ...config, eos_token: '<|endoftext|>' }),
      'generation_config.json': JSON.stringify({ bos_token_id: END_OF_TEXT, eos_token_id: END_OF_TEXT }),
    });
    const tokenizer = await Tokenizer.load(folder);
    assert.deepEqual(tokenizer.eosTokenIds, [END_OF_TEXT]);
    assert.equal(tokenizer.endOfTurnTokenId, IM_END);
    assert.deepEqual(defaultStopTokens(tokenizer, ['plain text']), [END_OF_TEXT]);
    assert.deepEqual(defaultStopTokens(tokenizer, ['plain text', CHAT]), [END_OF_TEXT, IM_END]);
    const chosen = await Tokenizer.load(folder, { eosTokens: ['<|im_end|>', END_OF_TEXT, '<|im_end|>'] });
    assert.deepEqual(chosen.eosTokenIds, [IM_END, END_OF_TEXT]);
  });

  it('Llama 3.2 Instruct: three ids', async (t) => {
    const folder = temporaryFolder(t);
    for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
      cpSync(join(tokenizerFolder('llama3_2'), name), join(folder, name));
    }
    writeFiles(folder, { 'generation_config.json': JSON.stringify({ eos_token_id: [128001, 128008, 128009] }) });
    const tokenizer = await Tokenizer.load(folder);
    assert.deepEqual(tokenizer.eosTokenIds, [128001, 128008, 128009]);
    assert.deepEqual(defaultStopTokens(tokenizer, [CHAT]), [128001, 128008, 128009]);
    assert.equal(tokenizer.bosTokenId, 128000);
  });

  it('generation_config.json, else config.json, else the tokenizer', async (t) => {
    const files = (eos: { generation?: unknown; model?: unknown }): string => {
      const folder = temporaryFolder(t);
      cpSync(join(embeddedModel, 'tokenizer.json'), join(folder, 'tokenizer.json'));
      return writeFiles(folder, {
        'tokenizer_config.json': JSON.stringify({ eos_token: '.' }),
        'generation_config.json': JSON.stringify({ eos_token_id: eos.generation }),
        'config.json': JSON.stringify({ eos_token_id: eos.model }),
      });
    };
    const eosOf = async (eos: object): Promise<readonly number[]> => (await Tokenizer.load(files(eos))).eosTokenIds;
    assert.deepEqual(await eosOf({ generation: [5, 6, 5], model: 7 }), [5, 6]);
    assert.deepEqual(await eosOf({ generation: null, model: 7 }), [7]);
    assert.deepEqual(await eosOf({ generation: [], model: 'x' }), [103]);
    assert.deepEqual(await eosOf({}), [103]);
  });

  it('stop tokens by id or text; an unknown one is an error that names it', async () => {
    const tokenizer = await familyTokenizer('qwen2_5');
    const newlines = await tokenizer.encode('\n\n');
    assert.deepEqual(tokenizer.stopTokenIds(['<|im_end|>', 5, '\n\n', '<|im_end|>']), [IM_END, 5, ...newlines]);
    assert.equal(tokenizer.tokenId(' the'), (await tokenizer.encode(' the'))[0]);
    assert.equal(
      tokenizer.tokenId('é'),
      (await tokenizer.encode('é'))[0],
      'its letter in the byte alphabet is another',
    );
    assert.equal(tokenizer.tokenId('Ġthe'), null);
    const refuses = (token: string | number, message: RegExp): void =>
      assert.throws(
        () => tokenizer.stopTokenIds([token]),
        (error) => error instanceof InvalidArgumentError && message.test(error.message),
      );
    refuses('<|im_ende|>', /"<\|im_ende\|>" is not a single token .* <\|endoftext\|>, <\|im_start\|>, <\|im_end\|>/);
    refuses('two words', /"two words"/);
    refuses(151665, /stop token 151665 is not in the vocabulary.* 151664/);
    assert.deepEqual(resolveStopTokens({}, [1, 2]), [1, 2]);
    assert.throws(() => resolveStopTokens({}, ['x']), /give its id/);
  });

  it('no template, no end of turn', async () => {
    const tokenizer = await Tokenizer.load(embeddedModel);
    assert.equal(tokenizer.endOfTurnTokenId, null);
    assert.deepEqual(defaultStopTokens(tokenizer, [CHAT]), [103]);
    assert.equal(defaultStopTokens({}, ['x']), undefined);
  });
});

describe('a tokenizer and its model', () => {
  it('a larger vocabulary of the model is padding, a smaller one an error that names both', async () => {
    const tokenizer = await familyTokenizer('qwen2_5');
    assert.equal(tokenizer.vocabSize, 151665);
    tokenizer.checkVocabulary(151936, 'big');
    tokenizer.checkVocabulary(151665, 'exact');
    assert.throws(
      () => tokenizer.checkVocabulary(32000, './small'),
      /tokenizer\.json has ids up to 151664, but the vocabulary of \.\/small has only 32000 \(vocab_size/,
    );
    assert.equal(tokenizer.decode([151800, 9707]), 'Hello', 'padding has no text');
  });

  it('truncation and padding of a tokenizer.json are not followed', async (t) => {
    const definition = JSON.parse(readFileSync(join(embeddedModel, 'tokenizer.json'), 'utf8'));
    const truncation = { direction: 'Right', max_length: 2, strategy: 'LongestFirst', stride: 0 };
    const padding = {
      strategy: { Fixed: 9 },
      direction: 'Right',
      pad_to_multiple_of: null,
      pad_id: 0,
      pad_type_id: 0,
      pad_token: '_',
    };
    const folder = writeFiles(temporaryFolder(t), {
      'tokenizer.json': JSON.stringify({ ...definition, truncation, padding }),
    });
    assert.deepEqual(await (await Tokenizer.load(folder)).encode('1 2 3 4'), [1, 2, 3, 4]);
  });

  it('broken definitions are errors, not crashes', async (t) => {
    const definition = JSON.parse(readFileSync(join(embeddedModel, 'tokenizer.json'), 'utf8'));
    const broken: Record<string, unknown>[] = [
      { model: {} },
      { model: { type: 'BPE', vocab: { a: 0 }, merges: ['a b'] } },
      { model: { type: 'BPE', vocab: { a: -1 }, merges: [] } },
      { model: { type: 'WordLevel', vocab: 'x', unk_token: 1 } },
      { pre_tokenizer: { type: 'Split', pattern: { Regex: '(' }, behavior: 'Isolated', invert: false } },
      { added_tokens: [{ id: 'x' }] },
      { decoder: { type: 'Nonsense' } },
    ];
    for (const change of broken) {
      const content = JSON.stringify({ ...definition, ...change });
      const folder = writeFiles(temporaryFolder(t), { 'tokenizer.json': content });
      await assert.rejects(Tokenizer.load(folder), InvalidFileError, content.slice(0, 200));
    }
  });

  it('a long word, lone surrogates and a million spaces are tokenized outside of the event loop', async () => {
    const tokenizer = await familyTokenizer('qwen3');
    let ticks = 0;
    const timer = setInterval(() => ticks++, 5);
    const start = performance.now();
    const lists = await tokenizer.encodeBatch(['a'.repeat(1 << 20), ' '.repeat(1 << 20), '\ud800x']);
    clearInterval(timer);
    assert.ok(ticks > 0, 'timers fire meanwhile');
    assert.deepEqual(
      lists.map((ids) => ids.length),
      [131072, 8192, 2],
    );
    assert.equal(tokenizer.decode(lists[2] as number[]), '\ufffdx');
    assert.ok(performance.now() - start < 60_000);
    await assert.rejects(tokenizer.encode(5 as never), /text 0 is not a text/);
  });
});

describe('what the trainer makes of a tokenizer', () => {
  /** The stop tokens that responses are sampled with. */
  async function stopsOf(tokenizer: Partial<TrainerTokenizer>, stopTokens: StopToken[], chat: boolean) {
    class Listening extends FakePolicy {
      stops: readonly number[] | undefined;
      override generate(...args: Parameters<FakePolicy['generate']>): ReturnType<FakePolicy['generate']> {
        this.stops = args[1].stopTokens;
        return super.generate(...args);
      }
    }
    const policy = new Listening();
    const task = toyTask({ prompts: ['1', '2'] });
    const train = (task.splits.train ?? []).map((problem) => (chat ? { ...problem, prompt: [] } : problem));
    const trainer = new Trainer({
      policy,
      task: { ...task, splits: { train } },
      tokenizer: { ...toyTokenizer, encodePrompt: async () => [1], ...tokenizer },
      config: {
        run: { iterations: 1 },
        rollout: { promptsPerIteration: 2, groupSize: 2, maxNewTokens: 4, stopTokens },
        optimizer: { miniBatchPrompts: 2 },
      },
    });
    for await (const _ of trainer);
    return policy.stops;
  }

  it('end-of-sequence ids, the end of turn for chats, and the configuration over both', async () => {
    const tokenizer = {
      eosTokenIds: [5],
      endOfTurnTokenId: 6,
      stopTokenIds: (list: readonly StopToken[]) => list.map(Number),
    };
    assert.deepEqual(await stopsOf(tokenizer, [], false), [5]);
    assert.deepEqual(await stopsOf(tokenizer, [], true), [5, 6]);
    assert.deepEqual(await stopsOf(tokenizer, ['7'], true), [7]);
    assert.equal(await stopsOf({}, [], false), undefined);
  });

  it('a vocabulary that the model lacks stops it before anything runs', async () => {
    const embedded = await Tokenizer.load(embeddedModel);
    const trainer = new Trainer({ policy: new FakePolicy(), task: toyTask(), tokenizer: embedded });
    await assert.rejects(
      trainer.prepare(),
      /tokenizer\.json has ids up to \d+, but the vocabulary of the model has only 11/,
    );
  });
});
