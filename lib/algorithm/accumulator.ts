/** Metrics whose value over a mini-batch is exact although they are gathered micro-batch by micro-batch. */

interface Entry {
  kind: 'mean' | 'max';
  sum: number;
  count: number;
  max: number;
}

/**
 * Named means (kept as sum and count) and maxima. Merging accumulators of parts gives the accumulator of the whole.
 *
 *     const total = new MetricAccumulator();
 *     for (const part of microBatches) total.merge(objective(part, normalizer).metrics);
 *     total.values();   // { 'actor/ratio/stage1/mean': 1.0002, ... }
 */
export class MetricAccumulator {
  readonly #entries = new Map<string, Entry>();

  /** Adds `sum` of `count` values to the mean called `name`. A count of 0 leaves the metric out of `values()`. */
  addMean(name: string, sum: number, count: number): void {
    const entry = this.#entry(name, 'mean');
    entry.sum += sum;
    entry.count += count;
  }

  /** Raises the maximum called `name` to at least `value`. */
  addMax(name: string, value: number): void {
    const entry = this.#entry(name, 'max');
    entry.max = Math.max(entry.max, value);
    entry.count += 1;
  }

  /** Adds another accumulator into this one. */
  merge(other: MetricAccumulator): this {
    for (const [name, from] of other.#entries) {
      const into = this.#entry(name, from.kind);
      into.sum += from.sum;
      into.count += from.count;
      into.max = Math.max(into.max, from.max);
    }
    return this;
  }

  /** The value of one metric, or undefined if nothing was added to it. */
  get(name: string): number | undefined {
    const entry = this.#entries.get(name);
    if (entry === undefined || entry.count === 0) return undefined;
    return entry.kind === 'max' ? entry.max : entry.sum / entry.count;
  }

  /** All metrics that have a value, in the order they were first named. */
  values(): Record<string, number> {
    const out: Record<string, number> = {};
    for (const name of this.#entries.keys()) {
      const value = this.get(name);
      if (value !== undefined) out[name] = value;
    }
    return out;
  }

  #entry(name: string, kind: Entry['kind']): Entry {
    let entry = this.#entries.get(name);
    if (entry === undefined) {
      entry = { kind, sum: 0, count: 0, max: Number.NEGATIVE_INFINITY };
      this.#entries.set(name, entry);
    }
    return entry;
  }
}
