/** What an evaluation has written and reads again: checked like any other file, because it may be cut off or edited. */
import { readFileSync, statSync } from 'node:fs';
import { z } from 'zod';
import { InvalidFileError } from '../errors.js';
import { parseJsonObject } from '../read-file.js';

const share = z.number();
const estimate = z.looseObject({
  value: share,
  standardError: share.nullable(),
  interval: z.tuple([share, share]),
});
const byK = z.record(z.string().regex(/^[1-9]\d*$/), estimate);
const count = z.number().int().nonnegative();
const responses = z.looseObject({
  responses: count,
  meanLength: z.number().nullable(),
  truncated: share,
  noAnswer: share,
  undecided: count,
  // not in the files of older versions
  missing: count.default(0),
  meanEntropy: z.number().nullable(),
});

const setNumbers = {
  problems: count,
  greedy: estimate.nullable(),
  samples: count,
  avgAtK: estimate.nullable(),
  majAtK: byK,
  passAtK: byK,
  distinctPerSolved: z.number().nullable(),
  distinctAlgebraicPerSolved: z.number().nullable(),
  greedyResponses: responses.nullable(),
  sampledResponses: responses.nullable(),
};

/** `<set>/summary.json`: the numbers of one set and, by problem, how many samples were right. */
export const setSummarySchema = z.looseObject({
  ...setNumbers,
  sampledProblems: count,
  solved: count,
  rows: z.array(
    z.looseObject({
      id: z.string(),
      greedyCorrect: z.boolean().nullable(),
      samples: count,
      correct: count,
      distinct: z.number().nullable(),
      distinctAlgebraic: z.number().nullable(),
    }),
  ),
});

/** results.json: what a table needs of it. */
export const resultSchema = z.looseObject({
  name: z.string(),
  model: z.string().nullish(),
  sets: z.record(z.string(), z.looseObject({ title: z.string(), ...setNumbers })),
});

/** settings.json. */
export const settingsSchema = z.looseObject({
  model: z.string().nullish(),
  weights: z.string(),
  device: z.string().nullish(),
  dtype: z.string().nullish(),
  temperature: z.number().nullish(),
  topP: z.number().nullish(),
  seed: z.number().nullish(),
  maxNewTokens: z.number().nullish(),
  stopTokens: z.array(z.number()).nullish(),
  sets: z.record(z.string(), z.string()),
});

const MAX_BYTES = 64 * 2 ** 20;

/**
 * The object in a JSON file, as it stands, checked against a schema.
 *
 * @param what - what the file holds, for errors
 * @throws InvalidFileError naming the file and the field
 */
export function readChecked<T>(path: string, schema: z.ZodType, what: string): T {
  let text: string;
  try {
    const found = statSync(path);
    if (!found.isFile()) throw new Error('it is not a regular file');
    if (found.size > MAX_BYTES) throw new Error(`it has ${found.size} bytes; at most ${MAX_BYTES} are read`);
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new InvalidFileError(`${path}: cannot be read as ${what}: ${(cause as Error).message}`, { cause });
  }
  const value = parseJsonObject(text, path);
  const checked = schema.safeParse(value);
  if (checked.success) return value as T;
  const problems = checked.error.issues.map((issue) => `  ${issue.path.join('.') || '(root)'}: ${issue.message}`);
  throw new InvalidFileError(`${path}: not ${what}:\n${problems.slice(0, 10).join('\n')}`);
}
