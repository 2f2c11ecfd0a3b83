/** Algorithms by name: small configurations that are laid over one of the user's (configs/presets). */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ConfigError } from '../errors.js';
import { packageRoot } from '../native.js';
import { nearest } from '../options.js';
import { parseTomlText } from './config-file.js';

type Sections = Record<string, unknown>;

const folder = (): string => join(packageRoot, 'configs', 'presets');

/** The names that `--preset` takes. */
export function presetNames(): string[] {
  return readdirSync(folder())
    .filter((name) => name.endsWith('.toml'))
    .map((name) => basename(name, '.toml'))
    .sort();
}

/**
 * The sections of a preset.
 *
 * @throws ConfigError naming the nearest preset, or all of them
 */
export function loadPreset(name: string): Sections {
  const names = presetNames();
  if (!names.includes(name)) {
    const near = nearest(name, names);
    throw new ConfigError(
      `--preset ${name}: there is no such preset; ${near === null ? '' : `did you mean ${near}? `}there are ${names.join(', ')}`,
    );
  }
  const file = join(folder(), `${name}.toml`);
  return parseTomlText(readFileSync(file, 'utf8'), file);
}

/** Presets laid over a configuration, key by key, the last one on top. */
export function withPresets(raw: Sections, presets: readonly string[]): Sections {
  const layered: Sections = { ...raw };
  for (const preset of presets.map(loadPreset)) {
    for (const [section, fields] of Object.entries(preset)) {
      const below = layered[section] ?? {};
      // What is no section stays as it is, and is refused by name.
      if (typeof below !== 'object' || Array.isArray(below)) continue;
      layered[section] = { ...below, ...(fields as object) };
    }
  }
  return layered;
}
