/** Algorithms by name: what each decides, and what wins over what. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { CISPO, DAPO, DR_GRPO, GRPO, GSPO } from '../lib/algorithm/grpo.js';
import type { PolicyLoss } from '../lib/algorithm/policy-loss.js';
import { stopText } from '../lib/cli/train-stop.js';
import { defineConfig, loadTrainConfig, trainSchema } from '../lib/train/config.js';
import { fieldDocs } from '../lib/train/config-file.js';
import { methodName } from '../lib/train/method-name.js';
import { loadPreset, presetNames } from '../lib/train/presets.js';
import { defaultRunPath, newestRun } from '../lib/train/run-directory.js';
import { ROOT } from './support/data.js';

const folder = mkdtempSync(join(tmpdir(), 'eepo-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const file = (text: string): string => {
  const path = join(folder, 'mine.toml');
  writeFileSync(path, `[model]\npath = "m"\n${text}`);
  return path;
};

const PRESETS = [
  'cispo',
  'dapo',
  'dr-grpo',
  'eepo',
  'eepo-recomputed',
  'gspo',
  'grpo',
  'grpo-clip-higher',
  'grpo-entropy',
  'grpo-more-rollouts',
  'grpo-temperature',
];

describe('a preset', () => {
  it('is there for every system of the paper, and for what verl and TRL have', () => {
    for (const name of PRESETS) assert.ok(presetNames().includes(name), name);
  });

  it('gives a run its name', () => {
    const names = Object.fromEntries(PRESETS.map((name) => [name, methodName(loadPreset(name))]));
    const { dapo, gspo, cispo, eepo, 'eepo-recomputed': recomputed, 'dr-grpo': drGrpo, ...others } = names;
    const own = [dapo, gspo, cispo, eepo, recomputed, drGrpo];
    assert.deepEqual(own, ['DAPO', 'GSPO', 'CISPO', 'EEPO', 'EEPO', 'Dr. GRPO']);
    assert.deepEqual([...new Set(Object.values(others))], ['GRPO']);
    const both = { ...loadPreset('gspo'), unlearn: { enabled: true } };
    assert.equal(methodName(both), 'EEPO with GSPO');
    assert.equal(methodName(defineConfig({ model: { path: 'm' } })), 'EEPO');
    assert.equal(methodName({}), 'GRPO', 'of a run folder that says nothing');
  });

  it('decides keys that there are, the same as every other, and no path', () => {
    const known = fieldDocs(trainSchema);
    const keysOf = (name: string) =>
      Object.entries(loadPreset(name)).flatMap(([section, fields]) =>
        Object.keys(fields as object).map((key) => `${section}.${key}`),
      );
    const common = keysOf('grpo');
    const objective = known.filter(({ section }) => section === 'objective').map(({ key }) => `objective.${key}`);
    // The weights of 'decoupled' alone are left: no preset has that ratio.
    const left = ['objective.decoupledCap', 'objective.decoupledLevel'];
    assert.deepEqual([...common.filter((key) => key.startsWith('objective.')), ...left].sort(), objective.sort());
    for (const name of presetNames()) {
      const keys = keysOf(name);
      assert.deepEqual(
        common.filter((key) => !keys.includes(key)),
        [],
        name,
      );
      for (const key of keys) {
        const doc = known.find(({ section, key: own }) => `${section}.${own}` === key);
        assert.ok(doc !== undefined && doc.path === false, `${name}: ${key}`);
      }
    }
  });

  it('that is laid over another leaves nothing of it behind', () => {
    const path = file('');
    const only = PRESETS.filter((name) => name !== 'grpo-more-rollouts');
    for (const below of only) {
      for (const name of only) {
        const { run: _, ...both } = loadTrainConfig(path, [], [below, name]);
        const { run: __, ...alone } = loadTrainConfig(path, [], [name]);
        assert.deepEqual(both, alone, `${name} over ${below}`);
      }
    }
  });

  it('is the algorithm that its function is', () => {
    const path = file('');
    const losses: Record<string, PolicyLoss> = { grpo: GRPO, 'dr-grpo': DR_GRPO, dapo: DAPO, gspo: GSPO, cispo: CISPO };
    for (const [name, loss] of Object.entries(losses)) {
      const { objective, unlearn } = loadTrainConfig(path, [], [name]);
      assert.equal(unlearn.enabled, false);
      assert.equal(objective.advantageStd, name !== 'dr-grpo');
      for (const [key, value] of Object.entries(loss)) {
        const given = objective[key as keyof typeof objective];
        const none = { clipHighStage2: -1, dualClip: 0 }[key];
        assert.equal(given, value === null ? none : value, `${name}: ${key}`);
      }
    }
    const dapo = loadTrainConfig(path, [], ['dapo']);
    assert.ok(dapo.rollout.dynamicSampling > 0 && dapo.reward.overlongBuffer === 0.2);
  });

  it('eepo is the defaults', () => {
    assert.deepEqual({ ...loadTrainConfig(file(''), [], ['eepo']), model: null }, { ...defineConfig(), model: null });
  });

  it('wins over the file, and --set over both; the rest of the file stays', () => {
    const path = file('[objective]\nclipHigh = 0.5\n[rollout]\ngroupSize = 4\n');
    assert.equal(loadTrainConfig(path).objective.clipHigh, 0.5);
    const config = loadTrainConfig(path, ['objective.clipLow=0.1'], ['dapo']);
    assert.deepEqual(
      [config.objective.clipHigh, config.objective.clipLow, config.rollout.groupSize, config.unlearn.enabled],
      [0.28, 0.1, 4, false],
    );
  });

  it('that is misspelt is named, with the nearest', () => {
    assert.throws(
      () => loadTrainConfig(file(''), [], ['dappo']),
      /--preset dappo: there is no such preset.*mean dapo\?/,
    );
    assert.throws(() => loadTrainConfig(file(''), [], ['../grpo']), /there is no such preset/);
    assert.throws(() => loadTrainConfig(file(''), [], ['ppo-lagrange']), /there are cispo, dapo, dr-grpo, eepo/);
  });

  it('is named where the whole does not fit together', () => {
    const path = file('[rollout]\ngroupSize = 5\n');
    assert.throws(() => loadTrainConfig(path, [], ['eepo']), /mine\.toml with --preset eepo: rollout\.groupSize = 5/);
    assert.throws(() => loadTrainConfig(file(''), ['objective.dualClip=3'], ['cispo']), /dualClip = 3/);
  });

  it('is part of the name of a run and of the command that goes on with it', () => {
    assert.match(defaultRunPath('a/mine.toml', ['dapo']), /^runs.mine-dapo-\d{4}-/);
    assert.equal(newestRun('a/mine.toml', ['dapo']), null);
    const text = stopText(
      {
        file: 'mine.toml',
        config: defineConfig(),
        out: 'runs/x',
        options: { preset: ['dapo'], set: ['run.seed=3'] },
      },
      { run: 'runs/x', iteration: 1, checkpoint: 'runs/x/checkpoints/iteration-000001', failure: null },
    );
    assert.match(text, /npx eepo train mine\.toml --preset dapo --set run\.seed=3 --resume runs\/x/);
  });
});

describe('docs/objectives.md', () => {
  const page = readFileSync(join(ROOT, 'docs', 'objectives.md'), 'utf8');

  it('has a row for each preset, with the keys in which it differs', () => {
    for (const name of PRESETS) {
      const row = page.split('\n').find((line) => line.includes(`| \`${name}\` |`));
      assert.ok(row !== undefined, name);
      for (const [section, fields] of Object.entries(loadPreset(name))) {
        for (const [key, value] of Object.entries(fields as object)) {
          const plain = (loadPreset('grpo')[section] as Record<string, unknown>)[key];
          // "no penalties" stands for klCoef and entropyCoef of 0.
          if (value === plain || value === 0) continue;
          assert.match(row, new RegExp(`\\b${key} = `), `${name}: ${section}.${key}`);
        }
      }
    }
  });

  it('names every key of [objective] and every value that one can have', () => {
    for (const { section, key, expected } of fieldDocs(trainSchema)) {
      if (section !== 'objective') continue;
      assert.match(page, new RegExp(`\`[^\`]*\\b${key}\\b[^\`]*\``), key);
      for (const [, value] of expected.matchAll(/"([^"]+)"/g))
        assert.ok(page.includes(`"${value}"`), `${key}: ${value}`);
    }
  });
});
