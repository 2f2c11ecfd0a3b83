/** The iteration with the best value of a metric, as `checkpoint.keepBest` asks. */
import { nearest } from '../options.js';
import type { TrainConfig } from './config.js';
import type { Metrics } from './metrics.js';

export interface Best {
  metric: string;
  iteration: number;
  value: number;
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
