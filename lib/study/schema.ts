/** The file that `eepo study` reads: its keys, their checks, and messages that name them. */
import { z } from 'zod';
import { ConfigError } from '../errors.js';
import { nearest } from '../options.js';
import { configError, parseTomlText } from '../train/config-file.js';

const NAME = /^[A-Za-z0-9][\w.+-]*$/;
const name = z.string().regex(NAME, 'expected letters, digits and . _ + - only');
const seed = z
  .int()
  .min(0)
  .max(2 ** 32 - 1);
const seeds = z
  .array(seed)
  .min(1)
  .refine((list) => new Set(list).size === list.length, 'expected seeds that differ');
const scalar = z.union([z.number(), z.string(), z.boolean(), z.array(z.union([z.number(), z.string()]))]);
const optionKey = z.string().regex(/^[A-Za-z]+\.[A-Za-z][A-Za-z0-9]*$/, 'expected section.key, in quotes');
const sections = z.record(z.string(), z.record(z.string(), z.unknown()));
const iteration = z.int().min(0);

/** How one number is read off a run. */
const reading = {
  /** At the last iteration up to this one at which the metric was measured. Default: the last of the run. */
  at: iteration.optional(),
  /** Mean over these iterations, both included. */
  range: z.tuple([iteration, iteration]).optional(),
  /** The first iteration at which the metric reaches this value; a run that never does counts with its last one. */
  crosses: z.number().optional(),
  /** With `crosses`: falls to the value, instead of rising to it. */
  below: z.boolean().default(false),
  /** With `crosses`: a mean over so many measurements, the last ones, is compared. */
  smooth: z.int().min(1).default(1),
  /** With `crosses`: what is counted up to there. */
  cost: z.enum(['iterations', 'seconds', 'samples']).default('iterations'),
};

const study = z.strictObject({
  name,
  /** What the study asks, in a sentence or more; Markdown. */
  about: z.string().default(''),
  /** Folder of runs and results, relative to the file. */
  out: z.string().min(1),
  /** Configuration that all methods start from. */
  base: z.string().min(1).optional(),
  /** Seeds whose results are reported. */
  seeds,
  /** Base models; the k-th seed starts from the k-th of them, and from the first again after the last. */
  models: z.array(z.string().min(1)).min(1).optional(),
  /** Every seed with every model, instead. */
  cross: z.boolean().default(false),
  /** Runs at a time; 0 = as many as the cores allow. */
  jobs: z.int().min(0).default(0),
  /** Threads of a run. */
  threads: z.int().min(1).default(1),
  /** Keep weights and checkpoints of finished runs. */
  keepModels: z.boolean().default(false),
  /** Method that the others' paired differences in the tables are against. */
  reference: name.optional(),
  /** Of the base configuration on one core, for the estimate before any run has been timed. */
  secondsPerIteration: z.number().positive().optional(),
});

const select = z.strictObject({
  /** Seeds that settings are chosen on; none of those that are reported. */
  seeds,
  /** Base models of these; default: those of the study. */
  models: z.array(z.string().min(1)).min(1).optional(),
  metric: z.string().min(1).optional(),
  /** Instead of a metric: a weighted sum of several. */
  score: z.record(z.string(), z.number()).optional(),
  mode: z.enum(['max', 'min']).default('max'),
  at: reading.at,
  range: reading.range,
});

const method = z.strictObject({
  name,
  label: z.string().min(1).optional(),
  /** A configuration file of its own instead of study.base, such as a preset. */
  config: z.string().min(1).optional(),
  /** An algorithm of configs/presets, laid over the configuration. */
  preset: z.string().min(1).optional(),
  /** Another method, whose configuration and chosen setting this one starts from. */
  from: name.optional(),
  set: z.record(optionKey, scalar).default({}),
  /** Values of options; every combination is a setting. */
  sweep: z.record(optionKey, z.array(scalar).min(1)).default({}),
  /** Iterations at which training may have ended; each is a setting too, without runs of its own. */
  stop: z.array(z.int().min(1)).min(1).optional(),
  /** false: nothing is chosen, every setting is reported as a method, name:setting. */
  tune: z.boolean().default(true),
  /** A weighted sum of metrics that its setting is chosen by, in the place of that of [select]. */
  score: z.record(z.string(), z.number()).optional(),
  seeds: seeds.optional(),
});

const target = z.string().min(1);
const claim = z.strictObject({
  text: z.string().min(1),
  /** What the paper says, and where. */
  paper: z.string().optional(),
  metric: z.string().min(1).optional(),
  /** Two metrics of the same run of `method`: the first minus the second. */
  metrics: z.tuple([z.string().min(1), z.string().min(1)]).optional(),
  method: target.optional(),
  /** [A, B] or [A, [B, C, ...]]: A minus B; with several it holds only if it holds against each. */
  compare: z.tuple([target, z.union([target, z.array(target).min(1)])]).optional(),
  direction: z.enum(['higher', 'lower', 'same']).default('higher'),
  /** By how much, at least; for "same": by how much at most. */
  margin: z.number().min(0).default(0),
  minSeeds: z.int().min(2).default(5),
  /** Compare at equal "seconds", "samples", or at an equal value of another metric along B's training. */
  equal: z.string().min(1).optional(),
  ...reading,
});

const table = z.strictObject({
  title: z.string().min(1),
  metrics: z.array(z.string().min(1)).min(1),
  methods: z.array(target).min(1).optional(),
  ...reading,
});

const figure = z.strictObject({
  name,
  title: z.string().min(1),
  kind: z.enum(['curves', 'tradeoff', 'sweep']),
  /** "curves": one or more metrics over iterations. */
  metrics: z.array(z.string().min(1)).min(1).optional(),
  /** "tradeoff": y against x at the evaluations. */
  x: z.string().min(1).optional(),
  y: z.string().min(1).optional(),
  /** "sweep": a metric at every setting of one method. */
  metric: z.string().min(1).optional(),
  method: name.optional(),
  methods: z.array(target).min(1).optional(),
});

const studySchema = z.strictObject({
  study,
  config: sections.default({}),
  select: select.optional(),
  method: z.array(method).min(1),
  claim: z.array(claim).default([]),
  table: z.array(table).default([]),
  figure: z.array(figure).default([]),
});

/** The sections and what each may hold; docs/studies.md has a row for every key. */
export const STUDY_SECTIONS: Readonly<Record<string, z.ZodRawShape>> = {
  study: study.shape,
  select: select.shape,
  method: method.shape,
  claim: claim.shape,
  table: table.shape,
  figure: figure.shape,
};

export type StudyFile = z.output<typeof studySchema>;
export type MethodSpec = StudyFile['method'][number];
export type ClaimSpec = StudyFile['claim'][number];
export type TableSpec = StudyFile['table'][number];
export type FigureSpec = StudyFile['figure'][number];
export type SelectSpec = NonNullable<StudyFile['select']>;
/** How one number is read off a run; see docs/studies.md. */
export type Reading = Pick<ClaimSpec, 'at' | 'range'> &
  Partial<Pick<ClaimSpec, 'crosses' | 'below' | 'smooth' | 'cost'>>;

/**
 * Parses a study.
 *
 * @throws ConfigError that names every wrong key and value
 */
export function parseStudy(source: string, file: string): StudyFile {
  const raw = parseTomlText(source, file);
  if ('run' in raw && !('study' in raw)) {
    throw new ConfigError(`${file} has no [study]: it looks like a configuration of one run; use: npx eepo train`);
  }
  const result = studySchema.safeParse(raw);
  if (!result.success)
    throw configError(
      file,
      result.error.issues.flatMap((issue) => issueTexts(issue, raw)),
    );
  const problems = crossProblems(result.data);
  if (problems.length > 0) throw configError(file, problems);
  return result.data;
}

function issueTexts(issue: z.core.$ZodIssue, raw: unknown): string[] {
  const where = placeOf(issue.path, raw);
  if (issue.code === 'unrecognized_keys') {
    const known = keysAt(issue.path);
    return issue.keys.map((key) => {
      const near = nearest(key, known);
      return `${where}: there is no key ${JSON.stringify(key)}; ${near === null ? `there are ${known.join(', ')}` : `did you mean ${near}?`}`;
    });
  }
  return [`${where}: ${issue.message.replace(/^Invalid input: /, '')}`];
}

/** `claim 2, margin`; methods by name. */
function placeOf(path: readonly PropertyKey[], raw: unknown): string {
  const [section, index] = path;
  if (section === undefined) return 'the file';
  if (typeof index !== 'number') return [`[${String(section)}]`, ...path.slice(1).map(String)].join(' ');
  const table = (raw as Record<string, { name?: unknown }[]>)[String(section)]?.[index];
  const called = typeof table?.name === 'string' ? ` ${JSON.stringify(table.name)}` : ` ${index + 1}`;
  return [`[[${String(section)}]]${called}`, ...path.slice(2).map(String)].join(', ');
}

function keysAt(path: readonly PropertyKey[]): string[] {
  const shape = path.length === 0 ? studySchema.shape : STUDY_SECTIONS[String(path[0])];
  return Object.keys(shape ?? {});
}

/** `grpo@45`: the method, and the iteration at which its runs are read. */
export function parseTarget(text: string): { method: string; stop: number | null } {
  const match = /^(.*)@(\d+)$/.exec(text);
  return match === null ? { method: text, stop: null } : { method: match[1] as string, stop: Number(match[2]) };
}

/** What more than one key says. Names of methods that `tune = false` makes are checked when these are known. */
function crossProblems(file: StudyFile): string[] {
  const names = file.method.map((spec) => spec.name);
  const problems: string[] = [];
  for (const [i, text] of names.entries())
    if (names.indexOf(text) !== i) problems.push(`[[method]] ${JSON.stringify(text)} is there twice`);
  for (const [i, spec] of file.method.entries()) {
    const where = `[[method]] ${JSON.stringify(spec.name)}`;
    if (spec.from !== undefined && !names.slice(0, i).includes(spec.from))
      problems.push(`${where}: from = ${JSON.stringify(spec.from)} is no method above it`);
    if (spec.from !== undefined && spec.config !== undefined) problems.push(`${where}: give config or from, not both`);
    if (!spec.tune && file.method.some((other) => other.from === spec.name))
      problems.push(`${where}: tune = false, so that no setting of it can be taken up by another method`);
    if (needsChoice(spec) && file.select === undefined)
      problems.push(`${where} has several settings; add [select] with seeds and a metric, or tune = false`);
    if (
      spec.config === undefined &&
      spec.from === undefined &&
      file.study.base === undefined &&
      !('model' in file.config)
    )
      problems.push(`${where} has no configuration; give study.base, a config of its own, or [config.model]`);
    if (spec.score !== undefined && !needsChoice(spec))
      problems.push(`${where}: score chooses between settings, and there is one; leave it out`);
    for (const key of Object.keys(spec.sweep))
      if (Object.hasOwn(spec.set, key)) problems.push(`${where}: ${key} is in set and in sweep`);
    for (const key of ['run.seed', ...(file.study.models === undefined ? [] : ['model.path'])])
      if (Object.hasOwn(spec.set, key) || Object.hasOwn(spec.sweep, key))
        problems.push(`${where}: ${key} comes from the study's seeds and models`);
  }
  problems.push(...selectProblems(file), ...file.claim.flatMap(claimProblems), ...file.figure.flatMap(figureProblems));
  return problems;
}

/** Whether a setting has to be chosen. */
export const needsChoice = (spec: MethodSpec): boolean =>
  spec.tune &&
  Object.values(spec.sweep).reduce((product, values) => product * values.length, 1) * (spec.stop?.length ?? 1) > 1;

function selectProblems({ select: chosen, study: general, method: methods }: StudyFile): string[] {
  if (chosen === undefined) return [];
  const problems: string[] = [];
  if ((chosen.metric === undefined) === (chosen.score === undefined))
    problems.push('[select]: give metric or score, one of them');
  const reported = new Set([...general.seeds, ...methods.flatMap((spec) => spec.seeds ?? [])]);
  const both = chosen.seeds.filter((value) => reported.has(value));
  if (both.length > 0)
    problems.push(
      `[select] seeds: ${both.join(', ')} ${both.length === 1 ? 'is' : 'are'} reported too; choose settings on other seeds than those that are reported`,
    );
  return problems;
}

function claimProblems(spec: ClaimSpec, index: number): string[] {
  const where = `[[claim]] ${index + 1}`;
  const problems: string[] = [];
  const within = spec.metrics !== undefined;
  if (within === (spec.metric !== undefined))
    problems.push(`${where}: give metric, or metrics = [one, other] of one method`);
  if (within && (spec.method === undefined || spec.compare !== undefined))
    problems.push(`${where}: metrics compares two metrics of one run; give method, and no compare`);
  if (!within && (spec.compare === undefined || spec.method !== undefined))
    problems.push(`${where}: give compare = [method, method]`);
  if (spec.direction === 'same' && spec.margin === 0)
    problems.push(`${where}: direction = "same" needs a margin: how large a difference would still count as none`);
  const readings = [spec.at, spec.range, spec.crosses].filter((value) => value !== undefined).length;
  if (readings > 1) problems.push(`${where}: give one of at, range and crosses`);
  if (spec.range !== undefined && spec.range[0] > spec.range[1]) problems.push(`${where}: range ends before it begins`);
  if (spec.equal !== undefined && (within || spec.range !== undefined || spec.crosses !== undefined))
    problems.push(`${where}: equal compares one metric at one place of each run; leave out metrics, range and crosses`);
  return problems;
}

function figureProblems(spec: FigureSpec): string[] {
  const where = `[[figure]] ${JSON.stringify(spec.name)}`;
  const needed = { curves: ['metrics'], tradeoff: ['x', 'y'], sweep: ['metric', 'method'] } as const;
  return needed[spec.kind]
    .filter((key) => spec[key] === undefined)
    .map((key) => `${where}: kind = "${spec.kind}" needs ${key}`);
}
