/** state.json: all of a checkpoint that is no weight. */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { InvalidFileError } from '../errors.js';
import { configHash } from './config-changes.js';
import { digest, type FileDigest, filesBelow } from './durable.js';
import type { TrainerState } from './trainer-types.js';

/** Of the layout of a checkpoint folder. A reader refuses what it does not know. */
const FORMAT = 1;
export const STATE_FILE = 'state.json';

const metrics = z.record(z.string(), z.number());
const count = z.int().min(0);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

const trainerState = z.object({
  iteration: count,
  promptsDrawn: count,
  prompts: sha256,
  gateHistory: z.array(z.number()),
  streaks: z.object({ skippedSteps: count, failedRewards: count }),
  startEvaluated: z.boolean(),
  pending: metrics.nullable(),
});

const schema = z.object({
  format: z.literal(FORMAT),
  trainer: trainerState,
  /** Sizes of the files that grow, at the end of this iteration. */
  offsets: z.object({ 'metrics.jsonl': count, 'completions.jsonl': count }),
  /** Wall clock of the run so far, over all its processes. */
  seconds: z.number(),
  /** The best value so far of checkpoint.keepBest. */
  best: z.object({ metric: z.string(), iteration: count, value: z.number() }).nullable(),
  config: z.record(z.string(), z.record(z.string(), z.unknown())),
  configSha256: sha256,
  /** Where the run began: the reference of the KL penalty and the base of an adapter are not in the checkpoint. */
  initial: z.object({ folder: z.string().nullable(), fingerprint: z.string().nullable() }),
  eepo: z.string(),
  node: z.string(),
  device: z.string(),
  files: z.record(z.string(), z.object({ bytes: count, sha256 })),
});

/** What a checkpoint holds beside weights and moments. */
export type CheckpointState = Omit<z.output<typeof schema>, 'trainer'> & { trainer: TrainerState };
/** What the writer is given; the rest it adds. */
export type CheckpointContent = Omit<CheckpointState, 'format' | 'files' | 'configSha256'>;

const sha = (text: string): string => createHash('sha256').update(text).digest('hex');

/** The text of state.json for a folder whose other files are all there. */
export async function stateText(folder: string, content: CheckpointContent): Promise<string> {
  const files: Record<string, FileDigest> = {};
  for (const name of filesBelow(folder)) files[name] = await digest(join(folder, name));
  const state = { format: FORMAT, ...content, configSha256: configHash(content.config), files };
  return textOf({ ...state, checksum: sha(JSON.stringify(state)) });
}

const textOf = (state: object): string => `${JSON.stringify(state, null, 2)}\n`;

/**
 * Reads state.json.
 *
 * @throws InvalidFileError naming the file and what is wrong
 */
export function readState(folder: string): CheckpointState {
  const path = join(folder, STATE_FILE);
  if (!existsSync(path)) throw new InvalidFileError(`${path} is missing; the checkpoint is not whole`);
  const text = readFileSync(path, 'utf8');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new InvalidFileError(`${path}: not valid JSON; the checkpoint is damaged`, { cause });
  }
  const { checksum, ...state } = (value ?? {}) as Record<string, unknown>;
  if (typeof state.format === 'number' && state.format > FORMAT) {
    throw new InvalidFileError(
      `${path} has format ${state.format}; this version of eepo reads ${FORMAT}: use a newer one`,
    );
  }
  // the text too: a file that lacks its last byte was not written to its end
  if (checksum !== sha(JSON.stringify(state)) || text !== textOf({ ...state, checksum })) {
    throw new InvalidFileError(`${path} does not have the checksum it was written with; the checkpoint is damaged`);
  }
  const parsed = schema.safeParse(state);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new InvalidFileError(`${path}: ${issue?.path.join('.')}: ${issue?.message}; it is no state of a checkpoint`);
  }
  return parsed.data as CheckpointState;
}

/**
 * Checks every file of a checkpoint against its size and SHA-256.
 *
 * @throws InvalidFileError naming the first file that is missing, one too many, cut off or changed
 */
export async function verifyFiles(folder: string, state: CheckpointState): Promise<void> {
  const listed = Object.entries(state.files);
  const extra = filesBelow(folder).find(
    (name) => name !== STATE_FILE && !name.split('/').some((part) => part.startsWith('.')) && !(name in state.files),
  );
  if (extra !== undefined)
    throw new InvalidFileError(`${join(folder, extra)} does not belong to the checkpoint; remove it`);
  // sizes first: they cost nothing
  for (const [name, { bytes }] of listed) {
    const path = join(folder, name);
    const size = statSync(path, { throwIfNoEntry: false })?.size;
    if (size === undefined) throw new InvalidFileError(`${path} is missing; the checkpoint is damaged`);
    if (size !== bytes)
      throw new InvalidFileError(`${path} has ${size} bytes instead of ${bytes}; the checkpoint is damaged`);
  }
  for (const [name, { sha256: expected }] of listed) {
    const path = join(folder, name);
    const { sha256: found } = await digest(path);
    if (found !== expected) {
      throw new InvalidFileError(`${path} does not have the SHA-256 it was written with; the checkpoint is damaged`);
    }
  }
}

/** Whether a folder looks like a checkpoint. */
export const isCheckpoint = (path: string): boolean =>
  existsSync(path) && statSync(path).isDirectory() && readdirSync(path).includes(STATE_FILE);
