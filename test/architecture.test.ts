/** docs/architecture.md: the rooms there are, and what the two purest of them may know. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { describe, it } from 'node:test';
import { ROOT } from './support/data.js';

const page = readFileSync(join(ROOT, 'docs', 'architecture.md'), 'utf8');
const lib = join(ROOT, 'lib');

describe('docs/architecture.md', () => {
  for (const half of ['lib', 'native']) {
    it(`names every room of ${half}/`, () => {
      const folders = readdirSync(join(ROOT, half), { withFileTypes: true }).filter((entry) => entry.isDirectory());
      const rooms = folders.map(({ name }) => name).filter((name) => name !== 'test');
      assert.ok(rooms.length > 5);
      for (const room of rooms) assert.match(page, new RegExp(`(^ +| )${room}/`, 'm'), room);
    });
  }

  it('algorithm/ and verify/ import nothing of ours but errors and options', () => {
    for (const room of ['algorithm', 'verify']) {
      const files = readdirSync(join(lib, room), { recursive: true, encoding: 'utf8' }).filter((name) =>
        name.endsWith('.ts'),
      );
      assert.ok(files.length > 5);
      for (const file of files) {
        const path = join(lib, room, file);
        for (const [, specifier] of readFileSync(path, 'utf8').matchAll(/from '(\.[^']+)'/g)) {
          const target = relative(lib, join(dirname(path), specifier as string));
          assert.match(target, new RegExp(`^(${room}/.*|errors\\.js|options\\.js)$`), `${room}/${file}`);
        }
      }
    }
  });
});
