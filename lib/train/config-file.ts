/**
 * Configuration files in general: TOML in, checked values out, every problem reported at once and by name.
 *
 * A schema is a zod object of sections, each a strict zod object of fields made by the functions below. What the
 * documentation and the messages say comes from the same place as what is checked: the field's own metadata.
 */
import { parse as parseToml, stringify as stringifyToml, TomlError } from 'smol-toml';
import { z } from 'zod';
import { ConfigError } from '../errors.js';
import { describe, nearest } from '../options.js';

/** What every field carries besides its check. */
export interface FieldMeta {
  /** What the value means, with its unit. */
  description: string;
  /** What a valid value looks like; used in messages and in the documentation. */
  expected: string;
  /** The paper's value, or what it leaves open. */
  paper?: string;
  /** The field is a file or folder, relative to the configuration file; 'model': or `owner/name` on the hub. */
  path?: boolean | 'model';
  [key: string]: unknown;
}

interface About {
  /** What the value means, with its unit. */
  doc: string;
  /** The paper's value where it gives one. */
  paper?: string;
}

const meta = (about: About, expected: string, path: boolean | 'model' = false): FieldMeta => ({
  description: about.doc,
  expected,
  ...(about.paper === undefined ? {} : { paper: about.paper }),
  ...(path === false ? {} : { path }),
});

const rangeText = (kind: string, min?: number, max?: number, over?: number): string => {
  const bounds: string[] = [];
  if (over !== undefined) bounds.push(`greater than ${over}`);
  if (min !== undefined) bounds.push(`at least ${min}`);
  if (max !== undefined) bounds.push(`at most ${max}`);
  return bounds.length === 0 ? kind : `${kind}, ${bounds.join(' and ')}`;
};

/** A whole number. */
export const integer = (value: number, limits: { min?: number; max?: number }, about: About) => {
  let schema = z.int();
  if (limits.min !== undefined) schema = schema.min(limits.min);
  if (limits.max !== undefined) schema = schema.max(limits.max);
  return schema.default(value).meta(meta(about, rangeText('a whole number', limits.min, limits.max)));
};

/** A finite number; `over` is an exclusive lower bound. */
export const number = (value: number, limits: { min?: number; max?: number; over?: number }, about: About) => {
  let schema = z.number();
  if (limits.min !== undefined) schema = schema.min(limits.min);
  if (limits.max !== undefined) schema = schema.max(limits.max);
  if (limits.over !== undefined) schema = schema.gt(limits.over);
  return schema.default(value).meta(meta(about, rangeText('a number', limits.min, limits.max, limits.over)));
};

/** true or false. */
export const flag = (value: boolean, about: About) => z.boolean().default(value).meta(meta(about, 'true or false'));

/** One of the listed words. */
export const choice = <const T extends readonly [string, ...string[]]>(values: T, value: T[number], about: About) =>
  z
    .enum(values)
    // The enum's own output type is the union of `values`.
    .default(value as never)
    .meta(meta(about, `one of ${values.map((v) => `"${v}"`).join(', ')}`));

/** A string; the empty string where it is optional. */
export const text = (value: string, about: About) => z.string().default(value).meta(meta(about, 'a string'));

/** A file or folder that must be given. */
export const requiredPath = (about: About) =>
  z
    .string()
    .min(1)
    .meta(meta(about, 'a path', true));

/** A model that must be given: a folder, or `owner/name` on the Hugging Face hub. */
export const requiredModel = (about: About) =>
  z
    .string()
    .min(1)
    .meta(meta(about, 'a path, or "owner/name" on the Hugging Face hub', 'model'));

/** A model, or the empty string. */
export const optionalModel = (value: string, about: About) =>
  z
    .string()
    .default(value)
    .meta(meta(about, 'a path, "owner/name" on the Hugging Face hub, or "" for none', 'model'));

/** A file or folder, or the empty string. */
export const optionalPath = (value: string, about: About) =>
  z
    .string()
    .default(value)
    .meta(meta(about, 'a path, or "" for none', true));

/** Files: one path or a list of them, or the empty string. */
export const paths = (about: About) =>
  z
    .union([z.string(), z.array(z.string().min(1))])
    .default('')
    .meta(meta(about, 'a path or a list of paths, or "" for none', true));

/** A list of whole numbers. */
export const integers = (value: number[], limits: { min: number }, about: About) =>
  z
    .array(z.int().min(limits.min))
    .default(value)
    .meta(meta(about, `a list of whole numbers, each at least ${limits.min}`));

/** A list of tokens, by id or text. */
export const stopTokens = (value: (number | string)[], about: About) =>
  z
    .array(z.union([z.int().min(0), z.string().min(1)]))
    .default(value)
    .meta(meta(about, 'a list of token ids (whole numbers, each at least 0) or texts'));

/** A list of strings. */
export const strings = (value: string[], about: About) =>
  z.array(z.string()).default(value).meta(meta(about, 'a list of strings'));

type Section = z.ZodObject<z.ZodRawShape>;
/** A schema of sections. */
export type ConfigSchema = z.ZodObject<z.ZodRawShape>;

/** A section whose fields may all be left out. */
export const section = <T extends z.ZodRawShape>(shape: T, description: string) =>
  z
    .strictObject(shape)
    .prefault({} as never)
    .meta({ description });

const sectionObject = (schema: z.ZodType): Section =>
  (schema instanceof z.ZodPrefault ? schema.unwrap() : schema) as unknown as Section;

/** The documentation of one field. */
export interface FieldDoc {
  section: string;
  key: string;
  description: string;
  expected: string;
  paper: string | null;
  /** undefined: the field must be given. */
  default: unknown;
  path: boolean | 'model';
}

/** Every field of a schema, in order. */
export function fieldDocs(schema: ConfigSchema): FieldDoc[] {
  return Object.entries(schema.shape).flatMap(([name, sectionSchema]) =>
    Object.entries(sectionObject(sectionSchema as z.ZodType).shape).map(([key, field]) => {
      const about = (field as z.ZodType).meta() as FieldMeta | undefined;
      if (about?.expected === undefined) throw new Error(`config field ${name}.${key} has no documentation`);
      return {
        section: name,
        key,
        description: about.description,
        expected: about.expected,
        paper: about.paper ?? null,
        default: field instanceof z.ZodDefault ? field.def.defaultValue : undefined,
        path: about.path ?? false,
      };
    }),
  );
}

/** The description of every section, in order. */
export function sectionDocs(schema: ConfigSchema): { section: string; description: string }[] {
  return Object.entries(schema.shape).map(([name, sectionSchema]) => ({
    section: name,
    description: String((sectionSchema as z.ZodType).meta()?.description ?? ''),
  }));
}

/** Parses TOML; a syntax error names the file and the line. */
export function parseTomlText(source: string, name: string): Record<string, unknown> {
  try {
    return parseToml(source) as Record<string, unknown>;
  } catch (error) {
    if (!(error instanceof TomlError)) {
      throw new ConfigError(`${name}: cannot be read as TOML: ${(error as Error).message}`, { cause: error });
    }
    const reason = error.message.split('\n')[0]?.replace(/^Invalid TOML document: /, '') ?? 'not valid TOML';
    throw new ConfigError(`${name}, line ${error.line}, column ${error.column}: ${reason}`, { cause: error });
  }
}

/** `a.b=value` with a TOML value; a bare word is taken as a string. */
export function parseAssignment(assignment: string): { section: string; key: string; value: unknown } {
  const at = assignment.indexOf('=');
  const path = at < 0 ? assignment : assignment.slice(0, at);
  const parts = path.trim().split('.');
  const [sectionName, key] = parts;
  if (at < 0 || parts.length !== 2 || !sectionName || !key) {
    throw new ConfigError(`--set ${assignment}: expected section.key=value, for example --set rollout.groupSize=16`);
  }
  if (Object.hasOwn(Object.prototype, sectionName) || Object.hasOwn(Object.prototype, key)) {
    throw new ConfigError(`--set ${assignment}: ${sectionName}.${key} is not an option`);
  }
  const written = assignment.slice(at + 1).trim();
  let value: unknown;
  try {
    const parsed = parseToml(`value = ${written}`);
    // More lines of TOML are no value.
    value = Object.keys(parsed).length === 1 ? parsed.value : written;
  } catch {
    // What is not a TOML value is a word a shell took the quotes off: --set unlearn.gate=step.
    value = written;
  }
  return { section: sectionName, key, value };
}

/** A value as the message names it; scripts may pass what JSON does not have. */
function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'number') return String(value);
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch {
    // Circular, a BigInt, or nested too deeply.
  }
  if (text === undefined) return describe(value);
  return text.length > 200 ? `${text.slice(0, 200)}...` : text;
}

function unknownKeyProblem(path: string[], key: string, docs: FieldDoc[], sections: string[]): string {
  if (path.length === 0) {
    if (key === 'study' || key === 'method') return `[${key}] belongs to a study: npx eepo study (docs/studies.md)`;
    const hint = nearest(key, sections);
    return `[${key}] is not a section${hint ? `; did you mean [${hint}]?` : `; there are ${sections.join(', ')}`}`;
  }
  const sectionName = String(path[0]);
  const own = docs.filter((doc) => doc.section === sectionName).map((doc) => doc.key);
  const elsewhere = docs.find((doc) => doc.key === key && doc.section !== sectionName);
  if (elsewhere) return `${sectionName}.${key} is not a key of [${sectionName}]; it belongs to [${elsewhere.section}]`;
  const hint = nearest(key, own);
  if (hint) return `${sectionName}.${key} is not a key of [${sectionName}]; did you mean ${sectionName}.${hint}?`;
  const other = nearest(
    key,
    docs.map((doc) => doc.key),
  );
  const owner = docs.find((doc) => doc.key === other);
  const tail = owner ? `did you mean ${owner.section}.${owner.key}?` : `its keys are ${own.join(', ')}`;
  return `${sectionName}.${key} is not a key of [${sectionName}]; ${tail}`;
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let at = value;
  for (const key of path) at = (at as Record<PropertyKey, unknown> | null | undefined)?.[key];
  return at;
}

/** What is wrong, and with which key: `[section]` or `[section, key]`. */
interface Problem {
  text: string;
  path: readonly string[];
}

/** Every issue zod found, in words: key, value, what was expected. */
function describeIssues(schema: ConfigSchema, error: z.ZodError, raw: unknown): Problem[] {
  const docs = fieldDocs(schema);
  const sections = Object.keys(schema.shape);
  return error.issues.flatMap((issue): Problem[] => {
    const path = issue.path.map(String).slice(0, 2);
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => ({ text: unknownKeyProblem(path, key, docs, sections), path: [...path, key] }));
    }
    if (path.length < 2) {
      return [{ text: `[${path.join('.')}] is ${show(valueAt(raw, issue.path))}; expected a section`, path }];
    }
    const doc = docs.find((d) => d.section === path[0] && d.key === path[1]);
    const value = valueAt(raw, issue.path.slice(0, 2));
    const name = path.join('.');
    const expected = doc?.expected ?? issue.message;
    const text =
      value === undefined
        ? `${name} is missing; expected ${expected}`
        : `${name} = ${show(value)}: expected ${expected}`;
    return [{ text, path }];
  });
}

/** One error with all problems of a file. */
export function configError(source: string, problems: readonly string[]): ConfigError {
  const unique = [...new Set(problems)];
  if (unique.length === 1) return new ConfigError(`${source}: ${unique[0]}`);
  return new ConfigError(`${source}: ${unique.length} problems\n${unique.map((p) => `  - ${p}`).join('\n')}`);
}

/** An override as it was written, and what it sets. */
interface Override {
  written: string;
  section: string;
  key: string;
}

/** The same where overrides have a part in it: who is told of a problem is who can mend it, the file or `--set`. */
function configErrorOf(
  source: string,
  problems: readonly (Problem & { overrides: readonly Override[] })[],
): ConfigError {
  const set = (overrides: readonly Override[]): string => overrides.map(({ written }) => `--set ${written}`).join(' ');
  const [first] = problems;
  const alone = new Set(problems.map(({ text }) => text)).size === 1;
  const fromFile = problems.some(({ overrides, path }) => overrides.length === 0 || path.length === 0);
  if (alone && first !== undefined) {
    const options = set(first.overrides);
    const where = options === '' ? source : fromFile ? `${source} with ${options}` : options;
    return configError(where, [first.text]);
  }
  return configError(
    fromFile ? source : '--set',
    problems.map(({ text, overrides }) => (overrides.length === 0 ? text : `${set(overrides)}: ${text}`)),
  );
}

/** Where a configuration comes from. */
export interface ConfigSource<T> {
  schema: ConfigSchema;
  /** Named in messages. */
  source: string;
  /** Checks between fields; each returned string is a problem. */
  crossChecks?: (config: T) => string[];
  /** Called with every path field of the file or, with `fromCommandLine`, of an override. */
  resolvePath?: (path: string, fromCommandLine: boolean, isModel: boolean) => string;
}

/** @throws ConfigError for a configuration, written in a script, that is no object of sections */
export function checkSections(input: unknown, schema: ConfigSchema, source: string): void {
  const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null && !Array.isArray(value);
  if (!isObject(input)) {
    const sections = Object.keys(schema.shape).join(', ');
    throw new ConfigError(`${source} must be an object of the sections ${sections}; got ${describe(input)}`);
  }
  for (const [name, value] of Object.entries(input as object)) {
    if (value !== undefined && !isObject(value) && Object.hasOwn(schema.shape, name)) {
      throw new ConfigError(`${source}: [${name}] must be an object of options; got ${describe(value)}`);
    }
  }
}

/** Merges overrides into parsed TOML, checks the whole and fills in the defaults. */
export function checkConfig<T>(
  raw: Record<string, unknown>,
  overrides: readonly string[],
  { schema, source, crossChecks, resolvePath }: ConfigSource<T>,
): T {
  const docs = fieldDocs(schema);
  const pathKind = (sectionName: string, key: string): boolean | 'model' =>
    docs.find((doc) => doc.section === sectionName && doc.key === key)?.path ?? false;
  const merged: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(raw)) {
    const copy = value !== null && typeof value === 'object' && !Array.isArray(value) ? { ...value } : value;
    // A section may have any name, `__proto__` too.
    Object.defineProperty(merged, name, { value: copy, enumerable: true, configurable: true, writable: true });
  }
  const put = (sectionName: string, key: string, value: unknown, fromCommandLine: boolean): void => {
    const kind = pathKind(sectionName, key);
    const resolve = (path: unknown): unknown =>
      resolvePath && typeof path === 'string' && path !== ''
        ? resolvePath(path, fromCommandLine, kind === 'model')
        : path;
    const resolved = kind === false ? value : Array.isArray(value) ? value.map(resolve) : resolve(value);
    const target = merged[sectionName];
    if (target !== null && typeof target === 'object') (target as Record<string, unknown>)[key] = resolved;
    else merged[sectionName] = { [key]: resolved };
  };
  for (const [name, fields] of Object.entries(merged)) {
    if (fields === null || typeof fields !== 'object') continue;
    for (const [key, value] of Object.entries(fields)) if (pathKind(name, key) !== false) put(name, key, value, false);
  }
  const given = new Map<string, Override>();
  for (const written of overrides) {
    const { section: name, key, value } = parseAssignment(written);
    put(name, key, value, true);
    given.set(`${name}.${key}`, { written, section: name, key });
  }
  const result = schema.safeParse(merged);
  if (!result.success) {
    const wrong = describeIssues(schema, result.error, merged).map((problem) => ({
      ...problem,
      overrides: [...given.values()].filter(({ section: name, key }) =>
        problem.path.length > 1
          ? name === problem.path[0] && key === problem.path[1]
          : name === problem.path[0] && !(name in raw),
      ),
    }));
    // What is left without the wrong parts may still not fit together: say so now, not at the next attempt.
    const rest = schema.safeParse(withoutIssues(merged, result.error));
    const others = rest.success ? (crossChecks?.(rest.data as T) ?? []) : [];
    throw configErrorOf(source, [...wrong, ...others.map((text) => crossProblem(text, given))]);
  }
  const config = result.data as T;
  const problems = crossChecks?.(config) ?? [];
  if (problems.length > 0) {
    throw configErrorOf(
      source,
      problems.map((text) => crossProblem(text, given)),
    );
  }
  return config;
}

/** What does not fit together may do so because of an override: of each key that the text names. */
function crossProblem(text: string, given: ReadonlyMap<string, Override>) {
  const named = new Set(text.match(/[A-Za-z]+\.[A-Za-z]+/g));
  return { text, path: [], overrides: [...given].flatMap(([name, override]) => (named.has(name) ? [override] : [])) };
}

/** A copy without the keys that zod complained about, which then take their defaults. */
function withoutIssues(raw: Record<string, unknown>, error: z.ZodError): Record<string, unknown> {
  const copy = Object.fromEntries(
    Object.entries(raw).map(([name, value]) => [
      name,
      value !== null && typeof value === 'object' && !Array.isArray(value) ? { ...value } : value,
    ]),
  );
  for (const issue of error.issues) {
    const keys = issue.code === 'unrecognized_keys' ? issue.keys : [issue.path[issue.path.length > 1 ? 1 : 0]];
    const owner = issue.code === 'unrecognized_keys' ? issue.path : issue.path.slice(0, issue.path.length > 1 ? 1 : 0);
    const target = valueAt(copy, owner) as Record<PropertyKey, unknown> | undefined;
    for (const key of keys) if (target && key !== undefined) delete target[key];
  }
  return copy;
}

/** The configuration as TOML, sections and keys in the schema's order. */
export function configToToml(config: object): string {
  return `${stringifyToml(config)}\n`;
}

const showDefault = (value: unknown): string => {
  if (value === undefined) return 'required';
  if (typeof value === 'number' && value !== 0 && Math.abs(value) < 1e-3) return `\`${value.toExponential()}\``;
  return `\`${JSON.stringify(value)}\``;
};

/** The fields of a schema as a Markdown page body: one table per section. */
export function configMarkdown(schema: ConfigSchema): string {
  const docs = fieldDocs(schema);
  const cell = (value: string): string => value.replaceAll('|', '\\|').replaceAll('\n', ' ');
  return sectionDocs(schema)
    .map(({ section: name, description }) => {
      const rows = docs
        .filter((doc) => doc.section === name)
        .map(
          (doc) =>
            `| \`${doc.key}\` | ${showDefault(doc.default)} | ${cell(doc.paper ?? '')} | ${cell(doc.description)} (${cell(doc.expected)}) |`,
        );
      return [`## [${name}]`, '', description, '', '| key | default | paper | meaning |', '|---|---|---|---|', ...rows]
        .join('\n')
        .concat('\n');
    })
    .join('\n');
}
