/** A training run on disk: what it reads, the folder it writes, and the loop between the two. */
import { appendFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ConfigError } from '../errors.js';
import type { MemoryPlan } from '../memory/fit.js';
import { checkOptions, type OptionKeys, SIGNAL } from '../options.js';
import type { PolicyLike } from '../policy.js';
import type { Task } from '../tasks/types.js';
import type { Tokenizer } from '../tokenizer.js';
import type { TrainConfig } from './config.js';
import { configToToml } from './config-file.js';
import { makeEvaluator } from './evaluation.js';
import type { Metrics } from './metrics.js';
import { type Iteration, Trainer, type TrainerEvent, type TrainSample } from './trainer.js';

/**
 * The files of a run. None is ever half-written: whole files are written beside their place and renamed, metrics and
 * completions grow by whole lines.
 *
 *     config.toml         every option, defaults filled in
 *     metrics.jsonl       one object per iteration
 *     completions.jsonl   { iteration, problem, prompt, response, stage, reward, advantage, finishReason }; of several rewards
 *                         also what each gave: rewards
 *     evals/              evals/iteration-<n>/<set>/responses.jsonl and summary.json, as `eepo eval` writes them
 *     model/              the final weights in Hugging Face layout, with the tokenizer
 *     summary.json        written last: a run that has it is complete
 */
export class RunDirectory {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** @throws ConfigError when the folder has files already, so that no run is overwritten */
  static create(path: string): RunDirectory {
    if (existsSync(path) && readdirSync(path).length > 0) {
      throw new ConfigError(`${path} is not empty; give another folder with --out, or remove this one`);
    }
    mkdirSync(path, { recursive: true });
    return new RunDirectory(path);
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** Writes a whole file, or leaves what was there. */
  write(name: string, content: string): void {
    const temporary = this.file(`.${name}.${process.pid}.tmp`);
    writeFileSync(temporary, content);
    renameSync(temporary, this.file(name));
  }

  /** Appends one JSON object a line, all lines in one write. */
  appendLines(name: string, rows: readonly object[]): void {
    if (rows.length === 0) return;
    appendFileSync(this.file(name), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  }

  /** Writes weights, config and tokenizer to `name`, which appears only when it is complete. */
  async saveModel(name: string, policy: Pick<PolicyLike, 'save'>, tokenizer: Pick<Tokenizer, 'save'>): Promise<string> {
    const temporary = this.file(`.${name}.${process.pid}.tmp`);
    rmSync(temporary, { recursive: true, force: true });
    await policy.save(temporary);
    await tokenizer.save(temporary);
    const target = this.file(name);
    rmSync(target, { recursive: true, force: true });
    renameSync(temporary, target);
    return target;
  }
}

/** `2026-05-01T09-30-00`, for folder names. */
export function timestamp(date = new Date()): string {
  return date.toISOString().slice(0, 19).replaceAll(':', '-');
}

/** `runs/<name of the configuration>-<time>`. */
export function defaultRunPath(configFile: string): string {
  return join('runs', `${basename(configFile, '.toml')}-${timestamp()}`);
}

/** What a run needs, loaded. */
export interface LoadedRun {
  policy: PolicyLike;
  tokenizer: Tokenizer;
  task: Task;
  /** Its bound of the key-value cache is used where rollout.cacheTokens is 0. */
  memory?: MemoryPlan;
}

export interface TrainRunOptions extends LoadedRun {
  config: TrainConfig;
  /** The folder of the run; must be new or empty. */
  out: string;
  signal?: AbortSignal;
  onEvent?: (event: TrainerEvent) => void;
  /** Called after every iteration, once its line is on disk. */
  onIteration?: (iteration: Iteration) => void;
}

const KEYS: OptionKeys<TrainRunOptions> = {
  policy: true,
  tokenizer: true,
  task: true,
  memory: true,
  config: true,
  out: true,
  onEvent: true,
  onIteration: true,
  ...SIGNAL,
};

export interface RunSummary {
  path: string;
  iterations: number;
  seconds: number;
  /** Metrics of the evaluation before the first iteration; empty without one. */
  first: Metrics;
  /** Metrics of the last iteration. */
  last: Metrics;
  /** SHA-256 of the final weights. */
  weights: string;
  /** Every iteration, without samples. */
  history: { iteration: number; metrics: Metrics }[];
}

/** One line of completions.jsonl. */
export function completionRow(iteration: number, sample: TrainSample): object {
  return {
    iteration,
    problem: sample.problem.id,
    prompt: sample.problem.prompt,
    response: sample.response,
    stage: sample.stage,
    reward: sample.reward,
    ...(sample.rewards === undefined ? {} : { rewards: sample.rewards }),
    advantage: sample.advantage,
    finishReason: sample.finishReason,
  };
}

/** A cache that holds every response at its longest may not fit: then it has the bound that was planned. */
function withinMemory(config: TrainConfig, memory: MemoryPlan | undefined): TrainConfig {
  const { rollout } = config;
  if (rollout.cacheTokens > 0 || memory === undefined) return config;
  return { ...config, rollout: { ...rollout, cacheTokens: memory.options.cacheTokens } };
}

/**
 * Trains and writes a run folder. What can be found wrong is found before the folder is made; what goes wrong later
 * leaves the lines of all finished iterations.
 */
export async function trainRun(options: TrainRunOptions): Promise<RunSummary> {
  checkOptions(options, KEYS, 'trainRun');
  const { policy, tokenizer, task, signal } = options;
  const config = withinMemory(options.config, options.memory);
  const { evaluate, check } = makeEvaluator(policy, tokenizer, task, config, signal, options.out);
  const trainer = new Trainer({
    policy,
    tokenizer,
    task,
    config,
    evaluate,
    ...(signal === undefined ? {} : { signal }),
    ...(options.onEvent === undefined ? {} : { onEvent: options.onEvent }),
  });
  const { tooLong } = await trainer.prepare();
  await check();
  const run = RunDirectory.create(options.out);
  run.write('config.toml', configToToml(config));
  const start = performance.now();
  const history: RunSummary['history'] = [];
  for await (const iteration of trainer) {
    const { metrics, samples } = iteration;
    run.appendLines('metrics.jsonl', [{ iteration: iteration.iteration, ...metrics }]);
    const every = config.run.completionsEvery;
    if (every > 0 && iteration.iteration % every === 0) {
      run.appendLines(
        'completions.jsonl',
        samples.map((sample) => completionRow(iteration.iteration, sample)),
      );
    }
    history.push({ iteration: iteration.iteration, metrics });
    options.onIteration?.(iteration);
  }
  await run.saveModel('model', policy, tokenizer);
  if (policy.adapter) await policy.saveAdapter?.(run.file('adapter'));
  const summary: RunSummary = {
    path: run.path,
    iterations: trainer.iteration,
    seconds: (performance.now() - start) / 1000,
    first: history[0]?.iteration === 0 ? history[0].metrics : {},
    last: history.at(-1)?.metrics ?? {},
    weights: await policy.hash(),
    history,
  };
  const { history: _, path: __, ...rest } = summary;
  run.write(
    'summary.json',
    `${JSON.stringify({ ...rest, promptsLeftOut: tooLong, node: process.version }, null, 2)}\n`,
  );
  return summary;
}
