/** What [objective] makes of a loss. */
import { GRPO } from '../algorithm/grpo.js';
import { bound, completeOptions } from '../algorithm/policy-loss.js';
import type { Objective } from '../algorithm/types.js';
import type { TrainConfig } from './config.js';

/** The loss that a configuration asks for. */
export function objectiveOf({ objective: o }: Pick<TrainConfig, 'objective'>): Objective {
  const options = {
    surrogate: o.surrogate,
    ratio: o.ratio,
    ratioLevel: o.ratioLevel,
    decoupledCap: o.decoupledCap,
    decoupledLevel: o.decoupledLevel,
    clipLow: o.clipLow,
    clipHigh: o.clipHigh,
    clipHighStage2: o.clipHighStage2 < 0 ? null : o.clipHighStage2,
    dualClip: o.dualClip === 0 ? null : o.dualClip,
    klCoef: o.klCoef,
    klEstimator: o.klEstimator,
    entropyCoef: o.entropyCoef,
    aggregation: o.aggregation,
    stage2Weight: o.stage2Weight,
  };
  return bound(completeOptions(options, GRPO, 'objective'));
}

/** What of [objective] does not fit together, or not with the rollout. */
export function objectiveProblems({ objective: o, rollout: r, unlearn: u }: TrainConfig): string[] {
  const problems: string[] = [];
  if (o.dualClip > 0 && o.dualClip <= 1) {
    problems.push(`objective.dualClip = ${o.dualClip}: expected a number above 1 (verl: 3), or 0 for none`);
  }
  if (o.dualClip > 0 && o.surrogate === 'cispo') {
    problems.push(
      `objective.dualClip = ${o.dualClip} bounds the clipped surrogate, which objective.surrogate = "cispo" has not; ` +
        'set objective.dualClip = 0',
    );
  }
  if (o.advantageGroup === 'stage' && u.enabled && r.groupSize < 4) {
    problems.push(
      `rollout.groupSize = ${r.groupSize}: with objective.advantageGroup = "stage" each half is a group of its own and ` +
        'needs two samples; use at least 4',
    );
  }
  return problems;
}
