/** What chat templates expect of Python: its texts, its JSON, its dates. */

/** The characters that `str.strip()` removes; JavaScript's `trim` differs in six. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: four of them are white space to Python
const SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

/** `str.strip`, `lstrip`, `rstrip`: at the start and the end, of white space or of given characters. */
export function strip(text: string, characters: string | null, start = true, end = true): string {
  const given = characters === null ? null : new Set(characters);
  const isStripped = (c: string): boolean => (given === null ? SPACE.test(c) : given.has(c));
  const all = Array.from(text);
  let from = 0;
  let to = all.length;
  while (start && from < to && isStripped(all[from] as string)) from++;
  while (end && to > from && isStripped(all[to - 1] as string)) to--;
  return all.slice(from, to).join('');
}

/** `str.split()` without a separator: words between white space, at most `limit` cuts (-1: all). */
export function splitWords(text: string, limit: number): string[] {
  const words: string[] = [];
  let rest = strip(text, null, true, false);
  while (rest !== '') {
    const at = limit >= 0 && words.length >= limit ? -1 : rest.search(SPACE);
    if (at < 0) {
      words.push(limit >= 0 && words.length >= limit ? strip(rest, null, false, true) : rest);
      break;
    }
    words.push(rest.slice(0, at));
    rest = strip(rest.slice(at), null, true, false);
  }
  return words;
}

/** `str.capitalize`. */
export function capitalize(text: string): string {
  const [first = '', ...rest] = text;
  return first.toUpperCase() + rest.join('').toLowerCase();
}

/** `str.title`: a letter after a letter is small, any other is a capital. */
export function title(text: string): string {
  return text.replace(/\p{L}+/gu, capitalize);
}

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const MONTHS = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
];

/** `datetime.strftime` in the C locale, local time. Directives that are not dates stay as they are. */
export function strftime(date: Date, format: string): string {
  const two = (n: number): string => String(n).padStart(2, '0');
  const startOfYear = Date.UTC(date.getFullYear(), 0, 1);
  const today = Date.UTC(date.getFullYear(), date.getMonth(), date.getDate());
  const hour12 = date.getHours() % 12 || 12;
  const day = DAYS[date.getDay()] as string;
  const month = MONTHS[date.getMonth()] as string;
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const values: Record<string, string> = {
    a: day.slice(0, 3),
    A: day,
    b: month.slice(0, 3),
    B: month,
    c: `${day.slice(0, 3)} ${month.slice(0, 3)} ${String(date.getDate()).padStart(2)} ${time} ${date.getFullYear()}`,
    d: two(date.getDate()),
    D: `${two(date.getMonth() + 1)}/${two(date.getDate())}/${two(date.getFullYear() % 100)}`,
    e: String(date.getDate()).padStart(2),
    F: `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`,
    f: `${String(date.getMilliseconds()).padStart(3, '0')}000`,
    H: two(date.getHours()),
    I: two(hour12),
    j: String((today - startOfYear) / 86_400_000 + 1).padStart(3, '0'),
    m: two(date.getMonth() + 1),
    M: two(date.getMinutes()),
    p: date.getHours() < 12 ? 'AM' : 'PM',
    S: two(date.getSeconds()),
    T: time,
    w: String(date.getDay()),
    x: `${two(date.getMonth() + 1)}/${two(date.getDate())}/${two(date.getFullYear() % 100)}`,
    X: time,
    y: two(date.getFullYear() % 100),
    Y: String(date.getFullYear()),
    z: '',
    Z: '',
    '-d': String(date.getDate()),
    '-m': String(date.getMonth() + 1),
    '-H': String(date.getHours()),
    '-I': String(hour12),
    '-M': String(date.getMinutes()),
    '-S': String(date.getSeconds()),
    '%': '%',
  };
  return format.replace(/%(-?[a-zA-Z%])/g, (directive, key: string) => values[key] ?? directive);
}

/** `repr` of a text: single quotes unless it has some and no double ones. */
export function textRepr(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let body = '';
  for (const c of text) {
    if (c === '\\' || c === quote) body += `\\${c}`;
    else if (c === '\n') body += '\\n';
    else if (c === '\r') body += '\\r';
    else if (c === '\t') body += '\\t';
    else if (c === ' ' || !/[\p{C}\p{Z}]/u.test(c)) body += c;
    else body += escaped(c.codePointAt(0) as number);
  }
  return quote + body + quote;
}

function escaped(code: number): string {
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, '0')}`;
  return code < 0x10000 ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`;
}

/** `repr` of a float: the shortest digits, `1.0` for whole ones, an exponent below 1e-4 and from 1e16. */
export function floatRepr(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e16)) {
    return value.toExponential().replace(/e([+-])(\d)$/, 'e$10$2');
  }
  const text = Object.is(value, -0) ? '-0' : String(value);
  return /[.e]/.test(text) ? text : `${text}.0`;
}

export interface JsonStyle {
  /** null: one line. */
  indent: string | null;
  separators: readonly [string, string] | null;
  ensureAscii: boolean;
  sortKeys: boolean;
}

/** A text as `json.dumps` writes it: only what JSON needs is escaped. */
export function jsonText(text: string, ensureAscii: boolean): string {
  // JSON.stringify also escapes lone surrogates, which Python's does only with ensure_ascii; no such text reaches a tokenizer.
  const quoted = JSON.stringify(text);
  if (!ensureAscii) return quoted;
  return quoted.replace(/[\x7f-\uffff]/g, (c) =>
    c === '\x7f' ? c : `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** The order of Python's texts: by code point. */
export function compareTexts(a: string, b: string): number {
  const left = Array.from(a);
  const right = Array.from(b);
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const difference = (left[i]?.codePointAt(0) as number) - (right[i]?.codePointAt(0) as number);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}
