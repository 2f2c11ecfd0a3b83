import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';
import { readAdapterConfig } from '../lib/adapter.js';
import { readConfig } from '../lib/config-json.js';
import { EepoError } from '../lib/errors.js';
import { loadBenchmarks } from '../lib/eval/benchmark-data.js';
import { openResponses } from '../lib/eval/response-file.js';
import { readSettings } from '../lib/eval/settings.js';
import { readResult } from '../lib/eval/suite.js';
import { weightFiles } from '../lib/model-folder.js';
import { createTask } from '../lib/tasks/index.js';
import { loadRewardModule } from '../lib/tasks/reward-module.js';
import { Tokenizer } from '../lib/tokenizer.js';
import { loadTrainConfig } from '../lib/train/config.js';
import { readDemonstrations } from '../lib/train/demonstrations.js';
import { prepareRun } from '../lib/train/load.js';
import { loadSftConfig } from '../lib/train/sft-config.js';
import { embeddedModel, ROOT } from './support/data.js';
import { temporaryFolder } from './support/files.js';
import { sizes } from './support/model-config.js';

/** What is wrong, the file, and the error: it names the file, the place in it, and what is wrong there. */
type Row = readonly [what: string, content: string | Buffer, message: RegExp];

/** One test for each row: `use` reads the file, and must refuse it. */
function table(name: string, file: string, use: (path: string, folder: string) => unknown, rows: readonly Row[]): void {
  describe(name, () => {
    for (const [what, content, message] of rows) {
      it(what, async (t) => {
        const folder = temporaryFolder(t);
        const path = join(folder, file);
        writeFileSync(path, content);
        await refused(() => use(path, folder), message);
      });
    }
  });
}

async function refused(work: () => unknown, message: RegExp): Promise<void> {
  await assert.rejects(
    async () => await work(),
    (error: Error) => {
      assert.ok(error instanceof EepoError, error.stack);
      assert.match(error.message, message);
      return true;
    },
  );
}

const config = { model_type: 'llama', ...sizes };
const json = (value: unknown): string => JSON.stringify(value);
const configWith = (change: object): string => json({ ...config, ...change });
const NEST = '['.repeat(50_000) + ']'.repeat(50_000);

table('config.json', 'config.json', (_, folder) => readConfig(folder), [
  ['empty', '', /config\.json: not valid JSON/],
  ['cut off', configWith({}).slice(0, -9), /config\.json: not valid JSON/],
  ['a list', '[]', /config\.json: must hold a JSON object/],
  ['null', 'null', /config\.json: must hold a JSON object/],
  ['a byte order mark', `\ufeff${configWith({})}`, /config\.json: not valid JSON/],
  ['nothing in it', '{}', /config\.json is not a valid model config:\n {2}model_type/],
  [
    'another kind of model',
    configWith({ model_type: 'bert' }),
    /config\.json: model_type "bert" is not supported.*llama/,
  ],
  ['a size that is text', configWith({ hidden_size: '64' }), /config\.json.*\n {2}hidden_size: .*number/],
  ['a size of 0', configWith({ vocab_size: 0 }), /config\.json.*\n {2}vocab_size/],
  ['a negative size', configWith({ num_hidden_layers: -1 }), /config\.json.*\n {2}num_hidden_layers/],
  ['a size that is no whole number', configWith({ intermediate_size: 1.5 }), /config\.json.*\n {2}intermediate_size/],
  ['a huge size', configWith({ hidden_size: 2 ** 40 }), /config\.json.*\n {2}hidden_size: .*2147483647/],
  ['too many layers', configWith({ num_hidden_layers: 1e6 }), /config\.json.*\n {2}num_hidden_layers: .*10000/],
  [
    'heads that do not divide',
    configWith({ num_attention_heads: 3 }),
    /config\.json: head_dim must be an even integer/,
  ],
  [
    'groups that do not divide',
    configWith({ num_key_value_heads: 3 }),
    /config\.json: num_attention_heads \(4\) must be a multiple/,
  ],
  ['an epsilon of 0', configWith({ rms_norm_eps: 0 }), /config\.json.*\n {2}rms_norm_eps/],
  ['an epsilon above 1', configWith({ rms_norm_eps: 5 }), /config\.json.*\n {2}rms_norm_eps/],
  ['another activation', configWith({ hidden_act: 'gelu' }), /config\.json: hidden_act "gelu".*silu/],
  [
    'quantized weights',
    configWith({ quantization_config: { quant_method: 'gptq' } }),
    /config\.json: quantized weights.*gptq/,
  ],
  [
    'architectures of another kind',
    configWith({ architectures: ['LlamaForSequenceClassification'] }),
    /config\.json: architecture LlamaForSequenceClassification/,
  ],
  [
    'an unknown rope type',
    configWith({ rope_scaling: { rope_type: 'su', factor: 2 } }),
    /config\.json: rope type "su" is not supported/,
  ],
  [
    'a rope type without its factor',
    configWith({ rope_scaling: { rope_type: 'linear' } }),
    /config\.json: rope type linear needs factor/,
  ],
  [
    'a rope factor below 1',
    configWith({ rope_scaling: { rope_type: 'linear', factor: 0.5 } }),
    /config\.json.*\n {2}rope_scaling\.factor/,
  ],
  [
    'a rope factor beyond counting',
    configWith({ rope_scaling: { rope_type: 'linear', factor: 1e300 } }),
    /config\.json: factor 1e\+300/,
  ],
  [
    'low and high frequencies swapped',
    configWith({ rope_scaling: { rope_type: 'llama3', factor: 8, low_freq_factor: 4, high_freq_factor: 1 } }),
    /config\.json: high_freq_factor \(1\) must be above/,
  ],
  ['part of a head rotated', configWith({ partial_rotary_factor: 0.5 }), /config\.json: partial_rotary_factor 0\.5/],
  [
    'a sliding window',
    configWith({ model_type: 'qwen2', use_sliding_window: true, sliding_window: 8, max_window_layers: 0 }),
    /config\.json: use_sliding_window with a window of 8/,
  ],
  [
    'types of layers for another number of them',
    configWith({ layer_types: ['full_attention'] }),
    /config\.json: layer_types has 1 entries for 2 layers/,
  ],
  ['a negative id', configWith({ eos_token_id: -1 }), /config\.json.*\n {2}eos_token_id/],
  ['an id beyond 32 bits', configWith({ eos_token_id: 2 ** 40 }), /config\.json.*\n {2}eos_token_id/],
  ['nested without end', configWith({}).replace('"llama"', NEST), /config\.json.*\n {2}model_type/],
]);

table(
  'generation_config.json',
  'generation_config.json',
  (_, folder) => {
    writeFileSync(join(folder, 'config.json'), json(config));
    return readConfig(folder);
  },
  [
    ['cut off', '{"eos_token_id": [1', /generation_config\.json: not valid JSON/],
    ['an id that is text', '{"eos_token_id": "1"}', /generation_config\.json: eos_token_id is not an id/],
    ['a negative id', '{"eos_token_id": [1, -2]}', /generation_config\.json: eos_token_id/],
  ],
);

/** A safetensors file of single bytes. */
function shard(names: readonly string[]): Buffer {
  const entries = names.map((name, i) => [name, { dtype: 'U8', shape: [1], data_offsets: [i, i + 1] }]);
  const header = Buffer.from(json(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header, Buffer.alloc(names.length)]);
}

const index = (map: Record<string, unknown>): string => json({ weight_map: map });

table(
  'model.safetensors.index.json',
  'model.safetensors.index.json',
  (_, folder) => {
    writeFileSync(join(folder, 'a.safetensors'), shard(['x', 'y']));
    writeFileSync(join(folder, 'b.safetensors'), shard(['z']));
    return weightFiles(folder);
  },
  [
    ['cut off', '{"weight_map": {"x"', /index\.json: not valid JSON/],
    ['without its map', '{}', /index\.json: weight_map is missing/],
    ['an empty map', index({}), /index\.json: weight_map is missing or empty/],
    ['a map that is a list', '{"weight_map": ["a.safetensors"]}', /index\.json: weight_map is missing/],
    [
      'a file above the folder',
      index({ x: '../a.safetensors' }),
      /index\.json: x is said to be in "\.\.\/a\.safetensors", which is not the name of a file/,
    ],
    ['an absolute path', index({ x: '/etc/a.safetensors' }), /index\.json: x is said to be in "\/etc/],
    ['a path below', index({ x: 'sub/a.safetensors' }), /index\.json: x is said to be in/],
    ['a path of Windows', index({ x: '..\\a.safetensors' }), /index\.json: x is said to be in/],
    ['a name with a zero byte', index({ x: 'a\0.safetensors' }), /index\.json: x is said to be in/],
    [
      'a file of another kind',
      index({ x: 'pytorch_model.bin' }),
      /index\.json: x is said to be in pytorch_model\.bin, which is not a \.safetensors/,
    ],
    ['a number', index({ x: 3 }), /index\.json: x is said to be in 3/],
    ['a nested list', index({ x: 'N' }).replace('"N"', NEST), /index\.json: x is said to be in a Array/],
    ['a missing shard', index({ x: 'a.safetensors', z: 'c.safetensors' }), /c\.safetensors is missing/],
    [
      'a tensor that is elsewhere',
      index({ x: 'a.safetensors', y: 'b.safetensors', z: 'b.safetensors' }),
      /index\.json: y is said to be in b\.safetensors, but it is in a/,
    ],
    [
      'a tensor that is nowhere',
      index({ x: 'a.safetensors', y: 'a.safetensors', z: 'b.safetensors', w: 'b.safetensors' }),
      /b\.safetensors lacks tensor w/,
    ],
    [
      'a tensor that it leaves out',
      index({ x: 'a.safetensors', z: 'b.safetensors' }),
      /index\.json does not list tensor y/,
    ],
  ],
);

const lora = { peft_type: 'LORA', r: 8, lora_alpha: 16, target_modules: ['q_proj'] };

table('adapter_config.json', 'adapter_config.json', (_, folder) => readAdapterConfig(folder), [
  ['cut off', '{"r": ', /adapter_config\.json: not valid JSON/],
  ['a rank of 0', json({ ...lora, r: 0 }), /adapter_config\.json is not a LoRA config:\n {2}r: /],
  ['a huge rank', json({ ...lora, r: 1e9 }), /adapter_config\.json.*\n {2}r: .*65536/],
  ['no targets', json({ ...lora, target_modules: [] }), /adapter_config\.json.*\n {2}target_modules/],
  ['another method', json({ ...lora, peft_type: 'IA3' }), /adapter_config\.json: peft_type "IA3"/],
  [
    'a target that is no layer',
    json({ ...lora, target_modules: ['lm_head'] }),
    /adapter_config\.json: target_modules "lm_head"/,
  ],
  ['a pattern of ranks', json({ ...lora, rank_pattern: { q_proj: 4 } }), /adapter_config\.json: rank_pattern = /],
  [
    'another initialization',
    json({ ...lora, init_lora_weights: 'pissa' }),
    /adapter_config\.json: init_lora_weights = "pissa"/,
  ],
  ['weights of another format', json(lora), /adapter_model\.safetensors does not exist/],
]);

const definition = {
  version: '1.0',
  added_tokens: [
    { id: 3, content: '<s>', single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
  ],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
  model: { type: 'BPE', vocab: { a: 0, b: 1, ab: 2 }, merges: [['a', 'b']] },
};
const tokenizerWith = (change: object): string => json({ ...definition, ...change });
const modelWith = (change: object): string => tokenizerWith({ model: { ...definition.model, ...change } });
const split = (Regex: string) => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false });

table('tokenizer.json', 'tokenizer.json', (_, folder) => Tokenizer.load(folder), [
  ['empty', '', /tokenizer\.json: not valid JSON/],
  ['cut off', tokenizerWith({}).slice(0, 90), /tokenizer\.json: not valid JSON/],
  ['a list', '[]', /tokenizer\.json: must hold a JSON object/],
  ['without a model', '{}', /tokenizer\.json: "model" is missing/],
  ['a model of another kind', modelWith({ type: 'Magic' }), /tokenizer\.json: cannot build this tokenizer/],
  ['a vocabulary that is text', modelWith({ vocab: 'a b' }), /tokenizer\.json: model\.vocab must be an object/],
  ['a negative id', modelWith({ vocab: { a: -1 } }), /tokenizer\.json: model\.vocab\["a"\] must be a whole number/],
  ['a huge id', modelWith({ vocab: { a: 2 ** 32 } }), /tokenizer\.json: model\.vocab\["a"\] must be/],
  ['an id that is text', modelWith({ vocab: { a: '0' } }), /tokenizer\.json: model\.vocab\["a"\] must be/],
  [
    'a merge that makes no token',
    modelWith({ merges: [['b', 'a']] }),
    /tokenizer\.json: model\.merges\[0\]: "ba" is not in the vocabulary/,
  ],
  ['a merge of three', modelWith({ merges: ['a b ab'] }), /tokenizer\.json: model\.merges\[0\] must be two tokens/],
  ['an unknown token that is unknown', modelWith({ unk_token: 'x' }), /tokenizer\.json: model\.unk_token: "x" is not/],
  [
    'an added token without an id',
    tokenizerWith({ added_tokens: [{ content: 'x' }] }),
    /tokenizer\.json: added_tokens\[0\]\.id must be/,
  ],
  [
    'an added token with a huge id',
    tokenizerWith({ added_tokens: [{ id: 1e12, content: 'x' }] }),
    /tokenizer\.json: added_tokens\[0\]\.id must be/,
  ],
  [
    'a regular expression without end',
    tokenizerWith({ pre_tokenizer: split('(a+)+$') }),
    /tokenizer\.json: pre_tokenizer\.pattern\.Regex: a repetition of a group/,
  ],
  [
    'a regular expression that is none',
    tokenizerWith({ pre_tokenizer: split('(a') }),
    /tokenizer\.json: cannot build this tokenizer/,
  ],
  [
    'a text that grows without end',
    tokenizerWith({
      normalizer: {
        type: 'Sequence',
        normalizers: Array(9).fill({ type: 'Replace', pattern: { String: 'a' }, content: 'a'.repeat(10) }),
      },
    }),
    /tokenizer\.json: normalizer\.normalizers\[\d\]: the replacements make a text up to 100 times longer/,
  ],
  [
    'steps in steps',
    tokenizerWith({ normalizer: 'N' }).replace(
      '"N"',
      `${'{"type":"Sequence","normalizers":['.repeat(900)}${']}'.repeat(900)}`,
    ),
    /tokenizer\.json: normalizer.*nested too deeply/,
  ],
  [
    'a template of an unknown token',
    tokenizerWith({
      post_processor: {
        type: 'TemplateProcessing',
        single: [{ SpecialToken: { id: '<x>', type_id: 0 } }],
        pair: [],
        special_tokens: {},
      },
    }),
    /tokenizer\.json: post_processor\.single names special token "<x>"/,
  ],
  [
    'a step that ends the library',
    tokenizerWith({ pre_tokenizer: { type: 'FixedLength', length: 0 } }),
    /tokenizer\.json: pre_tokenizer\.length must be/,
  ],
  [
    'a character map',
    tokenizerWith({ normalizer: { type: 'Precompiled', precompiled_charsmap: 'AAAA' } }),
    /tokenizer\.json: normalizer: a character map/,
  ],
]);

const withTokenizer =
  (load: (folder: string) => unknown) =>
  (_: string, folder: string): unknown => {
    if (!readable(join(folder, 'tokenizer.json'))) writeFileSync(join(folder, 'tokenizer.json'), tokenizerWith({}));
    return load(folder);
  };

function readable(path: string): boolean {
  try {
    readFileSync(path);
    return true;
  } catch {
    return false;
  }
}

table(
  'tokenizer_config.json',
  'tokenizer_config.json',
  withTokenizer((folder) => Tokenizer.load(folder)),
  [
    ['cut off', '{"bos_token"', /tokenizer_config\.json: not valid JSON/],
    ['a list', '[1]', /tokenizer_config\.json: must hold a JSON object/],
    [
      'a template that is a number',
      '{"chat_template": 3}',
      /tokenizer_config\.json: "chat_template" must be a text or a list/,
    ],
    [
      'templates without names',
      '{"chat_template": [{"template": "x"}]}',
      /tokenizer_config\.json: "chat_template" must be/,
    ],
  ],
);

const chat = withTokenizer(async (folder) =>
  (await Tokenizer.load(folder)).encodePrompt([{ role: 'user', content: 'a' }]),
);

table('chat_template.jinja', 'chat_template.jinja', chat, [
  ['a block that is not closed', '{% for m in messages %}', /chat_template\.jinja: the chat template cannot be parsed/],
  [
    'a name that is unknown',
    '{{ nobody.name }}',
    /chat_template\.jinja: the chat template fails: "nobody" is undefined/,
  ],
  ['a filter that is unknown', '{{ messages | explode }}', /chat_template\.jinja: the chat template fails/],
  [
    'a refusal',
    "{{ raise_exception('No user here') }}",
    /chat_template\.jinja: the chat template refuses these messages: No user here/,
  ],
  [
    'a loop without end',
    '{% for i in range(10**9) %}x{% endfor %}',
    /chat_template\.jinja: the chat template computes too much: it takes more than 2000000 steps/,
  ],
  [
    'loops in loops',
    '{% for i in range(9999) %}{% for i in range(9999) %}x{% endfor %}{% endfor %}',
    /chat_template\.jinja: the chat template computes too much/,
  ],
  [
    'a text without end',
    "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    /chat_template\.jinja: the chat template computes too much: it makes a text of \d+ characters/,
  ],
  [
    'a macro without end',
    '{% set n = namespace(m=1) %}{% macro m() %}{{ n.m() }}{% endmacro %}{% set n.m = m %}{{ m() }}',
    /chat_template\.jinja: the chat template/,
  ],
  ['a megabyte', 'x'.repeat(2 ** 20 + 1), /chat_template\.jinja: has 1048577 bytes; at most 1048576/],
]);

const toml = (text: string): string => `[model]\npath = "m"\n${text}`;

table('run.toml', 'run.toml', (path) => loadTrainConfig(path), [
  ['empty', '', /run\.toml: model\.path is missing/],
  ['a line that is no TOML', '[model]\npath = ', /run\.toml, line 2/],
  ['a key twice', '[model]\npath = "a"\npath = "b"', /run\.toml, line 3/],
  ['a section twice', '[model]\npath = "a"\n[model]\n', /run\.toml, line 3/],
  ['text that is not closed', '[model]\npath = "a', /run\.toml, line 2/],
  [
    'a section that is misspelt',
    toml('[rolout]\ngroupSize = 8'),
    /run\.toml: \[rolout\] is not a section; did you mean \[rollout\]/,
  ],
  ['a study', toml('[study]\nname = "x"'), /run\.toml: \[study\] belongs to a study: npx eepo study/],
  [
    'a key that is misspelt',
    toml('[rollout]\ngroupSise = 8'),
    /run\.toml: rollout\.groupSise is not a key.*did you mean rollout\.groupSize/,
  ],
  [
    'a key of another section',
    toml('[rollout]\nlr = 1'),
    /run\.toml: rollout\.lr is not a key.*belongs to \[optimizer\]/,
  ],
  [
    'text for a number',
    toml('[rollout]\ngroupSize = "8"'),
    /run\.toml: rollout\.groupSize = "8": expected a whole number, at least 2/,
  ],
  [
    'a number out of range',
    toml('[unlearn]\nalpha = 0'),
    /run\.toml: unlearn\.alpha = 0: expected a number, greater than 0/,
  ],
  ['not a number', toml('[optimizer]\nlr = nan'), /run\.toml: optimizer\.lr = NaN: expected a number/],
  ['infinity', toml('[optimizer]\nlr = inf'), /run\.toml: optimizer\.lr = Infinity: expected a number/],
  ['a number beyond 64 bits', toml('[run]\nseed = 99999999999999999999'), /run\.toml, line 4/],
  ['a date', toml('[run]\nseed = 1979-05-27'), /run\.toml: run\.seed = .*expected a whole number/],
  [
    'a word that is none of a choice',
    toml('[unlearn]\ngate = "tokn"'),
    /run\.toml: unlearn\.gate = "tokn": expected one of "token"/,
  ],
  [
    'a list of other things',
    toml('[task]\nlevels = [1, "a"]'),
    /run\.toml: task\.levels = .*expected a list of whole numbers/,
  ],
  ['a value where a section belongs', 'model = 3', /run\.toml: \[model\] is 3; expected a section/],
  ['a section of another name of objects', toml('[__proto__]\nx = 1'), /run\.toml: \[__proto__\] is not a section/],
  ['an odd group', toml('[rollout]\ngroupSize = 7'), /run\.toml: rollout\.groupSize = 7: EEPO draws half/],
  [
    'batches that do not divide',
    toml('[optimizer]\nminiBatchPrompts = 60'),
    /run\.toml: optimizer\.miniBatchPrompts = 60 does not divide/,
  ],
  ['a task without its file', toml('[task]\nname = "jsonl"'), /run\.toml: task\.path is missing/],
  ['a template without a prompt', toml('[task]\ntemplate = "Q:"'), /run\.toml: task\.template = "Q:"/],
  ['nothing that rewards', toml('[reward]\nverifier = "none"'), /run\.toml: reward\.verifier = "none" leaves nothing/],
  [
    'a benchmark that is misspelt',
    toml('[eval]\nevery = 1\nbenchmarks = ["math50"]'),
    /run\.toml: eval\.benchmarks: there is no benchmark "math50"; did you mean "math500"/,
  ],
  [
    'nothing to measure',
    toml('[eval]\nevery = 1\ngreedy = false\nsamplesPerPrompt = 0'),
    /run\.toml: eval: nothing to measure/,
  ],
  [
    'an adapter of no layer',
    toml('[lora]\ntargets = ["lm_head"]'),
    /run\.toml: lora\.targets = \["lm_head"\]: expected a list of q_proj/,
  ],
  ['two megabytes', `#${'x'.repeat(2 * 2 ** 20)}`, /run\.toml: longer than 1048576 bytes/],
]);

table('sft.toml', 'sft.toml', (path) => loadSftConfig(path), [
  ['no model', '[data]\nname = "countdown"', /sft\.toml: \[model\] needs exactly one of path .* and create/],
  ['no data', '[model]\npath = "m"', /sft\.toml: data\.path is missing/],
  [
    'a longer rise than run',
    '[model]\npath = "m"\n[data]\nname = "countdown"\n[optimizer]\nwarmupSteps = 2000',
    /sft\.toml: optimizer\.warmupSteps = 2000 is more than run\.steps/,
  ],
]);

const good = '{"prompt": "1 + 1?", "answer": "2"}\n';

table('rows.jsonl', 'rows.jsonl', (path) => createTask('jsonl', { files: { train: path } }), [
  ['empty', '', /rows\.jsonl: no problems left for split 'train': it has no rows/],
  ['a line cut off', `${good}{"prompt": "a`, /rows\.jsonl:2: not valid JSON/],
  ['a list', `${good}${good}["a", "b"]\n`, /rows\.jsonl:3: every line must be a JSON object/],
  ['a number', '17\n', /rows\.jsonl:1: every line must be a JSON object/],
  ['a zero byte', `${good}{"prompt": "a\0b", "answer": "1"}\n`, /rows\.jsonl:2: not valid JSON/],
  [
    'Latin-1',
    Buffer.concat([Buffer.from(good), Buffer.from('{"prompt": "\xe9", "answer": "1"}', 'latin1')]),
    /rows\.jsonl:2: not valid UTF-8/,
  ],
  ['UTF-16', Buffer.from(`\ufeff${good}`, 'utf16le'), /rows\.jsonl:1: not valid UTF-8/],
  [
    'no prompt',
    '{"answer": "2"}\n',
    /rows\.jsonl:1: no column "prompt" or "problem" or "question"; the row has answer/,
  ],
  ['no answer', '{"prompt": "2"}\n', /rows\.jsonl:1: no column "answer"/],
  [
    'an answer of null',
    '{"prompt": "a", "answer": null}\n',
    /rows\.jsonl:1: "answer" must be a string, a number or a list/,
  ],
  ['an infinite answer', '{"prompt": "a", "answer": 1e999}\n', /rows\.jsonl:1: "answer" must be .*got Infinity/],
  ['an empty prompt', '{"prompt": " ", "answer": "1"}\n', /rows\.jsonl:1: "prompt" must be a non-empty string/],
  [
    'a chat without words',
    '{"prompt": [{"role": "user"}], "answer": "1"}\n',
    /rows\.jsonl:1: "prompt" must be .*list of \{ role, content \}/,
  ],
  [
    'a role that is none',
    '{"prompt": [{"role": "god", "content": "x"}], "answer": "1"}\n',
    /rows\.jsonl:1: "prompt" must be/,
  ],
  [
    'an answer nested without end',
    `{"prompt": "a", "answer": ${NEST}}\n`,
    /rows\.jsonl:1: "answer" must be .*nested too deeply/,
  ],
  ['answers that are all empty', '{"prompt": "a", "answer": ""}\n', /rows\.jsonl: no problems left/],
]);

table('rows.json', 'rows.json', (path) => createTask('jsonl', { files: { train: path } }), [
  ['a row that is none', '[{"prompt": "a", "answer": "1"}, 3]', /rows\.json: row 2: expected a JSON object/],
  ['cut off', '[{"prompt": "a",\n "answer": "1"}, ', /rows\.json:1: not valid JSON/],
]);

table('rows.jsonl.gz', 'rows.jsonl.gz', (path) => createTask('jsonl', { files: { train: path } }), [
  ['no gzip', good, /rows\.jsonl\.gz: cannot be read: incorrect header/],
  ['cut off', gzipSync(good.repeat(99)).subarray(0, 40), /rows\.jsonl\.gz: cannot be read: unexpected end/],
  [
    'one line of 70 MB',
    gzipSync(Buffer.alloc(70e6, ' '), { level: 1 }),
    /rows\.jsonl\.gz:1: the line is longer than \d+ MiB/,
  ],
]);

const parquet = readFileSync(join(ROOT, 'test', 'fixtures', 'tasks', 'flat.parquet'));
const footer = (bytes: readonly number[]): Buffer => {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return Buffer.concat([Buffer.from('PAR1'), Buffer.from(bytes), length, Buffer.from('PAR1')]);
};

table('rows.parquet', 'rows.parquet', (path) => createTask('parquet', { files: { train: path } }), [
  ['empty', '', /rows\.parquet: its footer cannot be read as Parquet/],
  ['text', 'prompt,answer\n1,2\n', /rows\.parquet: its footer cannot be read as Parquet/],
  ['cut off', parquet.subarray(0, parquet.length - 20), /rows\.parquet: its footer cannot be read as Parquet/],
  [
    'a footer longer than the file',
    Buffer.concat([parquet.subarray(0, -8), Buffer.from([255, 255, 255, 127]), Buffer.from('PAR1')]),
    /rows\.parquet: its footer cannot be read/,
  ],
  ['an empty footer', footer([0]), /rows\.parquet: its footer cannot be read/],
  [
    'lists of 30 million lists',
    footer([...Array(400).fill([0x19, 0xf9, 0xff, 0xff, 0xff, 0x0e]).flat()]),
    /rows\.parquet.*cannot be read as Parquet/,
  ],
  ['data overwritten', Buffer.from(parquet).fill(255, 4, 200), /rows\.parquet.*cannot be read as Parquet/],
]);

table('demonstrations.jsonl', 'demonstrations.jsonl', (path) => readDemonstrations(path, 'q', 'r'), [
  ['a column that is missing', '{"q": "a"}', /demonstrations\.jsonl:1: column "r" is missing/],
  ['an empty text', '{"q": "a", "r": ""}', /demonstrations\.jsonl:1: column "r" is ""/],
  ['a list', '{"q": "a", "r": "b"}\n[]', /demonstrations\.jsonl:2: every line must be a JSON object/],
]);

table('benchmarks.jsonl', 'benchmarks.jsonl', (path) => loadBenchmarks(['amc23'], { data: [path] }), [
  ['a row without its benchmark', '{"problem": "a", "answer": "1"}\n', /benchmarks\.jsonl:1: no column "bench"/],
  [
    'a row without an answer',
    '{"bench": "amc23", "problem": "a"}\n',
    /benchmarks\.jsonl:1: none of the columns "answers"/,
  ],
]);

const response = {
  problem: 'a',
  phase: 'sample',
  sample: 0,
  verdict: 'correct',
  answer: null,
  tokens: 1,
  finishReason: 'stop',
  logprob: 0,
  entropy: 0,
  text: '',
};

table('responses.jsonl', 'responses.jsonl', (path) => openResponses(path), [
  ['a line that is no JSON', `${json(response)}\nxyz\n`, /responses\.jsonl:2: not valid JSON; remove this line/],
  ['a line of something else', '{"problem": "a"}\n', /responses\.jsonl:1: not a response of an evaluation/],
  ['a verdict that is none', `${json({ ...response, verdict: 'maybe' })}\n`, /responses\.jsonl:1: not a response/],
]);

table('results.json', 'results.json', (_, folder) => readResult(folder), [
  ['cut off', '{"name": ', /results\.json: not valid JSON/],
  ['of something else', '{"a": 1}', /results\.json: not the results of an evaluation:\n {2}name/],
  [
    'an estimate that is text',
    '{"name": "m", "sets": {"x": {"title": "X", "problems": 1, "greedy": "0.5"}}}',
    /results\.json: .*\n {2}sets\.x\.greedy/,
  ],
]);

table('settings.json', 'settings.json', (path) => readSettings(path), [
  ['cut off', '{', /settings\.json: not valid JSON/],
  [
    'weights that are a number',
    '{"weights": 3, "sets": {}}',
    /settings\.json: not the settings of an evaluation:\n {2}weights/,
  ],
]);

table('reward.mjs', 'reward.mjs', (path) => loadRewardModule(path), [
  ['no JavaScript', 'export default (', /reward\.mjs/],
  ['nothing exported', 'const a = 1;', /reward\.mjs must export a function as its default/],
  ['a list that is empty', 'export const rewards = [];', /reward\.mjs/],
  ['a reward without a function', 'export const rewards = [{ name: "a", weight: 1 }];', /reward\.mjs/],
  ['one that throws', 'throw new Error("no licence");', /reward\.mjs.*no licence/],
]);

describe('files that are no files', () => {
  const pipe = (folder: string, name: string): string => {
    const path = join(folder, name);
    execFileSync('mkfifo', [path]);
    return path;
  };
  const cases: [string, (t: TestContext, folder: string) => unknown, RegExp][] = [
    [
      'config.json is a pipe',
      (_, f) => {
        pipe(f, 'config.json');
        return readConfig(f);
      },
      /config\.json: cannot be read: it is a pipe/,
    ],
    [
      'config.json is a folder',
      (_, f) => {
        mkdirSync(join(f, 'config.json'));
        return readConfig(f);
      },
      /config\.json: cannot be read: it is a folder/,
    ],
    [
      'tokenizer.json is a pipe',
      (_, f) => {
        pipe(f, 'tokenizer.json');
        return Tokenizer.load(f);
      },
      /tokenizer\.json: cannot be read: it is a pipe/,
    ],
    [
      'tokenizer.json is without end',
      (_, f) => {
        symlinkSync('/dev/zero', join(f, 'tokenizer.json'));
        return Tokenizer.load(f);
      },
      /tokenizer\.json: cannot be read: it is a pipe or device/,
    ],
    [
      'weights are a pipe',
      (_, f) => {
        pipe(f, 'model.safetensors');
        return weightFiles(f);
      },
      /model\.safetensors: cannot be read: it is a pipe/,
    ],
    [
      'a shard is a pipe',
      (_, f) => {
        pipe(f, 'a.safetensors');
        writeFileSync(join(f, 'model.safetensors.index.json'), index({ x: 'a.safetensors' }));
        return weightFiles(f);
      },
      /a\.safetensors: cannot be read: it is a pipe/,
    ],
    [
      'rows are a pipe',
      (_, f) => createTask('jsonl', { files: { train: pipe(f, 'x.jsonl') } }),
      /x\.jsonl: cannot be read/,
    ],
    [
      'Parquet is a pipe',
      (_, f) => createTask('jsonl', { files: { train: pipe(f, 'x.parquet') } }),
      /x\.parquet: cannot be read/,
    ],
    ['responses are a folder', (_, f) => openResponses(f), /not a file/],
    ['a configuration is a folder', (_, f) => loadTrainConfig(f), /is a folder; expected a configuration file/],
    ['a configuration is without end', () => loadTrainConfig('/dev/zero'), /\/dev\/zero: longer than/],
  ];
  for (const [what, use, message] of cases) {
    it(what, async (t) => await refused(() => use(t, temporaryFolder(t)), message));
  }

  for (const name of ['tokenizer_config.json', 'merges.txt', 'chat_template.jinja', 'vocab.json']) {
    it(`${name} is a link to a file elsewhere, which every saved model would hold`, async (t) => {
      const [folder, elsewhere] = [temporaryFolder(t), temporaryFolder(t)];
      writeFileSync(join(folder, 'tokenizer.json'), tokenizerWith({}));
      writeFileSync(join(elsewhere, 'secret'), '{}');
      symlinkSync(join(elsewhere, 'secret'), join(folder, name));
      await refused(
        () => Tokenizer.load(folder),
        new RegExp(`${name}: is a link to .*secret, outside of the model folder`),
      );
      rmSync(join(folder, name));
      await Tokenizer.load(folder);
    });
  }

  it('links of a hub cache are files of its repository', async (t) => {
    const cache = join(temporaryFolder(t), 'models--a--b');
    const snapshot = join(cache, 'snapshots', 'c0ffee');
    mkdirSync(join(cache, 'blobs'), { recursive: true });
    mkdirSync(snapshot, { recursive: true });
    writeFileSync(join(cache, 'blobs', 'f00'), tokenizerWith({}));
    symlinkSync('../../blobs/f00', join(snapshot, 'tokenizer.json'));
    assert.equal((await Tokenizer.load(snapshot)).vocabSize, 4);
  });
});

describe('what is cheap is refused before what is expensive', () => {
  /** A model folder whose weights nobody may read, and a run whose data nobody may read. */
  const run = (t: TestContext, spoil: (model: string) => void, more = '') => {
    const folder = temporaryFolder(t);
    const model = join(folder, 'model');
    cpSync(embeddedModel, model, { recursive: true });
    spoil(model);
    writeFileSync(join(folder, 'data.jsonl'), 'this data is read\n');
    writeFileSync(
      join(folder, 'run.toml'),
      `[model]\npath = "model"\ndevice = "cpu"\n[task]\nname = "jsonl"\npath = "data.jsonl"\n${more}`,
    );
    return prepareRun(loadTrainConfig(join(folder, 'run.toml')));
  };
  const edit = (file: string, change: (value: Record<string, unknown>) => void) => (model: string) => {
    const value = JSON.parse(readFileSync(join(model, file), 'utf8')) as Record<string, unknown>;
    change(value);
    writeFileSync(join(model, file), JSON.stringify(value));
  };
  const cases: [string, (model: string) => void, string, RegExp][] = [
    ['the data, where all else is right', () => {}, '', /data\.jsonl:1: not valid JSON/],
    [
      'config.json',
      edit('config.json', (c) => {
        c.hidden_size = 'x';
      }),
      '',
      /config\.json/,
    ],
    ['tokenizer.json', (model) => writeFileSync(join(model, 'tokenizer.json'), '{'), '', /tokenizer\.json/],
    [
      'a vocabulary that is larger than the model',
      edit('config.json', (c) => {
        c.vocab_size = 3;
      }),
      '',
      /tokenizer\.json has ids up to \d+, but the vocabulary of/,
    ],
    [
      'a stop token that is none',
      () => {},
      '[rollout]\nstopTokens = ["no such token"]\n',
      /stop token "no such token"/,
    ],
    [
      'an index that leads elsewhere',
      (model) => {
        rmSync(join(model, 'model.safetensors'));
        writeFileSync(join(model, 'model.safetensors.index.json'), index({ x: '../x.safetensors' }));
      },
      '',
      /index\.json: x is said to be in/,
    ],
    [
      'a shard that is missing',
      (model) => {
        rmSync(join(model, 'model.safetensors'));
        writeFileSync(join(model, 'model.safetensors.index.json'), index({ x: 'x.safetensors' }));
      },
      '',
      /x\.safetensors is missing/,
    ],
    ['no weights', (model) => rmSync(join(model, 'model.safetensors')), '', /no weights in safetensors/],
  ];
  for (const [what, spoil, more, message] of cases) {
    it(what, async (t) => await refused(() => run(t, spoil, more), message));
  }
});
