// CUDA without a GPU: fetches libtorch with CUDA and NVIDIA's compiler, compiles and links the CUDA half and the addon
// against them, and loads both in a child process. So that whoever has no GPU can still build what runs on one.
//   node scripts/setup-cuda.mjs [--archs 90] [--folder DIR] [--jobs N] [--check]
// --archs   compute capabilities; default: all that are supported
// --folder  where the packages go (about 5 GB). Default: cuda/<version> in the cache (EEPO_CACHE, else ~/.cache/eepo)
// --check   fetch nothing and build nothing; exit code 0 if pip serves the packages and the disk has room
// Exit code 3: the packages could not be fetched; 1: anything else went wrong.
// The build goes to build/cuda-check, beside the build that is in use; EEPO_BUILD=build/cuda-check uses it.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const python = process.env.EEPO_PYTHON || 'python3';
const version = '2.14.1';
const neededBytes = 12e9; // 2.6 GB of wheels, 4.4 GB unpacked, the build, and room for pip's copies

/** libtorch's own libraries need these when they are loaded; the versions are those its wheel asks for. */
const libraries = [
  `torch==${version}`,
  'nvidia-cublas==13.1.1.3',
  'nvidia-cuda-cupti==13.0.85',
  'nvidia-cuda-nvrtc==13.0.88',
  'nvidia-cuda-runtime==13.0.96',
  'nvidia-cudnn-cu13==9.24.0.43',
  'nvidia-cufft==12.0.0.61',
  'nvidia-cufile==1.15.1.6',
  'nvidia-curand==10.4.0.35',
  'nvidia-cusolver==12.0.4.66',
  'nvidia-cusparse==12.6.3.3',
  'nvidia-cusparselt-cu13==0.8.1',
  'nvidia-nccl-cu13==2.30.7',
  'nvidia-nvjitlink==13.4.92',
  'nvidia-nvshmem-cu13==3.4.5',
  'nvidia-nvtx==13.0.85',
];
/** The compiler and its headers; not fetched where the system has an nvcc of the same major version. */
const compiler = [
  'nvidia-cuda-cccl==13.0.85',
  'nvidia-cuda-crt==13.0.88',
  'nvidia-cuda-nvcc==13.0.88',
  'nvidia-nvvm==13.0.88',
];

const steps = [];

function fail(message, exitCode = 1) {
  console.error(`setup-cuda: ${message}`);
  summary();
  process.exit(exitCode);
}

function summary() {
  if (steps.length === 0) return;
  console.log('\nsetup-cuda');
  for (const { name, result, seconds } of steps) {
    console.log(`  ${name.padEnd(34)} ${result.padEnd(40)} ${seconds.toFixed(1).padStart(7)} s`);
  }
}

/** Runs one step: `work` returns what to say of it, or throws. */
async function step(name, work, exitCode = 1) {
  console.error(`setup-cuda: ${name}`);
  const began = Date.now();
  try {
    const result = await work();
    steps.push({ name, result, seconds: (Date.now() - began) / 1000 });
  } catch (error) {
    steps.push({ name, result: 'FAILED', seconds: (Date.now() - began) / 1000 });
    fail(`${name}: ${error.message}`, exitCode);
  }
}

function parseArguments(argv) {
  const options = { archs: undefined, folder: undefined, jobs: availableParallelism(), check: false };
  for (let i = 0; i < argv.length; i++) {
    if (argv[i] === '--archs') options.archs = argv[++i];
    else if (argv[i] === '--folder') options.folder = argv[++i];
    else if (argv[i] === '--jobs') options.jobs = Number(argv[++i]);
    else if (argv[i] === '--check') options.check = true;
    else fail(`unknown option ${argv[i]}; known: --archs LIST, --folder DIR, --jobs N, --check`);
  }
  return options;
}

/** A module of the package itself, which must be compiled. */
async function compiled(...parts) {
  const path = join(root, 'dist', 'lib', ...parts);
  if (!existsSync(path)) fail('dist/ is missing; run: npm run setup');
  return import(pathToFileURL(path).href);
}

/** Runs a program and shows what it prints; throws with its exit code. */
function run(program, args, options = {}) {
  const { status, signal, error } = spawnSync(program, args, { cwd: root, stdio: ['ignore', 2, 2], ...options });
  if (error) throw new Error(`${program} could not be run: ${error.message}`);
  if (status !== 0) throw new Error(`${program} ended with ${signal ?? `exit code ${status}`}; its output is above`);
}

const pipOptions = ['--no-deps', '--only-binary=:all:', '--disable-pip-version-check', '--no-input', '--retries', '1'];
// Only the wheels' libraries are used, not their Python modules: one Python version serves whichever runs pip.
const pipTarget = ['--python-version', '3.11', '--implementation', 'cp'];

/** The system's nvcc, if it is of CUDA 13: then ours need not be fetched. */
function systemCompiler() {
  for (const nvcc of [process.env.EEPO_NVCC, 'nvcc', '/usr/local/cuda/bin/nvcc'].filter(Boolean)) {
    const found = spawnSync(nvcc, ['--version'], { encoding: 'utf8' });
    if (/release 13\./.test(found.stdout ?? '')) return nvcc;
  }
  return undefined;
}

function freeBytes(folder) {
  let existing = folder;
  while (!existsSync(existing)) existing = dirname(existing);
  const { bavail, bsize } = statfsSync(existing);
  return bavail * bsize;
}

function requireSpace(folder) {
  const free = freeBytes(folder);
  if (free < neededBytes) {
    throw new Error(`${folder} has ${(free / 1e9).toFixed(1)} GB free; ${neededBytes / 1e9} GB are needed`);
  }
}

/** Whether pip can serve the packages: the smallest of them that only a CUDA 13 index has is asked for. */
function requirePackages(temporary) {
  mkdirSync(temporary, { recursive: true });
  const args = ['-m', 'pip', 'download', ...pipOptions, ...pipTarget, '--no-cache-dir', '--quiet'];
  const asked = compiler[1];
  const { status, stderr, error } = spawnSync(python, [...args, '--dest', temporary, asked], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  rmSync(temporary, { recursive: true, force: true });
  if (error || status !== 0) {
    const why = error?.message ?? stderr.trim().split('\n').at(-1);
    throw new Error(`pip does not serve ${asked}: ${why}`);
  }
}

function install(folder) {
  const packages = systemCompiler() === undefined ? [...libraries, ...compiler] : libraries;
  const stamp = join(folder, 'eepo-packages.txt');
  const wanted = `${packages.join('\n')}\n`;
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return `${packages.length} packages, already there`;
  rmSync(folder, { recursive: true, force: true });
  requireSpace(folder);
  const temporary = join(folder, 'tmp');
  mkdirSync(temporary, { recursive: true });
  const args = ['-m', 'pip', 'install', ...pipOptions, ...pipTarget, '--no-cache-dir', '--no-compile', '-qq'];
  // pip unpacks into its temporary folder and moves from there: on one disk that costs nothing.
  run(python, [...args, '--target', folder, ...packages], { env: { ...process.env, TMPDIR: temporary } });
  rmSync(temporary, { recursive: true, force: true });
  writeFileSync(stamp, wanted);
  return `${packages.length} packages in ${folder}`;
}

/** The wheels have only versioned libraries, and `lib` where a toolkit has `lib64`. */
function completeToolkit(folder) {
  const toolkit = join(folder, 'nvidia', 'cu13');
  const lib = join(toolkit, 'lib');
  const names = readdirSync(lib);
  let links = 0;
  for (const name of names) {
    const plain = /^(lib[^.]+(?:\.alt)?\.so)\.\d+$/.exec(name)?.[1];
    if (plain !== undefined && !existsSync(join(lib, plain))) {
      symlinkSync(name, join(lib, plain));
      links++;
    }
  }
  if (!existsSync(join(toolkit, 'lib64'))) symlinkSync('lib', join(toolkit, 'lib64'));
  const programs = join(toolkit, 'bin');
  if (existsSync(programs)) {
    for (const name of readdirSync(programs, { withFileTypes: true })) {
      if (name.isFile() && !name.name.includes('.')) chmodSync(join(programs, name.name), 0o755);
    }
  }
  return `${links} links added`;
}

/** Loads libtorch with CUDA, the addon and the half; the half must say that there is no GPU, or find one. */
function load(out, libtorch) {
  const probe = join(root, 'dist', 'lib', 'cuda-probe.js');
  const child = spawnSync(process.execPath, [probe], {
    env: { ...process.env, EEPO_BUILD: out, LIBTORCH: libtorch, EEPO_CUDA_LIBRARY: '' },
    encoding: 'utf8',
    timeout: 180_000,
    killSignal: 'SIGKILL',
  });
  const last = JSON.parse((child.stdout ?? '').trim().split('\n').at(-1) || '{}');
  if (last.stage === 'done') return `loaded; ${last.device.name} ran a kernel`;
  const refused = last.stage === 'load the CUDA half' && /driver|no GPU|no .*device/i.test(last.error ?? '');
  if (refused) return 'loaded; no GPU here, as it says';
  const said = last.error ?? `${child.signal ?? child.error?.message ?? `exit code ${child.status}`} ${child.stderr}`;
  throw new Error(`at the step '${last.stage}': ${said}`);
}

const options = parseArguments(process.argv.slice(2));
const { cacheDirectory } = await compiled('libtorch', 'find.js');
const folder = options.folder ? resolve(options.folder) : join(cacheDirectory(), 'cuda', version);
const libtorch = join(folder, 'torch');
const out = join(root, 'build', 'cuda-check');

if (options.check) {
  try {
    if (!existsSync(join(folder, 'eepo-packages.txt'))) {
      requireSpace(folder);
      requirePackages(join(folder, 'tmp'));
    }
    console.log('setup-cuda: possible');
  } catch (error) {
    console.log(`setup-cuda: not possible: ${error.message}`);
    process.exitCode = 1;
  }
} else {
  await step('fetch libtorch with CUDA', () => install(folder), 3);
  await step('complete the toolkit', () => completeToolkit(folder));
  await step('compile and link', () => {
    const archs = options.archs ? ['--cuda-archs', options.archs] : [];
    const build = join(root, 'scripts', 'build-native.cjs');
    run(process.execPath, [
      build,
      '--cuda',
      '--libtorch',
      libtorch,
      '--out',
      out,
      '--jobs',
      String(options.jobs),
      ...archs,
    ]);
    return `${join(out, 'cuda', 'eepo_cuda.so')}`;
  });
  await step('load', () => load(out, libtorch));
  summary();
}
