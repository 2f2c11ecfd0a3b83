/** Ids of prompts by their text, so that filtering, training and evaluating tokenize each prompt once. */

/** About 64 MB of ids; the oldest leave. */
const MAX_TOKENS = 16_000_000;

export class PromptCache {
  readonly #ids = new Map<string, Int32Array>();
  #tokens = 0;

  has(key: string): boolean {
    return this.#ids.has(key);
  }

  get(key: string): number[] | undefined {
    const ids = this.#ids.get(key);
    return ids === undefined ? undefined : [...ids];
  }

  set(key: string, ids: readonly number[]): void {
    if (this.#ids.has(key)) return;
    this.#ids.set(key, Int32Array.from(ids));
    // A short prompt costs its text too.
    this.#tokens += ids.length + key.length / 4;
    for (const [oldest, list] of this.#ids) {
      if (this.#tokens <= MAX_TOKENS) break;
      this.#ids.delete(oldest);
      this.#tokens -= list.length + oldest.length / 4;
    }
  }
}
