/** Answers in words: names, choices, times. */

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
  '\\{\\}',
]);

/** Whether the answer says that nothing solves the problem. */
export const saysNone = (cleaned: string): boolean => {
  const key = textKey(cleaned);
  return EMPTY.has(key) || /^(?:thereare|thereis)no(?:real)?solutions?$/.test(key);
};

const ONES =
  'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen'.split(
    ' ',
  );
const TENS = 'twenty thirty forty fifty sixty seventy eighty ninety'.split(' ');
const SETS: Record<string, string> = {
  allrealnumbers: '\\mathbb{R}',
  allreals: '\\mathbb{R}',
  realnumbers: '\\mathbb{R}',
  setofallrealnumbers: '\\mathbb{R}',
  allintegers: '\\mathbb{Z}',
  integers: '\\mathbb{Z}',
  setofallintegers: '\\mathbb{Z}',
};

/** The mathematics that an answer in words says, `three` and `all real numbers`; null for any other text. */
export function wordedMathematics(cleaned: string): string | null {
  if (!/^[a-z\\]/i.test(cleaned) || cleaned.length > 60) return null;
  const key = textKey(cleaned);
  if (Object.hasOwn(SETS, key)) return SETS[key] as string;
  const small = ONES.indexOf(key);
  if (small >= 0) return String(small);
  const ten = TENS.findIndex((word) => key.startsWith(word));
  if (ten < 0) return null;
  const rest = key.slice((TENS[ten] as string).length).replace(/^-/, '');
  const one = rest === '' ? 0 : ONES.slice(0, 10).indexOf(rest);
  return one < 0 || (rest !== '' && one === 0) ? null : String(20 + 10 * ten + one);
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
  const named = /^(?:option|choice|answer)\s*\(?([A-Z])\)?$/i.exec(plain);
  if (named !== null && /[A-Z]/.test(named[1] as string)) return { letter: named[1] as string, alone: true };
  const labelled = /^(?:\(([A-Z])\)|([A-Z])[).:])\s*\S/.exec(plain) ?? /^([B-Z])\s+[A-Za-z][a-z]{2}/.exec(plain);
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
