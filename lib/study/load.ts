/** From study.toml to every run that it may need, each with a checked configuration. */
import { existsSync } from 'node:fs';
import { basename, dirname, isAbsolute, join, relative, resolve } from 'node:path';
import { ConfigError } from '../errors.js';
import { isRepoName } from '../hub/index.js';
import { crossChecks, pathResolver, readConfigText, type TrainConfig, trainSchema } from '../train/config.js';
import { configHash } from '../train/config-changes.js';
import { checkConfig, configError, fieldDocs, parseTomlText } from '../train/config-file.js';
import { loadPreset } from '../train/presets.js';
import { checkMetrics } from './check-metrics.js';
import { modelFingerprint } from './fingerprint.js';
import { parseStudy, parseTarget, type StudyFile } from './schema.js';
import { chainOf, expandMethods, type Method, type Variant } from './settings.js';

/** What results are paired by: the same seed and base model for every method. */
export interface Unit {
  /** `seed11`, or with several models `countdown-seed1_seed11`. */
  id: string;
  seed: number;
  /** Folder or name of the base model; null: that of the configuration. */
  model: string | null;
}

/** One training run. Methods whose configurations come out the same share it. */
export interface Run {
  /** Of its configuration and base model. */
  hash: string;
  /** `eepo/eta=0.003/seed11`, of the first method that needs it. */
  name: string;
  folder: string;
  config: TrainConfig;
}

/** A study, checked. */
export interface Study {
  /** The file. */
  path: string;
  spec: StudyFile;
  /** Folder of runs and results. */
  out: string;
  methods: readonly Method[];
  /** On which settings are chosen. */
  selectUnits: readonly Unit[];
  /** On which a method is reported. */
  unitsOf: (method: Method) => readonly Unit[];
  runOf: (method: Method, variant: Variant, unit: Unit) => Run;
}

type Sections = Record<string, Record<string, unknown>>;

/** What a study does not need of its runs, unless the configuration asks for it. */
const DEFAULTS: Sections = {
  run: { completionsEvery: 0, tensorboard: false },
  eval: { keepResponses: false },
  checkpoint: { keepLast: 1 },
};

/**
 * Reads a study and resolves the configuration of every run it may need.
 *
 * @throws ConfigError for anything wrong with the study or any configuration, before anything is trained
 */
export function loadStudy(path: string): Study {
  const spec = parseStudy(readConfigText(path), path);
  const local = pathResolver(path);
  const out = local(spec.study.out, false);
  const methods = expandMethods(spec.method);
  checkTargets(path, spec, methods);
  const models = (list: readonly string[] | undefined): string[] =>
    (list ?? []).map((model) => local(model, false, true));
  const reported = models(spec.study.models);
  const chosen = spec.select?.models === undefined ? reported : models(spec.select.models);
  for (const model of [...reported, ...chosen]) checkModel(model, path);
  const selectUnits = unitsFor(spec.select?.seeds ?? [], chosen, spec.study.cross);
  const unitsOf = (method: Method): Unit[] =>
    unitsFor(method.spec.seeds ?? spec.study.seeds, reported, spec.study.cross);

  const configs = new Map<Variant, Map<Method, TrainConfig>>();
  const files = new Map<string, Sections>();
  const configOf = (method: Method, variant: Variant): TrainConfig => {
    const known = configs.get(variant)?.get(method);
    if (known !== undefined) return known;
    const sections = layersOf(spec, path, method, variant, files);
    // Checked with the model of the first unit; others change the path and the seed alone.
    const first = unitsOf(method)[0] as Unit;
    if (first.model !== null) merge(sections, { model: { path: first.model } });
    const config = checkConfig<TrainConfig>(sections, [], {
      schema: trainSchema,
      source: `${path}, method ${JSON.stringify(method.name)}, setting ${variant.id}`,
      crossChecks,
    });
    checkModel(config.model.path, path);
    configs.set(variant, (configs.get(variant) ?? new Map()).set(method, config));
    return config;
  };

  const owners = new Map<string, Run>();
  const runs = new Map<string, Run>();
  const runOf = (method: Method, variant: Variant, unit: Unit): Run => {
    const key = JSON.stringify([method.name, chainOf(variant).map(({ id }) => id), unit.id]);
    const known = runs.get(key);
    if (known !== undefined) return known;
    const config = withUnit(configOf(method, variant), unit);
    const hash = identityOf(config, dirname(resolve(path)));
    const name = [method.family, variant.id, unit.id].map(safe).join('/');
    const run = owners.get(hash) ?? { hash, name, folder: join(out, 'runs', `${name}-${hash.slice(0, 8)}`), config };
    owners.set(hash, run);
    runs.set(key, run);
    return run;
  };
  // In the order of the file, so that a run that two methods share has one name whatever is chosen.
  for (const method of methods)
    for (const { variant } of method.settings)
      for (const unit of [...selectUnits, ...unitsOf(method)]) runOf(method, variant, unit);
  checkMetrics(
    path,
    spec,
    [...owners.values()].map(({ config }) => config),
  );
  return { path, spec, out, methods, selectUnits, unitsOf, runOf };
}

const safe = (text: string): string => text.replace(/[^\w.=,@+-]/g, '_');

/** The k-th seed with the k-th model, from the first again after the last; or every pair. */
export function unitsFor(seeds: readonly number[], models: readonly string[], cross: boolean): Unit[] {
  if (models.length === 0) return seeds.map((seed) => ({ id: `seed${seed}`, seed, model: null }));
  const names = modelNames(models);
  const unit = (seed: number, i: number): Unit => ({
    id: models.length === 1 ? `seed${seed}` : `${names[i]}_seed${seed}`,
    seed,
    model: models[i] as string,
  });
  return cross
    ? models.flatMap((_, i) => seeds.map((seed) => unit(seed, i)))
    : seeds.map((seed, k) => unit(seed, k % models.length));
}

/** The last folder of each path that is not called model; numbered where two are the same. */
function modelNames(models: readonly string[]): string[] {
  const names = models.map((model) => (basename(model) === 'model' ? basename(dirname(model)) : basename(model)));
  return names.map((name, i) => (names.filter((other) => other === name).length === 1 ? name : `${name}-${i + 1}`));
}

/** Options of all files and tables that come together in a run, the later over the earlier. */
function layersOf(
  spec: StudyFile,
  path: string,
  method: Method,
  variant: Variant,
  files: Map<string, Sections>,
): Sections {
  const local = pathResolver(path);
  const read = (file: string): Sections => {
    const full = local(file, false);
    let sections = files.get(full);
    if (sections === undefined) {
      sections = withPaths(parseTomlText(readConfigText(full), full) as Sections, full);
      files.set(full, sections);
    }
    return sections;
  };
  const chain = chainOf(variant);
  const methods = chain.map((_, i) => chain.slice(i + 1).reduce((at) => at.from as Method, method));
  const root = methods[0] as Method;
  const sections: Sections = {};
  merge(sections, DEFAULTS);
  const base = root.spec.config ?? spec.study.base;
  if (base !== undefined) merge(sections, read(base));
  merge(sections, withPaths(spec.config, path));
  for (const [i, { values }] of chain.entries()) {
    const { set, preset } = (methods[i] as Method).spec;
    if (preset !== undefined) merge(sections, presetOf(preset, path, methods[i] as Method));
    merge(sections, withPaths(nested({ ...set, ...values }), path));
  }
  return sections;
}

function presetOf(name: string, path: string, method: Method): Sections {
  try {
    return loadPreset(name) as Sections;
  } catch (error) {
    throw new ConfigError(`${path}, method ${JSON.stringify(method.name)}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** `{ 'unlearn.eta': 1 }` as sections. */
function nested(options: Readonly<Record<string, unknown>>): Sections {
  const sections: Sections = {};
  for (const [key, value] of Object.entries(options)) {
    const [section, name] = key.split('.') as [string, string];
    merge(sections, { [section]: { [name]: value } });
  }
  return sections;
}

function merge(into: Sections, from: Readonly<Record<string, unknown>>): void {
  for (const [section, fields] of Object.entries(from)) {
    const isTable = typeof fields === 'object' && fields !== null && !Array.isArray(fields);
    // A section may have any name, `__proto__` too; the schema refuses those that are none.
    const value = isTable ? { ...(Object.hasOwn(into, section) ? into[section] : {}), ...fields } : fields;
    Object.defineProperty(into, section, { value, enumerable: true, configurable: true, writable: true });
  }
}

const PATHS = fieldDocs(trainSchema).filter(({ path }) => path !== false);

/** Calls `change` with the paths of a configuration, and returns a copy with what it gives. */
function mapPaths(sections: Sections, change: (path: string, isModel: boolean) => string): Sections {
  const copy: Sections = {};
  merge(copy, sections);
  for (const { section, key, path } of PATHS) {
    const value = Object.hasOwn(copy, section) ? copy[section]?.[key] : undefined;
    if (value === undefined) continue;
    const one = (item: unknown): unknown =>
      typeof item === 'string' && item !== '' ? change(item, path === 'model') : item;
    (copy[section] as Record<string, unknown>)[key] = Array.isArray(value) ? value.map(one) : one(value);
  }
  return copy;
}

/** Paths relative to the file they stand in, made absolute. */
function withPaths(sections: Sections, file: string): Sections {
  const local = pathResolver(file);
  return mapPaths(sections, (path, isModel) => local(path, false, isModel));
}

function withUnit(config: TrainConfig, { seed, model }: Unit): TrainConfig {
  return {
    ...config,
    run: { ...config.run, seed },
    model: { ...config.model, path: model ?? config.model.path },
  };
}

const DEFAULT_VALUES = new Map(fieldDocs(trainSchema).map((doc) => [`${doc.section}.${doc.key}`, doc.default]));

/** Options that change nothing that a study reads of a run. */
const WITHOUT_PART = /^(?:checkpoint\.|run\.(?:completionsEvery|tensorboard)$|eval\.keepResponses$|model\.cacheDir$)/;

/**
 * What a run is known by: its options other than the defaults, so that an option that a later version adds changes
 * nothing, with paths relative to the study, so that the checkout may move; and the base model's content.
 */
export function identityOf(config: TrainConfig, folder: string): string {
  const moved = mapPaths(config as unknown as Sections, (path) => (isAbsolute(path) ? relative(folder, path) : path));
  const chosen = Object.entries(moved)
    .flatMap(([section, fields]) => Object.entries(fields).map(([key, value]) => [`${section}.${key}`, value] as const))
    .filter(([key]) => !WITHOUT_PART.test(key))
    .filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(DEFAULT_VALUES.get(key)))
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return configHash([chosen, modelFingerprint(config.model.path)]);
}

function checkModel(model: string, file: string): void {
  if (existsSync(join(model, 'config.json'))) return;
  if (!isAbsolute(model) && isRepoName(model)) return;
  throw new ConfigError(`${file}: there is no model in ${model} (no config.json)`);
}

/** Methods that claims, tables and figures name. */
function checkTargets(path: string, spec: StudyFile, methods: readonly Method[]): void {
  const names = new Set(methods.map(({ name }) => name));
  const families = new Set(methods.map(({ family }) => family));
  const problems: string[] = [];
  const check = (where: string, target: string | undefined): void => {
    if (target === undefined || names.has(parseTarget(target).method)) return;
    problems.push(`${where}: there is no method ${JSON.stringify(target)}; there are ${[...names].join(', ')}`);
  };
  check('[study] reference', spec.study.reference);
  for (const [i, claim] of spec.claim.entries())
    for (const target of [claim.method, ...(claim.compare ?? [])].flat()) check(`[[claim]] ${i + 1}`, target);
  for (const table of spec.table) for (const target of table.methods ?? []) check(`[[table]] ${table.title}`, target);
  for (const figure of spec.figure) {
    for (const target of figure.methods ?? []) check(`[[figure]] ${figure.name}`, target);
    if (figure.method !== undefined && !families.has(figure.method))
      problems.push(`[[figure]] ${figure.name}: there is no method ${JSON.stringify(figure.method)}`);
  }
  if (problems.length > 0) throw configError(path, problems);
}
