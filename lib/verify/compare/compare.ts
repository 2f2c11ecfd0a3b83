/** Whether two answers say the same. Symmetric: every rule is applied both ways round. */
import { Algebra, differenceOf, type Verdict } from '../algebra/algebra.js';
import { Budget, contains } from '../algebra/arithmetic.js';
import { keyOf } from '../canonical.js';
import { type Node, num, type RelationOp } from '../latex/ast.js';
import { equalRationals, parseDecimal } from '../rational.js';
import { commensurable, isNamed, measureOf } from '../units.js';
import { essence, isLabel, type Named, namedValue, type Relation, spread } from './equations.js';
import { withoutDenominators } from './fractions.js';
import { distinct, itemsOf, matchUnordered } from './lists.js';
import { evaluateMatrices, type Matrix, vectorOf } from './matrices.js';
import { realSetOf, sameRealSet } from './real-set.js';

export interface Tolerance {
  /** Of the larger number. */
  relative?: number;
  absolute?: number;
}

/** Evaluated nodes in one comparison: some milliseconds. */
const STEPS = 60_000;
/** A decimal this long is a number printed in full, no rounding on purpose. */
const PRINTED_DIGITS = 10;
/** And one this long is a claim about digits nobody computed. */
const MAX_PRINTED_DIGITS = 40;
/** How far the numbers of a chain of equations may be apart: 1/3 = 0.33. */
const ROUNDING = 0.02;
/** Pairs of parts that are compared in one comparison. */
const PAIRS = 4_000;

const all = (verdicts: Iterable<Verdict>): Verdict => {
  let result: Verdict = 'equal';
  for (const verdict of verdicts) {
    if (verdict === 'different') return 'different';
    if (verdict === 'undecided') result = 'undecided';
  }
  return result;
};

export class Comparison {
  private readonly budget = new Budget(STEPS);
  private readonly algebra = new Algebra(this.budget);
  private pairs = PAIRS;

  constructor(private readonly tolerance: Tolerance) {}

  /** Whether two parsed answers are the same. */
  same(x: Node, y: Node): Verdict {
    if (keyOf(x) === keyOf(y)) return 'equal';
    this.pairs -= 1;
    if (this.pairs < 0) return 'undecided';
    const a = spread(evaluateMatrices(essence(x)));
    const b = spread(evaluateMatrices(essence(y)));
    return this.sets(a, b) ?? this.relations(a, b) ?? this.collections(a, b) ?? this.scalars(a, b);
  }

  /** Unions, inequalities and intervals, where both sides are sets of real numbers and one is more than brackets. */
  private sets(a: Node, b: Node): Verdict | null {
    if (!isSetLike(a) || !isSetLike(b) || !(isRegion(a) || isRegion(b))) return null;
    const left = realSetOf(joined(a, b), this.algebra);
    const right = left === null ? null : realSetOf(joined(b, a), this.algebra);
    if (left !== null && right !== null) return sameRealSet(left, right, this.algebra);
    return a.kind === 'setop' && b.kind === 'setop' ? this.operations(a, b) : null;
  }

  /** Unions with ends that are no numbers: part by part. */
  private operations(a: Node & { kind: 'setop' }, b: Node & { kind: 'setop' }): Verdict {
    if (a.op !== b.op) return 'undecided';
    if (a.op === 'minus') return all([this.same(a.left, b.left), this.same(a.right, b.right)]);
    const parts = (node: Node): Node[] =>
      node.kind === 'setop' && node.op === a.op ? [...parts(node.left), ...parts(node.right)] : [node];
    return matchUnordered(parts(a), parts(b), (x, y) => this.same(x, y));
  }

  private relations(a: Node, b: Node): Verdict | null {
    if (a.kind === 'relation' && b.kind === 'relation') return this.bothRelations(a, b);
    if (a.kind === 'relation') return this.relationAndValue(a, b);
    if (b.kind === 'relation') return this.relationAndValue(b, a);
    return null;
  }

  /** `x = 5` and `5`; `x \in S` and `S`. */
  private relationAndValue(relation: Relation, value: Node): Verdict | null {
    const named = namedValue(relation);
    if (named !== null) return this.isConsistent(relation, named) ? this.same(named.value, value) : 'different';
    const [first, second] = relation.items as [Node, Node];
    // `9 \\pmod{11}` where the modulus is in the question.
    if (relation.ops.length === 0) return this.same(first, value);
    if (relation.ops.length === 1 && relation.ops[0] === 'in' && isLabel(first)) return this.same(second, value);
    // Several values of one name: the collection rules read `x = 1, 2`.
    return value.kind === 'list' || value.kind === 'set' ? null : 'different';
  }

  /**
   * Whether the numbers of a calculation can be one number, give or take a rounding or a percent sign: `2 + 2 = 5` says
   * nothing. Of something with a name the last value counts, however it was come by.
   */
  private isConsistent({ items }: Relation, { label, value }: Named): boolean {
    if (label !== '') return true;
    const near = (x: number, y: number): boolean => Math.abs(x - y) <= ROUNDING * Math.max(Math.abs(x), Math.abs(y));
    const y = this.algebra.real(value);
    return items.slice(0, -1).every((item) => {
      // Of a function nobody defined the value is not known.
      const x = contains(item, ({ kind }) => kind === 'apply') ? null : this.algebra.real(item);
      return x === null || y === null || near(x, y) || near(100 * x, y);
    });
  }

  private bothRelations(a: Relation, b: Relation): Verdict {
    if (a.modulus !== null && b.modulus !== null && isResidue(a) && isResidue(b) && a.ops.length * b.ops.length === 0)
      return this.residues(a, b);
    const left = namedValue(a);
    const right = namedValue(b);
    if (left !== null && right !== null && sameName(left.label, right.label)) {
      if (!this.isConsistent(a, left) || !this.isConsistent(b, right)) return 'different';
      return this.same(left.value, right.value);
    }
    if (a.ops.length === 1 && b.ops.length === 1) return this.singleRelations(a, b);
    return this.chains(a, b);
  }

  private singleRelations(a: Relation, b: Relation): Verdict {
    const [op, other] = [a.ops[0] as RelationOp, b.ops[0] as RelationOp];
    const [p, q] = a.items as [Node, Node];
    const [r, s] = b.items as [Node, Node];
    if (op === 'equiv' && other === 'equiv') return this.congruences(a, b);
    if (op === 'in' || op === 'subset' || other === 'in' || other === 'subset') {
      return op === other ? all([this.same(p, r), this.same(q, s)]) : 'different';
    }
    if ((op === '=') !== (other === '=') || (op === '!=') !== (other === '!=')) return 'different';
    const direct = op === other || op === '=' ? this.sidewise(p, q, r, s) : 'different';
    if (direct === 'equal') return 'equal';
    const f = differenceOf(p, q);
    if (op === '=' || op === '!=') return worse(direct, this.sameZeros(f, differenceOf(r, s)));
    if (isStrict(op) !== isStrict(other)) return 'different';
    const g = isLess(op) === isLess(other) ? differenceOf(r, s) : differenceOf(s, r);
    return this.algebra.proportional(f, g, true);
  }

  /** Whether x = 0 and y = 0 are one equation: up to a number as a factor, or up to the variables in denominators. */
  private sameZeros(x: Node, y: Node): Verdict {
    const verdict = this.algebra.proportional(x, y, false);
    if (verdict === 'equal') return verdict;
    const [p, q] = [withoutDenominators(x, this.algebra), withoutDenominators(y, this.algebra)];
    return p === null && q === null ? verdict : this.algebra.proportional(p ?? x, q ?? y, false);
  }

  /** Sides that no arithmetic evaluates, one by one. */
  private sidewise(p: Node, q: Node, r: Node, s: Node): Verdict {
    return keyOf(p) === keyOf(r) || keyOf(q) === keyOf(s) ? all([this.same(p, r), this.same(q, s)]) : 'different';
  }

  /** a < b < c part by part, or read from the right. */
  private chains(a: Relation, b: Relation): Verdict {
    if (a.ops.length !== b.ops.length) return 'different';
    const forward = a.ops.every((op, k) => op === b.ops[k]);
    const items = forward ? b.items : [...b.items].reverse();
    const ops = forward ? b.ops : [...b.ops].reverse().map(mirrored);
    if (!a.ops.every((op, k) => op === ops[k])) return 'different';
    return all(a.items.map((item, k) => this.same(item, items[k] as Node)));
  }

  private congruences(a: Relation, b: Relation): Verdict {
    const [p, r] = [a.items[0] as Node, b.items[0] as Node];
    return keyOf(p) === keyOf(r) ? this.residues(a, b) : 'different';
  }

  /** What is last on both sides, to the same modulus. */
  private residues(a: Relation, b: Relation): Verdict {
    const [q, s] = [a.items.at(-1) as Node, b.items.at(-1) as Node];
    const n = a.modulus === null ? null : this.algebra.rational(a.modulus);
    const m = b.modulus === null ? null : this.algebra.rational(b.modulus);
    if (n === null || m === null || !equalRationals(n, m) || n.numerator === 0n) return 'different';
    const distance = this.algebra.rational({ kind: 'div', num: differenceOf(q, s), den: num(n) });
    return distance !== null && distance.numerator % distance.denominator === 0n ? 'equal' : 'different';
  }

  private collections(a: Node, b: Node): Verdict | null {
    if (a.kind === 'matrix' || b.kind === 'matrix') return this.matrices(a, b);
    if (a.kind === 'tuple' && b.kind === 'tuple') return this.tuples(a, b);
    if (a.kind === 'ratio' || b.kind === 'ratio') return this.ratios(a, b);
    const [x, y] = [this.isMany(a), this.isMany(b)];
    if (a.kind === 'tuple' && y) return this.tupleAndList(a, b);
    if (b.kind === 'tuple' && x) return this.tupleAndList(b, a);
    if (x || y) return this.many(a, b);
    // `(5)` is 5 already; a tuple is no number.
    return a.kind === 'tuple' || b.kind === 'tuple' ? 'different' : null;
  }

  private isMany(node: Node): boolean {
    return node.kind === 'list' || node.kind === 'set' || hasSigns(node);
  }

  private ordered(a: Node[], b: Node[]): Verdict {
    return a.length === b.length ? all(a.map((item, k) => this.same(item, b[k] as Node))) : 'different';
  }

  /** Brackets are part of an interval, and of a pair in whatever brackets. `±` in a tuple stands for several tuples. */
  private tuples(a: Node & { kind: 'tuple' }, b: Node & { kind: 'tuple' }): Verdict {
    if (hasSigns(a) || hasSigns(b)) return this.many(a, b);
    return a.open === b.open && a.close === b.close ? this.ordered(a.items, b.items) : 'different';
  }

  /** `1, 3` without brackets are the coordinates of `(1, 3)` in this order; `\{1, 3\}` is not. */
  private tupleAndList(tuple: Node & { kind: 'tuple' }, list: Node): Verdict {
    const items = itemsOf(list);
    if (items === null) return 'undecided';
    if (items.length === 1) return this.same(tuple, items[0] as Node);
    if (hasSigns(tuple)) return this.many(tuple, list);
    if (list.kind !== 'list' || list.separators.includes('or')) return 'different';
    if (tuple.open !== '(' || tuple.close !== ')') return 'different';
    return this.ordered(tuple.items, coordinates(items));
  }

  private many(a: Node, b: Node): Verdict {
    const left = itemsOf(a);
    const right = itemsOf(b);
    if (left === null || right === null) return 'undecided';
    // A set in a set is no element of the outer one.
    const nested = a.kind === 'set' && b.kind === 'set';
    const same = (x: Node, y: Node): Verdict =>
      nested && (x.kind === 'set') !== (y.kind === 'set') ? 'different' : this.same(x, y);
    if (
      left.length === right.length &&
      a.kind === 'list' &&
      b.kind === 'list' &&
      differentNames(left) !== differentNames(right)
    ) {
      // `AB = 4, CD = 5` beside `4, 5`: the order is the names'.
      const verdict = this.ordered(left.map(statedValue), right.map(statedValue));
      return verdict;
    }
    // Solutions in several unknowns are a set as well, however they are written.
    const solutions = [...left, ...right].every(({ kind }) => kind === 'tuple');
    if (a.kind === 'set' || b.kind === 'set' || solutions)
      return matchUnordered(distinct(left, same), distinct(right, same), same);
    return matchUnordered(left, right, same);
  }

  private matrices(a: Node, b: Node): Verdict {
    if (a.kind === 'matrix' && b.kind === 'matrix') {
      if (a.rows.length !== b.rows.length) return 'different';
      return all(a.rows.map((row, k) => this.ordered(row, b.rows[k] as Node[])));
    }
    const [matrix, other] = (a.kind === 'matrix' ? [a, b] : [b, a]) as [Matrix, Node];
    const vector = vectorOf(matrix);
    if (vector === null) return 'different';
    if (vector.length === 1 && other.kind !== 'tuple') return this.same(vector[0] as Node, other);
    const coordinates = other.kind === 'tuple' && other.open === '(' && other.close === ')' ? other.items : null;
    return coordinates === null ? 'different' : this.ordered(vector, coordinates);
  }

  /** 2 : 3 is 4 : 6, and with two terms 2/3. */
  private ratios(a: Node, b: Node): Verdict {
    const x = a.kind === 'ratio' ? a.items : null;
    const y = b.kind === 'ratio' ? b.items : null;
    if (x !== null && y !== null) {
      if (x.length !== y.length) return 'different';
      const cross = (k: number): Verdict =>
        this.scalars(
          { kind: 'mul', args: [x[k] as Node, y[k + 1] as Node] },
          { kind: 'mul', args: [x[k + 1] as Node, y[k] as Node] },
        );
      return all(x.slice(1).map((_, k) => cross(k)));
    }
    const [ratio, other] = (x === null ? [y, a] : [x, b]) as [Node[], Node];
    if (ratio.length !== 2 || this.isMany(other) || other.kind === 'tuple') return 'different';
    return this.scalars({ kind: 'div', num: ratio[0] as Node, den: ratio[1] as Node }, other);
  }

  private scalars(a: Node, b: Node): Verdict {
    if (a.kind === 'quantity' || b.kind === 'quantity') return this.quantities(a, b);
    if (a.kind === 'percent' || b.kind === 'percent') return this.percents(a, b);
    if (a.kind === 'based' || b.kind === 'based') return this.bases(a, b);
    const verdict = this.algebra.same(a, b);
    if (verdict === 'equal') return verdict;
    return this.isPrinted(a, b) || this.isPrinted(b, a) || this.withinTolerance(a, b) ? 'equal' : verdict;
  }

  /** 0.0833333333333333 is what a calculator prints for 1/12: many digits, and all of them right. */
  private isPrinted(decimal: Node, value: Node): boolean {
    if (decimal.kind !== 'number') return false;
    const { numerator, denominator } = decimal.value;
    const written = `${numerator}`.replace('-', '').length;
    if (denominator < 10n || written < PRINTED_DIGITS || written > MAX_PRINTED_DIGITS) return false;
    return this.algebra.roundsTo(value, decimal.value, { numerator: 1n, denominator });
  }

  private withinTolerance(a: Node, b: Node): boolean {
    const { relative = 0, absolute = 0 } = this.tolerance;
    if (relative === 0 && absolute === 0) return false;
    const x = this.algebra.real(a);
    const y = this.algebra.real(b);
    if (x === null || y === null) return false;
    return Math.abs(x - y) <= Math.max(absolute, relative * Math.max(Math.abs(x), Math.abs(y)));
  }

  /** A unit on one side only is not asked for; two units must measure the same. */
  private quantities(a: Node, b: Node): Verdict {
    if (a.kind !== 'quantity' || b.kind !== 'quantity') {
      if ((a.kind === 'percent' && measuresSomething(b)) || (b.kind === 'percent' && measuresSomething(a)))
        return 'different';
      return a.kind === 'quantity' ? this.same(a.value, b) : this.same(a, (b as Node & { kind: 'quantity' }).value);
    }
    const x = measureOf(a.unit);
    const y = measureOf(b.unit);
    if (!commensurable(x, y)) return 'different';
    if (!isNamed(x) || !isNamed(y) || equalRationals(x.factor, y.factor)) return this.same(a.value, b.value);
    return this.scalars(
      { kind: 'mul', args: [a.value, num(x.factor)] },
      { kind: 'mul', args: [b.value, num(y.factor)] },
    );
  }

  /** 50 % is written 50 where percents are asked for, and it is 1/2. */
  private percents(a: Node, b: Node): Verdict {
    if (a.kind === 'percent' && b.kind === 'percent') return this.same(a.of, b.of);
    const [percent, other] = (a.kind === 'percent' ? [a, b] : [b, a]) as [Node & { kind: 'percent' }, Node];
    const asNumber = this.same(percent.of, other);
    if (asNumber === 'equal') return 'equal';
    const hundredth = this.scalars(
      { kind: 'div', num: percent.of, den: { kind: 'number', value: { numerator: 100n, denominator: 1n } } },
      other,
    );
    return hundredth === 'equal' ? 'equal' : worse(asNumber, hundredth);
  }

  /** The base is part of the answer: 204_5 is 54, but who is asked for one does not want the other. */
  private bases(a: Node, b: Node): Verdict {
    if (a.kind === 'based' && b.kind === 'based')
      return a.base === b.base && a.digits === b.digits ? 'equal' : 'different';
    const [based, other] = (a.kind === 'based' ? [a, b] : [b, a]) as [Node & { kind: 'based' }, Node];
    const decimal = based.base === 10 ? parseDecimal(based.digits) : null;
    return decimal === null ? 'different' : this.scalars(num(decimal), other);
  }
}

const measuresSomething = (node: Node): boolean => node.kind === 'quantity' && measureOf(node.unit).dimension !== '';

const worse = (x: Verdict, y: Verdict): Verdict =>
  y === 'equal' ? 'equal' : x === 'undecided' || y === 'undecided' ? 'undecided' : 'different';

/** `y = x + 1` and `f(x) = x + 1` name one function. */
const sameName = (x: string, y: string): boolean =>
  x === y || x === '' || y === '' || (x === 'y' && y.startsWith('@')) || (y === 'y' && x.startsWith('@'));

const statedValue = (node: Node): Node => namedValue(node)?.value ?? node;

/** The values of `y = 2, x = 1` in the order of the letters, where these follow each other in the alphabet. */
function coordinates(items: Node[]): Node[] {
  const named = items.map(namedValue);
  const labels = named.map((name) => name?.label ?? '');
  const sorted = [...labels].sort();
  const consecutive =
    sorted.length < 4 &&
    sorted.every(
      (label, k) =>
        /^[a-zA-Z]$/.test(label) && (k === 0 || label.charCodeAt(0) === (sorted[k - 1] as string).charCodeAt(0) + 1),
    );
  if (!consecutive) return items.map(statedValue);
  return sorted.map((label) => (named[labels.indexOf(label)] as Named).value);
}

/** `x_1` and `x_2` are solutions of one kind, in no order. */
const family = (name: Named | null | undefined): string | undefined => name?.label.replace(/_\d+$/, '');

/** Whether every item has a name, and not all the same. */
function differentNames(items: Node[]): boolean {
  const names = items.map(namedValue);
  return (
    names.length > 1 &&
    names.every((name) => name !== null && name.label !== '') &&
    names.some((name) => family(name) !== family(names[0]))
  );
}

/** `3 \\pmod 5`, or a name that is congruent to it. */
const isResidue = ({ ops, items }: Relation): boolean =>
  ops.length === 0 || (ops.length === 1 && ops[0] === 'equiv' && isLabel(items[0] as Node));

const isLess = (op: RelationOp): boolean => op === '<' || op === '<=';
const isStrict = (op: RelationOp): boolean => op === '<' || op === '>';
const MIRROR: Partial<Record<RelationOp, RelationOp>> = { '<': '>', '>': '<', '<=': '>=', '>=': '<=' };
const mirrored = (op: RelationOp): RelationOp => MIRROR[op] ?? op;

const hasSigns = (node: Node): boolean => {
  switch (node.kind) {
    case 'pm':
      return true;
    case 'add':
    case 'mul':
    case 'call':
      return node.args.some(hasSigns);
    case 'div':
      return hasSigns(node.num) || hasSigns(node.den);
    case 'tuple':
      return node.items.some(hasSigns);
    case 'pow':
      return hasSigns(node.base) || hasSigns(node.exponent);
    case 'quantity':
      return hasSigns(node.value);
    default:
      return false;
  }
};

const ORDER = new Set<RelationOp>(['<', '>', '<=', '>=', '!=']);

/** What can be read as a set of real numbers. */
function isSetLike(node: Node): boolean {
  switch (node.kind) {
    case 'tuple':
      return node.items.length === 2;
    case 'set':
    case 'setop':
    case 'named':
      return true;
    case 'relation':
      return node.ops.every((op) => ORDER.has(op)) || node.ops[0] === 'in';
    case 'list':
      return (
        node.items.every((item) => item.kind === 'relation' && item.ops.every((op) => ORDER.has(op))) ||
        node.items.every((item) => item.kind === 'tuple' && item.items.length === 2)
      );
    default:
      return false;
  }
}

/** Intervals in a list, beside a union, are meant as their union. */
function joined(node: Node, other: Node): Node {
  if (other.kind !== 'setop' || node.kind !== 'list' || !node.items.every((item) => item.kind === 'tuple')) return node;
  const [first, ...rest] = node.items;
  return rest.reduce<Node>((left, right) => ({ kind: 'setop', op: 'cup', left, right }), first as Node);
}

/** More than a pair of brackets or a list of numbers. */
function isRegion(node: Node): boolean {
  return node.kind === 'setop' || node.kind === 'named' || node.kind === 'relation' || node.kind === 'list';
}
