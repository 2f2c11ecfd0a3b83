/** The order in which a run sees its prompts. */

/** A small generator for shuffles (mulberry32): uniform in [0, 1), the same for the same seed everywhere. */
export function uniformStream(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** 0 ... size-1 in random order (Fisher-Yates). */
export function shuffledIndices(size: number, seed: number): Int32Array {
  const order = Int32Array.from({ length: size }, (_, i) => i);
  const uniform = uniformStream(seed);
  for (let i = size - 1; i > 0; i--) {
    const j = Math.floor(uniform() * (i + 1));
    const kept = order[i] as number;
    order[i] = order[j] as number;
    order[j] = kept;
  }
  return order;
}

/** One drawn prompt. */
export interface Drawn {
  /** Index in the data set. */
  index: number;
  /** Unique over the run: epoch * size + index. Keys the random numbers of its samples. */
  id: number;
}

/** Goes through a data set epoch after epoch, each in its own order, which only (seed, epoch) decides. */
export class PromptStream {
  readonly #size: number;
  readonly #seed: number;
  #position: number;
  #epoch = -1;
  #order: Int32Array = new Int32Array();

  /** @param position - prompts drawn already; a resumed run goes on from there */
  constructor(size: number, seed: number, position = 0) {
    this.#size = size;
    this.#seed = seed;
    this.#position = position;
  }

  /** Prompts drawn so far. */
  get position(): number {
    return this.#position;
  }

  next(count: number): Drawn[] {
    return Array.from({ length: count }, () => {
      const epoch = Math.floor(this.#position / this.#size);
      if (epoch !== this.#epoch) {
        const seed = Math.imul(this.#seed, 0x9e3779b1) ^ Math.imul(epoch + 1, 0x85ebca6b);
        this.#order = shuffledIndices(this.#size, seed >>> 0);
        this.#epoch = epoch;
      }
      const index = this.#order[this.#position % this.#size] as number;
      this.#position += 1;
      return { index, id: epoch * this.#size + index };
    });
  }
}
