import type { Command } from 'commander';
import { InvalidArgumentError } from '../errors.js';
import { type FigureFormat, writeReport } from '../report/write.js';
import { collect } from './common.js';

interface ReportFlags {
  out?: string;
  figures?: FigureFormat[];
  title?: string;
  name: string[];
}

export function register(program: Command): void {
  program
    .command('report')
    .summary('write a page with the figures of one or several runs')
    .description(
      'Write one HTML page that opens offline: entropy by stage, reward, accuracy, pass@k, what was forgotten, samples. ' +
        'Several runs are drawn over each other. A run may still be at work. docs/report.md',
    )
    .argument('<run...>', 'folders of runs; their order is that of the colours')
    .option('--out <path>', 'file that ends in .html, or a folder (default: report.html in the first run)')
    .option('--figures <formats>', 'also write each figure as a file: svg, png or svg,png', figureFormats)
    .option('--title <text>', 'heading of the page (default: methods and task)')
    .option('--name <text>', 'what to call a run, once for each run (default: its folder)', collect, [])
    .action(async (runs: string[], { out, figures, title, name }: ReportFlags) => {
      const written = await writeReport(runs, {
        ...(out === undefined ? {} : { out }),
        ...(figures === undefined ? {} : { figures }),
        ...(title === undefined ? {} : { title }),
        names: name,
      });
      console.log(`report: ${written.page}`);
      if (written.figures.length > 0) console.log(`figures: ${written.figures.length} files beside it, in figures/`);
    });
}

function figureFormats(value: string): FigureFormat[] {
  return value.split(',').map((word) => {
    const format = word.trim().toLowerCase();
    if (format === 'svg' || format === 'png') return format;
    throw new InvalidArgumentError(`--figures ${value}: expected svg, png or svg,png`);
  });
}
