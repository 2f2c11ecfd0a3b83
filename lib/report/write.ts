/** Writes a report and its figures. */
import { existsSync, statSync } from 'node:fs';
import { basename, dirname, extname, join } from 'node:path';
import { ConfigError, InvalidArgumentError } from '../errors.js';
import { makeFolder } from '../make-folder.js';
import { checkOptions, type OptionKeys } from '../options.js';
import { writeWhole } from '../train/durable.js';
import { type ReportData, type ReportOptions, reportData, reportPage } from './page.js';
import { type RunData, readRun } from './read-run.js';
import { figureSvg, svgToPng } from './render.js';

/** Formats of figures as files. */
export type FigureFormat = 'svg' | 'png';

export interface WriteReportOptions extends ReportOptions {
  /** A file that ends in .html, or a folder, which gets `report.html`. Default: the folder of the first run. */
  out?: string;
  /** Also write each figure as a file, into `figures/` beside the page. Default none. */
  figures?: readonly FigureFormat[];
  /** What to call the runs, in their order. Default: the names of their folders, told apart where they are the same. */
  names?: readonly string[];
}

const KEYS: OptionKeys<WriteReportOptions> = { title: true, out: true, figures: true, names: true };

/** What {@link writeReport} wrote. */
export interface WrittenReport {
  page: string;
  figures: string[];
}

/**
 * Reads runs, complete or not, and writes their report: one page that opens offline, and its figures as files. A file is
 * written whole or not at all.
 *
 * @param folders - of runs of `eepo train`, in the order of their colours
 * @throws ConfigError for a folder that is no run, or a place that cannot be written; InvalidFileError naming what is
 *   broken in a run; InvalidArgumentError for options
 */
export async function writeReport(
  folders: readonly string[],
  options: WriteReportOptions = {},
): Promise<WrittenReport> {
  checkOptions(options, KEYS, 'writeReport');
  const runs = await readRuns(folders, options.names);
  const page = pagePath(folders[0] as string, options.out);
  makeFolder(dirname(page), 'a report');
  const data = reportData(runs, options.title === undefined ? {} : { title: options.title });
  write(page, reportPage(data));
  return { page, figures: await writeFigures(join(dirname(page), 'figures'), data, options.figures ?? []) };
}

/**
 * Reads several runs and gives them names that differ.
 *
 * @throws InvalidArgumentError without any, or for another number of names; what {@link readRun} throws
 */
export async function readRuns(folders: readonly string[], names?: readonly string[]): Promise<RunData[]> {
  if (folders.length === 0) throw new InvalidArgumentError('no run is given; name the folder of at least one');
  if (names !== undefined && names.length > 0 && names.length !== folders.length) {
    throw new InvalidArgumentError(
      `${names.length} names for ${folders.length} runs; give one for each, in their order (--name)`,
    );
  }
  const runs: RunData[] = [];
  for (const folder of folders) runs.push(await readRun(folder));
  const given = names !== undefined && names.length > 0 ? names : shortestNames(runs.map((run) => run.folder));
  return runs.map((run, i) => ({ ...run, name: given[i] as string }));
}

/** The last part of each path, or as many of the last as tell them apart; the same folder twice is numbered. */
export function shortestNames(paths: readonly string[]): string[] {
  const split = paths.map((path) => path.split('/').filter((part) => part !== ''));
  const longest = Math.max(1, ...split.map((parts) => parts.length));
  let names: string[] = [];
  for (let depth = 1; depth <= longest; depth += 1) {
    names = split.map((parts) => parts.slice(-depth).join('/') || '/');
    if (new Set(names).size === names.length) return names;
  }
  return names.map((name, i) => {
    const earlier = names.slice(0, i).filter((other) => other === name).length;
    return earlier === 0 ? name : `${name} (${earlier + 1})`;
  });
}

function pagePath(first: string, out: string | undefined): string {
  if (out === undefined) return join(first, 'report.html');
  const folder = existsSync(out) && statSync(out).isDirectory();
  if (!folder && /\.html?$/i.test(out)) return out;
  if (!folder && /^\.[a-z]{2,5}$/i.test(extname(out))) {
    throw new InvalidArgumentError(
      `out: ${out}: a report is a file that ends in .html, or a folder, which gets report.html`,
    );
  }
  return join(out, 'report.html');
}

async function writeFigures(folder: string, data: ReportData, formats: readonly FigureFormat[]): Promise<string[]> {
  if (formats.length === 0) return [];
  makeFolder(folder, 'the figures of a report');
  const written: string[] = [];
  for (const figure of data.figures) {
    const svg = figureSvg(figure);
    for (const format of new Set(formats)) {
      const path = join(folder, `${figure.id}.${format}`);
      write(path, format === 'svg' ? svg : await svgToPng(svg));
      written.push(path);
    }
  }
  return written;
}

function write(path: string, content: string | Uint8Array): void {
  try {
    writeWhole(path, content);
  } catch (cause) {
    throw new ConfigError(
      `${path}: ${basename(path)} cannot be written (${(cause as Error).message}); give another --out`,
      {
        cause,
      },
    );
  }
}
