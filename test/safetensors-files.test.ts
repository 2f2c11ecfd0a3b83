/** Weights files that are broken, hostile or contradict the model: each is refused by one error that says what is wrong. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { readConfig } from '../lib/config-json.js';
import { InvalidFileError, UnsupportedError } from '../lib/errors.js';
import { weightFiles } from '../lib/model-folder.js';
import { Policy } from '../lib/policy.js';
import { checkWeights } from '../lib/weights-header.js';
import { collidingNames } from './support/colliding-names.js';
import { weightsOf, writeModel } from './support/reference-decoder.js';

const config = {
  model_type: 'qwen3',
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  max_position_embeddings: 128,
  hidden_act: 'silu',
  eos_token_id: null,
  vocab_size: 7,
  hidden_size: 6,
  intermediate_size: 5,
  num_hidden_layers: 1,
  num_attention_heads: 3,
  num_key_value_heads: 1,
  head_dim: 2,
  tie_word_embeddings: true,
};

interface Entry {
  dtype: string;
  shape: unknown;
  data_offsets: unknown;
}
type Header = Record<string, Entry>;

const EMBEDDING = 'model.embed_tokens.weight';
const NORM = 'model.norm.weight';

let root: string;
let dir: string;
let path: string;
let good: Buffer;
let header: Header;
let data: Buffer;

before(async () => {
  root = await mkdtemp(join(tmpdir(), 'eepo-safetensors-'));
  dir = join(root, 'model');
  path = join(dir, 'model.safetensors');
  await mkdir(dir);
  using blank = await Policy.create(config);
  await writeModel(dir, config, await weightsOf(blank));
  good = await readFile(path);
  const end = 8 + Number(good.readBigUInt64LE(0));
  header = JSON.parse(good.subarray(8, end).toString()) as Header;
  data = good.subarray(end);
});
after(() => rm(root, { recursive: true }));

/** A file of this header, as text or bytes, and this data; the length is the header's unless it is given. */
function file(head: string | Buffer, body: Buffer = data, length?: bigint): Buffer {
  const bytes = Buffer.from(head as string);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(length ?? BigInt(bytes.length));
  return Buffer.concat([size, bytes, body]);
}

/** The good file with another header, made from the good one's text. */
const text = (edit: (text: string) => string | Buffer, body?: Buffer) => file(edit(JSON.stringify(header)), body);

/** The good file with another entry of a tensor. */
const entry = (name: string, change: object) =>
  file(JSON.stringify({ ...header, [name]: { ...(header[name] as Entry), ...change } }));

/** The good file with the literal `value` for a key of the embedding's entry, so that JSON.stringify changes nothing. */
const literal = (key: keyof Entry, value: string) =>
  entry(EMBEDDING, { [key]: 'HERE' })
    .toString('latin1')
    .replace('"HERE"', value)
    .slice(8);
const raw = (key: keyof Entry, value: string) => {
  const whole = Buffer.from(literal(key, value), 'latin1');
  return file(whole.subarray(0, whole.length - data.length));
};

const offsets = (name: string) => (header[name] as Entry).data_offsets as [number, number];

/** The good file and more: tensors whose data come after the others'. */
function withMore(more: Record<string, { dtype: string; shape: number[]; bytes: number }>, name = (n: string) => n) {
  const all: Header = { ...header };
  let end = data.length;
  for (const [key, { dtype, shape, bytes }] of Object.entries(more)) {
    all[name(key)] = { dtype, shape, data_offsets: [end, end + bytes] };
    end += bytes;
  }
  return file(JSON.stringify(all), Buffer.concat([data, Buffer.alloc(end - data.length)]));
}

interface Bad {
  what: string;
  bytes: () => Buffer;
  says: RegExp;
  /** The tensor that the message must name. */
  tensor?: string;
  unsupported?: boolean;
}

const bad = (what: string, bytes: () => Buffer, says: RegExp, tensor?: string): Bad =>
  tensor === undefined ? { what, bytes, says } : { what, bytes, says, tensor };

const lengths: Bad[] = [
  bad('nothing', () => Buffer.alloc(0), /too short .*\(0 bytes\)/),
  bad('one byte', () => Buffer.alloc(1), /too short .*\(1 bytes\)/),
  bad('half a length', () => good.subarray(0, 7), /too short .*\(7 bytes\)/),
  bad('a length without a header', () => good.subarray(0, 8), /header length \d+ does not fit the file of 8 bytes/),
  bad('zeros', () => Buffer.alloc(8), /header length 0 has no room/),
  bad('many zeros', () => Buffer.alloc(10_000), /header length 0 has no room/),
  bad('a header of one byte', () => file('{'), /header length 1 has no room/),
  bad(
    'a length of 2^64 - 1',
    () => file('{}', data, 2n ** 64n - 1n),
    /header length 18446744073709551615 is more than/,
  ),
  bad('a length of 2^63', () => file('{}', data, 2n ** 63n), /header length 9223372036854775808 is more than/),
  bad('a length of 2^64 - 8', () => file('{}', data, 2n ** 64n - 8n), /header length 18446744073709551608 is more/),
  bad('a length of 2^32', () => file('{}', data, 2n ** 32n), /header length 4294967296 is more than 100000000/),
  bad('100 MB and a byte', () => file('{}', data, 100_000_001n), /header length 100000001 is more than 100000000/),
  bad('a header beyond the end', () => file('{}', Buffer.alloc(0), 3n), /header length 3 does not fit the file of 10/),
  bad('a header that is cut', () => good.subarray(0, 60), /header length \d+ does not fit .*truncated/),
  bad('a length that is one too short', () => file('{}', Buffer.alloc(0), 1n), /header length 1 has no room/),
  bad(
    'a length one shorter than the header',
    () => {
      const head = JSON.stringify(header);
      return file(head, data, BigInt(head.length - 1));
    },
    /expected ',' or '}'/,
  ),
  bad(
    'a length one longer than the header',
    () => {
      const head = JSON.stringify(header);
      return file(head, Buffer.concat([Buffer.from('x'), data]), BigInt(head.length + 1));
    },
    /unexpected text after the JSON value/,
  ),
];

const strangers: Bad[] = [
  bad(
    'a pointer of Git LFS',
    () => Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:1\n'),
    /not a safetensors file/,
  ),
  bad(
    'a zip, as of PyTorch',
    () => Buffer.from('PK\u0003\u0004\u0014\0\0\0archive/data.pkl'),
    /not a safetensors file|does not fit/,
  ),
  bad('a pickle', () => Buffer.from([0x80, 2, 0x7d, 0x71, 0, 0x28, 0x58, 1, 0, 0, 0]), /not a safetensors file/),
  bad('GGUF', () => Buffer.from('GGUF\u0003\0\0\0\u0010\0\0\0\0\0\0\0'), /not a safetensors file/),
  bad('a web page', () => Buffer.from('<!DOCTYPE html><html><body>Not found</body></html>'), /not a safetensors file/),
  bad('JSON alone', () => Buffer.from(JSON.stringify(header)), /not a safetensors file/),
];

const json: Bad[] = [
  bad('a byte order mark', () => text((h) => `\ufeff${h}`), /byte order mark at byte 0/),
  bad(
    'a byte that is no UTF-8',
    () => text((h) => Buffer.concat([Buffer.from(h.slice(0, 10)), Buffer.from([0xff]), Buffer.from(h.slice(10))])),
    /invalid UTF-8 at byte 10 /,
  ),
  bad(
    'an overlong slash',
    () => text((h) => Buffer.concat([Buffer.from('{"'), Buffer.from([0xc0, 0xaf]), Buffer.from(h.slice(2))])),
    /invalid UTF-8 at byte 2 /,
  ),
  bad(
    'a surrogate in UTF-8',
    () => text((h) => Buffer.concat([Buffer.from('{"'), Buffer.from([0xed, 0xa0, 0x80]), Buffer.from(h.slice(2))])),
    /invalid UTF-8 at byte 2 /,
  ),
  bad(
    'a character beyond Unicode',
    () =>
      text((h) => Buffer.concat([Buffer.from('{"'), Buffer.from([0xf4, 0x90, 0x80, 0x80]), Buffer.from(h.slice(2))])),
    /invalid UTF-8 at byte 2 /,
  ),
  bad(
    'a character that is cut by the end',
    () => text((h) => Buffer.concat([Buffer.from(h), Buffer.from([0xc3])])),
    /invalid UTF-8/,
  ),
  bad('UTF-16', () => text((h) => Buffer.from(h, 'utf16le')), /expected a key at byte 1 /),
  bad('half a pair of surrogates, escaped', () => text((h) => h.replace('"', '"\\ud800')), /lone surrogate/),
  bad('the other half', () => text((h) => h.replace('"', '"\\udc00')), /lone surrogate/),
  bad('an escape that is none', () => text((h) => h.replace('"', '"\\x41')), /invalid escape/),
  bad('an escape that is cut', () => file('{"a":"\\u12'), /truncated .*escape/),
  bad('an escape of no digits', () => text((h) => h.replace('"', '"\\u00g0')), /invalid .*escape/),
  bad('a control character in a name', () => text((h) => h.replace('"', '"\u0001')), /control character in a string/),
  bad('a line break in a name', () => text((h) => h.replace('"', '"\n')), /control character in a string/),
  bad('a name that does not end', () => file('{"abc'), /unterminated string/),
  bad('a header that ends early', () => file('{"a":'), /invalid value at byte 5 /),
  bad('no value', () => file('{"a":}'), /invalid value at byte 5 /),
  bad('a list', () => file('[1,2]'), /its header is not a JSON object/),
  bad('a text', () => file('"abc"'), /its header is not a JSON object/),
  bad('a number', () => file('12345'), /its header is not a JSON object/),
  bad('null', () => file('null'), /its header is not a JSON object/),
  bad('blanks', () => file('        '), /invalid value at byte 8 /),
  bad('two objects', () => text((h) => `${h}{}`), /unexpected text after the JSON value/),
  bad('a zero after the object', () => text((h) => `${h}\0`), /unexpected text after the JSON value/),
  bad('a comma too many', () => text((h) => h.replace(/}$/, ',}')), /expected a key/),
  bad('a comma too few', () => text((h) => h.replace('},', '}')), /expected ',' or '}'/),
  bad('no colon', () => text((h) => h.replace(':', ' ')), /expected ':'/),
  bad('a key that is a number', () => file('{1:2}'), /expected a key/),
  bad('quotes of JavaScript', () => file("{'a':1}"), /expected a key/),
  bad('a comment', () => text((h) => `/* */${h}`), /invalid value at byte 0 /),
  bad('NaN', () => raw('shape', '[NaN,6]'), /invalid value/),
  bad('a hexadecimal number', () => raw('shape', '[0x7,6]'), /expected ',' or '\]'/),
  bad('a number that begins with 0', () => raw('shape', '[07,6]'), /expected ',' or '\]'/),
  bad('a number that begins with +', () => raw('shape', '[+7,6]'), /invalid value/),
  bad('a number beyond all doubles', () => raw('shape', '[1e400,6]'), /number out of range/),
  bad('True', () => raw('shape', 'True'), /invalid value/),
  bad('lists 1,000 deep', () => file(`{"a":${'['.repeat(1000)}`), /nesting too deep at byte 37 /),
  bad('objects 1,000,000 deep', () => file('{"a":'.repeat(1_000_000)), /nesting too deep/),
  bad('33 lists that end', () => file(`{"a":${'['.repeat(33)}${']'.repeat(33)}}`), /nesting too deep/),
  bad('four million values', () => file(`{"a":[${'0,'.repeat(4_000_000)}0]}`), /too many values/),
  bad(
    'a tensor twice',
    () => text((h) => h.replace('{', `{"${NORM}":${JSON.stringify(header[NORM])},`)),
    /duplicate key model.norm.weight/,
  ),
  bad(
    'a tensor twice, once with escapes',
    () => text((h) => h.replace('{', `{"\\u006dodel.norm.weight":${JSON.stringify(header[NORM])},`)),
    /duplicate key model.norm.weight/,
  ),
  bad('two dtypes', () => text((h) => h.replace('"dtype"', '"dtype":"F32","dtype"')), /duplicate key dtype/),
  bad('two shapes', () => text((h) => h.replace('"shape"', '"shape":[7,6],"shape"')), /duplicate key shape/),
];

const metadata: Bad[] = [
  '{"format":1}',
  '{"format":null}',
  '{"format":{"a":"b"}}',
  '{"format":["pt"]}',
  '{"format":true}',
].map((value) =>
  bad(
    `metadata ${value}`,
    () => text((h) => h.replace('{', `{"__metadata__":${value},`)),
    /__metadata__: format is not a text/,
  ),
);
for (const value of ['[]', '"pt"', '1', 'false'])
  metadata.push(
    bad(
      `metadata ${value}`,
      () => text((h) => h.replace('{', `{"__metadata__":${value},`)),
      /__metadata__ is not an object/,
    ),
  );
metadata.push(
  bad(
    'a name twice in the metadata',
    () => text((h) => h.replace('{', '{"__metadata__":{"a":"b","a":"b"},')),
    /duplicate key a /,
  ),
  bad(
    'metadata twice',
    () => text((h) => h.replace('{', '{"__metadata__":{},"__metadata__":{},')),
    /duplicate key __metadata__/,
  ),
);

const entries: Bad[] = [
  ...['null', '1', '"F32"', 'true', '[]', '["F32",[7,6],[0,168]]'].map((value) =>
    bad(
      `an entry ${value}`,
      () => text((h) => h.replace('{', `{"a":${value},`)),
      /its header entry is not an object/,
      'a',
    ),
  ),
  ...(['dtype', 'shape', 'data_offsets'] as const).map((key) =>
    bad(`no ${key}`, () => entry(EMBEDDING, { [key]: undefined }), new RegExp(`${key} is missing`), EMBEDDING),
  ),
  ...['32', 'null', '["F32"]', '{"F32":null}'].map((value) =>
    bad(`dtype ${value}`, () => raw('dtype', value), /dtype is not a text/, EMBEDDING),
  ),
  ...['F33', 'f32', 'F32 ', '', 'FP8', 'I4', 'float32', 'F32\\u0000'].map((value) =>
    bad(`dtype "${value}"`, () => raw('dtype', `"${value}"`), /dtype .*is none of the safetensors format/, EMBEDDING),
  ),
  ...['42', 'null', '"7,6"', '{"0":7,"1":6}'].map((value) =>
    bad(`shape ${value}`, () => raw('shape', value), /shape is not a list/, EMBEDDING),
  ),
  ...[
    '-7,6',
    '7.0,6',
    '7e0,6',
    '"7",6',
    'null,6',
    '[7],6',
    'true,6',
    '-0,6',
    '9223372036854775808,6',
    '18446744073709551617,6',
  ].map((sizes) =>
    bad(`shape [${sizes}]`, () => raw('shape', `[${sizes}]`), /shape has an entry that is no size/, EMBEDDING),
  ),
  ...[
    '4294967296,4294967296',
    '4294967296,2147483648',
    '3037000500,3037000500',
    '9223372036854775807,2',
    '4294967296,4294967296,0',
  ].map((sizes) =>
    bad(`shape [${sizes}]`, () => raw('shape', `[${sizes}]`), /shape overflows: 2\^63 elements/, EMBEDDING),
  ),
  ...['288230376151711744', '9223372036854775807'].map((sizes) =>
    bad(`shape [${sizes}]`, () => raw('shape', `[${sizes}]`), /shape overflows: 2\^63 bits/, EMBEDDING),
  ),
  ...['0', 'null', '"0,168"', '{"0":0,"1":168}'].map((value) =>
    bad(`data_offsets ${value}`, () => raw('data_offsets', value), /data_offsets is not a list/, EMBEDDING),
  ),
  ...['', '0', '0,168,168'].map((value) =>
    bad(
      `data_offsets [${value}]`,
      () => raw('data_offsets', `[${value}]`),
      /data_offsets are not two numbers/,
      EMBEDDING,
    ),
  ),
  ...[
    '-1,167',
    '0.5,168.5',
    '0,1.68e2',
    '"0","168"',
    'null,168',
    '0,9223372036854775808',
    '0,18446744073709551784',
  ].map((value) =>
    bad(
      `data_offsets [${value}]`,
      () => raw('data_offsets', `[${value}]`),
      /data_offsets has an entry that is no offset/,
      EMBEDDING,
    ),
  ),
  ...['168,0', '169,168', '9223372036854775807,0'].map((value) =>
    bad(`data_offsets [${value}]`, () => raw('data_offsets', `[${value}]`), /end before they begin/, EMBEDDING),
  ),
  ...['0,1000000', '9223372036854775639,9223372036854775807', '0,9223372036854775807', '4294967296,4294967464'].map(
    (value) =>
      bad(
        `data_offsets [${value}]`,
        () => raw('data_offsets', `[${value}]`),
        /lie outside the file's \d+ bytes/,
        EMBEDDING,
      ),
  ),
  ...(
    [
      ['BF16', 84],
      ['F64', 336],
      ['U8', 42],
      ['F6_E2M3', -1],
      ['F4', 21],
    ] as const
  ).map(([dtype, bytes]) =>
    bad(
      `dtype ${dtype} of float32 numbers`,
      () => entry(EMBEDDING, { dtype }),
      bytes < 0
        ? /42 elements of dtype F6_E2M3 are no whole bytes/
        : new RegExp(`need ${bytes} bytes, data_offsets span 168`),
      EMBEDDING,
    ),
  ),
  bad('fewer elements', () => entry(EMBEDDING, { shape: [7, 5] }), /need 140 bytes, data_offsets span 168/, EMBEDDING),
  bad('more elements', () => entry(EMBEDDING, { shape: [7, 7] }), /need 196 bytes, data_offsets span 168/, EMBEDDING),
  bad('no elements', () => entry(EMBEDDING, { shape: [0, 6] }), /need 0 bytes, data_offsets span 168/, EMBEDDING),
  bad('one element', () => entry(EMBEDDING, { shape: [] }), /need 4 bytes, data_offsets span 168/, EMBEDDING),
  bad(
    'half a byte',
    () => withMore({ 'x.masked_bias': { dtype: 'F4', shape: [3], bytes: 1 } }),
    /3 elements of dtype F4 are no whole bytes/,
    'x.masked_bias',
  ),
];

/** Names of two tensors whose data lie one behind the other. */
const neighbours = () => {
  const order = Object.keys(header).sort((a, b) => offsets(a)[0] - offsets(b)[0]);
  return [order[1] as string, order[2] as string] as const;
};

const layout: Bad[] = [
  bad('a byte too few', () => good.subarray(0, good.length - 1), /lie outside the file's \d+ bytes .*truncated/),
  bad('half of the data', () => good.subarray(0, good.length - data.length / 2), /lie outside .*truncated/),
  bad('no data', () => good.subarray(0, good.length - data.length), /lie outside .* 0 bytes .*truncated/),
  bad('a byte too many', () => Buffer.concat([good, Buffer.alloc(1)]), /: 1 bytes after the last tensor \(model\./),
  bad('a page too many', () => Buffer.concat([good, Buffer.alloc(4096)]), /: 4096 bytes after the last tensor/),
  bad('the file twice', () => Buffer.concat([good, good]), /\d+ bytes after the last tensor/),
  bad(
    'two tensors in one place',
    () => {
      const [first, second] = neighbours();
      const shared = header[first] as Entry;
      return file(JSON.stringify({ ...header, [second]: shared }));
    },
    /overlap tensor/,
  ),
  bad(
    'a tensor that begins a number early',
    () => {
      const [, second] = neighbours();
      const [begin, end] = offsets(second);
      return entry(second, { data_offsets: [begin - 4, end - 4] });
    },
    /its data begin at byte \d+ and overlap tensor model\S+, which ends at \d+/,
  ),
  bad(
    'a hole between two tensors',
    () => {
      const [, second] = neighbours();
      const { [second]: _, ...rest } = header;
      return file(JSON.stringify(rest));
    },
    /leave a hole of \d+ bytes/,
  ),
  bad(
    'a hole at the beginning',
    () => {
      const moved = Object.entries(header).map(([name, e]) => [
        name,
        { ...e, data_offsets: offsets(name).map((o) => o + 4) },
      ]);
      return file(JSON.stringify(Object.fromEntries(moved)), Buffer.concat([Buffer.alloc(4), data]));
    },
    /begin at byte 4 and leave a hole of 4 bytes/,
  ),
  bad(
    'an empty tensor inside of another',
    () => {
      const inside = { dtype: 'F32', shape: [0], data_offsets: [1, 1] };
      return file(JSON.stringify({ ...header, 'x.masked_bias': inside }));
    },
    /begin at byte 1 and overlap|overlap tensor x.masked_bias/,
  ),
  bad(
    'an empty tensor beyond the end',
    () => {
      const beyond = { dtype: 'F32', shape: [0], data_offsets: [data.length + 1, data.length + 1] };
      return file(JSON.stringify({ ...header, 'x.masked_bias': beyond }));
    },
    /lie outside the file/,
    'x.masked_bias',
  ),
  bad('no tensors', () => file('{}', Buffer.alloc(0)), /is missing from the weights/),
  bad('no tensors, but data', () => file('{}'), /\d+ bytes after the last tensor/),
];

const contradictions: Bad[] = [
  bad(
    'a transposed tensor',
    () => entry(EMBEDDING, { shape: [6, 7] }),
    /has a shape that config.json does not give it/,
    EMBEDDING,
  ),
  bad(
    'a flat tensor',
    () => entry(EMBEDDING, { shape: [42] }),
    /has a shape that config.json does not give it/,
    EMBEDDING,
  ),
  bad(
    'a rank too many',
    () => entry(EMBEDDING, { shape: [1, 7, 6] }),
    /has a shape that config.json does not give it/,
    EMBEDDING,
  ),
  bad(
    'a tensor too few',
    () => {
      const { [NORM]: norm, ...rest } = header;
      return file(JSON.stringify({ ...rest, 'x.masked_bias': norm }));
    },
    /is missing from the weights/,
    NORM,
  ),
  bad(
    'a tensor of another architecture',
    () => withMore({ 'bert.pooler.weight': { dtype: 'F32', shape: [1], bytes: 4 } }),
    /does not belong to this architecture/,
    'bert.pooler.weight',
  ),
  bad(
    'another head, although it is tied',
    () => withMore({ 'lm_head.weight': { dtype: 'F32', shape: [7, 6], bytes: 168 } }),
    /differs from model.embed_tokens.weight/,
    'lm_head.weight',
  ),
  bad(
    'a name that clears the screen',
    () => withMore({ 'a\u001b[2J\u0007b\u202e': { dtype: 'F32', shape: [1], bytes: 4 } }),
    /tensor aU\+001B\[2JU\+0007bU\+202E does not belong/,
  ),
  bad(
    'a name of a megabyte',
    () => withMore({ ['n'.repeat(1e6)]: { dtype: 'F32', shape: [1], bytes: 4 } }),
    /tensor n{120}\.\.\. \(1000000 bytes\) does not belong/,
  ),
  bad(
    'a dtype of a megabyte',
    () => raw('dtype', `"${'n'.repeat(1e6)}"`),
    /dtype n{120}\.\.\. \(1000000 bytes\) is none/,
    EMBEDDING,
  ),
  bad(
    'an empty name',
    () => withMore({ '': { dtype: 'F32', shape: [1], bytes: 4 } }),
    /does not belong to this architecture/,
  ),
  bad(
    '__proto__',
    () => text((h) => h.replace('{', '{"__proto__":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},')),
    /does not belong to this architecture/,
    '__proto__',
  ),
  ...(['I32', 'U32'] as const).map((dtype) => ({
    ...bad(
      `weights in ${dtype}`,
      () => entry(EMBEDDING, { dtype }),
      new RegExp(`has dtype ${dtype}, which is not supported`),
      EMBEDDING,
    ),
    unsupported: true,
  })),
];

let tried = 0;
let clear = 0;

/**
 * What `--dry-run` reads says the same, but for the details of bad JSON. It does not see the data, nor two keys of one
 * name in the metadata.
 */
async function refusedByHeader(error: Error, bytes: Buffer): Promise<void> {
  if (/differs from|duplicate key (?:a|__metadata__) /.test(error.message)) return;
  // 7.0, -0 and what a double cannot hold are other numbers to JSON.parse
  if (/[[,](?:-0|[\d.]*\.\d|\d+(?:\.\d+)?e|\d{16})/.test(bytes.toString('latin1'))) return;
  const paths = await weightFiles(dir);
  const { config: model } = await readConfig(dir);
  const own = await checkWeights(model, paths).then(
    () => assert.fail(`the header alone was accepted: ${error.message}`),
    (reason: unknown) => reason as Error,
  );
  assert.equal(own.constructor, error.constructor);
  if (/of its JSON header/.test(error.message)) assert.ok(own.message.startsWith(`${dir}/`));
  else assert.equal(own.message, error.message);
}

async function refused({ bytes, says, tensor, unsupported }: Bad, where = path): Promise<void> {
  tried++;
  await writeFile(where, bytes());
  const error = await Policy.load(dir).then(
    () => assert.fail('it was loaded'),
    (reason: unknown) => reason as Error,
  );
  assert.ok(error instanceof (unsupported ? UnsupportedError : InvalidFileError), String(error));
  const { message } = error;
  assert.ok(message.startsWith(`${where}: `), `names the file: ${message}`);
  if (tensor !== undefined) assert.ok(message.includes(`tensor ${tensor}`), `names the tensor: ${message}`);
  assert.match(message, says);
  assert.ok(message.length < where.length + 400, 'is a sentence');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not be there
  assert.doesNotMatch(message, /[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/);
  clear++;
  await refusedByHeader(error, bytes());
}

for (const [name, table] of Object.entries({ lengths, strangers, json, metadata, entries, layout, contradictions })) {
  describe(`bad files: ${name}`, () => {
    for (const one of table) it(one.what, () => refused(one));
  });
}

describe('bad files', () => {
  it('a header of 100 MB, all of it blank but for the brace', async () => {
    const sparse = await open(path, 'w');
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(100_000_000n);
    await sparse.write(Buffer.concat([size, Buffer.from('{')]));
    await sparse.truncate(100_000_008);
    await sparse.close();
    await assert.rejects(Policy.load(dir), { code: 'EEPO_INVALID_FILE', message: /expected a key at byte 1 / });
    tried++;
    clear++;
  });

  it('a file of 8 EB that holds nothing', async () => {
    const sparse = await open(path, 'w');
    await sparse.truncate(2 ** 43);
    await sparse.close();
    await assert.rejects(Policy.load(dir), { code: 'EEPO_INVALID_FILE', message: /header length 0 has no room/ });
    tried++;
    clear++;
  });

  it('130,000 names that hash alike take no longer than others', { timeout: 120_000 }, async () => {
    const names = collidingNames(17);
    assert.equal(names.length, 2 ** 17);
    const head = names.map((name) => `"${name}":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}`);
    await refused(
      bad('', () => text((h) => `{${head.join(',')},${h.slice(1)}`), /does not belong to this architecture/),
    );
  });

  it('in one of two shards', async () => {
    const [first, second] = neighbours();
    const shards = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'] as const;
    const [a, b] = shards.map((shard) => join(dir, shard)) as [string, string];
    await rm(path);
    const part = (names: string[]) => {
      let end = 0;
      const parts: Buffer[] = [];
      const head: Header = {};
      for (const name of names) {
        const bytes = data.subarray(...offsets(name));
        head[name] = { ...(header[name] as Entry), data_offsets: [end, end + bytes.length] };
        end += bytes.length;
        parts.push(bytes);
      }
      return file(JSON.stringify(head), Buffer.concat(parts));
    };
    const names = Object.keys(header);
    const rest = names.filter((name) => name !== first && name !== second);
    const index = (map: [string, string][]) =>
      writeFile(join(dir, 'model.safetensors.index.json'), JSON.stringify({ weight_map: Object.fromEntries(map) }));
    const good = rest.map((name): [string, string] => [name, shards[0]]);
    await index([...good, [first, shards[1]], [second, shards[1]]]);
    await writeFile(a, part(rest));
    const whole = part([first, second]);
    await writeFile(b, whole);
    using policy = await Policy.load(dir);
    assert.ok(policy);
    await refused(
      bad('', () => whole.subarray(0, whole.length - 1), /lie outside .*truncated/, second),
      b,
    );
    await refused(
      bad('', () => whole.subarray(0, 40), /header length \d+ does not fit .*truncated/),
      b,
    );
    await refused(
      bad('', () => Buffer.alloc(0), /too short/),
      b,
    );
    await writeFile(b, part([first]));
    const message = new RegExp(`${shards[1]} lacks tensor ${second}`);
    await assert.rejects(Policy.load(dir), { code: 'EEPO_INVALID_FILE', message });
    tried++;
    clear++;
    await rm(join(dir, 'model.safetensors.index.json'));
  });
});

describe('odd files that are sound', () => {
  const buffer = 'model.layers.0.self_attn.rotary_emb.inv_freq';
  const sound: [string, () => Buffer][] = [
    ['as it was', () => good],
    ['blanks around the header', () => text((h) => ` \n${h}\t\r  `)],
    ['metadata', () => text((h) => h.replace('{', '{"__metadata__":{"format":"pt","\\u0000":""},'))],
    ['metadata of null', () => text((h) => h.replace('{', '{"__metadata__":null,'))],
    ['keys nobody knows', () => entry(EMBEDDING, { origin: { a: [1, 2.5, null, 'x'] } })],
    ['names with escapes', () => text((h) => h.replace('"model.norm', '"\\u006d\\u006Fdel.norm'))],
    ['tensors in another order', () => file(JSON.stringify(Object.fromEntries(Object.entries(header).reverse())))],
    ['an empty tensor', () => withMore({ [buffer]: { dtype: 'F32', shape: [0], bytes: 0 } })],
    ['an empty tensor of large sizes', () => withMore({ [buffer]: { dtype: 'F32', shape: [0, 2 ** 53], bytes: 0 } })],
    ['a tensor of a dtype that is not read', () => withMore({ [buffer]: { dtype: 'F8_E8M0', shape: [3], bytes: 3 } })],
    ['a tensor of half bytes', () => withMore({ [buffer]: { dtype: 'F4', shape: [3, 2], bytes: 3 } })],
    ['data that are not aligned', () => text((h) => `${h}${' '.repeat(8 - ((h.length + 3) % 8))}`)],
  ];
  for (const [what, bytes] of sound) {
    it(what, async () => {
      await writeFile(path, good);
      using expected = await Policy.load(dir);
      await writeFile(path, bytes());
      await checkWeights((await readConfig(dir)).config, [path]);
      using policy = await Policy.load(dir);
      assert.equal(await policy.hash(), await expected.hash());
    });
  }
});

after(() => console.log(`# bad files: ${tried} tried, ${clear} refused by one error that names file and fault`));
