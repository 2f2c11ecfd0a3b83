/** Lists: what belongs together, and matching without order. */
import type { Verdict } from '../algebra/algebra.js';
import { keyOf } from '../canonical.js';
import type { Node } from '../latex/ast.js';
import { type Named, namedValue } from './equations.js';
import { expandSigns } from './tree.js';

export type List = Node & { kind: 'list' };

/** Beyond this, items that are not written alike are not matched. */
const MAX_MATCH = 40;

/** The items a list says: signs expanded, `x = 1, 2` told apart from `p = 1, q = 2; p = 3, q = 4`. */
export function itemsOf(node: Node): Node[] | null {
  if (node.kind !== 'list' && node.kind !== 'set') return expandSigns(node);
  const items: Node[] = [];
  for (const item of node.items) {
    const values = expandSigns(item);
    if (values === null) return null;
    items.push(...values);
  }
  if (node.kind === 'set' || items.length !== node.items.length) return items;
  return grouped({ ...node, items });
}

function grouped(whole: List): Node[] {
  const list = withoutDomains(whole);
  const names = list.items.map(namedValue);
  if (list.separators.includes(';') && list.separators.includes(',')) return bySeparator(list) ?? list.items;
  if (names.every((name) => name !== null)) {
    const groups = bySeparator(list) ?? byRepeatedNames(list, names as Named[]);
    if (groups !== null) return groups;
  }
  // One name for all: `x = 1, 2, 3`.
  const [first] = names;
  if (
    first !== null &&
    first !== undefined &&
    names.slice(1).every((name) => name === null) &&
    list.items.slice(1).every((item) => item.kind !== 'relation')
  ) {
    return [first.value, ...list.items.slice(1)];
  }
  return list.items;
}

/** `\pi k, k \in \mathbb{Z}`: what k is goes without saying. */
function withoutDomains(list: List): List {
  const isDomain = (item: Node): boolean =>
    item.kind === 'relation' && item.ops[0] === 'in' && item.items[1]?.kind === 'named';
  const items = list.items.filter((item) => !isDomain(item));
  return items.length === 0 || items.length === list.items.length
    ? list
    : { ...list, items, separators: list.separators.slice(0, items.length - 1) };
}

/** `p = 5, q = 2; p = 7, q = 2` and `1, 2; 3, 4`: strong separators between groups of weak ones. */
function bySeparator(list: List): Node[] | null {
  const strong = list.separators.filter((separator) => separator === ';' || separator === 'or');
  if (strong.length === 0 || strong.length === list.separators.length) return null;
  const groups: Node[][] = [[]];
  for (const [k, item] of list.items.entries()) {
    (groups.at(-1) as Node[]).push(item);
    const separator = list.separators[k];
    if (separator === ';' || separator === 'or') groups.push([]);
  }
  return groups.map(asList);
}

/** `p = 5, q = 2, p = 7, q = 2`: the same names again. */
function byRepeatedNames(list: List, names: Named[]): Node[] | null {
  const width = names.findIndex(({ label }, k) => k > 0 && label === names[0]?.label);
  if (width < 2 || names.length % width !== 0) return null;
  if (!names.every(({ label }, k) => label === names[k % width]?.label)) return null;
  const groups: Node[] = [];
  for (let k = 0; k < list.items.length; k += width) groups.push(asList(list.items.slice(k, k + width)));
  return groups;
}

const asList = (items: Node[]): Node =>
  items.length === 1 ? (items[0] as Node) : { kind: 'list', items, separators: items.slice(1).map(() => ',' as const) };

/** Whether the items can be paired so that every pair is the same, in any order. */
export function matchUnordered(a: Node[], b: Node[], same: (x: Node, y: Node) => Verdict): Verdict {
  if (a.length !== b.length) return 'different';
  const [left, right] = withoutCommon(a, b);
  if (left.length === 0) return 'equal';
  if (left.length > MAX_MATCH) return 'undecided';
  let undecided = false;
  const edges = left.map((x) =>
    right.map((y) => {
      const verdict = same(x, y);
      undecided ||= verdict === 'undecided';
      return verdict === 'equal';
    }),
  );
  if (perfect(edges)) return 'equal';
  return undecided ? 'undecided' : 'different';
}

/** Items written alike are pairs already. */
function withoutCommon(a: Node[], b: Node[]): [Node[], Node[]] {
  const counts = new Map<string, number>();
  for (const node of b) counts.set(keyOf(node), (counts.get(keyOf(node)) ?? 0) + 1);
  const left = a.filter((node) => !takeOne(counts, keyOf(node)));
  const right = b.filter((node) => takeOne(counts, keyOf(node)));
  return [left, right];
}

function takeOne(counts: Map<string, number>, key: string): boolean {
  const count = counts.get(key) ?? 0;
  if (count > 0) counts.set(key, count - 1);
  return count > 0;
}

/** Whether a bipartite graph has a perfect matching, by augmenting paths. */
function perfect(edges: boolean[][]): boolean {
  const partner = new Array<number>(edges.length).fill(-1);
  const augment = (x: number, seen: Set<number>): boolean => {
    for (let y = 0; y < edges.length; y += 1) {
      if (!edges[x]?.[y] || seen.has(y)) continue;
      seen.add(y);
      if (partner[y] === -1 || augment(partner[y] as number, seen)) {
        partner[y] = x;
        return true;
      }
    }
    return false;
  };
  return edges.every((_, x) => augment(x, new Set()));
}

/** Without items that are the same as an earlier one: what a set holds. */
export function distinct(items: Node[], same: (x: Node, y: Node) => Verdict): Node[] {
  const found: Node[] = [];
  const keys = new Set<string>();
  for (const item of items) {
    if (keys.has(keyOf(item))) continue;
    keys.add(keyOf(item));
    if (found.length < MAX_MATCH && found.some((other) => same(item, other) === 'equal')) continue;
    found.push(item);
  }
  return found;
}
