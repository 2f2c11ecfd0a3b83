/** [checkpoint]: what a run goes on from. */
import { choice, integer, section, text } from '../config-file.js';

export const checkpoint = section(
  {
    every: integer(
      10,
      { min: 0 },
      {
        doc: 'Save a checkpoint after every n-th iteration and after the last one; 0 = only when the run is interrupted or fails, so that a finished run cannot be made longer. One takes 12 bytes per trained parameter.',
      },
    ),
    keepLast: integer(2, { min: 1 }, { doc: 'Checkpoints that are kept, the newest ones.' }),
    keepBest: text('', {
      doc: 'A metric such as "eval/test/greedy" or "reward/mean": the checkpoint with its best value is kept too, and is saved whatever `every` says. "" = none.',
    }),
    keepBestMode: choice(['max', 'min'], 'max', { doc: 'Whether the best value is the largest or the smallest.' }),
  },
  'Checkpoints, from which `--resume` goes on as if the run had never stopped. See docs/checkpoints.md.',
);
