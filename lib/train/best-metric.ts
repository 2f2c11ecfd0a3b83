/** The iteration with the best value of a metric, as `checkpoint.keepBest` asks. */
import { nearest } from '../options.js';
import type { TrainConfig } from './config.js';
import type { Metrics } from './metrics.js';

export interface Best {
  metric: string;
  iteration: number;
  value: number;
}

/** What evaluations measure of every set, as the configuration has it; see `evaluationMetrics`. */
function measured({ greedy, samplesPerPrompt: n, passK }: TrainConfig['eval']): string[] {
  const ks = passK.filter((k) => k <= n);
  const sampled = [`avg@${n}`, ...ks.map((k) => `pass@${k}`), ...ks.filter((k) => k > 1).map((k) => `maj@${k}`)];
  return [
    ...(greedy ? ['greedy', 'greedy_length'] : []),
    ...(n > 0 ? [...sampled, 'entropy', 'response_length', 'distinct', 'distinct_algebraic'] : []),
    ...['truncated_frac', 'undecided', 'missing'],
  ];
}

/** Set and metric of `eval/<set>/<metric>`; null for any other. */
function evaluated(metric: string): { set: string; name: string } | null {
  const [, set, name] = /^eval\/([^/]+)\/(.+)$/.exec(metric) ?? [];
  return set === undefined || name === undefined ? null : { set, name };
}

const quoted = (metric: string): string => `checkpoint.keepBest = ${JSON.stringify(metric)}`;

/** Why the metric of `keepBest` can never be seen, as far as the configuration says; null: it may be. */
export function keepBestProblem({ checkpoint: { keepBest }, eval: e, run }: TrainConfig): string | null {
  if (!keepBest.startsWith('eval/')) return null;
  const metric = evaluated(keepBest);
  if (metric === null) return `${quoted(keepBest)}: expected eval/<set>/<metric>, such as "eval/test/greedy"`;
  if (!e.atEnd && (e.every === 0 || e.every > run.iterations)) {
    return `${quoted(keepBest)}: nothing is evaluated after an iteration; set eval.every${e.every > 0 ? ` to at most run.iterations = ${run.iterations}` : ''}`;
  }
  const names = measured(e);
  const isFeature =
    (metric.name.startsWith('task/') && e.samplesPerPrompt > 0) || (metric.name.startsWith('greedy_task/') && e.greedy);
  if (names.includes(metric.name) || isFeature) return null;
  const near = nearest(metric.name, names);
  return (
    `${quoted(keepBest)}: [eval] does not measure ${JSON.stringify(metric.name)}; ` +
    (near === null ? `it measures ${names.join(', ')}` : `did you mean "eval/${metric.set}/${near}"?`)
  );
}

/** The same for the set, once it is known which there are. */
export function keepBestSetProblem(keepBest: string, sets: readonly string[]): string | null {
  const metric = evaluated(keepBest);
  if (metric === null || sets.includes(metric.set)) return null;
  return `${quoted(keepBest)}: ${JSON.stringify(metric.set)} is not evaluated; there is ${sets.join(', ')}`;
}

export class BestMetric {
  readonly #metric: string;
  readonly #sign: 1 | -1;
  #best: Best | null = null;
  #warned = false;

  constructor({ keepBest, keepBestMode }: Pick<TrainConfig['checkpoint'], 'keepBest' | 'keepBestMode'>) {
    this.#metric = keepBest;
    this.#sign = keepBestMode === 'max' ? 1 : -1;
  }

  get current(): Best | null {
    return this.#best;
  }

  /** Of the best value; null: none was seen. */
  get iteration(): number | null {
    return this.#best?.iteration ?? null;
  }

  /** What a checkpoint remembers, if it is of the same metric. */
  restore(best: Best | null): void {
    this.#best = best?.metric === this.#metric ? best : null;
  }

  /** Of equal values the earlier one is the best. */
  see(iteration: number, metrics: Metrics): void {
    if (this.#metric === '') return;
    const value = metrics[this.#metric];
    if (value === undefined) {
      this.#warn(metrics);
      return;
    }
    if (this.#best === null || this.#sign * (value - this.#best.value) > 0) {
      this.#best = { metric: this.#metric, iteration, value };
    }
  }

  /** A name that is misspelt would keep nothing, silently. */
  #warn(metrics: Metrics): void {
    const names = Object.keys(metrics);
    const evaluated = names.some((name) => name.startsWith('eval/'));
    if (this.#warned || this.#best !== null || (this.#metric.startsWith('eval/') && !evaluated)) return;
    this.#warned = true;
    const near = nearest(this.#metric, names);
    process.emitWarning(
      `checkpoint.keepBest = "${this.#metric}": no such metric in this iteration${near === null ? '' : `; did you mean "${near}"?`}`,
      'EepoCheckpointWarning',
    );
  }
}
