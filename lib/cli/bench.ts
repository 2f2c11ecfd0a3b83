/** `eepo bench`: what this machine does in how much time. */
import type { Command } from 'commander';
import * as kernels from './bench-kernels.js';
import * as step from './bench-step.js';
import * as verify from './bench-verify.js';

export function register(program: Command): void {
  const bench = program.command('bench').description('measure this machine');
  step.register(bench);
  kernels.register(bench);
  verify.register(bench);
}
