/** `eepo study` on a grid of seconds: what it runs, what it leaves out, how it is stopped and goes on. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { choose, neededRuns } from '../lib/study/choose.js';
import { loadStudy, type Unit, unitsFor } from '../lib/study/load.js';
import type { StudyResults } from '../lib/study/results.js';
import { openState } from '../lib/study/runner.js';
import { STUDY_SECTIONS } from '../lib/study/schema.js';
import type { Method } from '../lib/study/settings.js';
import { isRunning } from '../lib/train/run-lock.js';
import { embeddedModel, ROOT } from './support/data.js';
import { temporaryFolder } from './support/files.js';

const main = join(ROOT, 'dist', 'lib', 'cli', 'main.js');

const CONFIG = `
[config.run]
iterations = 2
[config.model]
path = "${embeddedModel}"
[config.task]
name = "countdown"
[config.rollout]
promptsPerIteration = 2
groupSize = 4
maxNewTokens = 12
[config.optimizer]
lr = 1e-4
miniBatchPrompts = 2
[config.eval]
every = 1
splits = ["test"]
maxProblems = 4
sampleProblems = 2
samplesPerPrompt = 2
passK = [1, 2]
[config.checkpoint]
every = 1
`;

/** GRPO, and EEPO with two settings. */
const METHODS = `
[[method]]
name = "grpo"
set = { "unlearn.enabled" = false }
[[method]]
name = "eepo"
label = "EEPO"
sweep = { "unlearn.eta" = [0.003, 0.1] }
`;

const study = (more = '', { head = '', config = CONFIG, methods = METHODS } = {}): string => `
[study]
name = "tiny"
out = "out"
seeds = [11, 12]
threads = 1
${head}
${config}
[select]
seeds = [1]
metric = "eval/test/pass@1"
${methods}
${more}
`;

function write(folder: string, text: string): string {
  const file = join(folder, 'study.toml');
  writeFileSync(file, text);
  return file;
}

function eepo(file: string, ...args: string[]) {
  return spawnSync(process.execPath, [main, 'study', file, ...args], { encoding: 'utf8' });
}

const resultsOf = (folder: string): StudyResults =>
  JSON.parse(readFileSync(join(folder, 'out', 'results.json'), 'utf8')) as StudyResults;

/** Run folders below out/runs, with the time at which each was finished. */
function runsOf(folder: string): Map<string, number> {
  const root = join(folder, 'out', 'runs');
  const names = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('summary.json'),
  );
  return new Map(names.sort().map((name) => [join(name, '..'), statSync(join(root, name)).mtimeMs]));
}

function load(t: TestContext, text: string) {
  return loadStudy(write(temporaryFolder(t), text));
}

describe('a study file', () => {
  const refuses = (t: TestContext, text: string, message: RegExp): void => {
    assert.throws(() => load(t, text), { code: 'EEPO_CONFIG', message });
  };

  it('is refused by key, before anything runs', (t) => {
    refuses(
      t,
      study('[[method]]\nname = "x"\nswep = {}'),
      /\[\[method\]\] "x": there is no key "swep"; did you mean sweep\?/,
    );
    refuses(t, study('', { head: 'sedes = [1]' }), /\[study\]: there is no key "sedes"; did you mean seeds\?/);
    refuses(
      t,
      study('[[claim]]\ntext = "a"\nmetric = "m"\ncompare = ["grpo", "epo"]'),
      /\[\[claim\]\] 1: there is no method "epo"/,
    );
    refuses(t, study('[[claim]]\ntext = "a"\nmetric = "m"'), /\[\[claim\]\] 1: give compare/);
    refuses(
      t,
      study('[[claim]]\ntext = "a"\nmetric = "m"\ncompare = ["grpo", "eepo"]\ndirection = "same"'),
      /needs a margin/,
    );
    refuses(t, study('[[method]]\nname = "grpo"'), /"grpo" is there twice/);
    refuses(t, study('[[method]]\nname = "x"\nfrom = "later"'), /from = "later" is no method above it/);
    refuses(t, study().replace('seeds = [1]', 'seeds = [1, 12]'), /12 is reported too/);
    refuses(t, study().replace(/\[select\][^[]*\[1\]\nmetric.*\n/, ''), /"eepo" has several settings; add \[select\]/);
    refuses(t, study('[[method]]\nname = "x"\nset = { "run.seed" = 3 }'), /run\.seed comes from the study/);
    refuses(
      t,
      study('[[method]]\nname = "x"\nscore = { acc = 1 }'),
      /"x": score chooses between settings, and there is one/,
    );
    refuses(t, '[run]\niterations = 3\n', /use: npx eepo train/);
    refuses(
      t,
      study('[[table]]\ntitle = "a"\nmetrics = ["eval/test/pass@8"]').replace(
        'metric = "eval/test/pass@1"',
        'metric = "eval/ood/pass@4"',
      ),
      /\[select\]: eval\/ood\/pass@4 is measured in no run: eval\.passK has 1, 2(.|\n)*\[\[table\]\] a: eval\/test\/pass@8/,
    );
    refuses(t, study('', { head: 'models = ["nowhere"]' }), /there is no model in .*nowhere/);
  });

  it('has every configuration checked', (t) => {
    refuses(
      t,
      study('[[method]]\nname = "x"\nset = { "unlearn.etta" = 3 }'),
      /method "x".*unlearn\.etta is not a key.*unlearn\.eta/,
    );
    refuses(
      t,
      study('[[method]]\nname = "x"\nsweep = { "unlearn.eta" = [0.1, -1] }'),
      /method "x", setting eta=-1: unlearn\.eta = -1: expected a number, at least 0/,
    );
    refuses(t, study('[[method]]\nname = "x"\nset = { "rollout.groupSize" = 5 }'), /groupSize = 5: EEPO/);
  });

  it('pairs seeds with models', () => {
    const ids = (...args: Parameters<typeof unitsFor>) => unitsFor(...args).map(({ id, model }) => [id, model]);
    assert.deepEqual(ids([1, 2], [], false), [
      ['seed1', null],
      ['seed2', null],
    ]);
    assert.deepEqual(ids([1, 2, 3], ['/b/one/model', '/b/two/model'], false), [
      ['one_seed1', '/b/one/model'],
      ['two_seed2', '/b/two/model'],
      ['one_seed3', '/b/one/model'],
    ]);
    assert.deepEqual(
      ids([1, 2], ['/a/m', '/b/m'], true).map(([id]) => id),
      ['m-1_seed1', 'm-1_seed2', 'm-2_seed1', 'm-2_seed2'],
    );
  });

  it('names runs that several methods share once', (t) => {
    const text = study('[[method]]\nname = "early"\nset = { "unlearn.enabled" = false }\nstop = [1, 2]');
    const loaded = load(t, text);
    const names = neededRuns(loaded, openState(loaded).choices).map(({ run }) => run.name);
    assert.deepEqual(names, [
      'eepo/eta=0.003/seed1',
      'eepo/eta=0.1/seed1',
      // where early is to stop is chosen on it
      'grpo/default/seed1',
      'grpo/default/seed11',
      'grpo/default/seed12',
    ]);
  });

  it('chooses by the score of [select], or by that of a method', (t) => {
    const chosen = (score: string) => {
      const loaded = load(t, study().replace('label = "EEPO"', score));
      const method = loaded.methods.find(({ name }) => name === 'eepo') as Method;
      const [unit] = loaded.selectUnits as [Unit];
      // The first setting is the better one by pass@1, the second by div.
      const finished = new Map(
        method.settings.map(({ variant }, i) => [
          loaded.runOf(method, variant, unit).hash,
          { rows: [{ iteration: 2, metrics: { 'eval/test/pass@1': 0.5 - 0.1 * i, div: 0.1 + 0.2 * i } }], seconds: 1 },
        ]),
      );
      return choose(loaded, { finished, failed: new Map() }).get(method)?.setting?.id;
    };
    assert.equal(chosen(''), 'eta=0.003');
    assert.equal(chosen('score = { div = 1 }'), 'eta=0.1');
    assert.equal(chosen('score = { div = 0.25, "eval/test/pass@1" = 0.75 }'), 'eta=0.003');
    assert.equal(chosen('score = { nothing = 1 }'), undefined, 'no run has it');
  });

  it('knows runs again where the checkout has moved, and not where a value has', (t) => {
    const [one, other, changed] = [study(), study(), study().replace('lr = 1e-4', 'lr = 2e-4')].map((text) => {
      const loaded = load(t, text);
      return neededRuns(loaded, openState(loaded).choices).map(({ run }) => run.hash);
    }) as [string[], string[], string[]];
    assert.equal(new Set(one).size, 4);
    assert.deepEqual(other, one, 'the same study in another folder');
    assert.deepEqual(
      one.filter((hash) => changed.includes(hash)),
      [],
    );
  });
});

describe('eepo study', () => {
  it('runs what is needed, once; chooses, judges, and writes the results', (t) => {
    const folder = temporaryFolder(t);
    const more = `
[[claim]]
text = "stage 2 is drawn elsewhere"
method = "eepo"
metrics = ["rollout/stage2/entropy", "rollout/stage1/entropy"]
minSeeds = 2
range = [1, 2]
[[claim]]
text = "EEPO is better"
metric = "eval/test/pass@2"
compare = ["eepo", ["grpo", "grpo@1"]]
[[table]]
title = "Accuracy"
metrics = ["eval/test/greedy", "eval/test/pass@2"]
[[method]]
name = "step"
from = "eepo"
set = { "unlearn.gate" = "step" }
`;
    const file = write(folder, study(more, { head: 'reference = "grpo"' }));
    const dry = eepo(file, '--dry-run');
    assert.equal(dry.status, 0, dry.stderr);
    assert.match(
      dry.stdout,
      /^4 runs are known \(2 to choose settings\); up to 4 follow from what is chosen; 0 are done/m,
    );
    assert.match(dry.stdout, /no estimate: give study\.secondsPerIteration/);
    assert.equal(existsSync(join(folder, 'out')), false);

    const done = eepo(file, '--jobs', '2');
    assert.equal(done.status, 0, done.stderr);
    const results = resultsOf(folder);
    // 2 settings on the seed of selection; grpo, eepo and step on two seeds
    assert.deepEqual(results.counts, { finished: 8, failed: 0, open: 0 });
    const eepoResult = results.methods.find(({ name }) => name === 'eepo');
    const scores = eepoResult?.scores.map(({ score }) => score?.mean as number) ?? [];
    assert.equal(scores.length, 2);
    const best = (scores[1] as number) > (scores[0] as number) ? 'eta=0.1' : 'eta=0.003';
    assert.equal(eepoResult?.setting, best);
    const chosen = results.runs.filter(({ methods, phase }) => methods.includes('eepo') && phase === 'report');
    assert.deepEqual(
      chosen.map(({ setting, seed }) => [setting, seed]),
      [
        [best, 11],
        [best, 12],
      ],
    );
    // what a method takes up from another is in the configuration of its runs
    const step = results.runs.find(({ methods }) => methods.includes('step'));
    const stepConfig = readFileSync(
      join(folder, 'out', 'runs', `${step?.name}-${step?.hash.slice(0, 8)}`, 'config.toml'),
      'utf8',
    );
    assert.match(stepConfig, new RegExp(`^eta = ${best.slice(4).replace('.', '\\.')}$`, 'm'));
    assert.match(stepConfig, /^gate = "step"$/m);

    const [entropies, better] = results.claims;
    assert.equal(entropies?.comparisons[0]?.pairs.length, 2);
    assert.equal(better?.verdict, 'not enough seeds');
    assert.equal(better?.comparisons.length, 2);
    // the table's cell is the mean of what the runs wrote
    const cell = results.tables[0]?.rows.find(({ method }) => method === 'grpo')?.cells[0];
    const last = results.runs
      .filter(({ methods, phase }) => methods.includes('grpo') && phase === 'report')
      .map(({ last: metrics }) => metrics['eval/test/greedy'] as number);
    assert.equal(cell?.mean, ((last[0] as number) + (last[1] as number)) / 2);
    assert.match(readFileSync(join(folder, 'out', 'tables.md'), 'utf8'), /EEPO is better.*\*\*not enough seeds\*\*/);
    assert.match(readFileSync(join(folder, 'out', 'tables.csv'), 'utf8'), /^Accuracy,step,eval\/test\/pass@2,2,/m);
    for (const run of runsOf(folder).keys()) {
      const files = readdirSync(join(folder, 'out', 'runs', run));
      assert.deepEqual(
        files.filter((name) => ['model', 'checkpoints', 'evals', 'completions.jsonl'].includes(name)),
        [],
        'what is not needed is gone',
      );
    }

    // again: nothing is trained
    const before = runsOf(folder);
    const again = eepo(file);
    assert.equal(again.status, 0, again.stderr);
    assert.equal(again.stderr, '');
    assert.deepEqual(runsOf(folder), before);
    assert.match(eepo(file, '--dry-run').stdout, /8 are done/);

    // another value of one method: its runs alone are new
    write(
      folder,
      study(more, { head: 'reference = "grpo"' }).replace('"unlearn.gate" = "step"', '"unlearn.gate" = "always"'),
    );
    const changed = eepo(file, '--jobs', '2');
    assert.equal(changed.status, 0, changed.stderr);
    const after = runsOf(folder);
    assert.equal(after.size, before.size + 2);
    for (const [run, time] of before) assert.equal(after.get(run), time, run);
    for (const run of after.keys()) if (!before.has(run)) assert.match(run, /^step\//);
  });

  it('says which method has no setting, where no run has the metric that it is chosen by', (t) => {
    const folder = temporaryFolder(t);
    const file = write(folder, study().replace('metric = "eval/test/pass@1"', 'metric = "eval/test/gredy"'));
    const done = eepo(file, '--jobs', '2');
    assert.equal(done.status, 1, done.stderr);
    assert.match(done.stderr, /no setting could be chosen for eepo, which is not reported/);
    const misspelt = /eval\/test\/gredy \(\[select\]\) is in no finished run; did you mean eval\/test\/greedy\?/;
    assert.match(done.stderr, misspelt);
    assert.match(readFileSync(join(folder, 'out', 'tables.md'), 'utf8'), misspelt);
    assert.match(readFileSync(join(folder, 'out', 'tables.md'), 'utf8'), /none: no setting has a score in every run/);
  });

  it('goes on after a failed run, says why, and tries it again', (t) => {
    const folder = temporaryFolder(t);
    const file = write(folder, study('', { methods: METHODS.replace('[0.003, 0.1]', '[0.003]') }));
    const loaded = loadStudy(file);
    const victim = neededRuns(loaded, openState(loaded).choices).find(
      ({ run }) => run.name === 'eepo/eta=0.003/seed11',
    );
    const path = victim?.run.folder as string;
    // a file where the folder of a run belongs
    spawnSync('mkdir', ['-p', join(path, '..')]);
    writeFileSync(path, 'not a folder');
    const failed = eepo(file, '--jobs', '2');
    assert.equal(failed.status, 1);
    assert.match(failed.stderr, /eepo\/eta=0\.003\/seed11 failed: exit code 1\n {2}error: .* is a file; .*EEPO_CONFIG/);
    assert.match(failed.stderr, /1 of 4 runs failed; the same command tries them again/);
    assert.deepEqual(resultsOf(folder).counts, { finished: 3, failed: 1, open: 0 });
    rmSync(path);
    const mended = eepo(file, '--jobs', '2');
    assert.equal(mended.status, 0, mended.stderr);
    assert.deepEqual(resultsOf(folder).counts, { finished: 4, failed: 0, open: 0 });
    // half a line of a killed process does not hurt the results
    appendFileSync(join(path, 'metrics.jsonl'), '{"iteration":3,"eval/te');
    assert.equal(eepo(file, '--collect').status, 0);
  });

  it('stops at checkpoints, and ends with the numbers of one that was never stopped', async (t) => {
    const long = CONFIG.replace('iterations = 2', 'iterations = 30').replace('every = 1\nsplits', 'every = 30\nsplits');
    const methods = '[[method]]\nname = "eepo"\n';
    const [stopped, whole] = [temporaryFolder(t), temporaryFolder(t)];
    const text = study('', { config: long, methods }).replace('seeds = [11, 12]', 'seeds = [11]');
    const file = write(stopped, text);
    const child = spawn(process.execPath, [main, 'study', file], { stdio: ['ignore', 'pipe', 'pipe'] });
    const run = join(stopped, 'out', 'runs', 'eepo', 'default');
    await until(() => metricsOf(run).length >= 3, child);
    child.kill('SIGINT');
    const { code, stderr } = await ended(child);
    assert.equal(code, 1);
    assert.match(stderr, /stopped: 0 of 1 runs are done\. To go on: npx eepo study /);
    const at = metricsOf(run).length;
    assert.ok(at < 30);

    // the same again, and this time nobody can clean up: the run's own process goes on for a while, and is waited for
    const killed = spawn(process.execPath, [main, 'study', file], { stdio: ['ignore', 'pipe', 'pipe'] });
    await until(() => metricsOf(run).length > at, killed);
    killed.kill('SIGKILL');
    await ended(killed);
    const finished = eepo(file);
    assert.equal(finished.status, 0, finished.stderr);
    const reference = eepo(write(whole, text));
    assert.equal(reference.status, 0, reference.stderr);
    const lasts = [stopped, whole].map((folder) => {
      const [only] = resultsOf(folder).runs;
      return Object.fromEntries(
        Object.entries(only?.last ?? {}).filter(([name]) => !/^(?:timing_s|perf)\/|^seconds$/.test(name)),
      );
    });
    assert.ok(Object.keys(lasts[0] ?? {}).length > 20);
    assert.deepEqual(lasts[0], lasts[1]);
  });
});

/** The lines of the metrics of the only run in a folder. */
function metricsOf(folder: string): string[] {
  const [run] = existsSync(folder) ? readdirSync(folder).filter((name) => !name.includes('.')) : [];
  const path = join(folder, run ?? '', 'metrics.jsonl');
  return run !== undefined && existsSync(path) ? readFileSync(path, 'utf8').trimEnd().split('\n') : [];
}

async function until(test: () => boolean, child: ChildProcess): Promise<void> {
  while (!test()) {
    assert.ok(child.exitCode === null && isRunning(child.pid as number), 'the study ended before it could be stopped');
    await sleep(20);
  }
}

async function ended(child: ChildProcess): Promise<{ code: number | null; stderr: string }> {
  let stderr = '';
  child.stderr?.on('data', (chunk) => {
    stderr += chunk;
  });
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { code, stderr };
}

describe('docs/studies.md', () => {
  const page = readFileSync(join(ROOT, 'docs', 'studies.md'), 'utf8');

  /** Keys and defaults of the table below a heading. */
  function rowsBelow(heading: string): [string, string][] {
    const [, after] = page.split(`\n### ${heading}\n`);
    assert.ok(after !== undefined, heading);
    const [own = ''] = after.split(/\n##+ /);
    return [...own.matchAll(/^\| `(\w+)` \| (.*?) \|/gm)].map(([, key, value]) => [key as string, value as string]);
  }

  const shown = (field: unknown): string => {
    if (field instanceof z.ZodDefault) return `\`${JSON.stringify(field.def.defaultValue)}\``;
    return field instanceof z.ZodOptional ? '-' : 'required';
  };

  it('has a row with the default for each key of a study, and for no other', () => {
    const reading = rowsBelow('How a number is read off a run');
    assert.equal(reading.length, 6);
    for (const [section, shape] of Object.entries(STUDY_SECTIONS)) {
      const heading = ['study', 'select'].includes(section) ? `[${section}]` : `[[${section}]]`;
      const rows = [...rowsBelow(heading), ...(['claim', 'table'].includes(section) ? reading : [])];
      const expected = Object.entries(shape).map(([key, field]) => [key, shown(field)]);
      assert.deepEqual(rows.sort(), expected.sort(), section);
    }
  });

  it('names every value that a key can have', () => {
    for (const [section, shape] of Object.entries(STUDY_SECTIONS)) {
      for (const [key, field] of Object.entries(shape)) {
        const inner = field instanceof z.ZodDefault ? field.unwrap() : field;
        if (!(inner instanceof z.ZodEnum)) continue;
        for (const value of inner.options) assert.ok(page.includes(`"${value}"`), `${section}.${key}: ${value}`);
      }
    }
  });

  it('shows the example that is in configs/study, which is a study', () => {
    const file = join(ROOT, 'configs', 'study', 'example.toml');
    const [, ...text] = readFileSync(file, 'utf8').trimEnd().split('\n\n');
    assert.ok(page.includes(`\`\`\`toml\n${text.join('\n\n')}\n\`\`\``));
    const loaded = loadStudy(file);
    // before anything is chosen: GRPO and two values of eta on the seed of selection, GRPO on those that are reported
    assert.equal(neededRuns(loaded, choose(loaded, { finished: new Map(), failed: new Map() })).length, 8);
  });
});
