/** Matrices: sums and multiples of them are matrices, a row or column is a vector. */
import { contains } from '../algebra/arithmetic.js';
import type { Node } from '../latex/ast.js';

export type Matrix = Node & { kind: 'matrix' };

const MAX_ENTRIES = 400;

/** An expression of matrices as one matrix; the node itself where it is none. */
export function evaluateMatrices(node: Node): Node {
  if (node.kind !== 'add' && node.kind !== 'mul' && node.kind !== 'div') return node;
  if (!contains(node, ({ kind }) => kind === 'matrix')) return node;
  return matrixOf(node) ?? node;
}

function matrixOf(node: Node): Matrix | null {
  switch (node.kind) {
    case 'matrix':
      return node;
    case 'add':
      return node.args.map(matrixOf).reduce((a, b) => (a === null || b === null ? null : sum(a, b)));
    case 'div': {
      const top = matrixOf(node.num);
      return top === null ? null : entries(top, (entry) => ({ kind: 'div', num: entry, den: node.den }));
    }
    case 'mul': {
      const factors = node.args.filter((arg) => !contains(arg, ({ kind }) => kind === 'matrix'));
      const matrices = node.args.filter((arg) => !factors.includes(arg)).map(matrixOf);
      if (matrices.length === 0) return null;
      const result = matrices.reduce((a, b) => (a === null || b === null ? null : product(a, b)));
      return result == null ? null : entries(result, (entry) => ({ kind: 'mul', args: [...factors, entry] }));
    }
    default:
      return null;
  }
}

function entries(matrix: Matrix, change: (entry: Node) => Node): Matrix {
  return { kind: 'matrix', rows: matrix.rows.map((row) => row.map(change)) };
}

function sum(a: Matrix, b: Matrix): Matrix | null {
  if (a.rows.length !== b.rows.length || a.rows[0]?.length !== b.rows[0]?.length) return null;
  return {
    kind: 'matrix',
    rows: a.rows.map((row, i) => row.map((entry, j) => ({ kind: 'add', args: [entry, b.rows[i]?.[j] as Node] }))),
  };
}

function product(a: Matrix, b: Matrix): Matrix | null {
  const width = b.rows[0]?.length ?? 0;
  if (a.rows[0]?.length !== b.rows.length || a.rows.length * width * b.rows.length > MAX_ENTRIES) return null;
  return {
    kind: 'matrix',
    rows: a.rows.map((row) =>
      Array.from(
        { length: width },
        (_, j) =>
          ({
            kind: 'add',
            args: row.map((entry, k) => ({ kind: 'mul', args: [entry, b.rows[k]?.[j] as Node] })),
          }) satisfies Node as Node,
      ),
    ),
  };
}

/** The entries of a matrix with one row or one column, or null. */
export function vectorOf(matrix: Matrix): Node[] | null {
  if (matrix.rows.length === 1) return matrix.rows[0] as Node[];
  return matrix.rows.every((row) => row.length === 1) ? matrix.rows.map((row) => row[0] as Node) : null;
}
