/** Rebuilding trees: substitution, both readings of `±`. */

import { contains } from '../algebra/arithmetic.js';
import { type Node, negate } from '../latex/ast.js';

/** The tree with every part for which `change` answers replaced, from the top. */
export function mapTree(node: Node, change: (node: Node) => Node | null): Node {
  const changed = change(node);
  if (changed !== null) return changed;
  const map = (child: Node): Node => mapTree(child, change);
  switch (node.kind) {
    case 'add':
    case 'mul':
    case 'call':
    case 'apply':
      return { ...node, args: node.args.map(map) };
    case 'div':
      return { ...node, num: map(node.num), den: map(node.den) };
    case 'pow':
      return { ...node, base: map(node.base), exponent: map(node.exponent) };
    case 'pm':
      return { ...node, left: node.left === null ? null : map(node.left), right: map(node.right) };
    case 'big':
      return {
        ...node,
        low: node.low === null ? null : map(node.low),
        high: node.high === null ? null : map(node.high),
        body: map(node.body),
      };
    case 'tuple':
    case 'set':
    case 'list':
    case 'ratio':
    case 'relation':
      return { ...node, items: node.items.map(map) };
    case 'matrix':
      return { ...node, rows: node.rows.map((row) => row.map(map)) };
    case 'setop':
      return { ...node, left: map(node.left), right: map(node.right) };
    case 'percent':
      return { ...node, of: map(node.of) };
    case 'quantity':
      return { ...node, value: map(node.value) };
    default:
      return node;
  }
}

export function substitute(node: Node, name: string, value: Node): Node {
  return mapTree(node, (part) => (part.kind === 'symbol' && part.name === name ? value : null));
}

/** More signs than this are no answer. */
const MAX_SIGNS = 4;

/**
 * Every value an expression with `±` stands for: each sign is free, but where a `∓` occurs all signs go together. The
 * expression itself where there is none; null for too many.
 */
export function expandSigns(node: Node): Node[] | null {
  let signs = 0;
  let together = false;
  contains(node, (part) => {
    if (part.kind === 'pm') {
      signs += 1;
      together ||= part.sign === -1;
    }
    return false;
  });
  if (signs === 0) return [node];
  if (signs > MAX_SIGNS) return null;
  const choices = together ? [0, 2 ** signs - 1] : Array.from({ length: 2 ** signs }, (_, k) => k);
  return choices.map((choice) => withSigns(node, choice));
}

function withSigns(node: Node, choice: number): Node {
  let index = 0;
  const visit = (part: Node): Node | null => {
    if (part.kind !== 'pm') return null;
    const minus = ((choice >> index) & 1) === 1 ? part.sign === 1 : part.sign === -1;
    index += 1;
    const left = part.left === null ? null : mapTree(part.left, visit);
    const right = mapTree(part.right, visit);
    if (left === null && minus && right.kind === 'tuple') return { ...right, items: right.items.map(negate) };
    const signed: Node = minus
      ? { kind: 'mul', args: [{ kind: 'number', value: { numerator: -1n, denominator: 1n } }, right] }
      : right;
    return left === null ? signed : { kind: 'add', args: [left, signed] };
  };
  return mapTree(node, visit);
}
