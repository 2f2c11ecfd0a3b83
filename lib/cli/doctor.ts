import type { Command } from 'commander';
import { type Diagnosis, diagnose } from '../libtorch/diagnose.js';

/** `eepo doctor`: what was found, what is missing, the command that mends it. Exit code 1 if training cannot run. */
export function register(program: Command): void {
  program
    .command('doctor')
    .description('tell what was found, what is missing and the command that mends it')
    .option('--json', 'for programs')
    .action(({ json }: { json?: boolean }) => {
      const diagnosis = diagnose();
      console.log(json ? JSON.stringify(diagnosis, null, 2) : render(diagnosis));
      if (!diagnosis.ok) process.exitCode = 1;
    });
}

function describeHalf({ half, libtorch }: Diagnosis['cuda']): string {
  if (half === null) return 'not built (npx eepo build --cuda)';
  const runs = libtorch ? '' : '; the libtorch found has no CUDA';
  return `${half.path}, built against libtorch ${half.libtorch} for ${half.architectures}${runs}`;
}

function describeGpu({ status }: Diagnosis['cuda']): string {
  if (status === undefined) return 'unknown until the addon loads';
  if (!status.available || status.device === undefined) return `cannot be used: ${status.reason}`;
  const { name, capability, multiprocessors, totalBytes, freeBytes } = status.device;
  const memory = `${(freeBytes / 1e9).toFixed(1)} of ${(totalBytes / 1e9).toFixed(1)} GB free`;
  return `${name}, compute capability ${capability}, ${multiprocessors} multiprocessors, ${memory}`;
}

/** The diagnosis as text. */
export function render(found: Diagnosis): string {
  const { platform, node, libtorch, addon, cpu, cuda, tools, cache, problems } = found;
  const rows: [string, string][] = [
    ['eepo', found.eepo],
    ['platform', `${platform.os}-${platform.arch}, kernel ${platform.kernel}, ${platform.libc}`],
    ['Node', node.version],
    [
      'libtorch',
      libtorch.found
        ? `${libtorch.version} at ${libtorch.path} (from ${libtorch.source})`
        : `not found (${libtorch.wanted})`,
    ],
    [
      'addon',
      addon.path === undefined
        ? 'not found'
        : `${addon.path}, built against libtorch ${addon.builtAgainst ?? '?'}, ${addon.loaded ? 'loads' : 'does not load'}`,
    ],
    ['CPU', `${cpu.model}, ${cpu.cores} cores${cpu.isa ? `, kernels for ${cpu.isa}` : ''}`],
    ['threads', cpu.threads === undefined ? 'unknown until the addon loads' : String(cpu.threads)],
    ['OpenMP', cpu.openmpRuntimes.join(', ') || 'unknown until the addon loads'],
    ['CUDA driver', cuda.driver ? `${cuda.library}${cuda.driverVersion ? ` (${cuda.driverVersion})` : ''}` : 'none'],
    ['CUDA half', describeHalf(cuda)],
    ['GPU', describeGpu(cuda)],
    ['compiler', tools.cxx ?? 'none'],
    ['cmake', tools.cmake ?? 'none'],
    ['ninja', tools.ninja ?? 'none (make is used)'],
    ['Python', tools.python ?? 'none'],
    ['cache', `${cache.path}${cache.exists ? '' : ' (not yet made)'}, ${(cache.freeBytes / 1e9).toFixed(1)} GB free`],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  const lines = rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`);
  for (const error of [libtorch.error, addon.error]) {
    if (error !== undefined) lines.push('', error);
  }
  lines.push('');
  for (const { problem, fix, fatal } of problems)
    lines.push(`${fatal ? 'missing' : 'note'}: ${problem}. Mend it: ${fix}`);
  lines.push(found.ok ? 'All that training needs is here.' : 'Training cannot run yet.');
  return lines.join('\n');
}
