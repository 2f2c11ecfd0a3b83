/** The folders a policy is saved to and restored from. */
import { type Lora, readAdapterConfig } from '../adapter.js';
import { InvalidArgumentError, InvalidFileError } from '../errors.js';
import { describe } from '../options.js';

export function requireFolder(dir: unknown): void {
  if (typeof dir !== 'string' || dir === '' || dir.includes('\0')) {
    throw new InvalidArgumentError(`dir must be the path of a folder, got ${describe(dir)}`);
  }
}

/**
 * The file with the numbers of a saved adapter, which must be of the same make as `own`.
 *
 * @throws InvalidFileError naming what differs
 */
export async function sameAdapter(dir: string, own: Readonly<Lora>): Promise<string> {
  const { weights, ...saved } = await readAdapterConfig(dir);
  for (const key of ['rank', 'alpha', 'targets', 'rslora'] as const) {
    const [mine, theirs] = [JSON.stringify(own[key]), JSON.stringify(saved[key])];
    if (mine !== theirs) {
      throw new InvalidFileError(`${dir}: the adapter has ${key} ${theirs}, that of this policy ${mine}`);
    }
  }
  return weights;
}
