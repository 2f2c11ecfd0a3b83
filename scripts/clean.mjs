// Removes everything that is built; node_modules and the libtorch cache stay.
import { rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
for (const name of ['dist', 'build', 'prebuilds', join('docs', 'api')]) {
  rmSync(join(root, name), { recursive: true, force: true });
}
