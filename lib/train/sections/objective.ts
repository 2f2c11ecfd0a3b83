/** [objective]: the loss. */
import { KL_ESTIMATORS, type KlEstimator } from '../../algorithm/kl.js';
import { SURROGATES } from '../../algorithm/surrogate.js';
import { AGGREGATIONS, LEVELS, RATIO_MODES } from '../../algorithm/types.js';
import { choice, flag, number, section } from '../config-file.js';

const ESTIMATORS = Object.keys(KL_ESTIMATORS) as [KlEstimator, ...KlEstimator[]];

export const objective = section(
  {
    surrogate: choice(SURROGATES, 'ppo', {
      doc: '"ppo", the clipped surrogate of Eq. 2; "cispo", the clipped ratio as a weight of the log-prob: every token keeps a gradient.',
      paper: 'ppo',
    }),
    ratio: choice(RATIO_MODES, 'behavior', {
      doc: 'Denominator of Eq. 3: "behavior", the model that drew the token; "policy", theta before the update; "decoupled", clip around theta and weight by min(pi_theta/pi_behavior, decoupledCap).',
      paper: 'behavior',
    }),
    ratioLevel: choice(LEVELS, 'token', {
      doc: '"token", Eq. 3; "sequence", one ratio for all tokens of a response, their geometric mean (GSPO), with a much narrower clip.',
      paper: 'token',
    }),
    decoupledCap: number(2, { over: 0 }, { doc: 'Upper bound of the weight of ratio "decoupled".' }),
    decoupledLevel: choice(LEVELS, 'token', {
      doc: 'That weight: of each "token", or of the "sequence", the product over the tokens of a response.',
    }),
    clipLow: number(
      0.2,
      { min: 0, max: 1 },
      { doc: 'Eq. 2: the ratio is clipped below at 1 - clipLow; 1 = not at all.', paper: 'not given' },
    ),
    clipHigh: number(
      0.2,
      { min: 0 },
      { doc: 'Eq. 2: the ratio is clipped above at 1 + clipHigh.', paper: 'not given' },
    ),
    clipHighStage2: number(
      -1,
      { min: -1 },
      {
        doc: 'clipHigh of stage-2 tokens, whose ratio to what drew them is far from 1 from the first update on. Below 0 = clipHigh.',
        paper: 'clipHigh',
      },
    ),
    dualClip: number(
      0,
      { min: 0 },
      {
        doc: 'c of the dual clip, above 1: a token with a negative advantage costs at most c times it (clip_ratio_c of verl, delta of TRL). 0 = none.',
        paper: 'none',
      },
    ),
    klCoef: number(
      1e-4,
      { min: 0 },
      {
        doc: 'beta, weight of the KL penalty to the initial model; 0 = no reference model in memory.',
        paper: '1e-4',
      },
    ),
    klEstimator: choice(ESTIMATORS, 'k3', {
      doc: 'Estimator of the KL penalty (docs/objectives.md): of these, "k2" and "k3+" pull along the gradient of KL(pi, reference), "k3" along that of KL(reference, pi), "k1" on average nowhere.',
      paper: 'not given',
    }),
    entropyCoef: number(1e-5, { min: 0 }, { doc: 'lambda, weight of the entropy bonus.', paper: '1e-5' }),
    aggregation: choice(AGGREGATIONS, 'token-mean', {
      doc: 'How per-token losses become one number; always over the whole mini-batch. "seq-mean-token-sum-norm" (Dr. GRPO) divides by rollout.maxNewTokens.',
      paper: '1/sum |o_i| per question (Eq. 2)',
    }),
    advantageStd: flag(true, {
      doc: "Divide advantages by the standard deviation of the group's rewards (plus 1e-6).",
      paper: 'true',
    }),
    advantageGroup: choice(['prompt', 'stage'], 'prompt', {
      doc: 'What an advantage is relative to: all G samples of the "prompt", or those of the same "stage" of it, so that the lower rewards of stage 2 do not pay stage 1.',
      paper: 'prompt',
    }),
    stage2Weight: number(
      1,
      { min: 0 },
      { doc: 'Stage-2 tokens count so many times in the loss; the normalizer stays.', paper: '1' },
    ),
    maskTruncated: flag(false, {
      doc: 'Leave responses that were cut off at maxNewTokens out of the loss and of its normalizer; their rewards still count in the baseline of the others.',
      paper: 'not used',
    }),
  },
  'The loss (Eq. 2-3). Which keys make GRPO, Dr. GRPO, DAPO, GSPO and CISPO: docs/objectives.md, or --preset.',
);
