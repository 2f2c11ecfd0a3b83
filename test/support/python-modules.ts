/** A Python with transformers, for tests of what other software makes of our files: EEPO_PYTHON names one. */
import { spawnSync } from 'node:child_process';

export const python = process.env.EEPO_PYTHON ?? '';

/** Options for a test that needs Python `modules`: skipped, with the reason, where they are not to be had. */
export function needsPython(...modules: string[]): { skip: string | false } {
  if (!python) return { skip: `set EEPO_PYTHON to a Python with ${modules.join(', ')}` };
  const found = spawnSync(python, ['-c', `import ${modules.join(', ')}`], { encoding: 'utf8' });
  return { skip: found.status === 0 ? false : `${python} has no ${modules.join(', ')}` };
}

/** Runs a program with arguments; what it prints, parsed as JSON. */
export function runPython(program: string, ...args: string[]): unknown {
  const result = spawnSync(python, ['-c', program, ...args], { encoding: 'utf8', maxBuffer: 1 << 28 });
  if (result.status !== 0) throw new Error(`${python} failed:\n${result.stderr}`);
  return JSON.parse(result.stdout);
}
