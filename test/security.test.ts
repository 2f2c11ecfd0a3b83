/** What SECURITY.md promises of the package as a whole. Of the hub: hub-hostile.test.ts; of answers: verify-adversarial.test.ts. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import ts from 'typescript';
import { datasetTask } from '../lib/tasks/dataset.js';
import { loadRewardModule } from '../lib/tasks/reward-module.js';
import { computeRewards } from '../lib/tasks/rewards.js';
import { Tokenizer } from '../lib/tokenizer.js';
import { VerifierPool } from '../lib/verify/index.js';
import { ROOT } from './support/data.js';
import { temporaryFolder, writeFiles } from './support/files.js';
import { tokenizerFolder } from './support/tokenizers.js';

const sources = readdirSync(join(ROOT, 'lib'), { recursive: true, encoding: 'utf8' }).filter((path) =>
  path.endsWith('.ts'),
);

const parsed = sources.map((file) => {
  const text = readFileSync(join(ROOT, 'lib', file), 'utf8');
  return { file, source: ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true) };
});

/** Calls `use` with every node of every file of lib. */
function eachNode(use: (node: ts.Node, file: string) => void): void {
  for (const { file, source } of parsed) {
    const visit = (node: ts.Node): void => {
      use(node, file);
      ts.forEachChild(node, visit);
    };
    visit(source);
  }
}

/** Where the sources do something, as `file: what`; once each. */
function places(what: (node: ts.Node) => string | null): string[] {
  const found = new Set<string>();
  eachNode((node, file) => {
    const text = what(node);
    if (text !== null) found.add(`${file}: ${text}`);
  });
  return [...found].sort();
}

const calledName = (node: ts.Node): string | null => {
  if (!ts.isCallExpression(node) && !ts.isNewExpression(node)) return null;
  const { expression } = node;
  if (ts.isIdentifier(expression)) return expression.text;
  return ts.isPropertyAccessExpression(expression) ? expression.name.text : null;
};

const importedModules = (node: ts.Node): string | null =>
  (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) &&
  node.moduleSpecifier !== undefined &&
  ts.isStringLiteral(node.moduleSpecifier)
    ? node.moduleSpecifier.text
    : null;

describe('code', () => {
  it('is loaded from nowhere but the package, its dependencies and the module that the configuration names', () => {
    const dynamic = places((node) => {
      if (!ts.isCallExpression(node)) return null;
      const isImport = node.expression.kind === ts.SyntaxKind.ImportKeyword;
      const isRequire = ts.isIdentifier(node.expression) && node.expression.text === 'require';
      const isMade = ts.isCallExpression(node.expression) && calledName(node.expression) === 'createRequire';
      const [argument] = node.arguments;
      if (!(isImport || isRequire || isMade) || (argument !== undefined && ts.isStringLiteral(argument))) return null;
      return argument?.getText() ?? '';
    });
    assert.deepEqual(dynamic, [
      // The addon and what preloads libtorch: built here, found by the package's own path.
      'native.ts: addonPath',
      'native.ts: path',
      // ECharts, by a constant.
      'report/render.ts: CHART_LIBRARY',
      // The user's module of rewards.
      'tasks/reward-worker.ts: pathToFileURL(path).href',
      // mathjs, by a constant.
      'verify/algebra/library.ts: BUNDLE',
      // The verifier's own comparison; tests give another.
      "verify/worker.ts: process.argv[2] ?? './judge.js'",
    ]);
  });

  it('is never made of text', () => {
    assert.deepEqual(
      places((node) => {
        const name = calledName(node);
        return name !== null && /^(?:eval|Function|AsyncFunction|compileFunction|runIn\w*Context|Script)$/.test(name)
          ? name
          : null;
      }),
      // A constant program: it gives the comparison a limit of time.
      ['verify/worker.ts: Script', 'verify/worker.ts: runInThisContext'],
    );
    assert.match(readFileSync(join(ROOT, 'lib/verify/worker.ts'), 'utf8'), /new Script\('__eepoJudge\(\)'\)/);
  });

  it('of mathjs: numbers, and nothing that parses or evaluates', () => {
    const users = places((node) => (importedModules(node) === 'mathjs' ? 'mathjs' : null));
    assert.deepEqual(users, ['verify/algebra/library.ts: mathjs']);
    const library = readFileSync(join(ROOT, 'lib/verify/algebra/library.ts'), 'utf8');
    assert.deepEqual([...new Set(library.match(/\bmath\.\w+/g))].sort(), ['math.BigNumber', 'math.Complex', 'math.js']);
  });

  it('of other programs is started by these files alone, never through a shell with a text from outside', () => {
    const users = places((node) => (importedModules(node) === 'node:child_process' ? 'child_process' : null));
    const allowed = [
      'bench/peers',
      'cli/build',
      'cuda',
      'libtorch/cuda',
      'libtorch/diagnose',
      'libtorch/find',
      'libtorch/pip',
      // the type alone: it ends them
      'own-children',
      'study/child',
      'tasks/data/read-parquet',
      'verify/worker-process',
    ];
    assert.deepEqual(
      users,
      allowed.map((file) => `${file}.ts: child_process`),
    );
    assert.deepEqual(
      places((node) =>
        /^exec(?:Sync)?$/.test(calledName(node) ?? '') && ts.isIdentifier((node as ts.CallExpression).expression)
          ? 'exec'
          : null,
      ),
      [],
    );
    assert.deepEqual(
      places((node) => (ts.isPropertyAssignment(node) && node.name.getText() === 'shell' ? node.getText() : null)),
      [],
    );
  });

  it('listens on no port, but for `eepo watch`', () => {
    assert.deepEqual(
      places((node) => (/^(?:createServer|listen|createSocket)$/.test(calledName(node) ?? '') ? 'server' : null)),
      ['watch/server.ts: server'],
    );
    const modules = places((node) =>
      /^node:(?:http|https|http2|net|tls|dgram|inspector)$/.test(importedModules(node) ?? '')
        ? importedModules(node)
        : null,
    );
    assert.deepEqual(modules, [
      // the headers' type, and isIP
      'watch/guard.ts: node:http',
      'watch/guard.ts: node:net',
      'watch/server.ts: node:http',
      // a type
      'watch/server.ts: node:net',
    ]);
  });
});

describe('names from outside', () => {
  const row =
    '{"prompt": "a", "answer": "1", "__proto__": {"polluted": 1}, "constructor": {"prototype": {"polluted": 1}}, "toString": 1}';

  it('change no object but their own', async (t) => {
    const folder = writeFiles(temporaryFolder(t), { 'train.jsonl': `${row}\n` });
    const task = await datasetTask({ files: { train: join(folder, 'train.jsonl') } });
    assert.equal(task.splits.train?.length, 1);
    const tokenizer = await Tokenizer.load(tokenizerFolder('qwen2_5'));
    const message = JSON.parse(
      '{"role": "user", "content": "hi", "__proto__": {"polluted": 1}, "constructor": {"polluted": 1}}',
    );
    await tokenizer.applyChatTemplate([message], { variables: JSON.parse('{"__proto__": {"polluted": 1}}') });
    await tokenizer.applyChatTemplate([message], { parseSpecialTokens: false });
    assert.equal(({} as { polluted?: number }).polluted, undefined);
    assert.deepEqual(Object.keys(Object.prototype), []);
  });
});

describe('words from outside', () => {
  it('do not control the terminal', () => {
    const main = join(ROOT, 'dist/lib/cli/main.js');
    const path = './\x1b]0;title\x07\x9b2J\rnothing';
    const { stderr } = spawnSync(
      process.execPath,
      [main, 'train', join(ROOT, 'configs/eepo.toml'), '--set', `model.path=${path}`, '--dry-run'],
      {
        encoding: 'utf8',
      },
    );
    assert.match(stderr, /^error: .*\\x1b\]0;title\\x07\\x9b2J\\x0dnothing/m);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
    assert.doesNotMatch(stderr, /[\x00-\x08\x0b-\x1f\x7f-\x9f]/);
  });
});

describe('a prompt of a data set', () => {
  it('that is too long for the tokenizer is refused: its library would end the process', async () => {
    const tokenizer = await Tokenizer.load(tokenizerFolder('qwen2_5'));
    await assert.rejects(tokenizer.encodePrompt(' '.repeat(12_000_000)), {
      code: 'EEPO_INVALID_ARGUMENT',
      message: /text 0 has 12000000 characters; at most 4194304 are tokenized/,
    });
    assert.ok((await tokenizer.encode(`${' '.repeat(500_000)}x`)).length > 1);
  });
});

describe('what is started', () => {
  it('knows no token of the hub', async (t) => {
    const secret = 'hf_TheSecretOfTheSecurityTests';
    const before = process.env.HF_TOKEN;
    process.env.HF_TOKEN = secret;
    process.env.EEPO_TEST_KEY = 'stays';
    t.after(() => {
      if (before === undefined) delete process.env.HF_TOKEN;
      else process.env.HF_TOKEN = before;
      delete process.env.EEPO_TEST_KEY;
    });
    const folder = writeFiles(temporaryFolder(t), {
      'spy.mjs':
        'export const judge = () => ({ equal: false, outcome: "different", answer: null, reason: JSON.stringify(process.env) });\n',
      'reward.mjs':
        'export default (batch, { report }) => { report({ secret: process.env.HF_TOKEN ? 1 : 0, key: process.env.EEPO_TEST_KEY ? 1 : 0 }); return batch.map(() => 1); };\n',
    });
    const pool = new VerifierPool({ workers: 1, judgeModule: join(folder, 'spy.mjs') });
    const [verdict] = await pool.verify([{ prediction: '1', gold: '1' }]);
    await pool.close();
    assert.match(verdict?.reason ?? '', /PATH/);
    assert.doesNotMatch(verdict?.reason ?? '', new RegExp(`${secret}|EEPO_TEST_KEY`));
    const rewards = await loadRewardModule(join(folder, 'reward.mjs'), { timeoutMs: 10_000 });
    const problem = { id: 'p:1', prompt: 'a', answer: '1' };
    const judged = await computeRewards(
      rewards,
      [{ problem, response: 'a', tokens: [1], finishReason: 'stop' } as never],
      { name: 'toy' } as never,
    );
    assert.equal(judged.metrics['reward/reward/secret'], 0, 'a module of rewards is told other variables only');
    assert.equal(judged.metrics['reward/reward/key'], 1);
  });
});

describe('the package', () => {
  const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
    dependencies: Record<string, string>;
    devDependencies: Record<string, string>;
  };

  it('runs nothing when it is installed, and packs no secrets', () => {
    const npm = spawnSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: ROOT, encoding: 'utf8' });
    assert.equal(npm.status, 0, npm.stderr);
    const [packed] = JSON.parse(npm.stdout) as [{ files: { path: string }[]; bundled: string[] }];
    const paths = packed.files.map(({ path }) => path);
    for (const hook of ['preinstall', 'install', 'postinstall', 'preprepare', 'prepare', 'postprepare'])
      assert.ok(!(hook in manifest.scripts), hook);
    // npm builds a package with a binding.gyp by itself, unless gypfile is false.
    assert.equal((manifest as unknown as { gypfile: boolean }).gypfile, false);
    assert.deepEqual(packed.bundled, []);
    assert.deepEqual(
      paths.filter((path) =>
        /(?:^|\/)(?:\.npmrc|\.env|id_[a-z]+|.*\.pem|node_modules)(?:$|\/)|^(?:test|runs)\//.test(path),
      ),
      [],
    );
    assert.ok(paths.includes('dist/lib/index.js') || !existsSync(join(ROOT, 'dist')), 'it is the package');
  });

  it('pins every dependency to one version, and the audit finds no surprise', () => {
    for (const [name, version] of Object.entries({ ...manifest.dependencies, ...manifest.devDependencies }))
      assert.match(version, /^\d+\.\d+\.\d+$/, name);
    const report = execFileSync(process.execPath, [join(ROOT, 'scripts/audit-dependencies.mjs'), '--check'], {
      encoding: 'utf8',
    });
    assert.match(report, /no surprise/);
  });
});
