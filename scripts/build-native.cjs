#!/usr/bin/env node
// Builds build/Release/eepo.node and build/preload/preload.node from CMakeLists.txt through cmake-js, against the
// libtorch that the package itself would load. Called by `npx eepo build`, scripts/setup.mjs and binding.gyp.
//   node scripts/build-native.cjs [--libtorch DIR] [--clean] [--jobs N]
'use strict';

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

const root = path.resolve(__dirname, '..');
const cmakeDir = path.join(root, 'build', 'cmake');
const releaseDir = path.join(root, 'build', 'Release');

function fail(message) {
  console.error(`eepo build: ${message}`);
  process.exit(1);
}

function parseArguments(argv) {
  const options = { libtorch: undefined, clean: false, jobs: os.availableParallelism() };
  for (let i = 0; i < argv.length; i++) {
    if (argv[i] === '--libtorch') options.libtorch = argv[++i];
    else if (argv[i] === '--jobs') options.jobs = Number(argv[++i]);
    else if (argv[i] === '--clean') options.clean = true;
    else fail(`unknown option ${argv[i]}; known: --libtorch DIR, --jobs N, --clean`);
  }
  if (!Number.isInteger(options.jobs) || options.jobs < 1) fail('--jobs must be a positive integer');
  return options;
}

/** The search itself lives in lib/libtorch/find.ts, so that what is built against is what is loaded. */
async function locate(explicit) {
  const finder = path.join(root, 'dist', 'lib', 'libtorch', 'find.js');
  if (!fs.existsSync(finder)) fail('dist/ is missing; run: npm run build:ts');
  const { findLibtorch, inspectLibtorch } = await import(pathToFileURL(finder).href);
  try {
    return explicit ? inspectLibtorch(explicit, 'option') : await findLibtorch();
  } catch (error) {
    return fail(error.message);
  }
}

function requireTool(name, hint) {
  const found = spawnSync(name, ['--version'], { encoding: 'utf8' });
  if (found.status !== 0) fail(`${name} was not found. ${hint}`);
}

function cmakeJs(command, libtorch, jobs) {
  const cli = require.resolve('cmake-js/bin/cmake-js', { paths: [root] });
  const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
  const args = [
    cli,
    command,
    '--directory',
    root,
    '--out',
    cmakeDir,
    '--config',
    'Release',
    '--parallel',
    String(jobs),
    `--CDTorch_DIR=${path.join(libtorch.path, 'share', 'cmake', 'Torch')}`,
    `--CDEEPO_VERSION=${version}`,
  ];
  const result = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' });
  if (result.status !== 0) {
    fail(`cmake-js ${command} failed (${result.signal ?? `exit ${result.status}`}); the compiler's output is above.`);
  }
}

async function main() {
  const options = parseArguments(process.argv.slice(2));
  const libtorch = await locate(options.libtorch);
  requireTool('cmake', 'Install CMake 3.18 or newer (Debian, Ubuntu: apt-get install cmake).');
  requireTool(process.env.CXX ?? 'g++', 'Install a C++20 compiler (Debian, Ubuntu: apt-get install g++) or set CXX.');
  console.log(`eepo build: libtorch ${libtorch.version} at ${libtorch.path}`);

  // CMake caches where it found things: a tree configured for another libtorch is worth nothing.
  const stamp = path.join(cmakeDir, 'eepo-libtorch.txt');
  const identity = `${libtorch.version} ${libtorch.path}\n`;
  const known = fs.existsSync(stamp) ? fs.readFileSync(stamp, 'utf8') : undefined;
  if (options.clean || known !== identity) fs.rmSync(cmakeDir, { recursive: true, force: true });
  fs.mkdirSync(cmakeDir, { recursive: true });

  cmakeJs('configure', libtorch, options.jobs);
  fs.writeFileSync(stamp, identity);
  cmakeJs('build', libtorch, options.jobs);

  // node-gyp's generated Makefile wants the output of its action to exist.
  fs.writeFileSync(path.join(root, 'build', 'force'), '');
  console.log(`eepo build: ${path.join(releaseDir, 'eepo.node')}`);
}

main();
