/**
 * What EEPO costs over GRPO as responses grow (the paper's Fig. 8): whole iterations of both in turns, every response of
 * exactly the given length, the gate open everywhere (the dearest case). Beside it the model
 *
 *     1 + 0.5 train / (generate + train)
 *
 * with the phases of the measured GRPO iteration: unlearning adds one pass forward and backward over half the samples, and
 * nothing else. What is above it is the price of two half-size generations instead of one, and of writing theta'.
 *
 *     node dist/bench/response-length.js [--lengths 16,64,256,1024] [--prompts 8] [--group 8] [--iterations 6]
 *                                        [--threads N] [--model FOLDER]
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Policy } from 'eepo';
import { benchSteps, type StepBenchResult } from '../lib/cli/bench-step.js';
import { formatTable } from '../lib/cli/common.js';
import { loadNative } from '../lib/native.js';

/** A small Llama: 3 M parameters, so that the decoder and not its overhead is timed. */
const SMALL = {
  model_type: 'llama',
  vocab_size: 4096,
  hidden_size: 192,
  intermediate_size: 512,
  num_hidden_layers: 4,
  num_attention_heads: 6,
  num_key_value_heads: 2,
  max_position_embeddings: 2048,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: true,
};

const { values } = parseArgs({
  options: {
    lengths: { type: 'string', default: '16,64,256,1024' },
    prompts: { type: 'string', default: '8' },
    group: { type: 'string', default: '8' },
    iterations: { type: 'string', default: '6' },
    threads: { type: 'string' },
    model: { type: 'string' },
    json: { type: 'string' },
  },
});

const native = loadNative();
if (values.threads !== undefined) native.setThreads(Number(values.threads));
const policy = values.model === undefined ? await Policy.create(SMALL, { seed: 0 }) : await Policy.load(values.model);
const milliseconds = (result: StepBenchResult, phases: readonly string[]): number =>
  phases.reduce((sum, phase) => sum + (result.phases[phase]?.ms ?? 0), 0);

const rows: Record<string, number>[] = [];
for (const maxNew of values.lengths.split(',').map(Number)) {
  const [grpo, eepo] = (await benchSteps(policy, { decode: () => '' }, ['grpo', 'eepo'], {
    prompts: Number(values.prompts),
    group: Number(values.group),
    maxNew,
    promptLength: 16,
    updates: 1,
    kl: 0,
    iterations: Number(values.iterations),
    warmup: 1,
    microBatchTokens: 2048,
    seed: 0,
  })) as [StepBenchResult, StepBenchResult];
  const train = milliseconds(grpo, ['update']);
  const generate = milliseconds(grpo, ['stage1']);
  rows.push({
    length: maxNew,
    grpo: grpo.ms.median,
    eepo: eepo.ms.median,
    ratio: eepo.ms.median / grpo.ms.median,
    model: 1 + (0.5 * train) / (generate + train),
    generate,
    train,
    unlearn: milliseconds(eepo, ['unlearn']),
    stages: milliseconds(eepo, ['stage1', 'stage2']),
  });
}
policy.dispose();

const { threads, isa } = native.info();
console.log(`${policy.numParameters.toLocaleString('en-US')} parameters, ${policy.device}, ${threads} threads, ${isa}`);
console.log(`${values.prompts} prompts x ${values.group} samples; milliseconds, medians of ${values.iterations}\n`);
console.log(
  formatTable(
    ['tokens', 'GRPO', 'EEPO', 'EEPO / GRPO', 'model', 'GRPO: generate', 'train', 'EEPO: generate', 'unlearn'],
    rows.map((row) => [
      `${row.length}`,
      ...[row.grpo, row.eepo].map((x) => (x as number).toFixed(0)),
      ...[row.ratio, row.model].map((x) => (x as number).toFixed(3)),
      ...[row.generate, row.train, row.stages, row.unlearn].map((x) => (x as number).toFixed(0)),
    ]),
  ),
);
if (values.json !== undefined) {
  writeFileSync(
    values.json,
    `${JSON.stringify({ machine: { threads, isa, device: policy.device }, rows }, null, 2)}\n`,
  );
}
