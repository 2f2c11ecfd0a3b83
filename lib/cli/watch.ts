/** `eepo watch RUN...` */
import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { watchRuns } from '../watch/server.js';
import { printable, wholeNumber, withSignals } from './common.js';

interface Options {
  host: string;
  port?: number;
  token?: boolean;
}

export function register(program: Command): void {
  program
    .command('watch')
    .description('serve the report of runs on this machine, kept up to date while they train')
    .argument('<runs...>', 'folders of runs; they may begin later')
    .option('--port <n>', 'port to listen on (default: 6007, or a free one)', wholeNumber('port', 0))
    .option('--host <address>', 'address to listen on; others than this machine need the token it prints', '127.0.0.1')
    .option('--token', 'ask for a token on this machine too, where others work on it')
    .addHelpText(
      'after',
      '\nOf a run on another machine: ssh -L 6007:127.0.0.1:6007 HOST, and watch there. docs/report.md',
    )
    .action(watch);
}

async function watch(runs: string[], { host, port, token = false }: Options): Promise<void> {
  const server = await watchRuns({ runs, host, token, ...(port === undefined ? {} : { port }) });
  try {
    for (const run of runs) {
      if (!existsSync(run)) console.error(`note: ${printable(run)} is not there yet; it is shown when it begins`);
    }
    if (server.open) {
      console.error(
        `warning: listening on ${host}: whoever reaches this machine and has the address below sees prompts, responses ` +
          'and metrics. It travels unencrypted; without --host, over ssh -L, it does not',
      );
    }
    console.log(server.url);
    console.error('Ctrl-C ends it; the runs go on');
    await withSignals(
      (signal) => new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve())),
      'no longer watching',
    );
  } finally {
    await server.close();
  }
}
