/** The configuration of a training run: every option, its default and the paper's value (arXiv 2510.05837). */
import { closeSync, existsSync, openSync, readSync, statSync } from 'node:fs';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { z } from 'zod';
import { ConfigError } from '../errors.js';
import { BENCHMARK_NAMES } from '../eval/benchmarks.js';
import { isRepoName } from '../hub/index.js';
import { cacheTokensFor } from '../memory/estimate.js';
import { nearest } from '../options.js';
import { isHubUri } from '../tasks/data/source.js';
import { isEmbedded } from '../tasks/index.js';
import { keepBestProblem } from './best-metric.js';
import { checkConfig, checkSections, configError, parseTomlText } from './config-file.js';
import { objectiveProblems } from './objective.js';
import { withPresets } from './presets.js';
import { checkpoint } from './sections/checkpoint.js';
import { evaluation } from './sections/evaluation.js';
import { lora } from './sections/lora.js';
import { model } from './sections/model.js';
import { objective } from './sections/objective.js';
import { optimizer } from './sections/optimizer.js';
import { reward } from './sections/reward.js';
import { rollout } from './sections/rollout.js';
import { run } from './sections/run.js';
import { task } from './sections/task.js';
import { unlearn } from './sections/unlearn.js';

/** Schema of the file that `eepo train` reads. */
export const trainSchema = z.strictObject({
  run,
  model,
  lora,
  task,
  reward,
  rollout,
  unlearn,
  objective,
  optimizer,
  eval: evaluation,
  checkpoint,
});

/** A checked configuration; every field is there. */
export type TrainConfig = z.output<typeof trainSchema>;

/** What may be left out is optional: the argument of {@link defineConfig}. */
export type TrainConfigInput = z.input<typeof trainSchema>;

/** Checks that need more than one field. */
export function crossChecks(config: TrainConfig): string[] {
  const { rollout: r, unlearn: u, optimizer: o } = config;
  const problems: string[] = [];
  if (u.enabled && r.groupSize % 2 !== 0) {
    problems.push(
      `rollout.groupSize = ${r.groupSize}: EEPO draws half of the group in each stage and needs an even number; ` +
        `use ${r.groupSize + 1} or set unlearn.enabled = false`,
    );
  }
  if (u.memory > 0 && u.scope === 'prompt') {
    problems.push('unlearn.memory keeps one theta\' for all prompts; leave it 0 with unlearn.scope = "prompt"');
  }
  if (o.miniBatchPrompts < r.promptsPerIteration && r.promptsPerIteration % o.miniBatchPrompts !== 0) {
    problems.push(
      `optimizer.miniBatchPrompts = ${o.miniBatchPrompts} does not divide rollout.promptsPerIteration = ${r.promptsPerIteration}`,
    );
  }
  if (o.lr * o.weightDecay > 1) {
    problems.push(
      `optimizer.weightDecay = ${o.weightDecay}: with optimizer.lr = ${o.lr} every step would turn the weights around`,
    );
  }
  problems.push(...objectiveProblems(config), ...taskProblems(config), ...evalProblems(config));
  const best = keepBestProblem(config);
  if (best !== null) problems.push(best);
  return problems;
}

function taskProblems({ task: t, reward: r }: TrainConfig): string[] {
  const problems: string[] = [];
  if (['jsonl', 'parquet', 'verl'].includes(t.name) && t.path.length === 0) {
    problems.push(`task.path is missing; task.name = "${t.name}" needs a file of prompts`);
  }
  if (t.template !== '' && !t.template.includes('{prompt}')) {
    problems.push(`task.template = ${JSON.stringify(t.template)}: expected a text that contains {prompt}`);
  }
  if (r.verifier === 'none' && r.module === '') {
    problems.push('reward.verifier = "none" leaves nothing that rewards; give a reward.module');
  }
  if (isEmbedded(t.name) && !['auto', 'none'].includes(r.verifier)) {
    problems.push(`reward.verifier = "${r.verifier}": task.name = "${t.name}" has a verifier of its own; use "auto"`);
  }
  return problems;
}

/** What an evaluation would find out after the weights are loaded. */
function evalProblems({ eval: e }: TrainConfig): string[] {
  if (e.every === 0 && !e.atStart && !e.atEnd) return [];
  const problems = e.benchmarks
    .filter((name) => !BENCHMARK_NAMES.includes(name))
    .map((name) => {
      const near = nearest(name, BENCHMARK_NAMES);
      const hint = near === null ? `there are ${BENCHMARK_NAMES.join(', ')}` : `did you mean "${near}"?`;
      return `eval.benchmarks: there is no benchmark ${JSON.stringify(name)}; ${hint}`;
    });
  if (!e.greedy && e.samplesPerPrompt === 0) {
    problems.push('eval: nothing to measure; set eval.greedy = true or eval.samplesPerPrompt above 0');
  }
  return problems;
}

/**
 * Paths of a file are relative to the file, those of --set to the working directory. `owner/name` stays what it is
 * where a model is expected and no such folder is there.
 */
export function pathResolver(file: string): (path: string, fromCommandLine: boolean, isModel?: boolean) => string {
  const folder = dirname(resolve(file));
  return (path, fromCommandLine, isModel = false) => {
    if (isAbsolute(path) || isHubUri(path)) return path;
    const local = fromCommandLine ? resolve(path) : join(folder, path);
    return isModel && isRepoName(path) && !existsSync(local) ? path : local;
  };
}

/** Reads the text of a configuration file; a missing one, or a folder, is a ConfigError that names it. */
export function readConfigText(file: string): string {
  if (!existsSync(file)) throw new ConfigError(`${file}: no such configuration file`);
  if (statSync(file).isDirectory()) {
    const inside = join(file, 'config.toml');
    throw new ConfigError(
      `${file} is a folder; expected a configuration file (TOML)${existsSync(inside) ? `, such as ${inside}` : ''}`,
    );
  }
  let bytes: Buffer;
  try {
    bytes = readAtMost(file, MAX_CONFIG_BYTES + 1);
  } catch (error) {
    throw new ConfigError(`${file}: cannot be read (${(error as Error).message})`, { cause: error });
  }
  if (bytes.length > MAX_CONFIG_BYTES) {
    throw new ConfigError(`${file}: longer than ${MAX_CONFIG_BYTES} bytes; expected a configuration file (TOML)`);
  }
  return bytes.toString('utf8');
}

const MAX_CONFIG_BYTES = 2 ** 20;

/** The beginning of a file, which may be a pipe (`<(...)` of a shell) or have no end. */
function readAtMost(file: string, limit: number): Buffer {
  const handle = openSync(file, 'r');
  try {
    const bytes = Buffer.alloc(limit);
    let at = 0;
    for (let read = 1; read > 0 && at < limit; at += read) read = readSync(handle, bytes, at, limit - at, null);
    return bytes.subarray(0, at);
  } finally {
    closeSync(handle);
  }
}

/**
 * Reads and checks a configuration file. What wins: the defaults < the file < presets < overrides.
 *
 * @param overrides - `section.key=value` with TOML values, as of `--set`; the last one wins
 * @param presets - algorithms by name (configs/presets), as of `--preset`, laid over the file; the last one wins
 * @throws ConfigError that names every wrong key and value, and the nearest valid key
 */
export function loadTrainConfig(
  file: string,
  overrides: readonly string[] = [],
  presets: readonly string[] = [],
): TrainConfig {
  const raw = withPresets(parseTomlText(readConfigText(file), file), presets);
  return checkConfig<TrainConfig>(raw, overrides, {
    schema: trainSchema,
    source: [file, ...presets.map((name, i) => `${i === 0 ? 'with ' : ''}--preset ${name}`)].join(' '),
    crossChecks,
    resolvePath: pathResolver(file),
  });
}

/**
 * Checks a configuration written in a script and fills in the defaults. `model` may be left out: a script that hands
 * its own policy to the trainer has loaded it already.
 *
 *     const config = defineConfig({ rollout: { groupSize: 16 }, optimizer: { lr: 1e-6 } });
 */
export function defineConfig(input: Partial<TrainConfigInput> = {}): TrainConfig {
  checkSections(input, trainSchema, 'config');
  const raw = { ...input, model: { path: '.', ...input.model } };
  return checkConfig<TrainConfig>(raw as Record<string, unknown>, [], {
    schema: trainSchema,
    source: 'config',
    crossChecks,
  });
}

/** Checks that need the model: prompt and response must fit into its context and into the cache. */
export function checkContext(config: TrainConfig, longestPrompt: number, maxPositions: number): void {
  const { maxNewTokens, cacheTokens } = config.rollout;
  if (longestPrompt + maxNewTokens > maxPositions) {
    throw configError('config', [
      `rollout.maxNewTokens = ${maxNewTokens} and the longest prompt (${longestPrompt} tokens) do not fit ` +
        `into the model's context of ${maxPositions} tokens; use at most ${Math.max(0, maxPositions - longestPrompt)} new tokens ` +
        'or a smaller task.maxPromptTokens',
    ]);
  }
  const needed = cacheTokensFor(longestPrompt, maxNewTokens);
  if (cacheTokens > 0 && cacheTokens < needed) {
    throw configError('config', [
      `rollout.cacheTokens = ${cacheTokens} cannot hold the longest prompt (${longestPrompt} tokens) and one response of ` +
        `rollout.maxNewTokens = ${maxNewTokens}; it needs at least ${needed}`,
    ]);
  }
}
