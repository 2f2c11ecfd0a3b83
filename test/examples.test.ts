import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ROOT } from './support/data.js';

function example(name: string, ...args: string[]): string {
  const result = spawnSync(process.execPath, [join(ROOT, 'dist', 'examples', `${name}.js`), ...args], {
    encoding: 'utf8',
  });
  assert.equal(result.status, 0, result.stderr);
  return result.stdout;
}

describe('examples', () => {
  it('01-kernels: what was forgotten is less likely', () => {
    const lines = example('01-kernels').trim().split('\n');
    assert.match(lines[0] as string, /6 open tokens/);
    const numbers = (line: string | undefined): number[] => (line?.match(/-?\d+\.\d+/g) ?? []).map(Number);
    const [before, after] = [numbers(lines[1]), numbers(lines[2])];
    assert.equal(before.length, 6);
    before.forEach((l, i) => {
      assert.ok((after[i] as number) < l, `token ${i}: ${l} -> ${after[i]}`);
    });
  });

  it('02-train-script: reports every iteration', () => {
    const output = example('02-train-script', '2');
    assert.match(output, /^1: reward \d\.\d+, entropy of stage 1 and 2 \d\.\d+ \d\.\d+/m);
    assert.match(output, /^2: reward/m);
  });

  it('03-custom-objective: steps on a loss of its own', () => {
    const losses = [...example('03-custom-objective', '3').matchAll(/loss (-?\d+\.\d+)/g)].map((match) =>
      Number(match[1]),
    );
    assert.equal(losses.length, 3);
    assert.ok(losses.every((loss) => loss > 0 && loss < 2));
  });
});
