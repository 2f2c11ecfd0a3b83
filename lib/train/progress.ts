/** What a run shows while it works: one line that moves on a terminal, plain lines elsewhere. */
import { SingleBar } from 'cli-progress';
import type { Metrics } from './metrics.js';
import type { RunEvent } from './run.js';
import type { Iteration, TrainerPhase } from './trainer.js';

/** `1h02m`, `3m20s`, `12s`. */
export function formatSeconds(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s >= 3600) return `${Math.floor(s / 3600)}h${String(Math.floor((s % 3600) / 60)).padStart(2, '0')}m`;
  return s >= 60 ? `${Math.floor(s / 60)}m${String(s % 60).padStart(2, '0')}s` : `${s}s`;
}

const fixed = (value: number | undefined, digits = 3): string => (value === undefined ? '-' : value.toFixed(digits));

/** Reward, entropies of both stages, speed. */
export function metricsLine(metrics: Metrics): string {
  const h2 = metrics['rollout/stage2/entropy'];
  return [
    `reward ${fixed(metrics['reward/mean'])}`,
    `H1 ${fixed(metrics['rollout/stage1/entropy'])}`,
    ...(h2 === undefined ? [] : [`H2 ${fixed(h2)}`]),
    `${Math.round(metrics['perf/tokens_per_s'] ?? 0)} tok/s`,
  ].join('  ');
}

/** Seconds left, from the mean pace so far; the time for evaluations is not in it. */
export function secondsLeft(done: number, total: number, elapsed: number): number {
  return done === 0 ? Number.NaN : ((total - done) * elapsed) / done;
}

export interface ProgressOptions {
  iterations: number;
  /** Before every line. */
  label?: string;
  stream?: NodeJS.WriteStream;
  /** Without a terminal, at most so many lines. Default 40. */
  lines?: number;
}

/** Feed it the trainer's events and iterations. */
export class Progress {
  readonly #options: Required<ProgressOptions>;
  readonly #bar: SingleBar | null;
  readonly #start = performance.now();
  #phase: TrainerPhase | 'checkpoint' | '' = '';
  #detail = '';
  #line = '';
  #left = Number.NaN;
  /** Iterations that a run which goes on had done before. */
  #before: number | null = null;
  #done = 0;

  constructor(options: ProgressOptions) {
    this.#options = { label: '', stream: process.stderr, lines: 40, ...options };
    const { stream, iterations, label } = this.#options;
    this.#bar = stream.isTTY
      ? new SingleBar({
          stream,
          hideCursor: true,
          clearOnComplete: false,
          format: (_options, params) => {
            const width = 20;
            const filled = Math.round(params.progress * width);
            const bar = '#'.repeat(filled) + '.'.repeat(width - filled);
            const left = Number.isNaN(this.#left) ? '' : `  ${formatSeconds(this.#left)} left`;
            return `${label}[${bar}] ${params.value}/${iterations}  ${this.#line}${left}  ${this.#phase}${this.#detail}`;
          },
        })
      : null;
    this.#bar?.start(iterations, 0);
  }

  event(event: RunEvent): void {
    if (event.type === 'checkpoint') {
      this.#phase = event.step === 'end' ? '' : 'checkpoint';
      this.#detail = '';
    } else if (event.type === 'phase') {
      this.#phase = event.phase;
      this.#detail = '';
      if (event.phase === 'eval' && this.#bar === null)
        this.#options.stream.write(`${this.#options.label}evaluating\n`);
    } else {
      this.#detail = ` ${event.tokens} tokens, ${event.running} running`;
    }
    this.#bar?.update(this.#done);
  }

  iteration({ iteration, metrics }: Iteration): void {
    const { iterations, label, lines, stream } = this.#options;
    if (iteration === 0) return;
    this.#done = iteration;
    this.#line = metricsLine(metrics);
    this.#before ??= iteration - 1;
    const done = iteration - this.#before;
    this.#left = secondsLeft(done, iterations - this.#before, (performance.now() - this.#start) / 1000);
    this.#bar?.update(iteration);
    if (this.#bar !== null) return;
    const every = Math.max(1, Math.ceil(iterations / lines));
    if (iteration !== 1 && iteration % every !== 0 && iteration !== iterations) return;
    stream.write(`${label}${iteration}/${iterations}  ${this.#line}  ${formatSeconds(this.#left)} left\n`);
  }

  stop(): void {
    this.#bar?.stop();
  }
}
