/** [lora]: a low-rank adapter instead of all weights. */
import { z } from 'zod';
import { loraTargets } from '../../lora-targets.js';
import { flag, integer, number, section } from '../config-file.js';

export const lora = section(
  {
    rank: integer(
      0,
      { min: 0, max: 65536 },
      { doc: 'Rank of the adapter (r in PEFT); 0 = none, all weights are trained.', paper: 'not used' },
    ),
    alpha: number(
      32,
      { over: 0 },
      { doc: 'The adapter is scaled by alpha / rank (lora_alpha in PEFT).', paper: 'not used' },
    ),
    rslora: flag(false, { doc: 'Scale by alpha / sqrt(rank) instead (use_rslora in PEFT).' }),
    targets: z
      .array(z.enum(loraTargets))
      .min(1)
      .default([...loraTargets])
      .meta({
        description:
          'Which linear layers get one (target_modules in PEFT). The default is all of them, "all-linear" in PEFT.',
        expected: `a list of ${loraTargets.join(', ')}`,
        paper: 'not used',
      }),
  },
  'A low-rank adapter (LoRA): the weights stay as they are, and only the adapter is trained, forgotten with and saved ' +
    '(folder adapter, in the format of PEFT; folder model has it merged). It wants a larger lr and eta than full training.',
);
