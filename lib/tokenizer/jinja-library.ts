/**
 * The parts of `@huggingface/jinja` that are used, with types: its own declarations import each other without file
 * extensions, which TypeScript does not resolve for ES modules.
 */
import * as library from '@huggingface/jinja';

/** Any value of a running template; `type` tells which. */
export interface Value {
  readonly type: string;
  readonly value: unknown;
  __bool__(): { readonly value: boolean };
}

/** Variables by name, inside of another scope. */
export interface Scope {
  /** Converts a JavaScript value; a function becomes callable, with JavaScript values as arguments. */
  set(name: string, value: unknown): Value;
  setVariable(name: string, value: Value): Value;
}

/** A node of the syntax tree: of all kinds here, told apart by `type`. */
export interface Node {
  type: string;
  [part: string]: unknown;
}

interface Library {
  Environment: new (parent?: Scope) => Scope;
  Interpreter: new (scope: Scope) => { evaluate(node: Node | undefined, scope: Scope): Value };
  tokenize(source: string, options: { lstrip_blocks: boolean; trim_blocks: boolean }): unknown[];
  parse(tokens: unknown[]): Node;
}

export const { Environment, Interpreter, tokenize, parse } = library as unknown as Library;
