/** `eepo config`: every option, its default and the paper's value. */
import type { Command } from 'commander';
import { trainSchema } from '../train/config.js';
import { configMarkdown } from '../train/config-file.js';
import { sftSchema } from '../train/sft-config.js';

export function register(program: Command): void {
  program
    .command('config')
    .description('print every configuration option, its default and the value in the paper')
    .option('--docs', 'as the Markdown page docs/config.md')
    .action((options: { docs?: boolean }) => {
      process.stdout.write(options.docs ? configPage() : configMarkdown(trainSchema));
    });
}

/** docs/config.md, generated from the schemas. */
export function configPage(): string {
  return `# Configuration

<!-- Generated from lib/train/config.ts and lib/train/sft-config.ts: npx eepo config --docs > docs/config.md -->

\`npx eepo train CONFIG.toml [--preset NAME]... [--set section.key=value]...\` reads the options below. Only \`model.path\`
must be given. What wins: the defaults < the file < presets ([objectives.md](objectives.md)) < \`--set\`. Paths in a file
are relative to the file, those of \`--set\` to the working directory. The column "paper" gives the value in
arXiv 2510.05837 or says that it leaves it open. A run writes all options with their values to its \`config.toml\`; what else it writes is in
[metrics.md](metrics.md).

${configMarkdown(trainSchema)}
# Configuration of \`eepo sft\`

${configMarkdown(sftSchema)}`;
}
