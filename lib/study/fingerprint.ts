/** Whether a base model is still the one that a run began with. */
import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';

const MEBIBYTES = 64 * 2 ** 20;
const known = new Map<string, string>();

/** SHA-256 of names, sizes and first 64 MiB of the weights; '' for a model of the hub, which its revision names. */
export function modelFingerprint(folder: string): string {
  if (!existsSync(folder)) return '';
  const before = known.get(folder);
  if (before !== undefined) return before;
  const hash = createHash('sha256');
  for (const name of readdirSync(folder).sort()) {
    if (!/^(?:config\.json|tokenizer\.json|.*\.safetensors)$/.test(name)) continue;
    const path = join(folder, name);
    const { size } = statSync(path);
    const bytes = Buffer.alloc(Math.min(size, MEBIBYTES));
    const handle = openSync(path, 'r');
    const read = readSync(handle, bytes);
    closeSync(handle);
    hash.update(`${name} ${size} `).update(bytes.subarray(0, read));
  }
  const result = hash.digest('hex');
  known.set(folder, result);
  return result;
}
