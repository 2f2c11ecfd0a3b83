/** GRPO (Eq. 2-3) and the objectives that are a few options away from it, on the (a, b) interface. */
import { bound, completeOptions, type PolicyLoss, type PolicyLossOptions, policyLoss } from './policy-loss.js';
import type { Normalizer, Objective, ObjectiveResult, TokenBatch } from './types.js';

/** The options of every policy loss; the defaults named there are GRPO's. */
export type GrpoOptions = PolicyLossOptions;

/** The paper's GRPO. */
export const GRPO: PolicyLoss = {
  surrogate: 'ppo',
  clipLow: 0.2,
  clipHigh: 0.2,
  clipHighStage2: null,
  dualClip: null,
  klCoef: 1e-4,
  klEstimator: 'k3',
  entropyCoef: 1e-5,
  aggregation: 'token-mean',
  ratio: 'behavior',
  ratioLevel: 'token',
  decoupledCap: 2,
  decoupledLevel: 'token',
  stage2Weight: 1,
};

const WITHOUT_PENALTIES: PolicyLoss = { ...GRPO, klCoef: 0, entropyCoef: 0 };

/**
 * The loss that GRPO minimizes (Shao et al. 2024, arXiv 2402.03300; Eq. 2-3 of the paper):
 *
 *     L = sum_t w_t [ -c_t min(r_t A_t, clip(r_t, 1 - clipLow, 1 + clipHigh) A_t) + beta k3_t - lambda H_t ]
 *     r_t = exp(l_t - l_old_t),  c_t = 1 (or the capped weight of 'decoupled'),  w_t by `aggregation`
 *     a_t = w_t ( -c_t A_t r_t [not clipped] + beta dk3/dl ),  b_t = -w_t lambda
 *
 * A token is clipped when A > 0 and r > 1 + clipHigh, or A < 0 and r < 1 - clipLow (strictly). NaN in `logprob` reaches
 * `loss` and `a`, so the optimizer step is refused instead of something being hidden here. Metrics: {@link policyLoss}.
 */
export function grpoLoss(batch: TokenBatch, normalizer: Normalizer, options: GrpoOptions = {}): ObjectiveResult {
  return policyLoss(batch, normalizer, completeOptions(options, GRPO, 'grpo'));
}

/** `grpoLoss` with its options bound, checked once. */
export function grpo(options: GrpoOptions = {}): Objective {
  return bound(completeOptions(options, GRPO, 'grpo'));
}

/** Options of {@link drGrpo}. */
export const DR_GRPO: PolicyLoss = { ...WITHOUT_PENALTIES, aggregation: 'seq-mean-token-sum-norm' };

/**
 * Dr. GRPO (Liu et al. 2025, arXiv 2503.20783, Eq. 3): no length in the normalizer, so that long wrong answers are not
 * spared, and no KL penalty:
 *
 *     L = -1/(S L_max) sum_k sum_t min(r_t A_k, clip(r_t, 1 - clipLow, 1 + clipHigh) A_k),  A_k = R_k - mean(R)
 *
 * The advantages without the standard deviation are `groupAdvantages(rewards, G, { normalizeByStd: false })`; L_max is
 * `normalizer.maxTokens`. The paper's formula has no L_max, its code divides by a constant: a matter of the learning rate.
 */
export function drGrpo(options: PolicyLossOptions = {}): Objective {
  return bound(completeOptions(options, DR_GRPO, 'drGrpo'));
}

/** Options of {@link dapo}. */
export const DAPO: PolicyLoss = { ...WITHOUT_PENALTIES, clipHigh: 0.28 };

/**
 * DAPO's loss (Yu et al. 2025, arXiv 2503.14476, Eq. 8): every token of the batch has the same weight, the ratio may rise
 * further than it may fall, and there is no KL penalty:
 *
 *     L = -1/N sum_k sum_t min(r_t A_k, clip(r_t, 1 - 0.2, 1 + 0.28) A_k)
 *
 * DAPO is this with dynamic sampling (`rollout.dynamicSampling`) and {@link overlongPenalty} (`reward.overlongBuffer`).
 */
export function dapo(options: PolicyLossOptions = {}): Objective {
  return bound(completeOptions(options, DAPO, 'dapo'));
}

/** Options of {@link gspo}. */
export const GSPO: PolicyLoss = {
  ...WITHOUT_PENALTIES,
  ratioLevel: 'sequence',
  aggregation: 'seq-mean-token-mean',
  clipLow: 3e-4,
  clipHigh: 4e-4,
};

/**
 * GSPO (Zheng et al. 2025, arXiv 2507.18071, Eq. 5-7): ratio and clip of the whole response, geometric mean over its
 * tokens, whose range is therefore narrow:
 *
 *     L = -1/S sum_k min(s_k A_k, clip(s_k, 1 - 3e-4, 1 + 4e-4) A_k),  s_k = exp(1/T_k sum_t (l_t - l_old_t))
 *     a_t = -1/(S T_k) s_k A_k [not clipped]
 *
 * A stage-2 response of EEPO has an s_k far outside that range from the first update on: with the ratio 'behavior' it
 * teaches nothing where A > 0. Use `ratio: 'decoupled'` there, or a larger `clipHighStage2`.
 */
export function gspo(options: PolicyLossOptions = {}): Objective {
  return bound(completeOptions(options, GSPO, 'gspo'));
}

/** Options of {@link cispo}. */
export const CISPO: PolicyLoss = { ...WITHOUT_PENALTIES, surrogate: 'cispo', clipLow: 1, clipHigh: 4 };

/**
 * CISPO (MiniMax-M1 2025, arXiv 2506.13585, Eq. 4-5): every token keeps its gradient, only its weight is bounded:
 *
 *     L = -1/N sum_k sum_t sg(clip(r_t, 1 - clipLow, 1 + clipHigh)) A_k l_t,   a_t = -clip(r_t) A_k / N
 *
 * The paper has no lower bound (clipLow = 1) and does not give the upper one; 1 + clipHigh = 5 is that of ScaleRL (arXiv
 * 2510.13786) and TRL.
 */
export function cispo(options: PolicyLossOptions = {}): Objective {
  return bound(completeOptions(options, CISPO, 'cispo'));
}
