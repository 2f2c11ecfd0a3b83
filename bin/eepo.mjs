#!/usr/bin/env node
// npx eepo. Outside dist/, so that it is there, and executable, before anything is built.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const main = new URL('../dist/lib/cli/main.js', import.meta.url);
if (existsSync(main)) {
  const { beginEarlyStop } = await import(new URL('early-stop.js', main).href);
  beginEarlyStop();
  await import(main.href);
} else {
  console.error(`eepo is not built yet in ${fileURLToPath(new URL('..', import.meta.url))}; there, run: npm run setup`);
  process.exitCode = 1;
}
