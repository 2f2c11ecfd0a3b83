/** Finding the final answer in a response. Linear in the length of the text, whatever it holds. */

/** Only the end of a longer response is searched. */
const MAX_RESPONSE = 100_000;

/**
 * The final answer a response gives, or null: the last complete `\boxed{...}` (or `\fbox{...}`), else what follows the
 * last `####`, else the last "the answer is ...", else the last number.
 */
export function extractAnswer(response: string): string | null {
  const text = response.slice(-MAX_RESPONSE);
  return lastBoxed(text) ?? afterHashes(text) ?? afterPhrase(text) ?? lastNumber(text);
}

/**
 * The content of the last `\boxed{...}` that is closed, braces balanced (`\{` is no brace); of nested boxes the innermost.
 * `\boxed 7` gives `7`.
 */
export function lastBoxed(text: string): string | null {
  const open: { start: number; boxed: boolean }[] = [];
  let found: { start: number; end: number } | null = null;
  let expectBrace = false;
  const token = /\\(?:boxed|fbox)(?![a-zA-Z])\s*|\\[\s\S]|[{}]/g;
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    const at = match.index;
    const word = match[0];
    if (word === '{') {
      open.push({ start: at + 1, boxed: expectBrace });
      expectBrace = false;
    } else if (word === '}') {
      const group = open.pop();
      // An outer box closes after its inner one, which was found already and is kept.
      if (group?.boxed && (found === null || found.start < group.start)) found = { start: group.start, end: at };
      expectBrace = false;
    } else if (word.length > 2) {
      const after = at + word.length;
      expectBrace = text[after] === '{';
      if (!expectBrace) {
        const bare = /^[^\s$\\{}]+/.exec(text.slice(after, after + 64));
        if (bare !== null) found = { start: after, end: after + bare[0].length };
      }
    } else {
      expectBrace = false;
    }
  }
  return found === null ? null : text.slice(found.start, found.end).trim();
}

function afterHashes(text: string): string | null {
  const at = text.lastIndexOf('####');
  return at < 0 ? null : nonEmpty(firstLine(text.slice(at + 4)));
}

function afterPhrase(text: string): string | null {
  let end = -1;
  for (const { index, 0: phrase } of text.matchAll(/answer is/gi)) end = index + phrase.length;
  if (end < 0) return null;
  const line = firstLine(text.slice(end).replace(/^\s*:?\s*/, ''));
  // The sentence ends at a period that no digit follows.
  const stop = /\.(?![0-9])/.exec(line);
  return nonEmpty(stop === null ? line : line.slice(0, stop.index));
}

function lastNumber(text: string): string | null {
  let last: string | null = null;
  for (const [number] of text.matchAll(/-?[0-9][0-9,]*(?:\.[0-9]+)?/g)) last = number;
  if (last === null) return null;
  let length = last.length;
  while (last[length - 1] === ',') length -= 1;
  return last.slice(0, length);
}

function firstLine(text: string): string {
  const trimmed = text.trimStart();
  const end = trimmed.indexOf('\n');
  return end < 0 ? trimmed : trimmed.slice(0, end);
}

function nonEmpty(text: string): string | null {
  const trimmed = text.trim();
  return trimmed === '' ? null : trimmed;
}
