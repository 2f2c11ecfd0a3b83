/** What the method of a configuration is called. */

/** Of a configuration what its name depends on; that of a run folder may lack any of it. */
export interface NamedConfig {
  unlearn?: { readonly [key: string]: unknown } | undefined;
  rollout?: { readonly [key: string]: unknown } | undefined;
  objective?: { readonly [key: string]: unknown } | undefined;
}

/**
 * `EEPO` where the run unlearns, and else what distinguishes its objective: `CISPO`, `GSPO` (ratios of sequences), `DAPO`
 * (dynamic sampling), `Dr. GRPO` (advantages that are not divided by their deviation), or `GRPO`.
 */
export function methodName({ unlearn, rollout, objective }: NamedConfig): string {
  const base = objectiveName(rollout, objective);
  if (unlearn?.enabled !== true) return base;
  return base === 'GRPO' ? 'EEPO' : `EEPO with ${base}`;
}

function objectiveName(rollout: NamedConfig['rollout'], objective: NamedConfig['objective']): string {
  if (objective?.surrogate === 'cispo') return 'CISPO';
  if (objective?.ratioLevel === 'sequence') return 'GSPO';
  if (Number(rollout?.dynamicSampling ?? 0) > 0) return 'DAPO';
  return objective?.advantageStd === false ? 'Dr. GRPO' : 'GRPO';
}
