/**
 * What a power loss may take that a killed process does not lose: everything that was written and never synced. Which
 * writes were synced is read from strace's log of the process; what was not is damaged, as file systems may do it.
 */
import { existsSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join, sep } from 'node:path';

export interface SystemCall {
  thread: string;
  name: string;
  /** Of `name` in this thread, from 1: what strace counts for `inject`. */
  nth: number;
  /** Everything between the parentheses. */
  args: string;
  /** Null when the call never returned. */
  result: number | null;
}

const LINE = /^(\d+) +(.*)$/;
const CALL = /^(\w+)\((.*?)(?:\) += (-?\d+|\?).*| <unfinished \.\.\.>)$/;
const RESUMED = /^<\.\.\. (\w+) resumed>.*\) += (-?\d+|\?)/;

/** Reads `strace -f -y -o`. */
export function readSystemCalls(log: string): SystemCall[] {
  const calls: SystemCall[] = [];
  const open = new Map<string, SystemCall>();
  const counts = new Map<string, number>();
  for (const line of readFileSync(log, 'utf8').split('\n')) {
    const [, thread = '', text = ''] = LINE.exec(line) ?? [];
    const resumed = RESUMED.exec(text);
    if (resumed !== null) {
      const call = open.get(thread);
      if (call !== undefined) call.result = resumed[2] === '?' ? null : Number(resumed[2]);
      open.delete(thread);
      continue;
    }
    const [, name, args, result] = CALL.exec(text) ?? [];
    if (name === undefined || args === undefined) continue;
    const key = `${thread} ${name}`;
    const nth = (counts.get(key) ?? 0) + 1;
    counts.set(key, nth);
    const call = { thread, name, nth, args, result: result === undefined || result === '?' ? null : Number(result) };
    if (result === undefined) open.set(thread, call);
    calls.push(call);
  }
  return calls;
}

/** The paths a call is about: of its descriptors, then of its arguments. */
export function pathsOf({ args }: SystemCall): string[] {
  const descriptors = [...args.matchAll(/\b\d+<([^>]*)>/g)].map(([, path]) => path as string);
  const texts = [...args.matchAll(/"([^"]*)"/g)]
    .map(([, path]) => path as string)
    .filter((path) => path.startsWith('/'));
  return [...descriptors, ...texts];
}

interface FileState {
  /** Bytes. */
  size: number;
  /** Of these, those that a sync has brought to disk. */
  synced: number;
  /** Whether its name is on disk: the folder was synced since. */
  named: boolean;
}

interface Rename {
  from: string;
  to: string;
  /** Something was there before. */
  replaced: boolean;
}

/** What the disk holds for sure. */
export interface DiskState {
  files: Map<string, FileState>;
  /** Not synced, oldest first. */
  renames: Rename[];
}

/** Follows the calls on files below `root`; `before` are the sizes of the files when the process started. */
export function followCalls(
  calls: readonly SystemCall[],
  root: string,
  before: ReadonlyMap<string, number>,
): DiskState {
  const files = new Map([...before].map(([path, size]) => [path, { size, synced: size, named: true }]));
  let renames: Rename[] = [];
  const below = (path: string, folder: string): boolean => path === folder || path.startsWith(folder + sep);
  for (const call of calls) {
    const paths = pathsOf(call);
    const path = paths[0] ?? '';
    const { name, args, result } = call;
    if (result === null || result < 0 || !paths.some((each) => below(each, root))) continue;
    const file = files.get(path);
    if (name === 'openat' && args.includes('O_CREAT')) {
      const target = paths.find((each) => below(each, root)) as string;
      const old = files.get(target);
      if (old === undefined) files.set(target, { size: 0, synced: 0, named: false });
      else if (args.includes('O_TRUNC')) Object.assign(old, { size: 0, synced: 0 });
    } else if (/^(write|writev|copy_file_range|sendfile)$/.test(name)) {
      const target = name === 'copy_file_range' ? paths[1] : path;
      const written = files.get(target ?? '');
      if (written !== undefined) written.size += result;
    } else if (name === 'pwrite64' && file !== undefined) {
      file.size = Math.max(file.size, Number(args.split(',').at(-1)) + result);
    } else if (name === 'ftruncate' && file !== undefined) {
      file.size = Number(args.split(',').at(-1));
      file.synced = Math.min(file.synced, file.size);
    } else if (name === 'fsync' || name === 'fdatasync') {
      if (file !== undefined) file.synced = file.size;
      for (const [child, state] of files) if (dirname(child) === path) state.named = true;
      renames = renames.filter(({ to }) => dirname(to) !== path);
    } else if (name.startsWith('rename')) {
      const [from, to] = paths.slice(-2) as [string, string];
      const moved = [...files].filter(([each]) => below(each, from));
      renames.push({ from, to, replaced: [...files.keys()].some((each) => below(each, to)) });
      for (const [each, state] of moved) {
        files.delete(each);
        // A name inside a renamed folder goes with it.
        files.set(to + each.slice(from.length), each === from ? { ...state, named: true } : state);
      }
    } else if (/^(unlink|rmdir)/.test(name)) {
      for (const each of [...files.keys()]) if (below(each, paths.at(-1) as string)) files.delete(each);
    }
  }
  return { files, renames };
}

/**
 * Damages what is not on disk for sure: tails are cut, or are zeros (both are seen after real power losses), names and
 * renames that were not synced may be gone.
 *
 * @param random - uniform in [0, 1)
 * @returns what was done
 */
export function losePower(disk: DiskState, random: () => number): string[] {
  const done: string[] = [];
  for (const { from, to, replaced } of [...disk.renames].reverse()) {
    const possible = !replaced && existsSync(to) && !existsSync(from) && existsSync(dirname(from));
    if (!possible || random() < 0.4) continue;
    renameSync(to, from);
    done.push(`the rename to ${to} was undone`);
  }
  for (const [path, { size, synced, named }] of disk.files) {
    if (!existsSync(path) || statSync(path).isDirectory()) continue;
    if (!named && random() < 0.4) {
      rmSync(path);
      done.push(`${path} vanished`);
      continue;
    }
    if (size <= synced || random() < 0.2) continue;
    const actual = statSync(path).size;
    const keep = Math.min(actual, synced + Math.floor(random() * (size - synced)));
    if (random() < 0.5) truncateSync(path, keep);
    else writeFileSync(path, Buffer.concat([readFileSync(path).subarray(0, keep), Buffer.alloc(actual - keep)]));
    done.push(`${path}: ${actual - keep} bytes after ${keep} lost`);
  }
  return done;
}

/** Sizes of the files below a folder, by full path. */
export function sizesOf(root: string, names: readonly string[]): Map<string, number> {
  return new Map(names.map((name) => [join(root, name), statSync(join(root, name)).size]));
}
