/** The files of a study's results. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { writeWhole } from '../train/durable.js';
import type { StudyResults } from './results.js';
import { resultsCsv, resultsMarkdown } from './tables.js';

/** Writes results.json, tables.md and tables.csv. Returns their names. */
export function writeResults(out: string, results: StudyResults): string[] {
  mkdirSync(out, { recursive: true });
  const files = {
    'results.json': `${JSON.stringify(results)}\n`,
    'tables.md': resultsMarkdown(results),
    'tables.csv': resultsCsv(results),
  };
  for (const [name, content] of Object.entries(files)) writeWhole(join(out, name), content);
  return Object.keys(files);
}
