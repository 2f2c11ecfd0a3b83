// Makes prebuilds/<platform>-<arch>/: the addon through prebuildify (which knocks at binding.gyp) and the preloader.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const { status } = spawnSync('prebuildify', ['--napi', '--tag-libc', '--strip'], { cwd: root, stdio: 'inherit' });
if (status !== 0) process.exit(status ?? 1);
const folder = join(root, 'prebuilds', `${process.platform}-${process.arch}`, 'preload');
mkdirSync(folder, { recursive: true });
cpSync(join(root, 'build', 'preload', 'preload.node'), join(folder, 'preload.node'));
