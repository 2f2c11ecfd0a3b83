/** What cannot be allocated, or started, is an OutOfMemoryError, and the process goes on: under a limit of address space. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('./support/memory-program.js', import.meta.url));

/** prlimit is of util-linux; the sanitizers reserve address space by the terabyte. */
function reason(): string | false {
  if (process.env.EEPO_SANITIZED) return 'not under the sanitizers';
  try {
    execFileSync('prlimit', ['--version'], { stdio: 'ignore' });
    return false;
  } catch {
    return 'there is no prlimit here';
  }
}

describe('a process that may have little more memory', { skip: reason() }, () => {
  it('says so by name in every call, and computes afterwards what it did before', () => {
    const { status, signal, stdout, stderr } = spawnSync(process.execPath, [program], { encoding: 'utf8' });
    assert.deepEqual({ status, signal }, { status: 0, signal: null }, stderr);
    assert.deepEqual(JSON.parse(stdout), {
      tensor: 'EEPO_OUT_OF_MEMORY',
      create: 'EEPO_OUT_OF_MEMORY',
      forward: 'EEPO_OUT_OF_MEMORY',
      generate: 'EEPO_OUT_OF_MEMORY',
      threads: 'EEPO_OUT_OF_MEMORY',
      same: true,
    });
  });
});
