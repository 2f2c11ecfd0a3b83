/** Finding the final answer in a response. Linear in the length of the text, whatever it holds; nothing here throws. */
import { InvalidArgumentError } from '../errors.js';
import { checkOptions, type OptionKeys } from '../options.js';
import { boxedAnswer, findBoxes } from './extract/boxed.js';
import { lastValue, statedValue } from './extract/last-value.js';
import { lastFinalAnswer, phraseAnswer } from './extract/phrase.js';

/**
 * A way to find the answer.
 * - 'tag': what is between the last `<answer>` and `</answer>`, or the answer in it
 * - 'boxed': the last `\boxed{...}` or `\fbox{...}` that is closed
 * - 'hash': what follows the last `####` of a line, as in GSM8K
 * - 'phrase': what follows the last "the answer is", "Final Answer:", "A:"
 * - 'number': the last value of the text, a number or a piece of mathematics
 */
export type ExtractStrategy = 'tag' | 'boxed' | 'hash' | 'phrase' | 'number';

export interface ExtractOptions {
  /** What is tried, in this order; the first that finds an answer decides. Default: all, in the order above. */
  strategies?: readonly ExtractStrategy[];
  /** 'boxed': only a box counts, whatever is written after it. For training: no other text can earn a reward. */
  strict?: 'boxed';
  /**
   * What a reasoning model writes up to `</think>`. 'fallback': counts only where nothing follows it. 'never': does not
   * count, nor does reasoning that was cut off. 'always': is text like any other. Default 'fallback'.
   */
  thinking?: 'fallback' | 'never' | 'always';
}

export const EXTRACT_KEYS: OptionKeys<ExtractOptions> = { strategies: true, strict: true, thinking: true };
const STRATEGIES: readonly ExtractStrategy[] = ['tag', 'boxed', 'hash', 'phrase', 'number'];
const THINKING = ['fallback', 'never', 'always'];

/** Where a chat's turn ends: what a model writes after it is another turn. */
const END_OF_TURN = /<\|(?:im_start|im_end|endoftext|eot_id|end_of_text|start_header_id)\|>|<\/s>/g;

/**
 * The final answer a response gives, as it is written there: spaces, dollar signs and units are left to
 * {@link equivalent}. Null where the response gives none, '' where it gives an empty one (`\boxed{}`).
 *
 * The last statement counts, so that listing guesses earns nothing: the last box, the last "the answer is". Boxes with
 * only commas, "and", "or" or labels between them are one answer of several values, joined by commas:
 * `$x = \boxed{3}$ and $y = \boxed{4}$` gives `3, 4`. A "final answer" after the last box outdoes the box (not with
 * `strict`). A box that is never closed is no answer, and nothing in it counts.
 *
 * @throws InvalidArgumentError for an unknown option; never because of the response
 */
export function extractAnswer(response: string, options: ExtractOptions = {}): string | null {
  const { strategies, thinking } = checked(options);
  const text = withoutThinking(firstTurn(response), thinking);
  const tagged = strategies.includes('tag') ? taggedText(text) : null;
  if (tagged !== null) return statedAnswer(tagged) ?? tagged;
  return untagged(text, strategies);
}

function checked(options: ExtractOptions): { strategies: readonly ExtractStrategy[]; thinking: string } {
  checkOptions(options, EXTRACT_KEYS, 'extractAnswer');
  const { strategies = STRATEGIES, strict, thinking = 'fallback' } = options;
  const unknown = strategies.find((strategy) => !STRATEGIES.includes(strategy));
  if (unknown !== undefined || strategies.length === 0) {
    throw new InvalidArgumentError(
      `strategies must be a list of ${STRATEGIES.join(', ')}, got ${JSON.stringify(strategies)}`,
    );
  }
  if (strict !== undefined && strict !== 'boxed') {
    throw new InvalidArgumentError(`strict must be 'boxed' or absent, got ${JSON.stringify(strict)}`);
  }
  if (!THINKING.includes(thinking)) {
    throw new InvalidArgumentError(`thinking must be one of ${THINKING.join(', ')}, got ${JSON.stringify(thinking)}`);
  }
  return { strategies: strict === undefined ? strategies : [strict], thinking };
}

function untagged(text: string, strategies: readonly ExtractStrategy[]): string | null {
  const boxes = findBoxes(text);
  // What is in a box that was cut off may be half an answer.
  const whole = boxes.unclosed < 0 ? text : text.slice(0, boxes.unclosed);
  const find = (strategy: ExtractStrategy): string | null => {
    if (strategy === 'boxed') return boxedAnswer(boxes);
    if (strategy === 'hash') return hashAnswer(whole);
    if (strategy === 'phrase') return phraseAnswer(whole);
    return strategy === 'number' ? lastValue(whole) : null;
  };
  for (const strategy of strategies) {
    const answer = find(strategy);
    if (answer === null) continue;
    if (strategy === 'boxed' && strategies.includes('phrase')) return laterFinalAnswer(whole, boxes.last) ?? answer;
    return answer;
  }
  return null;
}

/** "Final Answer: ..." after the last box. */
function laterFinalAnswer(text: string, boxes: readonly { end: number }[]): string | null {
  const end = boxes.at(-1)?.end ?? 0;
  const after = text.slice(end);
  return lastFinalAnswer(after) < 0 ? null : phraseAnswer(after);
}

function firstTurn(text: string): string {
  for (const { index } of text.matchAll(END_OF_TURN)) {
    const turn = text.slice(0, index);
    if (/[^\s]/.test(turn) && !/^\s*<\|[a-z_]+\|>\s*[a-z]*\s*$/.test(turn.slice(0, 200))) return turn;
  }
  return text;
}

function withoutThinking(text: string, thinking: string): string {
  if (thinking === 'always') return text;
  const closed = text.lastIndexOf('</think>');
  const after = closed < 0 ? text : text.slice(closed + '</think>'.length);
  const reopened = after.indexOf('<think>');
  if (thinking === 'never') return reopened < 0 ? after : after.slice(0, reopened);
  return /\S/.test(after) ? after : text;
}

/** Between the last `<answer>` and the `</answer>` after it; null without both. */
function taggedText(text: string): string | null {
  const close = text.lastIndexOf('</answer>');
  const open = close < 0 ? -1 : text.lastIndexOf('<answer>', close);
  return open < 0 ? null : text.slice(open + '<answer>'.length, close).trim();
}

/** After the last `####`, unless that is a heading: a heading has text after its line. */
function hashAnswer(text: string): string | null {
  let at = -1;
  for (const { index } of text.matchAll(/(?<!#)####(?!#)/g)) at = index;
  if (at < 0) return null;
  const [line = '', ...rest] = text
    .slice(at + 4, at + 4 + 2_000)
    .trim()
    .split('\n');
  const isHeading = rest.some((further) => /\S/.test(further)) && !/^[-−$\\(]*\s?[0-9.]/.test(line.trim());
  return isHeading || line.trim() === '' ? null : line.trim().replace(/(?<!\\)[.,;:]+$/, '');
}

/**
 * The content of the last box of a text that is closed, braces balanced (`\{` is no brace), as in
 * {@link extractAnswer}; null without one.
 */
export function lastBoxed(text: string): string | null {
  return boxedAnswer(findBoxes(text));
}

/**
 * The answer that a sentence states, or null: a box, "the answer is", or a value that it says outright (see
 * {@link extractAnswer} for a whole response, whose last value counts however it is said). For texts that should be bare
 * answers and are not: "Therefore we get 3" states 3, "divisible by 3" states nothing.
 */
export function statedAnswer(whole: string): string | null {
  const text = withoutThinking(whole, 'fallback');
  const boxes = findBoxes(text);
  if (boxes.last.length > 0) return boxedAnswer(boxes);
  if (boxes.unclosed >= 0) return text.slice(boxes.unclosed).replace(/^\\+(?:boxed|fbox)\s*\{?/, '');
  return hashAnswer(text) ?? phraseAnswer(text) ?? statedValue(text);
}
