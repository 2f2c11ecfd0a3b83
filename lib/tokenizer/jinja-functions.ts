/** Methods of texts and filters as Python and jinja2 have them, where the interpreter's own differ or are missing. */
import { chargeLength } from './jinja-budget.js';
import { binary } from './jinja-operators.js';
import {
  asEntries,
  asItems,
  asNumber,
  asText,
  bool,
  integer,
  iterate,
  joined,
  list,
  printed,
  text,
  toJson,
  typeName,
  undefinedValue,
  type Value,
} from './jinja-values.js';
import { capitalize, splitWords, strip, title } from './python.js';

export interface Arguments {
  positional: readonly Value[];
  named: ReadonlyMap<string, Value>;
}

/** An argument by position or name. */
function argument({ positional, named }: Arguments, index: number, name: string): Value | undefined {
  return positional[index] ?? named.get(name);
}

function textArgument(args: Arguments, index: number, name: string): string | null {
  const value = argument(args, index, name);
  if (value === undefined || value.type === 'NullValue') return null;
  const given = asText(value);
  if (given === null) throw new Error(`argument ${name} must be a text, got ${typeName(value)}`);
  return given;
}

function requiredText(args: Arguments, index: number, name: string): string {
  const given = textArgument(args, index, name);
  if (given === null) throw new Error(`argument ${name} is missing`);
  return given;
}

function numberArgument(args: Arguments, index: number, name: string, otherwise: number): number {
  const value = argument(args, index, name);
  if (value === undefined || value.type === 'NullValue') return otherwise;
  const given = asNumber(value);
  if (given === null) throw new Error(`argument ${name} must be a number, got ${typeName(value)}`);
  return given;
}

type Method = (self: string, args: Arguments) => Value;

/** Methods of texts. */
export const TEXT_METHODS: ReadonlyMap<string, Method> = new Map<string, Method>([
  ['strip', (self, args) => text(strip(self, textArgument(args, 0, 'chars')))],
  ['lstrip', (self, args) => text(strip(self, textArgument(args, 0, 'chars'), true, false))],
  ['rstrip', (self, args) => text(strip(self, textArgument(args, 0, 'chars'), false, true))],
  ['upper', (self) => text(self.toUpperCase())],
  ['lower', (self) => text(self.toLowerCase())],
  ['title', (self) => text(title(self))],
  ['capitalize', (self) => text(capitalize(self))],
  ['split', split],
  ['rsplit', rsplit],
  ['splitlines', (self) => list(lines(self).map(text))],
  ['replace', replace],
  ['find', (self, args) => integer(codePoints(self, self.indexOf(requiredText(args, 0, 'sub'))))],
  ['rfind', (self, args) => integer(codePoints(self, self.lastIndexOf(requiredText(args, 0, 'sub'))))],
  ['count', (self, args) => integer(self.split(requiredText(args, 0, 'sub')).length - 1)],
  ['join', (self, args) => text(joined(iterate(argument(args, 0, 'iterable') ?? list([])).map(onlyText), self))],
  ['isdigit', (self) => bool(/^\p{Nd}+$/u.test(self))],
  ['isalpha', (self) => bool(/^\p{L}+$/u.test(self))],
  ['isalnum', (self) => bool(/^[\p{L}\p{N}]+$/u.test(self))],
  ['isspace', (self) => bool(self !== '' && strip(self, null) === '')],
  ['removeprefix', (self, args) => text(withoutStart(self, requiredText(args, 0, 'prefix')))],
  ['removesuffix', (self, args) => text(withoutEnd(self, requiredText(args, 0, 'suffix')))],
  ['partition', (self, args) => partition(self, requiredText(args, 0, 'sep'), false)],
  ['rpartition', (self, args) => partition(self, requiredText(args, 0, 'sep'), true)],
]);

function codePoints(self: string, index: number): number {
  return index < 0 ? -1 : Array.from(self.slice(0, index)).length;
}

function onlyText(value: Value): string {
  const given = asText(value);
  if (given === null) throw new Error(`cannot join ${typeName(value)}`);
  return given;
}

function split(self: string, args: Arguments): Value {
  const separator = textArgument(args, 0, 'sep');
  const limit = numberArgument(args, 1, 'maxsplit', -1);
  if (separator === null) return list(splitWords(self, limit).map(text));
  if (separator === '') throw new Error('split: the separator is empty');
  const parts = self.split(separator);
  if (limit >= 0 && parts.length > limit + 1) parts.push(parts.splice(limit).join(separator));
  return list(parts.map(text));
}

function rsplit(self: string, args: Arguments): Value {
  const separator = textArgument(args, 0, 'sep');
  const limit = numberArgument(args, 1, 'maxsplit', -1);
  if (separator === '') throw new Error('rsplit: the separator is empty');
  const parts = separator === null ? splitWords(self, -1) : self.split(separator);
  if (limit < 0 || parts.length <= limit + 1) return list(parts.map(text));
  if (separator === null) throw new Error('rsplit with maxsplit needs a separator');
  const kept = parts.splice(parts.length - limit);
  return list([parts.join(separator), ...kept].map(text));
}

function lines(self: string): string[] {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: three of them end a line to Python
  const parts = self.split(/\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/);
  if (parts.at(-1) === '') parts.pop();
  return parts;
}

function replace(self: string, args: Arguments): Value {
  const from = requiredText(args, 0, 'old');
  const to = requiredText(args, 1, 'new');
  const limit = numberArgument(args, 2, 'count', -1);
  const parts = from === '' ? ['', ...Array.from(self), ''] : self.split(from);
  if (limit < 0) return text(joined(parts, to));
  const count = Math.min(limit, parts.length - 1);
  chargeLength(self.length + count * to.length);
  return text(
    parts.slice(0, count + 1).join(to) +
      parts
        .slice(count + 1)
        .map((part) => from + part)
        .join(''),
  );
}

function withoutStart(self: string, start: string): string {
  return self.startsWith(start) ? self.slice(start.length) : self;
}

function withoutEnd(self: string, end: string): string {
  return end !== '' && self.endsWith(end) ? self.slice(0, -end.length) : self;
}

function partition(self: string, separator: string, last: boolean): Value {
  const at = last ? self.lastIndexOf(separator) : self.indexOf(separator);
  if (at < 0) return list((last ? ['', '', self] : [self, '', '']).map(text));
  return list([self.slice(0, at), separator, self.slice(at + separator.length)].map(text));
}

type Filter = (operand: Value, args: Arguments) => Value;

/** Filters that the interpreter lacks or has otherwise; the rest are its own. */
export const FILTERS: ReadonlyMap<string, Filter> = new Map<string, Filter>([
  ['tojson', tojson],
  ['trim', (operand, args) => text(strip(printed(operand), textArgument(args, 0, 'chars')))],
  ['upper', (operand) => text(printed(operand).toUpperCase())],
  ['lower', (operand) => text(printed(operand).toLowerCase())],
  ['title', (operand) => text(title(printed(operand)))],
  ['capitalize', (operand) => text(capitalize(printed(operand)))],
  ['string', (operand) => text(printed(operand))],
  ['replace', (operand, args) => replace(printed(operand), args)],
  ['length', length],
  ['count', length],
  ['list', (operand) => list([...iterate(operand)])],
  ['first', (operand) => iterate(operand)[0] ?? undefinedValue()],
  ['last', (operand) => iterate(operand).at(-1) ?? undefinedValue()],
  ['join', join],
  ['indent', indent],
  ['int', toInteger],
  ['sum', sum],
  ['min', (operand) => extreme(operand, -1)],
  ['max', (operand) => extreme(operand, 1)],
  ['default', otherwise],
  ['d', otherwise],
]);

function length(operand: Value): Value {
  const entries = asEntries(operand);
  return integer(entries === null ? iterate(operand).length : entries.size);
}

function join(operand: Value, args: Arguments): Value {
  const separator = argument(args, 0, 'd');
  const attribute = textArgument(args, 1, 'attribute');
  const items = iterate(operand).map((item) =>
    attribute === null ? item : (asEntries(item)?.get(attribute) ?? undefinedValue()),
  );
  return text(joined(items.map(printed), separator === undefined ? '' : printed(separator)));
}

function indent(operand: Value, args: Arguments): Value {
  const width = Math.max(0, numberArgument(args, 0, 'width', 4));
  const first = argument(args, 1, 'first')?.__bool__().value ?? false;
  const blank = argument(args, 2, 'blank')?.__bool__().value ?? false;
  const self = printed(operand);
  const parts = self.split('\n');
  chargeLength(self.length + parts.length * width);
  const space = ' '.repeat(width);
  return text(
    parts.map((part, i) => ((i === 0 && !first) || (part === '' && !blank) ? part : space + part)).join('\n'),
  );
}

/** Towards zero; of a text the number it begins to be, or the default. */
function toInteger(operand: Value, args: Arguments): Value {
  const given =
    asNumber(operand) ?? Number.parseFloat(/^\s*[+-]?[\d.]+(e[+-]?\d+)?\s*$/i.exec(printed(operand))?.[0] ?? '');
  return Number.isFinite(given) ? integer(Math.trunc(given)) : (argument(args, 0, 'default') ?? integer(0));
}

function sum(operand: Value, args: Arguments): Value {
  return iterate(operand).reduce((total, item) => binary('+', total, item), argument(args, 1, 'start') ?? integer(0));
}

function extreme(operand: Value, sign: 1 | -1): Value {
  const [first, ...rest] = iterate(operand);
  if (first === undefined) return undefinedValue();
  return rest.reduce((best, item) => (binary(sign > 0 ? '>' : '<', item, best).value ? item : best), first);
}

function otherwise(operand: Value, args: Arguments): Value {
  const wanted = argument(args, 0, 'default_value') ?? text('');
  const alsoFalse = argument(args, 1, 'boolean')?.__bool__().value ?? false;
  return operand.type === 'UndefinedValue' || (alsoFalse && !operand.__bool__().value) ? wanted : operand;
}

function tojson(operand: Value, args: Arguments): Value {
  const indent = argument(args, 1, 'indent');
  const separators = argument(args, 2, 'separators');
  const pair = separators === undefined ? null : asItems(separators)?.map(onlyText);
  if (separators !== undefined && separators.type !== 'NullValue' && pair?.length !== 2) {
    throw new Error('tojson: separators must be two texts');
  }
  return text(
    toJson(operand, {
      ensureAscii: argument(args, 0, 'ensure_ascii')?.__bool__().value ?? false,
      indent: indentText(indent),
      separators: pair?.length === 2 ? [pair[0] as string, pair[1] as string] : null,
      sortKeys: argument(args, 3, 'sort_keys')?.__bool__().value ?? false,
    }),
  );
}

/** More than any template needs, less than hurts. */
const MAX_INDENT = 64;

function indentText(indent: Value | undefined): string | null {
  if (indent === undefined || indent.type === 'NullValue') return null;
  const width = asNumber(indent);
  const given = width === null ? asText(indent) : ' '.repeat(Math.min(MAX_INDENT, Math.max(0, width)));
  if (given === null || given.length > MAX_INDENT) throw new Error('tojson: indent must be a small number or a text');
  return given;
}
