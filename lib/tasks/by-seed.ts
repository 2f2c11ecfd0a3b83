/** Tasks whose problems are drawn by a seed. */
import { checkOptions, type OptionKeys } from '../options.js';
import type { Task } from './types.js';

export interface SeededTaskOptions {
  /** Which problems are drawn. Default 0, the sets that the embedded policy's demonstrations leave out. */
  seed?: number;
}

const KEYS: OptionKeys<SeededTaskOptions> = { seed: true };

/** `build`, once for each seed; `name` is that of the function in errors. */
export function bySeed(name: string, build: (seed: number) => Task): (options: SeededTaskOptions) => Task {
  const tasks = new Map<number, Task>();
  return (options) => {
    checkOptions(options, KEYS, name);
    const { seed = 0 } = options;
    let task = tasks.get(seed);
    if (task === undefined) {
      task = build(seed);
      tasks.set(seed, task);
    }
    return task;
  };
}
