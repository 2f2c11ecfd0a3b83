/** What replaces the return of one token in the loss: a value and its derivative by the token's log-prob l. */

/** Log-ratios are clamped to +-20 before exp, so that no float overflows; there the gradient is 0. */
const MAX_LOG_RATIO = 20;

/** One token of a surrogate, to be minimized. */
export interface SurrogateTerm {
  /** r, after the clamp of its logarithm. */
  ratio: number;
  loss: number;
  /** d loss / d l. */
  gradient: number;
  /** Whether r was clipped: for `clippedSurrogate` the gradient is 0 there, for `cispoSurrogate` it is bounded. */
  clipped: boolean;
  /** Whether the bound of the dual clip acts: the gradient is 0 there too. */
  dualClipped: boolean;
}

/** The range of the ratio, [1 - clipLow, 1 + clipHigh]. */
export interface ClipRange {
  clipLow: number;
  clipHigh: number;
  /** c of the dual clip, above 1; null: none. */
  dualClip: number | null;
}

/**
 * PPO's clipped surrogate (Schulman et al. 2017, arXiv 1707.06347, Eq. 7), with the dual clip of Ye et al. (arXiv
 * 1912.09729, Eq. 5) where `dualClip` is a number c:
 *
 *     loss = -min(r A, clip(r, 1 - clipLow, 1 + clipHigh) A)        for A < 0: at most -c A
 *     d loss / d l = -A r, and 0 where r is clipped
 *
 * A token is clipped when A > 0 and r > 1 + clipHigh, or A < 0 and r < 1 - clipLow (strictly); the dual clip acts when
 * A < 0 and r > c. Of a ratio of the whole sequence (GSPO) this is the loss of each of its tokens.
 */
export function clippedSurrogate(logRatio: number, advantage: number, range: ClipRange): SurrogateTerm {
  const { clipLow, clipHigh, dualClip } = range;
  const ratio = boundedRatio(logRatio);
  const clipped = (advantage > 0 && ratio > 1 + clipHigh) || (advantage < 0 && ratio < 1 - clipLow);
  if (clipped) {
    const loss = -advantage * (advantage > 0 ? 1 + clipHigh : 1 - clipLow);
    return { ratio, loss, gradient: 0, clipped, dualClipped: false };
  }
  if (dualClip !== null && advantage < 0 && ratio > dualClip) {
    return { ratio, loss: -advantage * dualClip, gradient: 0, clipped, dualClipped: true };
  }
  const saturated = Math.abs(logRatio) > MAX_LOG_RATIO;
  return {
    ratio,
    loss: -advantage * ratio,
    gradient: saturated ? 0 : -advantage * ratio,
    clipped,
    dualClipped: false,
  };
}

/**
 * CISPO (MiniMax-M1, arXiv 2506.13585, Eq. 4-5): the clipped ratio is a weight, no gradient flows through it (sg), and no
 * token is left without one:
 *
 *     loss = -sg(clip(r, 1 - clipLow, 1 + clipHigh)) A l
 *     d loss / d l = -clip(r, 1 - clipLow, 1 + clipHigh) A
 *
 * The paper bounds r only above: clipLow = 1. A token counts as clipped where the bound acts, whatever the sign of A.
 */
export function cispoSurrogate(
  logRatio: number,
  advantage: number,
  { clipLow, clipHigh }: ClipRange,
  logprob: number,
): SurrogateTerm {
  const ratio = boundedRatio(logRatio);
  const weight = Math.min(Math.max(ratio, 1 - clipLow), 1 + clipHigh);
  return {
    ratio,
    loss: -weight * advantage * logprob,
    gradient: -weight * advantage,
    clipped: weight !== ratio && !Number.isNaN(ratio),
    dualClipped: false,
  };
}

export const SURROGATES = ['ppo', 'cispo'] as const;
/** 'ppo': {@link clippedSurrogate}; 'cispo': {@link cispoSurrogate}. */
export type SurrogateName = (typeof SURROGATES)[number];

function boundedRatio(logRatio: number): number {
  return Math.exp(Math.min(Math.max(logRatio, -MAX_LOG_RATIO), MAX_LOG_RATIO));
}
