/**
 * The end of a process or of a worker thread while a policy works: the exit code is the one that was asked for, and
 * nothing crashes. Short here; EEPO_EXIT_ROUNDS=50 is the long form (docs/reliability.md).
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { works } from './support/exit-program.js';

const program = fileURLToPath(new URL('./support/exit-program.js', import.meta.url));
const long = process.env.EEPO_EXIT_ROUNDS !== undefined;
const rounds = Number(process.env.EEPO_EXIT_ROUNDS ?? 1);
const all = Object.keys(works);

/** Of every program here: one that is ended while it saves cannot tidy up. */
const temporary = mkdtempSync(join(tmpdir(), 'eepo-exits-'));
after(() => rmSync(temporary, { recursive: true, force: true }));

interface End {
  code: number | null;
  signal: string | null;
  output: string;
}

async function run(...args: string[]): Promise<End> {
  const child = spawn(process.execPath, [program, ...args], {
    env: { ...process.env, TMPDIR: temporary },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  child.stdout.on('data', (data) => {
    output += data;
  });
  child.stderr.on('data', (data) => {
    output += data;
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  return { code, signal, output };
}

/** Processes that are ended `how`, `rounds` times each work, at moments spread over loading and working. */
async function endings(how: string, names: string[], check: (end: End, what: string) => void): Promise<void> {
  const tries: (() => Promise<void>)[] = [];
  for (let round = 0; round < rounds; round++) {
    for (const work of names) {
      // The first ones end while libtorch is still being loaded.
      const delay = Math.floor(Math.random() * 700);
      tries.push(async () => check(await run(work, how, String(delay)), `${work}, ${how} after ${delay} ms`));
    }
  }
  const next = async (): Promise<void> => {
    for (let one = tries.pop(); one !== undefined; one = tries.pop()) await one();
  };
  await Promise.all(Array.from({ length: Math.min(4, availableParallelism()) }, next));
}

describe('a process that ends while a policy works', () => {
  it('process.exit(7) is exit code 7', () =>
    endings('exit', all, ({ code, signal, output }, what) => {
      assert.deepEqual({ code, signal, output }, { code: 7, signal: null, output: '' }, what);
    }));

  it('an uncaught exception is exit code 1', () =>
    endings('throw', long ? all : ['generate', 'backward', 'load'], ({ code, signal, output }, what) => {
      assert.deepEqual({ code, signal }, { code: 1, signal: null }, `${what}: ${output}`);
      assert.match(output, /on purpose/, what);
    }));

  it("work that is queued by a listener of 'exit' changes nothing", () =>
    endings('exit listener', long ? all : ['queue', 'save'], ({ code, signal, output }, what) => {
      assert.deepEqual({ code, signal, output }, { code: 7, signal: null, output: '' }, what);
    }));
});

describe('a worker thread that ends while its policy works', () => {
  it('terminated, by process.exit or by an exception: the others go on', async () => {
    const { code, signal, output } = await run('workers', String(rounds), ...(long ? ['exit', 'throw'] : []));
    const ended = rounds * all.length * (long ? 3 : 1);
    assert.deepEqual({ code, signal, output }, { code: 0, signal: null, output: `ended ${ended}\n` });
  });
});
