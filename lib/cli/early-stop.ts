/**
 * Ctrl-C before a command has begun. Loading the modules of a command takes a good part of a second, more on a busy
 * machine; without this, a signal in that time ends the process and says nothing.
 */
const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

function stop(signal: NodeJS.Signals): void {
  endEarlyStop();
  console.error('stopped before anything was done');
  // ends the process as if nobody had listened
  process.kill(process.pid, signal);
}

/** From now on a signal ends the process with a sentence. */
export function beginEarlyStop(): void {
  for (const signal of SIGNALS) process.on(signal, stop);
}

/** The command has begun, and does with signals what it does. */
export function endEarlyStop(): void {
  for (const signal of SIGNALS) process.off(signal, stop);
}
