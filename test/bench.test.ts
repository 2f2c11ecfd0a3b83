import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { type KernelResult, measure, summarize, type WorkloadResult } from '../lib/bench/measure.js';
import { findPython, Peers } from '../lib/bench/peers.js';
import { checkTargets } from '../lib/bench/targets.js';
import { type ShapeOptions, type WorkloadSpec, workloadBytes, workloads } from '../lib/bench/workloads.js';
import { UnsupportedError } from '../lib/errors.js';
import { loadNative, packageRoot } from '../lib/native.js';
import { temporaryFolder } from './support/files.js';

const main = join(packageRoot, 'dist', 'lib', 'cli', 'main.js');

/** Entropy in nats and log-probabilities of one row, in double. */
function softmaxOf(row: Float32Array): { entropy: number; logprob: (token: number) => number } {
  const max = row.reduce((x, y) => Math.max(x, y), Number.NEGATIVE_INFINITY);
  const sum = row.reduce((total, z) => total + Math.exp(z - max), 0);
  const logprob = (token: number): number => (row[token] as number) - max - Math.log(sum);
  const entropy = row.reduce((total, _, token) => total - Math.exp(logprob(token)) * logprob(token), 0);
  return { entropy, logprob };
}

async function benchRows(rows: number, vocab: number) {
  const made = loadNative().benchRows(rows, vocab);
  const logits = (await made.logits.data()) as Float32Array;
  const targets = Array.from((await made.targets.data()) as BigInt64Array, Number);
  const statistics = Array.from({ length: rows }, (_, r) => softmaxOf(logits.subarray(r * vocab, (r + 1) * vocab)));
  return { logits, targets, statistics, intended: Array.from(made.entropy) };
}

const only = (options: Partial<ShapeOptions>): ShapeOptions => ({
  device: 'cpu',
  rows: [],
  vocab: [],
  dim: [],
  dtype: [],
  kinds: [],
  tokens: undefined,
  elements: undefined,
  quick: false,
  ...options,
});

describe('the rows that are measured', () => {
  it('have entropies from 0.1 to 6 nats, evenly on a logarithmic scale', async () => {
    const { statistics, intended } = await benchRows(64, 20_000);
    const entropies = statistics.map(({ entropy }) => entropy);
    entropies.forEach((entropy, r) => {
      assert.ok(Math.abs(entropy / (intended[r] as number) - 1) < 1e-4, `row ${r}: ${entropy}, not ${intended[r]}`);
    });
    const sorted = entropies.toSorted((x, y) => x - y);
    assert.ok((sorted[0] as number) < 0.11 && (sorted[0] as number) > 0.1);
    assert.ok((sorted.at(-1) as number) > 5.7 && (sorted.at(-1) as number) < 6);
    for (let i = 1; i < 64; i++) {
      const step = (sorted[i] as number) / (sorted[i - 1] as number);
      assert.ok(Math.abs(step - 60 ** (1 / 64)) < 1e-3, `a step of ${step}`);
    }
  });

  it('have their probable tokens in different places', async () => {
    const { logits } = await benchRows(64, 1000);
    const best = Array.from({ length: 64 }, (_, r) => {
      const row = logits.subarray(r * 1000, (r + 1) * 1000);
      return row.indexOf(Math.max(...row));
    });
    assert.equal(new Set(best).size, 64);
  });

  it('have targets drawn from them', async () => {
    const { targets, statistics } = await benchRows(1024, 2000);
    const mean = (values: number[]): number => values.reduce((x, y) => x + y, 0) / values.length;
    const surprise = mean(statistics.map(({ logprob }, r) => -logprob(targets[r] as number)));
    const entropy = mean(statistics.map((row) => row.entropy));
    assert.ok(Math.abs(surprise / entropy - 1) < 0.05, `${surprise} against ${entropy} nats`);
  });

  it('are the same in bench/peers/data.py', async (t) => {
    const { python } = findPython(undefined);
    if (python === undefined) return t.skip('no Python with torch');
    const script = [
      'import json, torch',
      'from peers.data import ZipfRows',
      'rows = ZipfRows(3001)',
      'logits = torch.empty(70, 3001); rows.fill(logits)',
      'print(json.dumps([rows.targets(70).tolist(), logits[69].tolist()]))',
    ];
    const { stdout, stderr } = spawnSync(python, ['-c', script.join('\n')], {
      cwd: join(packageRoot, 'bench'),
      encoding: 'utf8',
      env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1' },
    });
    assert.notEqual(stdout, '', stderr);
    const [targets, row] = JSON.parse(stdout) as [number[], number[]];
    const ours = await benchRows(70, 3001);
    assert.deepEqual(targets, ours.targets);
    row.forEach((z, j) => {
      assert.ok(Math.abs(z - (ours.logits[69 * 3001 + j] as number)) < 1e-5, `token ${j}`);
    });
  });
});

describe('measure', () => {
  const options = { device: 'cpu', rounds: 2, budget: 1, only: [], peers: undefined } as const;
  const kinds: { spec: WorkloadSpec; kernels: number; limits: Record<string, number> }[] = [
    {
      spec: { kind: 'logits', rows: 20, vocab: 1003, dtype: 'float32' },
      kernels: 10,
      limits: { logprob: 1e-6, entropy: 1e-6, oneMinusP: 1e-5, gradient: 1e-6 },
    },
    {
      spec: { kind: 'logits', rows: 20, vocab: 1003, dtype: 'bfloat16' },
      kernels: 10,
      limits: { logprob: 1e-6, entropy: 1e-6, oneMinusP: 1e-5, gradient: 5e-3 },
    },
    {
      spec: { kind: 'head', rows: 20, dim: 48, vocab: 1003, dtype: 'float32' },
      kernels: 6,
      limits: { logprob: 2e-5, entropy: 1e-5, oneMinusP: 1e-4, dHidden: 2e-5, dHead: 2e-5 },
    },
    { spec: { kind: 'loss', tokens: 4096 }, kernels: 1, limits: { loss: 1e-6, a: 1e-6 } },
    { spec: { kind: 'weights', elements: 40_000 }, kernels: 6, limits: { into: 0.008, param: 1e-6 } },
  ];

  for (const { spec, kernels, limits } of kinds) {
    it(`times every kernel of ${'dtype' in spec ? `${spec.kind} in ${spec.dtype}` : spec.kind}`, async () => {
      const result = await measure(spec, options);
      assert.equal(result.kernels.length, kernels);
      assert.deepEqual(result.notes, []);
      const compared = new Set<string>();
      for (const kernel of result.kernels) {
        assert.ok(kernel.ms.min > 0 && kernel.ms.median >= kernel.ms.min && kernel.ms.rounds === 2, kernel.name);
        assert.ok(kernel.floor.ratio > 0 && Number.isFinite(kernel.floor.ratio), kernel.name);
        assert.ok(kernel.extraBytes >= 0 && kernel.extraBytes < 2 ** 26, `${kernel.name}: ${kernel.extraBytes} bytes`);
        assert.ok(Object.keys(kernel.errors).length > 0, kernel.name);
        for (const [what, error] of Object.entries(kernel.errors)) {
          compared.add(what);
          assert.ok(error <= (limits[what] as number), `${kernel.name}: ${what} is off by ${error}`);
        }
      }
      assert.deepEqual([...compared].sort(), Object.keys(limits).sort());
    });
  }

  it('measures the memory that a kernel takes', async () => {
    // The head's logits of one chunk: 20 rows of 100,003 floats.
    const spec: WorkloadSpec = { kind: 'head', rows: 20, dim: 16, vocab: 100_003, dtype: 'float32' };
    const { kernels } = await measure(spec, { ...options, rounds: 1, only: ['tokenStats'] });
    assert.equal(kernels.length, 1);
    const bytes = kernels[0]?.extraBytes as number;
    assert.ok(bytes > 4e6 && bytes < 24e6, `${bytes} bytes`);
  });

  it('leaves out what was not asked for, but not its floors', async () => {
    const spec: WorkloadSpec = { kind: 'logits', rows: 4, vocab: 300, dtype: 'float32' };
    const { kernels, floors } = await measure(spec, { ...options, only: ['topK'] });
    assert.deepEqual(
      [kernels, floors].map((all) => all.map(({ name }) => name)),
      [['sample, topK 50'], ['read']],
    );
  });

  it('summarizes times', () => {
    assert.deepEqual(summarize([3, 1, 2]), { min: 1, median: 2, rounds: 3 });
    assert.deepEqual(summarize([4, 1, 2, 3]), { min: 1, median: 2.5, rounds: 4 });
  });
});

/** A program that passes for a Python with torch; `answer` is the body of (question) => answer. */
function fakePython(t: TestContext, answer: string): string {
  const folder = temporaryFolder(t);
  const program = join(folder, 'peers.mjs');
  writeFileSync(
    program,
    `import { createInterface } from 'node:readline';
     const say = (answer) => console.log(JSON.stringify(answer));
     const answer = (question) => { ${answer} };
     say({ torch: '0.0.0', python: '0.0', threads: 1, missing: { liger: 'not installed' } });
     createInterface({ input: process.stdin }).on('line', (line) => say(answer(JSON.parse(line))));`,
  );
  const python = join(folder, 'python');
  writeFileSync(python, `#!/bin/sh\nif [ "$1" = -c ]; then exit 0; fi\nexec "${process.execPath}" "${program}"\n`);
  chmodSync(python, 0o755);
  return python;
}

describe('peers', () => {
  const peerOptions = { device: 'cpu', threads: 1, compile: false } as const;

  it('take turns with ours; one that fails is noted and left out', async (t) => {
    const python = fakePython(
      t,
      `
      if (question.open) return { offer: { fast: ['tokenStats'], broken: ['tokenStats'] } };
      if (question.run) return question.peer === 'fast' ? { ms: 5 } : { error: 'RuntimeError: no' };
      if (question.memory) return { bytes: 42 };
      if (question.errors) return { errors: { logprob: 0.5 } };
      return {};`,
    );
    const peers = await Peers.start(python, peerOptions);
    try {
      assert.deepEqual(peers.machine.missing, { liger: 'not installed' });
      const spec: WorkloadSpec = { kind: 'logits', rows: 4, vocab: 300, dtype: 'float32' };
      const options = { device: 'cpu', rounds: 3, budget: 1, only: ['tokenStats'], peers } as const;
      const { kernels, notes } = await measure(spec, options);
      const [kernel] = kernels as [KernelResult];
      assert.deepEqual(Object.keys(kernel.peers), ['fast']);
      const fast = kernel.peers.fast as NonNullable<(typeof kernel.peers)[string]>;
      assert.deepEqual(fast.ms, { min: 5, median: 5, rounds: 3 });
      assert.equal(fast.ratio, 5 / kernel.ms.median);
      assert.equal(fast.extraBytes, 42);
      assert.deepEqual(fast.errors, { logprob: 0.5 });
      assert.deepEqual(notes, ['broken tokenStats: not here: RuntimeError: no']);
    } finally {
      await peers.close();
    }
  });

  it('that end are an error with their last words, not a hang', async (t) => {
    const python = fakePython(t, `console.error('out of luck'); process.exit(3);`);
    const peers = await Peers.start(python, peerOptions);
    await assert.rejects(peers.open({ kind: 'loss', tokens: 8 }), (error: Error) => {
      assert.ok(error instanceof UnsupportedError);
      assert.match(error.message, /exit 3\nout of luck/);
      return true;
    });
    await assert.rejects(peers.clear(), UnsupportedError);
    await peers.close();
  });

  it('need a Python with torch', () => {
    const { python, reasons } = findPython('/nowhere/python');
    assert.equal(python, undefined);
    assert.match(reasons.join(), /\/nowhere\/python: .*ENOENT/);
  });
});

describe('the shapes', () => {
  it('are the real ones unless others are asked for', () => {
    const cpu = workloads(only({}));
    assert.deepEqual(
      cpu.map((spec) => spec.kind),
      ['logits', 'logits', 'logits', 'logits', 'head', 'loss', 'weights'],
    );
    const cuda = workloads(only({ device: 'cuda', kinds: ['head'] }));
    assert.equal(cuda.length, 4 * 2 * 3);
    assert.deepEqual(cuda.at(-1), { kind: 'head', rows: 32_768, dim: 4096, vocab: 128_256, dtype: 'bfloat16' });
    const asked = workloads(only({ rows: [8], vocab: [512], dtype: ['float16'], kinds: ['logits'] }));
    assert.deepEqual(asked, [{ kind: 'logits', rows: 8, vocab: 512, dtype: 'float16' }]);
  });

  it('know what they need', () => {
    assert.equal(workloadBytes({ kind: 'logits', rows: 10, vocab: 100, dtype: 'bfloat16' }), 4000);
  });
});

describe('the targets', () => {
  const times = { min: 10, median: 11, rounds: 3 };
  const peer = (ratio: number) => ({ ms: times, ratio, extraBytes: 0, errors: {} });
  const result = (ratio: number, peers: KernelResult['peers'], errors: KernelResult['errors']): WorkloadResult => ({
    spec: { kind: 'logits', rows: 256, vocab: 151_936, dtype: 'float32' },
    title: 'logits',
    floors: [],
    kernels: [
      {
        name: 'tokenStats',
        ms: times,
        amount: 1,
        unit: 'B',
        rate: 1,
        floor: { name: 'read', ms: 10 / ratio, ratio },
        extraBytes: 0,
        errors,
        peers,
      },
    ],
    notes: [],
  });
  const passed = (results: WorkloadResult[]): boolean[] => checkTargets('cpu', results).map((check) => check.passed);

  it('of a CPU', () => {
    const good = result(1.2, { eager: peer(31), compile: peer(3.5) }, { logprob: 1e-7, entropy: 1e-6 });
    assert.deepEqual(passed([good]), [true, true, true, true, true]);
    const bad = result(1.3, { eager: peer(29), compile: peer(2.9) }, { logprob: 1e-7, entropy: 2e-6 });
    assert.deepEqual(passed([bad]), [false, false, false, true, false]);
  });

  it('say nothing where the shape is another or the peer did not run', () => {
    const other = { ...result(9, {}, {}), spec: { kind: 'logits', rows: 8, vocab: 64, dtype: 'float32' } as const };
    assert.deepEqual(checkTargets('cpu', [other]), []);
    assert.equal(checkTargets('cpu', [result(1, {}, {})]).length, 2);
  });
});

describe('eepo bench kernels', () => {
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [main, 'bench', 'kernels', ...args], { encoding: 'utf8' });

  it('prints tables and writes JSON and Markdown', (t) => {
    const folder = temporaryFolder(t);
    const [json, markdown] = [join(folder, 'a', 'run.json'), join(folder, 'run.md')];
    const shape = ['--rows', '8', '--vocab', '512,300', '--dim', '16', '--tokens', '1024', '--elements', '5000'];
    const { status, stdout, stderr } = run(
      ...['--no-peers', '--quick', '--rounds', '1', ...shape, '--json', json, '--markdown', markdown],
    );
    assert.equal(status, 0, stderr);
    assert.match(stdout, /logits \[8, 512\] float32/);
    assert.match(stdout, /floor: read\+write/);
    assert.match(stdout, /pass {2}logits \[8, 300\] bfloat16: tokenStats: error of log-prob and entropy/);
    const report = JSON.parse(readFileSync(json, 'utf8'));
    assert.deepEqual(
      report.workloads.map(({ spec }: WorkloadResult) => spec.kind),
      ['logits', 'logits', 'logits', 'logits', 'head', 'head', 'loss', 'weights'],
    );
    const { device, kind, cores, isa, libtorch, date } = report.machine;
    assert.ok(device && cores > 0 && isa && libtorch && !Number.isNaN(Date.parse(date)));
    assert.equal(kind, 'cpu');
    assert.match(readFileSync(markdown, 'utf8'), /\| tokenGrad, b \|/);
  });

  it('says which option is wrong', () => {
    for (const [args, message] of [
      [['--dtype', 'float8'], /--dtype float8: expected one of float32, bfloat16, float16/],
      [['--rows', '4,x'], /--rows x: expected a whole number, at least 1/],
      [
        ['--only', 'sample', '--only', 'nosuch', '--kind', 'logits'],
        /--only nosuch: no kernel has this in its name; there are "tokenStats", .*"sample, topP 0.95" \[/,
      ],
      [['--only', 'sample', '--kind', 'loss'], /--only sample: .* there are "complementaryLoss" \[/],
      [['--device', 'tpu'], /--device tpu: expected auto, cpu or cuda/],
      [['--peers', '/nowhere/python', '--rows', '4'], /no Python with torch: \/nowhere\/python/],
    ] as const) {
      const { status, stderr } = run(...args);
      assert.equal(status, 1);
      assert.match(stderr, message);
    }
  });
});
