/** Ordinary comparisons for `eepo bench verify`: no two alike, so that nothing is found in a cache. */
import type { VerifyItem } from '../verify/judge.js';

/** Spellings of an answer and of its gold, by a number; every third is not equal. */
const KINDS: readonly ((n: number) => [prediction: string, gold: string])[] = [
  (n) => [`${n}`, `${n}`],
  (n) => [`${n}.50`, `\\frac{${2 * n + 1}}{2}`],
  (n) => [`\\dfrac{${n}}{7}`, `${n}/7`],
  (n) => [(n * 1000).toLocaleString('en-US'), `${n}000`],
  (n) => [`\\left(${n}, \\frac{1}{3}\\right)`, `(${n},1/3)`],
  (n) => [`${n}\\sqrt{2}`, `\\sqrt{${2 * n * n}}`],
  (n) => [`[${n}, \\infty)`, `x \\ge ${n}`],
  (n) => [`x^2 + ${n}x`, `x(x+${n})`],
  (n) => [`${n} \\text{ cm}`, `${n}`],
  (n) => [`\\{${n}, ${n + 1}\\}`, `${n + 1}, ${n}`],
];
const REASONING = 'We add the terms one after the other, which is easy, and simplify what is left. ';

/** Case i of the benchmark: a response of about `characters` characters, and its gold answer. */
export function ordinaryCase(i: number, characters: number): VerifyItem {
  const make = KINDS[i % KINDS.length] as (n: number) => [string, string];
  const n = 100 + Math.floor(i / KINDS.length);
  const [prediction, gold] = make(n);
  const other = make(n + 1)[1];
  const response = `${REASONING.repeat(Math.ceil(characters / REASONING.length))}Therefore $\\boxed{${prediction}}$.`;
  return { response, gold: i % 3 === 2 ? other : gold };
}
