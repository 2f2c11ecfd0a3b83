/** How far a download and the reading of weights are, on the terminal. */
import cliProgress from 'cli-progress';
import type { HubProgress } from '../hub/index.js';

/** Less to download, or to read from the disk, is not worth a line. */
const shownBytes = { download: 1e6, load: 1e9 };
/** Between two lines where the output is no terminal. */
const lineSeconds = 10;

interface Step {
  /** What it is about. */
  name: string;
  /** What is to be done. */
  verb: string;
  done: number;
  total: number;
}

function stepOf(progress: Exclude<HubProgress, { phase: 'note' }>): Step {
  const { phase, done, total } = progress;
  return phase === 'download'
    ? { name: progress.repo, verb: 'to download', done, total }
    : { name: `weights of ${progress.model}`, verb: 'to read', done, total };
}

/**
 * A listener for {@link HubOptions.onProgress}: a bar with bytes, speed and time left on a terminal, elsewhere a line at
 * the start, every ten seconds and at the end. Nothing is shown for files that are here already.
 */
export function hubProgress(
  stream: NodeJS.WriteStream = process.stderr,
  now: () => number = () => performance.now() / 1000,
): (progress: HubProgress) => void {
  const show = stream.isTTY ? bar(stream) : lines(stream, now);
  let current: { name: string; total: number; start: number; from: number; shown: boolean } | null = null;
  return (progress) => {
    if (progress.phase === 'note') {
      stream.write(`note: ${progress.text}\n`);
      return;
    }
    const step = stepOf(progress);
    if (current?.total !== step.total || current.name !== step.name) {
      const shown = step.total - step.done >= shownBytes[progress.phase];
      current = { name: step.name, total: step.total, start: now(), from: step.done, shown };
      if (shown) show.start(step);
    } else if (step.done <= current.from) {
      // what an earlier call left is not this one's speed
      current.from = step.done;
    }
    if (!current.shown) return;
    const speed = (step.done - current.from) / Math.max(now() - current.start, 1e-3);
    show.update(step, speed);
    if (step.done >= step.total) {
      show.stop(step, speed);
      current = null;
    }
  };
}

/** The bar on the screen, if there is one. */
let onScreen: cliProgress.SingleBar | null = null;

/** Ends a bar that a failure left, so that what is written next has a line of its own. */
export function endHubProgress(): void {
  onScreen?.stop();
  onScreen = null;
}

interface Display {
  start(step: Step): void;
  /** `speed` in bytes a second. */
  update(step: Step, speed: number): void;
  stop(step: Step, speed: number): void;
}

function bar(stream: NodeJS.WriteStream): Display {
  const payload = ({ name, done, total }: Step, speed: number) => ({
    name,
    bytes: `${size(done)} of ${size(total)}`,
    speed: `${size(speed)}/s`,
    left: time((total - done) / speed),
  });
  return {
    start(step) {
      endHubProgress();
      onScreen = new cliProgress.SingleBar({
        stream,
        format: '{name} {bar} {percentage}% | {bytes} | {speed} | {left} left',
        barsize: 24,
        hideCursor: true,
      });
      onScreen.start(step.total, step.done, payload(step, 0));
    },
    update(step, speed) {
      onScreen?.update(step.done, payload(step, speed));
    },
    stop: endHubProgress,
  };
}

function lines(stream: NodeJS.WriteStream, now: () => number): Display {
  let last = 0;
  return {
    start({ name, verb, done, total }) {
      last = now();
      stream.write(`${name}: ${size(total - done)} ${verb}${done > 0 ? `, ${size(done)} done` : ''}\n`);
    },
    update({ name, done, total }, speed) {
      if (now() - last < lineSeconds || done >= total) return;
      last = now();
      const percent = Math.floor((100 * done) / total);
      stream.write(`${name}: ${percent}%, ${size(done)}, ${size(speed)}/s, ${time((total - done) / speed)} left\n`);
    },
    stop({ name, total }, speed) {
      stream.write(`${name}: ${size(total)} complete, ${size(speed)}/s\n`);
    },
  };
}

/** 1.5 GB */
function size(bytes: number): string {
  if (!(bytes > 0)) return '0 B';
  const power = Math.min(4, Math.floor(Math.log10(bytes) / 3));
  const unit = ['B', 'kB', 'MB', 'GB', 'TB'][power];
  return `${(bytes / 1000 ** power).toFixed(power > 0 ? 1 : 0)} ${unit}`;
}

/** 1:02:03 */
function time(seconds: number): string {
  if (!Number.isFinite(seconds)) return '-';
  const whole = Math.ceil(seconds);
  const two = (value: number) => String(value).padStart(2, '0');
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}
