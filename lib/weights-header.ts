/** Headers of safetensors files, read without their data: what loading would refuse is refused before a run begins. */
import { open } from 'node:fs/promises';
import type { PolicyConfig } from './config-json.js';
import { InvalidFileError, UnsupportedError } from './errors.js';
import { regularFile } from './read-file.js';

/** A tensor as a header describes it. */
export interface HeaderTensor {
  dtype: string;
  shape: readonly number[];
  /** In the data of the file. */
  begin: number;
  end: number;
}

/** As in native/model/safetensors_parse.cc, which says the same in the same order. */
const MAX_HEADER = 100_000_000;
const LENGTH_BYTES = 8;
const BITS: Readonly<Record<string, number>> = {
  ...{ F64: 64, F32: 32, F16: 16, BF16: 16, BOOL: 8, U8: 8, I8: 8, U16: 16, I16: 16, U32: 32, I32: 32, U64: 64 },
  ...{ I64: 64, C64: 64, F8_E5M2: 8, F8_E4M3: 8, F8_E5M2FNUZ: 8, F8_E4M3FNUZ: 8, F8_E8M0: 8, F6_E2M3: 6 },
  ...{ F6_E3M2: 6, F4: 4 },
};
const READ = new Set(['F64', 'F32', 'F16', 'BF16']);

/** Names and shapes of a model's tensors, as native/train/layout.cc has them. */
export function weightShapes(config: PolicyConfig): Map<string, number[]> {
  const { vocabSize, hiddenSize: dim, intermediateSize: ffn, numHeads, numKeyValueHeads, headDim } = config;
  const [q, kv] = [numHeads * headDim, numKeyValueHeads * headDim];
  const shapes = new Map([['model.embed_tokens.weight', [vocabSize, dim]]]);
  for (let layer = 0; layer < config.numLayers; layer += 1) {
    const add = (name: string, ...shape: number[]) => shapes.set(`model.layers.${layer}.${name}`, shape);
    add('input_layernorm.weight', dim);
    for (const [name, width] of [
      ['q', q],
      ['k', kv],
      ['v', kv],
    ] as const) {
      add(`self_attn.${name}_proj.weight`, width, dim);
      if (config.attentionBias) add(`self_attn.${name}_proj.bias`, width);
    }
    if (config.qkNorm) for (const name of ['q', 'k']) add(`self_attn.${name}_norm.weight`, headDim);
    add('self_attn.o_proj.weight', dim, q);
    if (config.attentionOutputBias) add('self_attn.o_proj.bias', dim);
    add('post_attention_layernorm.weight', dim);
    add('mlp.gate_proj.weight', ffn, dim);
    add('mlp.up_proj.weight', ffn, dim);
    add('mlp.down_proj.weight', dim, ffn);
  }
  shapes.set('model.norm.weight', [dim]);
  if (!config.tieWordEmbeddings) shapes.set('lm_head.weight', [vocabSize, dim]);
  return shapes;
}

/**
 * Reads the headers of weights files and compares names, shapes and dtypes with what the model needs. Of the data nothing
 * is read, so a tied head that was saved with other values than the embedding is found only when it is loaded.
 *
 * @throws InvalidFileError or UnsupportedError naming file and tensor, as loading them would
 */
export async function checkWeights(config: PolicyConfig, paths: readonly string[]): Promise<void> {
  const files: { path: string; tensors: Map<string, HeaderTensor> }[] = [];
  for (const path of paths) files.push({ path, tensors: await readHeader(path) });
  const shapes = weightShapes(config);
  const seen = new Set<string>();
  for (const { path, tensors } of files) {
    for (const [name, tensor] of tensors) {
      if (/\.rotary_emb\.inv_freq$|\.masked_bias$/.test(name)) continue;
      const tied = config.tieWordEmbeddings && name === 'lm_head.weight';
      checkTensor(path, name, tensor, shapes.get(tied ? 'model.embed_tokens.weight' : name), seen);
    }
  }
  const missing = [...shapes.keys()].find((name) => !seen.has(name));
  if (missing === undefined) return;
  throw new InvalidFileError(`${files[0]?.path ?? 'model'}: tensor ${missing} is missing from the weights`);
}

function checkTensor(
  path: string,
  name: string,
  { dtype, shape }: HeaderTensor,
  expected: readonly number[] | undefined,
  seen: Set<string>,
): void {
  if (expected === undefined) {
    throw new InvalidFileError(
      `${path}: tensor ${printable(name)} does not belong to this architecture (config.json and weights disagree)`,
    );
  }
  if (seen.has(name)) throw new InvalidFileError(`${path}: tensor ${name} is in more than one file of the model`);
  seen.add(name);
  if (shape.length !== expected.length || shape.some((size, i) => size !== expected[i])) {
    throw new InvalidFileError(
      `${path}: tensor ${name} has a shape that config.json does not give it (${elementsOf(shape)} elements, expected ` +
        `${elementsOf(expected)})`,
    );
  }
  if (READ.has(dtype)) return;
  throw new UnsupportedError(
    `${path}: tensor ${name} has dtype ${dtype}, which is not supported; use float32, bfloat16 or float16`,
  );
}

/**
 * The tensors of a safetensors file, in the order of their names.
 *
 * @throws InvalidFileError naming the file, and the tensor
 */
export async function readHeader(path: string): Promise<Map<string, HeaderTensor>> {
  const { size } = await regularFile(path);
  const file = await open(path);
  let header: Buffer;
  try {
    if (size < LENGTH_BYTES) {
      throw new InvalidFileError(`${path}: is too short for a safetensors file (${size} bytes)`);
    }
    const length = (await exactly(file, LENGTH_BYTES, 0, path)).readBigUInt64LE();
    checkLength(length, size, path);
    header = await exactly(file, Number(length), LENGTH_BYTES, path);
  } finally {
    await file.close();
  }
  return parseHeader(header, size - LENGTH_BYTES - header.length, path);
}

async function exactly(
  file: Awaited<ReturnType<typeof open>>,
  bytes: number,
  at: number,
  path: string,
): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, at);
  if (bytesRead < bytes) throw new InvalidFileError(`${path}: became shorter while it was read`);
  return buffer;
}

function checkLength(length: bigint, size: number, path: string): void {
  const bad = (what: string): InvalidFileError => new InvalidFileError(`${path}: header length ${length} ${what}`);
  if (length > MAX_HEADER) {
    throw bad(`is more than ${MAX_HEADER} bytes, the format's limit (not a safetensors file?)`);
  }
  if (length > size - LENGTH_BYTES) {
    throw bad(`does not fit the file of ${size} bytes (not a safetensors file, or truncated)`);
  }
  if (length < 2) throw bad('has no room for a JSON object');
}

function parseHeader(bytes: Buffer, dataBytes: number, path: string): Map<string, HeaderTensor> {
  let header: unknown;
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    header = JSON.parse(text);
  } catch (cause) {
    throw new InvalidFileError(`${path}: its header is not valid JSON: ${printable((cause as Error).message)}`, {
      cause,
    });
  }
  if (!isObject(header)) throw new InvalidFileError(`${path}: its header is not a JSON object`);
  const { __metadata__: metadata, ...entries } = header;
  checkMetadata(metadata, path);
  const tensors = Object.entries(entries).map(([name, entry]): [string, HeaderTensor] => [
    name,
    tensorOf(entry, dataBytes, () => `${path}: tensor ${printable(name)}`),
  ]);
  checkCover(tensors, dataBytes, path);
  checkOnce(text, tensors.length, path);
  return new Map(tensors.sort(([a], [b]) => (a < b ? -1 : 1)));
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function checkMetadata(metadata: unknown, path: string): void {
  if (metadata === undefined || metadata === null) return;
  if (!isObject(metadata)) throw new InvalidFileError(`${path}: __metadata__ is not an object`);
  const wrong = Object.entries(metadata).find(([, value]) => typeof value !== 'string');
  if (wrong) throw new InvalidFileError(`${path}: __metadata__: ${printable(wrong[0])} is not a text`);
}

/** JSON.parse keeps the last of two keys of one name; each tensor has one of these. */
function checkOnce(text: string, tensors: number, path: string): void {
  for (const key of [/(?<!\\)"dtype"\s*:/g, /(?<!\\)"shape"\s*:/g, /(?<!\\)"data_offsets"\s*:/g]) {
    if ((text.match(key)?.length ?? 0) > tensors)
      throw new InvalidFileError(`${path}: a key occurs twice in its header`);
  }
}

function tensorOf(entry: unknown, dataBytes: number, where: () => string): HeaderTensor {
  const bad = (what: string): InvalidFileError => new InvalidFileError(`${where()}: ${what}`);
  if (!isObject(entry)) throw bad('its header entry is not an object');
  const member = <T>(key: string, is: (value: unknown) => value is T, kind: string): T => {
    const value = Object.hasOwn(entry, key) ? entry[key] : undefined;
    if (value === undefined) throw bad(`${key} is missing`);
    if (!is(value)) throw bad(`${key} is not ${kind}`);
    return value;
  };
  const dtype = member('dtype', isText, 'a text');
  const bits = Object.hasOwn(BITS, dtype) ? (BITS[dtype] as number) : undefined;
  if (bits === undefined) throw bad(`dtype ${printable(dtype)} is none of the safetensors format`);
  const shape = member('shape', isList, 'a list');
  let elements = 1n;
  for (const size of shape) {
    if (!isSize(size)) throw bad('shape has an entry that is no size (an integer from 0 to 2^63 - 1)');
    elements *= BigInt(size);
    if (elements >= LIMIT) throw bad('shape overflows: 2^63 elements or more');
  }
  const pair = member('data_offsets', isList, 'a list');
  if (pair.length !== 2) throw bad(`data_offsets are not two numbers but ${pair.length}`);
  if (!pair.every(isSize)) {
    throw bad('data_offsets has an entry that is no offset (an integer from 0 to 2^63 - 1)');
  }
  const [begin, end] = pair as [number, number];
  if (end < begin) throw bad(`data_offsets [${begin}, ${end}] end before they begin`);
  if (end > dataBytes) {
    throw bad(
      `data_offsets [${begin}, ${end}] lie outside the file's ${dataBytes} bytes of data (it may be truncated: download ` +
        'it again)',
    );
  }
  const expected = elements * BigInt(bits);
  if (expected >= LIMIT) throw bad('shape overflows: 2^63 bits or more');
  if (expected % 8n !== 0n) throw bad(`${elements} elements of dtype ${dtype} are no whole bytes`);
  if (expected / 8n !== BigInt(end - begin)) {
    throw bad(`dtype ${dtype} and its shape need ${expected / 8n} bytes, data_offsets span ${end - begin}`);
  }
  return { dtype, shape: shape as number[], begin, end };
}

const LIMIT = 2n ** 63n;
const isText = (value: unknown): value is string => typeof value === 'string';
const isList = (value: unknown): value is unknown[] => Array.isArray(value);
const isSize = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 2 ** 63;

/** Every byte of the data belongs to one tensor. */
function checkCover(tensors: readonly [string, HeaderTensor][], dataBytes: number, path: string): void {
  const order = [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let end = 0;
  let before = '';
  for (const [name, tensor] of order) {
    const where = () => `${path}: tensor ${printable(name)}: its data begin at byte ${tensor.begin} and`;
    if (tensor.begin < end) {
      throw new InvalidFileError(`${where()} overlap tensor ${printable(before)}, which ends at ${end}`);
    }
    if (tensor.begin > end) {
      throw new InvalidFileError(`${where()} leave a hole of ${tensor.begin - end} bytes before them`);
    }
    end = tensor.end;
    before = name;
  }
  if (end === dataBytes) return;
  const last = before === '' ? '' : ` (${printable(before)})`;
  throw new InvalidFileError(`${path}: ${dataBytes - end} bytes after the last tensor${last}`);
}

const elementsOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

const LONGEST_SHOWN = 120;
/** What could steer a terminal or reorder a line. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is made visible
const STEERS = /[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** A name out of a file for an error message, as native code shows it. */
function printable(text: string): string {
  const bytes = Buffer.from(text);
  let end = Math.min(bytes.length, LONGEST_SHOWN);
  // not in the middle of a character
  while (end < bytes.length && ((bytes[end] as number) & 0xc0) === 0x80) end -= 1;
  const shown = bytes.toString('utf8', 0, end);
  const code = (c: string): string => `U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`;
  return shown.replace(STEERS, code) + (end < bytes.length ? `... (${bytes.length} bytes)` : '');
}
