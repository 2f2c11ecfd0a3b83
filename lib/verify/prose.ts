/** Telling an answer from a sentence that states one. */

import { isUnitWord } from './units.js';
import { isJoiningWord } from './words.js';

const MATH = /(\$\$?)[^$]*\1|\\\([^()]*(?:\([^()]*\)[^()]*)*\\\)|\\\[[^[\]]*(?:\[[^[\]]*\][^[\]]*)*\\\]/g;
const ALLOWED = new Set(
  'percent pct percentage square cubic sq per of the sin cos tan cot sec csc log ln exp sqrt pi arcsin arccos arctan mod gcd lcm max min floor ceil abs no yes solution solutions'.split(
    ' ',
  ),
);
/** In plain text so many words are a sentence. */
const SENTENCE = 3;

/** Whether a text is a sentence (or several boxes) rather than an answer, so that it is not to be read as mathematics. */
export function isProse(raw: string): boolean {
  if ((raw.match(/\\(?:boxed|fbox)(?![a-zA-Z])/g) ?? []).length > 1) return true;
  if (!/[a-zA-Z]{2}/.test(raw)) return false;
  const segments = raw.match(MATH);
  if (segments === null) return strangeWords(withoutCommands(raw)) >= SENTENCE && /[a-z]{2,} [a-z]{2,}/i.test(raw);
  const first = raw.indexOf(segments[0] as string);
  return (
    strangeWords(withoutCommands(raw.slice(0, first))) > 0 || strangeWords(withoutCommands(raw.replace(MATH, ' '))) > 1
  );
}

/** Whether an answer may be looked for in a text that is no mathematics as it stands. */
export function mayBeProse(raw: string): boolean {
  if (/\\(?:boxed|fbox)(?![a-zA-Z])/.test(raw)) return true;
  const outside = raw.replace(MATH, ' ');
  const words = withoutCommands(outside).match(/\p{L}{2,}/gu) ?? [];
  // Words of another language are a sentence sooner: nothing of ours looks like them.
  const needed = outside !== raw ? 1 : /(?!\p{ASCII})\p{L}/u.test(outside) ? 2 : SENTENCE;
  if (words.length >= needed) return true;
  return /(?:(?!\p{ASCII})\p{L}){2}/u.test(outside);
}

const withoutCommands = (text: string): string => text.replace(/\\[a-zA-Z]+(?:\{[^{}]*\})?/g, ' ');

/** Words that are no unit, function or conjunction. */
function strangeWords(text: string): number {
  const words = text.match(/(?<![a-zA-Z'])[a-zA-Z]{2,}(?![a-zA-Z'])/g) ?? [];
  return words
    .map((word) => word.toLowerCase())
    .filter((word) => !isJoiningWord(word) && !isUnitWord(word) && !ALLOWED.has(word)).length;
}
