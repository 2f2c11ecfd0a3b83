/** The configuration of a training run: every option, its default and the paper's value (arXiv 2510.05837). */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { z } from 'zod';
import { ConfigError } from '../errors.js';
import {
  checkConfig,
  choice,
  configError,
  flag,
  integer,
  integers,
  number,
  optionalPath,
  parseTomlText,
  requiredPath,
  section,
  strings,
  text,
} from './config-file.js';

const run = section(
  {
    iterations: integer(
      132,
      { min: 1 },
      {
        doc: 'Iterations: sample, unlearn, sample, reward, update.',
        paper: '2 epochs of 8.5K prompts at 128 a time: about 132',
      },
    ),
    seed: integer(
      0,
      { min: 0, max: 2 ** 32 - 1 },
      { doc: 'Seed of everything random: the order of the prompts, sampling, evaluation.' },
    ),
    completionsEvery: integer(1, { min: 0 }, { doc: 'Write completions.jsonl in every n-th iteration; 0 = never.' }),
  },
  'The run as a whole.',
);

const model = section(
  {
    path: requiredPath({
      doc: 'Folder in Hugging Face layout: config.json, safetensors, tokenizer.json. Model types: llama, qwen2, qwen3.',
      paper: 'Qwen2.5-3B, Llama3.2-3B-Instruct, Qwen3-8B-Base',
    }),
    device: choice(['auto', 'cpu', 'cuda'], 'auto', {
      doc: 'Where to compute; "auto" takes a GPU this build can use.',
    }),
    dtype: choice(['float32'], 'float32', {
      doc: 'Type of the weights that are trained. Files in bf16 or fp16 are converted.',
    }),
  },
  'The policy.',
);

const task = section(
  {
    name: choice(['countdown', 'jsonl'], 'countdown', {
      doc: 'What is asked: "countdown" (embedded: reach a target from given numbers) or "jsonl" (your own prompts and answers).',
      paper: 'MATH levels 3-5',
    }),
    path: optionalPath('', {
      doc: 'For "jsonl": the file of training prompts, one JSON object a line; may be gzipped.',
    }),
    evalPath: optionalPath('', { doc: 'For "jsonl": the file of prompts to evaluate on.' }),
    promptColumn: text('', {
      doc: 'For "jsonl": the column of the prompt, a text or a list of chat messages. Empty = the first of prompt, problem, question.',
    }),
    answerColumn: text('', {
      doc: 'For "jsonl": the column of the gold answer. Empty = the first of answer, answers.',
    }),
    template: text('{prompt}', {
      doc: 'For "jsonl": what the policy is given; {prompt} stands for the text of the row.',
    }),
    reward: choice(['math', 'exact'], 'math', {
      doc: 'For "jsonl": "math", the final answer is mathematically equal to the gold one; "exact", the trimmed response is.',
      paper: 'a rule-based verifier of the final answer',
    }),
    maxPromptTokens: integer(
      1024,
      { min: 1 },
      { doc: 'Prompts with more tokens are left out, and their number is reported.', paper: '1024' },
    ),
  },
  'What is asked and how it is rewarded: 1 for a right final answer, 0 otherwise (Eq. 1).',
);

const rollout = section(
  {
    promptsPerIteration: integer(128, { min: 1 }, { doc: 'Prompts per iteration.', paper: '128' }),
    groupSize: integer(
      8,
      { min: 2 },
      { doc: 'G, samples per prompt. EEPO draws half of them in each stage, so G must be even there.', paper: '8' },
    ),
    maxNewTokens: integer(4096, { min: 1 }, { doc: 'Tokens after which a response is cut off.', paper: '4096' }),
    temperature: number(
      1,
      { over: 0 },
      { doc: 'Sampling temperature; the loss is computed at the same one.', paper: 'not given' },
    ),
    stopTokens: integers(
      [],
      { min: 0 },
      { doc: 'Token ids that end a response. Empty = the end-of-sequence ids of the model folder.' },
    ),
  },
  'Sampling. All of it is from the full distribution: top-p 1, no top-k, as exact ratios need.',
);

const unlearn = section(
  {
    enabled: flag(true, { doc: 'true is EEPO: sample G/2, forget, sample G/2. false is GRPO.', paper: 'true' }),
    eta: number(
      3e-3,
      { min: 0 },
      { doc: "Step size of the one ascent step theta' = theta + eta grad L (Eq. 11).", paper: '3e-3' },
    ),
    alpha: number(
      0.3,
      { over: 0 },
      { doc: 'Gate: only where the mean entropy over the window is below this many nats (Eq. 5).', paper: '0.3' },
    ),
    window: integer(
      3,
      { min: 1 },
      { doc: 'm, the length of the gate\'s window (Eq. 4), in tokens or, for gate "step", iterations.', paper: '3' },
    ),
    gate: choice(['token', 'step', 'token+step', 'always', 'never'], 'token', {
      doc: 'Reading of the gate: "token" as in Eq. 4-5 and 10; "step" on the mean entropy of the last m iterations, as in Algorithm 1; both; every token; none.',
      paper: 'leaves it open',
    }),
    epsLow: number(1e-6, { min: 0, max: 0.5 }, { doc: 'Lower clip of p in Eq. 9.', paper: 'not given' }),
    epsHigh: number(
      1e-5,
      { min: 0, max: 0.5 },
      { doc: 'Upper clip, 1 - p, in Eq. 9. A large value exempts the most dominant tokens.', paper: 'not given' },
    ),
    clampGrad: choice(['zero', 'saturate'], 'zero', {
      doc: 'Gradient of clipped tokens: "zero" as automatic differentiation of a clamp gives, or that of the bound.',
      paper: 'leaves it open',
    }),
    normalize: choice(['none', 'gradNorm'], 'none', {
      doc: '"gradNorm" divides the gradient by its global norm, so that eta is the length of the step.',
      paper: 'none',
    }),
    probeTokens: integer(
      256,
      { min: 0 },
      { doc: 'Stage-1 tokens whose log-prob is measured again after the step (unlearn/stage1_logp_delta); 0 = none.' },
    ),
  },
  'The temporary unlearning between the two stages of the rollout (Eq. 9-11).',
);

const objective = section(
  {
    ratio: choice(['behavior', 'policy', 'decoupled'], 'behavior', {
      doc: 'Denominator of Eq. 3: "behavior", the model that drew the token; "policy", theta before the update; "decoupled", clip around theta and weight by min(pi_theta/pi_behavior, decoupledCap).',
      paper: 'behavior',
    }),
    decoupledCap: number(2, { over: 0 }, { doc: 'Upper bound of the weight of ratio "decoupled".' }),
    clipLow: number(
      0.2,
      { min: 0, max: 0.99 },
      { doc: 'Eq. 2: the ratio is clipped below at 1 - clipLow.', paper: 'not given' },
    ),
    clipHigh: number(
      0.2,
      { min: 0 },
      { doc: 'Eq. 2: the ratio is clipped above at 1 + clipHigh.', paper: 'not given' },
    ),
    klCoef: number(
      1e-4,
      { min: 0 },
      {
        doc: 'beta, weight of the KL penalty to the initial model (estimator k3); 0 = no reference model in memory.',
        paper: '1e-4',
      },
    ),
    entropyCoef: number(1e-5, { min: 0 }, { doc: 'lambda, weight of the entropy bonus.', paper: '1e-5' }),
    aggregation: choice(['token-mean', 'seq-mean-token-mean', 'seq-mean-token-sum'], 'token-mean', {
      doc: 'How per-token losses become one number; always over the whole mini-batch.',
      paper: '1/sum |o_i| per question (Eq. 2)',
    }),
    advantageStd: flag(true, {
      doc: "Divide advantages by the standard deviation of the group's rewards (plus 1e-6).",
      paper: 'true',
    }),
  },
  'The loss (Eq. 2-3).',
);

const optimizer = section(
  {
    lr: number(5e-7, { min: 0 }, { doc: 'Learning rate of AdamW, constant.', paper: '5e-7' }),
    betas: z
      .tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)])
      .default([0.9, 0.999])
      .meta({
        description: 'Decay rates of the two moments.',
        expected: 'two numbers, each at least 0 and less than 1',
        paper: 'not given',
      }),
    eps: number(1e-8, { over: 0 }, { doc: 'Added to the root of the second moment.', paper: 'not given' }),
    weightDecay: number(0.01, { min: 0 }, { doc: 'Decoupled weight decay.', paper: 'not given' }),
    maxGradNorm: number(1, { min: 0 }, { doc: 'Clip of the global gradient norm; 0 = off.', paper: 'not given' }),
    miniBatchPrompts: integer(
      64,
      { min: 1 },
      {
        doc: 'Prompts per optimizer step; must divide rollout.promptsPerIteration, or be larger: then all of them in one step.',
        paper: '64',
      },
    ),
    epochs: integer(1, { min: 1 }, { doc: "Passes over an iteration's samples.", paper: '1' }),
    microBatchTokens: integer(
      2048,
      { min: 1 },
      {
        doc: 'Most tokens (prompt + response) in one forward and backward pass. Changes memory and speed, not results; on a CPU few tokens are fastest, because their activations stay in cache.',
      },
    ),
  },
  'The update.',
);

const evaluation = section(
  {
    every: integer(0, { min: 0 }, { doc: 'Evaluate after every n-th iteration; 0 = never.' }),
    atStart: flag(false, { doc: 'Evaluate before the first iteration too.' }),
    atEnd: flag(false, { doc: 'Evaluate after the last iteration, whatever `every` says.' }),
    splits: strings([], { doc: 'Splits of the task to evaluate on. Empty = all but "train".' }),
    maxProblems: integer(300, { min: 1 }, { doc: 'Problems per split that are decoded greedily, the first ones.' }),
    sampleProblems: integer(100, { min: 1 }, { doc: 'Of these, the problems that are sampled, the first ones.' }),
    greedy: flag(true, { doc: 'Accuracy of greedy decoding.', paper: 'pass@1 by greedy decoding' }),
    samplesPerPrompt: integer(
      64,
      { min: 0 },
      { doc: 'Samples per problem for pass@k and distinct solutions; 0 = none.' },
    ),
    passK: integers(
      [1, 8, 64],
      { min: 1 },
      { doc: 'The k of the unbiased pass@k; those above samplesPerPrompt are left out.' },
    ),
    temperature: number(1, { over: 0 }, { doc: 'Temperature of the samples.', paper: '1.0' }),
    maxNewTokens: integer(
      0,
      { min: 0 },
      { doc: 'Tokens after which a response is cut off; 0 = rollout.maxNewTokens.' },
    ),
  },
  "Evaluation of the policy (never of theta').",
);

/** Schema of the file that `eepo train` reads. */
export const trainSchema = z.strictObject({
  run,
  model,
  task,
  rollout,
  unlearn,
  objective,
  optimizer,
  eval: evaluation,
});

/** A checked configuration; every field is there. */
export type TrainConfig = z.output<typeof trainSchema>;

/** What may be left out is optional: the argument of {@link defineConfig}. */
export type TrainConfigInput = z.input<typeof trainSchema>;

/** Checks that need more than one field. */
export function crossChecks(config: TrainConfig): string[] {
  const { rollout: r, unlearn: u, optimizer: o, task: t } = config;
  const problems: string[] = [];
  if (u.enabled && r.groupSize % 2 !== 0) {
    problems.push(
      `rollout.groupSize = ${r.groupSize}: EEPO draws half of the group in each stage and needs an even number; ` +
        `use ${r.groupSize + 1} or set unlearn.enabled = false`,
    );
  }
  if (o.miniBatchPrompts < r.promptsPerIteration && r.promptsPerIteration % o.miniBatchPrompts !== 0) {
    problems.push(
      `optimizer.miniBatchPrompts = ${o.miniBatchPrompts} does not divide rollout.promptsPerIteration = ${r.promptsPerIteration}`,
    );
  }
  if (t.name === 'jsonl' && t.path === '')
    problems.push('task.path is missing; task.name = "jsonl" needs a file of prompts');
  if (!t.template.includes('{prompt}')) {
    problems.push(`task.template = ${JSON.stringify(t.template)}: expected a text that contains {prompt}`);
  }
  return problems;
}

/** Paths of a file are relative to the file, those of --set to the working directory. */
export function pathResolver(file: string): (path: string, fromCommandLine: boolean) => string {
  const folder = dirname(resolve(file));
  return (path, fromCommandLine) => (isAbsolute(path) ? path : fromCommandLine ? resolve(path) : join(folder, path));
}

/** Reads the text of a configuration file; a missing one is a ConfigError that names it. */
export function readConfigText(file: string): string {
  if (!existsSync(file)) throw new ConfigError(`${file}: no such configuration file`);
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new ConfigError(`${file}: cannot be read (${(error as Error).message})`, { cause: error });
  }
}

/**
 * Reads and checks a configuration file.
 *
 * @param overrides - `section.key=value` with TOML values, as of `--set`; the last one wins
 * @throws ConfigError that names every wrong key and value, and the nearest valid key
 */
export function loadTrainConfig(file: string, overrides: readonly string[] = []): TrainConfig {
  return checkConfig<TrainConfig>(parseTomlText(readConfigText(file), file), overrides, {
    schema: trainSchema,
    source: file,
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
  const raw = { ...input, model: { path: '.', ...input.model } };
  return checkConfig<TrainConfig>(raw as Record<string, unknown>, [], {
    schema: trainSchema,
    source: 'config',
    crossChecks,
  });
}

/** Checks that need the model: prompt and response must fit into its context. */
export function checkContext(config: TrainConfig, longestPrompt: number, maxPositions: number): void {
  if (longestPrompt + config.rollout.maxNewTokens <= maxPositions) return;
  throw configError('config', [
    `rollout.maxNewTokens = ${config.rollout.maxNewTokens} and the longest prompt (${longestPrompt} tokens) do not fit ` +
      `into the model's context of ${maxPositions} tokens; use at most ${Math.max(0, maxPositions - longestPrompt)} new tokens ` +
      'or a smaller task.maxPromptTokens',
  ]);
}
