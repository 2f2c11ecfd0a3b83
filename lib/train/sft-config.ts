/** The configuration of supervised fine-tuning (`eepo sft`). */
import { z } from 'zod';
import { EMBEDDED_TASKS } from '../tasks/index.js';
import { pathResolver, readConfigText } from './config.js';
import {
  checkConfig,
  checkSections,
  choice,
  flag,
  integer,
  number,
  optionalModel,
  optionalPath,
  parseTomlText,
  section,
  text,
} from './config-file.js';

const run = section(
  {
    steps: integer(1000, { min: 1 }, { doc: 'Optimizer steps.' }),
    seed: integer(0, { min: 0, max: 2 ** 32 - 1 }, { doc: 'Seed of new weights and of the order of the data.' }),
  },
  'The run as a whole.',
);

const model = section(
  {
    path: optionalModel('', {
      doc: 'Folder in Hugging Face layout, or owner/name on the Hugging Face hub, whose weights are trained on.',
    }),
    revision: text('', { doc: 'Of a model on the hub: branch, tag or commit; "" is main.' }),
    create: optionalPath('', {
      doc: 'Instead of path: a folder with config.json and tokenizer.json, without weights; a new model is made of it.',
    }),
    device: choice(['auto', 'cpu', 'cuda'], 'auto', {
      doc: 'Where to compute; "auto" takes a GPU this build can use.',
    }),
  },
  'The model: exactly one of path and create.',
);

const data = section(
  {
    name: choice([...EMBEDDED_TASKS, 'jsonl'], 'jsonl', {
      doc: '"countdown" and "calculator": an endless stream of demonstrations of the embedded task; "jsonl": your own prompts and responses.',
    }),
    path: optionalPath('', { doc: 'For "jsonl": the file, one JSON object a line; may be gzipped.' }),
    promptColumn: text('prompt', { doc: 'For "jsonl": the column of the prompt.' }),
    responseColumn: text('response', { doc: 'For "jsonl": the column of the response.' }),
    appendEos: flag(true, { doc: 'End every response with the end-of-sequence token, where it has none.' }),
  },
  'The demonstrations.',
);

const optimizer = section(
  {
    lr: number(1e-5, { min: 0, max: 1 }, { doc: 'Highest learning rate of AdamW.' }),
    warmupSteps: integer(0, { min: 0 }, { doc: 'Steps over which the learning rate rises from 0, linearly.' }),
    finalLrFraction: number(0, { min: 0, max: 1 }, { doc: 'The cosine ends at this share of lr.' }),
    betas: z
      .tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)])
      .default([0.9, 0.999])
      .meta({
        description: 'Decay rates of the two moments.',
        expected: 'two numbers, each at least 0 and less than 1',
      }),
    eps: number(1e-8, { over: 0 }, { doc: 'Added to the root of the second moment.' }),
    weightDecay: number(0.01, { min: 0 }, { doc: 'Decoupled weight decay.' }),
    maxGradNorm: number(1, { min: 0 }, { doc: 'Clip of the global gradient norm; 0 = off.' }),
    batchSize: integer(64, { min: 1 }, { doc: 'Demonstrations per step.' }),
    microBatchTokens: integer(
      2048,
      { min: 1 },
      {
        doc: 'Most tokens in one forward and backward pass. Changes memory and speed, and results only in the last digits.',
      },
    ),
  },
  'The update.',
);

/** Schema of the file that `eepo sft` reads. */
export const sftSchema = z.strictObject({ run, model, data, optimizer });

/** A checked configuration; every field is there. */
export type SftConfig = z.output<typeof sftSchema>;

function crossChecks(config: SftConfig): string[] {
  const problems: string[] = [];
  if ((config.model.path === '') === (config.model.create === '')) {
    problems.push('[model] needs exactly one of path (weights to go on from) and create (a new model)');
  }
  if (config.data.name === 'jsonl' && config.data.path === '') {
    problems.push('data.path is missing; data.name = "jsonl" needs a file of demonstrations');
  }
  if (config.optimizer.warmupSteps > config.run.steps) {
    problems.push(
      `optimizer.warmupSteps = ${config.optimizer.warmupSteps} is more than run.steps = ${config.run.steps}`,
    );
  }
  return problems;
}

/**
 * Reads and checks a configuration file of `eepo sft`.
 *
 * @throws ConfigError that names every wrong key and value, and the nearest valid key
 */
export function loadSftConfig(file: string, overrides: readonly string[] = []): SftConfig {
  return checkConfig<SftConfig>(parseTomlText(readConfigText(file), file), overrides, {
    schema: sftSchema,
    source: file,
    crossChecks,
    resolvePath: pathResolver(file),
  });
}

/** Checks a configuration written in a script and fills in the defaults. */
export function defineSftConfig(input: Partial<z.input<typeof sftSchema>> = {}): SftConfig {
  checkSections(input, sftSchema, 'config');
  return checkConfig<SftConfig>(
    { ...input, model: { path: '.', ...input.model }, data: { name: 'countdown', ...input.data } },
    [],
    { schema: sftSchema, source: 'config', crossChecks },
  );
}
