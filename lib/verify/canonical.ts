/** One text for trees that differ only in the order of sums and products and in how fractions are written. */
import type { Node } from './latex/ast.js';
import { lowest } from './rational.js';

const keys = new WeakMap<Node, string>();

/** Equal keys mean equal answers; different keys mean nothing. */
export function keyOf(node: Node): string {
  const known = keys.get(node);
  if (known !== undefined) return known;
  const key = build(node);
  keys.set(node, key);
  return key;
}

const all = (nodes: Node[]): string[] => nodes.map(keyOf);

function build(node: Node): string {
  switch (node.kind) {
    case 'number': {
      const { numerator, denominator } = lowest(node.value);
      return denominator === 1n ? `${numerator}` : `${numerator}/${denominator}`;
    }
    case 'constant':
      return `$${node.name}`;
    case 'symbol':
      return node.name;
    case 'add':
      return `+(${all(node.args).sort().join(' ')})`;
    case 'mul':
      return `*(${all(node.args).sort().join(' ')})`;
    case 'div':
      return `/(${keyOf(node.num)} ${keyOf(node.den)})`;
    case 'pow':
      return `^(${keyOf(node.base)} ${keyOf(node.exponent)})`;
    case 'call':
      return `${node.fn}(${all(node.args).join(' ')})`;
    case 'apply':
      return `@${node.name}(${all(node.args).join(' ')})`;
    case 'pm':
      return `${node.sign === 1 ? '±' : '∓'}(${node.left === null ? '' : keyOf(node.left)} ${keyOf(node.right)})`;
    case 'big':
      return `${node.op}[${node.variable} ${node.low === null ? '' : keyOf(node.low)} ${node.high === null ? '' : keyOf(node.high)}](${keyOf(node.body)})`;
    case 'tuple':
      return `${node.open}${all(node.items).join(' ')}${node.close}`;
    case 'set':
      return `{${[...new Set(all(node.items))].sort().join(' ')}}`;
    case 'list': {
      // Inequalities joined by `or` are not those joined by `and`.
      const joined = node.items.some(({ kind }) => kind === 'relation') ? node.separators.join('') : '';
      return `<${all(node.items).sort().join(' ')}>${joined}`;
    }
    case 'matrix':
      return `[${node.rows.map((row) => all(row).join(' ')).join(';')}]`;
    case 'setop':
      return `${node.op}(${keyOf(node.left)} ${keyOf(node.right)})`;
    case 'named':
      return `#${node.name}`;
    case 'relation':
      return `rel(${all(node.items).join(' ')})${node.ops.join(' ')}${node.modulus === null ? '' : keyOf(node.modulus)}`;
    case 'ratio':
      return `ratio(${all(node.items).join(':')})`;
    case 'based':
      return `${node.digits}_${node.base}`;
    case 'percent':
      return `%(${keyOf(node.of)})`;
    case 'quantity':
      return `q(${keyOf(node.value)} ${node.unit.parts.map(({ word, power }) => `${word}^${power}`).join(' ')})`;
    case 'text':
      return `"${node.text}"`;
  }
}
