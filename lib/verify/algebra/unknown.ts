/** Stand-ins for functions nobody defined: `f(x)` is a smooth function that satisfies no identity by accident. */

/** c0 + sum over arguments of c1 sin(c2 x + c3 + k) + c4 (k + 1) x: numbers that depend on the name alone. */
export function coefficients(name: string): [number, number, number, number, number] {
  let seed = 2166136261;
  for (let i = 0; i < name.length; i += 1) seed = Math.imul(seed ^ name.charCodeAt(i), 16777619);
  const next = (): number => {
    seed = Math.imul(seed ^ (seed >>> 15), 2246822519);
    seed ^= seed >>> 13;
    return 0.5 + (seed >>> 8) / 2 ** 24;
  };
  // Few bits each, so that they are the same numbers in every arithmetic.
  const short = (): number => Math.round(next() * 4096) / 4096;
  return [short(), short(), short(), short(), short()];
}
