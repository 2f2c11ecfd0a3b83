/**
 * Chat templates by `@huggingface/jinja`, with what jinja2 does otherwise put right: printed values, equality, arithmetic,
 * methods of texts, filters, JSON, scopes of loops. Templates are hostile: what they may compute is bounded.
 */
import { charge, chargeValue, MAX_ITEMS, TemplateLimit, withBudget } from './jinja-budget.js';
import { type Arguments, FILTERS, TEXT_METHODS } from './jinja-functions.js';
import { Environment, Interpreter, type Node, parse, type Scope, tokenize } from './jinja-library.js';
import { binary } from './jinja-operators.js';
import {
  asEntries,
  asItems,
  asNumber,
  asText,
  bool,
  fromJavaScript,
  integer,
  iterate,
  list,
  mapping,
  printed,
  text,
  undefinedValue,
  type Value,
} from './jinja-values.js';
import { strftime } from './python.js';

/** What the template itself objected to, with `raise_exception`. */
export class TemplateRefusal extends Error {}

const MAX_TEMPLATE = 256 * 1024;
/** The library's parser looks at every white space of a run for every one of them. */
const MAX_SPACE_RUN = 1024;

/** Parsed once, rendered often. */
export class JinjaTemplate {
  readonly #program: Node;

  /** @throws Error where the text is no template */
  constructor(source: string) {
    if (source.length > MAX_TEMPLATE) throw new TemplateLimit(`it is longer than ${MAX_TEMPLATE} characters`);
    if (new RegExp(`\\s{${MAX_SPACE_RUN}}`).test(source)) {
      throw new TemplateLimit(`it has ${MAX_SPACE_RUN} white spaces in a row`);
    }
    const lines = source.replace(/\r\n?/g, '\n');
    this.#program = parse(tokenize(lines, { lstrip_blocks: true, trim_blocks: true }));
    markOutput(this.#program);
  }

  /** @throws TemplateRefusal, TemplateLimit, or another Error where the template fails */
  render(variables: Record<string, unknown>, now: Date): string {
    const environment = new Environment();
    for (const [name, value] of Object.entries({ ...globals(now), ...variables })) environment.set(name, value);
    const interpreter = new BoundedInterpreter(environment);
    return withBudget(() => printed(interpreter.evaluate(this.#program, environment)));
  }
}

function globals(now: Date): Record<string, unknown> {
  return {
    true: true,
    false: false,
    none: null,
    True: true,
    False: false,
    None: null,
    raise_exception: (message: unknown) => {
      throw new TemplateRefusal(String(message));
    },
    strftime_now: (format: unknown) => strftime(now, String(format)),
    range,
  };
}

function range(first: number, last?: number, step = 1): number[] {
  const [start, stop] = last === undefined ? [0, first] : [first, last];
  if (![start, stop, step].every(Number.isInteger) || step === 0) throw new Error('range() takes whole numbers');
  const count = Math.max(0, Math.ceil((stop - start) / step));
  charge(count / 4);
  if (count > MAX_ITEMS) throw new TemplateLimit(`range() of ${count} numbers; at most ${MAX_ITEMS}`);
  return Array.from({ length: count }, (_, i) => start + i * step);
}

const STATEMENTS = new Set([
  'Set',
  'If',
  'For',
  'Macro',
  'CallStatement',
  'FilterStatement',
  'Break',
  'Continue',
  'Comment',
]);

/** Wraps every printed expression, so that it is printed as Python does. */
function markOutput(node: Node): void {
  for (const part of ['body', 'alternate', 'defaultBlock']) {
    const block = node[part];
    if (!Array.isArray(block)) continue;
    node[part] = (block as Node[]).map((child) => {
      if (STATEMENTS.has(child.type)) {
        markOutput(child);
        return child;
      }
      return nodeLike(node, { type: 'Output', expression: child });
    });
  }
}

/** A node of ours; the library looks for instances of its own classes. */
function nodeLike(model: Node, content: Node): Node {
  return Object.assign(Object.create(Object.getPrototypeOf(model)), content) as Node;
}

/** `break` and `continue`, with the text that the interrupted blocks had printed. */
class LoopControl extends Error {
  text = '';
  constructor(readonly kind: 'Break' | 'Continue') {
    super(`${kind.toLowerCase()} outside of a loop`);
  }
}

class BoundedInterpreter extends Interpreter {
  override evaluate(node: Node | undefined, environment: Scope): Value {
    if (node === undefined) return undefinedValue();
    const value = this.#evaluate(node, environment);
    chargeValue(value.value);
    return value;
  }

  #evaluate(node: Node, environment: Scope): Value {
    switch (node.type) {
      case 'Value':
        return node.value as Value;
      case 'Program':
        return text(this.#block(node.body as Node[], environment));
      case 'Output':
        return text(printed(this.#child(node.expression, environment)));
      case 'If': {
        const isTrue = this.#child(node.test, environment).__bool__().value;
        return text(this.#block((isTrue ? node.body : node.alternate) as Node[], environment));
      }
      case 'For':
        return text(this.#loop(node, environment));
      case 'Break':
      case 'Continue':
        throw new LoopControl(node.type);
      case 'BinaryExpression':
        return this.#binary(node, environment);
      case 'CallExpression':
        return this.#call(node, environment);
      case 'FilterExpression':
        return this.#filter(node, environment);
      case 'MemberExpression':
        return this.#member(node, environment);
      case 'TestExpression':
        return this.#test(node, environment);
      default:
        return super.evaluate(node, environment);
    }
  }

  #child(node: unknown, environment: Scope): Value {
    return this.evaluate(node as Node | undefined, environment);
  }

  #block(statements: readonly Node[], environment: Scope): string {
    let out = '';
    try {
      for (const statement of statements) {
        const value = this.#child(statement, environment);
        if (value.type === 'StringValue') out += value.value;
      }
    } catch (error) {
      if (error instanceof LoopControl) error.text = out + error.text;
      throw error;
    }
    return out;
  }

  /** Every round has a scope of its own, as in jinja2: what it sets is gone in the next one. */
  #loop(node: Node, environment: Scope): string {
    const select = (node.iterable as Node).type === 'SelectExpression' ? (node.iterable as Node) : null;
    const all = iterate(this.#child(select === null ? node.iterable : select.lhs, environment));
    // A scope for each round, and the round itself.
    charge(4 * all.length);
    const rounds = all
      .map((item) => ({ item, scope: this.#bind(node.loopvar as Node, item, new Environment(environment)) }))
      .filter(({ scope }) => select === null || this.#child(select.test, scope).__bool__().value);
    if (rounds.length === 0) return this.#block(node.defaultBlock as Node[], new Environment(environment));
    const items = rounds.map(({ item }) => item);
    let out = '';
    for (const [index, { scope }] of rounds.entries()) {
      scope.setVariable('loop', loopVariable(items, index));
      try {
        out += this.#block(node.body as Node[], scope);
      } catch (error) {
        if (!(error instanceof LoopControl)) throw error;
        out += error.text;
        if (error.kind === 'Break') break;
      }
    }
    return out;
  }

  #bind(target: Node, item: Value, scope: Scope): Scope {
    if (target.type === 'Identifier') scope.setVariable(target.value as string, item);
    else {
      const names = target.value as Node[];
      const parts = iterate(item);
      if (parts.length !== names.length)
        throw new Error(`cannot unpack ${parts.length} items to ${names.length} names`);
      for (const [i, name] of names.entries()) scope.setVariable(name.value as string, parts[i] as Value);
    }
    return scope;
  }

  #binary(node: Node, environment: Scope): Value {
    const operator = (node.operator as { value: string }).value;
    const left = this.#child(node.left, environment);
    if (operator === 'and' || operator === 'or') {
      return left.__bool__().value === (operator === 'and') ? this.#child(node.right, environment) : left;
    }
    return binary(operator, left, this.#child(node.right, environment));
  }

  #call(node: Node, environment: Scope): Value {
    const callee = node.callee as Node;
    const name = callee.type === 'MemberExpression' && !callee.computed ? (callee.property as Node).value : null;
    const method = TEXT_METHODS.get(String(name));
    if (method === undefined) return super.evaluate(node, environment);
    const self = this.#child(callee.object, environment);
    const own = asText(self);
    if (own !== null) {
      // most look at every character
      charge(own.length / 64);
      return method(own, this.#arguments(node.args as Node[], environment));
    }
    const object = nodeLike(node, { type: 'Value', value: self });
    const call = nodeLike(node, { ...node, callee: nodeLike(callee, { ...callee, object }) });
    return super.evaluate(call, environment);
  }

  #filter(node: Node, environment: Scope): Value {
    const filter = node.filter as Node;
    const isCall = filter.type === 'CallExpression';
    const name = String(isCall ? (filter.callee as Node).value : filter.value);
    const operand = this.#child(node.operand, environment);
    const own = FILTERS.get(name);
    if (own !== undefined) return own(operand, this.#arguments(isCall ? (filter.args as Node[]) : [], environment));
    if (name === 'map' && isCall && (filter.args as Node[])[0]?.type === 'StringLiteral') {
      return this.#map(operand, filter.args as Node[], environment);
    }
    const rest = nodeLike(node, { ...node, operand: nodeLike(node, { type: 'Value', value: operand }) });
    return super.evaluate(rest, environment);
  }

  /** `items | map('upper')`: a filter for each item. */
  #map(operand: Value, args: readonly Node[], environment: Scope): Value {
    const given = this.#arguments(args, environment);
    const name = asText(given.positional[0] as Value) as string;
    const filter = FILTERS.get(name);
    if (filter === undefined) throw new Error(`map: no filter ${JSON.stringify(name)}`);
    const rest = { positional: given.positional.slice(1), named: given.named };
    return list(iterate(operand).map((item) => filter(item, rest)));
  }

  #arguments(nodes: readonly Node[], environment: Scope): Arguments {
    const positional: Value[] = [];
    const named = new Map<string, Value>();
    for (const node of nodes) {
      if (node.type === 'KeywordArgumentExpression') {
        named.set((node.key as Node).value as string, this.#child(node.value, environment));
      } else if (node.type === 'SpreadExpression') {
        positional.push(...iterate(this.#child(node.argument, environment)));
      } else if (node.type === 'KeywordSpreadExpression') {
        for (const [key, value] of asEntries(this.#child(node.argument, environment)) ?? []) named.set(key, value);
      } else positional.push(this.#child(node, environment));
    }
    return { positional, named };
  }

  #member(node: Node, environment: Scope): Value {
    const object = this.#child(node.object, environment);
    if (object.type === 'UndefinedValue') {
      throw new Error(`${nameOf(node.object as Node)} is undefined and has no ${nameOf(node.property as Node)}`);
    }
    const property = node.property as Node;
    const self = nodeLike(node, { type: 'Value', value: object });
    if (!node.computed || property.type === 'SliceExpression') {
      const rest = nodeLike(node, { ...node, object: self });
      return super.evaluate(rest, environment);
    }
    const key = this.#child(property, environment);
    const index = key.type === 'IntegerValue' ? asNumber(key) : null;
    const characters = asText(object);
    if (index !== null && characters !== null) {
      const character = Array.from(characters).at(index);
      return character === undefined ? undefinedValue() : text(character);
    }
    if (asEntries(object) !== null && asText(key) === null) return undefinedValue();
    const rest = nodeLike(node, { ...node, object: self, property: nodeLike(node, { type: 'Value', value: key }) });
    return super.evaluate(rest, environment);
  }

  #test(node: Node, environment: Scope): Value {
    const operand = this.#child(node.operand, environment);
    const name = (node.test as Node).value;
    if (name === 'iterable') {
      const can = asItems(operand) ?? asEntries(operand) ?? asText(operand);
      return bool((can !== null || operand.type === 'UndefinedValue') !== node.negate);
    }
    if (name === 'float') return bool((operand.type === 'FloatValue') !== node.negate);
    const rest = nodeLike(node, { ...node, operand: nodeLike(node, { type: 'Value', value: operand }) });
    return super.evaluate(rest, environment);
  }
}

function nameOf(node: Node): string {
  return typeof node.value === 'string' ? JSON.stringify(node.value) : 'a value';
}

function loopVariable(items: readonly Value[], index: number): Value {
  const at = (i: number): Value => items[i] ?? undefinedValue();
  return mapping(
    new Map<string, Value>([
      ['index', integer(index + 1)],
      ['index0', integer(index)],
      ['revindex', integer(items.length - index)],
      ['revindex0', integer(items.length - index - 1)],
      ['first', bool(index === 0)],
      ['last', bool(index === items.length - 1)],
      ['length', integer(items.length)],
      ['previtem', at(index - 1)],
      ['nextitem', at(index + 1)],
      ['depth', integer(1)],
      ['cycle', fromJavaScript((...choices: unknown[]) => choices[index % choices.length])],
    ]),
  );
}
