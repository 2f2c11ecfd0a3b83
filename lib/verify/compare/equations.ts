/** Equations and chains of relations: what is named, and what it is equal to. */
import { contains, variablesOf } from '../algebra/arithmetic.js';
import { keyOf } from '../canonical.js';
import type { Node } from '../latex/ast.js';

export type Relation = Node & { kind: 'relation' };

/** `x \ne 2, 3` says `x \ne 2, x \ne 3`. */
export function spread(node: Node): Node {
  if (node.kind !== 'list') return node;
  const [first, ...rest] = node.items as [Node, ...Node[]];
  if (first.kind !== 'relation' || first.ops.length !== 1 || first.ops[0] !== '!=') return node;
  if (rest.some(({ kind }) => kind === 'relation')) return node;
  const label = first.items[0] as Node;
  return { ...node, items: [first, ...rest.map((value): Node => ({ ...first, items: [label, value] }))] };
}

/** What an equation says of something with a name. */
export interface Named {
  /** Key of the name. */
  label: string;
  value: Node;
}

/** A name rather than an expression: `x`, `a_3`, `f(x)`, `AB`, `|AB|`, `A:B`, `(p, q)`. */
export function isLabel(node: Node): boolean {
  switch (node.kind) {
    case 'symbol':
      return true;
    case 'apply':
      return true;
    case 'call':
      return node.fn === 'abs' && node.args[0] !== undefined && isLabel(node.args[0]) && node.args[0].kind === 'mul';
    case 'mul':
      return (
        node.args.length <= 6 &&
        node.args.every((part) => part.kind === 'symbol' && /^(?:[A-Z]|m$|angle:|triangle:)/.test(part.name))
      );
    case 'div':
      // A ratio of lengths: `\frac{AB}{CD} = 2`.
      return [node.num, node.den].every((part) => part.kind === 'mul' && isLabel(part));
    case 'matrix':
      return node.rows.flat().every(isLabel);
    case 'ratio':
    case 'tuple':
      return node.items.length > 1 && node.items.every(isLabel);
    default:
      return false;
  }
}

/** Without what `\approx` adds and what `\Rightarrow` leaves behind. */
export function essence(node: Node): Node {
  if (node.kind !== 'relation') return node;
  let { ops, items } = node;
  const arrow = ops.lastIndexOf('to');
  // `x + 1 = 6 \\Rightarrow x = 5`; an arrow from a number to a number is no step of a solution.
  if (arrow >= 0 && items.slice(0, arrow + 1).some((item) => variablesOf(item).length > 0)) {
    items = items.slice(arrow + 1);
    ops = ops.slice(arrow + 1);
  }
  const rounded = ops.indexOf('~');
  if (rounded >= 0) {
    const label = isLabel(items[0] as Node);
    if (rounded === 0 && label) ops = ops.map((op) => (op === '~' ? '=' : op));
    else {
      items = items.slice(0, rounded + 1);
      ops = ops.slice(0, rounded);
    }
  }
  if (ops.length === 0 && node.modulus === null) return items[0] as Node;
  return { ...node, ops, items };
}

/** `x = 5`, `5 = x`, `z = 3 + 3 = 6`: the name and the final value; null where nothing is named. */
export function namedValue(node: Node): Named | null {
  if (node.kind !== 'relation' || node.modulus !== null || !node.ops.every((op) => op === '=')) return null;
  const first = node.items[0] as Node;
  const last = node.items.at(-1) as Node;
  if (isLabel(first) && !mentions(last, first)) return { label: keyOf(first), value: last };
  if (node.items.length === 2 && isLabel(last) && !mentions(first, last)) return { label: keyOf(last), value: first };
  // A calculation: `1/2 + 1/3 = 5/6`.
  const numbers = node.items.every((item) => variablesOf(item).length === 0);
  return numbers ? { label: '', value: last } : null;
}

/** Whether an expression speaks of the name itself: `x = x + 1` names nothing. */
function mentions(node: Node, label: Node): boolean {
  const key = keyOf(label);
  return contains(node, (part) => keyOf(part) === key);
}
