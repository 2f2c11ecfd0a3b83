/** What `eepo eval` shows while it works: one bar a phase on a terminal, plain lines elsewhere. */
import { SingleBar } from 'cli-progress';
import type { EvaluationProgress } from '../eval/types.js';
import { formatSeconds, secondsLeft } from '../train/progress.js';

export interface EvalProgressOptions {
  /** Before every line: the model. */
  label: string;
  stream?: NodeJS.WriteStream;
  /** Without a terminal, at most so many lines a phase. Default 20. */
  lines?: number;
  /** Milliseconds, for tests. Default `performance.now`. */
  clock?: () => number;
}

/** `45.3 %`, tokens per second, time left, and what could not be decided. */
export function progressLine(progress: EvaluationProgress, seconds: number, left: number): string {
  const { responses, correct, undecided, tokens } = progress;
  return [
    `${responses === 0 ? '-' : ((correct / responses) * 100).toFixed(1)} % correct`,
    `${seconds > 0 ? Math.round(tokens / seconds) : 0} tok/s`,
    ...(undecided > 0 ? [`${undecided} undecided`] : []),
    ...(Number.isFinite(left) ? [`${formatSeconds(left)} left`] : []),
  ].join('  ');
}

/** Feed it the events of an evaluation. */
export class EvalProgress {
  readonly #label: string;
  readonly #stream: NodeJS.WriteStream;
  readonly #lines: number;
  readonly #clock: () => number;
  #phase = '';
  #bar: SingleBar | null = null;
  #start = 0;
  #before = 0;
  #written = -1;
  #text = '';

  constructor({ label, stream = process.stderr, lines = 20, clock = () => performance.now() }: EvalProgressOptions) {
    this.#label = label;
    this.#stream = stream;
    this.#lines = lines;
    this.#clock = clock;
  }

  update(progress: EvaluationProgress): void {
    const { set, phase, done, total } = progress;
    const title = `${this.#label}${set} ${phase === 'greedy' ? 'greedy' : 'samples'}`;
    if (title !== this.#phase) this.#begin(title, progress);
    const seconds = (this.#clock() - this.#start) / 1000;
    this.#text = progressLine(progress, seconds, secondsLeft(done - this.#before, total - this.#before, seconds));
    this.#bar?.update(done);
    if (this.#bar !== null) {
      if (done === total) this.#end();
      return;
    }
    const step = Math.floor((done / total) * this.#lines);
    if (step === this.#written) return;
    this.#written = step;
    this.#stream.write(`${title}  ${done}/${total}  ${this.#text}\n`);
  }

  /** Leaves the terminal as it was; after an error too. */
  stop(): void {
    this.#end();
  }

  #begin(title: string, { done, total }: EvaluationProgress): void {
    this.#end();
    this.#phase = title;
    this.#text = '';
    this.#start = this.#clock();
    // What an earlier run has done is not of this one's pace.
    this.#before = done;
    this.#written = Math.floor((done / total) * this.#lines);
    if (!this.#stream.isTTY && done > 0) this.#stream.write(`${title}  ${done}/${total} are there\n`);
    if (!this.#stream.isTTY) return;
    const width = 20;
    this.#bar = new SingleBar({
      stream: this.#stream,
      hideCursor: true,
      format: (_options, params) => {
        const filled = Math.round(params.progress * width);
        return `${title} [${'#'.repeat(filled)}${'.'.repeat(width - filled)}] ${params.value}/${total}  ${this.#text}`;
      },
    });
    this.#bar.start(total, done);
  }

  #end(): void {
    this.#bar?.stop();
    this.#bar = null;
  }
}
