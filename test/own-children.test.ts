/** Child processes that end with the process that started them. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { endWithThisProcess } from '../lib/own-children.js';
import { isRunning } from '../lib/train/run-lock.js';

const module = new URL('../lib/own-children.js', import.meta.url).href;
const idle = ['-e', 'setInterval(() => {}, 1e6)'];

describe('processes of our own', () => {
  it('end with us, however many they are, and nothing is warned of', async () => {
    const program = `
      import { spawn } from 'node:child_process';
      import { endWithThisProcess } from ${JSON.stringify(module)};
      for (let i = 0; i < 12; i++) {
        const child = spawn(process.execPath, ${JSON.stringify(idle)}, { stdio: 'ignore' });
        endWithThisProcess(child);
        console.log(child.pid);
      }
      setTimeout(() => process.exit(3), 50);`;
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
    });
    assert.deepEqual({ status, stderr }, { status: 3, stderr: '' });
    const pids = stdout.trim().split('\n').map(Number);
    assert.equal(pids.length, 12);
    for (let i = 0; i < 100 && pids.some(isRunning); i++) await sleep(20);
    assert.deepEqual(pids.filter(isRunning), []);
  });

  it('leave no listener behind that has ended, or never began', async () => {
    const before = process.listenerCount('exit');
    const child = spawn(process.execPath, idle, { stdio: 'ignore' });
    const missing = spawn('/no/such/program');
    endWithThisProcess(child);
    endWithThisProcess(missing);
    assert.equal(process.listenerCount('exit'), before + 1);
    const ended = once(child, 'exit');
    child.kill();
    await ended;
    assert.equal(process.listenerCount('exit'), before);
  });
});
