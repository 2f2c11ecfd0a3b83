/** Processes that do not outlive this one, however it ends short of a signal that nothing can catch. */
import type { ChildProcess } from 'node:child_process';

const children = new Set<ChildProcess>();

/** One for all of them: Node warns of a leak from the eleventh listener on. */
function killAll(): void {
  for (const child of children) child.kill('SIGKILL');
}

/** Kills `child` when this process exits before it. */
export function endWithThisProcess(child: ChildProcess): void {
  const forget = (): void => {
    children.delete(child);
    if (children.size === 0) process.off('exit', killAll);
  };
  if (children.size === 0) process.on('exit', killAll);
  children.add(child);
  child.once('exit', forget);
  // One that could not be started never exits.
  child.once('error', () => child.pid === undefined && forget());
}
