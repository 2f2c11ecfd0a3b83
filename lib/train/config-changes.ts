/** What differs between the configuration of a checkpoint and the one it is to go on with. */
import { createHash } from 'node:crypto';
import { ConfigError } from '../errors.js';
import { type TrainConfig, trainSchema } from './config.js';

/** One key that differs. */
export interface ConfigChange {
  /** `section.key`. */
  key: string;
  old: unknown;
  new: unknown;
  /** Whether the key has no part in what is computed: when to stop, what to measure and to keep, how much memory. */
  harmless: boolean;
}

const HARMLESS_SECTIONS = ['eval', 'checkpoint'];
const HARMLESS = [
  'run.iterations',
  'run.completionsEvery',
  'run.tensorboard',
  'model.cacheDir',
  'model.offline',
  'rollout.maxRows',
  'rollout.cacheTokens',
  'unlearn.probeTokens',
  'optimizer.gradientCheckpointing',
];

type Sections = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

/** Every key that differs, in the order of the schema. Keys that an older version did not have had their defaults. */
export function configChanges(old: Sections, now: TrainConfig): ConfigChange[] {
  const parsed = trainSchema.safeParse(old);
  const before = (parsed.success ? parsed.data : old) as Sections;
  return Object.entries(now as Sections).flatMap(([section, fields]) =>
    Object.entries(fields).flatMap(([name, value]): ConfigChange[] => {
      const was = before[section]?.[name];
      if (JSON.stringify(was) === JSON.stringify(value)) return [];
      const key = `${section}.${name}`;
      return [{ key, old: was, new: value, harmless: HARMLESS_SECTIONS.includes(section) || HARMLESS.includes(key) }];
    }),
  );
}

const show = (value: unknown): string => (value === undefined ? 'nothing' : JSON.stringify(value));

/** `optimizer.lr: 0.00005 -> 0.0001`. */
export const changeText = ({ key, old, new: value }: ConfigChange): string => `${key}: ${show(old)} -> ${show(value)}`;

/**
 * Says what changed, key by key.
 *
 * @param accept - take changes that make another run of it
 * @returns one note per key that is accepted
 * @throws ConfigError naming every key that makes another run of it
 */
export function acceptChanges(old: Sections, now: TrainConfig, what: string, accept: boolean): string[] {
  const changes = configChanges(old, now);
  const serious = changes.filter(({ harmless }) => !harmless);
  if (serious.length > 0 && !accept) {
    throw new ConfigError(
      `${what} was made with another configuration:\n${serious.map((change) => `  ${changeText(change)}`).join('\n')}\n` +
        'Give the old values, or --accept-changes to go on with the new ones (it is another run from there)',
    );
  }
  return changes.map((change) =>
    change.harmless
      ? `changed since the checkpoint: ${changeText(change)}`
      : `changed since the checkpoint, and with it the run: ${changeText(change)}`,
  );
}

/** SHA-256 of a configuration. */
export const configHash = (config: object): string => createHash('sha256').update(JSON.stringify(config)).digest('hex');
