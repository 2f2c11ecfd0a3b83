/** The runs that a server shows: looked at when somebody asks, at most every so often, by one look at a time. */
import { randomBytes } from 'node:crypto';
import { basename, resolve } from 'node:path';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { RunFollower } from './follow-run.js';
import { type LiveData, liveData } from './view.js';

/** Everything a page shows, as JSON; one for all who ask, made once for each change. */
export interface Snapshot {
  /** Changes with the content; also from process to process. */
  version: string;
  data: LiveData;
  json: Buffer;
  gzipped: Buffer;
}

const zip = promisify(gzip);
/** After a look nothing is done for so many times as long as it took, but for at most so many times `everyMs`. */
const REST = 10;
const MOST = 15;

export class WatchedRuns {
  readonly #followers: readonly RunFollower[];
  /** In the order in which they began to be there: a run keeps its colour when an earlier one begins later. */
  readonly #begun: RunFollower[] = [];
  readonly #everyMs: number;
  readonly #process = randomBytes(6).toString('hex');
  #changes = 0;
  #snapshot: Snapshot | null = null;
  #looking: Promise<Snapshot> | null = null;
  /** When the files may be looked at again. */
  #next = Number.NEGATIVE_INFINITY;

  /** @param everyMs the files are looked at no more often */
  constructor(folders: readonly string[], everyMs: number) {
    const names = namesOf(folders);
    this.#followers = folders.map((folder, i) => new RunFollower(folder, names[i]));
    this.#everyMs = everyMs;
  }

  /** The state of now, or of less than `everyMs` ago. */
  async snapshot(): Promise<Snapshot> {
    if (this.#looking !== null) return this.#looking;
    if (this.#snapshot !== null && performance.now() < this.#next) return this.#snapshot;
    this.#looking = this.#look();
    try {
      return await this.#looking;
    } finally {
      this.#looking = null;
    }
  }

  async #look(): Promise<Snapshot> {
    const began = performance.now();
    let changed = this.#snapshot === null;
    // one after the other: there is a training run on this machine
    for (const follower of this.#followers) if (await follower.refresh()) changed = true;
    if (changed || this.#snapshot === null) {
      this.#changes += 1;
      const version = `${this.#process}-${this.#changes}`;
      const statuses = this.#followers.map(({ status }) => status);
      for (const one of this.#followers) if (one.data !== null && !this.#begun.includes(one)) this.#begun.push(one);
      const runs = this.#begun.flatMap(({ data }) => data ?? []);
      const data = liveData(runs, { version, runs: statuses });
      const json = Buffer.from(JSON.stringify(data));
      this.#snapshot = { version, data, json, gzipped: await zip(json, { level: 1 }) };
    }
    const now = performance.now();
    // long runs: the training, not the page, is what this machine is for
    this.#next = now + Math.min(this.#everyMs * MOST, Math.max(this.#everyMs, REST * (now - began)));
    return this.#snapshot;
  }
}

/** The folders' own names; paths where two have the same. */
function namesOf(folders: readonly string[]): string[] {
  const own = folders.map((folder) => basename(resolve(folder)));
  return folders.map((folder, i) => (own.filter((name) => name === own[i]).length > 1 ? folder : (own[i] as string)));
}
