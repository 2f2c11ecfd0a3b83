/** The last value of a text: what a response without any sign of a final answer ends with. */
import { valuesOf, withoutMath } from './values.js';

/** Only the end of a text is searched, first the shorter one. */
const TAILS = [4_000, 32_000];

/** "It is not 5" gives no 5. */
const NEGATED = /(?:\b(?:not|cannot|can't|never)|n't|≠)\s+(?:be\s+|equal\s+(?:to\s+)?)?$/i;
/** Words that make another number of the one they stand before or after: they are part of the value. */
const BEFORE =
  /\b(?:(?:(?:square|cube|fourth|fifth)\s+)?root|log|logarithm|sine|cosine|tangent|reciprocal|half|third|quarter|square|cube|factorial|negative|minus|twice|double|triple)\s+(?:of\s+)?$/i;
const AFTER =
  /^\s+(?:hundred|thousand|million|billion|trillion|dozen|gross|score|pairs?|hal(?:f|ves)|thirds?|fourths?|quarters?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|hundredths?|thousandths?|percent|squared|cubed|factorial|below\s+zero)\b/i;

/**
 * The last value of a text that is not denied, or null. A variable by itself (`$x$`) is a value only where there is no
 * other; of a calculation (`35 + 70 = 105`) what it comes to is the value.
 */
export function lastValue(text: string): string | null {
  const last = findLast(text);
  return last === null ? null : result(last);
}

/**
 * The last value of a sentence that says outright that this is it: after "is", "we get", a colon or an equals sign, with
 * no condition, alternative or comparison anywhere. Null for "an even function with 3 zeros". In a language whose words
 * are not known the last value counts.
 */
export function statedValue(sentence: string): string | null {
  const last = findLast(sentence);
  if (last === null) return null;
  const words = withoutMath(last.before).replace(DENIED, ' ');
  const states = STATES.test(last.before) || IS_THE_ANSWER.test(last.after);
  const isStated = OTHER_LANGUAGE.test(words) || (states && !HEDGES.test(words));
  return isStated ? result(last) : null;
}

/** `$x > 5$ is the solution`. */
const IS_THE_ANSWER =
  /^[\s$*]*(?:is|are)\s+(?:the|our|my)\s+(?:(?:final|correct|only|required|desired)\s+)?(?:solutions?|answers?|results?)\b/i;
/** "Not 10" says that another number follows. */
const DENIED = /\b(?:not|n't)\s+[-\d.,]+(?=\s)/gi;
const STATES =
  /(?:\b(?:is|it's|are|equals?|equal\s+to|was|be|being|becomes?|that|get|gets|got|gives?|obtain|obtained|have|has|est|es|ist)|[:=：])[\s*_($[]*$/i;
const HEDGES =
  /\b(?:if|unless|when|whenever|not|no|or|either|neither|nor|all|any|every|some|only|less|greater|more|fewer|least|most|than|between|divisible|multiple|except)\b/i;
/** Two letters of another script, or a word with an accent. */
const OTHER_LANGUAGE = /(?:(?!\p{ASCII})\p{L}){2}|(?<!\p{L})(?=\p{L}{3})\p{L}*[à-öø-ÿ]/iu;

/** The last value and what comes before it. */
function findLast(text: string): (Candidate & { before: string; after: string }) | null {
  for (const length of TAILS) {
    const tail = fromWhole(text, length);
    const values = valuesOf(tail)
      .map(({ begin, end, math }) => withWords(tail, begin, end, math))
      .filter(({ begin }) => !NEGATED.test(tail.slice(Math.max(0, begin - 24), begin)));
    const last = values.findLast((value) => !value.math || !isVariable(value.text)) ?? values.at(-1);
    if (last !== undefined) {
      const after = tail.slice(last.begin + last.text.length);
      return { ...last, before: tail.slice(0, last.begin), after };
    }
    if (text.length <= length) break;
  }
  return null;
}

const result = ({ math, text }: Candidate): string => (math ? resultOf(text) : text);

interface Candidate {
  begin: number;
  text: string;
  /** Mathematics between delimiters and nothing else. */
  math: boolean;
}

function withWords(text: string, begin: number, end: number, math: boolean): Candidate {
  const before = BEFORE.exec(text.slice(Math.max(0, begin - 40), begin))?.[0].length ?? 0;
  const after = AFTER.exec(text.slice(end, end + 40))?.[0].length ?? 0;
  return { begin: begin - before, text: text.slice(begin - before, end + after), math: math && before + after === 0 };
}

/** The end of a text, from the beginning of a line or of a word. */
function fromWhole(text: string, length: number): string {
  if (text.length <= length) return text;
  const tail = text.slice(-length);
  const line = tail.indexOf('\n');
  const start = line >= 0 && line < length / 2 ? line : tail.search(/\s/);
  return start < 0 ? tail : tail.slice(start);
}

const inside = (math: string): string => math.replace(/^(?:\$\$?|\\[([])|(?:\$\$?|\\[)\]])$/g, '').trim();
const isVariable = (math: string): boolean => /^\\?[A-Za-z]*$/.test(inside(math));

/** Of `5 \times 6 = 30` the 30; an equation about variables stays whole. */
function resultOf(math: string): string {
  const content = inside(math);
  const at = content.lastIndexOf('=');
  if (at < 0) return math;
  const result = content.slice(at + 1).trim();
  const before = content.slice(0, at);
  const isCalculation = !hasVariable(before) || before.includes('=');
  return result !== '' && isCalculation && !hasVariable(result) && balanced(result) ? `$${result}$` : math;
}

const hasVariable = (math: string): boolean =>
  /[A-Za-z]/.test(math.replace(/\\(?:text|mathrm|mbox|textbf)\s*\{[^{}]*\}|\\[A-Za-z]+/g, ''));

function balanced(text: string): boolean {
  let depth = 0;
  for (const c of text) {
    if ('([{'.includes(c)) depth += 1;
    else if (')]}'.includes(c)) depth -= 1;
    if (depth < 0) return false;
  }
  return depth === 0;
}
