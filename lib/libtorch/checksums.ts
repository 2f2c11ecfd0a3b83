import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { InvalidFileError } from '../errors.js';

/** SHA-256 of distributions by exact file name. A file that is not listed is accepted and its sum recorded. */
export const checksums: Readonly<Record<string, string>> = {
  'torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl':
    '6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b',
};

/** SHA-256 of a file, in hexadecimal. */
export async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/**
 * Compares a file with the sum that is known for its name.
 *
 * @returns the sum, and whether one was known.
 * @throws InvalidFileError if the sums differ.
 */
export async function verify(
  file: string,
  name: string,
  known: Readonly<Record<string, string>> = checksums,
): Promise<{ sha256: string; verified: boolean }> {
  const sum = await sha256(file);
  const expected = known[name];
  if (expected !== undefined && expected !== sum) {
    throw new InvalidFileError(
      `${name}: the SHA-256 is ${sum}, expected ${expected}. The file is damaged or is not the one that was published; ` +
        'delete it and run: npx eepo libtorch install',
    );
  }
  return { sha256: sum, verified: expected !== undefined };
}
