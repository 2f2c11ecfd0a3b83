// Runs the compiled tests: all, or those whose file name contains one of the given words.
//   npm test                    npm test -- tensor doctor
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const words = process.argv.slice(2).filter((argument) => !argument.startsWith('-'));
const options = process.argv.slice(2).filter((argument) => argument.startsWith('-'));

const files = readdirSync(join(root, 'dist', 'test'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.test.js'))
  .filter((name) => words.length === 0 || words.some((word) => name.includes(word)))
  .sort()
  .map((name) => join('dist', 'test', name));
if (files.length === 0) {
  console.error(`no test file matches ${words.join(' ')}`);
  process.exit(1);
}
// Node would leave one core idle; most files wait for processes they start.
const concurrency = `--test-concurrency=${availableParallelism()}`;
const { status } = spawnSync(process.execPath, ['--test', '--test-reporter=spec', concurrency, ...options, ...files], {
  cwd: root,
  stdio: 'inherit',
  // Threads that spin while they wait take the core from the other file's.
  env: { OMP_WAIT_POLICY: 'passive', ...process.env },
});
process.exit(status ?? 1);
