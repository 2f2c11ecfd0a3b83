/** [objective]: the loss. */
import { choice, flag, number, section } from '../config-file.js';

export const objective = section(
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
