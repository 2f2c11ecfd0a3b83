/** Where expressions are compared: points that are the same for the same variables, whatever the order of the answers. */
import type { Rational } from '../rational.js';
import type { Point } from './arithmetic.js';

/** `naturals`: every variable counts something. `mixed`: fractions of either sign and natural numbers, in turns. */
export type Domain = 'naturals' | 'mixed';

/** No simple fraction, so that nothing special happens at these points. */
const DENOMINATOR = 97n;

export function pointAt(t: number, variables: readonly string[], domain: Domain): Point {
  const point = new Map<string, Rational>();
  for (const name of variables) point.set(name, domain === 'naturals' ? natural(t, name) : mixed(t, name));
  return point;
}

/** Small numbers first: what is too large is no value. */
function natural(t: number, name: string): Rational {
  return { numerator: 1n + BigInt(random(t, name) % (6 + 2 * Math.min(t, 12))), denominator: 1n };
}

function mixed(t: number, name: string): Rational {
  const r = random(t, name);
  switch (t % 6) {
    case 0:
      return fraction(1 + (r % 280));
    case 1:
      return fraction((r % 800) - 400);
    case 2:
      return natural(t, name);
    case 3:
      return fraction(1 + (r % 90));
    case 4:
      return fraction((r % 190) - 95);
    default:
      return fraction(300 + (r % 9000));
  }
}

const fraction = (numerator: number): Rational => ({
  numerator: BigInt(numerator === 0 ? 1 : numerator),
  denominator: DENOMINATOR,
});

/** A number of 31 bits that depends on t and the name. */
function random(t: number, name: string): number {
  let seed = 2166136261 ^ Math.imul(t + 1, 0x9e3779b1);
  for (let i = 0; i < name.length; i += 1) seed = Math.imul(seed ^ name.charCodeAt(i), 16777619);
  seed = Math.imul(seed ^ (seed >>> 16), 0x85ebca6b);
  seed = Math.imul(seed ^ (seed >>> 13), 0xc2b2ae35);
  return (seed ^ (seed >>> 16)) >>> 1;
}
