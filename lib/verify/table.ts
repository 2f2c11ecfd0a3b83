/**
 * A table that is asked for words of a text. Unlike a plain object it has no `constructor`, `toString` and whatever else
 * objects inherit, so no answer finds a function where a value was meant.
 */
export function table<T>(entries: Readonly<Record<string, T>>): Readonly<Record<string, T>> {
  return Object.assign(Object.create(null) as Record<string, T>, entries);
}
