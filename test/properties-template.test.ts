import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { ChatTemplates } from '../lib/tokenizer/chat-template.js';
import { Tokenizer } from '../lib/tokenizer.js';
import { embeddedModel } from './support/data.js';
import { forAll, STRANGE, spoiltBytes, valueOrNamedError } from './support/properties.js';
import { familyTokenizer, tokenizerFolder } from './support/tokenizers.js';

const folder = mkdtempSync(join(tmpdir(), 'eepo-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const chat = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'Hi {{ 1 }} {% endif %}' },
];
const of = (text: string): ChatTemplates =>
  new ChatTemplates(
    new Map([['default', { text, file: 'evil/chat_template.jinja' }]]),
    { bos_token: '<s>' },
    'evil/tokenizer.json',
  );
const render = (text: string, messages: readonly { role: string; content?: unknown }[] = chat): string =>
  of(text).render(messages);

const A = "{% set a = 'a' * 1000000 %}";
const LIST = '{% set ns = namespace(l=[1], s="x" * 16) %}';

/** Templates that would never end, or take all memory. */
const ENDLESS: Record<string, string> = {
  'a range': '{% for i in range(10**9) %}x{% endfor %}',
  'loops in loops': '{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}',
  'a power': '{{ 10 ** 9 ** 9 ** 9 }}',
  'a product': "{{ 'x' * 10 ** 9 }}",
  doubling: `${LIST}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}`,
  replacing: `${A}{{ a | replace('a', a) }}`,
  'replacing nothing': `${A}{{ 'a'.replace('', a) ~ a.replace('', a) }}`,
  joining: `${A}{{ range(100000) | join(a) }}`,
  'joining by method': `${A}{{ a.join(('b' * 100000) | list) }}`,
  'nested lists': `${LIST}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}`,
  'nested lists as JSON': `${LIST}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l | tojson(indent=60) }}`,
  'nested lists compared': `${LIST}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l == [ns.l, 1] }}`,
  'a macro that calls itself': '{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}',
  'a macro that calls itself twice':
    '{% macro m(n) %}{% if n > 0 %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}',
  indentation: "{{ ('a\\n' * 100000) | indent(10000) }}",
  'upper case': `${A}{% for i in range(9999) %}{{ a.upper() | length }}{% endfor %}`,
  titles: "{% set a = 'a ' * 500000 %}{% for i in range(9999) %}{{ a.title() | length }}{% endfor %}",
  'looking for members': '{% for i in range(9999) %}{{ i in range(99999) }}{% endfor %}',
  parentheses: `{{ ${'('.repeat(50_000)}1${')'.repeat(50_000)} }}`,
  'not not not': `{{ ${'not '.repeat(50_000)}1 }}`,
  sums: `{{ 1${'+1'.repeat(60_000)} }}`,
  members: `{{ a${'.b'.repeat(60_000)} }}`,
  'open comments': '{#'.repeat(100_000),
  'open statements': '{%'.repeat(100_000),
  size: 'x'.repeat(2_000_000),
  spaces: `{{${' '.repeat(100_000)}1 }}`,
};

describe('a chat template that never ends', () => {
  for (const [name, text] of Object.entries(ENDLESS)) {
    it(name, async () => {
      const began = performance.now();
      const result = await valueOrNamedError(() => render(text), 'evil/chat_template.jinja');
      // Templates as large as these may be right: then they are bounded by what they print.
      assert.ok(result === null || result.length <= 4 * 2 ** 20, `printed ${result?.length} characters`);
      assert.ok(performance.now() - began < 20_000);
    });
  }

  it('is a named error of the tokenizer it came with, and the next chat is rendered as ever', async () => {
    writeFileSync(join(folder, 'evil.jinja'), ENDLESS['loops in loops'] as string);
    const tokenizer = await Tokenizer.load(embeddedModel, { chatTemplate: join(folder, 'evil.jinja') });
    assert.equal(await valueOrNamedError(() => tokenizer.encodePrompt(chat), 'evil.jinja'), null);
    const good = await familyTokenizer('qwen2_5');
    assert.match((await good.applyChatTemplate(chat)).text, /Be brief/);
  });

  it('slow ones are given up, not tried for every prompt of a data set', () => {
    // each render stays within its bound
    const templates = of('{% for i in range(40) %}{% for j in range(9000) %}{{ j }}{% endfor %}{% endfor %}');
    let error: Error | null = null;
    const times: number[] = [];
    for (let i = 0; i < 60 && error === null; i += 1) {
      const began = performance.now();
      try {
        templates.render(chat);
      } catch (cause) {
        error = cause as Error;
      }
      times.push(performance.now() - began);
      if (error === null && i > 2 && Math.max(...times) < 1000) return;
    }
    assert.match(String(error?.message), /too much|took longer/);
  });
});

describe('no template reaches outside', () => {
  for (const text of [
    "{% include '/etc/passwd' %}",
    "{% import 'fs' as fs %}",
    "{{ range.constructor('return process')() }}",
    "{{ ''.constructor.constructor('return process')() }}",
    '{{ messages.__proto__.x }}',
    "{{ messages['__class__'].__mro__ }}",
    '{{ self.__init__.__globals__ }}',
    '{{ process.env }}',
    '{{ globalThis }}',
    '{{ require("fs") }}',
  ]) {
    it(text, async () => {
      const result = await valueOrNamedError(() => render(text), 'evil');
      assert.ok(result === null || result === '', String(result).slice(0, 100));
    });
  }
});

describe('any template', () => {
  const part = fc.constantFrom(
    '{{',
    '}}',
    '{%',
    '%}',
    '{#',
    '#}',
    '-',
    ' ',
    '\n',
    '(',
    ')',
    '[',
    ']',
    '{',
    '}',
    '|',
    '.',
    ',',
    ':',
    '=',
    '~',
    '+',
    '*',
    '**',
    '/',
    '//',
    '%',
    '<',
    '>=',
    '==',
    '!=',
    'for',
    'in',
    'if',
    'elif',
    'else',
    'endif',
    'endfor',
    'set',
    'endset',
    'macro',
    'endmacro',
    'call',
    'endcall',
    'filter',
    'endfilter',
    'break',
    'continue',
    'not',
    'and',
    'or',
    'is',
    'none',
    'true',
    'messages',
    'm',
    'x',
    'loop',
    'loop.index',
    'loop.cycle',
    'namespace',
    'range',
    'raise_exception',
    'strftime_now',
    'bos_token',
    'tojson',
    'length',
    'trim',
    'map',
    'selectattr',
    'sort',
    'items',
    'join',
    'upper',
    'replace',
    'indent',
    'int',
    'list',
    'default',
    'first',
    'string',
    'unique',
    'dictsort',
    'rejectattr',
    'sum',
    'min',
    'role',
    'content',
    "'a'",
    '"',
    '1',
    '-1',
    '0',
    '1.5',
    '1e9',
    '99999999999',
    '__proto__',
    'constructor',
    "'%Y'",
    '\\',
  );

  it('of its words is a text, a refusal or a named error', async () => {
    const expression = fc.array(part, { maxLength: 9 }).map((parts) => `{{ ${parts.join(' ')} }}`);
    const statement = fc.array(part, { maxLength: 9 }).map((parts) => `{% ${parts.join(' ')} %}`);
    const any = fc.array(part, { maxLength: 25 }).map((parts) => parts.join(' '));
    await forAll(fc.oneof(expression, statement, any, fc.string()), 400, async (text) => {
      await valueOrNamedError(() => render(text));
    });
  });

  it('of a filter or method with strange arguments', async () => {
    const names = fc.constantFrom(
      'tojson',
      'trim',
      'upper',
      'title',
      'replace',
      'length',
      'list',
      'first',
      'last',
      'join',
      'indent',
      'int',
      'float',
      'sum',
      'min',
      'max',
      'default',
      'map',
      'sort',
      'unique',
      'items',
      'selectattr',
      'rejectattr',
      'reverse',
      'abs',
      'string',
      'capitalize',
    );
    const methods = fc.constantFrom(
      'strip',
      'split',
      'rsplit',
      'splitlines',
      'replace',
      'find',
      'count',
      'join',
      'isdigit',
      'removeprefix',
      'partition',
      'startswith',
      'endswith',
      'items',
      'keys',
      'get',
      'append',
      'pop',
      'values',
      'format',
    );
    const value = fc.constantFrom(
      '1',
      '-1',
      '0',
      '1.5',
      '10**15',
      "''",
      "'a b'",
      "'x' * 99",
      '[]',
      '[1, "a"]',
      '{}',
      '{"a": 1}',
      'none',
      'x',
      'true',
      'messages',
      'range(9)',
      'range',
      'namespace()',
      'indent=99999999',
      'width=-1',
      'attribute="a"',
      '*messages',
      '**x',
    );
    const call = fc.tuple(value, names, methods, fc.array(value, { maxLength: 3 }));
    await forAll(call, 400, async ([on, filter, method, args]) => {
      await valueOrNamedError(() => render(`{{ (${on}) | ${filter}(${args.join(', ')}) }}`));
      await valueOrNamedError(() => render(`{{ (${on}).${method}(${args.join(', ')}) }}`));
    });
  });

  it('a real one with bytes changed', async () => {
    const config = JSON.parse(readFileSync(join(tokenizerFolder('qwen3'), 'tokenizer_config.json'), 'utf8')) as {
      chat_template: string;
    };
    assert.match(render(config.chat_template), /Be brief/);
    await forAll(spoiltBytes(Buffer.from(config.chat_template)), 150, async (bytes) => {
      await valueOrNamedError(() => render(bytes.toString('utf8')));
    });
  });

  it('and any messages', async () => {
    const config = JSON.parse(readFileSync(join(tokenizerFolder('qwen3'), 'tokenizer_config.json'), 'utf8')) as {
      chat_template: string;
    };
    const message = fc.record(
      {
        role: fc.constantFrom('user', 'assistant', 'system', 'tool', 'x'),
        content: fc.oneof(fc.constantFrom(...STRANGE), fc.jsonValue()),
        tool_calls: fc.constantFrom(...STRANGE),
      },
      { requiredKeys: ['role'] },
    );
    await forAll(fc.array(message, { maxLength: 4 }), 300, async (messages) => {
      await valueOrNamedError(() => render(config.chat_template, messages));
    });
  });
});
