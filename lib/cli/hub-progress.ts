/** How far a download is, on the terminal. */
import cliProgress from 'cli-progress';
import type { HubProgress } from '../hub/index.js';

/** Less is not worth a line. */
const shownBytes = 1e6;
/** Between two lines where the output is no terminal. */
const lineSeconds = 10;

type Download = Extract<HubProgress, { phase: 'download' }>;

/**
 * A listener for {@link HubOptions.onProgress}: a bar with bytes, speed and time left on a terminal, elsewhere a line at
 * the start, every ten seconds and at the end. Nothing is shown for files that are here already.
 */
export function hubProgress(
  stream: NodeJS.WriteStream = process.stderr,
  now: () => number = () => performance.now() / 1000,
): (progress: HubProgress) => void {
  const show = stream.isTTY ? bar(stream) : lines(stream, now);
  let step: { total: number; start: number; from: number; shown: boolean } | null = null;
  return (progress) => {
    if (progress.phase === 'note') stream.write(`note: ${progress.text}\n`);
    if (progress.phase !== 'download') return;
    if (step?.total !== progress.total) {
      const shown = progress.total - progress.done >= shownBytes;
      step = { total: progress.total, start: now(), from: progress.done, shown };
      if (shown) show.start(progress);
    } else if (progress.done <= step.from) {
      // what an earlier call left is not this one's speed
      step.from = progress.done;
    }
    if (!step.shown) return;
    const speed = (progress.done - step.from) / Math.max(now() - step.start, 1e-3);
    show.update(progress, speed);
    if (progress.done >= progress.total) {
      show.stop(progress, speed);
      step = null;
    }
  };
}

interface Display {
  start(progress: Download): void;
  /** `speed` in bytes a second. */
  update(progress: Download, speed: number): void;
  stop(progress: Download, speed: number): void;
}

function bar(stream: NodeJS.WriteStream): Display {
  let current: cliProgress.SingleBar | null = null;
  const payload = ({ repo, done, total }: Download, speed: number) => ({
    repo,
    bytes: `${size(done)} of ${size(total)}`,
    speed: `${size(speed)}/s`,
    left: time((total - done) / speed),
  });
  return {
    start(progress) {
      current?.stop();
      current = new cliProgress.SingleBar({
        stream,
        format: '{repo} {bar} {percentage}% | {bytes} | {speed} | {left} left',
        barsize: 24,
        hideCursor: true,
      });
      current.start(progress.total, progress.done, payload(progress, 0));
    },
    update(progress, speed) {
      current?.update(progress.done, payload(progress, speed));
    },
    stop() {
      current?.stop();
      current = null;
    },
  };
}

function lines(stream: NodeJS.WriteStream, now: () => number): Display {
  let last = 0;
  return {
    start({ repo, done, total }) {
      last = now();
      stream.write(`${repo}: ${size(total - done)} to download${done > 0 ? `, ${size(done)} are here` : ''}\n`);
    },
    update({ repo, done, total }, speed) {
      if (now() - last < lineSeconds || done >= total) return;
      last = now();
      const percent = Math.floor((100 * done) / total);
      stream.write(`${repo}: ${percent}%, ${size(done)}, ${size(speed)}/s, ${time((total - done) / speed)} left\n`);
    },
    stop({ repo, total }, speed) {
      stream.write(`${repo}: ${size(total)} complete, ${size(speed)}/s\n`);
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
