import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ConfigError } from '../lib/errors.js';
import { nearest } from '../lib/options.js';
import { parseStudy } from '../lib/study/schema.js';
import { checkContext, defineConfig, loadTrainConfig, trainSchema } from '../lib/train/config.js';
import { configMarkdown, configToToml, fieldDocs, parseAssignment } from '../lib/train/config-file.js';
import { configNotes } from '../lib/train/config-notes.js';

const folder = mkdtempSync(join(tmpdir(), 'eepo-config-'));
let files = 0;

function file(text: string): string {
  const path = join(folder, `config-${files++}.toml`);
  writeFileSync(path, text);
  return path;
}

const minimal = '[model]\npath = "model"\n';

function problem(text: string, overrides: string[] = []): string {
  const path = file(text);
  try {
    loadTrainConfig(path, overrides);
  } catch (error) {
    assert.ok(error instanceof ConfigError, `${error}`);
    assert.equal(error.code, 'EEPO_CONFIG');
    assert.ok(error.message.includes(path) || overrides.length > 0, 'the message names the file');
    return error.message;
  }
  return assert.fail('accepted');
}

describe('configuration', () => {
  it("defaults to the paper's values", () => {
    const config = loadTrainConfig(file(minimal));
    assert.deepEqual(
      [config.unlearn.eta, config.unlearn.alpha, config.unlearn.window, config.rollout.groupSize, config.optimizer.lr],
      [3e-3, 0.3, 3, 8, 5e-7],
    );
    assert.deepEqual(
      [config.rollout.promptsPerIteration, config.optimizer.miniBatchPrompts, config.objective.ratio],
      [128, 64, 'behavior'],
    );
    assert.deepEqual([config.objective.klCoef, config.objective.entropyCoef], [1e-4, 1e-5]);
  });

  it('documents every field', () => {
    for (const { section, key, description, expected } of fieldDocs(trainSchema)) {
      assert.ok(description.length > 10 && expected.length > 3, `${section}.${key}`);
    }
    assert.match(configMarkdown(trainSchema), /\| `eta` \| `0\.003` \| 3e-3 \|/);
  });

  it('resolves paths from the file, and those of --set from the working directory', () => {
    const path = file(minimal);
    assert.equal(loadTrainConfig(path).model.path, join(folder, 'model'));
    assert.equal(loadTrainConfig(path, ['model.path=./x/y']).model.path, join(process.cwd(), 'x/y'));
  });

  it('leaves the name of a model on the hub alone, unless there is such a folder', () => {
    const path = file(minimal);
    const pathOf = (model: string) => loadTrainConfig(path, [`model.path=${model}`]).model.path;
    assert.equal(pathOf('owner/name'), 'owner/name');
    assert.equal(pathOf('models/countdown'), join(process.cwd(), 'models/countdown'));
    assert.equal(loadTrainConfig(file('[model]\npath = "owner/name"')).model.path, 'owner/name');
    assert.equal(loadTrainConfig(path, ['task.path=owner/name']).task.path, join(process.cwd(), 'owner/name'));
  });

  it('takes --set values as TOML, and bare words as strings', () => {
    const config = loadTrainConfig(file(minimal), [
      'rollout.groupSize=16',
      'unlearn.gate=step',
      'optimizer.betas=[0.8, 0.95]',
      'unlearn.enabled=false',
      'objective.ratio="policy"',
    ]);
    assert.equal(config.rollout.groupSize, 16);
    assert.equal(config.unlearn.gate, 'step');
    assert.deepEqual(config.optimizer.betas, [0.8, 0.95]);
    assert.equal(config.unlearn.enabled, false);
    assert.equal(config.objective.ratio, 'policy');
  });

  it('blames --set for what it sets wrong, and the file for the rest', () => {
    const path = file(`${minimal}[rollout]\nmaxNewTokens = "a"\n`);
    const good = file(minimal);
    const message = (from: string, ...overrides: string[]): string => {
      try {
        loadTrainConfig(from, overrides);
      } catch (error) {
        assert.ok(error instanceof ConfigError);
        return error.message;
      }
      throw new assert.AssertionError({ message: 'accepted' });
    };
    assert.match(
      message(good, 'rollout.groupSize=x'),
      /^--set rollout\.groupSize=x: rollout\.groupSize = "x": expected/,
    );
    assert.match(
      message(good, 'rollout.groupsize=8'),
      /^--set rollout\.groupsize=8: .* did you mean rollout\.groupSize\?$/,
    );
    assert.match(message(good, 'rolout.groupSize=8'), /^--set rolout\.groupSize=8: \[rolout\] is not a section/);
    assert.match(
      message(good, 'rollout.groupSize=8', 'rollout.groupSize=7'),
      / with --set rollout\.groupSize=7: rollout\.groupSize = 7: EEPO draws half/,
      'the last one counts; what does not fit together may be the file as well',
    );
    assert.match(
      message(good, 'rollout.groupSize=x', 'a.b=1'),
      /^--set: 2 problems\n {2}- --set rollout\.groupSize=x: .*\n {2}- --set a\.b=1: \[a\] is not a section/,
    );
    const both = message(path, 'rollout.groupSize=x');
    assert.ok(both.startsWith(`${path}: 2 problems\n`), both);
    assert.match(both, /\n {2}- --set rollout\.groupSize=x: .*/);
    assert.match(both, /\n {2}- rollout\.maxNewTokens = "a": expected/);
    assert.equal(message(path, 'rollout.groupSize=8'), message(path), 'a right override changes nothing');
    // The file's own section with a typo stays the file's.
    const typo = file(`${minimal}[rolout]\ngroupSize = 8\n`);
    assert.ok(message(typo, 'rolout.x=1').startsWith(`${typo}: [rolout]`));
  });

  it('reads back what it writes', () => {
    const config = loadTrainConfig(file(minimal), ['unlearn.gate=token+step', 'optimizer.lr=1e-6']);
    assert.deepEqual(loadTrainConfig(file(configToToml(config))), config);
  });

  it('suggests the nearest key, in its section or another', () => {
    assert.match(
      problem(`${minimal}[rollout]\ngroupsize = 8\n`),
      /rollout\.groupsize is not a key.*rollout\.groupSize\?/,
    );
    assert.match(
      problem(`${minimal}[rollot]\ngroupSize = 8\n`),
      /\[rollot\] is not a section; did you mean \[rollout\]\?/,
    );
    assert.match(problem(`${minimal}[unlearn]\nlr = 1\n`), /unlearn\.lr is not a key.*belongs to \[optimizer\]/);
    assert.match(problem(`${minimal}[run]\nzzzzzzzzzzzzzz = 1\n`), /its keys are iterations, seed/);
    assert.equal(nearest('epslow', ['epsHigh', 'epsLow', 'eta']), 'epsLow');
    assert.equal(nearest('xyzw', ['iterations']), null);
  });

  it('names key, value and what was expected', () => {
    assert.match(problem(`${minimal}[unlearn]\neta = "big"\n`), /unlearn\.eta = "big": expected a number, at least 0/);
    assert.match(
      problem(`${minimal}[unlearn]\ngate = "tokn"\n`),
      /unlearn\.gate = "tokn": expected one of "token", "step"/,
    );
    assert.match(problem(`${minimal}[run]\niterations = 1.5\n`), /run\.iterations = 1\.5: expected a whole number/);
    assert.match(problem('[run]\nseed = 1\n'), /model\.path is missing/);
    assert.match(
      problem(minimal, ['rollout.temperature=0']),
      /rollout\.temperature = 0: expected a number, greater than 0/,
    );
    assert.match(problem('run = 3\n[model]\npath = "m"\n'), /\[run\] is 3; expected a section/);
  });

  it('reports all problems at once', () => {
    const message = problem('[run]\niterations = 0\nseeds = 1\n[optimizer]\nlr = -1\n');
    for (const part of ['run.iterations = 0', 'run.seeds', 'optimizer.lr = -1', 'model.path']) {
      assert.ok(message.includes(part), `${part} is not in\n${message}`);
    }
    assert.match(message, /4 problems/);
    const mixed = problem(minimal, ['rollout.groupSize=7', 'run.iteratons=3', 'optimizer.lr=fast']);
    assert.match(mixed, /3 problems(.|\n)*iteratons(.|\n)*lr = "fast"(.|\n)*groupSize = 7/);
  });

  it('checks fields against each other', () => {
    assert.match(problem(minimal, ['rollout.groupSize=7']), /rollout\.groupSize = 7: .*even.*use 8/);
    assert.equal(loadTrainConfig(file(minimal), ['rollout.groupSize=7', 'unlearn.enabled=false']).rollout.groupSize, 7);
    loadTrainConfig(file(minimal), ['optimizer.miniBatchPrompts=200']);
    assert.match(problem(minimal, ['optimizer.miniBatchPrompts=48']), /miniBatchPrompts = 48 does not divide .* = 128/);
    assert.match(problem(minimal, ['task.name=jsonl']), /task\.path is missing/);
  });

  it('checks prompt and response against the context', () => {
    const config = defineConfig({ rollout: { maxNewTokens: 100 } });
    checkContext(config, 28, 128);
    const bounded = defineConfig({ rollout: { maxNewTokens: 100, cacheTokens: 144 } });
    checkContext(bounded, 32, 1000);
    assert.throws(
      () => checkContext(bounded, 33, 1000),
      /cacheTokens = 144 cannot hold the longest prompt \(33 tokens\).*at least 160/,
    );
    assert.throws(
      () => checkContext(config, 29, 128),
      /maxNewTokens = 100 .*\(29 tokens\).*context of 128.*at most 99/,
    );
  });

  it('names the line of a syntax error, a missing file, and a folder', () => {
    assert.match(problem('[run]\niterations = = 3\n'), /line 2/);
    assert.throws(() => loadTrainConfig(join(folder, 'none.toml')), /none\.toml: no such configuration file/);
    const run = mkdtempSync(join(folder, 'run-'));
    assert.throws(() => loadTrainConfig(run), /run-\w+ is a folder; expected a configuration file \(TOML\)$/);
    writeFileSync(join(run, 'config.toml'), minimal);
    assert.throws(() => loadTrainConfig(run), /is a folder; expected .*, such as .*run-\w+\/config\.toml$/);
  });

  it('a learning rate that breaks any model is said to be one; others are not', () => {
    const notes = (lr: number) => configNotes(defineConfig({ optimizer: { lr } }));
    assert.match(notes(0.5).join(), /^optimizer\.lr = 0\.5 is very large: .*the paper has 5e-7/);
    for (const lr of [0, 5e-7, 4e-4, 0.01]) assert.deepEqual(notes(lr), []);
  });

  it('refuses an assignment that is none', () => {
    for (const wrong of ['rollout.groupSize', 'groupSize=3', 'a.b.c=1', '=3']) {
      assert.throws(() => parseAssignment(wrong), /expected section\.key=value/, wrong);
    }
    assert.deepEqual(parseAssignment('a.b=x=y'), { section: 'a', key: 'b', value: 'x=y' });
  });

  it('accepts every preset', () => {
    const presets = fileURLToPath(new URL('../../configs/', import.meta.url));
    for (const name of ['eepo', 'grpo', 'grpo-temperature', 'grpo-entropy', 'grpo-clip-higher', 'grpo-more-rollouts']) {
      const config = loadTrainConfig(join(presets, `${name}.toml`));
      assert.equal(config.unlearn.enabled, name === 'eepo', name);
      assert.match(config.model.path, /models\/countdown$/);
    }
    const names = readdirSync(presets, { recursive: true, encoding: 'utf8' });
    const configs = names.filter((name) => /^(?!presets|study).*\.toml$/.test(name) && !/sft/.test(name));
    assert.ok(configs.length > 6);
    for (const name of configs) loadTrainConfig(join(presets, name));
    const studies = names.filter((name) => /^study.*\.toml$/.test(name));
    assert.ok(studies.length > 1);
    for (const name of studies)
      assert.ok(parseStudy(readFileSync(join(presets, name), 'utf8'), name).method.length > 1);
  });
});
