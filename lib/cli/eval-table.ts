/** `eepo eval table DIR...`: finished results as one table. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { InvalidFileError } from '../errors.js';
import { incomparable, readSettings } from '../eval/settings.js';
import { type ModelResult, readResult } from '../eval/suite.js';
import { formatDetails, formatResultTable, resultDocument, resultTable } from '../eval/table.js';

interface TableOptions {
  baseline?: string;
  metric?: string;
  json?: boolean;
  markdown?: boolean;
}

export function register(evalCommand: Command): void {
  evalCommand
    .command('table')
    .description('one table of several results')
    .argument('<dirs...>', 'folders that `eepo eval` has written, or folders of such')
    .option('--baseline <name>', "show every average's gain over this model")
    .option('--metric <metric>', 'of the table: greedy, avg, maj@K or pass@K')
    .option('--json', 'print JSON')
    .option('--markdown', 'print Markdown')
    .action((dirs: string[], options: TableOptions) => printResults(dirs.flatMap(foldersIn), options));
}

/** A folder of results itself, or those in it. */
function foldersIn(dir: string): string[] {
  const hasResults = (path: string): boolean => existsSync(join(path, 'results.json'));
  if (hasResults(dir)) return [dir];
  const below = existsSync(dir) && statSync(dir).isDirectory() ? readdirSync(dir).sort() : [];
  const folders = below.map((name) => join(dir, name)).filter(hasResults);
  if (folders.length > 0) return folders;
  throw new InvalidFileError(`${dir} has no results.json, nor has a folder in it; expected results of \`eepo eval\``);
}

/**
 * Prints the paper's table and the one of all metrics, or JSON of both, or Markdown; notes where the models were not
 * measured alike.
 *
 * @param results - what of the folders to show; default all that they hold
 */
export function printResults(
  folders: readonly string[],
  { baseline, metric, json, markdown }: TableOptions,
  results: readonly ModelResult[] = folders.map(readResult),
): void {
  const table = resultTable(results, {
    metric: metric ?? defaultMetric(results),
    ...(baseline === undefined ? {} : { baseline }),
  });
  const models = folders.map((folder, i) => ({
    name: (results[i] as ModelResult).name,
    settings: readSettings(join(folder, 'settings.json')),
  }));
  for (const text of incomparable(models)) console.error(`note: ${text}`);
  if (json) console.log(JSON.stringify({ models: results, table }, null, 2));
  else if (markdown) console.log(resultDocument(results, table));
  else console.log(`${formatResultTable(table)}\n\n${formatDetails(results)}`);
}

/** Greedy, as in the paper, unless nobody was decoded greedily. */
function defaultMetric(results: readonly ModelResult[]): string {
  const sets = results.flatMap((result) => Object.values(result.sets));
  return sets.some(({ greedy }) => greedy !== null) || sets.length === 0 ? 'greedy' : 'avg';
}
