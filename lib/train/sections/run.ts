/** [run]: the run as a whole. */
import { flag, integer, section } from '../config-file.js';

export const run = section(
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
    tensorboard: flag(true, { doc: 'Write the metrics to tensorboard/ too, as event files for TensorBoard.' }),
  },
  'The run as a whole.',
);
