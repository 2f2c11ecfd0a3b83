/** docs/metrics.md and what runs and evaluations write: the same names, in both directions. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { mathSet } from '../lib/eval/math-set.js';
import { evaluateBenchmarks, readResult } from '../lib/eval/suite.js';
import type { SetSummary } from '../lib/eval/summary.js';
import { formatDetails } from '../lib/eval/table.js';
import { Policy } from '../lib/policy.js';
import { countdown } from '../lib/tasks/countdown.js';
import { defineTask } from '../lib/tasks/define.js';
import { verifierReward } from '../lib/tasks/verifiers.js';
import { Tokenizer } from '../lib/tokenizer.js';
import { defineConfig, type TrainConfigInput } from '../lib/train/config.js';
import { evaluationMetrics } from '../lib/train/evaluation.js';
import { trainRun } from '../lib/train/run.js';
import { defineSftConfig } from '../lib/train/sft-config.js';
import { sftRun } from '../lib/train/sft-run.js';
import { ROOT } from './support/data.js';
import { ScriptedPolicy } from './support/scripted-policy.js';

const PAGE = readFileSync(join(ROOT, 'docs', 'metrics.md'), 'utf8');
const MODEL = join(ROOT, 'models', 'countdown');

/** The names in the first column of the tables below `heading` (of the table after `after`, where there are several). */
function documented(heading: string, intro = ''): string[] {
  const section = PAGE.split(/^## /m).find((text) => text.startsWith(`${heading}\n`));
  assert.ok(section !== undefined, `docs/metrics.md has no section "${heading}"`);
  const at = section.indexOf(intro);
  assert.ok(at >= 0, `the section has no "${intro}"`);
  const table = /(?:^\|.*\n)+/m.exec(section.slice(at))?.[0] ?? '';
  const names = table.split('\n').flatMap((line) => /^\| `([^`]+)` \|/.exec(line)?.slice(1) ?? []);
  assert.equal(new Set(names).size, names.length, `a name is twice in "${heading}"`);
  assert.ok(names.length > 0);
  return names;
}

/** What a placeholder may stand for in this test. */
const PLACEHOLDERS: Record<string, string> = {
  s: '[12]',
  k: '\\d+',
  n: '\\d+',
  set: '[\\w-]+',
  name: '[\\w-]+',
  feature: '[\\w.-]+',
  count: '(?:seen|no_answer|undecided|verify_timeouts)',
};

function patternOf(name: string): RegExp {
  const escaped = name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`^${escaped.replace(/<(\w+)>/g, (_, key: string) => PLACEHOLDERS[key] as string)}$`);
}

/** Every name that is written is documented, every documented one is written. */
function compare(names: readonly string[], written: Iterable<string>): void {
  const patterns = names.map((name) => ({ name, pattern: patternOf(name) }));
  const all = [...new Set(written)];
  assert.deepEqual(
    all.filter((key) => !patterns.some(({ pattern }) => pattern.test(key))),
    [],
    'written, not documented',
  );
  assert.deepEqual(
    patterns.filter(({ pattern }) => !all.some((key) => pattern.test(key))).map(({ name }) => name),
    [],
    'documented, never written',
  );
}

const keysOf = (rows: readonly object[]): string[] => [...new Set(rows.flatMap((row) => Object.keys(row)))];
const linesOf = (path: string): Record<string, unknown>[] =>
  readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

const scripts = {
  one: { greedy: '\\boxed{1}', samples: ['\\boxed{1}', '\\boxed{2}'] },
  two: { greedy: '\\boxed{2}', samples: ['\\boxed{1}', '\\boxed{1}'] },
};
const set = {
  ...mathSet('aime24', 'AIME 24', [
    { id: '0', prompt: 'one', answer: '1' },
    { id: '1', prompt: 'two', answer: '1' },
  ]),
  features: () => ({ of_the_set: 1 }),
};

describe('docs/metrics.md', () => {
  let folder: string;
  let policy: Policy;
  let tokenizer: Tokenizer;
  const metrics = new Set<string>();
  const completions = new Set<string>();
  let summary: Record<string, unknown>;
  let evaluated: SetSummary;

  async function train(
    name: string,
    task: Parameters<typeof trainRun>[0]['task'],
    sections: Partial<TrainConfigInput>,
    onEvent?: (out: string) => void,
  ) {
    const config = defineConfig({
      run: { iterations: 1 },
      rollout: { promptsPerIteration: 4, groupSize: 4, maxNewTokens: 16 },
      ...sections,
    });
    const out = join(folder, name);
    await trainRun({ policy, tokenizer, task, config, out, ...(onEvent ? { onEvent: () => onEvent(out) } : {}) });
    for (const key of keysOf(linesOf(join(out, 'metrics.jsonl')))) metrics.add(key);
    for (const key of keysOf(linesOf(join(out, 'completions.jsonl')))) completions.add(key);
    summary = JSON.parse(readFileSync(join(out, 'summary.json'), 'utf8')) as Record<string, unknown>;
  }

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'eepo-test-'));
    policy = await Policy.load(MODEL);
    tokenizer = await Tokenizer.load(MODEL);
    const base = countdown();
    await train(
      'eepo',
      base,
      {
        run: { iterations: 2, completionsEvery: 1 },
        eval: {
          atStart: true,
          splits: ['test'],
          maxProblems: 8,
          sampleProblems: 8,
          samplesPerPrompt: 4,
          passK: [1, 4],
        },
        checkpoint: { every: 1 },
      },
      // A checkpoint fails: a file stands where their folder is to be.
      (out) => writeFileSync(join(out, 'checkpoints'), ''),
    );
    const rewards = [
      { name: 'right', fn: base.reward, timeoutMs: 60_000 },
      {
        name: 'short',
        fn: (inputs: readonly unknown[], context?: { report(counts: Record<string, number>): void }) => {
          context?.report({ seen: inputs.length });
          return inputs.map((_, i) => i % 2);
        },
      },
    ];
    await train('grpo', defineTask({ ...base, rewards }), {
      run: { iterations: 1, completionsEvery: 1 },
      unlearn: { enabled: false },
      rollout: { promptsPerIteration: 4, groupSize: 4, maxNewTokens: 16, dynamicSampling: 1 },
      objective: { ratio: 'decoupled', dualClip: 3, maskTruncated: true },
      reward: { onError: 'skip', overlongBuffer: 0.2 },
    });
    // A verifier names its own counts.
    await train(
      'verified',
      { ...base, reward: verifierReward('math') },
      { run: { iterations: 1, completionsEvery: 1 } },
    );

    const scripted = new ScriptedPolicy(scripts);
    const out = join(folder, 'evals');
    await evaluateBenchmarks(scripted.policy, scripted.tokenizer, [set], {
      maxNewTokens: 8,
      samples: 2,
      ks: [1, 2],
      out,
    });
    evaluated = JSON.parse(readFileSync(join(out, 'aime24', 'summary.json'), 'utf8')) as SetSummary;
  });
  after(() => {
    policy.dispose();
    rmSync(folder, { recursive: true, force: true });
  });

  it('has the names of metrics.jsonl', () => {
    // What only the verifier can give: a vote, and answers that cannot be decided; a reward that fails.
    const undecided = { ...evaluated.sampledResponses, undecided: 1, missing: 1 } as SetSummary['sampledResponses'];
    const voted = evaluationMetrics('aime24', { ...evaluated, sampledResponses: undecided });
    compare(documented('metrics.jsonl'), [...metrics, ...Object.keys(voted).map((name) => `eval/${name}`)]);
  });

  it("has the keys of completions.jsonl and of a run's summary.json", () => {
    compare(documented('completions.jsonl'), completions);
    compare(documented('summary.json of a run'), Object.keys(summary));
  });

  it('has the names of a run of eepo sft', async () => {
    const config = defineSftConfig({ run: { steps: 1 }, optimizer: { batchSize: 4 } });
    const demonstrations = countdown().demonstrations?.(1);
    assert.ok(demonstrations !== undefined);
    const out = join(folder, 'sft');
    await sftRun({ policy, tokenizer, demonstrations, config, out });
    compare(documented('metrics.jsonl of `eepo sft`'), keysOf(linesOf(join(out, 'metrics.jsonl'))));
  });

  it('has the keys of an evaluation', () => {
    const heading = 'summary.json and results.json of an evaluation';
    const result = readResult(join(folder, 'evals')).sets.aime24 as object;
    assert.ok(!('rows' in result));
    compare(documented(heading), [...Object.keys(result), ...Object.keys(evaluated)]);
    compare(documented(heading, 'An estimate:'), Object.keys(evaluated.greedy as object));
    compare(documented(heading, 'Statistics of responses:'), Object.keys(evaluated.greedyResponses as object));
    compare(documented(heading, 'An entry of `rows`:'), keysOf(evaluated.rows));
  });

  it('has the columns of eepo eval', () => {
    const result = readResult(join(folder, 'evals'));
    const sampledResponses = { ...evaluated.sampledResponses, missing: 1 } as SetSummary['sampledResponses'];
    const full = {
      ...evaluated,
      sampledResponses,
      title: 'x',
      distinctPerSolved: 1,
      distinctAlgebraicPerSolved: 1,
    };
    const [header = ''] = formatDetails([{ ...result, sets: { x: full } }], 'markdown').split('\n');
    compare(
      documented('Columns of `eepo eval`'),
      header
        .split('|')
        .map((cell) => cell.trim())
        .filter((cell) => cell !== ''),
    );
  });

  it('names every metric once, with every column filled in', () => {
    const rows = PAGE.split('\n').filter((line) => /^\| `/.test(line));
    for (const row of rows) {
      const cells = row.split('|').length - 2;
      assert.ok(cells === 2 || cells === 5, `${cells} columns: ${row}`);
    }
  });
});
