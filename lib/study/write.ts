/** The files of a study's results. */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { FigureData } from '../report/figure.js';
import { figureSvg, svgToPng } from '../report/render.js';
import { writeWhole } from '../train/durable.js';
import type { StudyResults } from './results.js';
import { resultsCsv, resultsMarkdown } from './tables.js';

/**
 * Writes results.json, tables.md, tables.csv and figures/<name>.svg and .png. Figures of an earlier state that are no
 * longer there are removed.
 *
 * @returns their names
 */
export async function writeResults(
  out: string,
  results: StudyResults,
  figures: readonly FigureData[],
): Promise<string[]> {
  mkdirSync(out, { recursive: true });
  const files = {
    'results.json': `${JSON.stringify(results)}\n`,
    'tables.md': resultsMarkdown(results),
    'tables.csv': resultsCsv(results),
  };
  for (const [name, content] of Object.entries(files)) writeWhole(join(out, name), content);
  const folder = join(out, 'figures');
  rmSync(folder, { recursive: true, force: true });
  if (figures.length === 0) return Object.keys(files);
  mkdirSync(folder, { recursive: true });
  for (const figure of figures) {
    const svg = figureSvg(figure);
    writeWhole(join(folder, `${figure.id}.svg`), svg);
    writeWhole(join(folder, `${figure.id}.png`), await svgToPng(svg));
  }
  return [...Object.keys(files), 'figures/'];
}
