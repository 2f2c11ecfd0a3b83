#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { EepoError } from '../errors.js';
import * as build from './build.js';
import * as doctor from './doctor.js';
import * as libtorch from './libtorch.js';

const { version, description } = JSON.parse(
  readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'),
) as { version: string; description: string };

const program = new Command('eepo')
  .description(description)
  .version(version)
  .showHelpAfterError()
  .enablePositionalOptions();
for (const command of [libtorch, build, doctor]) command.register(program);

try {
  await program.parseAsync();
} catch (error) {
  // What we threw on purpose is for the user; anything else is a bug and shows where.
  if (error instanceof EepoError) console.error(`error: ${error.message} [${error.code}]`);
  else console.error(error);
  process.exitCode = 1;
}
