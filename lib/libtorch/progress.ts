import cliProgress from 'cli-progress';

/** Tells how far a long step is. */
export interface Progress {
  /** Begins a step; `total` is in bytes, 0 if unknown. */
  start(label: string, total: number): void;
  /** Sets the bytes done so far. */
  update(done: number): void;
  /** Ends the step. */
  stop(): void;
  /** One line of text between steps. */
  note(text: string): void;
}

/** Says nothing. */
export const silent: Progress = { start() {}, update() {}, stop() {}, note() {} };

const megabytes = (bytes: number) => (bytes / 1e6).toFixed(0);

/** A bar on a terminal; elsewhere a line at the start, at every tenth and at the end. */
export function terminalProgress(stream: NodeJS.WriteStream = process.stderr): Progress {
  return stream.isTTY ? bar(stream) : lines(stream);
}

function bar(stream: NodeJS.WriteStream): Progress {
  let current: cliProgress.SingleBar | undefined;
  return {
    start(label, total) {
      current = new cliProgress.SingleBar({
        stream,
        format: `${label} {bar} {percentage}% | {megabytes} MB | {eta_formatted} left`,
        barsize: 30,
        hideCursor: true,
      });
      current.start(Math.max(total, 1), 0, { megabytes: '0' });
    },
    update(done) {
      current?.update(done, { megabytes: megabytes(done) });
    },
    stop() {
      current?.stop();
      current = undefined;
    },
    note(text) {
      stream.write(`${text}\n`);
    },
  };
}

function lines(stream: NodeJS.WriteStream): Progress {
  let label = '';
  let total = 0;
  let tenth = 0;
  let done = 0;
  return {
    start(name, bytes) {
      [label, total, tenth, done] = [name, bytes, 0, 0];
      stream.write(total > 0 ? `${label}: ${megabytes(total)} MB\n` : `${label}\n`);
    },
    update(bytes) {
      done = bytes;
      const now = total > 0 ? Math.floor((10 * done) / total) : 0;
      if (now > tenth && now < 10) stream.write(`${label}: ${now * 10}%\n`);
      tenth = Math.max(tenth, now);
    },
    stop() {
      stream.write(`${label}: ${megabytes(done)} MB done\n`);
    },
    note(text) {
      stream.write(`${text}\n`);
    },
  };
}
