/** `\boxed{...}` in a text. Linear in its length. */

/** A box that is closed: where its macro begins and ends, and what is in it. */
interface Box {
  begin: number;
  end: number;
  content: string;
}

export interface Boxes {
  /** The boxes of the last group of boxes: those with nothing but commas, "and", "or" and labels (`y =`) between them. */
  last: readonly Box[];
  /** Where a box begins that the text does not close, after all that are closed; -1 without one. */
  unclosed: number;
}

/** Between the boxes of one answer. Its length is bounded before it is matched. */
const CONNECTOR =
  /^(?:[\s$,;&]|\\[,;:!()[\]\\]|\\q?quad(?![a-zA-Z])|\\(?:text|mathrm|mbox)\{\s*(?:and|or)\s*\}|(?:and|or)(?![a-zA-Z])|[A-Za-z](?:_[A-Za-z0-9]|_\{[A-Za-z0-9]{1,4}\})?\s*=)*$/;
const MAX_CONNECTOR = 120;
/** `\\boxed{1} papers and \\boxed{2}`: up to three words after a box, and a conjunction right before the next one. */
const WORDS =
  /^[\s$]*(?:\\text\s*\{)?\s*(?:[a-z()]+\s+){0,5}(?:and|or)\s*\}?[\s$]*(?:\\[()[\]]|\$|\s)*(?:[A-Za-z]\s*=\s*)?$/;
/** Words of a solution that goes on: the second box is another one. */
const DEDUCES = /\b(?:so|then|hence|thus|therefore|is|are|was|get|we|not|but|if|wrong)\b/;
const MAX_BARE = 200;

/** Finds the last boxes. Over-escaped macros (`\\boxed`) count, `\{` is no brace, of nested boxes the innermost counts. */
export function findBoxes(text: string): Boxes {
  // For every open brace: where the macro of its box begins, or -1; and of the boxes alone, where their content begins.
  const open: number[] = [];
  const contents: number[] = [];
  let last: Box[] = [];
  let boxAt = -1;
  const found = (box: Box): void => {
    const previous = last.at(-1);
    // "Put it into \\boxed{}" takes nothing back.
    if (box.content === '' && previous !== undefined) return;
    // An outer box closes after its inner one, which was found already and is kept.
    if (previous !== undefined && previous.begin > box.begin) return;
    if (previous === undefined || !isConnector(text, previous.end, box.begin)) last = [];
    last.push(box);
  };
  const first = text.search(/\\(?:boxed|fbox)/);
  if (first < 0) return { last, unclosed: -1 };
  const token = /\\{1,4}(?:boxed|fbox)(?![a-zA-Z])\s*|\\[\s\S]|[{}]/g;
  token.lastIndex = Math.max(0, first - 3);
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    const at = match.index;
    const word = match[0];
    if (word === '{') {
      open.push(boxAt);
      if (boxAt >= 0) contents.push(at + 1);
      boxAt = -1;
    } else if (word === '}') {
      const begin = open.pop() ?? -1;
      if (begin >= 0) found({ begin, end: at + 1, content: text.slice(contents.pop(), at).trim() });
    } else if (word.length > 2) {
      const after = at + word.length;
      if (text[after] === '{') {
        boxAt = at;
      } else {
        const end = bareEnd(text, after);
        if (end > after) {
          found({ begin: at, end, content: text.slice(after, end).replace(/[.,;:]+$/, '') });
          token.lastIndex = end;
        }
      }
    }
  }
  const after = last.at(-1)?.begin ?? -1;
  return { last, unclosed: open.find((begin) => begin > after) ?? -1 };
}

function isConnector(text: string, from: number, to: number): boolean {
  if (to - from > MAX_CONNECTOR || to < from) return false;
  const between = text.slice(from, to);
  return CONNECTOR.test(between) || (WORDS.test(between) && !DEDUCES.test(between));
}

/** Of `\boxed 7` the end of the 7: a space, `$` or end of line outside every bracket, or a bracket that was not opened. */
function bareEnd(text: string, from: number): number {
  let depth = 0;
  const limit = Math.min(text.length, from + MAX_BARE);
  for (let i = from; i < limit; i += 1) {
    const c = text[i] as string;
    if (c === '\n' || c === '$' || (depth === 0 && /\s/.test(c))) return i;
    if (c === '\\') {
      if (depth === 0 && /[()[\],;]/.test(text[i + 1] ?? '')) return i;
      if (/^\\{1,4}f?box/.test(text.slice(i, i + 8))) return from;
      i += 1;
    } else if ('([{'.includes(c)) depth += 1;
    else if (')]}'.includes(c)) {
      if (depth === 0) return i;
      depth -= 1;
    }
  }
  // Longer than any answer, or the end of the text.
  return limit === text.length && depth === 0 ? limit : from;
}

/**
 * The answer in the last group of boxes: of several boxes their contents once each, joined by commas; empty ones only
 * where there is no other. Null without a box that is closed.
 */
export function boxedAnswer({ last }: Boxes): string | null {
  if (last.length === 0) return null;
  const contents = last.map(({ content }) => content).filter((content) => content !== '');
  return [...new Set(contents)].join(', ');
}
