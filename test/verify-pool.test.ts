import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { AbortedError, DisposedError, InvalidArgumentError, VerifierError } from '../lib/errors.js';
import {
  VerifierPool,
  type VerifierPoolOptions,
  type VerifierProblem,
  verifierPool,
  verifyMath,
} from '../lib/verify/index.js';
import type { VerifyItem } from '../lib/verify/judge.js';

const hostile = fileURLToPath(new URL('./support/hostile-judge.js', import.meta.url));
const item = (prediction: string): VerifyItem => ({ prediction, gold: '1' });
const outcomes = (verdicts: { outcome: string }[]): string => verdicts.map(({ outcome }) => outcome).join(' ');
/** Not ended; one that ended and was not waited for (a zombie) has no memory. */
const alive = (pid: number): boolean => {
  try {
    return /^VmRSS/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
};

/** A pool whose comparison does what its prediction says. */
function hostilePool(options: VerifierPoolOptions = {}): { pool: VerifierPool; problems: VerifierProblem[] } {
  const problems: VerifierProblem[] = [];
  const pool = new VerifierPool({
    workers: 1,
    timeoutMs: 500,
    maxMemoryMb: 64,
    judgeModule: hostile,
    onProblem: (problem) => problems.push(problem),
    ...options,
  });
  return { pool, problems };
}

describe('the verifier pool', () => {
  test('what hangs is killed, and the rest of its batch goes on', async () => {
    const { pool, problems } = hostilePool();
    for (const kind of ['hang', 'hang in a regular expression', 'hang in a power']) {
      const verdicts = await pool.verify(['1', kind, '1', '2'].map(item));
      assert.equal(outcomes(verdicts), 'equal timeout equal different', kind);
      assert.deepEqual(
        verdicts.map(({ equal }) => equal),
        [true, false, true, false],
      );
      assert.match(verdicts[1]?.reason ?? '', /longer than 500 ms/);
    }
    const { msPerComparison, ...counts } = pool.stats;
    assert.deepEqual(counts, {
      compared: 12,
      equal: 6,
      different: 3,
      noAnswer: 0,
      undecided: 0,
      timeouts: 3,
      memory: 0,
      crashes: 0,
      restarts: 3,
    });
    assert.ok(msPerComparison >= 0 && msPerComparison < 500);
    // Only the first of a kind is reported.
    assert.deepEqual(
      problems.map(({ outcome, item: { prediction } }) => [outcome, prediction]),
      [['timeout', 'hang']],
    );
    await pool.close();
  });

  test('what takes too much memory ends a worker and nothing else', async () => {
    const { pool, problems } = hostilePool({ timeoutMs: 60_000 });
    for (const kind of ['allocate', 'allocate at once', 'allocate outside the heap']) {
      const verdicts = await pool.verify(['1', kind, '1'].map(item));
      assert.equal(outcomes(verdicts), 'equal memory equal', `${kind}: ${verdicts[1]?.reason}`);
    }
    assert.equal(pool.stats.memory, 3);
    assert.equal(pool.stats.timeouts, 0);
    assert.equal(problems.length, 1);
    await pool.close();
  });

  test('what is thrown is the verdict, with its message', async () => {
    const { pool, problems } = hostilePool();
    const verdicts = await pool.verify(['throw', 'throw a string', 'overflow the stack', '1'].map(item));
    assert.equal(outcomes(verdicts), 'crashed crashed crashed equal');
    assert.match(verdicts[0]?.reason ?? '', /TypeError: thrown on purpose[\s\S]*hostile-judge/);
    assert.match(verdicts[1]?.reason ?? '', /a string, on purpose/);
    assert.match(verdicts[2]?.reason ?? '', /Maximum call stack/);
    assert.equal(pool.stats.restarts, 0);
    assert.equal(problems[0]?.outcome, 'crashed');
    assert.match(problems[0]?.message ?? '', /thrown on purpose/);
    await pool.close();
  });

  test('a process that dies gets its item a second try, then it is crashed', async () => {
    const { pool } = hostilePool();
    assert.equal(outcomes(await pool.verify(['1', 'die', 'exit', '1'].map(item))), 'equal crashed crashed equal');
    assert.equal(pool.stats.restarts, 4);
    assert.equal(pool.stats.crashes, 2);
    await pool.close();
  });

  test('undecided is counted and wrong', async () => {
    const { pool, problems } = hostilePool();
    const [verdict] = await pool.verify([item('undecided')]);
    assert.deepEqual(verdict, { equal: false, outcome: 'undecided', answer: 'undecided', reason: 'too hard' });
    assert.equal(pool.stats.undecided, 1);
    assert.equal(problems[0]?.message, 'too hard');
    await pool.close();
  });

  test('several callers at once get their own verdicts in order', async () => {
    const { pool } = hostilePool({ workers: 2 });
    const calls = Array.from({ length: 5 }, (_, c) =>
      pool.verify(Array.from({ length: 100 }, (_, i) => ({ prediction: String((i + c) % 3), gold: '1' }))),
    );
    (await Promise.all(calls)).forEach((verdicts, c) => {
      assert.deepEqual(
        verdicts.map(({ equal }) => equal),
        Array.from({ length: 100 }, (_, i) => (i + c) % 3 === 1),
      );
    });
    assert.equal(pool.stats.compared, 500);
    assert.deepEqual(await pool.verify([]), []);
    await pool.close();
  });

  test('a caller that gives up is rejected at once; the others go on', async () => {
    const { pool } = hostilePool({ timeoutMs: 1_000 });
    const abort = new AbortController();
    const given = pool.verify([item('hang')], { signal: abort.signal });
    const other = pool.verify([item('1')]);
    abort.abort(new AbortedError('enough'));
    await assert.rejects(given, (error: unknown) => error instanceof AbortedError && error.message === 'enough');
    assert.equal(outcomes(await other), 'equal');
    await assert.rejects(pool.verify([item('1')], { signal: AbortSignal.abort() }), AbortedError);
    await pool.close();
  });

  test('closing rejects what is pending and what comes', async () => {
    const { pool } = hostilePool({ timeoutMs: 60_000 });
    const pending = pool.verify([item('hang')]);
    setTimeout(() => pool.close(), 50);
    await assert.rejects(pending, DisposedError);
    await assert.rejects(pool.verify([item('1')]), DisposedError);
    await pool.close();
  });

  test('a worker that cannot be started is an error that says why', async () => {
    const { pool } = hostilePool({ judgeModule: '/nowhere/judge.js' });
    await assert.rejects(
      pool.verify([item('1')]),
      (error: unknown) => error instanceof VerifierError && /\/nowhere\/judge\.js/.test(error.message),
    );
    await pool.close();
  });

  test('bad arguments are named', async () => {
    assert.throws(() => new VerifierPool({ workers: 0 }), /workers must be a whole number, at least 1/);
    assert.throws(() => new VerifierPool({ timeoutMs: Number.NaN }), /timeoutMs/);
    assert.throws(() => new VerifierPool({ maxMemoryMb: 1 }), /maxMemoryMb/);
    const { pool } = hostilePool();
    const bad = (value: unknown) => pool.verify([item('1'), value as VerifyItem]);
    await assert.rejects(bad({ gold: '1' }), /items\[1\] must have a prediction or a response/);
    await assert.rejects(bad({ prediction: 5, gold: '1' }), InvalidArgumentError);
    await assert.rejects(bad({ prediction: '5', gold: [] }), /items\[1\]\.gold/);
    await assert.rejects(bad({ prediction: '5', gold: 1 }), InvalidArgumentError);
    assert.equal(pool.stats.compared, 0);
    await pool.close();
  });

  test('too long an answer is undecided without a worker', async () => {
    const { pool } = hostilePool({ maxLength: 100 });
    const [verdict] = await pool.verify([item('9'.repeat(101))]);
    assert.equal(verdict?.outcome, 'undecided');
    assert.match(verdict?.reason ?? '', /101 characters.*maxLength 100/);
    await pool.close();
  });

  test('a main thread that was busy for longer than the limit blames nobody', async () => {
    const { pool } = hostilePool({ timeoutMs: 300 });
    await pool.verify([item('1')]);
    const verdicts = pool.verify(Array.from({ length: 200 }, () => item('1')));
    await new Promise((resolve) => setTimeout(resolve, 1));
    const busyUntil = performance.now() + 1_500;
    while (performance.now() < busyUntil);
    assert.ok((await verdicts).every(({ equal }) => equal));
    assert.equal(pool.stats.timeouts, 0);
    await pool.close();
  });
});

/** Runs code in a process of its own; what it printed and how long it took. */
async function run(code: string): Promise<{ code: number | null; out: string; milliseconds: number }> {
  const start = performance.now();
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  const [status] = (await once(child, 'close')) as [number | null];
  return { code: status, out, milliseconds: performance.now() - start };
}

const library = JSON.stringify(new URL('../lib/verify/index.js', import.meta.url).href);

// A sanitizer's runtime that is preloaded into this process may hang in a program of the system.
const plainEnv = '{ env: { ...process.env, LD_PRELOAD: "" } }';

describe('the process around a pool', () => {
  test('ends although the pool was never closed, and so do the workers', async () => {
    const { code, out } = await run(`
      import { execFileSync } from 'node:child_process';
      const { verifyMath } = await import(${library});
      const [verdict] = await verifyMath([{ prediction: '1/2', gold: '0.5' }]);
      console.log(verdict.outcome, execFileSync('pgrep', ['-P', String(process.pid)], ${plainEnv}).toString().trim());`);
    assert.equal(code, 0);
    const [outcome, pid] = out.trim().split(' ');
    assert.equal(outcome, 'equal');
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.ok(!alive(Number(pid)), 'the worker has ended with its parent');
  });

  test('a worker whose parent was killed ends, even in the middle of a loop', async () => {
    const { out } = await run(`
      import { execFileSync } from 'node:child_process';
      const { VerifierPool } = await import(${library});
      const pool = new VerifierPool({ workers: 1, timeoutMs: 300, judgeModule: ${JSON.stringify(hostile)} });
      await pool.verify([{ prediction: '1', gold: '1' }]);
      process.stdout.write(execFileSync('pgrep', ['-P', String(process.pid)], ${plainEnv}).toString().trim(), () => {
        pool.verify([{ prediction: 'hang', gold: '1' }]);
        setTimeout(() => process.kill(process.pid, 'SIGKILL'), 50);
      });`);
    const pid = Number(out);
    assert.ok(pid > 1);
    assert.ok(alive(pid), 'it still hangs');
    await new Promise((resolve) => setTimeout(resolve, 6_000));
    assert.ok(!alive(pid));
  });

  test('judging loads no native code', async () => {
    const { out } = await run(`
      import { readFileSync } from 'node:fs';
      const { judge } = await import(${library});
      console.log(judge({ prediction: 'x+1', gold: '1+x' }).outcome);
      console.log(/torch|eepo\\.node|cuda/.test(readFileSync('/proc/self/maps', 'utf8')));`);
    assert.equal(out, 'equal\nfalse\n');
  });

  test('a warning tells of the first problem where nobody listens', async () => {
    const { out } = await run(`
      const { VerifierPool } = await import(${library});
      process.on('warning', ({ name, message }) => console.log(name, message));
      const pool = new VerifierPool({ judgeModule: ${JSON.stringify(hostile)} });
      await pool.verify([{ prediction: 'throw', gold: '1' }, { prediction: 'throw a string', gold: '1' }]);`);
    assert.equal(out.match(/EepoVerifierWarning/g)?.length, 1);
    assert.match(out, /'crashed' and counts as wrong: TypeError: thrown on purpose/);
  });
});

test('verifyMath judges responses against one or several gold answers', async () => {
  const verdicts = await verifyMath([
    { response: 'so \\boxed{\\frac{1}{2}}', gold: '0.5' },
    { response: 'so \\boxed{3}', gold: ['1', '3'] },
    { response: 'so \\boxed{3}', gold: 'They are 4 in all.\n#### 4' },
    { response: 'I do not know', gold: '4' },
    { response: 'it is 4', gold: '4', options: { extract: { strict: 'boxed' } } },
    { prediction: '\\boxed{}', gold: '4' },
  ]);
  assert.equal(outcomes(verdicts), 'equal equal different no-answer no-answer different');
  assert.equal(verdicts[0]?.answer, '\\frac{1}{2}');
  assert.equal(verdicts[3]?.answer, null);
  assert.equal(verifierPool(), verifierPool());
});

test('hostile responses and answers do no harm', async () => {
  const pool = new VerifierPool({ workers: 1, timeoutMs: 10_000, onProblem: () => {} });
  const million = 10 ** 7;
  const texts = [
    '9'.repeat(million),
    '{'.repeat(million),
    '\\boxed{'.repeat(million / 7),
    'answer is '.repeat(million / 10),
    '$'.repeat(million),
    '1,'.repeat(million / 2),
    '('.repeat(million),
    '9^{9^{9^{9}}}',
    '9^9^9^9',
    `${'('.repeat(1000)}1${')'.repeat(1000)}`,
    `${'{'.repeat(100_000)}1${'}'.repeat(100_000)}`,
    `${'\\sqrt{'.repeat(300)}2${'}'.repeat(300)}`,
    `${'\\frac{1}{'.repeat(100)}2${'}'.repeat(100)}`,
    '(x+y+z+w)^{1000}',
    '(1+x)^{99999}',
    '100000!',
    '99999999999999999999!',
    '2^{2^{100}}',
    '\\sum_{k=1}^{10^{12}} k',
    '1'.repeat(1_000) + '/'.repeat(1_000),
    '\ud800\udfff\udc00 \u0000 \u2028',
    '__proto__',
    'constructor',
    'import("fs")',
    `[${'['.repeat(500)}`,
    Array.from({ length: 2_000 }, (_, i) => i).join(','),
  ];
  const items: VerifyItem[] = texts.flatMap((text) => [
    { response: text, gold: '12' },
    { response: `\\boxed{${text}}`, gold: '12' },
    { prediction: text.slice(0, 900_000), gold: '12' },
    { prediction: '12', gold: text.slice(0, 900_000) },
    { prediction: text.slice(0, 3_000), gold: `${text.slice(0, 2_999)}0` },
  ]);
  const start = performance.now();
  const verdicts = await pool.verify(items);
  const seconds = (performance.now() - start) / 1000;
  verdicts.forEach(({ outcome, reason }, i) => {
    const what = `${JSON.stringify(items[i])?.slice(0, 100)}: ${outcome} ${reason.slice(0, 300)}`;
    assert.ok(['different', 'no-answer', 'undecided'].includes(outcome), what);
  });
  assert.ok(seconds < 30, `${items.length} hostile comparisons took ${seconds.toFixed(1)} s`);
  await pool.close();
});
