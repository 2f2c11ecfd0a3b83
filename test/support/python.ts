/** Python with transformers, for comparisons: EEPO_PYTHON, where it has them. */
import { spawn, spawnSync } from 'node:child_process';

const python = process.env.EEPO_PYTHON ?? '';

const found =
  python !== '' &&
  spawnSync(python, ['-c', 'import transformers, torch'], { stdio: 'ignore', timeout: 120_000 }).status === 0;

/** Options for a test that needs transformers: skipped, with the reason, where there is none. */
export const needsTransformers = { skip: found ? false : 'no Python with transformers (set EEPO_PYTHON to one)' };

/** Runs a program with `args` in sys.argv and returns the JSON that it prints last. It reaches no network. */
export function runPython(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const child = spawn(python, ['-c', program, ...args], {
      env: { ...process.env, HF_HUB_OFFLINE: '1', TOKENIZERS_PARALLELISM: 'false', OMP_NUM_THREADS: '1', ...env },
    });
    let out = '';
    let errors = '';
    child.stdout.on('data', (data) => (out += data));
    child.stderr.on('data', (data) => (errors += data));
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve(JSON.parse(out.trim().split('\n').at(-1) ?? 'null'));
      else reject(new Error(`python ended with ${code}: ${errors}`));
    });
  });
}
