/** Values of the template interpreter, with Python's idea of text, equality and JSON. */
import { charge, chargeLength } from './jinja-budget.js';
import { Environment, type Value } from './jinja-library.js';
import { compareTexts, floatRepr, type JsonStyle, jsonText, textRepr } from './python.js';

export type { Value } from './jinja-library.js';

type Make<T> = new (value: T) => Value;

/** The interpreter's value of a JavaScript one; functions become callable. */
export function fromJavaScript(js: unknown): Value {
  return new Environment().set('value', js);
}

// The library does not export its classes; a sample has them.
const classOf = <T>(sample: unknown): Make<T> => fromJavaScript(sample).constructor as Make<T>;
const TextValue = classOf<string>('');
const BooleanValue = classOf<boolean>(true);
const IntegerValue = classOf<number>(1);
const FloatValue = classOf<number>(0.5);
const ListValue = classOf<Value[]>([]);
const MappingValue = classOf<Map<string, Value>>({});
const UndefinedValue = classOf<undefined>(undefined);

export const text = (value: string): Value => new TextValue(value);
export const bool = (value: boolean): Value => new BooleanValue(value);
export const integer = (value: number): Value => new IntegerValue(value);
export const float = (value: number): Value => new FloatValue(value);
export const list = (values: Value[]): Value => new ListValue(values);
export const mapping = (entries: Map<string, Value>): Value => new MappingValue(entries);
export const undefinedValue = (): Value => new UndefinedValue(undefined);

/** The text of a value that is one; null for others. */
export function asText(value: Value | undefined): string | null {
  return value?.type === 'StringValue' ? (value.value as string) : null;
}

/** Of a list or tuple. */
export function asItems(value: Value): Value[] | null {
  return value.type === 'ArrayValue' || value.type === 'TupleValue' ? (value.value as Value[]) : null;
}

/** Of a mapping. */
export function asEntries(value: Value): Map<string, Value> | null {
  return value.type === 'ObjectValue' || value.type === 'KeywordArgumentsValue'
    ? (value.value as Map<string, Value>)
    : null;
}

/** Of an integer, a float or a boolean, which counts as 0 or 1. */
export function asNumber(value: Value | undefined): number | null {
  if (value?.type === 'IntegerValue' || value?.type === 'FloatValue') return value.value as number;
  return value?.type === 'BooleanValue' ? Number(value.value) : null;
}

/** What a loop or a filter goes through: items, keys, characters. */
export function iterate(value: Value): Value[] {
  const items = asItems(value);
  if (items !== null) return items;
  const entries = asEntries(value);
  if (entries !== null) return [...entries.keys()].map(text);
  const characters = asText(value);
  if (characters !== null) return Array.from(characters, text);
  // jinja2: an undefined value is an empty sequence
  if (value.type === 'UndefinedValue') return [];
  throw new Error(`${typeName(value)} is not iterable`);
}

export function typeName(value: Value): string {
  const names: Record<string, string> = {
    StringValue: 'a text',
    IntegerValue: 'an integer',
    FloatValue: 'a float',
    BooleanValue: 'a boolean',
    NullValue: 'none',
    UndefinedValue: 'an undefined value',
    ArrayValue: 'a list',
    TupleValue: 'a tuple',
    ObjectValue: 'a mapping',
    FunctionValue: 'a function',
  };
  return names[value.type] ?? value.type;
}

/** `str(value)`: what `{{ value }}` prints. */
export function printed(value: Value): string {
  if (value.type === 'UndefinedValue') return '';
  return asText(value) ?? repr(value);
}

function repr(value: Value): string {
  // What is nested may be much larger than what was made: [a, a] of [b, b] of ...
  charge(1);
  const string = asText(value);
  if (string !== null) {
    // character by character
    charge(string.length / 16);
    return textRepr(string);
  }
  if (value.type === 'NullValue') return 'None';
  if (value.type === 'BooleanValue') return value.value ? 'True' : 'False';
  if (value.type === 'IntegerValue') return String(value.value);
  if (value.type === 'FloatValue') return floatRepr(value.value as number);
  if (value.type === 'UndefinedValue') return 'Undefined';
  const items = asItems(value);
  if (items !== null) {
    const body = joined(items.map(repr), ', ');
    if (value.type === 'ArrayValue') return `[${body}]`;
    return items.length === 1 ? `(${body},)` : `(${body})`;
  }
  const entries = asEntries(value);
  if (entries !== null) {
    return `{${joined(
      [...entries].map(([key, v]) => `${textRepr(key)}: ${repr(v)}`),
      ', ',
    )}}`;
  }
  throw new Error(`${typeName(value)} cannot be printed`);
}

/** `parts.join(separator)`, once it is known how long that is. */
export function joined(parts: readonly string[], separator: string): string {
  chargeLength(parts.reduce((sum, part) => sum + part.length, separator.length * Math.max(0, parts.length - 1)));
  return parts.join(separator);
}

/** Python's `==`: by value, numbers and booleans alike, never a text and a number. */
export function isEqual(a: Value, b: Value): boolean {
  charge(1);
  const numbers = [asNumber(a), asNumber(b)];
  if (numbers[0] !== null && numbers[1] !== null) return numbers[0] === numbers[1];
  if (a.type !== b.type) return false;
  const [left, right] = [asItems(a), asItems(b)];
  if (left !== null && right !== null) {
    return left.length === right.length && left.every((item, i) => isEqual(item, right[i] as Value));
  }
  const [one, other] = [asEntries(a), asEntries(b)];
  if (one !== null && other !== null) {
    return (
      one.size === other.size &&
      [...one].every(([key, value]) => other.has(key) && isEqual(value, other.get(key) as Value))
    );
  }
  const string = asText(a);
  if (string !== null && string.length === asText(b)?.length) charge(string.length / 256);
  return a.value === b.value;
}

/** Python's `in`. */
export function contains(container: Value, member: Value): boolean {
  const items = asItems(container);
  if (items !== null) return items.some((item) => isEqual(item, member));
  const key = asText(member);
  const entries = asEntries(container);
  if (entries !== null) return key !== null && entries.has(key);
  if (container.type === 'UndefinedValue') return false;
  const all = asText(container);
  if (all !== null && key !== null) return all.includes(key);
  throw new Error(`cannot look for ${typeName(member)} in ${typeName(container)}`);
}

/** `json.dumps`. Numbers that JSON wrote as `1.0` are integers here: JavaScript cannot tell them apart. */
export function toJson(value: Value, style: JsonStyle, depth = 0): string {
  charge(1);
  const string = asText(value);
  if (string !== null) {
    charge(string.length / 64);
    return jsonText(string, style.ensureAscii);
  }
  if (value.type === 'NullValue') return 'null';
  if (value.type === 'BooleanValue') return value.value ? 'true' : 'false';
  if (value.type === 'IntegerValue') return String(value.value);
  if (value.type === 'FloatValue') return jsonFloat(value.value as number);
  const [between, afterKey] = style.separators ?? [style.indent === null ? ', ' : ',', ': '];
  const items = asItems(value);
  const entries = asEntries(value);
  let parts: string[];
  if (items !== null) parts = items.map((item) => toJson(item, style, depth + 1));
  else if (entries !== null) {
    const pairs = style.sortKeys ? [...entries].sort(([a], [b]) => compareTexts(a, b)) : [...entries];
    parts = pairs.map(([key, v]) => jsonText(key, style.ensureAscii) + afterKey + toJson(v, style, depth + 1));
  } else throw new Error(`${typeName(value)} cannot be written as JSON`);
  const [open, close] = items !== null ? ['[', ']'] : ['{', '}'];
  if (parts.length === 0 || style.indent === null) return open + joined(parts, between) + close;
  const outer = `\n${style.indent.repeat(depth)}`;
  return open + outer + style.indent + joined(parts, between + outer + style.indent) + outer + close;
}

function jsonFloat(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value > 0 ? 'Infinity' : '-Infinity';
  return floatRepr(value);
}
