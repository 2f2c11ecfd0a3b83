/** Words of language among letters: which runs of letters are no product of variables. */
import { isUnitWord } from './units.js';

const COMMON = new Set(
  'yes no true false none odd even neither both all not is are the of in on to by at be as an it its so we has have and or if per sq east west north south pm am pct'.split(
    ' ',
  ),
);
const VOWEL = /[aeiouy]/i;

/** Whether `run` (letters without a backslash, not a function's name) is a word: a unit, a common word, or long. */
export function isWord(run: string): boolean {
  if (run.length === 1) return false;
  const lower = run.toLowerCase();
  if (COMMON.has(lower) || isUnitWord(lower)) return true;
  if (run.length < 4)
    return (
      run.length === 3 &&
      /^[A-Z]?[a-z]+$/.test(run) &&
      VOWEL.test(run) &&
      !/^[a-e]+$|^[u-z]+$|^[p-t]+$/.test(run) &&
      !/(.)\1/.test(run) &&
      THREE.has(lower)
    );
  // Four capitals name a polygon, and a polygon's name is one thing as well.
  return VOWEL.test(run) && /^[A-Z]?[a-z]+$|^[A-Z]+$/.test(run);
}

const THREE = new Set(
  'mon tue wed thu fri sat sun jan feb mar apr may jun jul aug sep oct nov dec dog cat day man men boy one two six ten red big few'.split(
    ' ',
  ),
);
