/** Other implementations of the same work, in a Python process of their own that answers line by line. */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { withoutTokens } from '../environment.js';
import { UnsupportedError } from '../errors.js';
import { packageRoot } from '../native.js';
import type { TensorDevice } from '../tensor.js';
import type { Errors, Runner } from './native.js';
import type { WorkloadSpec } from './workloads.js';

export interface PeerOptions {
  device: TensorDevice;
  threads: number;
  /** A Python with torch. Default: EEPO_PYTHON, else python3, else python, whichever has torch. */
  python?: string;
  /** Without torch.compile, whose first call compiles for many seconds. */
  compile: boolean;
  /** Checkouts to import Liger-Kernel and verl from. */
  liger?: string;
  verl?: string;
}

/** What the process said first. */
export interface PeerMachine {
  torch: string;
  python: string;
  threads: number;
  /** Peers that cannot run here, and why. */
  missing: Record<string, string>;
}

/** The work each peer offers on the open workload, by the names of our kernels. */
export type Offer = Record<string, string[]>;

/** The first Python that has torch; the reasons where none has. */
export function findPython(
  given: string | undefined,
  env: NodeJS.ProcessEnv = process.env,
): { python?: string; reasons: string[] } {
  const reasons: string[] = [];
  const candidates = given ? [given] : env.EEPO_PYTHON ? [env.EEPO_PYTHON] : ['python3', 'python'];
  for (const python of candidates) {
    const tried = spawnSync(python, ['-c', 'import torch'], { encoding: 'utf8', env: withoutTokens(env) });
    if (tried.status === 0) return { python, reasons };
    const last = tried.error?.message ?? tried.stderr.trim().split('\n').at(-1) ?? '';
    reasons.push(`${python}: ${last}`);
  }
  return { reasons };
}

type Answer = Record<string, unknown> & { error?: string };

/** One Python process with all peers of a device. */
export class Peers {
  private readonly waiting: { resolve: (answer: Answer) => void; reject: (error: Error) => void }[] = [];
  private ended: Error | undefined;
  machine!: PeerMachine;

  private constructor(private readonly child: ChildProcessWithoutNullStreams) {
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.waiting.shift()?.resolve(JSON.parse(line) as Answer);
    });
    let words = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      words = (words + text).slice(-2000);
    });
    const end = (reason: string): void => {
      this.ended ??= new UnsupportedError(`the peers' process ended: ${reason}\n${words}`);
      for (const { reject } of this.waiting.splice(0)) reject(this.ended);
    };
    child.stdin.on('error', () => {}); // 'close' says it better
    child.on('error', (error) => end(error.message));
    child.on('close', (code, signal) => end(signal ?? `exit ${code}`));
  }

  static async start(python: string, options: PeerOptions): Promise<Peers> {
    const script = join(packageRoot, 'bench', `peers_${options.device}.py`);
    const args = [script, '--threads', `${options.threads}`];
    if (!options.compile) args.push('--no-compile');
    if (options.liger) args.push('--liger', options.liger);
    if (options.verl) args.push('--verl', options.verl);
    const peers = new Peers(
      spawn(python, args, { env: { ...withoutTokens(process.env), PYTHONDONTWRITEBYTECODE: '1' } }),
    );
    const first = await peers.answer();
    if (first.error !== undefined) throw new UnsupportedError(first.error);
    peers.machine = first as unknown as PeerMachine;
    return peers;
  }

  /** Makes the data of a workload there. */
  async open(spec: WorkloadSpec): Promise<Offer> {
    return (await this.ask({ open: spec })).offer as Offer;
  }

  /** Frees the data of the open workload. */
  async clear(): Promise<void> {
    await this.ask({ close: true });
  }

  /** One peer on the open workload. */
  runner(peer: string): Runner {
    return {
      run: async (name) => (await this.ask({ run: name, peer })).ms as number,
      memory: async (name) => (await this.ask({ memory: name, peer })).bytes as number,
      errors: async (name) => (await this.ask({ errors: name, peer })).errors as Errors,
    };
  }

  async close(): Promise<void> {
    if (this.ended) return;
    const closed = new Promise((resolve) => this.child.once('close', resolve));
    this.child.stdin.end();
    await closed;
  }

  private async ask(question: object): Promise<Answer> {
    if (this.ended) throw this.ended;
    this.child.stdin.write(`${JSON.stringify(question)}\n`);
    const answer = await this.answer();
    if (answer.error !== undefined) throw new UnsupportedError(answer.error);
    return answer;
  }

  private answer(): Promise<Answer> {
    if (this.ended) return Promise.reject(this.ended);
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }
}
