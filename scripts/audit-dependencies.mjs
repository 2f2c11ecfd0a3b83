// What the package depends on when it runs, as package-lock.json has it: docs/dependencies.md and a check. Only Node's
// own modules, no network except for `npm audit`.
//
//   node scripts/audit-dependencies.mjs            write docs/dependencies.md
//   node scripts/audit-dependencies.mjs --check    fail on a surprise: a version that is not pinned, an install script,
//                                                  a licence that is not in the list, no integrity hash, a native binary
//                                                  that is not in the list, a page that is out of date
//   node scripts/audit-dependencies.mjs --online   also ask `npm audit`, and say where it cannot be asked
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const page = join(root, 'docs', 'dependencies.md');
const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'));

/** Licences that may be passed on with an MIT package. */
const licences = new Set([
  'MIT',
  'ISC',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'BlueOak-1.0.0',
  '0BSD',
  // Of single files, which we do not change.
  'MPL-2.0',
  // Of fonts.
  'OFL-1.1',
  '(BSD-2-Clause OR MIT OR Apache-2.0)',
]);

/** Packages that may hold compiled code, and what it is. */
const compiled = new Map([
  ['tokenizers', 'Node addons for thirteen platforms, in the package itself'],
  ['@huggingface/hub', 'WebAssembly in the source: SHA-256 and chunks of its uploads, which are not used'],
  ['undici', 'WebAssembly in the source: the HTTP parser that Node has too'],
  ['@resvg/resvg-wasm', 'WebAssembly in the package: draws the PNG of a figure'],
  ['hysnappy', 'WebAssembly in the source: Snappy of Parquet files'],
  ['@huggingface/xetchunk-wasm', 'WebAssembly in the source: not used, comes with @huggingface/hub'],
  ['@huggingface/blake3-jit', 'WebAssembly in the source: not used, comes with @huggingface/hub'],
  ['gearhash-jit', 'WebAssembly in the source: not used, comes with @huggingface/hub'],
]);

const lock = readJson(join(root, 'package-lock.json'));
const manifest = readJson(join(root, 'package.json'));
const surprises = [];
const surprise = (name, what) => surprises.push(`${name}: ${what}`);

/** The folder in node_modules that `name` means for the package in `from`. */
function resolved(from, name) {
  for (let folder = from; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf('/node_modules/')))) {
    const path = `${folder === '' ? '' : `${folder}/`}node_modules/${name}`;
    if (lock.packages[path] !== undefined) return path;
    if (folder === '') return null;
  }
}

/** Every package that is installed for `path`, itself not counted. */
function transitive(path, seen = new Set()) {
  const { dependencies = {}, optionalDependencies = {} } = lock.packages[path];
  for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
    const found = resolved(path, name);
    if (found === null) {
      if (!(name in optionalDependencies)) surprise(name, `is not in package-lock.json, but ${path} needs it`);
    } else if (!seen.has(found)) {
      seen.add(found);
      transitive(found, seen);
    }
  }
  return seen;
}

const nameOf = (path) => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);

/** Files of an installed package with compiled code: addons, libraries, WebAssembly, also where JavaScript makes it. */
function binariesOf(path) {
  const folder = join(root, path);
  if (!existsSync(folder)) return [];
  const makesWasm = (file) => readFileSync(join(folder, file), 'utf8').includes('WebAssembly.');
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => !file.split('/').includes('node_modules'))
    .filter((file) => /\.(?:node|so|dll|dylib|wasm|exe|a)$/.test(file) || (/\.[cm]?js$/.test(file) && makesWasm(file)))
    .sort();
}

function checkPackage(path) {
  const entry = lock.packages[path];
  const name = nameOf(path);
  if (entry.hasInstallScript) surprise(name, 'runs a script when it is installed');
  if (!licences.has(entry.license)) surprise(name, `licence ${entry.license}, which is not in the list`);
  if (!/^sha512-[A-Za-z0-9+/]{86}==$/.test(entry.integrity ?? '')) surprise(name, 'no SHA-512 in package-lock.json');
  if (entry.resolved !== undefined && !entry.resolved.startsWith('https://'))
    surprise(name, `comes from ${entry.resolved}`);
  const installed = join(root, path, 'package.json');
  if (existsSync(installed)) {
    const { version, scripts = {} } = readJson(installed);
    if (version !== entry.version) surprise(name, `${version} is installed, package-lock.json says ${entry.version}`);
    for (const hook of ['preinstall', 'install', 'postinstall'])
      if (scripts[hook] !== undefined) surprise(name, `has a script "${hook}"`);
    if (existsSync(join(root, path, 'binding.gyp'))) surprise(name, 'has a binding.gyp, which npm would build');
  }
  if (binariesOf(path).length > 0 && !compiled.has(name))
    surprise(name, `compiled files: ${binariesOf(path).join(', ')}`);
}

/** Where a package's compiled code is: in itself, or in what it brings. */
function compiledIn(name, below) {
  if (compiled.has(name)) return 'yes';
  const others = [...below].map(nameOf).filter((other) => compiled.has(other));
  return others.length === 0 ? '-' : others.map((other) => `in \`${other}\``).join(', ');
}

const direct = Object.keys(manifest.dependencies).sort();
const production = new Set();
const rows = direct.map((name) => {
  const path = `node_modules/${name}`;
  const entry = lock.packages[path];
  if (!/^\d+\.\d+\.\d+$/.test(manifest.dependencies[name]))
    surprise(name, `${manifest.dependencies[name]} is not one version`);
  if (entry === undefined) {
    surprise(name, 'is not in package-lock.json');
    return [];
  }
  if (entry.version !== manifest.dependencies[name]) surprise(name, `package-lock.json has ${entry.version}`);
  const below = transitive(path);
  production.add(path);
  for (const other of below) production.add(other);
  return [
    `\`${name}\``,
    entry.version,
    entry.license,
    String(below.size),
    compiledIn(name, below),
    entry.hasInstallScript ? 'yes' : '-',
  ];
});
for (const path of production) checkPackage(path);

/** What the tokenizers' binary for this kind of machine is, for those who compare. */
function tokenizersHash() {
  const path = join(root, 'node_modules/tokenizers/tokenizers.linux-x64-gnu.node');
  return existsSync(path) ? createHash('sha256').update(readFileSync(path)).digest('hex') : null;
}

function table(header, lines) {
  return [header, header.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

function pageText() {
  const count = new Map();
  for (const path of production) {
    const { license } = lock.packages[path];
    count.set(license, (count.get(license) ?? 0) + 1);
  }
  const lines = [...compiled].filter(([name]) => [...production].some((path) => nameOf(path) === name));
  return `# Dependencies

Made by \`node scripts/audit-dependencies.mjs\` from package.json and package-lock.json; \`--check\` fails where this page is out of date or something is not as it should be (a test runs it), \`--online\` asks \`npm audit\` too.

${direct.length} packages are asked for, each in one version; with what they bring there are ${production.size}. None runs a script when it is installed, each has a SHA-512 in package-lock.json, which \`npm ci\` checks. Why each is there: [decisions.md](decisions.md#dependencies).

${table(['package', 'version', 'licence', 'brings', 'compiled code', 'install script'], rows)}

Licences of all ${production.size}: ${[...count]
    .sort(([, a], [, b]) => b - a)
    .map(([name, n]) => `${name} ${n}`)
    .join(', ')}.

## Compiled code
${table(
  ['package', 'what'],
  lines.map(([name, what]) => [`\`${name}\``, what]),
)}

The binaries of \`tokenizers\` lie in the package's own archive: no download, no build, no optional packages by platform. The archive's SHA-512 in package-lock.json covers them. For linux-x64-gnu the file has the SHA-256 \`${tokenizersHash() ?? 'unknown (not installed)'}\`. Who built them is for npm and Hugging Face to say: we check that they are the same bytes on every machine, not what is in them.

libtorch is no npm package: \`eepo libtorch install\` downloads it over HTTPS and compares it with the SHA-256 in lib/libtorch/checksums.ts, or pip does.
`;
}

const text = pageText();
if (process.argv.includes('--check')) {
  if (!existsSync(page) || readFileSync(page, 'utf8') !== text)
    surprise('docs/dependencies.md', 'is out of date; run node scripts/audit-dependencies.mjs');
} else {
  writeFileSync(page, text);
}
if (process.argv.includes('--online')) {
  const { stdout } = spawnSync('npm', ['audit', '--omit=dev', '--json'], { cwd: root, encoding: 'utf8' });
  let answer = {};
  try {
    answer = JSON.parse(stdout);
  } catch {
    // no answer is said below
  }
  const total = answer.metadata?.vulnerabilities?.total;
  if (total === undefined) console.log('npm audit: the registry could not be asked; advisories were not looked up');
  else if (total > 0) surprise('npm audit', `${total} known vulnerabilities; see npm audit --omit=dev`);
  else console.log('npm audit: no known vulnerability');
}
for (const what of surprises) console.error(`surprise: ${what}`);
console.log(`${production.size} packages, ${surprises.length === 0 ? 'no surprise' : `${surprises.length} surprises`}`);
process.exitCode = surprises.length === 0 ? 0 : 1;
