// Makes prebuilds/<platform>-<arch>/: the addon through prebuildify (which knocks at binding.gyp), the preloader, and the
// CUDA half where build/cuda holds one that fits the addon (npx eepo build --cuda).
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const target = join(root, 'prebuilds', `${process.platform}-${process.arch}`);

function copy(folder, name) {
  mkdirSync(join(target, folder), { recursive: true });
  cpSync(join(root, 'build', folder, name), join(target, folder, name));
}

const { status } = spawnSync('prebuildify', ['--napi', '--tag-libc', '--strip'], { cwd: root, stdio: 'inherit' });
if (status !== 0) process.exit(status ?? 1);
copy('preload', 'preload.node');

const half = join(root, 'build', 'cuda', 'eepo_cuda.so');
const { interfaceOf, locateCudaHalf, builtAgainst } = await import(
  pathToFileURL(join(root, 'dist', 'lib', 'native.js')).href
);
rmSync(join(target, 'cuda'), { recursive: true, force: true });
if (existsSync(half)) {
  const addon = join(root, 'build', 'Release', 'eepo.node');
  const minor = (version) => version?.split('.').slice(0, 2).join('.');
  const fits =
    interfaceOf(half) === interfaceOf(addon) && minor(locateCudaHalf()?.libtorch) === minor(builtAgainst(addon));
  if (!fits) {
    console.error(`prebuild: ${half} does not fit build/Release/eepo.node; build both: npx eepo build --cuda`);
    process.exit(1);
  }
  copy('cuda', 'eepo_cuda.so');
} else {
  console.log('prebuild: without the CUDA half (build/cuda/eepo_cuda.so does not exist)');
}
