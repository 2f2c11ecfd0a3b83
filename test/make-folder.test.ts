/** Folders are made level by level: where one cannot be, that is an error and not an endless loop. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { makeFolder, makeFolders, makeGivenFolder } from '../lib/make-folder.js';
import { ROOT } from './support/data.js';
import { temporaryFolder, writeFiles } from './support/files.js';

describe('making folders', () => {
  it('makes those above it too, and is content with what is there', (t) => {
    const dir = join(temporaryFolder(t), 'a', 'b', 'c');
    makeFolders(dir);
    makeFolders(dir);
    assert.ok(statSync(dir).isDirectory());
  });

  it('names what is a file, in the words of a command and of a function', (t) => {
    const dir = temporaryFolder(t);
    writeFiles(dir, { file: 'x' });
    const file = join(dir, 'file');
    assert.throws(() => makeFolder(file, 'a run'), {
      code: 'EEPO_CONFIG',
      message: /file is a file; a run is written/,
    });
    assert.throws(() => makeGivenFolder(file), {
      code: 'EEPO_INVALID_ARGUMENT',
      message: /dir: .*file cannot be made/,
    });
    assert.throws(() => makeGivenFolder(join(file, 'below')), /cannot be made a folder \(ENOTDIR\)/);
  });

  // Node's recursive mkdir would never come back from /proc; in a process of its own, so that the test can end it.
  it('saves nothing under /proc, and says so: a model, an adapter, a tokenizer, responses', {
    skip: !existsSync('/proc/self'),
  }, () => {
    const program = `
      import { writeAdapter } from './dist/lib/adapter.js';
      import { openResponses } from './dist/lib/eval/response-file.js';
      import { Policy } from './dist/lib/policy.js';
      import { Tokenizer } from './dist/lib/tokenizer.js';
      const policy = await Policy.load('models/countdown');
      const tokenizer = await Tokenizer.load('models/countdown');
      const attempts = [
        () => policy.save('/proc/nothing/model'),
        () => writeAdapter('/proc/nothing/adapter', { rank: 1, alpha: 1, targets: [], rslora: false }, null, async () => {}),
        () => tokenizer.save('/proc/nothing/tokenizer'),
        async () => openResponses('/proc/nothing/responses.jsonl').append([{}]),
      ];
      for (const attempt of attempts) await attempt().then(() => console.log('saved'), (e) => console.log(e.message));
      policy.dispose();`;
    const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      cwd: ROOT,
      encoding: 'utf8',
      timeout: 60_000,
    });
    assert.equal(status, 0, stderr);
    const lines = stdout.trim().split('\n');
    assert.equal(lines.length, 4);
    for (const line of lines) assert.match(line, /\/proc\/nothing.*ENOENT|ENOENT.*\/proc\/nothing/);
  });
});
