/** Sets of real numbers as intervals in order: what unions, differences and inequalities of one variable come to. */
import type { Algebra, Verdict } from '../algebra/algebra.js';
import { differenceOf } from '../algebra/algebra.js';
import { variablesOf } from '../algebra/arithmetic.js';
import { keyOf } from '../canonical.js';
import { int, type Node, negate, type RelationOp } from '../latex/ast.js';
import { mapTree, substitute } from './tree.js';

interface End {
  /** -Infinity and Infinity have no node. */
  value: number;
  node: Node | null;
  closed: boolean;
}
interface Interval {
  low: End;
  high: End;
}
/** Disjoint intervals from left to right. */
export interface RealSet {
  intervals: Interval[];
  /** The variable of an inequality; null for a set as such. */
  variable: string | null;
}

const MAX_INTERVALS = 200;
const FROM: End = { value: Number.NEGATIVE_INFINITY, node: null, closed: false };
const TO: End = { value: Number.POSITIVE_INFINITY, node: null, closed: false };
const WHOLE: Interval = { low: FROM, high: TO };
const near = (x: number, y: number): boolean =>
  x === y ||
  (Number.isFinite(x) && Number.isFinite(y) && Math.abs(x - y) <= 1e-12 * Math.max(1, Math.abs(x), Math.abs(y)));

/** The set a node describes, or null: no set of real numbers, or with ends that are no numbers. */
export function realSetOf(node: Node, algebra: Algebra): RealSet | null {
  switch (node.kind) {
    case 'tuple':
      return node.items.length === 2
        ? interval(node.items as [Node, Node], node.open === '[', node.close === ']', algebra)
        : null;
    case 'set':
      return points(node.items, algebra);
    case 'list':
      return listSet(node, algebra);
    case 'named':
      return node.name === 'R' ? { intervals: [WHOLE], variable: null } : null;
    case 'setop':
      return operation(node, algebra);
    case 'relation':
      return relationSet(node, algebra);
    default:
      return null;
  }
}

function endOf(node: Node, closed: boolean, algebra: Algebra): End | null {
  const key = keyOf(node);
  if (key === '$infinity' || key === '*($infinity -1)') return key === '$infinity' ? TO : FROM;
  if (key === '*(-1 $infinity)') return FROM;
  if (variablesOf(node).length > 0) return null;
  const value = algebra.real(node);
  return value === null ? null : { value, node, closed };
}

function interval(
  [from, to]: [Node, Node],
  openClosed: boolean,
  closeClosed: boolean,
  algebra: Algebra,
): RealSet | null {
  const low = endOf(from, openClosed, algebra);
  const high = endOf(to, closeClosed, algebra);
  if (low === null || high === null || low.value > high.value || low === TO || high === FROM) return null;
  return { intervals: [{ low, high }], variable: null };
}

function points(items: Node[], algebra: Algebra): RealSet | null {
  if (items.length > MAX_INTERVALS) return null;
  const intervals: Interval[] = [];
  for (const item of items) {
    const end = endOf(item, true, algebra);
    if (end === null || end.node === null) return null;
    intervals.push({ low: end, high: end });
  }
  return { intervals: union(intervals), variable: null };
}

/** Inequalities joined by `or` are a union, by `and` or commas an intersection. */
function listSet(node: Node & { kind: 'list' }, algebra: Algebra): RealSet | null {
  if (node.items.length > 24 || !node.items.every((item) => item.kind === 'relation')) return null;
  const sets = node.items.map((item) => realSetOf(item, algebra));
  if (sets.some((set) => set === null || set.variable === null || set.variable !== sets[0]?.variable)) return null;
  const all = sets as RealSet[];
  const either = node.separators.every((separator) => separator === 'or');
  if (!either && node.separators.includes('or')) return null;
  const parts = all.map((set) => set.intervals);
  const intervals = either ? union(parts.flat()) : parts.reduce(intersection);
  return { intervals, variable: all[0]?.variable ?? null };
}

function operation(node: Node & { kind: 'setop' }, algebra: Algebra): RealSet | null {
  const left = realSetOf(node.left, algebra);
  // `R \setminus 2`, `R \setminus {1, 2}` with invisible braces.
  const right =
    realSetOf(node.right, algebra) ?? points(node.right.kind === 'list' ? node.right.items : [node.right], algebra);
  if (left === null || right === null) return null;
  const [a, b] = [left.intervals, right.intervals];
  const intervals = node.op === 'cup' ? union([...a, ...b]) : intersection(a, node.op === 'cap' ? b : complement(b));
  return { intervals, variable: left.variable };
}

function union(intervals: Interval[]): Interval[] {
  const sorted = [...intervals].sort(
    (a, b) => a.low.value - b.low.value || Number(b.low.closed) - Number(a.low.closed),
  );
  const merged: Interval[] = [];
  for (const next of sorted) {
    const last = merged.at(-1);
    if (last === undefined || !touches(last.high, next.low)) merged.push(next);
    else merged[merged.length - 1] = { low: last.low, high: further(last.high, next.high) };
  }
  return merged;
}

function touches(high: End, low: End): boolean {
  if (near(high.value, low.value)) return high.closed || low.closed;
  return low.value < high.value;
}

function further(a: End, b: End): End {
  if (near(a.value, b.value)) return a.closed ? a : b;
  return a.value > b.value ? a : b;
}

function complement(intervals: Interval[]): Interval[] {
  const gaps: Interval[] = [];
  let low = FROM;
  let open = true;
  for (const { low: from, high: to } of intervals) {
    if (from.node !== null) gaps.push({ low, high: { ...from, closed: !from.closed } });
    open = to.node !== null;
    low = { ...to, closed: !to.closed };
  }
  if (open) gaps.push({ low: intervals.length === 0 ? FROM : low, high: TO });
  return gaps.filter(
    (gap) =>
      gap.low.value < gap.high.value || (near(gap.low.value, gap.high.value) && gap.low.closed && gap.high.closed),
  );
}

const intersection = (a: Interval[], b: Interval[]): Interval[] =>
  complement(union([...complement(a), ...complement(b)]));

/** `x > 3`, `1 \le x < 2`, `x \ne 5`, `x \in S`. */
function relationSet(node: Node & { kind: 'relation' }, algebra: Algebra): RealSet | null {
  const [first, second] = node.items;
  if (node.ops[0] === 'in') {
    const inside = node.ops.length === 1 && second !== undefined ? realSetOf(second, algebra) : null;
    return inside === null || first?.kind !== 'symbol' ? null : { ...inside, variable: first.name };
  }
  if (
    node.ops.length > 4 ||
    !node.ops.every((op) => op === '<' || op === '>' || op === '<=' || op === '>=' || op === '!=')
  )
    return null;
  // A function's value is an unknown like any other: `0 < f(x) < 1`.
  const items = node.items.map((item) =>
    mapTree(item, (part) => (part.kind === 'apply' ? { kind: 'symbol', name: keyOf(part) } : null)),
  );
  const variables = variablesOf(...items);
  const [variable] = variables;
  if (variable === undefined || variables.length > 1) return null;
  let intervals: Interval[] = [WHOLE];
  for (const [k, op] of node.ops.entries()) {
    const solved = solve(items[k] as Node, op, items[k + 1] as Node, variable, algebra);
    if (solved === null) return null;
    intervals = intersection(intervals, solved);
  }
  return { intervals, variable };
}

/** The solutions of an inequality that is linear in the variable. */
function solve(left: Node, op: RelationOp, right: Node, variable: string, algebra: Algebra): Interval[] | null {
  const unbounded = endlessSolution(left, op, right);
  if (unbounded !== null) return unbounded;
  const absolute = absoluteSolution(left, op, right, variable, algebra);
  if (absolute !== undefined) return absolute;
  const f = differenceOf(left, right);
  const at = (value: Node): Node => substitute(f, variable, value);
  const zero = at(int(0));
  const slope = differenceOf(at(int(1)), zero);
  const odd: Node = { kind: 'number', value: { numerator: -31n, denominator: 7n } };
  for (const x of [int(2), odd]) {
    if (algebra.same(at(x), { kind: 'add', args: [zero, { kind: 'mul', args: [slope, x] }] }) !== 'equal') return null;
  }
  const direction = algebra.real(slope);
  if (direction === null || Math.abs(direction) < 1e-12) return null;
  const root: Node = { kind: 'div', num: negate(zero), den: slope };
  const exact = algebra.rational(root);
  const node: Node = exact === null ? root : { kind: 'number', value: exact };
  const value = algebra.real(node);
  if (value === null) return null;
  const end: End = { value, node, closed: op === '<=' || op === '>=' };
  if (op === '!=')
    return [
      { low: FROM, high: { ...end, closed: false } },
      { low: { ...end, closed: false }, high: TO },
    ];
  const below = (op === '<' || op === '<=') === direction > 0;
  return below ? [{ low: FROM, high: end }] : [{ low: end, high: TO }];
}

const MIRRORED: Partial<Record<RelationOp, RelationOp>> = { '<': '>', '>': '<', '<=': '>=', '>=': '<=' };

/** `|f| < c` and its relatives as inequalities of f; undefined for anything else. */
function absoluteSolution(
  left: Node,
  op: RelationOp,
  right: Node,
  variable: string,
  algebra: Algebra,
): Interval[] | null | undefined {
  const opposite = MIRRORED[op] ?? op;
  if (right.kind === 'call' && right.fn === 'abs' && variablesOf(left).length === 0) {
    return absoluteSolution(right, opposite, left, variable, algebra);
  }
  if (left.kind !== 'call' || left.fn !== 'abs' || variablesOf(right).length > 0) return undefined;
  const bound = algebra.real(right);
  if (bound === null) return null;
  const inside = op === '<' || op === '<=';
  if (bound < 0) return inside ? [] : [WHOLE];
  const f = left.args[0] as Node;
  const above = solve(f, op, right, variable, algebra);
  const below = solve(f, opposite, negate(right), variable, algebra);
  if (above === null || below === null) return null;
  return inside || op === '!=' ? intersection(above, below) : union([...above, ...below]);
}

/** `x < \infty` and `-\infty < x` say nothing. */
function endlessSolution(left: Node, op: RelationOp, right: Node): Interval[] | null {
  const infinite = (node: Node): boolean => /^(?:\$infinity|\*\((?:-1 )?\$infinity(?: -1)?\))$/.test(keyOf(node));
  return op !== '!=' && (infinite(left) || infinite(right)) ? [WHOLE] : null;
}

export function sameRealSet(a: RealSet, b: RealSet, algebra: Algebra): Verdict {
  if (a.variable !== null && b.variable !== null && a.variable !== b.variable) return 'different';
  if (a.intervals.length !== b.intervals.length) return 'different';
  let undecided = false;
  for (const [k, x] of a.intervals.entries()) {
    const y = b.intervals[k] as Interval;
    for (const [s, t] of [
      [x.low, y.low],
      [x.high, y.high],
    ] as [End, End][]) {
      if (s.closed !== t.closed || !near(s.value, t.value)) return 'different';
      if (s.node === null || t.node === null) continue;
      const verdict = algebra.same(s.node, t.node);
      if (verdict === 'different') return 'different';
      undecided ||= verdict === 'undecided';
    }
  }
  return undecided ? 'undecided' : 'equal';
}
