// Style and lint of the C++ sources.
//   node scripts/native-style.mjs format    rewrite with clang-format
//   node scripts/native-style.mjs check     fail if clang-format would change something
//   node scripts/native-style.mjs tidy [WORD]...    clang-tidy, where it is installed and the addon was configured; only
//                                           the files whose path contains one of the words
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const run = promisify(execFile);

const sources = readdirSync(join(root, 'native'), { recursive: true, encoding: 'utf8' })
  .filter((name) => /\.(cc|h|cu|cuh)$/.test(name))
  .map((name) => join('native', name))
  .sort();

function clangFormat(...options) {
  const program = join(root, 'node_modules', '.bin', 'clang-format');
  const { status } = spawnSync(program, ['--style=file', ...options, ...sources], { cwd: root, stdio: 'inherit' });
  process.exit(status ?? 1);
}

/** The newest clang-tidy of those that distributions call by several names; undefined if there is none. */
function findClangTidy() {
  const names = ['clang-tidy-22', 'clang-tidy-19', 'clang-tidy'];
  return names.find((name) => spawnSync(name, ['--version']).status === 0);
}

async function tidy() {
  const program = findClangTidy();
  if (program === undefined) {
    console.error('clang-tidy is not installed: C++ lint skipped (Debian, Ubuntu: apt-get install clang-tidy)');
    return;
  }
  const database = join(root, 'build', 'cmake', 'compile_commands.json');
  if (!existsSync(database)) {
    console.error('build/cmake/compile_commands.json is missing: C++ lint skipped (npm run build:native)');
    return;
  }
  // The compile commands are g++'s; its omp.h lies where clang does not look, and must come after clang's own headers.
  const gcc = spawnSync(process.env.CXX ?? 'g++', ['-print-file-name=include'], { encoding: 'utf8' }).stdout?.trim();
  // It also uses a form of an attribute that only g++ knows.
  const extra = gcc ? [`--extra-arg=-idirafter${gcc}`, '--extra-arg=-D__malloc__(...)='] : [];
  // Every file once: the instruction-set sources are in the database three times.
  const files = [...new Set(JSON.parse(readFileSync(database, 'utf8')).map(({ file }) => file))].sort();
  const words = process.argv.slice(3);
  const queue = files.filter((file) => words.length === 0 || words.some((word) => file.includes(word)));
  const count = queue.length;
  let failed = false;
  const worker = async () => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      try {
        await run(program, ['--quiet', ...extra, '-p', dirname(database), file], { cwd: root, maxBuffer: 1 << 26 });
      } catch (error) {
        failed = true;
        console.error(error.stdout || error.message);
      }
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  console.error(`clang-tidy: ${count} files${failed ? '; see above' : ', clean'}`);
  if (failed) process.exit(1);
}

const command = process.argv[2];
if (command === 'format') clangFormat('-i');
else if (command === 'check') clangFormat('--dry-run', '-Werror');
else if (command === 'tidy') await tidy();
else {
  console.error('usage: native-style.mjs format|check|tidy');
  process.exit(1);
}
