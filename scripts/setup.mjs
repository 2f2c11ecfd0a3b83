// Makes a clone ready to run: dependencies, TypeScript, libtorch, addon. Each step is skipped when it is up to date, so
// `npm test` and `npm run demo` call this every time. Only Node's own modules: it runs before anything is installed.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync, statSync, utimesSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const at = (...parts) => join(root, ...parts);

function step(text, command, args, options = {}) {
  console.error(`setup: ${text}`);
  const began = Date.now();
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2], ...options });
  if (error || status !== 0) {
    console.error(`setup: ${text} failed${error ? `: ${error.message}` : ''}`);
    process.exit(1);
  }
  console.error(`setup: ${text} took ${((Date.now() - began) / 1000).toFixed(1)} s`);
}

/** Newest modification time below the given files and folders, in milliseconds; 0 for what does not exist. */
function newest(paths, wanted = () => true) {
  let latest = 0;
  for (const path of paths) {
    const found = statSync(path, { throwIfNoEntry: false });
    if (found === undefined) continue;
    if (found.isDirectory()) {
      const inside = readdirSync(path).map((name) => join(path, name));
      latest = Math.max(latest, newest(inside, wanted));
    } else if (wanted(path)) {
      latest = Math.max(latest, found.mtimeMs);
    }
  }
  return latest;
}

/** A step whose tool finds nothing to do leaves the old time on its output, and would look stale for ever. */
function touch(path) {
  const now = new Date();
  utimesSync(path, now, now);
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 17)) {
    console.error(`setup: Node ${process.versions.node} is too old; install Node 20.17 or newer`);
    process.exit(1);
  }
}

function dependencies() {
  const installed = newest([at('node_modules', '.package-lock.json')]);
  if (installed >= newest([at('package-lock.json')])) return;
  step('install dependencies (npm ci)', 'npm', ['ci']);
  touch(at('node_modules', '.package-lock.json'));
}

const sourceFolders = ['lib', 'test', 'bench', 'examples'];

function typescript() {
  const info = at('dist', '.tsbuildinfo');
  const sources = newest([...sourceFolders.map((name) => at(name)), at('tsconfig.json')], (path) =>
    /\.(ts|json)$/.test(path),
  );
  removeOrphans();
  if (newest([info]) > sources && newest([info]) >= newest([at('node_modules', '.package-lock.json')])) return;
  step('compile TypeScript', process.execPath, [at('node_modules', 'typescript', 'bin', 'tsc'), '-p', root]);
  touch(info);
}

/** Output whose source is gone: a deleted test must not go on running. */
function removeOrphans(folder = at('dist')) {
  if (!existsSync(folder)) return;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) removeOrphans(path);
    else if (/\.(js|js\.map|d\.ts)$/.test(entry.name)) {
      const source = at(relative(at('dist'), path)).replace(/\.(js|js\.map|d\.ts)$/, '.ts');
      if (!existsSync(source)) rmSync(path);
    }
  }
}

const minor = (version) => version?.split('.').slice(0, 2).join('.');

/** The libtorch with CUDA that build/ was made for with --cuda, if that is still there: then CUDA stays. */
async function libtorchOfCudaBuild(findLibtorch) {
  if (!existsSync(at('build', 'cuda', 'eepo_cuda.so')) || !existsSync(at('build', 'Release', 'eepo.node'))) return;
  const { builtAgainst, locateCudaHalf } = await import(pathToFileURL(at('dist', 'lib', 'native.js')).href);
  const version = builtAgainst(at('build', 'Release', 'eepo.node'));
  if (version === undefined || minor(locateCudaHalf()?.libtorch) !== minor(version)) return;
  try {
    return { ...findLibtorch({ version, cuda: 'required' }), cuda: true };
  } catch {
    return; // Gone: the CPU build serves.
  }
}

async function libtorch() {
  const { findLibtorch } = await import(pathToFileURL(at('dist', 'lib', 'libtorch', 'find.js')).href);
  const ofCuda = await libtorchOfCudaBuild(findLibtorch);
  if (ofCuda !== undefined) return ofCuda;
  try {
    return findLibtorch();
  } catch (error) {
    if (process.env.LIBTORCH) {
      console.error(`setup: ${error.message}`);
      process.exit(1);
    }
  }
  step('install libtorch', process.execPath, [at('dist', 'lib', 'cli', 'main.js'), 'libtorch', 'install']);
  return findLibtorch();
}

async function native(found) {
  const addon = at('build', 'Release', 'eepo.node');
  const preload = at('build', 'preload', 'preload.node');
  const sources = newest([at('native'), at('CMakeLists.txt'), at('cmake')]);
  if (existsSync(addon) && existsSync(preload) && newest([addon]) > sources) {
    const { builtAgainst } = await import(pathToFileURL(at('dist', 'lib', 'native.js')).href);
    if (minor(builtAgainst(addon)) === minor(found.version)) return;
  }
  const cuda = found.cuda ? ['--cuda'] : [];
  step('compile the addon', process.execPath, [at('scripts', 'build-native.cjs'), ...cuda]);
  touch(addon);
}

checkNode();
dependencies();
typescript();
await native(await libtorch());
