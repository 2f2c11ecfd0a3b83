/** Ids, decoded text and rendered chats are those of Hugging Face's Python libraries, to the last one. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { JinjaTemplate } from '../lib/tokenizer/jinja.js';
import type { TemplateMessage } from '../lib/tokenizer.js';
import { needs, testData } from './support/data.js';
import { familyTokenizer, readRows, TOKENIZERS, type TokenizerName, tokenFixture } from './support/tokenizers.js';

interface Encoded {
  ids: number[];
  with_special: number[];
  decoded: string;
  plain: string;
  untrusted: number[];
}
type EncodeRow = { text: string } & Record<TokenizerName, Encoded>;

interface ChatRow {
  model: TokenizerName;
  messages: TemplateMessage[];
  tools?: Record<string, unknown>[] | null;
  add_generation_prompt: boolean;
  variables?: Record<string, unknown>;
  kwargs?: Record<string, unknown>;
  text: string;
  ids: number[];
}

async function checkChats(rows: readonly ChatRow[]): Promise<void> {
  for (const { model, messages, tools, add_generation_prompt, variables, kwargs, ...expected } of rows) {
    const tokenizer = await familyTokenizer(model);
    const rendered = await tokenizer.applyChatTemplate(messages, {
      addGenerationPrompt: add_generation_prompt,
      ...(tools ? { tools } : {}),
      variables: variables ?? kwargs ?? {},
    });
    assert.deepEqual(rendered, { text: expected.text, ids: expected.ids });
  }
}

describe('tokens', () => {
  for (const name of TOKENIZERS) {
    it(`${name}: ids and text of hard texts are the Python library's`, async () => {
      const tokenizer = await familyTokenizer(name);
      for (const row of tokenFixture<EncodeRow>('encode.jsonl')) {
        const { text } = row;
        const { ids, with_special, decoded, plain, untrusted } = row[name];
        assert.deepEqual(await tokenizer.encode(text), ids, JSON.stringify(text));
        const prompt = await tokenizer.encodePrompt(text);
        assert.deepEqual(prompt.slice(0, 1), with_special);
        assert.equal(tokenizer.decode(ids, { skipSpecialTokens: false }), decoded);
        assert.equal(tokenizer.decode(ids), plain);
        assert.deepEqual(await tokenizer.encode(text, { parseSpecialTokens: false }), untrusted, JSON.stringify(text));
      }
    });

    it(`${name}: all reference texts`, needs('tokenizers', 'encode.jsonl.gz'), async () => {
      type Row = { text: string } & Record<TokenizerName, number[]>;
      const rows = readRows<Row>(testData('tokenizers', 'encode.jsonl.gz') as string);
      assert.ok(rows.length >= 675);
      const tokenizer = await familyTokenizer(name);
      const ids = await tokenizer.encodeBatch(rows.map(({ text }) => text));
      for (const [i, row] of rows.entries()) {
        assert.deepEqual(ids[i], row[name], JSON.stringify(row.text));
        // Qwen's tokenizers normalize; what they decode is the normalized text.
        const text = tokenizer.decode(row[name], { skipSpecialTokens: false });
        assert.equal(text, name === 'llama3_2' ? row.text : row.text.normalize('NFC'));
      }
    });
  }

  it("transformers.js's cases", needs('tokenizers', 'transformersjs_cases.jsonl'), async () => {
    type Row = { model: string; vocab: string; text: string; ids: number[]; decoded: string };
    const rows = readRows<Row>(testData('tokenizers', 'transformersjs_cases.jsonl') as string);
    let checked = 0;
    for (const { vocab, text, ids, decoded } of rows) {
      // Llama 3's own vocabulary has other special tokens; the rest of it is Llama 3.2's.
      const isLlama = vocab.startsWith('llama3');
      if (!isLlama && !TOKENIZERS.includes(vocab as TokenizerName)) continue;
      const tokenizer = await familyTokenizer(isLlama ? 'llama3_2' : (vocab as TokenizerName));
      const bos = ids[0] === tokenizer.bosTokenId;
      assert.deepEqual(await tokenizer.encode(text, { addBos: bos }), ids, text);
      // Theirs cleans up spaces where the configuration says so, also of byte-pair models.
      const options = { skipSpecialTokens: false, cleanUpTokenizationSpaces: isLlama };
      assert.equal(tokenizer.decode(ids, options), decoded);
      checked += 1;
    }
    assert.ok(checked >= 62, `${checked} cases`);
  });
});

describe('chats', () => {
  it('text and ids are those of transformers: tools, thoughts, white space, quoted special tokens', async () => {
    const rows = tokenFixture<ChatRow>('chat.jsonl');
    assert.equal(rows.length, 21);
    await checkChats(rows);
  });

  it('all reference renderings', needs('tokenizers', 'chat.jsonl'), async () => {
    const rows = readRows<ChatRow>(testData('tokenizers', 'chat.jsonl') as string);
    assert.ok(rows.length >= 32);
    await checkChats(rows);
  });

  it('what templates use of jinja2 does what it does in Python', () => {
    type Row = { template: string; messages: TemplateMessage[]; tools: unknown; text: string | null };
    for (const { template, text, messages, tools } of tokenFixture<Row>('jinja.jsonl')) {
      const render = (): string =>
        new JinjaTemplate(template).render(
          { messages, tools, documents: null, add_generation_prompt: false },
          new Date(),
        );
      if (text === null) assert.throws(render, template);
      else assert.equal(render(), text, template);
    }
  });
});
