/** [optimizer]: the update. */
import { z } from 'zod';
import { flag, integer, number, section } from '../config-file.js';

export const optimizer = section(
  {
    lr: number(5e-7, { min: 0, max: 1 }, { doc: 'Learning rate of AdamW, constant.', paper: '5e-7' }),
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
        doc: 'Most tokens (prompt + response) in one forward and backward pass. Changes memory and speed, and results only in the last digits (docs/determinism.md); on a CPU few tokens are fastest, because their activations stay in cache.',
      },
    ),
    maxSkippedSteps: integer(
      3,
      { min: 0 },
      {
        doc: 'A step whose loss, gradient or advantages are not finite is skipped; so many in a row end the run, with an error that names the first such tensor. 0 = never.',
        paper: 'not used',
      },
    ),
    gradientCheckpointing: flag(false, {
      doc: 'Keep only what goes into each layer, and compute the layer again for its gradient: the same results with a fraction of the memory, for about a third more time in the update.',
    }),
  },
  'The update.',
);
