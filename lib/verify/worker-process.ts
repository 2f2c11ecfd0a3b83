/** A worker process as the pool sees it. */
import { type ChildProcess, fork } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { VerifyItem } from './judge.js';
import type { WorkerReply, WorkerRequest } from './worker.js';

/** Why a process ended. */
export interface Ending {
  cause: 'timeout' | 'memory' | 'crashed';
  message: string;
}

export interface WorkerEvents {
  ready(worker: WorkerProcess): void;
  reply(worker: WorkerProcess, reply: Extract<WorkerReply, unknown[]>): void;
  /** All replies were delivered before. Not called after {@link WorkerProcess.close}. */
  ended(worker: WorkerProcess, ending: Ending): void;
}

export interface WorkerOptions {
  maxMemoryMb: number;
  /** Module that exports `judge`; only tests have another than the default. */
  judgeModule?: string;
}

const PROGRAM = fileURLToPath(new URL('./worker.js', import.meta.url));
/** Node with the program loaded, beside what a comparison takes; and memory outside the JavaScript heap. */
const BASE_MB = 192;
const KEPT_ERROR = 4_000;
/** Of the environment only what a Node binary may need to start: no NODE_OPTIONS, no tokens. */
const ENVIRONMENT = ['PATH', 'LD_LIBRARY_PATH', 'TZ', 'TMPDIR'];
const OUT_OF_MEMORY =
  /heap out of memory|Allocation failed|out of memory|invalid (?:table|array|string|size)[^\n]*error/i;

/**
 * Starts at once. A process and not a thread: a single large allocation ends a Node process even where it happens in a
 * worker thread with resource limits, and a process can always be killed. It never keeps the main process alive.
 */
export class WorkerProcess {
  readonly #child: ChildProcess;
  readonly #events: WorkerEvents;
  readonly #limitMb: number;
  #stderr = '';
  #closed = false;
  #killedFor: Ending | null = null;
  #isReady = false;

  constructor({ maxMemoryMb, judgeModule }: WorkerOptions, events: WorkerEvents) {
    this.#events = events;
    this.#limitMb = maxMemoryMb + BASE_MB;
    this.#child = fork(PROGRAM, judgeModule === undefined ? [] : [judgeModule], {
      execArgv: [`--max-old-space-size=${maxMemoryMb}`],
      env: Object.fromEntries(ENVIRONMENT.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : []))),
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.#listen();
    this.#child.unref();
    this.#child.channel?.unref();
    (this.#child.stderr as unknown as { unref?(): void } | null)?.unref?.();
  }

  get isReady(): boolean {
    return this.#isReady;
  }

  /** True once {@link kill} or {@link close} was called. */
  get isEnding(): boolean {
    return this.#closed || this.#killedFor !== null;
  }

  send(batch: number, items: VerifyItem[], limitMs: number): void {
    const request: WorkerRequest = { batch, items, limitMs };
    // A process that died meanwhile says so by its ending; the items are still the pool's.
    this.#child.send(request, () => {});
  }

  /** Ends the process at once; `ended` follows with this reason. */
  kill(ending: Ending): void {
    this.#killedFor ??= ending;
    this.#child.kill('SIGKILL');
  }

  /** Ends the process at once and silently. */
  close(): void {
    this.#closed = true;
    this.#child.kill('SIGKILL');
  }

  /** How much more memory than allowed it holds, in words, or null. Where the system does not tell, null. */
  overMemory(): string | null {
    const residentMb = residentMegabytes(this.#child.pid);
    return residentMb > this.#limitMb ? `the process held ${Math.round(residentMb)} MiB` : null;
  }

  #listen(): void {
    const child = this.#child;
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-KEPT_ERROR);
    });
    child.on('message', (reply: WorkerReply) => {
      if (this.#closed) return;
      if (Array.isArray(reply)) this.#events.reply(this, reply);
      else {
        this.#isReady = true;
        this.#events.ready(this);
      }
    });
    // Its last replies are read before the channel is seen to be closed.
    let waiting = 2;
    const ended = (): void => {
      waiting -= 1;
      if (waiting === 0 && !this.#closed) this.#events.ended(this, this.#killedFor ?? this.#ending());
    };
    child.once('disconnect', ended);
    child.once('close', ended);
    child.once('error', (error) => {
      // It could not be started: there is no channel and no exit.
      if (child.pid === undefined && !this.#closed) {
        this.#events.ended(this, { cause: 'crashed', message: error.message });
      }
    });
  }

  #ending(): Ending {
    const { signalCode, exitCode } = this.#child;
    const how = signalCode === null ? `exit code ${exitCode}` : `signal ${signalCode}`;
    const said = this.#stderr.trim();
    if (OUT_OF_MEMORY.test(said)) return { cause: 'memory', message: `JavaScript heap out of memory (${how})` };
    return { cause: 'crashed', message: said === '' ? `the process ended with ${how}` : `${how}: ${said}` };
  }
}

/** Resident memory of a process; 0 where the system does not tell. */
function residentMegabytes(pid: number | undefined): number {
  if (pid === undefined || process.platform !== 'linux') return 0;
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return Number(/^VmRSS:\s*([0-9]+) kB/m.exec(status)?.[1] ?? 0) / 1024;
  } catch {
    // It has ended: its ending says why.
    return 0;
  }
}
