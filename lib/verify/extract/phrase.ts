/** The answer after words that announce it: "the answer is", "Final Answer:", "A:". Linear in the length of the text. */
import { lastValue } from './last-value.js';
import { mathEnd, valuesOf, withoutMath } from './values.js';

/** Every repetition is bounded: a text of nothing but line ends or "answer" takes linear time. */
const MARKERS =
  /\bfinal answer\b[*_`#\s]{0,8}(?:(?:is|are|=|[:：])[*_`\s]{0,8})*|\banswer\b(?:[^.\n:：=]{0,60}?(?:\b(?:is|are|be|equals)\b|[:：])[*_`]{0,3}[:：]?|\s{0,3}=|\s{0,3}(?=\$|\\[([]))|(?<![^\n])[*_#>\s]{0,8}(?:A|Ans)\s?[:：]|答案(?:是|为|：|:)|(?<!\p{L})(?:r[ée]ponse|respuesta|risposta|resposta|antwort|ответ|答え)(?: final[ea]?)?(?:\s+(?:est|es|è|é|ist|lautet)\b|\s?[:：—=は])|\b(?:it's|it is|(?:option|choice) is|I (?:choose|pick|select))\s+(?=(?:option |choice )?\(?[A-E]\)?(?:[.;]|\s*$))/giu;
/** Markers that are looked at, from the last. */
const MAX_MARKERS = 32;
/** How an answer does not begin: "the answer is correct", "the answer is as follows". */
const NO_ANSWER =
  /^(?:(?:in)?correct|right|wrong|not|helpful|useful|clear|obvious|unknown|as follows|found|given|obtained|then|therefore|that|in the|if|what|where|how|whether|based|supposed|expected|required)\b/i;
const FILLER =
  /^(?:option|choice|for sure|definitely|certainly|probably|most likely|approximately|about|exactly|simply|just|equal to|the|thus|therefore|then|indeed|clearly|again)\s+/i;
/** What comes after an answer in its sentence. */
const REASON =
  /[,;]?\s+(?:because|since|where|which|whereas|although|though|but|so|hence|thus|when|if|while|assuming|(?:and\s+|is\s+)?not)\b|,\s+(?=(?!and\b|or\b)[a-z]{2,}'?[a-z]*\s+[a-z]+)/;
const MAX_STATEMENT = 4_000;
/** A sentence of more words than this holds its answer somewhere in it. */
const MAX_WORDS = 4;

/** Where the last "final answer" is, or -1: it outdoes a box that comes before it. */
export function lastFinalAnswer(text: string): number {
  let at = -1;
  for (const { index } of text.matchAll(/\bfinal answer\b/gi)) at = index;
  return at;
}

/** What the last announcement in the text gives; null without one that gives anything. */
export function phraseAnswer(text: string): string | null {
  const ends: { at: number; colon: boolean }[] = [];
  for (const { index, 0: marker } of text.matchAll(MARKERS)) {
    if (/\b(?:not|cannot|can't|never)\b|n't\b/i.test(marker)) continue;
    ends.push({ at: index + marker.length, colon: !/\b(?:is|are|be|equals|=)[*_`\s]*$/i.test(marker.slice(-24)) });
    if (ends.length > 2 * MAX_MARKERS) ends.splice(0, MAX_MARKERS);
  }
  for (const { at, colon } of ends.reverse()) {
    const answer = answerOf(statementAt(text, at), colon);
    if (answer !== null) return answer;
  }
  return null;
}

/** From `from` to the end of the sentence; mathematics between delimiters is passed over. */
function statementAt(text: string, from: number): string {
  const window = text.slice(from, from + MAX_STATEMENT);
  let i = /^[\s:：*_`#>=]*/.exec(window)?.[0].length ?? 0;
  const begin = i;
  while (i < window.length) {
    const math = mathEnd(window, i);
    if (math > i) {
      i = math;
      continue;
    }
    if (endsSentence(window, i)) break;
    i += 1;
  }
  return window.slice(begin, i).trim();
}

function endsSentence(text: string, i: number): boolean {
  const c = text[i] as string;
  if ('\n。？！'.includes(c)) return true;
  if (c === '?') return true;
  return c === '.' && !/[0-9A-Za-z.]/.test(text[i + 1] ?? '');
}

function answerOf(statement: string, colon: boolean): string | null {
  let text = bare(statement);
  if (text === '' || NO_ANSWER.test(text)) return null;
  const choice = /^\(?([A-Z])\)?(?=[.,:)]|\s+(?:because|since|as|not|non|nicht)\b)(?!,\s?[-0-9A-Z\\$(])/.exec(
    text.replace(FILLER, ''),
  );
  if (choice !== null) return choice[1] as string;
  const end = indexOutsideMath(text, REASON);
  if (end > 0) text = bare(text.slice(0, end));
  if (colon) text = afterCopula(text);
  for (let i = 0; i < 3; i += 1) text = text.replace(FILLER, '');
  if (text === '') return null;
  return countWords(text) <= MAX_WORDS ? text : withinSentence(text);
}

/** "12 eggs in the basket by noon": a number and what follows it. "It comes to $5$ in all of them": the value. */
function withinSentence(text: string): string {
  const first = valuesOf(text)[0];
  if (first?.begin === 0) {
    const word = /^\s+(?!(?:and|or|in|of|for|as|by|with|to|at|on|is|are|from|than|more|less|the|a)\b)[A-Za-z%°]+/.exec(
      text.slice(first.end),
    );
    return text.slice(0, first.end + (word?.[0].length ?? 0));
  }
  return lastValue(text) ?? text;
}

/** "The maximum of $f(x)$ is 19": 19. */
function afterCopula(text: string): string {
  let rest = text;
  for (let at = indexOutsideMath(rest, COPULA); at >= 0; at = indexOutsideMath(rest, COPULA)) {
    const after = rest.slice(at).replace(COPULA, '').trim();
    if (after === '') break;
    rest = after;
  }
  return rest;
}

const COPULA = /\s(?:is|are|equals|be)\s/;

/** Where the pattern first matches outside mathematics; -1 without a match. */
function indexOutsideMath(text: string, pattern: RegExp): number {
  const visible = withoutMath(text);
  return visible.search(pattern);
}

/** How many words are outside mathematics and macros; of other scripts every letter counts. */
export function countWords(text: string): number {
  const visible = withoutMath(text).replace(MACROS, ' ');
  return (visible.match(/[A-Za-zÀ-ɏ]{2,}/g)?.length ?? 0) + (visible.match(OTHER_SCRIPTS)?.length ?? 0);
}

const MACROS = /\\(?:(?:text|mathrm|mathbf|textbf|mbox|operatorname|begin|end)\s*\{[^{}]*\}|[A-Za-z]+)/g;
const OTHER_SCRIPTS = /[Ѐ-ӿ؀-ۿऀ-ॿ぀-ヿ一-鿿가-힯]/g;

/** Without emphasis around it and punctuation after it. */
function bare(text: string): string {
  let inner = text.trim();
  for (const mark of ['**', '__', '*', '_', '`', '"']) {
    if (inner.startsWith(mark)) inner = inner.slice(mark.length).replace(mark, '').trim();
    else if (inner.endsWith(mark) && inner.length > mark.length) inner = inner.slice(0, -mark.length).trim();
  }
  return inner.replace(/(?<!\\)[.,;:]+$/, '').trim();
}
