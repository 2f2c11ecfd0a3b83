/** One process at a time works in a run folder. A killed one's lock is taken over at once: no waiting for it to grow stale. */
import {
  existsSync,
  linkSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { BusyError } from '../errors.js';

/** Who holds a lock. A process id alone comes again; with the time at which it began, in ticks since boot, it does not. */
interface Holder {
  pid: number;
  started: string;
  /** Machine, its boot and the namespace of process ids: elsewhere nothing can be said about a pid. */
  machine: string;
  host: string;
  /** Of the machine, which gets another at every start; empty where it has none. */
  boot: string;
  since: string;
}

/** A lock of another machine that was not renewed for so long is void. */
const STALE_MS = 120_000;
const RENEW_MS = 20_000;
/** After so long a lock that cannot be read is nobody's. */
const UNREADABLE_MS = 1_000;

const FILE = '.lock';

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}

/** When a process began, in clock ticks since boot; null: there is none, or it is dead and nobody has asked how. */
export function startOf(pid: number): string | null {
  // the name of the program, in parentheses, may hold anything
  const fields = read(`/proc/${pid}/stat`)
    .replace(/^.*\)\s*/s, '')
    .split(' ');
  const [state, start] = [fields[0], fields[19]];
  return start === undefined || state === 'Z' || state === 'X' ? null : start;
}

function machine(): string {
  let namespace = '';
  try {
    namespace = readlinkSync('/proc/self/ns/pid');
  } catch {
    // no such thing here: the boot alone tells machines apart
  }
  return `${hostname()} ${bootId()} ${namespace}`;
}

const bootId = (): string => read('/proc/sys/kernel/random/boot_id');

/** When this machine was started, in milliseconds since 1970; 0 where it does not say. */
function bootTime(): number {
  return 1000 * Number(/^btime (\d+)$/m.exec(read('/proc/stat'))?.[1] ?? 0);
}

/** Whether a process of this machine lives. */
export const isRunning = (pid: number): boolean => startOf(pid) !== null;

/** null: there is no lock. A holder of null: one that nobody can read, as a power loss may leave it. */
function holderOf(path: string): { text: string; holder: Partial<Holder> | null } | null {
  if (!existsSync(path)) return null;
  const text = read(path);
  try {
    return { text, holder: JSON.parse(text) as Partial<Holder> | null };
  } catch {
    return { text, holder: null };
  }
}

/** A lock that cannot be read may be one that another process is about to write, on a file system without links. */
function isBeingWritten(path: string): boolean {
  const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0);
  return Math.abs(age) < UNREADABLE_MS;
}

function pause(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

function isHeld(path: string, holder: Partial<Holder>, booted: number): boolean {
  const { pid, started, machine: where, host, boot } = holder;
  if (where === machine()) return typeof pid === 'number' && startOf(pid) === started;
  try {
    const renewed = statSync(path).mtimeMs;
    // The same host before it was started again: its processes are gone. Another machine of that name would have renewed
    // the lock since.
    if (host === hostname() && boot && boot !== bootId() && renewed < booted) return false;
    return Date.now() - renewed < STALE_MS;
  } catch {
    return false;
  }
}

/** Whether a process works in the folder of a run, as far as can be seen from here. Nothing is changed. */
export function isLocked(folder: string): boolean {
  const path = join(folder, FILE);
  // a pipe of that name would never be read to its end
  if (!statSync(path, { throwIfNoEntry: false })?.isFile()) return false;
  const holder = holderOf(path)?.holder;
  return typeof holder === 'object' && holder !== null && isHeld(path, holder, bootTime());
}

/** The lock of a run folder, renewed until it is released. */
export class RunLock {
  readonly #path: string;
  readonly #text: string;
  readonly #timer: NodeJS.Timeout;

  private constructor(path: string, text: string) {
    this.#path = path;
    this.#text = text;
    this.#timer = setInterval(() => this.#renew(), RENEW_MS);
    this.#timer.unref();
  }

  /**
   * @param booted - when this machine was started
   * @throws BusyError naming the process that works in the folder
   */
  static take(folder: string, booted = bootTime()): RunLock {
    const path = join(folder, FILE);
    const holder: Holder = {
      pid: process.pid,
      started: startOf(process.pid) ?? '',
      machine: machine(),
      host: hostname(),
      boot: bootId(),
      since: new Date().toISOString(),
    };
    const text = JSON.stringify(holder);
    const own = join(folder, `${FILE}.${process.pid}.tmp`);
    writeFileSync(own, text, { flush: true });
    try {
      while (!claim(own, path)) {
        const found = holderOf(path);
        if (found === null) continue;
        if (found.holder !== null) {
          if (isHeld(path, found.holder, booted)) throw busy(folder, found.holder);
        } else if (isBeingWritten(path)) {
          pause(50);
          continue;
        }
        setAside(path, join(folder, `${FILE}-old.${process.pid}.tmp`), found.text);
      }
    } finally {
      rmSync(own, { force: true });
    }
    return new RunLock(path, text);
  }

  #renew(): void {
    try {
      utimesSync(this.#path, new Date(), new Date());
    } catch {
      // the folder is gone or cannot be written: the run itself finds out
    }
  }

  /** Whether the lock is still there and ours: false where the folder has vanished or is another one by now. */
  get held(): boolean {
    return read(this.#path) === this.#text;
  }

  /** Gives the folder free. Idempotent. */
  release(): void {
    clearInterval(this.#timer);
    if (!this.held) return;
    try {
      rmSync(this.#path, { force: true });
    } catch {
      // a file system that was made read-only keeps it; this process will be dead for all others
    }
  }
}

/** Gives a complete file its name if nobody has it: a link fails where a rename would replace. */
function claim(own: string, path: string): boolean {
  try {
    linkSync(own, path);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return false;
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'ENOSYS') throw error;
  }
  try {
    writeFileSync(path, readFileSync(own), { flag: 'wx' }); // a file system without links
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Removes a dead process's lock, unless another process was faster and the lock is a new one by now. */
function setAside(path: string, old: string, text: string): void {
  try {
    renameSync(path, old);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  if (read(old) !== text) claim(old, path);
  rmSync(old, { force: true });
}

function busy(folder: string, { pid, host, since }: Partial<Holder>): BusyError {
  return new BusyError(
    `${folder} is in use by process ${pid ?? '?'} on ${host ?? '?'} since ${since ?? '?'}; wait for it or stop it, ` +
      'or give another folder with --out',
  );
}
