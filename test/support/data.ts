/** Where the tests' optional data is, and readers for it. A checkout without it skips what needs it, saying so. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The root of the checkout (tests run compiled, from dist/test). */
export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

/** The folder of reference data: EEPO_TEST_DATA, else ../shared/data beside the checkout. */
export const dataRoot = process.env.EEPO_TEST_DATA ?? join(ROOT, '..', 'shared', 'data');

/** The path of a file of the reference data, or null where it is absent. */
export function testData(...path: string[]): string | null {
  const full = join(dataRoot, ...path);
  return existsSync(full) ? full : null;
}

/** Options for a test that needs `path` of the reference data: skipped, with the reason, where it is absent. */
export function needs(...path: string[]): { skip: string | false } {
  const full = join(dataRoot, ...path);
  return { skip: existsSync(full) ? false : `reference data ${path.join('/')} is not here (set EEPO_TEST_DATA)` };
}

export const modelDir = (name: string): string => join(dataRoot, 'models', name);
export const embeddedModel = join(ROOT, 'models', 'countdown');

/** A float32 safetensors file as arrays by name: the tests' own reader, so that ours is checked against another. */
export function readSafetensors(path: string): Map<string, { shape: number[]; data: Float32Array }> {
  const file = readFileSync(path);
  const headerSize = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + headerSize).toString('utf8')) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, { shape: number[]; data: Float32Array }>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const [begin, end] = entry.data_offsets;
    const bytes = Uint8Array.from(file.subarray(8 + headerSize + begin, 8 + headerSize + end));
    if (entry.dtype !== 'F32') continue;
    tensors.set(name, { shape: entry.shape, data: new Float32Array(bytes.buffer) });
  }
  return tensors;
}
