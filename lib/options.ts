/** Options objects as plain JavaScript passes them: what is misspelt must not be ignored. */
import { distance } from 'fastest-levenshtein';
import { InvalidArgumentError } from './errors.js';

/** The keys of an options type, each with `true`: one that is missing or one too many does not compile. */
export type OptionKeys<T> = Readonly<Record<keyof T, true>>;

/**
 * Checks that `options` is an object with known keys only. Allocates nothing where all is well.
 *
 * @param known - the keys of its type: `const KEYS: OptionKeys<SampleOptions> = { temperature: true, ... }`.
 * @param where - the function, and the argument where it has several such: `tokenStats`, `policy.forget: batch`.
 * @throws InvalidArgumentError naming the key and the nearest known one, or what there is instead of an object
 */
export function checkOptions<T extends object>(options: T, known: OptionKeys<NoInfer<T>>, where: string): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new InvalidArgumentError(
      `${where} needs options { ${Object.keys(known).join(', ')} }, got ${describe(options)}`,
    );
  }
  for (const key in options) {
    if (Object.hasOwn(known, key)) continue;
    const all = Object.keys(known);
    const near = nearest(key, all);
    const hint = near === null ? `there are ${all.join(', ')}` : `did you mean ${near}?`;
    throw new InvalidArgumentError(`${where}: there is no option ${describe(key)}; ${hint}`);
  }
}

/** The nearest of `candidates`, or null where nothing is near enough to be meant. */
export function nearest(word: string, candidates: readonly string[]): string | null {
  let best: string | null = null;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const d = distance(word.toLowerCase(), candidate.toLowerCase());
    if (d < bestDistance) [best, bestDistance] = [candidate, d];
  }
  return best !== null && bestDistance <= Math.max(2, Math.floor(word.length / 3)) ? best : null;
}

/** A value in a few words, for error messages. */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
  if (typeof value === 'object') {
    const name: unknown = value.constructor?.name;
    return typeof name === 'string' && name !== '' ? `a ${name}` : 'an object';
  }
  return typeof value === 'function' ? 'a function' : String(value);
}

/** `value` if it is one of `choices`; undefined is the first. */
export function choice<T extends string>(value: T | undefined, name: string, choices: readonly [T, ...T[]]): T {
  if (value === undefined) return choices[0];
  if (choices.includes(value)) return value;
  const all = choices.map((one) => JSON.stringify(one)).join(' or ');
  throw new InvalidArgumentError(`${name} must be ${all}, got ${describe(value)}`);
}

/** Of methods that take nothing but a signal. */
export const SIGNAL: OptionKeys<{ signal?: AbortSignal }> = { signal: true };
