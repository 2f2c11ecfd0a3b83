/** Whether two answers are the same. */
import { normalizeAnswer } from './normalize.js';
import { equalRationals, parseRational } from './rational.js';

/** No answer is longer; a longer prediction is wrong, not searched. */
const MAX_ANSWER = 2_000;

/**
 * Whether `prediction` is the answer `gold`: equal after {@link normalizeAnswer}, or equal as exact numbers (`0.5` is
 * `\frac{1}{2}`), or tuples, intervals and sets of equal parts in the same order. It does no algebra: `x+1` is not `1+x`.
 * Symmetric, and linear in the lengths.
 */
export function equivalent(prediction: string, gold: string): boolean {
  if (prediction.length > MAX_ANSWER || gold.length > MAX_ANSWER) return false;
  const x = normalizeAnswer(prediction);
  const y = normalizeAnswer(gold);
  if (x === '' || y === '') return false;
  return sameScalar(x, y) || sameTuple(x, y);
}

function sameScalar(x: string, y: string): boolean {
  if (x === y) return true;
  const left = parseRational(x);
  if (left === null) return false;
  const right = parseRational(y);
  return right !== null && equalRationals(left, right);
}

function sameTuple(x: string, y: string): boolean {
  const left = tupleOf(x);
  const right = tupleOf(y);
  if (left === null || right === null) return false;
  if (left.open !== right.open || left.close !== right.close || left.parts.length !== right.parts.length) return false;
  return left.parts.every((part, i) => sameScalar(part, right.parts[i] as string));
}

interface Tuple {
  open: string;
  close: string;
  parts: string[];
}

/** `(a,b)`, `[a,b)`, `\{a,b\}` or `a,b` split at the commas outside every bracket; null without such a comma. */
function tupleOf(text: string): Tuple | null {
  const match = /^(\\\{|[([])([\s\S]*?)(\\\}|[)\]])$/.exec(text);
  const [open, inside, close] = match === null ? ['', text, ''] : (match.slice(1) as [string, string, string]);
  const parts: string[] = [];
  let depth = 0;
  let begin = 0;
  for (let i = 0; i < inside.length; i += 1) {
    const c = inside[i] as string;
    if ('([{'.includes(c)) depth += 1;
    else if (')]}'.includes(c)) depth -= 1;
    else if (c === ',' && depth === 0) {
      parts.push(inside.slice(begin, i));
      begin = i + 1;
    }
    if (depth < 0) return null;
  }
  if (parts.length === 0) return null;
  parts.push(inside.slice(begin));
  return { open, close, parts };
}
