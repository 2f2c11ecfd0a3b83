#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { Command, Help, type Option } from 'commander';
import { EepoError } from '../errors.js';
import * as bench from './bench.js';
import * as build from './build.js';
import { printable } from './common.js';
import * as config from './config.js';
import * as demo from './demo.js';
import * as doctor from './doctor.js';
import * as download from './download.js';
import { endEarlyStop } from './early-stop.js';
import * as evaluate from './eval.js';
import { endHubProgress } from './hub-progress.js';
import * as libtorch from './libtorch.js';
import * as report from './report.js';
import * as sft from './sft.js';
import * as study from './study.js';
import * as train from './train.js';
import * as verify from './verify.js';
import * as watch from './watch.js';

const { version, description } = JSON.parse(
  readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'),
) as { version: string; description: string };

const program = new Command('eepo')
  .description(description)
  .version(version)
  .showHelpAfterError()
  // An empty list is no default worth telling; commands copy this from the program.
  .configureHelp({
    optionDescription(option: Option): string {
      return Help.prototype.optionDescription.call(this, option).replace(/ \(default: \[\]\)$/, '');
    },
  })
  .enablePositionalOptions();
for (const command of [
  demo,
  train,
  sft,
  evaluate,
  study,
  report,
  watch,
  verify,
  bench,
  config,
  download,
  libtorch,
  build,
  doctor,
])
  command.register(program);

try {
  const work = program.parseAsync();
  // a command that listens to signals does so before it waits for anything
  endEarlyStop();
  await work;
} catch (error) {
  endHubProgress();
  // What we threw on purpose is for the user; anything else is a bug and shows where.
  if (error instanceof EepoError) console.error(`error: ${printable(error.message)} [${error.code}]`);
  else console.error(error);
  process.exitCode = 1;
}
