/** What `eepo study` shows while it works: one line that moves on a terminal, a line a run elsewhere. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SingleBar } from 'cli-progress';
import type { ChildEnd } from '../study/child.js';
import type { Needed } from '../study/choose.js';
import { estimate } from '../study/estimate.js';
import type { Run, Study } from '../study/load.js';
import { counts, type StudyState } from '../study/runner.js';
import { formatSeconds } from '../train/progress.js';
import { printable } from './common.js';

const WIDTH = 20;

/** Feed it every change. */
export class StudyProgress {
  readonly #study: Study;
  readonly #jobs: number;
  readonly #stream: NodeJS.WriteStream;
  readonly #bar: SingleBar | null;
  readonly #timer: NodeJS.Timeout | null;
  #state: StudyState;
  #line = '';

  constructor(study: Study, state: StudyState, jobs: number, stream: NodeJS.WriteStream = process.stderr) {
    this.#study = study;
    this.#state = state;
    this.#jobs = jobs;
    this.#stream = stream;
    this.#bar = stream.isTTY
      ? new SingleBar({ stream, hideCursor: true, clearOnComplete: true, format: () => this.#line })
      : null;
    this.#bar?.start(1, 0);
    this.#timer = this.#bar === null ? null : setInterval(() => this.#show(), 1000);
    this.#show();
  }

  change(state: StudyState): void {
    this.#state = state;
    this.#show();
  }

  end({ run }: Needed, end: ChildEnd, state: StudyState): void {
    this.#state = state;
    const { done, failed, total } = counts(this.#study, state);
    const seconds = state.finished.get(run.hash)?.seconds;
    const what = {
      finished: seconds === undefined ? 'finished' : `finished in ${formatSeconds(seconds)}`,
      stopped: 'stopped at a checkpoint',
      failed: `failed: ${end.status === 'failed' ? printable(end.reason).replaceAll('\n', '\n  ') : ''}`,
    }[end.status];
    const left = end.status === 'stopped' ? '' : this.#left();
    this.#say(`${done + failed}/${total}  ${run.name} ${what}${left}`);
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#bar?.stop();
  }

  /** A line that stays, above the one that moves. */
  #say(text: string): void {
    if (this.#bar !== null) this.#stream.write('\r\x1b[K');
    this.#stream.write(`${text}\n`);
    this.#show();
  }

  #left(): string {
    const left = estimate(this.#study, this.#state).left((run) =>
      this.#state.running.has(run.hash) ? iterationOf(run) / run.config.run.iterations : 0,
    );
    return left === null || left === 0 ? '' : `  ${formatSeconds(left / this.#jobs)} left`;
  }

  #show(): void {
    if (this.#bar === null) return;
    const { done, failed, total } = counts(this.#study, this.#state);
    const running = [...this.#state.running.values()].map(
      ({ run }) => `${run.name} ${iterationOf(run)}/${run.config.run.iterations}`,
    );
    const filled = total === 0 ? WIDTH : Math.round((WIDTH * (done + failed)) / total);
    const line = [
      `[${'#'.repeat(filled)}${'.'.repeat(WIDTH - filled)}] ${done}/${total}${failed > 0 ? `, ${failed} failed` : ''}${this.#left()}`,
      ...running,
    ].join('  ');
    this.#line = line.slice(0, Math.max(20, (this.#stream.columns ?? 80) - 1));
    this.#bar.update(0);
  }
}

/** The last iteration whose line is on disk. */
export function iterationOf({ folder }: Run): number {
  const path = join(folder, 'metrics.jsonl');
  if (!existsSync(path)) return 0;
  const last = readFileSync(path, 'utf8').trimEnd().split('\n').at(-1) ?? '';
  const match = /"iteration":(\d+)/.exec(last);
  return match === null ? 0 : Number(match[1]);
}
