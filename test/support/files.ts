import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';

/** A temporary folder that is removed when the test ends. */
export function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'eepo-test-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Writes files given by relative path below `folder`. */
export function writeFiles(folder: string, files: Record<string, string | Buffer>): string {
  for (const [name, data] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), data);
  }
  return folder;
}

/** An executable shell script. */
export function writeScript(path: string, body: string): string {
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
  return path;
}

/** A folder that says it is libtorch `version`, with libraries that no loader accepts. */
export function fakeLibtorch(folder: string, version: string): string {
  return writeFiles(folder, {
    'lib/libtorch_cpu.so': 'not an ELF file',
    'lib/libc10.so': 'not an ELF file',
    'share/cmake/Torch/TorchConfigVersion.cmake': `set(PACKAGE_VERSION "${version}")\n`,
  });
}
