/**
 * The program of a worker process of the verifier pool: receives batches, answers one item at a time, so that the pool
 * knows which item a silent or dead worker was at. It loads the comparison and nothing else of the package.
 */
import { Script } from 'node:vm';
import type { Verdict, VerifyItem } from './judge.js';

/** What the pool sends. */
export interface WorkerRequest {
  batch: number;
  items: VerifyItem[];
  /** The batch stops after so many milliseconds although nobody ended the process: the pool's process is gone then. */
  limitMs: number;
}

/** What a worker sends: first 'ready' with the milliseconds it took to load, then a tuple for every item. */
export type WorkerReply =
  | { ready: number }
  | [
      batch: number,
      index: number,
      outcome: Verdict['outcome'],
      answer: string | null,
      reason: string,
      milliseconds: number,
    ];

/** Longer answers and reasons are cut in a reply: replies of a whole batch must fit into the channel's buffer. */
const MAX_REPLY = 2_000;

const cut = (text: string): string => (text.length > MAX_REPLY ? `${text.slice(0, MAX_REPLY)}...` : text);

function send(reply: WorkerReply): void {
  process.send?.(reply);
}

function judgeAll(judge: (item: VerifyItem) => Verdict, { batch, items }: WorkerRequest): void {
  items.forEach((item, index) => {
    const start = performance.now();
    const { outcome, answer, reason } = judgeOne(judge, item);
    const milliseconds = performance.now() - start;
    send([batch, index, outcome, answer === null ? null : cut(answer), cut(reason), milliseconds]);
  });
}

/** Whatever is thrown becomes the item's verdict. */
function judgeOne(judge: (item: VerifyItem) => Verdict, item: VerifyItem): Omit<Verdict, 'equal'> {
  try {
    return judge(item);
  } catch (error) {
    const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return { outcome: 'crashed', answer: item.prediction ?? null, reason };
  }
}

// A terminal's Ctrl-C goes to the whole process group; whether to stop is the main process's decision.
process.on('SIGINT', () => {});
process.on('disconnect', () => process.exit());

const { judge } = (await import(process.argv[2] ?? './judge.js')) as { judge: (item: VerifyItem) => Verdict };
let request: WorkerRequest | undefined;
const work = new Script('__eepoJudge()');
(globalThis as Record<string, unknown>).__eepoJudge = () => judgeAll(judge, request as WorkerRequest);
process.on('message', (message: WorkerRequest) => {
  request = message;
  // The timer is for an orphan: a loop in a comparison would keep it from seeing that its parent is gone.
  work.runInThisContext({ timeout: message.limitMs });
});
send({ ready: performance.now() });
