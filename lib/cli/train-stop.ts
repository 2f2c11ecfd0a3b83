/** How `eepo train` ends before its last iteration: what is kept, and the command that goes on. */
import { existsSync } from 'node:fs';
import { AbortedError } from '../errors.js';
import type { TrainConfig } from '../train/config.js';
import type { StoppedRun } from '../train/run.js';
import { isRunFolder } from '../train/run-directory.js';
import { withSignals } from './common.js';

/** What the command was given. */
export interface TrainCommand {
  file: string;
  config: TrainConfig;
  /** Folder of the run. */
  out: string;
  options: { set: string[]; preset?: string[]; acceptChanges?: boolean };
}

/**
 * Runs `work`; the first SIGINT or SIGTERM ends it at a checkpoint, which is a good end (exit code 0), unless that could
 * not be saved. After any other error says where the run can go on. A second signal ends the process at once.
 */
export async function withStop(
  command: TrainCommand,
  work: (signal: AbortSignal, onStop: (stopped: StoppedRun) => void) => Promise<void>,
): Promise<void> {
  let stopped: StoppedRun | null = null;
  const onStop = (what: StoppedRun): void => {
    stopped = what;
  };
  try {
    await withSignals((signal) => work(signal, onStop), 'stopping: saving a checkpoint; once more ends at once');
  } catch (error) {
    const asked = error instanceof AbortedError;
    if (asked || stopped !== null) console.error(stopText(command, stopped));
    if (!asked) throw error;
    // what was asked for could not be done: the weights since the last checkpoint are lost
    if ((stopped as StoppedRun | null)?.failure) process.exitCode = 1;
  }
}

/** Where the run stands and how to go on. */
export function stopText(command: TrainCommand, stopped: StoppedRun | null): string {
  const { config, out } = command;
  if (stopped === null) {
    const kept = existsSync(out) && isRunFolder(out);
    return kept
      ? `stopped before training went on; nothing in ${out} has changed. ${goOn(command)}`
      : 'stopped before the first iteration: nothing was written';
  }
  const { iteration, checkpoint, failure } = stopped;
  const at = `stopped after iteration ${iteration} of ${config.run.iterations}`;
  const lines = [
    failure === null
      ? `${at}; the checkpoint is ${checkpoint ?? 'missing'}`
      : `${at}, but its state is not saved: ${failure.message}`,
  ];
  if (failure !== null && checkpoint !== null) lines.push(`the last good checkpoint is ${checkpoint}`);
  if (checkpoint !== null || existsSync(out)) lines.push(goOn(command));
  return lines.join('\n');
}

/** The exact command. */
function goOn({ file, out, options }: TrainCommand): string {
  const repeated = (option: string, values: readonly string[] = []) => values.flatMap((value) => [option, value]);
  const layers = [...repeated('--preset', options.preset), ...repeated('--set', options.set)];
  const words = ['npx', 'eepo', 'train', file, ...layers, '--resume', out];
  return `to go on: ${words.map(quoted).join(' ')}`;
}

/** A word for a shell. */
const quoted = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
