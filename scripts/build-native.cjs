#!/usr/bin/env node
// Builds build/Release/eepo.node and build/preload/preload.node from CMakeLists.txt through cmake-js, against the
// libtorch that the package itself would load. Called by `npx eepo build`, scripts/setup.mjs and binding.gyp.
//   node scripts/build-native.cjs [--libtorch DIR] [--clean] [--jobs N] [--out DIR]
//                                 [--cuda [--cuda-archs 80,90]]
// --cuda builds the addon and the CUDA half (build/cuda/eepo_cuda.so), both against a libtorch that has CUDA.
// --cuda-archs: compute capabilities; `native` is that of this machine's GPUs. Default: those of the last build there,
// else all that are supported.
// --out: another folder instead of build/ (what EEPO_BUILD names when the package is loaded).
'use strict';

const { execFileSync, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

const root = path.resolve(__dirname, '..');

function fail(message) {
  console.error(`eepo build: ${message}`);
  process.exit(1);
}

function parseArguments(argv) {
  const options = {
    libtorch: undefined,
    clean: false,
    jobs: os.availableParallelism(),
    cuda: false,
    cudaArchs: undefined,
    out: path.join(root, 'build'),
  };
  for (let i = 0; i < argv.length; i++) {
    if (argv[i] === '--libtorch') options.libtorch = argv[++i];
    else if (argv[i] === '--jobs') options.jobs = Number(argv[++i]);
    else if (argv[i] === '--clean') options.clean = true;
    else if (argv[i] === '--cuda') options.cuda = true;
    else if (argv[i] === '--cuda-archs') options.cudaArchs = argv[++i];
    else if (argv[i] === '--out' && argv[i + 1]) options.out = path.resolve(argv[++i]);
    else {
      fail(`unknown option ${argv[i]}; known: --libtorch DIR, --jobs N, --clean, --cuda, --cuda-archs LIST, --out DIR`);
    }
  }
  if (!Number.isInteger(options.jobs) || options.jobs < 1) fail('--jobs must be a positive integer');
  if (options.cudaArchs !== undefined && !options.cuda) fail('--cuda-archs needs --cuda');
  return options;
}

/** The search itself lives in lib/libtorch/, so that what is built against is what is loaded. */
async function locate({ libtorch, cuda }) {
  const compiled = (name) => path.join(root, 'dist', 'lib', 'libtorch', name);
  if (!fs.existsSync(compiled('cuda.js'))) fail('dist/ is missing or old; run: npm run build:ts');
  const { findLibtorch, inspectLibtorch } = await import(pathToFileURL(compiled('find.js')).href);
  const { findCudaToolkit } = await import(pathToFileURL(compiled('cuda.js')).href);
  try {
    const found = libtorch
      ? inspectLibtorch(libtorch, 'option')
      : findLibtorch(cuda ? { cuda: 'required', version: 'any' } : {});
    return { found, toolkit: cuda ? findCudaToolkit(found) : undefined };
  } catch (error) {
    return fail(error.message);
  }
}

function requireTool(name, hint) {
  const found = spawnSync(name, ['--version'], { encoding: 'utf8' });
  if (found.status !== 0) fail(`${name} was not found. ${hint}`);
}

/** `80,9.0` or `native` -> `80;90`, as CMake wants a list; undefined leaves CMakeLists.txt's default. */
function architectures(list) {
  if (list === undefined) return undefined;
  let names = list.split(/[,;]/);
  if (list === 'native') {
    try {
      const query = ['--query-gpu=compute_cap', '--format=csv,noheader'];
      names = execFileSync('nvidia-smi', query, { encoding: 'utf8' }).trim().split('\n');
    } catch {
      fail('--cuda-archs native: nvidia-smi does not run here; name the architectures, for example 90');
    }
  }
  const cleaned = [...new Set(names.map((name) => name.trim().replace('.', '')))];
  const bad = cleaned.find((name) => !/^\d{2,3}[af]?$/.test(name));
  if (bad !== undefined) fail(`--cuda-archs ${list}: '${bad}' is no compute capability; expected like 80,90`);
  return cleaned.sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10)).join(';');
}

function definitions(options, libtorch, toolkit, last) {
  const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
  const values = { EEPO_LIBTORCH: libtorch.path, EEPO_VERSION: version, EEPO_OUTPUT: options.out };
  if (toolkit !== undefined) {
    values.EEPO_NVCC = toolkit.nvcc;
    values.EEPO_CUDA_INCLUDE = toolkit.includes.join(';');
    values.EEPO_CUDA_LIBRARIES = toolkit.libraries.join(';');
    const archs = architectures(options.cudaArchs) ?? last.EEPO_CUDA_ARCHITECTURES;
    if (archs !== undefined) values.EEPO_CUDA_ARCHITECTURES = archs;
  }
  values.EEPO_CUDA = toolkit === undefined ? 'OFF' : 'ON';
  return values;
}

function cmakeJs(command, cmakeDir, jobs, values) {
  const cli = require.resolve('cmake-js/bin/cmake-js', { paths: [root] });
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
  ];
  for (const [name, value] of Object.entries(values)) args.push(`--CD${name}=${value}`);
  const result = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' });
  if (result.status !== 0) {
    fail(`cmake-js ${command} failed (${result.signal ?? `exit ${result.status}`}); the compiler's output is above.`);
  }
}

async function main() {
  const options = parseArguments(process.argv.slice(2));
  const { found: libtorch, toolkit } = await locate(options);
  requireTool('cmake', 'Install CMake 3.18 or newer (Debian, Ubuntu: apt-get install cmake).');
  requireTool(process.env.CXX ?? 'g++', 'Install a C++20 compiler (Debian, Ubuntu: apt-get install g++) or set CXX.');
  console.log(`eepo build: libtorch ${libtorch.version} at ${libtorch.path}`);
  if (toolkit !== undefined) console.log(`eepo build: CUDA ${toolkit.version}, ${toolkit.nvcc}`);

  // CMake caches where it found things: a tree configured for another libtorch or compiler is worth nothing.
  const cmakeDir = path.join(options.out, 'cmake');
  const stamp = path.join(cmakeDir, 'eepo-libtorch.txt');
  const known = !options.clean && fs.existsSync(stamp) ? fs.readFileSync(stamp, 'utf8') : '';
  const values = definitions(options, libtorch, toolkit, known.startsWith('{') ? JSON.parse(known) : {});
  const identity = `${JSON.stringify({ libtorch: libtorch.version, ...values }, null, 2)}\n`;
  if (known !== identity) fs.rmSync(cmakeDir, { recursive: true, force: true });
  fs.mkdirSync(cmakeDir, { recursive: true });

  cmakeJs('configure', cmakeDir, options.jobs, values);
  fs.writeFileSync(stamp, identity);
  cmakeJs('build', cmakeDir, options.jobs, values);

  // node-gyp's generated Makefile wants the output of its action to exist.
  if (options.out === path.join(root, 'build')) fs.writeFileSync(path.join(root, 'build', 'force'), '');
  console.log(`eepo build: ${path.join(options.out, 'Release', 'eepo.node')}`);
  if (toolkit !== undefined) console.log(`eepo build: ${path.join(options.out, 'cuda', 'eepo_cuda.so')}`);
}

main();
