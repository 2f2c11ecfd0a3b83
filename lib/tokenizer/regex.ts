/**
 * Regular expressions of a tokenizer.json run in a library that ends the process when one backtracks too long. Those of all
 * known tokenizers are alternatives of a few character classes; what can take exponential time is told from them by form.
 */

/** The longest known has 2 kB: one character class that lists ranges. */
const MAX_LENGTH = 8192;
/** Repetitions without a bound in one alternative: each is a factor of the text's length. Known ones have up to 3. */
const MAX_UNBOUNDED = 4;
/** A repetition up to here is as good as none. */
const FEW = 8;

interface Group {
  /** Repetitions and alternatives within. */
  repeats: number;
  alternatives: boolean;
  unbounded: number;
}

/** Why a regular expression may take exponential time; null where it cannot. */
export function regexProblem(source: string): string | null {
  if (source.length > MAX_LENGTH) return `a regular expression of ${source.length} characters`;
  const stack: Group[] = [newGroup()];
  let last: Group | null = null;
  for (let i = 0; i < source.length; ) {
    const group = stack.at(-1) as Group;
    const rest = source.slice(i, i + 24);
    const quantifier = quantifierAt(rest);
    if (quantifier !== null) {
      const { length, least, most } = quantifier;
      if (most > FEW) {
        if (last !== null && (last.repeats > 0 || last.alternatives))
          return 'a repetition of a group with repetitions or alternatives';
        group.unbounded += 1;
        if (group.unbounded > MAX_UNBOUNDED) return `more than ${MAX_UNBOUNDED} repetitions in a row`;
      }
      if (least !== most) group.repeats += 1;
      // A quantifier of a quantifier, as `(?:a+)+` is written `a++` by others: only ? and + after one are its mode.
      i += length;
      const mode = /^[?+]/.exec(source.slice(i, i + 1));
      if (mode !== null) i += 1;
      if (quantifierAt(source.slice(i, i + 24)) !== null) return 'a repetition of a repetition';
      continue;
    }
    last = null;
    const c = source[i] as string;
    if (c === '\\') {
      if (/^\\(?:[1-9]|k[<']|g[<'])/.test(rest)) return 'a reference to a group';
      i += 2;
      const name = /^[pPux]\{[^}]{0,64}\}/.exec(source.slice(i - 1, i + 70));
      if (name !== null) i += name[0].length - 1;
    } else if (c === '[') {
      i = endOfClass(source, i);
    } else if (c === '(') {
      if (/^\(\?(?:\(|~|[a-z-]*[)])/.test(rest) && !/^\(\?[imx-]+\)/.test(rest))
        return 'a condition or an absent operator';
      const head = /^\(\?(?:<?[=!]|[:>]|[imx-]+[:)]|<\w+>)/.exec(rest)?.[0] ?? '(';
      i += head.length;
      if (!head.endsWith(')')) stack.push(newGroup());
    } else if (c === ')') {
      // what is no regular expression is told by the library
      if (stack.length === 1) return null;
      last = stack.pop() as Group;
      const outer = stack.at(-1) as Group;
      outer.unbounded += last.unbounded;
      outer.repeats += last.repeats;
      outer.alternatives ||= last.alternatives && stack.length > 1;
      if (outer.unbounded > MAX_UNBOUNDED) return `more than ${MAX_UNBOUNDED} repetitions in a row`;
      i += 1;
    } else if (c === '|') {
      group.alternatives = true;
      group.unbounded = 0;
      i += 1;
    } else i += 1;
  }
  return null;
}

const newGroup = (): Group => ({ repeats: 0, alternatives: false, unbounded: 0 });

/** A quantifier at the beginning of a text: its length, and how often it repeats at least and at most. */
function quantifierAt(text: string): { length: number; least: number; most: number } | null {
  if (text[0] === '*' || text[0] === '+')
    return { length: 1, least: text[0] === '*' ? 0 : 1, most: Number.POSITIVE_INFINITY };
  if (text[0] === '?') return { length: 1, least: 0, most: 1 };
  const braces = /^\{(\d*)(,?)(\d*)\}/.exec(text);
  if (braces === null || (braces[1] === '' && braces[3] === '')) return null;
  const [whole, least, comma, most] = braces as unknown as [string, string, string, string];
  if (comma === '') return { length: whole.length, least: Number(least), most: Number(least) };
  const upper = most === '' ? Number.POSITIVE_INFINITY : Number(most);
  return { length: whole.length, least: Number(least), most: upper };
}

/** Where a character class ends; classes may hold others. */
function endOfClass(source: string, begin: number): number {
  let depth = 0;
  for (let i = begin; i < source.length; i += 1) {
    const c = source[i];
    if (c === '\\') i += 1;
    else if (c === '[') depth += 1;
    else if (c === ']' && !(i === begin + 1 || (i === begin + 2 && source[begin + 1] === '^'))) {
      depth -= 1;
      if (depth === 0) return i + 1;
    }
  }
  return source.length;
}
