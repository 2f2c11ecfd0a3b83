/** What data files may take: memory of their rows, and processes that outlive nobody. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { InvalidFileError } from '../lib/errors.js';
import { memoryOf, RowMemory } from '../lib/tasks/data/row-memory.js';
import { isRunning } from '../lib/train/run-lock.js';
import { ROOT } from './support/data.js';
import { temporaryFolder, writeFiles } from './support/files.js';

describe('the rows of a data set', () => {
  it('are counted by what they hold, however deep', () => {
    assert.ok(memoryOf({ prompt: 'x'.repeat(1000) }) >= 1000);
    assert.ok(memoryOf({ prompt: '€'.repeat(1000) }) >= 2000);
    let deep: unknown = 1;
    for (let i = 0; i < 200_000; i += 1) deep = [deep];
    assert.ok(memoryOf(deep) >= 200_000 * 16);
    const memory = new RowMemory('x.jsonl', 10_000);
    assert.throws(
      () => {
        for (let i = 0; i < 100; i += 1) memory.add({ prompt: 'x'.repeat(900) });
      },
      (error: Error) => {
        assert.ok(error instanceof InvalidFileError);
        assert.match(
          error.message,
          /^x\.jsonl: \d+ rows take more than the 0 MiB .*metaColumns.*maxProblems.*max-old-space-size/,
        );
        return true;
      },
    );
  });

  it('end in an error where there are too many for the memory of the process; a limit reads no more than it keeps', (t) => {
    const folder = temporaryFolder(t);
    const row = `${JSON.stringify({ prompt: 'p'.repeat(500), answer: '1' })}\n`;
    writeFiles(folder, { 'many.jsonl': row.repeat(60_000) });
    const program = `
      import { createTask } from './dist/lib/tasks/index.js';
      const files = { train: process.argv[1] };
      const few = await createTask('jsonl', { files, maxProblems: 100 });
      console.log(few.splits.train.length);
      for (const shuffleSeed of [null, 1]) {
        await createTask('jsonl', { files, shuffleSeed }).then(() => console.log('read'), (e) => console.log(e.message));
      }`;
    const { stdout, stderr } = spawnSync(
      process.execPath,
      ['--max-old-space-size=64', '--input-type=module', '-e', program, join(folder, 'many.jsonl')],
      { cwd: ROOT, encoding: 'utf8' },
    );
    const [few, ...rest] = stdout.trim().split('\n');
    assert.equal(few, '100', stderr);
    assert.equal(rest.length, 2);
    for (const line of rest) assert.match(line, /many\.jsonl: \d+ rows take more than the \d+ MiB of memory/);
  });
});

describe('the process that decodes Parquet', () => {
  it('ends when its parent is gone, even in the middle of a file that never ends', { timeout: 60_000 }, async () => {
    // Stands for a decoder that hangs: what it does with a message never ends.
    const code = `const { on } = process;
      const hang = () => { process.send('hangs'); for (;;); };
      process.on = function (event, listener) { return on.call(this, event, event === 'message' ? hang : listener); };`;
    const hang = `data:text/javascript,${encodeURIComponent(code)}`;
    const program = `
      import { fork } from 'node:child_process';
      const child = fork('./dist/lib/tasks/data/parquet-worker.js', [String(process.pid)], {
        execArgv: ['--import', ${JSON.stringify(hang)}], env: {}, detached: true, stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
      });
      child.once('message', () => console.log(child.pid));
      child.send({ kind: 'close' });`;
    const parent = spawn(process.execPath, ['--input-type=module', '-e', program], {
      cwd: ROOT,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = await once(createInterface({ input: parent.stdout }), 'line');
    const pid = Number(line);
    assert.ok(isRunning(pid));
    await sleep(1_500);
    assert.ok(isRunning(pid), 'while its parent lives it is left alone');
    parent.kill('SIGKILL');
    await once(parent, 'exit');
    while (isRunning(pid)) await sleep(50);
  });
});
