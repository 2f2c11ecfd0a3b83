/** A small seeded generator for data: the same numbers on every machine. Sampling of tokens uses the native one. */
import { InvalidArgumentError } from '../errors.js';

/** Sfc32 (Chris Doty-Humphrey's small fast counter generator), seeded by (seed, stream). */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** @param stream separates uses of one seed from each other */
  constructor(seed: number, stream = 0) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new InvalidArgumentError(`seed must be an integer of at least 0, got ${seed}`);
    }
    this.#a = seed >>> 0;
    this.#b = Math.floor(seed / 2 ** 32) >>> 0;
    this.#c = stream >>> 0;
    for (let i = 0; i < 16; i += 1) this.#next32();
  }

  /** Uniform in [0, 1), 32 bits. */
  next(): number {
    return this.#next32() / 2 ** 32;
  }

  /** Uniform in 0 .. n - 1. */
  int(n: number): number {
    return Math.floor(this.next() * n);
  }

  /** Shuffles in place (Fisher-Yates) and returns the array. */
  shuffle<T>(array: T[]): T[] {
    for (let i = array.length - 1; i > 0; i -= 1) {
      const j = this.int(i + 1);
      [array[i], array[j]] = [array[j] as T, array[i] as T];
    }
    return array;
  }

  #next32(): number {
    const sum = (this.#a + this.#b + this.#counter) >>> 0;
    this.#counter = (this.#counter + 1) >>> 0;
    this.#a = (this.#b ^ (this.#b >>> 9)) >>> 0;
    this.#b = (this.#c + (this.#c << 3)) >>> 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) >>> 0;
    return sum;
  }
}
