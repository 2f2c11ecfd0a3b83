/** Brackets of every kind: groups, tuples, intervals, sets, absolute values, floors, matrices. */
import { call, type Node, negate } from './ast.js';
import { type Cursor, fail } from './cursor.js';

/** The parsers of what brackets hold, handed down so that the files need not import each other in a circle. */
export interface Items {
  /** One item: a relation, a set expression or a quantity. */
  item(c: Cursor): Node;
  /** Items with separators, one alone as it is. */
  list(c: Cursor): Node;
  sum(c: Cursor): Node;
  term(c: Cursor): Node;
  /** One factor with its powers. */
  power(c: Cursor): Node;
  startsFactor(c: Cursor): boolean;
  argument(c: Cursor): Node;
  exponent(c: Cursor): Node | 'degree' | null;
}

const MATRICES = new Set(['matrix', 'pmatrix', 'bmatrix', 'Bmatrix', 'smallmatrix', 'array', 'vmatrix']);

/** Lines that each say something. */
const SYSTEMS = new Set(['cases', 'aligned', 'align', 'align*', 'gathered', 'split']);

/** `{...}`: its content; items with commas are a bare list; `{n \choose k}` and `{a \over b}`. */
export function parseGroup(c: Cursor, items: Items): Node {
  c.expect('{');
  if (c.take('}')) {
    // An empty group is nothing: what follows stands for it.
    return c.nested(() => items.argument(c));
  }
  return c.bracketed(() => {
    const content = items.list(c);
    if (c.takeCommand('choose')) {
      const below = items.sum(c);
      c.expect('}');
      return call('binomial', content, below);
    }
    if (c.takeCommand('over')) {
      const below = items.sum(c);
      c.expect('}');
      return { kind: 'div', num: content, den: below };
    }
    c.expect('}');
    return content;
  });
}

/** Whatever opens with a bracket, as a mark or as a command. */
export function parseBrackets(c: Cursor, items: Items): Node {
  const token = c.next;
  if (token?.kind === 'mark') {
    c.at += 1;
    switch (token.name) {
      case '(':
      case '[':
        return c.bracketed(() => tupleOrGroup(c, items, token.name));
      case ']':
        return c.bracketed(() => reversedInterval(c, items));
      case '\\{':
        return c.bracketed(() => setOf(c, items, '\\}'));
      case '|':
        return absolute(c, items, () => c.take('|'));
      case '\\|':
        return absolute(c, items, () => c.take('\\|'));
    }
    return fail();
  }
  if (token?.kind !== 'command') return fail();
  c.at += 1;
  switch (token.name) {
    case 'lfloor':
    case 'llcorner':
      return c.bracketed(() => enclosed(c, items, 'floor', token.name === 'lfloor' ? 'rfloor' : 'lrcorner'));
    case 'lceil':
    case 'ulcorner':
      return c.bracketed(() => enclosed(c, items, 'ceil', token.name === 'lceil' ? 'rceil' : 'urcorner'));
    case 'langle':
      return c.bracketed(() => {
        const inside = itemsUntil(c, items);
        if (!c.takeCommand('rangle')) fail();
        return { kind: 'tuple', open: '(', close: ')', items: inside };
      });
    case 'lbrack':
      return c.bracketed(() => tupleOrGroup(c, items, '['));
    case 'lgroup':
      return c.bracketed(() => {
        const inside = items.sum(c);
        if (!c.takeCommand('rgroup')) fail();
        return inside;
      });
    case 'lbrace':
      return c.bracketed(() => setOf(c, items, 'rbrace'));
    case 'lvert':
    case 'lVert':
      return c.bracketed(() => {
        const inside = items.sum(c);
        if (!c.takeCommand(token.name === 'lvert' ? 'rvert' : 'rVert')) fail();
        return call('abs', inside);
      });
    case 'vert':
      return absolute(c, items, () => c.takeCommand('vert'));
  }
  return fail();
}

function enclosed(c: Cursor, items: Items, fn: 'floor' | 'ceil', close: string): Node {
  const inside = items.sum(c);
  if (!c.takeCommand(close)) fail();
  return call(fn, inside);
}

function absolute(c: Cursor, items: Items, close: () => boolean): Node {
  return c.nested(() => {
    c.bars += 1;
    const inside = items.sum(c);
    c.bars -= 1;
    if (!close()) fail();
    return call('abs', inside);
  });
}

function itemsUntil(c: Cursor, items: Items): Node[] {
  const found = items.list(c);
  return found.kind === 'list' ? found.items : [found];
}

/** After `(` or `[`: a tuple or interval where there are several items, else what is inside. */
function tupleOrGroup(c: Cursor, items: Items, open: string): Node {
  if (c.isMark(')') || c.isMark(']')) fail();
  const inside = itemsUntil(c, items);
  const close = c.take(')') ? ')' : c.take(']') || c.takeCommand('rbrack') ? ']' : c.take('[') ? '[' : fail();
  if (inside.length === 1 && close !== '[' && (open === '(') === (close === ')')) return inside[0] as Node;
  return { kind: 'tuple', open, close: close === '[' ? ')' : close, items: inside };
}

/** `]a, b[`: an open interval. */
function reversedInterval(c: Cursor, items: Items): Node {
  const inside = itemsUntil(c, items);
  if (inside.length !== 2) return fail();
  const close = c.take('[') || c.take(')') ? ')' : c.take(']') ? ']' : fail();
  return { kind: 'tuple', open: '(', close, items: inside };
}

/** After `\{`: items, or `x \mid condition`, which stands for its condition. */
function setOf(c: Cursor, items: Items, close: string): Node {
  const closed = (): boolean => c.take('\\}') || c.take('}') || c.takeCommand('rbrace');
  if (closed()) return { kind: 'set', items: [] };
  c.bars += 1;
  const inside = itemsUntil(c, items);
  c.bars -= 1;
  if (c.take('|') || c.takeCommand('mid') || c.takeCommand('vert') || c.take(':')) {
    const condition = items.list(c);
    if (!closed()) fail();
    return condition;
  }
  if (!closed() && close !== '') fail();
  return { kind: 'set', items: inside };
}

/** After `\begin`: a matrix. */
export function parseEnvironment(c: Cursor, items: Items): Node {
  c.expect('{');
  const name = c.rawGroup();
  if (SYSTEMS.has(name)) return c.bracketed(() => system(c, name, items));
  if (!MATRICES.has(name)) return fail();
  if (name === 'array' && c.take('{')) c.rawGroup();
  return c.bracketed(() => {
    const rows: Node[][] = [[]];
    for (;;) {
      if (c.isCommand('end')) break;
      if (c.takeCommand('newline')) {
        rows.push([]);
        continue;
      }
      (rows.at(-1) as Node[]).push(items.item(c));
      if (!c.take('&') && !c.isCommand('newline') && !c.isCommand('end')) fail();
    }
    c.at += 1;
    c.expect('{');
    if (c.rawGroup() !== name) fail();
    if (rows.at(-1)?.length === 0) rows.pop();
    const width = rows[0]?.length ?? 0;
    if (width === 0 || rows.some((row) => row.length !== width)) fail();
    return name === 'vmatrix' ? determinant(rows) : { kind: 'matrix', rows };
  });
}

/** Larger determinants are no answers. */
const MAX_DETERMINANT = 4;

/** Along the first row. */
function determinant(rows: Node[][]): Node {
  const [first = [], ...rest] = rows;
  if (first.length !== rows.length || rows.length > MAX_DETERMINANT) return fail();
  if (rows.length === 1) return first[0] as Node;
  const args = first.map((entry, k): Node => {
    const minor = determinant(rest.map((row) => row.filter((_, column) => column !== k)));
    const term: Node = { kind: 'mul', args: [entry, minor] };
    return k % 2 === 0 ? term : negate(term);
  });
  return { kind: 'add', args };
}

/** A system of equations: its lines are a list. */
function system(c: Cursor, name: string, items: Items): Node {
  const found: Node[] = [];
  let end = c.at;
  while (end < c.tokens.length && !c.isCommand('end', end - c.at)) end += 1;
  // Alignment marks say nothing; a comma at the end of a line separates as the line does.
  const lines = c.tokens.slice(c.at, end).filter((token) => !(token.kind === 'mark' && token.name === '&'));
  c.tokens.splice(c.at, end - c.at, ...lines);
  while (!c.isCommand('end')) {
    if (c.takeCommand('newline') || c.take(',') || c.take(';')) continue;
    found.push(items.item(c));
    if (!c.isCommand('newline') && !c.isCommand('end') && !c.isMark(',') && !c.isMark(';')) fail();
  }
  c.at += 1;
  c.expect('{');
  if (c.rawGroup() !== name || found.length === 0) fail();
  return found.length === 1
    ? (found[0] as Node)
    : { kind: 'list', items: found, separators: found.slice(1).map(() => ',' as const) };
}
