/** Answers in words: names, choices, times. */
import { table } from './table.js';

/** What is left of a text answer when spelling goes: spaces, braces, quotes, faces, articles, and case in words. */
export function textKey(cleaned: string): string {
  const plain = cleaned
    .replace(
      /\\(?:text[a-z]*|mathrm|mathbf|mathit|mathsf|mbox|operatorname|boxed|fbox|emph|rm|bf|it)(?![a-zA-Z])\s*\*?/g,
      '',
    )
    .replace(/[{}$"`]|\\[ ,;:!]|\*\*/g, '');
  const words = plain.trim().replace(/^(?:the|an?) (?=[a-z]{2})/i, '');
  const key = words
    .replace(/(\d)\s+(?=\d)/g, '$1_')
    .replace(/\s+/g, '')
    .replace(/^[.,;:]+|[.,;:]+$/g, '');
  return isLanguage(key) || key === 'DNE' ? (SYNONYMS.get(key.toLowerCase()) ?? key.toLowerCase()) : key;
}

/** Words rather than letters: `Yes` is `yes`, but `AB` is not `ab`. */
function isLanguage(key: string): boolean {
  if (/^no$/i.test(key)) return true;
  return /^[a-z][a-z0-9.,:-]{2,}$/i.test(key) && (/[a-z]{3}/.test(key) || /^[A-Z]?[a-z]+$/.test(key));
}

const EMPTY = new Set([
  'nosolution',
  'nosolutions',
  'norealsolution',
  'norealsolutions',
  'emptyset',
  'norealroots',
  'norealroot',
  '\\emptyset',
  '\\varnothing',
]);

/** Whether the answer says that nothing solves the problem. */
export const saysNone = (cleaned: string): boolean => {
  const key = textKey(cleaned);
  return /^\\\{\s*\\\}$/.test(cleaned) || EMPTY.has(key) || /^(?:thereare|thereis)no(?:real)?solutions?$/.test(key);
};

const ONES =
  'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen'.split(
    ' ',
  );
const TENS = 'twenty thirty forty fifty sixty seventy eighty ninety'.split(' ');
const SETS = table<string>({
  allrealnumbers: '\\mathbb{R}',
  allreals: '\\mathbb{R}',
  realnumbers: '\\mathbb{R}',
  setofallrealnumbers: '\\mathbb{R}',
  allintegers: '\\mathbb{Z}',
  integers: '\\mathbb{Z}',
  setofallintegers: '\\mathbb{Z}',
});

/** The mathematics that an answer in words says, `three` and `all real numbers`; null for any other text. */
export function wordedMathematics(cleaned: string): string | null {
  if (!/^[a-z\\]/i.test(cleaned) || cleaned.length > 60) return null;
  const key = textKey(cleaned);
  if (key in SETS) return SETS[key] as string;
  const except = /^(?:the )?(?:set of )?(?:all )?real(?:s| numbers) (?:except|but|other than)(?: for)? (\S.*)$/i.exec(
    cleaned.replace(/\\text\s*\{([^{}]*)\}/g, '$1'),
  );
  if (except !== null) return `\\mathbb{R}\\setminus\\{${(except[1] as string).replace(/^[a-z] *= */, '')}\\}`;
  return wordedNumber(cleaned);
}

const SCALES = new Map([
  ['thousand', 1e3],
  ['million', 1e6],
  ['billion', 1e9],
]);
const PARTS = 'half third quarter fifth sixth seventh eighth ninth tenth'.split(' ');

/** `twenty-one`, `two hundred and five`, `three quarters`; null for any other text. */
function wordedNumber(cleaned: string): string | null {
  const plain = cleaned.replace(/^\\(?:text[a-z]*|mathrm|mbox)\s*\{([^{}]*)\}$/, '$1');
  if (!/^[a-z -]+$/i.test(plain)) return null;
  const words = plain
    .toLowerCase()
    .split(/[ -]+/)
    .filter((word) => word !== '');
  const part = (words.at(-1) ?? '')
    .replace(/^halves$/, 'half')
    .replace(/^fourth/, 'quarter')
    .replace(/s$/, '');
  const denominator = PARTS.indexOf(part) + 2;
  if (words.length > 1 && denominator > 1) {
    const numerator = countOf(words.slice(0, -1));
    const plural = /s$/.test(words.at(-1) as string);
    return numerator === null || plural !== numerator > 1 ? null : `\\frac{${numerator}}{${denominator}}`;
  }
  const count = countOf(words);
  return count === null ? null : String(count);
}

function countOf(words: string[]): number | null {
  if (words.length === 1 && words[0] === 'zero') return 0;
  let total = 0;
  let current = 0;
  for (const [k, word] of words.entries()) {
    const one = ONES.indexOf(word);
    const ten = TENS.indexOf(word);
    // Ones stand after tens, and both after hundreds.
    if (one > 0 && (one < 10 ? current % 10 === 0 && current % 100 !== 10 : current % 100 === 0)) current += one;
    else if (ten >= 0 && current % 100 === 0) current += 20 + 10 * ten;
    else if (word === 'hundred' && current > 0 && current < 100) current *= 100;
    else if (SCALES.has(word) && current > 0) {
      total += current * (SCALES.get(word) as number);
      current = 0;
    } else if (word !== 'and' || k === 0 || k === words.length - 1 || (current + total) % 100 !== 0) return null;
  }
  return total + current === 0 ? null : total + current;
}

const SYNONYMS = new Map([
  ['dne', 'doesnotexist'],
  ['infinitelymanysolutions', 'infinitelymany'],
]);

/** The letter of a multiple choice: `A`, `(A)`, `A.`, `(A) 5 apples`; null for anything else. */
export function choiceOf(cleaned: string): { letter: string; alone: boolean } | null {
  const plain = cleaned
    .replace(/\\(?:text[a-z]*|mathrm|mathbf|mbox|boxed)(?![a-zA-Z])\s*/g, '')
    .replace(/[{}]/g, '')
    .trim();
  const alone = /^\(?([A-Z])\)?$/.exec(plain);
  if (alone !== null) return { letter: alone[1] as string, alone: true };
  const named = /^(?:the )?(?:correct |final )?(?:option|choice|answer)(?: is)?\s*:?\s*\(?([A-Z])\)?$/i.exec(plain);
  if (named !== null && /[A-Z]/.test(named[1] as string)) return { letter: named[1] as string, alone: true };
  const labelled =
    /^(?:\(([A-Z])\)|([A-Z])[).:])\s*\S/.exec(plain) ??
    /^([B-Z])\s+[A-Za-z][a-z]{2}/.exec(plain) ??
    /^([A-Z])(?=\p{Script=Han})/u.exec(plain);
  return labelled === null ? null : { letter: (labelled[1] ?? labelled[2]) as string, alone: false };
}

export interface ClockTime {
  fields: string;
  half: 'am' | 'pm' | '';
}

/** `3:30`, `4:51:06 p.m.`, `9 AM`; null for anything else. A ratio looks the same, so both sides must be times. */
export function timeOf(cleaned: string): ClockTime | null {
  const plain = cleaned
    .replace(/\\(?:text[a-z]*|mathrm|mbox)(?![a-zA-Z])\s*/g, '')
    .replace(/[{}\s.]/g, '')
    .toLowerCase();
  const match = /^(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?([ap]m)?(?:est|edt|pst|gmt)?$/.exec(plain);
  if (match === null) return null;
  const [, hour, minute, second, half] = match;
  if (minute === undefined && half === undefined) return null;
  if (Number(hour) > 24 || Number(minute ?? 0) > 59 || Number(second ?? 0) > 59) return null;
  return { fields: `${Number(hour)}:${minute ?? '00'}:${second ?? '00'}`, half: (half ?? '') as ClockTime['half'] };
}
