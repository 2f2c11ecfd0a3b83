/** `eepo eval table DIR...`: finished results as one table. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { InvalidFileError } from '../errors.js';
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
    .action((dirs: string[], options: TableOptions) => printResults(dirs.flatMap(resultsIn), options));
}

/** The results of a folder itself, or of the folders in it. */
function resultsIn(dir: string): ModelResult[] {
  if (existsSync(join(dir, 'results.json'))) return [readResult(dir)];
  const below = existsSync(dir)
    ? readdirSync(dir)
        .sort()
        .map((name) => join(dir, name))
        .filter((path) => existsSync(join(path, 'results.json')))
    : [];
  if (below.length > 0) return below.map(readResult);
  throw new InvalidFileError(`${dir} has no results.json, nor has a folder in it; expected results of \`eepo eval\``);
}

/** Prints the paper's table and the one of all metrics, or JSON of both, or Markdown. */
export function printResults(
  results: readonly ModelResult[],
  { baseline, metric, json, markdown }: TableOptions,
): void {
  const table = resultTable(results, {
    metric: metric ?? defaultMetric(results),
    ...(baseline === undefined ? {} : { baseline }),
  });
  if (json) console.log(JSON.stringify({ models: results, table }, null, 2));
  else if (markdown) console.log(resultDocument(results, table));
  else console.log(`${formatResultTable(table)}\n\n${formatDetails(results)}`);
}

/** Greedy, as in the paper, unless nobody was decoded greedily. */
function defaultMetric(results: readonly ModelResult[]): string {
  const sets = results.flatMap((result) => Object.values(result.sets));
  return sets.some(({ greedy }) => greedy !== null) || sets.length === 0 ? 'greedy' : 'avg';
}
