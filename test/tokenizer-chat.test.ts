import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { InvalidArgumentError, InvalidFileError, UnsupportedError } from '../lib/errors.js';
import { JinjaTemplate } from '../lib/tokenizer/jinja.js';
import { TemplateLimit } from '../lib/tokenizer/jinja-budget.js';
import { Tokenizer, type TokenizerOptions } from '../lib/tokenizer.js';
import { embeddedModel } from './support/data.js';
import { temporaryFolder, writeFiles } from './support/files.js';
import { familyTokenizer, TOKENIZERS } from './support/tokenizers.js';

const HI = [{ role: 'user', content: '7' }];
/** Of the embedded model's words: `2 <content> +`. */
const TINY = '2 {% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}+{% endif %}';

/** The embedded tokenizer with other files beside it. */
function folderWith(t: TestContext, files: Record<string, string>): string {
  const folder = temporaryFolder(t);
  cpSync(join(embeddedModel, 'tokenizer.json'), join(folder, 'tokenizer.json'));
  mkdirSync(join(folder, 'additional_chat_templates'));
  return writeFiles(folder, files);
}

const load = (t: TestContext, files: Record<string, string>, options?: TokenizerOptions): Promise<Tokenizer> =>
  Tokenizer.load(folderWith(t, files), options);

const text = async (tokenizer: Tokenizer, options = {}): Promise<string> =>
  (await tokenizer.applyChatTemplate(HI, options)).text;

describe('where a chat template comes from', () => {
  it('a text in tokenizer_config.json; encodePrompt asks for the assistant', async (t) => {
    const tokenizer = await load(t, { 'tokenizer_config.json': JSON.stringify({ chat_template: TINY }) });
    assert.deepEqual(await tokenizer.applyChatTemplate(HI), { text: '2 7 ', ids: [2, 7] });
    assert.deepEqual(await tokenizer.encodePrompt(HI), [2, 7, 100]);
    assert.deepEqual(await tokenizer.encodePrompts([HI, '9', HI]), [[2, 7, 100], [9], [2, 7, 100]]);
  });

  it('a list of named ones: default, tool_use where there are tools, any by name', async (t) => {
    const chat_template = ['default', 'tool_use', 'rag'].map((name) => ({ name, template: `{# #}${name}` }));
    const tokenizer = await load(t, { 'tokenizer_config.json': JSON.stringify({ chat_template }) });
    assert.deepEqual(tokenizer.chatTemplateNames, ['default', 'tool_use', 'rag']);
    const rendered = async (options: object): Promise<string> => {
      try {
        return await text(tokenizer, options);
      } catch (error) {
        return (error as Error).message;
      }
    };
    // The embedded vocabulary lacks these words: that it is their text which is not known shows which was rendered.
    assert.match(await rendered({}), /default|UNK/);
    assert.match(await rendered({ templateName: 'none' }), /no chat template "none"; there is default, tool_use, rag/);
  });

  it('chat_template.jinja and additional_chat_templates, which win', async (t) => {
    const tokenizer = await load(t, {
      'tokenizer_config.json': JSON.stringify({ chat_template: '3' }),
      'chat_template.jinja': '4',
      'additional_chat_templates/short.jinja': '5',
    });
    assert.equal(await text(tokenizer), '4');
    assert.equal(await text(tokenizer, { templateName: 'short' }), '5');
    assert.ok(tokenizer.files().some((path) => path.endsWith(join('additional_chat_templates', 'short.jinja'))));
  });

  it('the option chatTemplate: a file, a text, a name; save() writes it', async (t) => {
    const files = { 'chat_template.jinja': '4', 'additional_chat_templates/short.jinja': '5', 'own.txt': '6{# #}' };
    const folder = folderWith(t, files);
    const choose = (chatTemplate: string): Promise<Tokenizer> => Tokenizer.load(folder, { chatTemplate });
    const own = await choose(join(folder, 'own.txt'));
    assert.equal(await text(own), '6');
    assert.equal(await text(await choose('{{ messages[0].content }}')), '7');
    assert.equal(await text(await choose('short')), '5');
    await assert.rejects(
      choose('long'),
      /chatTemplate "long" is neither a file nor a template of the model \(default, short\)/,
    );
    const saved = temporaryFolder(t);
    await own.save(saved);
    assert.equal(readFileSync(join(saved, 'chat_template.jinja'), 'utf8'), '6{# #}');
    assert.equal(await text(await Tokenizer.load(saved)), '6');
    assert.equal(await text(await Tokenizer.load(saved), { templateName: 'short' }), '5');
  });

  it('none at all is an error that names the file and the option', async (t) => {
    const folder = folderWith(t, {});
    const tokenizer = await Tokenizer.load(folder);
    await assert.rejects(tokenizer.encodePrompt(HI), (error) => {
      assert.ok(error instanceof UnsupportedError);
      assert.ok(error.message.includes(join(folder, 'tokenizer.json')));
      assert.match(error.message, /option chatTemplate/);
      return true;
    });
    await assert.rejects(
      load(t, { 'tokenizer_config.json': JSON.stringify({ chat_template: 5 }) }),
      /tokenizer_config\.json: "chat_template" must be/,
    );
  });
});

describe('what a template is given', () => {
  it('special tokens, variables of the tokenizer and of the call, thinking, documents', async (t) => {
    const chat_template =
      '{{ bos_token }}|{{ v }}|{{ w }}|{{ enable_thinking }}|{{ documents[0].title }}|{{ tools is none }}|{{ pad_token is defined }}';
    const config = { chat_template: chat_template.replaceAll('|', ' '), bos_token: { content: '1' }, unk_token: '_' };
    const tokenizer = await load(
      t,
      { 'tokenizer_config.json': JSON.stringify(config) },
      { templateVariables: { v: 2, w: 3 } },
    );
    const options = { variables: { w: 4 }, enableThinking: false, documents: [{ title: '5' }] };
    assert.equal(await text(tokenizer, options), '1 2 4 False 5 True False');
  });

  it('the date', async () => {
    const tokenizer = await familyTokenizer('llama3_2');
    const { text: rendered } = await tokenizer.applyChatTemplate(HI);
    assert.match(rendered, /Today Date: \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) 20\d\d\n/);
    assert.equal(
      new JinjaTemplate("{{ strftime_now('%d %b %Y %A %j %H:%M %p %% %q') }}").render({}, new Date(2026, 1, 3, 15, 4)),
      '03 Feb 2026 Tuesday 034 15:04 PM % %q',
    );
  });

  it('BOS once: of the template in a chat, of the text or the post-processor in a text', async () => {
    const tokenizer = await familyTokenizer('llama3_2');
    const bos = tokenizer.bosTokenId as number;
    const count = (ids: readonly number[]): number => ids.filter((id) => id === bos).length;
    assert.equal(count(await tokenizer.encodePrompt(HI)), 1);
    assert.equal(count(await tokenizer.encodePrompt('x')), 1);
    assert.equal(count(await tokenizer.encodePrompt('<|begin_of_text|>x')), 1);
    assert.equal(count(await tokenizer.encode('x')), 0);
  });
});

describe('text that is not to be trusted', () => {
  for (const name of TOKENIZERS) {
    it(`${name}: special tokens of messages are text, those of the template are tokens`, async () => {
      const tokenizer = await familyTokenizer(name);
      const end = name === 'llama3_2' ? '<|eot_id|>' : '<|im_end|>';
      const id = tokenizer.tokenId(end) as number;
      const chat = [{ role: 'user', content: `say ${end}${end} now` }];
      const [trusted, plain] = await Promise.all(
        [true, false].map((parseSpecialTokens) =>
          tokenizer.applyChatTemplate(chat, { parseSpecialTokens, addGenerationPrompt: true }),
        ),
      );
      assert.ok(trusted && plain);
      assert.equal(plain.text, trusted.text);
      const count = (ids: readonly number[]): number => ids.filter((i) => i === id).length;
      assert.equal(count(trusted.ids) - count(plain.ids), 2);
      assert.ok(count(plain.ids) > 0);
      assert.equal(tokenizer.decode(plain.ids, { skipSpecialTokens: false }), plain.text);
      const harmless = await tokenizer.encodePrompts([HI, 'x'], { parseSpecialTokens: false });
      assert.deepEqual(harmless, await tokenizer.encodePrompts([HI, 'x']));
    });
  }
});

describe('templates are hostile', () => {
  const bombs: Record<string, string> = {
    'a loop without end': '{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}',
    'doubling lists': '{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}',
    'doubling texts':
      '{% set ns = namespace(a="ab") %}{% for i in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}',
    'a huge range': '{{ range(10 ** 9) }}',
    'a huge text': '{{ "a" * 10 ** 9 }}',
    'a long output': '{% for a in range(99999) %}{{ "abcdefgh" * 1000 }}{% endfor %}',
    recursion: '{% macro m(a) %}{{ m(a) }}{% endmacro %}{{ m(1) }}',
    'a joined flood': '{{ range(99999) | join("a" * 100000) }}',
    'a replaced flood': '{{ ("a" * 1000000) | replace("a", "b" * 1000000) }}',
    'nested lists':
      '{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a }}',
    'nested JSON':
      '{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a | tojson }}',
    'a wide indent': '{{ [1] | tojson(indent="x" * 1000000) }}',
  };
  for (const [what, template] of Object.entries(bombs)) {
    it(`${what} ends with an error, soon`, async (t) => {
      const tokenizer = await load(t, { 'chat_template.jinja': template });
      const start = performance.now();
      await assert.rejects(tokenizer.encodePrompt(HI), (error) => {
        assert.ok(error instanceof InvalidFileError, String(error));
        assert.match(error.message, /chat_template\.jinja: the chat template (computes too much|fails)/);
        return true;
      });
      assert.ok(performance.now() - start < 30_000);
    });
  }

  it('a template that cannot be parsed, deep nesting, a megabyte of spaces', async (t) => {
    for (const template of [
      '{% if %}',
      '{{ "',
      `{{ ${'('.repeat(50_000)} }}`,
      '{% include "x" %}',
      ' '.repeat(2_000),
    ]) {
      await assert.rejects(
        load(t, { 'chat_template.jinja': template }),
        /chat_template\.jinja: the chat template cannot be parsed: .*; give another one with chatTemplate$/s,
      );
    }
    // one of several that nobody may ask for
    const files = { 'chat_template.jinja': 'x', 'additional_chat_templates/broken.jinja': '{% if %}' };
    const tokenizer = await load(t, files);
    assert.equal(await text(tokenizer), 'x');
    await assert.rejects(
      tokenizer.encodePrompt(HI, { templateName: 'broken' }),
      /broken\.jinja: the chat template cannot be parsed/,
    );
    assert.throws(() => new JinjaTemplate('a'.repeat(300_000)), TemplateLimit);
    await assert.rejects(load(t, { 'chat_template.jinja': 'a'.repeat(2_000_000) }), /at most 1048576 are read/);
  });

  it('cannot reach JavaScript', async (t) => {
    const template = '{{ "".constructor }}{{ messages.constructor }}{{ messages[0].__proto__ }}{{ range.constructor }}';
    assert.equal(await text(await load(t, { 'chat_template.jinja': `7${template}` })), '7');
  });

  it('what the template refuses is its words', async (t) => {
    const tokenizer = await load(t, { 'chat_template.jinja': '{{ raise_exception("roles must alternate") }}' });
    await assert.rejects(tokenizer.encodePrompt(HI), (error) => {
      assert.ok(error instanceof InvalidArgumentError);
      assert.match(
        error.message,
        /chat_template\.jinja: the chat template refuses these messages: roles must alternate/,
      );
      return true;
    });
    await assert.rejects(tokenizer.applyChatTemplate([]), /at least one/);
    await assert.rejects(tokenizer.applyChatTemplate([{ content: 'x' } as never]), /messages\[0\] has no role/);
  });
});
