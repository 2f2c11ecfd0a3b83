/** Every command that the documentation shows exists, with the options it is shown with. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ROOT } from './support/data.js';

const main = join(ROOT, 'dist', 'lib', 'cli', 'main.js');
const pages = [
  'README.md',
  'CONTRIBUTING.md',
  ...readdirSync(join(ROOT, 'docs')).map((name) => join('docs', name)),
].filter((name) => name.endsWith('.md'));

/** `npx eepo ...` in code, up to the end of its line; a backslash continues it. */
function commandsOf(page: string): string[] {
  const text = readFileSync(join(ROOT, page), 'utf8').replace(/\\\n\s*/g, ' ');
  const [inline, fenced] = [/`npx eepo ([^`\n]+)`/g, /^npx eepo (.+)$/gm];
  return [...text.matchAll(inline), ...text.matchAll(fenced)].map(([, command]) =>
    (command as string).replace(/\s+#.*$/, '').replace(/'[^']*'/g, "''"),
  );
}

const helps = new Map<string, string>();
function helpOf(...command: string[]): string {
  const key = command.join(' ');
  let help = helps.get(key);
  if (help === undefined) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...command, '--help'], { encoding: 'utf8' });
    assert.equal(status, 0, `eepo ${key} --help: ${stderr}`);
    help = stdout;
    helps.set(key, help);
  }
  return help;
}

/** The command with its subcommands: words as long as the help of what came before lists them. */
function commandPath(words: readonly string[]): string[] {
  const path: string[] = [];
  for (const word of words) {
    const listed = new RegExp(`^  ${word.replace(/[^\w-]/g, '')} `, 'm').test(
      helpOf(...path).split('\nCommands:')[1] ?? '',
    );
    if (!/^[a-z][\w-]*$/.test(word) || !listed) break;
    path.push(word);
  }
  return path;
}

describe('the commands in the documentation', () => {
  for (const page of pages) {
    const commands = commandsOf(page);
    if (commands.length === 0) continue;
    it(`${page}: ${commands.length} of them`, () => {
      for (const command of commands) {
        const words = command.split(/\s+/);
        const path = commandPath(words);
        assert.ok(path.length > 0 || words[0]?.startsWith('-'), `no such command: npx eepo ${command}`);
        const help = helpOf(...path);
        for (const flag of words
          .filter((word) => /^--[a-z]/.test(word))
          .map((word) => word.replace(/[=,;:.)]+.*$/, ''))) {
          assert.match(help, new RegExp(`(^|[ ,])${flag}\\b(?!-)`, 'm'), `npx eepo ${command}: no option ${flag}`);
        }
      }
    });
  }

  it('show no empty list as a default', () => {
    for (const command of [['eval'], ['verify'], ['train'], ['bench', 'kernels']]) {
      assert.doesNotMatch(helpOf(...command), /default:\s+\[\]/);
    }
  });
});
